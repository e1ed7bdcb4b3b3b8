"""Who archives what, over every catalog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from hop_archive.catalog.postgres import claims
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Share
from hop_archive.ingest.sharing import Sharing
from hop_archive.model.slices import PartitionLog
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.contract.catalog_helpers import full_batch
from hop_archive_tests.worlds import World

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

LOGS = [PartitionLog("alerts", 1, number) for number in range(4)]
LONG_S = 3600.0
OVER = 0.0
"""The lease of who is gone already when the next one looks."""


def test_who_is_alone_holds_all_that_it_wants_and_nothing_more(catalog: Catalog) -> None:
    assert catalog.claim_logs("A", LOGS, LONG_S) == Share(frozenset(LOGS))
    assert catalog.claim_logs("A", LOGS, LONG_S) == Share(frozenset(LOGS))
    assert catalog.claim_logs("A", LOGS[:1], LONG_S) == Share(frozenset(LOGS[:1]))
    assert not catalog.renew_claims("A", LONG_S)
    assert catalog.claim_logs("B", LOGS[1:], LONG_S) == Share(frozenset(LOGS[1:]))
    assert catalog.claim_logs("A", [], LONG_S) == Share(frozenset())


def test_who_comes_second_waits_until_the_first_has_let_go_of_its_half(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, LONG_S)
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(), ("A",))
    assert catalog.renew_claims("A", LONG_S), "A is asked to give"
    assert not catalog.renew_claims("B", LONG_S)
    kept = catalog.claim_logs("A", LOGS, LONG_S).mine
    assert len(kept) == 2
    assert not catalog.renew_claims("A", LONG_S)
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS) - kept, ("A",))


def test_what_is_let_go_of_and_what_is_wanted_no_more_is_free(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, LONG_S)
    catalog.claim_logs("A", LOGS[:1], LONG_S)
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS[1:]), ("A",))
    catalog.drop_claims("A")
    catalog.drop_claims("A")
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS))


def test_who_is_not_heard_of_any_more_holds_nothing_and_is_told_so_when_it_wakes_up(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, OVER)
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS))
    assert catalog.renew_claims("A", LONG_S)
    assert catalog.renew_claims("never there", LONG_S)
    assert catalog.claim_logs("A", LOGS, LONG_S) == Share(frozenset(), ("B",))


def test_renewing_lasts_from_now_on(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, LONG_S)
    assert not catalog.renew_claims("A", OVER)
    assert catalog.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS))


def test_claims_keep_nobody_from_archiving(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, LONG_S)
    batch = full_batch(0, 5, "alerts")
    catalog.commit(batch)
    assert [entry.slice for entry in catalog.ledger()] == [batch.slice]


@pytest.mark.parametrize("round_", range(5))
def test_any_number_that_claim_at_once_hold_nothing_in_common(catalog: Catalog, round_: int) -> None:
    names = [f"{number}" for number in range(6)]
    logs = [PartitionLog(topic, 1, number) for topic in ("alerts", "others") for number in range(10)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            shares = list(pool.map(lambda name: catalog.claim_logs(name, logs, LONG_S), names))
    again = [catalog.claim_logs(name, logs, LONG_S).mine for name in names]
    assert sorted(at for mine in again for at in mine) == sorted(logs)
    assert all(mine <= share.mine or len(mine) <= 4 for mine, share in zip(again, shares, strict=True))


def test_whose_lease_ends_while_another_claims_holds_until_the_next_claims(
    postgres: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "given.* FROM "
    over = "(SELECT pg_sleep_until(max(until)) FROM archivers WHERE holder = 'A') AS over, "
    postgres.claim_logs("A", LOGS, 3.0)
    with monkeypatch.context() as during:
        during.setattr(claims, "WANT", claims.WANT.replace(given, given + over))
        assert postgres.claim_logs("B", LOGS, LONG_S) == Share(frozenset(), ("A",))
    assert postgres.claim_logs("B", LOGS, LONG_S) == Share(frozenset(LOGS))


HOLDER = """
import time
from hop_archive.ingest.sharing import new_holder
print(new_holder("another"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def another() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that archives, and by what name."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def sharing(catalog: Catalog, lease_s: float = LONG_S) -> Sharing:
    def sleep(seconds: float) -> None:
        raise AssertionError("nothing is waited for")

    return Sharing(replace(World().archive(), catalog=catalog), sleep, lease_s)


def test_what_one_of_this_machine_held_that_died_is_taken_over_at_once(
    catalog: Catalog, another: tuple[subprocess.Popen[str], str]
) -> None:
    process, holder = another
    catalog.claim_logs(holder, LOGS, LONG_S)
    mine = sharing(catalog)
    assert mine.take(LOGS) == frozenset()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert mine.take(LOGS) == frozenset(), "who is stopped may go on"
    process.kill()
    process.wait()
    assert mine.take(LOGS) == frozenset(LOGS)
    assert mine.others == {"another"}
    mine.close()


def test_what_one_of_another_machine_held_is_waited_for(
    catalog: Catalog, another: tuple[subprocess.Popen[str], str]
) -> None:
    process, holder = another
    process.kill()
    process.wait()
    catalog.claim_logs(f"{holder}-elsewhere", LOGS, LONG_S)
    mine = sharing(catalog)
    assert mine.take(LOGS) == frozenset()
    mine.close()


def test_one_that_was_taken_for_dead_and_lives_is_told_so_and_gets_its_share_again(catalog: Catalog) -> None:
    catalog.claim_logs("A", LOGS, LONG_S)
    catalog.drop_claims("A")
    catalog.claim_logs("B", LOGS, LONG_S)
    assert catalog.renew_claims("A", LONG_S)
    assert catalog.claim_logs("A", LOGS, LONG_S) == Share(frozenset(), ("B",))
    assert catalog.renew_claims("B", LONG_S)
    kept = catalog.claim_logs("B", LOGS, LONG_S).mine
    assert catalog.claim_logs("A", LOGS, LONG_S).mine == frozenset(LOGS) - kept
    assert len(kept) == len(LOGS) // 2


def test_who_shares_with_one_that_dies_is_asked_to_take_over_what_that_one_had(
    catalog: Catalog, another: tuple[subprocess.Popen[str], str]
) -> None:
    process, holder = another
    mine = sharing(catalog, lease_s=5.0)
    catalog.claim_logs(holder, LOGS[:2], LONG_S)
    assert mine.take(LOGS) == frozenset(LOGS[2:])
    assert not mine.is_asked_to_give()
    process.kill()
    process.wait()
    wait_for(mine.is_asked_to_give, "it notices that the other one is gone")
    assert mine.take(LOGS) == frozenset(LOGS)
    mine.close()
