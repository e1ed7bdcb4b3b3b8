"""The checks of each topic's partition: what turns them red, what keeps them so, and when they count as evaluated."""

from __future__ import annotations

import datetime
from typing import Any

import dagster as dg
import pytest

from hop_archive.errors import UnavailableError
from hop_archive.model.findings import ACCEPTED, Finding, Kind
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.resources import Backup
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.orchestration.helpers import (
    QUIET_S,
    add_partitions,
    archive_of,
    fall_quiet,
    look_at_pages,
    materializations,
    materialize_by_hand,
    run_job,
    run_shared,
)
from hop_archive_tests.worlds import BUSY, QUIET, fill

MESSAGES = dg.AssetKey("archived_messages")
OBJECTS, OTHERS = "objects_present", "no_open_findings"
GREEN = {OBJECTS: "SUCCEEDED", OTHERS: "SUCCEEDED"}


@pytest.fixture
def broken() -> Ruin:
    return ruin("message")


@pytest.fixture
def defs(broken: Ruin, instance: dg.DagsterInstance) -> dg.Definitions:
    """Each topic has a partition, and something archived after the archive was looked at last."""
    made = build_definitions(archive=archive_of(broken.world), backup=Backup())
    add_partitions(made, instance)
    fill(broken.world.cluster, seed=1)
    run_shared(made, instance)
    return made


def shown(instance: dg.DagsterInstance, topic: str) -> dict[str, str]:
    """What Dagster shows of a partition: what each check said of its newest materialization, if anything."""
    keys = [dg.AssetCheckKey(MESSAGES, name) for name in (OBJECTS, OTHERS)]
    infos = instance.event_log_storage.get_asset_check_partition_info(keys, partition_keys=[topic])
    return {
        one.check_key.name: one.latest_execution_status.value
        for one in infos
        if one.is_current and one.partition_key == topic
    }


def last(instance: dg.DagsterInstance, check: str, topic: str) -> dg.AssetCheckEvaluation:
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(MESSAGES, check), limit=20
    )
    newest = next(one.evaluation for one in history if one.partition == topic)
    assert newest is not None
    return newest


def test_verification_turns_the_check_of_the_topic_red_and_of_the_others_green(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    assert shown(instance, BUSY) == shown(instance, QUIET) == GREEN
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    assert shown(instance, BUSY) == GREEN | {OBJECTS: "FAILED"}
    assert shown(instance, QUIET) == GREEN
    red = last(instance, OBJECTS, BUSY)
    assert red.severity is dg.AssetCheckSeverity.ERROR
    table = red.metadata["by_topic"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = table.records
    assert (row.data["topic"], row.data["kind"], row.data["open"]) == (BUSY, "missing_object", 1)


def open_by_page(instance: dg.DagsterInstance, topic: str) -> str:
    """How many findings of a topic are open, by its page as it is now."""
    return str(materializations(instance, topic)[0]["open_findings"])


def test_the_page_of_a_topic_says_what_was_found_and_mended(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    pages = len(materializations(instance, QUIET))
    run_job(defs, instance, "verify")
    assert open_by_page(instance, BUSY) == "1"
    run_job(defs, instance, "repair", dry_run=False)
    assert open_by_page(instance, BUSY) == "0"
    assert len(materializations(instance, QUIET)) == pages


def test_the_checks_are_judged_though_kafka_is_down_and_pages_cannot_be_written(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise UnavailableError("the broker is down.")

    broken.drop(broken.rows(BUSY)[0].object_key)
    monkeypatch.setattr("hop_archive.orchestration.reports.survey", down)
    run_job(defs, instance, "verify")
    assert shown(instance, BUSY) == GREEN | {OBJECTS: "FAILED"}


def test_only_the_topics_that_were_verified_are_judged(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    found = [Finding(Kind.MISSING_OBJECT, topic, "x", object_key="k") for topic in (BUSY, QUIET)]
    broken.world.catalog.note_findings(found, now)
    run_job(defs, instance, "verify", topics=[QUIET])
    assert shown(instance, BUSY) == GREEN, "as it was said with its report"


def evaluations_of_topics(instance: dg.DagsterInstance) -> int:
    """How many evaluations there are of checks that topics have."""
    keys = [dg.AssetCheckKey(MESSAGES, name) for name in (OBJECTS, OTHERS)]
    history = instance.event_log_storage.get_asset_check_execution_history
    return sum(len(history(key, limit=1000)) for key in keys)


def test_a_look_with_which_all_is_well_logs_nothing_of_topics_that_are_green(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    before = evaluations_of_topics(instance)
    run_job(defs, instance, "verify")
    assert evaluations_of_topics(instance) == before
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    assert evaluations_of_topics(instance) == before + 2
    assert shown(instance, QUIET) == GREEN


def test_the_check_that_stays_green_beside_a_red_one_does_not_say_that_nothing_is_open(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    assert shown(instance, BUSY) == GREEN | {OBJECTS: "FAILED"}
    said = str(last(instance, OTHERS, BUSY).description)
    assert said.startswith("Nothing of this is open; 1 finding of other kinds: see hop-archive findings.")


def test_what_was_settled_elsewhere_is_green_with_the_next_look(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    (finding,) = broken.world.catalog.findings()
    broken.world.catalog.resolve_findings([finding.number], ACCEPTED, datetime.datetime.now(datetime.UTC))
    assert shown(instance, BUSY) == GREEN | {OBJECTS: "FAILED"}
    run_job(defs, instance, "verify")
    assert shown(instance, BUSY) == GREEN


def test_a_scrub_says_anew_how_much_was_read_of_those_topics_of_which_it_read_something(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    run_job(defs, instance, "scrub", days=1.0)
    said = last(instance, OBJECTS, BUSY).description
    assert said is not None
    assert said.startswith("Nothing is open. Of what is archived 100.0% was read again")
    before = evaluations_of_topics(instance)
    run_job(defs, instance, "scrub", days=1.0)
    assert evaluations_of_topics(instance) == before, "nothing was due"


def test_a_topic_without_a_partition_is_left_out(broken: Ruin, instance: dg.DagsterInstance) -> None:
    defs = build_definitions(archive=archive_of(broken.world), backup=Backup())
    run_job(defs, instance, "verify")
    assert instance.get_dynamic_partitions("topics") == []
    assert shown(instance, BUSY) == {}


def archive_together(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    run_shared(defs, instance)


def archive_alone(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    job = defs.resolve_job_def("archive_topic")
    assert job.execute_in_process(partition_key=BUSY, instance=instance).success


def archive_by_hand(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    assert materialize_by_hand(defs, instance, BUSY).success


@pytest.mark.parametrize("archive", [archive_together, archive_alone, archive_by_hand])
def test_what_is_red_stays_so_however_much_is_archived_after_it(
    archive: Any, broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    before = len(materializations(instance, BUSY))
    fill(broken.world.cluster, seed=2)
    archive(defs, instance)
    assert len(materializations(instance, BUSY)) == before + 1
    assert shown(instance, BUSY)[OBJECTS] == "FAILED"


def test_what_is_green_stays_so_and_says_how_much_of_it_was_read_again(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    run_job(defs, instance, "verify")
    assert shown(instance, BUSY) == GREEN
    run_shared(defs, instance)
    assert shown(instance, BUSY) == GREEN, "nothing was archived"
    fill(broken.world.cluster, seed=2)
    run_shared(defs, instance)
    assert shown(instance, BUSY) == GREEN
    said = last(instance, OBJECTS, BUSY).description
    assert said is not None
    assert said.startswith("Nothing is open. Of what is archived 0.0% was read again")


def test_repair_turns_it_green(broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    run_job(defs, instance, "repair")
    assert shown(instance, BUSY)[OBJECTS] == "FAILED", "that was a plan"
    run_job(defs, instance, "repair", dry_run=False)
    assert shown(instance, BUSY) == GREEN


def test_a_scrub_turns_it_red(broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    broken.flip(broken.rows(BUSY)[0])
    run_job(defs, instance, "scrub", days=1.0)
    assert shown(instance, BUSY) == GREEN | {OBJECTS: "FAILED"}


def test_a_person_can_evaluate_the_checks_of_a_partition(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(QUIET)[0].object_key)
    run_job(defs, instance, "verify", topics=[BUSY])
    selected = dg.AssetSelection.checks_for_assets(MESSAGES)
    job = dg.define_asset_job("by_hand", selection=selected)
    own = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("by_hand")
    the_partition = {"dagster/partition": QUIET}  # as the page's button sends it
    assert own.execute_in_process(tags=the_partition, instance=instance).success
    assert shown(instance, QUIET) == GREEN, "verification has not looked at it yet"
    run_job(defs, instance, "verify")
    assert own.execute_in_process(tags=the_partition, instance=instance).success
    assert shown(instance, QUIET) == GREEN | {OBJECTS: "FAILED"}


def test_what_is_open_of_a_topic_is_said_again_with_the_page_that_is_written_when_it_fell_quiet(
    broken: Ruin, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    run_job(defs, instance, "verify")
    fall_quiet(broken.world, instance, seed=2)
    before = len(materializations(instance, BUSY))
    look_at_pages(broken.world, instance, later_s=QUIET_S + 60)
    assert len(materializations(instance, BUSY)) == before + 1
    assert shown(instance, BUSY)[OBJECTS] == "FAILED"
