"""Each asset check: green where it should be, red or yellow where not, and what it then says."""

from __future__ import annotations

import datetime
from typing import Any

import dagster as dg
import pytest

from hop_archive.catalog.checked import CheckedRange, Look, Section, VerifiedRange
from hop_archive.catalog.records import Batch, Outcome
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.ingest.survey import ADOPTED, BEFORE_FIRST_SIGHT, OVERTAKEN, look, plan_work
from hop_archive.ingest.write import UNREADABLE
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import Slice
from hop_archive.orchestration.findings import NO_OPEN_FINDINGS, OBJECTS_PRESENT
from hop_archive.orchestration.runs import Home
from hop_archive.upkeep.text_index import NOT_SET
from hop_archive_tests.orchestration.helpers import definitions, run_shared
from hop_archive_tests.worlds import BUSY, QUIET, World, fill


def evaluate(
    world: World, instance: dg.DagsterInstance, run_config: dict[str, Any] | None = None
) -> dict[str, dg.AssetCheckEvaluation]:
    job = definitions(world).resolve_job_def("check_archive")
    run = job.execute_in_process(instance=instance, run_config=run_config)
    return {found.check_name: found for found in run.get_asset_check_evaluations()}


def checks(defs: dg.Definitions) -> list[dg.AssetCheckSpec]:
    """Every check that there is."""
    return [spec for one in defs.asset_checks or () for spec in one.check_specs]


def metadata(found: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in found.metadata.items()}


def records(found: dg.AssetCheckEvaluation, name: str) -> list[dict[str, Any]]:
    table = found.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def lose(world: World, reason: str, start: int = 0, stop: int = 3) -> None:
    world.catalog.commit(Batch(Slice("old", 1, 0, start, stop), Outcome.LOST, reason))


def test_when_all_is_archived_all_are_green(world: World, instance: dg.DagsterInstance) -> None:
    run_shared(definitions(world), instance)
    found = evaluate(world, instance)
    assert found.keys() == {
        "nothing_lost",
        "coverage_has_no_holes",
        "lag_within_bounds",
        "objects_present",
        "no_open_findings",
        "looked_at_in_time",
        "scrubbed_in_time",
        "text_indexed_in_time",
    }
    assert [name for name, one in found.items() if not one.passed] == []
    assert found["text_indexed_in_time"].description == NOT_SET
    # Dagster plots numbers of checks, too: lines along zero tell nothing.
    assert [name for name, one in found.items() for value in metadata(one).values() if value == 0] == []
    for name in ("objects_present", "no_open_findings"):
        assert str(found[name].description).startswith("Nothing is open.")


def test_an_empty_archive_is_green(instance: dg.DagsterInstance) -> None:
    assert all(one.passed for one in evaluate(World(), instance).values())


# --- nothing_lost


def test_offsets_that_retention_took_first_are_red_and_named(instance: dg.DagsterInstance) -> None:
    world = World()
    lose(world, OVERTAKEN)
    found = evaluate(world, instance)["nothing_lost"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert str(found.description).startswith("3 offsets were lost, in 1 slice. The latest: old[0]@0-3")
    (row,) = records(found, "lost")
    assert row["slice"] == "old[0]@0-3 (generation 1)"
    assert (row["offsets"], row["reason"]) == (3, OVERTAKEN)


def test_what_a_run_finds_lost_turns_it_red(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    run_shared(defs, instance)
    fill(world.cluster, seed=1)
    with world.cluster.read() as state:
        gone = state.topics[QUIET].logs[0].stable
    world.cluster.delete_records(QUIET, 0, gone)
    run_shared(defs, instance)
    found = evaluate(world, instance)["nothing_lost"]
    assert not found.passed
    assert metadata(found)["lost_offsets"] == sum(s.lost for s in world.catalog.summaries()) > 0


def test_what_was_gone_before_the_archive_began_is_yellow(instance: dg.DagsterInstance) -> None:
    world = World()
    lose(world, BEFORE_FIRST_SIGHT)
    found = evaluate(world, instance)["nothing_lost"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert str(found.description).startswith("3 offsets were gone before the archive began.")
    assert metadata(found)["offsets_gone_before_the_archive_began"] == 3
    lose(world, OVERTAKEN, 3, 5)
    assert evaluate(world, instance)["nothing_lost"].severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(("reason", "passed"), [(ADOPTED, True), (f"{UNREADABLE}: a header name", False)])
def test_what_was_skipped_is_red_where_it_could_not_be_read_and_green_where_it_was_meant(
    reason: str, passed: bool, instance: dg.DagsterInstance
) -> None:
    world = World()
    world.catalog.commit(Batch(Slice("old", 1, 0, 0, 1), Outcome.SKIPPED, reason))
    assert evaluate(world, instance)["nothing_lost"].passed is passed


# --- coverage_has_no_holes


def test_offsets_between_covered_ones_are_yellow_until_a_run_fills_them(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    plan_work(world.archive())  # so that the generations are in the catalog
    parts = [{"topic": BUSY, "generation": 1, "partition": 0, "start": a, "stop": a + 2} for a in (0, 5)]
    run_shared(defs, instance, slices=parts)
    found = evaluate(world, instance)["coverage_has_no_holes"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert str(found.description).startswith(
        "3 offsets are without an outcome, in 1 partition; the first is of "
    )
    assert records(found, "where") == [{"topic": BUSY, "generation": 1, "partition": 0, "offsets": 3}]
    run_shared(defs, instance)
    assert evaluate(world, instance)["coverage_has_no_holes"].passed


# --- lag_within_bounds


def test_a_topic_that_is_too_far_behind_is_red_and_named(world: World, instance: dg.DagsterInstance) -> None:
    bounds = {"ops": {"archive_lag_within_bounds": {"config": {"most_messages": 10}}}}
    found = evaluate(world, instance, bounds)["lag_within_bounds"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert str(found.description).startswith(
        f"1 topic has more than 10 messages waiting, most of all {BUSY}."
    )
    assert [row["topic"] for row in records(found, "behind")] == [BUSY]
    assert metadata(found)["waiting"] > 10


def test_a_topic_at_its_bound_is_green(world: World, instance: dg.DagsterInstance) -> None:
    most = metadata(evaluate(world, instance)["lag_within_bounds"])["waiting"]
    bounds = {"ops": {"archive_lag_within_bounds": {"config": {"most_messages": most}}}}
    assert evaluate(world, instance, bounds)["lag_within_bounds"].passed


def test_what_cannot_be_looked_at_is_red_and_not_counted_as_nothing_waiting(
    world: World, instance: dg.DagsterInstance
) -> None:
    world.cluster.lose_leader(QUIET)
    look(world.archive())
    bounds = {"ops": {"archive_lag_within_bounds": {"config": {"most_messages": 1_000_000}}}}
    found = evaluate(world, instance, bounds)
    assert "could not be looked at" in str(found["lag_within_bounds"].description)
    assert [row["topic"] for row in records(found["lag_within_bounds"], "in_the_way")] == [QUIET]
    for name in ("lag_within_bounds", "no_open_findings"):
        assert (found[name].passed, found[name].severity) == (False, dg.AssetCheckSeverity.ERROR)


# ---


def test_no_check_of_the_whole_is_of_an_asset_that_runs_that_archive_materialize(
    world: World, instance: dg.DagsterInstance
) -> None:
    # Dagster shows a check as not evaluated once its asset was materialized after it.
    defs = definitions(world)
    run_shared(defs, instance)
    assert set(instance.get_asset_keys()) == {dg.AssetKey("archived_messages")}
    whole = {one.key.asset_key for one in checks(defs) if one.partitions_def is None}
    assert whole
    assert dg.AssetKey("archived_messages") not in whole


def test_a_check_that_cannot_look_fails_and_says_nothing_about_the_archive(
    world: World, instance: dg.DagsterInstance
) -> None:
    everywhere = Faults()
    definitions(world, everywhere).resolve_job_def("check_archive").execute_in_process(instance=instance)
    asked = [n for n, call in enumerate(everywhere.calls, start=1) if call == "catalog.ledger"]
    faults = Faults((Fault(asked[-1], When.BEFORE, fail),))
    job = definitions(world, faults).resolve_job_def("check_archive")
    run = job.execute_in_process(instance=instance, raise_on_error=False)
    (failed,) = [e.step_failure_data for e in run.all_events if e.is_step_failure]
    assert "told to fail" in failed.error_display_string
    assert len(run.get_asset_check_evaluations()) == 7


# --- what verification found


def found_in(world: World, kind: Kind) -> None:
    world.catalog.note_findings(
        [Finding(kind, BUSY, "x", object_key="k")], datetime.datetime.now(datetime.UTC)
    )


@pytest.mark.parametrize(
    ("kind", "check", "severity"),
    [
        (Kind.MISSING_OBJECT, "objects_present", dg.AssetCheckSeverity.ERROR),
        (Kind.CORRUPT_OBJECT, "objects_present", dg.AssetCheckSeverity.ERROR),
        (Kind.COVERAGE_HOLE, "no_open_findings", dg.AssetCheckSeverity.ERROR),
        (Kind.ORPHAN_OBJECT, "no_open_findings", dg.AssetCheckSeverity.WARN),
    ],
)
def test_open_findings_turn_their_check_red_or_yellow_and_are_told_by_topic(
    kind: Kind, check: str, severity: dg.AssetCheckSeverity, world: World, instance: dg.DagsterInstance
) -> None:
    found_in(world, kind)
    found = evaluate(world, instance)
    assert {
        name for name, one in found.items() if not one.passed and "finding is open" in (one.description or "")
    } == {check}
    assert found[check].severity is severity
    ((row),) = records(found[check], "by_topic")
    assert (row["topic"], row["kind"], row["open"]) == (BUSY, kind.value, 1)


def test_a_red_check_links_to_the_job_that_mends_it_where_one_does(world: World) -> None:
    home = Home("here", "__repository__")
    found_in(world, Kind.MISSING_OBJECT)
    link = dg.MetadataValue.job("repair", "here", repository_name="__repository__")
    assert OBJECTS_PRESENT.look(world.catalog, home).metadata["mended_by"] == link
    found_in(world, Kind.NO_LEADER)
    red = NO_OPEN_FINDINGS.look(world.catalog, home)
    assert "mended_by" not in red.metadata
    assert "Bring back the broker" in str(red.description)


@pytest.mark.parametrize(
    ("days", "severity"), [(36, dg.AssetCheckSeverity.WARN), (71, dg.AssetCheckSeverity.ERROR)]
)
def test_a_scrub_that_does_not_keep_up_is_yellow_and_red_once_it_has_stopped(
    days: int, severity: dg.AssetCheckSeverity, world: World, instance: dg.DagsterInstance
) -> None:
    run_shared(definitions(world), instance)
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    world.catalog.note_verified(VerifiedRange(BUSY, 1, 0, 0, 5, long_ago))
    found = evaluate(world, instance)["scrubbed_in_time"]
    assert not found.passed
    assert found.severity is severity
    assert [row["topic"] for row in records(found, "late")] == [BUSY]


@pytest.mark.parametrize(
    ("days", "severity"), [(9, dg.AssetCheckSeverity.WARN), (17, dg.AssetCheckSeverity.ERROR)]
)
def test_a_verification_that_does_not_keep_up_is_yellow_and_red_once_it_has_stopped(
    days: int, severity: dg.AssetCheckSeverity, world: World, instance: dg.DagsterInstance
) -> None:
    run_shared(definitions(world), instance)
    now = datetime.datetime.now(datetime.UTC)
    long_ago = now - datetime.timedelta(days=days)
    section = Section(world.store.bucket, BUSY, Look.ALONE)
    world.catalog.note_checked([CheckedRange(section, "a", "b", now - datetime.timedelta(days=7))])
    assert evaluate(world, instance)["looked_at_in_time"].passed
    world.catalog.note_checked([CheckedRange(section, "b", "c", long_ago)])
    found = evaluate(world, instance)["looked_at_in_time"]
    assert not found.passed
    assert found.severity is severity
    assert found.metadata["sections_never_looked_at"].value == 7


def test_an_archive_at_which_nobody_ever_looks_is_yellow_once_it_is_old_enough(
    world: World, instance: dg.DagsterInstance
) -> None:
    run_shared(definitions(world), instance)
    assert evaluate(world, instance)["looked_at_in_time"].passed
    soon = {"ops": {"archive_looked_at_in_time": {"config": {"days": 1e-9}}}}
    found = evaluate(world, instance, soon)["looked_at_in_time"]
    assert not found.passed
    assert found.description is not None
    assert found.description.startswith("Nothing was ever looked at")
