"""Which topics a shared run reports: each in its turn, so that the event log does not grow with topics or messages."""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection

import dagster as dg
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.totals import TopicTotals
from hop_archive.model.wording import counted
from hop_archive.orchestration import sensors
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES, topics_to_report
from hop_archive_tests.orchestration.helpers import (
    QUIET_S,
    add_partitions,
    definitions,
    fall_quiet,
    look_at_pages,
    materializations,
    run_shared,
)
from hop_archive_tests.worlds import BUSY, QUIET, World, exhausted, fill

MANY = [f"topic.{number:02}" for number in range(25)]


def report(instance: dg.DagsterInstance, topics: Collection[str]) -> None:
    for topic in topics:
        event = dg.AssetMaterialization(ARCHIVED_MESSAGES, partition=topic)
        instance.report_runless_asset_event(event)


def chosen(
    instance: dg.DagsterInstance,
    topics: Collection[str],
    *,
    every_s: float = 0.0,
    took_s: float = 1.0,
    lost: Collection[str] = (),
) -> list[str]:
    totals = {topic: TopicTotals(topic, messages=1, lost=int(topic in lost)) for topic in topics}
    return topics_to_report(instance, totals, every_s, took_s)


def test_topics_that_were_never_reported_are_at_once_however_many(instance: dg.DagsterInstance) -> None:
    assert chosen(instance, MANY, every_s=QUIET_S) == MANY
    assert chosen(instance, []) == []


def test_of_the_others_those_that_were_longest_ago_have_their_turn(instance: dg.DagsterInstance) -> None:
    report(instance, [*MANY[5:], *MANY[:5]])
    assert chosen(instance, MANY) == MANY[5:15]
    assert chosen(instance, MANY[:5]) == MANY[:5]
    report(instance, MANY[5:15])
    assert chosen(instance, MANY) == MANY[15:]


def test_a_run_that_takes_long_reports_more(instance: dg.DagsterInstance) -> None:
    report(instance, MANY)
    assert len(chosen(instance, MANY, took_s=59.0)) == 19
    assert len(chosen(instance, MANY, took_s=600.0)) == 25


def test_none_is_reported_again_before_its_time_but_what_was_lost(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(instance, MANY)
    assert chosen(instance, MANY, every_s=QUIET_S) == []
    assert chosen(instance, MANY, every_s=QUIET_S, lost=[MANY[20]]) == [MANY[20]]
    later = time.time() + QUIET_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert chosen(instance, MANY, every_s=QUIET_S) == MANY[:10]


def test_what_a_run_did_not_report_is_in_the_totals_of_the_next_report(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = fall_quiet(world, instance)
    assert len(materializations(instance, BUSY)) == 1
    fill(world.cluster, seed=2)
    run_shared(defs, instance)
    newest, first = materializations(instance, BUSY)
    (summary,) = world.catalog.summaries([BUSY])
    assert newest["dagster/row_count"] == summary.messages > first["dagster/row_count"]


# --- topic_pages


def test_the_page_of_a_topic_that_fell_quiet_has_its_last_messages(
    world: World, instance: dg.DagsterInstance
) -> None:
    fall_quiet(world, instance)
    (summary,) = world.catalog.summaries([BUSY])
    assert materializations(instance, BUSY)[0]["dagster/row_count"] < summary.messages
    said, cursor = look_at_pages(world, instance, later_s=60)
    assert said == "0 pages written anew, of 0 topics that fell quiet."
    said, cursor = look_at_pages(world, instance, later_s=QUIET_S + 60, cursor=cursor)
    assert said == "2 pages written anew, of 2 topics that fell quiet."
    assert materializations(instance, BUSY)[0]["dagster/row_count"] == summary.messages
    said, _ = look_at_pages(world, instance, later_s=QUIET_S + 120, cursor=cursor)
    assert said == "0 pages written anew, of 0 topics that fell quiet."


def test_after_a_clock_that_was_ahead_was_set_back_pages_are_written_anew_as_at_a_first_look(
    world: World, instance: dg.DagsterInstance
) -> None:
    _, ahead = look_at_pages(world, instance, later_s=3 * 86_400)
    fall_quiet(world, instance)
    said, _ = look_at_pages(world, instance, later_s=QUIET_S + 60, cursor=ahead)
    assert said == "2 pages written anew, of 2 topics that fell quiet."


def test_a_page_that_tells_all_is_left_as_it_is(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    run_shared(defs, instance)
    assert look_at_pages(world, instance, later_s=QUIET_S + 60)[0] == (
        "0 pages written anew, of 2 topics that fell quiet."
    )


def test_more_quiet_topics_than_a_tick_looks_at_have_their_turn_at_the_next(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_MOST_PAGES", 1)
    fall_quiet(world, instance)
    cursor, before = None, [len(materializations(instance, topic)) for topic in (BUSY, QUIET)]
    for _ in range(2):
        said, cursor = look_at_pages(world, instance, later_s=QUIET_S + 60, cursor=cursor)
        assert said == "1 page written anew, of 1 topic that fell quiet."
    assert [len(materializations(instance, topic)) for topic in (BUSY, QUIET)] == [n + 1 for n in before]


def test_topics_that_were_committed_together_have_their_turn_though_there_are_more_than_a_tick_looks_at(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_MOST_PAGES", 2)
    names = [f"topic.{number}" for number in range(5)]
    for name in names:
        world.cluster.create_topic(name)
        world.cluster.append(name, b"1")
    now = datetime.datetime.now(datetime.UTC)
    world.catalog = MockCatalog(clock=lambda: now)
    add_partitions(definitions(world), instance)
    exhausted(catch_up(world.archive(), names))
    cursor = None
    for written in (2, 2, 1, 0):
        said, cursor = look_at_pages(world, instance, later_s=QUIET_S + 60, cursor=cursor)
        assert said.startswith(f"{counted(written, 'page')} written anew")
    assert all(materializations(instance, name) for name in names)
