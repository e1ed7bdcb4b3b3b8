"""What goes wrong in a soak follows from its seed, everything does within minutes, and all is over at the end."""

from __future__ import annotations

from itertools import pairwise

from hop_archive.devkit.proxy import Trouble
from hop_archive_tests.soak.schedule import FILLED, FROZEN, KILLED, NETWORKS, Deed, Kind, schedule

FIVE_MINUTES_S = 300.0


def test_a_seed_is_a_schedule() -> None:
    assert schedule(1, FIVE_MINUTES_S) == schedule(1, FIVE_MINUTES_S) != schedule(2, FIVE_MINUTES_S)


def test_within_five_minutes_everything_happens_to_everybody() -> None:
    for seed in range(20):
        deeds = schedule(seed, FIVE_MINUTES_S)
        assert {(d.target, d.trouble) for d in deeds if d.trouble} == {
            (n, t) for n in NETWORKS for t in Trouble
        }
        for kind, targets in (
            (Kind.KILL, KILLED),
            (Kind.FREEZE, FROZEN),
            (Kind.FILL, FILLED),
            (Kind.CLOCK, ("clock",)),
        ):
            assert {deed.target for deed in deeds if deed.kind is kind} == set(targets)


def test_no_two_deeds_are_done_to_one_target_at_once_and_the_last_ends_in_time() -> None:
    for seed in range(20):
        deeds = schedule(seed, FIVE_MINUTES_S)
        assert all(deed.at_s + deed.for_s <= FIVE_MINUTES_S for deed in deeds)
        by_target: dict[tuple[bool, str], list[Deed]] = {}
        for deed in deeds:
            by_target.setdefault((deed.kind is Kind.NETWORK, deed.target), []).append(deed)
        for some in by_target.values():
            assert all(a.at_s + a.for_s < b.at_s for a, b in pairwise(some))
