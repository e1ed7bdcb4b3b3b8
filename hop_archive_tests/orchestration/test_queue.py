"""Live archiving has slots of its own in the queue of every shipped dagster.yaml, whatever else waits or runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.config import dagster_instance_config
from dagster._utils.tags import TagConcurrencyLimitsCounter

import hop_archive
from hop_archive.model.topics import LayoutPolicy
from hop_archive.orchestration.definitions import defs
from hop_archive.orchestration.runs import UPKEEP, live_tags
from hop_archive_tests.worlds import awkward_world

CHECKOUT = Path(hop_archive.__file__).parents[1]
SHIPPED = [path for path in CHECKOUT.glob("**/dagster.yaml") if ".venv" not in path.parts]
ARCHIVING = {"archive_topic", "archive_quiet_topics", "__ASSET_JOB"}
IN_UI = {"dagster/from_ui": "true"}
JOBS = {job.name: dict(job.tags) for job in defs.resolve_all_job_defs()}
MANY = 100


class Queue:
    """The queue of one file: what it starts, by Dagster's own counting and order."""

    def __init__(self, file: Path, directory: Path) -> None:
        (directory / "dagster.yaml").write_bytes(file.read_bytes())
        checked, _ = dagster_instance_config(str(directory))
        self.most = checked["run_queue"]["max_concurrent_runs"]
        self.limits = checked["run_queue"]["tag_concurrency_limits"]
        self.started: list[dg.DagsterRun] = []

    def start(self, waiting: Sequence[Mapping[str, str]]) -> int:
        """Start as many of these as there is room for; how many that was."""
        counter = TagConcurrencyLimitsCounter(self.limits, self.started)
        before = len(self.started)
        for tags in sorted(waiting, key=lambda tags: -int(tags.get("dagster/priority", 0))):
            run = dg.DagsterRun("any", tags=tags)
            if len(self.started) < self.most and not counter.is_blocked(run):
                counter.update_counters_with_launched_item(run)
                self.started.append(run)
        return len(self.started) - before


@pytest.fixture(params=SHIPPED, ids=lambda path: str(path.relative_to(CHECKOUT)))
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Queue:
    return Queue(request.param, tmp_path)


def live(number: int, *, shared: bool = False) -> dict[str, str]:
    if shared:
        return {**live_tags("hop-prod"), "number": str(number)}
    topic = f"live.{number}"
    return {**live_tags("hop-prod", topic=topic), "dagster/partition": topic}


def everything_else() -> Iterator[dict[str, str]]:
    """What schedules, backfills and people start, a hundred times each."""
    for number in range(MANY):
        for name, tags in JOBS.items():
            if name not in ARCHIVING:
                yield tags
            yield {**tags, **IN_UI}
        for backfill in ("one", "another"):
            for more in ({}, IN_UI):
                yield {"dagster/backfill": backfill, "dagster/partition": f"{backfill}.{number}", **more}


def test_there_are_files_to_test() -> None:
    assert {str(path.relative_to(CHECKOUT)) for path in SHIPPED} == {"dagster.yaml", "docker/dagster.yaml"}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_came_first_live_archiving_has_slots(queue: Queue, seed: int) -> None:
    others = list(everything_else())
    random.Random(seed).shuffle(others)
    for tags in others:  # one by one: whoever comes first is served first, whatever its priority
        queue.start([tags])
    assert queue.start([live(number) for number in range(MANY)]) >= 3


def test_whatever_is_archived_checks_have_a_slot_and_so_has_what_people_ask_for(queue: Queue) -> None:
    queue.start([live(number) for number in range(MANY)])
    assert queue.start([JOBS["check_archive"]])
    assert queue.start([{**JOBS["restore"], **IN_UI}])
    assert queue.start([JOBS["verify"]])


def test_what_takes_hours_does_not_hold_up_checks(queue: Queue) -> None:
    for name in ("scrub", "verify", "catalog_snapshot", "deduplicate") * MANY:
        queue.start([JOBS[name]])
    assert queue.start([JOBS["check_archive"]])


def test_a_shared_live_run_comes_before_busy_topics_and_those_before_all_others(queue: Queue) -> None:
    queue.most = 2
    queue.start([*everything_else(), live(1), live(2), live(3, shared=True)])
    assert [run.tags.get("number") or run.tags["dagster/partition"] for run in queue.started] == [
        "3",
        "live.1",
    ]


def test_the_limits_add_up_to_the_slots(queue: Queue) -> None:
    assert sum(one["limit"] for one in queue.limits if one["key"] != "dagster/partition") == queue.most


def test_every_job_that_does_not_archive_is_upkeep() -> None:
    assert {name for name, tags in JOBS.items() if UPKEEP not in tags} == ARCHIVING


SCHEDULES = {schedule.name: schedule for schedule in defs.get_repository_def().schedule_defs}


def test_there_are_schedules() -> None:
    assert SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_a_run_that_a_schedule_starts_is_ended_for_taking_long(
    name: str, instance: dg.DagsterInstance
) -> None:
    # What indexes text has something to do, and what compacts as well.
    layouts = LayoutPolicy("segment", compact_after_days=1)
    archive = replace(awkward_world().archive(), text_topics=("*",), layouts=layouts)
    resources = {"archive": archive}
    with dg.build_schedule_context(instance=instance, resources=resources) as context:
        (request,) = SCHEDULES[name].evaluate_tick(context).run_requests or ()
    job = JOBS[SCHEDULES[name].job_name]
    hours = {"short": 6, "long": 3 * 24}[job[UPKEEP]]
    assert request.tags["dagster/max_runtime"] == str(hours * 3600)
    assert "dagster/max_runtime" not in job
