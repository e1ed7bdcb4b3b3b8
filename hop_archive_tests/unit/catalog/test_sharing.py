"""How those who archive at the same time divide what they want."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.records import Claim
from hop_archive.catalog.sharing import fair_share
from hop_archive.model.slices import PartitionLog

LOGS = [PartitionLog("t", 1, number) for number in range(9)]
wishes = st.dictionaries(
    st.sampled_from(["A", "B", "C", "D"]), st.frozensets(st.sampled_from(LOGS)), min_size=1, max_size=4
)


def claims_of(
    wanted: Mapping[str, frozenset[PartitionLog]], held: Mapping[str, frozenset[PartitionLog]], who: str
) -> list[Claim]:
    return [
        Claim(at, holder, at in held.get(holder, ()))
        for holder, logs in wanted.items()
        for at in sorted(logs & wanted[who])
    ]


def quota(wanted: Mapping[str, frozenset[PartitionLog]], at: PartitionLog) -> tuple[frozenset[str], int]:
    """Who wants what ``at`` is one of, and how many of these each may have."""

    def sharers(log: PartitionLog) -> frozenset[str]:
        return frozenset(holder for holder, logs in wanted.items() if log in logs)

    alike = [log for log in LOGS if sharers(log) == sharers(at)]
    return sharers(at), -(-len(alike) // len(sharers(at)))


@given(wishes, st.lists(st.sampled_from(["A", "B", "C", "D"]), max_size=12), st.permutations(LOGS))
def test_whoever_claims_when_each_log_comes_to_be_held_once_and_nobody_has_more_than_its_share(
    wanted: dict[str, frozenset[PartitionLog]], turns: list[str], first: list[PartitionLog]
) -> None:
    held: dict[str, frozenset[PartitionLog]] = {}
    left = list(first)
    for holder in wanted:  # as it may have come about: anything, as long as nobody holds what another does
        held[holder] = frozenset(left[: len(left) // 2]) & wanted[holder]
        left = left[len(left) // 2 :]

    def claim(holder: str) -> None:
        held[holder] = fair_share(holder, claims_of(wanted, held, holder))
        assert held[holder] <= wanted[holder]
        assert max(Counter(at for logs in held.values() for at in logs).values(), default=0) <= 1

    for holder in [turn for turn in turns if turn in wanted] + 2 * list(wanted):
        claim(holder)
    assert frozenset().union(*held.values()) == frozenset().union(*wanted.values())
    for holder, logs in list(held.items()):
        of_group: dict[frozenset[str], int] = defaultdict(int)
        for at in logs:
            sharers, most = quota(wanted, at)
            of_group[sharers] += 1
            assert of_group[sharers] <= most
        claim(holder)
        assert held[holder] == logs, "nobody gives away what nobody asks for"


def test_sixteen_partitions_are_divided_evenly_among_those_who_want_them() -> None:
    logs = [PartitionLog("t", 1, number) for number in range(16)]
    assert len(fair_share("A", [Claim(at, "A") for at in logs])) == 16
    both = [Claim(at, holder, holder == "A") for at in logs for holder in "AB"]
    assert fair_share("A", both) == frozenset(logs[:8])
    assert fair_share("B", both) == frozenset(), "what A has not let go of is not taken"


def test_who_works_elsewhere_takes_nothing_away() -> None:
    mine = [Claim(at, "A") for at in LOGS]
    assert fair_share("A", [*mine, Claim(LOGS[0], "B")]) == frozenset(LOGS)
