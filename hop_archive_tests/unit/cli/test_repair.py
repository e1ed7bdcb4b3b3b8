"""``hop-archive repair``: the plan, the deed, what it prints and how it ends."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.model.findings import Finding, Kind
from hop_archive.store.protocol import Extent, NewObject
from hop_archive_tests.cli_helpers import M, directory, invoke, place, store

__all__ = ["directory", "place"]


def drop(directory: Path) -> tuple[str, bytes]:
    key = next(iter(store(directory).listing())).key
    (body,) = store(directory).fetch([Extent(key)])
    store(directory).delete([key])
    return key, body


def test_where_nothing_is_open_there_is_nothing_to_do(directory: Path) -> None:
    ran = invoke("repair", *M, "--verify", "--deep")
    assert (ran.exit_code, ran.stdout) == (0, "Nothing is open.\n")


def test_the_plan_changes_nothing_and_yes_does_it(directory: Path) -> None:
    key, body = drop(directory)
    assert invoke("verify", *M).exit_code == 1
    planned = invoke("repair", *M)
    assert planned.exit_code == 1
    assert key in planned.stdout
    assert "put back from Kafka" in planned.stdout
    assert "Nothing was changed. Add --yes to mend 1 finding." in planned.stdout
    assert invoke("verify", *M).exit_code == 1
    done = invoke("repair", *M, "--yes")
    assert done.exit_code == 0
    assert (done.stdout.count(key), "planned" in done.stdout) == (1, False)
    assert "1 finding mended, 0 not there any more, 0 left open." in done.stdout
    assert list(store(directory).fetch([Extent(key)])) == [body]
    assert invoke("verify", *M, "--deep").exit_code == 0
    assert invoke("findings", "-D", "m").exit_code == 0
    assert "put back from Kafka" in invoke("findings", "-D", "m", "--all").stdout


def test_it_verifies_first_where_asked_to(directory: Path) -> None:
    drop(directory)
    assert "Nothing is open" in invoke("repair", *M, "--yes").stdout
    ran = invoke("repair", *M, "--yes", "--verify")
    assert ran.exit_code == 0
    assert "1 finding mended" in ran.stdout


def test_json_tells_what_becomes_of_each_finding(directory: Path) -> None:
    key, _ = drop(directory)
    store(directory).create([NewObject("other.txt", b"?")])
    assert invoke("verify", *M, "--grace", "0").exit_code == 1
    told = json.loads(invoke("repair", *M, "--json").stdout)
    assert {(one["object_key"], one["fate"]) for one in told["findings"]} == {
        (key, "planned"),
        ("other.txt", "left"),
    }
    assert told["counts"] == {"planned": 1, "left": 1}
    ran = invoke("repair", *M, "--json", "--yes", "--kind", "missing_object")
    assert (ran.exit_code, json.loads(ran.stdout)["counts"]) == (0, {"mended": 1})


def test_only_what_is_asked_for_is_mended(directory: Path) -> None:
    key, _ = drop(directory)
    invoke("verify", *M)
    other = "snews.alerts" if key.startswith("gcn.") else "gcn.notices"
    assert invoke("repair", *M, "--yes", "-T", other).exit_code == 0
    assert invoke("repair", *M, "--yes", "--kind", "lost").exit_code == 0
    assert invoke("verify", *M).exit_code == 1


def test_a_topic_of_which_there_is_nothing_is_refused_and_not_said_to_be_well(directory: Path) -> None:
    drop(directory)
    invoke("verify", *M)
    for command in (("findings", "-D", "m"), ("findings", "-D", "m", "--json"), ("repair", *M)):
        ran = invoke(*command, "-T", "gcn.notcies")
        assert ran.exit_code == 2, ran.output
        assert "The catalog has no messages of a topic gcn.notcies. Did you mean gcn.notices?" in ran.stderr
        assert ran.stdout == ""


def test_a_topic_with_nothing_but_a_finding_is_known(directory: Path) -> None:
    catalog = MockCatalog("m", directory=directory)
    catalog.note_findings(
        [Finding(Kind.NOT_READABLE, "closed.topic", "may not be read")], datetime.datetime.now(datetime.UTC)
    )
    for named in ("closed.topic", "closed.*", "*"):
        ran = invoke("findings", "-D", "m", "-T", named)
        assert (ran.exit_code, "1 finding open." in ran.stdout) == (1, True), named


def test_what_a_glob_means_is_mended(directory: Path) -> None:
    key, _ = drop(directory)
    invoke("verify", *M)
    assert invoke("repair", *M, "--yes", "-T", f"{key.partition('.')[0]}.*").exit_code == 0
    assert invoke("verify", *M).exit_code == 0


def test_a_source_that_nobody_named_is_not_asked(directory: Path) -> None:
    drop(directory)
    invoke("verify", *M)
    ran = invoke("repair", "-D", "m", "-S", "m", "--yes")
    assert ran.exit_code == 1
    assert "good in none of: the store itself; see hop-archive inspect, then findings --accept" in ran.stdout
    assert "Kafka" not in ran.stdout


def test_a_scrub_reads_a_share_and_says_how_old_the_oldest_check_is(directory: Path) -> None:
    assert "None of the ledger's offsets was read again so far." in invoke("status", *M).stdout
    ran = invoke("scrub", "-D", "m", "-S", "m", "--days", "4", "--json")
    assert ran.exit_code == 0
    told = json.loads(ran.stdout)
    assert 0 < told["scrub"]["never"] < told["scrub"]["offsets"]
    ran = invoke("scrub", "-D", "m", "-S", "m", "--days", "1")
    assert "100.0% of the ledger's offsets were read again, the oldest check at 20" in ran.stdout
    assert json.loads(invoke("status", *M, "--json").stdout)["scrub"]["never"] == 0


def test_a_scrub_that_finds_something_ends_with_1_and_remembers_it(directory: Path) -> None:
    key, _ = drop(directory)
    ran = invoke("scrub", "-D", "m", "-S", "m", "--days", "1")
    assert ran.exit_code == 1
    assert key in ran.stdout
    assert key in invoke("findings", "-D", "m").stdout
