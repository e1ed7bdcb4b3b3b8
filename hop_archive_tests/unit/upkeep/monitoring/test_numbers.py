"""The numbers of an archive, and the metrics that are made of them."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import TopicSummary
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.upkeep.monitoring.measured import measured
from hop_archive.upkeep.monitoring.metrics import ArchiveMetrics, RunMetrics, registry_of, serve
from hop_archive.upkeep.monitoring.numbers import MOST_TOPICS, OTHERS, Lag, Looking, Numbers, count
from hop_archive_tests.worlds import BUSY, QUIET, World, awkward_world, exhausted

NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def samples(found: Numbers | None) -> dict[tuple[str, str], float]:
    """Name and label to value, as a scrape of Prometheus reads them."""
    text = "".join(_lines(registry_of(lambda: found)))
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("hop_archive")
    }


def _lines(registry: CollectorRegistry) -> str:
    from prometheus_client import generate_latest as plain

    return plain(registry).decode()


@pytest.fixture
def world() -> World:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    return world


def test_numbers_are_those_of_the_catalog_and_of_what_waits(world: World) -> None:
    world.catalog.note_findings([Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="a")], NOW)
    world.cluster.append(QUIET, b"one more")
    found = samples(count(world.archive(), {}, has_looked=False))
    (busy,) = world.catalog.summaries([BUSY])
    assert found["hop_archive_topic_messages", BUSY] == busy.messages > 0
    assert found["hop_archive_topic_bytes", BUSY] == busy.size_bytes
    assert found["hop_archive_topic_duplicates", BUSY] == busy.duplicates
    assert (
        found["hop_archive_topic_lag_messages", BUSY],
        found["hop_archive_topic_lag_messages", QUIET],
    ) == (0, 1)
    assert found["hop_archive_topic_lag_seconds", BUSY] == 0
    assert ("hop_archive_topic_lag_seconds", QUIET) not in found  # for how long is not known at a first look
    assert found["hop_archive_open_findings", "missing_object"] == 1
    assert found["hop_archive_open_findings", "no_leader"] == 0
    assert found["hop_archive_verified_ratio", ""] == 0
    assert (found["hop_archive_up", "database"], found["hop_archive_up", "source"]) == (1, 1)


def test_how_long_messages_wait_is_known_from_the_second_look_on(world: World) -> None:
    world.cluster.append(QUIET, b"one more")
    first = count(replace(world.archive(), now=lambda: NOW), {}, has_looked=False)
    later = replace(world.archive(), now=lambda: NOW + datetime.timedelta(minutes=2))
    assert count(later, first.marks).lags[QUIET] == Lag(1, 120.0)


@pytest.mark.parametrize("part", ["catalog", "source"])
def test_what_cannot_be_asked_is_down_and_has_no_numbers(world: World, part: str) -> None:
    archive = world.archive()
    broken = Faults((Fault(1, When.BEFORE, fail),)).wrap(getattr(archive, part), part)
    found = samples(count(replace(archive, **{part: broken}), {}))
    named = {name for name, _ in found}
    assert found["hop_archive_up", "database"] == (part != "catalog")
    assert ("hop_archive_topic_messages" in named) == (part == "source")
    assert "hop_archive_topic_lag_messages" not in named
    assert found.get(("hop_archive_up", "source")) == (0 if part == "source" else None)


def test_a_look_that_hangs_leaves_no_numbers() -> None:
    found = samples(None)
    assert (found["hop_archive_up", "database"], found["hop_archive_up", "source"]) == (0, 0)
    assert [name for name, _ in found if "topic" in name or "findings" in name] == []


def many(topics: int) -> Archive:
    class Many(MockCatalog):
        def summaries(self, *_: object, **__: object) -> list[TopicSummary]:
            return [TopicSummary(f"t{n:05}", messages=2, last_batch_at=NOW) for n in range(topics)]

    return replace(World().archive(), catalog=Many())


def test_the_number_of_series_is_bounded_and_the_sums_are_whole() -> None:
    few, most, more = (samples(count(many(n), {})) for n in (1, MOST_TOPICS, 3 * MOST_TOPICS))
    assert len(most) - len(few) == 5 * (MOST_TOPICS - 1)
    assert len(more) == len(most) + 5
    assert more["hop_archive_topic_messages", OTHERS] == 2 * 2 * MOST_TOPICS
    assert (
        sum(value for (name, _), value in more.items() if name == "hop_archive_topic_messages")
        == 6 * MOST_TOPICS
    )
    assert more["hop_archive_topics", ""] == 3 * MOST_TOPICS


def test_metrics_are_openmetrics_too(world: World) -> None:
    registry = registry_of(lambda: count(world.archive(), {}), "1.2.3")
    text = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    assert text.endswith("# EOF\n")
    assert 'hop_archive_build_info{version="1.2.3"} 1.0' in text


def test_names_end_in_units_and_have_help() -> None:
    registry = CollectorRegistry()
    RunMetrics(registry)
    families = [*ArchiveMetrics(lambda: None).describe(), *registry.collect()]
    assert len({family.name for family in families}) == len(families)
    assert [f.name for f in families if not f.documentation or not f.name.startswith("hop_archive_")] == []
    assert [f.name for f in families if f.type == "gauge" and f.name.endswith("_total")] == []
    assert [f.name for f in families if f.name.rpartition("_")[2] in {"ms", "minutes", "kb", "count"}] == []


def test_a_run_is_measured_by_stage_and_its_failures_by_part_and_kind() -> None:
    world, registry = awkward_world(), CollectorRegistry()
    meter = RunMetrics(registry)
    archive = measured(world.archive(), meter)
    for done in catch_up(archive):
        meter.done(done)

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    messages = sum(summary.messages for summary in world.catalog.summaries())
    assert value("hop_archive_run_messages_total") == messages > 0
    assert value("hop_archive_run_bytes_total") == sum(s.size_bytes for s in world.catalog.summaries())
    for stage in ("survey", "read", "decide", "write_objects", "commit"):
        assert value("hop_archive_stage_duration_seconds_count", stage=stage) > 0, stage
    assert value("hop_archive_call_errors_total", part="catalog", kind="unavailable") == 0
    broken = measured(world.archive(Faults((Fault(1, When.BEFORE, fail),))), meter)
    with pytest.raises(UnavailableError):
        broken.catalog.check()
    assert value("hop_archive_call_errors_total", part="catalog", kind="unavailable") == 1


@pytest.mark.parametrize("address", ["", "x", "99999", "host:", "host:http"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address to serve metrics at"):
        serve(CollectorRegistry(), address)


def test_a_look_that_breaks_leaves_no_numbers_and_is_made_again() -> None:
    calls: Iterator[Numbers | Exception] = iter([Numbers(1.0), RuntimeError("a bug"), Numbers(3.0)])
    at = threading.Event()

    def look(_: object, has_looked: bool) -> Numbers:
        found = next(calls, None)
        if found is None:
            at.set()
            return Numbers(4.0)
        if isinstance(found, Exception):
            raise found
        return found

    with Looking(look, 0.001) as looking:
        assert at.wait(30.0)
        while looking.numbers() is None:
            pass
