"""The contract of a catalog, over the mock, the mock in a directory, and Postgres."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import (
    GONE,
    UNPROVEN,
    Batch,
    Collision,
    Duplicate,
    Mentions,
    Outcome,
    Row,
    Standing,
    TopicSummary,
)
from hop_archive.catalog.stored import Stored
from hop_archive.errors import ConfigurationError, ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model import conditions
from hop_archive.model.annotations import Annotations
from hop_archive.model.identity import Known, same_message
from hop_archive.model.message import TimestampType
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive_tests.contract.catalog_helpers import (
    TABLES,
    Adopt,
    InThread,
    adopted_row,
    connect,
    everything,
    full_batch,
    identity_of,
    row_at,
    slice_of,
)

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

ALERTS = PartitionLog("alerts", 1, 0)
TOMORROW = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)


# Generations and watermarks


def test_a_catalog_that_is_there_passes_its_check(catalog: Catalog) -> None:
    catalog.check()


def test_topics_are_those_that_have_rows(catalog: Catalog) -> None:
    assert list(catalog.topics()) == []
    for topic in ("b", "a.b", "A", "a-b"):
        where = slice_of(0, 3, topic)
        catalog.commit(Batch(where, rows=[row_at(where, 1)]))
    catalog.commit(Batch(slice_of(0, 3, "only lost"), Outcome.LOST, "retention"))
    assert list(catalog.topics()) == sorted(["b", "a.b", "A", "a-b"])


def test_a_topic_is_known_as_soon_as_there_is_anything_of_it(catalog: Catalog, adopt: Adopt) -> None:
    assert list(catalog.known_topics()) == []
    where = slice_of(0, 3, "with.rows")
    catalog.commit(Batch(where, rows=[row_at(where, 1)]))
    catalog.commit(Batch(slice_of(0, 3, "only.lost"), Outcome.LOST, "retention"))
    catalog.begin_generation("Empty", 1, "cluster", None, "first seen")
    adopt([adopted_row("adopted")])
    assert list(catalog.known_topics()) == sorted(["with.rows", "only.lost", "Empty", "adopted"])


@pytest.mark.parametrize("order", Order)
def test_a_topic_without_messages_selects_none_and_is_no_mistake(catalog: Catalog, order: Order) -> None:
    where = slice_of(0, 3)
    catalog.commit(Batch(where, rows=[row_at(where, 1)]))
    catalog.commit(Batch(slice_of(0, 3, "only.lost"), Outcome.LOST, "retention"))
    catalog.begin_generation("empty", 1, "cluster", None, "first seen")
    assert list(catalog.select(Query(("empty",)), order)) == []
    assert list(catalog.select(Query(("only.*",)), order)) == []
    (row,) = catalog.rows("alerts")
    assert list(catalog.select(Query(("alerts", "empty", "only.lost")), order)) == [row]
    assert catalog.measure(Query(("empty", "alerts")), timeout_s=10).messages == 1
    assert catalog.measure(Query(("empty",)), timeout_s=10).messages == 0


@pytest.mark.role("owner")
def test_the_condition_tells_the_clock_and_that_all_may_be_written(catalog: Catalog) -> None:
    found = catalog.condition()
    assert abs(found.at - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    assert found.rights.keys() == set(conditions.TABLES)
    assert (found.is_old, found.read_only) == (False, False)
    assert found.lacking("SELECT", "INSERT", "UPDATE", "DELETE", tables=conditions.TABLES) == []


def test_generations_are_told_by_topic_and_in_order(catalog: Catalog) -> None:
    second = catalog.begin_generation("alerts", 2, "cluster", "id-2", "made anew")
    first = catalog.begin_generation("alerts", 1, "cluster", "id-1", "first seen")
    other = catalog.begin_generation("other", 1, "cluster", "id-3", "first seen")
    catalog.begin_generation("not asked for", 1, "cluster", None, "first seen")
    found = catalog.generations(["other", "alerts", "unknown"])
    assert {topic: list(known) for topic, known in found.items()} == {
        "alerts": [first, second],
        "other": [other],
    }
    assert set(catalog.generations(None)) == {"alerts", "other", "not asked for"}


@pytest.mark.parametrize("topic_id", ["id-1", None])
def test_a_generation_remembers_what_it_was_begun_with(catalog: Catalog, topic_id: str | None) -> None:
    begun = catalog.begin_generation("alerts", 1, "cluster", topic_id, "first seen")
    assert (begun.topic, begun.number, begun.cluster_id, begun.topic_id, begun.reason) == (
        "alerts",
        1,
        "cluster",
        topic_id,
        "first seen",
    )
    assert abs(begun.detected_at - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)


def test_a_generation_that_has_the_number_already_is_returned_as_it_was_begun(catalog: Catalog) -> None:
    first = catalog.begin_generation("alerts", 4, "cluster", "id-1", "first seen")
    assert catalog.begin_generation("alerts", 4, "elsewhere", None, "made anew") == first
    assert list(catalog.generations(["alerts"])["alerts"]) == [first]


def test_callers_at_once_make_one_generation(catalog: Catalog) -> None:
    calls = [
        InThread(lambda i=i: catalog.begin_generation("alerts", 1, "cluster", f"id-{i}", "first seen"))  # type: ignore[misc] # mypy infers no default
        for i in range(6)
    ]
    assert len({call.outcome() for call in calls}) == 1
    assert len(catalog.generations(["alerts"])["alerts"]) == 1


def test_the_watermarks_last_seen_are_remembered(catalog: Catalog) -> None:
    elsewhere = PartitionLog("alerts", 2, 7)
    catalog.observe({ALERTS: Watermarks(0, 5, 6), elsewhere: Watermarks(1, 2, 3)})
    catalog.observe({ALERTS: Watermarks(4, 9, 9), PartitionLog("other", 1, 0): Watermarks(0, 0, 0)})
    catalog.observe({})
    assert catalog.observed(["alerts"]) == {ALERTS: Watermarks(4, 9, 9), elsewhere: Watermarks(1, 2, 3)}
    assert catalog.observed(["unknown"]) == {}


def test_the_leader_epoch_under_which_a_log_was_proven_stays_until_it_is_proven_under_another(
    catalog: Catalog,
) -> None:
    def proven() -> dict[PartitionLog, int | None]:
        return {
            partition_log: marks.leader_epoch for partition_log, marks in catalog.observed(["alerts"]).items()
        }

    other = PartitionLog("alerts", 1, 1)
    catalog.observe(dict.fromkeys([ALERTS, other], Watermarks(0, 5, 6, leader_epoch=3)))
    assert proven() == {ALERTS: None, other: None}
    catalog.note_proven({ALERTS: 3, PartitionLog("alerts", 1, 2): 3})
    catalog.observe({ALERTS: Watermarks(0, 7, 8, leader_epoch=4)})
    assert proven() == {ALERTS: 3, other: None}
    catalog.note_proven({ALERTS: None, other: 0})
    catalog.note_proven({})
    assert proven() == {ALERTS: None, other: 0}


def test_a_proof_replaces_only_what_was_remembered_before_where_that_is_named(catalog: Catalog) -> None:
    other = PartitionLog("alerts", 1, 1)
    catalog.observe(dict.fromkeys([ALERTS, other], Watermarks(0, 5, 6)))
    catalog.note_proven(dict.fromkeys([ALERTS, other], UNPROVEN), dict.fromkeys([ALERTS, other]))
    catalog.note_proven({ALERTS: 4, other: 4}, {ALERTS: UNPROVEN, other: None})
    assert {at: one.leader_epoch for at, one in catalog.observed(["alerts"]).items()} == {
        ALERTS: 4,
        other: UNPROVEN,
    }
    catalog.note_proven({other: None, ALERTS: None}, {ALERTS: 5, other: UNPROVEN})
    assert {at: one.leader_epoch for at, one in catalog.observed(["alerts"]).items()} == {
        ALERTS: 4,
        other: None,
    }


def test_a_batch_is_refused_whose_log_is_proven_under_another_leader_epoch_or_not_at_all(
    catalog: Catalog,
) -> None:
    def refused(epoch: int) -> bool:
        try:
            catalog.commit(replace(full_batch(0, 5), proven_epoch=epoch))
        except ProofChangedError:
            return True
        return False

    assert refused(3)
    catalog.observe({ALERTS: Watermarks(0, 5, 6)})
    assert refused(3)
    for proven in (2, 4, UNPROVEN, GONE):
        catalog.note_proven({ALERTS: proven})
        assert refused(3)
    assert not catalog.coverage()
    catalog.note_proven({ALERTS: 3})
    assert not refused(3)
    catalog.commit(full_batch(5, 6))
    assert catalog.coverage() == {ALERTS: OffsetSet.between(0, 6)}


def test_what_was_observed_and_not_covered_is_left_behind_on_the_cluster_that_it_was_on(
    catalog: Catalog,
) -> None:
    for number, cluster in ((1, "here"), (2, "elsewhere")):
        catalog.begin_generation("alerts", number, cluster, f"id-{number}", "first seen")
        catalog.observe({PartitionLog("alerts", number, 0): Watermarks(0, 20, 25)})
    catalog.begin_generation("other", 1, "here", None, "first seen")
    catalog.observe(
        {PartitionLog("other", 1, 0): Watermarks(0, 3, 3), PartitionLog("other", 1, 1): Watermarks(0, 0, 0)}
    )
    catalog.commit(full_batch(0, 3, topic="other"))
    catalog.commit(full_batch(2, 5))
    catalog.commit(full_batch(10, 12))
    left = OffsetSet.of([(0, 2), (5, 10), (12, 20)])
    assert catalog.left_behind(["alerts", "other", "unknown"], "here") == {ALERTS: left}
    assert catalog.left_behind(["alerts"], "nowhere") == {}
    catalog.commit(full_batch(25, 26))  # as a repair does that finds what the log lost
    left = OffsetSet.of([(0, 2), (5, 10), (12, 25)])
    assert catalog.left_behind(["alerts"], "here") == {ALERTS: left}


def test_the_tail_of_a_lineage_is_its_last_messages_and_duplicates(catalog: Catalog) -> None:
    where = slice_of(0, 8)
    kept, last = row_at(where, 1), row_at(where, 4)
    copies = [Duplicate(3, 33, kept.uuid, "the same"), Duplicate(5, 55, kept.uuid, "the same")]
    catalog.commit(Batch(where, rows=[kept, last], duplicates=copies))
    catalog.commit(full_batch(0, 4, partition=1))
    found = catalog.tails([ALERTS, PartitionLog("alerts", 2, 0), PartitionLog("alerts", 1, 1)], 3)
    assert {partition_log: [one.offset for one in tail] for partition_log, tail in found.items()} == {
        ALERTS: [3, 4, 5],
        PartitionLog("alerts", 1, 1): [1, 2, 3],
    }
    assert found[ALERTS][0] == Standing(3, 33, kept.digest)
    assert found[ALERTS][1] == Standing(4, last.timestamp_ms, last.digest)
    assert catalog.tails([], 3) == {}


# Commit


def test_a_committed_batch_is_all_there(catalog: Catalog) -> None:
    where = slice_of(10, 20)
    rows = [row_at(where, 10), row_at(where, 15)]
    held = uuid.uuid4()
    other = full_batch(0, 1, topic="other")
    catalog.commit(other)
    repeated = (rows[0].uuid, other.rows[0].uuid)
    duplicates = [Duplicate(11, 5, repeated[0], "same UUID"), Duplicate(19, -1, repeated[1], "same UUID")]
    collision = Collision(15, held, rows[1].uuid)
    batch = Batch(where, rows=rows, duplicates=duplicates, collisions=[collision], run_id="run-7")
    catalog.commit(batch)
    assert list(catalog.rows("alerts")) == rows
    assert list(catalog.duplicates("alerts")) == [(ALERTS, one) for one in duplicates]
    assert list(catalog.collisions("alerts")) == [(ALERTS, collision)]
    assert catalog.coverage(["alerts"]) == {ALERTS: OffsetSet.between(10, 20)}
    (entry,) = catalog.ledger(["alerts"])
    assert (entry.slice, entry.outcome, entry.reason, entry.run_id) == (where, Outcome.ARCHIVED, "", "run-7")
    assert (entry.archived, entry.duplicates, entry.absent) == (2, 2, 6)
    assert entry.size_bytes == rows[0].size_bytes + rows[1].size_bytes


def test_a_batch_of_nothing_but_absent_offsets_is_covered(catalog: Catalog) -> None:
    catalog.commit(Batch(slice_of(0, 3)))
    assert catalog.coverage() == {ALERTS: OffsetSet.between(0, 3)}
    assert catalog.ledger()[0].absent == 3
    assert catalog.summaries() == [
        TopicSummary("alerts", absent=3, last_batch_at=catalog.ledger()[0].created_at)
    ]


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.SKIPPED])
def test_a_slice_lost_or_skipped_is_covered_and_says_why(catalog: Catalog, outcome: Outcome) -> None:
    catalog.commit(Batch(slice_of(0, 30), outcome, "retention was 7 d"))
    (entry,) = catalog.ledger()
    assert (entry.outcome, entry.reason) == (outcome, "retention was 7 d")
    assert (entry.archived, entry.duplicates, entry.absent) == (0, 0, 0)
    (summary,) = catalog.summaries()
    assert {"lost": summary.lost, "skipped": summary.skipped} == {"lost": 0, "skipped": 0, outcome.value: 30}


@pytest.mark.parametrize(
    ("start", "stop"), [(10, 20), (5, 11), (19, 25), (12, 13), (0, 100)], ids=lambda offset: str(offset)
)
def test_a_slice_that_overlaps_is_refused_and_nothing_changed(
    catalog: Catalog, start: int, stop: int
) -> None:
    catalog.commit(full_batch(10, 20, run_id="who was first"))
    before = everything(catalog, "alerts")
    with pytest.raises(SliceTakenError) as refusal:
        catalog.commit(full_batch(start, stop))
    assert everything(catalog, "alerts") == before
    assert refusal.value.facts["slice"] == str(slice_of(start, stop))
    holders = refusal.value.facts["holders"]
    assert isinstance(holders, list)
    assert (holders[0]["start"], holders[0]["stop"], holders[0]["run_id"]) == (10, 20, "who was first")


def test_slices_that_touch_and_other_lineages_do_not_overlap(catalog: Catalog) -> None:
    for where in (
        slice_of(10, 20),
        slice_of(20, 30),
        slice_of(0, 10),
        slice_of(10, 20, partition=1),
        slice_of(10, 20, generation=2),
        slice_of(10, 20, topic="other"),
    ):
        catalog.commit(Batch(where))
    assert catalog.coverage(["alerts"]) == {
        ALERTS: OffsetSet.between(0, 30),
        PartitionLog("alerts", 1, 1): OffsetSet.between(10, 20),
        PartitionLog("alerts", 2, 0): OffsetSet.between(10, 20),
    }


def test_a_uuid_that_is_there_already_refuses_the_whole_batch(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 3, topic="other"))
    (taken, *_) = catalog.rows("other")
    batch = full_batch(0, 5)
    stale = replace(batch, rows=[*batch.rows[:4], row_at(batch.slice, 4, uuid=taken.uuid)])
    before = everything(catalog, "alerts", "other")
    with pytest.raises(StaleDecisionError) as refusal:
        catalog.commit(stale)
    assert refusal.value.facts["uuids"] == [str(taken.uuid)]
    assert everything(catalog, "alerts", "other") == before
    catalog.commit(batch)  # and the slice is still free


def test_a_duplicate_of_what_was_taken_away_meanwhile_refuses_the_whole_batch(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 3, topic="other"))
    (kept, *_) = catalog.rows("other")
    gone = uuid.uuid4()
    batch = full_batch(0, 5)
    copies = [Duplicate(5, 0, kept.uuid, "same"), Duplicate(6, 0, gone, "same")]
    stale = replace(batch, slice=slice_of(0, 8), duplicates=copies)
    before = everything(catalog, "alerts", "other")
    with pytest.raises(StaleDecisionError, match="taken away") as refusal:
        catalog.commit(stale)
    assert refusal.value.facts["uuids"] == [str(gone)]
    assert everything(catalog, "alerts", "other") == before
    catalog.commit(replace(stale, duplicates=copies[:1]))  # and the slice is still free


@pytest.mark.parametrize("is_together", [False, True])
def test_a_duplicate_is_recorded_of_the_same_content_alone(
    catalog: Catalog, adopt: Adopt, *, is_together: bool
) -> None:
    """What it repeats was taken away since that was decided, and other content has its UUID; or the same has, in another topic."""
    adopted, elsewhere = adopted_row(), adopted_row("other")
    adopt([adopted, elsewhere])
    there = [full_batch(0, 2, partition=1), full_batch(0, 1, topic="other")]
    same, changed, apart = (row for batch in there for row in batch.rows)
    if not is_together:
        catalog.commit(*there)
        there.clear()
    right = [
        Duplicate(0, 0, same.uuid, "same", same.digest),
        Duplicate(1, 0, adopted.uuid, "same", b"a digest that no row of another archiver's has"),
    ]
    for wrong, digest in (
        (changed, b"of what was there before"),
        (apart, apart.digest),
        (elsewhere, b"of another topic"),
    ):
        copies = [*right, Duplicate(2, 0, wrong.uuid, "same", digest)]
        before = everything(catalog, "alerts", "other")
        with pytest.raises(StaleDecisionError, match="taken away") as refusal:
            catalog.commit(Batch(slice_of(0, 3), duplicates=copies), *there)
        assert refusal.value.facts["uuids"] == [str(wrong.uuid)]
        assert everything(catalog, "alerts", "other") == before
    catalog.commit(Batch(slice_of(0, 2), duplicates=right), *there)
    assert [copy for _, copy in catalog.duplicates("alerts")] == [
        copy._replace(digest=None) for copy in right
    ]


def several() -> list[Batch]:
    """Batches of three logs, of which one repeats messages of another that comes after it, and one of its own."""
    later = full_batch(0, 4, "other", partition=1)
    first = full_batch(0, 5)
    copies = [Duplicate(5, 0, later.rows[1].uuid, "same"), Duplicate(7, 0, first.rows[0].uuid, "same")]
    return [later, replace(first, slice=slice_of(0, 9), duplicates=copies), full_batch(3, 6, partition=1)]


def test_batches_that_are_committed_together_are_there_as_if_each_had_been_by_itself(
    catalog: Catalog,
) -> None:
    catalog.commit(full_batch(9, 11))
    batches = several()
    catalog.commit(*batches)
    for batch in batches:
        (entry,) = [one for one in catalog.ledger() if one.slice == batch.slice]
        counts = (len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes)
        assert (entry.archived, entry.duplicates, entry.absent, entry.size_bytes) == counts
        assert (entry.first_timestamp_ms, entry.last_timestamp_ms) == batch.ends_ms
        rows = [
            row
            for row in catalog.rows(batch.slice.topic)
            if row.slice and row.slice.offsets & batch.slice.offsets
        ]
        assert [row for row in rows if row.partition == batch.slice.partition] == list(batch.rows)
    assert catalog.coverage() == {
        ALERTS: OffsetSet.between(0, 11),
        PartitionLog("alerts", 1, 1): OffsetSet.between(3, 6),
        PartitionLog("other", 1, 1): OffsetSet.between(0, 4),
    }
    assert {one.topic: one.messages for one in catalog.summaries()} == {"alerts": 10, "other": 4}
    assert not catalog.miscounts("alerts")
    assert not catalog.miscounts("other")


@pytest.mark.parametrize("why", ["slice", "uuid", "uuid of another", "duplicate", "proof"])
def test_what_is_in_the_way_of_one_batch_refuses_all_that_are_committed_with_it(
    catalog: Catalog, why: str
) -> None:
    catalog.commit(full_batch(20, 23))
    (taken, *_) = catalog.rows("alerts")
    catalog.observe({ALERTS: Watermarks(0, 30, 30)})
    catalog.note_proven({ALERTS: 3})
    first, second, third = several()
    batch, error = {
        "slice": (full_batch(22, 25), SliceTakenError),
        "uuid": (Batch(slice_of(0, 1, partition=2), rows=[row_at(slice_of(0, 1, partition=2), 0, uuid=taken.uuid)]), StaleDecisionError),
        "uuid of another": (Batch(slice_of(0, 1, partition=2), rows=[row_at(slice_of(0, 1, partition=2), 0, uuid=first.rows[0].uuid)]), StaleDecisionError),
        "duplicate": (Batch(slice_of(0, 1, partition=2), duplicates=[Duplicate(0, 0, uuid.uuid4(), "same")]), StaleDecisionError),
        "proof": (replace(full_batch(25, 27), proven_epoch=4), ProofChangedError),
    }[why]  # fmt: skip
    before = everything(catalog, "alerts", "other")
    with pytest.raises(error):
        catalog.commit(first, second, batch, third)
    assert everything(catalog, "alerts", "other") == before
    catalog.commit(first, second, third)


def test_a_uuid_twice_in_one_batch_refuses_it(catalog: Catalog) -> None:
    where = slice_of(0, 2)
    own = uuid.uuid4()
    with pytest.raises(StaleDecisionError):
        catalog.commit(Batch(where, rows=[row_at(where, 0, uuid=own), row_at(where, 1, uuid=own)]))
    assert not catalog.coverage()


def test_where_both_the_slice_and_a_uuid_are_taken_the_slice_is_what_is_told(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    with pytest.raises(SliceTakenError):
        catalog.commit(batch)


ODD_TEXTS = [
    "",
    "plain",
    "tab\tnew\nline\rreturn",
    r"\N",
    r"\.",
    "\\",
    "'; DROP TABLE messages; --",
    "%s",
    "🔭 ü",
    "\ufffd",
]
LEAST, GREATEST = -(2**63), 2**63 - 1


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_comes_back_as_it_was(catalog: Catalog, text: str) -> None:
    notes = Annotations(False, True, text, text, text, text, text)
    where = slice_of(0, 1)
    row = row_at(where, 0, annotations=notes, object_key=f"k{text}", bucket=f"b{text}")
    duplicate = Duplicate(1, 0, row.uuid, text)
    catalog.commit(Batch(slice_of(0, 2), rows=[row], duplicates=[duplicate], run_id=text))
    assert catalog.find(row.uuid) == row
    assert list(catalog.duplicates("alerts")) == [(ALERTS, duplicate)]
    assert catalog.ledger()[0].run_id == text


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 253_402_300_800_000, LEAST, GREATEST])
@pytest.mark.parametrize("clock", list(TimestampType))
def test_any_timestamp_comes_back_as_it_was(
    catalog: Catalog, timestamp_ms: int, clock: TimestampType
) -> None:
    where = slice_of(0, 1)
    row = row_at(where, 0, timestamp_ms=timestamp_ms, timestamp_type=clock)
    catalog.commit(Batch(where, rows=[row]))
    assert list(catalog.rows("alerts")) == [row]
    (summary,) = catalog.summaries()
    assert (summary.first_timestamp_ms, summary.last_timestamp_ms) == (timestamp_ms, timestamp_ms)


def test_the_greatest_numbers_fit(catalog: Catalog) -> None:
    where = slice_of(GREATEST - 1, GREATEST, partition=2**31 - 1)
    row = row_at(
        where,
        GREATEST - 1,
        position=2**40,
        size_bytes=2**31 - 1,
        crc32=2**32 - 1,
        message_crc32=2**32 - 1,
        frame=2**40,
        frame_size=2**31 - 1,
    )
    collision = Collision(GREATEST - 1, uuid.uuid4(), row.uuid)
    catalog.commit(Batch(where, rows=[row], collisions=[collision]))
    assert list(catalog.rows("alerts")) == [row]
    assert catalog.coverage() == {where.partition_log: where.offsets}
    assert list(catalog.collisions("alerts")) == [(where.partition_log, collision)]


# Reading


def test_segments_are_recorded_with_the_length_that_they_have_at_least(catalog: Catalog) -> None:
    where = slice_of(0, 6)
    plain = [
        row_at(where, n, position=n * 100, size_bytes=100, object_key="segments/alerts/1") for n in range(2)
    ]
    framed = [
        row_at(where, n, position=n % 2 * 9_000, size_bytes=9_000, object_key="segments/alerts/2", frame=frame, frame_size=size)
        for n, frame, size in ((2, 0, 700), (3, 0, 700), (4, 700, 650))
    ]  # fmt: skip
    catalog.commit(Batch(where, rows=[*plain, *framed]))
    found = list(catalog.recorded("alerts", segments=True))
    table_bytes = 8 + 2 * 8 + 9  # as zstd's seekable format has it: a header, an entry each, a footer
    assert [(r.key, r.rows, r.end_bytes, r.is_segment) for r in found] == [
        ("segments/alerts/1", 2, 200, True),
        ("segments/alerts/2", 3, 1_350 + table_bytes, True),
    ]
    assert [r.uuid in {row.uuid for row in rows} for r, rows in zip(found, (plain, framed), strict=True)] == [
        True,
        True,
    ]


def test_rows_come_in_order_of_generation_partition_and_offset_and_adopted_ones_last(
    catalog: Catalog, adopt: Adopt
) -> None:
    adopted = adopted_row()
    adopt([adopted])
    places = [(2, 0, 5), (1, 1, 0), (1, 0, 40), (1, 0, 3), (1, 0, 12)]
    for generation, partition, offset in places:
        where = slice_of(offset, offset + 1, generation=generation, partition=partition)
        catalog.commit(Batch(where, rows=[row_at(where, offset)]))
    catalog.commit(full_batch(0, 2, topic="other"))
    found = list(catalog.rows("alerts"))
    assert [(row.generation, row.partition, row.offset) for row in found[:-1]] == sorted(places)
    assert found[-1] == adopted


def test_a_topic_without_rows_streams_none(catalog: Catalog) -> None:
    assert list(catalog.rows("unknown")) == []
    assert list(catalog.duplicates("unknown")) == []
    assert list(catalog.collisions("unknown")) == []


def test_a_stream_that_is_left_early_leaves_the_catalog_usable(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 50))
    for _ in range(10):
        stream = catalog.rows("alerts")
        assert next(stream).offset == 0
        del stream
    assert sum(1 for _ in catalog.rows("alerts")) == 50


def test_what_is_read_from_a_stream_may_be_acted_on_meanwhile(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 5))
    for row in catalog.rows("alerts"):
        assert catalog.find(row.uuid) == row
    assert catalog.find(uuid.uuid4()) is None


def test_duplicates_and_collisions_come_in_order_of_lineage_and_offset(catalog: Catalog) -> None:
    for partition, start in ((1, 0), (0, 10), (0, 0)):
        where = slice_of(start, start + 3, partition=partition)
        rows = [row_at(where, start)]
        duplicates = [Duplicate(start + i, i, rows[0].uuid, "same") for i in (2, 1)]
        collisions = [Collision(start, uuid.uuid4(), rows[0].uuid)]
        catalog.commit(Batch(where, rows=rows, duplicates=duplicates, collisions=collisions))
    places = [(partition_log.partition, one.offset) for partition_log, one in catalog.duplicates("alerts")]
    assert places == [(0, 1), (0, 2), (0, 11), (0, 12), (1, 1), (1, 2)]
    assert [(partition_log.partition, one.offset) for partition_log, one in catalog.collisions("alerts")] == [
        (0, 0),
        (0, 10),
        (1, 0),
    ]


def test_the_ledger_is_sorted_by_slice_and_can_be_asked_by_topic(catalog: Catalog) -> None:
    slices = [slice_of(10, 20, "b"), slice_of(0, 5, "b", 2), slice_of(5, 9, "b"), slice_of(0, 1, "a")]
    slices.append(slice_of(0, 1, "B"))
    for where in slices:
        catalog.commit(Batch(where))
    assert [entry.slice for entry in catalog.ledger()] == sorted(slices)
    assert [entry.slice.topic for entry in catalog.ledger(["a", "unknown"])] == ["a"]
    assert list(catalog.ledger([])) == []


def test_coverage_is_whatever_was_dealt_with_however(catalog: Catalog) -> None:
    catalog.commit(Batch(slice_of(0, 10), Outcome.LOST, "retention"))
    catalog.commit(full_batch(10, 12))
    catalog.commit(Batch(slice_of(20, 22), Outcome.SKIPPED, "test"))
    assert catalog.coverage() == {ALERTS: OffsetSet.of([(0, 12), (20, 22)])}
    assert catalog.coverage(["alerts", "unknown"]) == catalog.coverage()
    assert catalog.coverage(["unknown"]) == {}
    assert catalog.coverage([]) == {}


# Known


def test_a_message_is_known_by_its_uuid_on_any_topic(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 3))
    (row, *_) = catalog.rows("alerts")
    asked = identity_of(row, topic="elsewhere", digest=bytes(16))
    assert list(catalog.known([asked])) == [
        Known(row.uuid, "alerts", row.timestamp_ms, row.message_crc32, True, row.digest)
    ]


def test_what_is_not_there_is_not_known(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 3))
    (row, *_) = catalog.rows("alerts")
    # A row with a digest is never known by its content: only its UUID tells.
    assert list(catalog.known([identity_of(row, uuid=uuid.uuid4())])) == []
    assert list(catalog.known([])) == []


def test_an_adopted_row_is_known_by_topic_timestamp_and_checksum(catalog: Catalog, adopt: Adopt) -> None:
    row = adopted_row(is_client_uuid=False)
    adopt([row, adopted_row("other")])
    asked = identity_of(row, uuid=uuid.uuid4(), is_client_uuid=False)
    (found,) = catalog.known([asked])
    assert found == Known(row.uuid, "alerts", row.timestamp_ms, row.message_crc32, False, None)
    assert same_message(asked, found)
    for other in (
        asked._replace(topic="elsewhere"),
        asked._replace(timestamp_ms=asked.timestamp_ms + 1),
        asked._replace(message_crc32=asked.message_crc32 + 1),
    ):
        assert list(catalog.known([other])) == []


def test_a_row_known_in_two_ways_is_told_once(catalog: Catalog, adopt: Adopt) -> None:
    row = adopted_row()
    adopt([row])
    assert len(catalog.known([identity_of(row), identity_of(row), identity_of(row, uuid=uuid.uuid4())])) == 1


def test_several_adopted_rows_may_be_alike_and_all_are_told(catalog: Catalog, adopt: Adopt) -> None:
    alike = [adopted_row(), adopted_row()]
    adopt(alike)
    found = catalog.known([identity_of(alike[0], uuid=uuid.uuid4())])
    assert {known.uuid for known in found} == {row.uuid for row in alike}


def test_only_a_topic_with_adopted_rows_has_some(catalog: Catalog, adopt: Adopt) -> None:
    catalog.commit(full_batch(0, 2, topic="other"))
    adopt([adopted_row()])
    assert [catalog.has_adopted(topic) for topic in ("alerts", "other", "unknown")] == [True, False, False]


# Summaries


def test_a_summary_adds_up_all_of_a_topic(catalog: Catalog) -> None:
    rows = [row_at(slice_of(10, 20), 10), row_at(slice_of(10, 20), 15)]
    first = Batch(slice_of(10, 20), rows=rows, duplicates=[Duplicate(11, 0, rows[0].uuid, "same")])
    second = full_batch(0, 4, partition=1)
    for batch in (
        Batch(slice_of(0, 10), Outcome.LOST, "retention"),
        first,
        second,
        Batch(slice_of(20, 25), Outcome.SKIPPED, "test"),
        full_batch(0, 1, topic="another"),
    ):
        catalog.commit(batch)
    alerts, another = catalog.summaries()
    assert another.topic == "another"
    assert alerts == TopicSummary(
        topic="alerts",
        messages=6,
        duplicates=1,
        absent=7,
        lost=10,
        skipped=5,
        size_bytes=first.size_bytes + second.size_bytes,
        first_timestamp_ms=second.rows[0].timestamp_ms,
        last_timestamp_ms=first.rows[1].timestamp_ms,
        last_batch_at=max(entry.created_at for entry in catalog.ledger(["alerts"])),
    )
    assert catalog.summaries(["alerts", "unknown"]) == [alerts]
    assert list(catalog.summaries([])) == []


def test_adopted_rows_count_in_summaries_over_all_time(catalog: Catalog, adopt: Adopt) -> None:
    early = adopted_row(timestamp_ms=1, size_bytes=1000)
    adopt([early, adopted_row("only-adopted")])
    batch = full_batch(0, 2)
    catalog.commit(batch)
    alerts, adopted = catalog.summaries()
    assert (alerts.messages, alerts.size_bytes) == (3, 1000 + batch.size_bytes)
    assert (alerts.first_timestamp_ms, alerts.last_timestamp_ms) == (1, batch.rows[1].timestamp_ms)
    assert (adopted.topic, adopted.messages, adopted.last_batch_at) == ("only-adopted", 1, None)


def test_a_window_counts_only_what_was_committed_since(catalog: Catalog, adopt: Adopt) -> None:
    adopt([adopted_row()])
    catalog.commit(full_batch(0, 5))
    catalog.commit(full_batch(0, 5, topic="quiet"))
    last = full_batch(5, 7)
    catalog.commit(last)
    moment = max(entry.created_at for entry in catalog.ledger())
    assert catalog.summaries(since=moment) == [
        TopicSummary(
            "alerts",
            messages=2,
            size_bytes=last.size_bytes,
            first_timestamp_ms=last.rows[0].timestamp_ms,
            last_timestamp_ms=last.rows[1].timestamp_ms,
            last_batch_at=moment,
        )
    ]
    assert list(catalog.summaries(since=moment + datetime.timedelta(microseconds=1))) == []
    assert list(catalog.summaries(["quiet"], since=moment)) == []


# Merging the ledger


def test_merged_neighbours_add_up_and_leave_all_else_as_it_was(catalog: Catalog) -> None:
    for batch in (full_batch(0, 10), full_batch(10, 15), Batch(slice_of(15, 18))):
        catalog.commit(batch)
    before = everything(catalog, "alerts")
    entries = catalog.ledger()
    assert catalog.merge_ledger(TOMORROW) == 2
    (merged,) = catalog.ledger()
    assert merged.slice == slice_of(0, 18)
    assert (merged.archived, merged.duplicates, merged.absent) == (15, 0, 3)
    assert merged.size_bytes == sum(entry.size_bytes for entry in entries)
    assert merged.created_at == max(entry.created_at for entry in entries)
    coverage, _, *rest = before
    assert everything(catalog, "alerts")[0] == coverage
    assert list(everything(catalog, "alerts")[2:]) == rest
    assert catalog.merge_ledger(TOMORROW) == 0


@pytest.mark.parametrize(
    "neighbour",
    [
        Batch(slice_of(11, 20)),
        Batch(slice_of(10, 20), Outcome.LOST, "retention"),
        Batch(slice_of(10, 20, partition=1)),
        Batch(slice_of(10, 20, generation=2)),
        Batch(slice_of(10, 20, topic="other")),
    ],
    ids=[
        "beyond a hole",
        "of another outcome",
        "of another partition",
        "of another generation",
        "of another topic",
    ],
)
def test_a_ledger_row_is_not_merged_with_one(catalog: Catalog, neighbour: Batch) -> None:
    catalog.commit(Batch(slice_of(0, 10)))
    catalog.commit(neighbour)
    before = catalog.ledger()
    assert catalog.merge_ledger(TOMORROW) == 0
    assert catalog.ledger() == before


def test_lost_slices_merge_only_where_their_reason_is_the_same(catalog: Catalog) -> None:
    for start, reason in ((0, "a"), (10, "a"), (20, "b")):
        catalog.commit(Batch(slice_of(start, start + 10), Outcome.LOST, reason))
    assert catalog.merge_ledger(TOMORROW) == 1
    assert [(e.slice.start, e.slice.stop, e.reason) for e in catalog.ledger()] == [
        (0, 20, "a"),
        (20, 30, "b"),
    ]


def test_ledger_rows_are_not_merged_over_another_between_them(catalog: Catalog) -> None:
    for start, outcome, reason in (
        (0, Outcome.LOST, "a"),
        (10, Outcome.LOST, "b"),
        (20, Outcome.LOST, "a"),
        (30, Outcome.SKIPPED, "a"),
        (40, Outcome.LOST, "a"),
    ):
        catalog.commit(Batch(slice_of(start, start + 10), outcome, reason))
    before = catalog.ledger()
    assert catalog.merge_ledger(TOMORROW) == 0
    assert catalog.ledger() == before


def test_young_ledger_rows_are_not_merged(catalog: Catalog) -> None:
    for start in (0, 10, 20):
        catalog.commit(Batch(slice_of(start, start + 10)))
    youngest = max(entry.created_at for entry in catalog.ledger())
    assert catalog.merge_ledger(youngest) == 1
    assert [(e.slice.start, e.slice.stop) for e in catalog.ledger()] == [(0, 20), (20, 30)]


def test_a_merged_row_names_the_run_that_all_of_it_was_of(catalog: Catalog) -> None:
    for start, run_id, topic in ((0, "r1", "one"), (10, "r1", "one"), (0, "r1", "two"), (10, "r2", "two")):
        catalog.commit(Batch(slice_of(start, start + 10, topic), run_id=run_id))
    catalog.merge_ledger(TOMORROW)
    assert [(e.slice.topic, e.run_id) for e in catalog.ledger()] == [("one", "r1"), ("two", "")]


def test_what_was_merged_is_still_taken_and_what_was_a_hole_still_free(catalog: Catalog) -> None:
    for start, stop in ((0, 10), (10, 20), (30, 40)):
        catalog.commit(Batch(slice_of(start, stop)))
    catalog.merge_ledger(TOMORROW)
    with pytest.raises(SliceTakenError):
        catalog.commit(Batch(slice_of(5, 12)))
    catalog.commit(Batch(slice_of(20, 30)))
    assert catalog.merge_ledger(TOMORROW) == 2
    assert catalog.coverage() == {ALERTS: OffsetSet.between(0, 40)}


# Closing, sharing


def test_closing_twice_is_harmless(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 1))
    catalog.close()
    catalog.close()


def test_threads_share_a_catalog(catalog: Catalog) -> None:
    def write(partition: int) -> None:
        for start in range(0, 50, 5):
            catalog.commit(full_batch(start, start + 5, partition=partition))

    def ask() -> None:
        for _ in range(20):
            catalog.known([identity_of(adopted_row())])

    threads = [InThread(partial(write, partition)) for partition in range(3)]
    for thread in [*threads, InThread(ask)]:
        assert thread.outcome() is None
    assert catalog.summaries()[0].messages == 150
    assert len(list(catalog.rows("alerts"))) == 150


def test_a_mock_in_a_directory_is_one_catalog_to_all_who_open_it(tmp_path: Path) -> None:
    first, second = MockCatalog(directory=tmp_path), MockCatalog(directory=tmp_path)
    first.commit(full_batch(0, 3))
    assert everything(second, "alerts") == everything(first, "alerts")
    with pytest.raises(SliceTakenError):
        second.commit(full_batch(2, 4))


# The same ledger in both

Step: TypeAlias = tuple[int, int, int, tuple[Outcome, str]]

outcomes = st.sampled_from(
    [(Outcome.ARCHIVED, ""), (Outcome.LOST, "a"), (Outcome.LOST, "b"), (Outcome.SKIPPED, "a")]
)
steps = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(1, 8), outcomes), max_size=14)


@given(steps, steps)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mock_and_postgres_take_refuse_and_merge_alike(
    postgres: PostgresCatalog, migrated_url: str, before: list[Step], after: list[Step]
) -> None:
    with connect(migrated_url) as connection:
        connection.execute(f"TRUNCATE {TABLES}".encode())
    mock = MockCatalog()
    for some in (before, after):
        for step in some:
            assert _take(mock, step) == _take(postgres, step)
        assert mock.merge_ledger(TOMORROW) == postgres.merge_ledger(TOMORROW)
        assert _ledger_without_times(mock) == _ledger_without_times(postgres)
        assert mock.coverage() == postgres.coverage()


def _take(catalog: Catalog, step: Step) -> str:
    partition, start, length, (outcome, reason) = step
    try:
        catalog.commit(Batch(slice_of(start, start + length, partition=partition), outcome, reason))
    except SliceTakenError:
        return "taken"
    return "committed"


def _ledger_without_times(catalog: Catalog) -> list[object]:
    return [replace(entry, created_at=TOMORROW) for entry in catalog.ledger()]


# Selecting


def selection(catalog: Catalog, adopt: Adopt) -> list[Row]:
    """Rows of three topics in the catalog, in the order of their places."""
    second = slice_of(0, 3, partition=1)
    anew = slice_of(0, 2, generation=2)
    other = slice_of(0, 2, topic="Other-topic")
    by_place = [
        Batch(other, rows=[row_at(other, offset, timestamp_ms=10 - offset) for offset in range(2)]),
        full_batch(0, 5),
        Batch(second, rows=[row_at(second, offset, annotations=SENT) for offset in (0, 2)]),
        Batch(anew, rows=[row_at(anew, offset, timestamp_ms=50) for offset in range(2)]),
    ]
    adopted = [adopted_row(timestamp_ms=9), adopted_row(timestamp_ms=5), adopted_row(timestamp_ms=9)]
    for batch in reversed(by_place):
        catalog.commit(batch)
    adopt(adopted)
    return [row for batch in by_place for row in batch.rows] + [adopted[1], adopted[0], adopted[2]]


SENT = Annotations(sender="O'Neill", media_type="text/plain")


def test_all_rows_are_selected_in_order_of_their_places(catalog: Catalog, adopt: Adopt) -> None:
    rows = selection(catalog, adopt)
    assert list(catalog.select(Query())) == rows


def test_rows_can_be_had_in_the_order_in_which_they_came(catalog: Catalog, adopt: Adopt) -> None:
    rows = selection(catalog, adopt)
    came = [*rows[9:11], *rows[7:9], *rows[2:7], *rows[:2], rows[12], rows[11], rows[13]]
    assert list(catalog.select(Query(), Order.ID)) == came


def test_rows_can_be_had_with_the_newest_first(catalog: Catalog, adopt: Adopt) -> None:
    selection(catalog, adopt)
    came = list(catalog.select(Query(), Order.ID))
    newest = sorted(came, key=lambda row: (row.timestamp_ms, came.index(row)), reverse=True)
    assert len({row.timestamp_ms for row in came}) > 3
    assert list(catalog.select(Query(), Order.NEWEST)) == newest
    assert list(catalog.select(Query(limit=3), Order.NEWEST)) == newest[:3]
    for topics in (("alerts",), ("alerts", "Other*")):
        of_topics = [row for row in newest if Query(topics).means(row.topic)]
        assert list(catalog.select(Query(topics), Order.NEWEST)) == of_topics


@pytest.mark.parametrize("order", Order)
def test_each_bound_narrows_the_selection(catalog: Catalog, adopt: Adopt, order: Order) -> None:
    rows = selection(catalog, adopt)

    def chosen(**bounds: object) -> set[uuid.UUID]:
        return {row.uuid for row in catalog.select(Query(**bounds), order)}  # type: ignore[arg-type] # as given

    def expected(which: Callable[[Row], bool]) -> set[uuid.UUID]:
        found = {row.uuid for row in rows if which(row)}
        assert 0 < len(found) < len(rows)
        return found

    assert chosen(topics=("alerts",)) == expected(lambda row: row.topic == "alerts")
    assert chosen(topics=("*-topic", "Other*")) == expected(lambda row: row.topic == "Other-topic")
    assert chosen(since_ms=9) == expected(lambda row: row.timestamp_ms >= 9)
    assert chosen(until_ms=9) == expected(lambda row: row.timestamp_ms < 9)
    assert chosen(since_ms=9, until_ms=50) == expected(lambda row: 9 <= row.timestamp_ms < 50)
    assert chosen(senders=("O'Neill", "nobody")) == expected(lambda row: row.annotations == SENT)
    assert chosen(media_types=("text/plain",)) == expected(lambda row: row.annotations == SENT)
    some = (rows[0].uuid, rows[5].uuid, rows[12].uuid, uuid.uuid4())
    assert chosen(uuids=some) == set(some[:3])
    assert chosen(uuids=some, topics=("alerts",)) == set(some[1:3])
    assert chosen(uuids=()) == set()
    assert chosen(since_ms=9, senders=("nobody",)) == set()


def test_places_select_their_offsets_and_nothing_that_has_none(catalog: Catalog, adopt: Adopt) -> None:
    rows = selection(catalog, adopt)
    whole = Slice("alerts", 1, 0, 0, 2**62)
    of_it = [row for row in rows if (row.topic, row.generation, row.partition) == ("alerts", 1, 0)]
    assert len(of_it) >= 3
    for order in Order:
        assert list(catalog.select(Query(places=(whole,)), order)) == of_it
    first, last = (
        Slice("alerts", 1, 0, row.offset or 0, (row.offset or 0) + 1) for row in (of_it[0], of_it[-1])
    )
    assert list(catalog.select(Query(places=(last, first)))) == [of_it[0], of_it[-1]]
    assert list(catalog.select(Query(places=(whole,), topics=("Other-topic",)))) == []
    assert list(catalog.select(Query(places=(whole,), uuids=(of_it[1].uuid, rows[-1].uuid)))) == [of_it[1]]


def test_where_messages_are_stored_is_what_their_rows_say_of_it_but_for_what_was_suppressed(
    catalog: Catalog, adopt: Adopt
) -> None:
    rows = [row for row in selection(catalog, adopt) if row.offset is not None]
    logs = sorted({(row.topic, row.generation or 0, row.partition or 0) for row in rows})
    places = tuple(Slice(*log, 0, 2**62) for log in logs)
    rows = list(catalog.select(Query(places=places)))
    for more in ({}, {"limit": 4}, {"uuids": (rows[1].uuid,)}, {"since_ms": rows[2].timestamp_ms}):
        query = Query(places=places, **more)
        assert catalog.stored(query) == [Stored.of(row) for row in catalog.select(query)]
    catalog.suppress({rows[0].uuid: rows[0].topic}, "asked for")
    assert catalog.stored(Query(places=places, limit=3)) == [Stored.of(row) for row in rows[1:4]]


def test_messages_that_were_taken_back_can_be_left_out_or_be_all(catalog: Catalog) -> None:
    where = slice_of(0, 3)
    rows = [row_at(where, 0), row_at(where, 1)._replace(retracted=True), row_at(where, 2)]
    catalog.commit(Batch(where, rows=rows))
    assert list(catalog.select(Query(retracted=False))) == [rows[0], rows[2]]
    assert list(catalog.select(Query(retracted=True))) == [rows[1]]
    assert list(catalog.select(Query())) == rows


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("limit", [0, 1, 3, 13, 14, 15])
def test_a_limit_takes_the_first_of_the_order(
    catalog: Catalog, adopt: Adopt, limit: int, order: Order
) -> None:
    selection(catalog, adopt)
    everything_there = list(catalog.select(Query(), order))
    assert list(catalog.select(Query(limit=limit), order)) == everything_there[:limit]
    uuids = tuple(row.uuid for row in everything_there)
    assert list(catalog.select(Query(limit=limit, uuids=uuids), order)) == everything_there[:limit]


@pytest.mark.parametrize("order", Order)
def test_a_topic_that_the_catalog_does_not_have_is_an_error_that_names_the_nearest(
    catalog: Catalog, adopt: Adopt, order: Order
) -> None:
    selection(catalog, adopt)
    with pytest.raises(ConfigurationError, match="Did you mean alerts"):
        next(catalog.select(Query(topics=("alerts", "alrets")), order))
    with pytest.raises(ConfigurationError, match=r"nothing-\*"):
        next(catalog.select(Query(topics=("nothing-*",)), order))


def test_nothing_is_selected_of_an_empty_catalog(catalog: Catalog) -> None:
    assert list(catalog.select(Query())) == []


def test_a_selection_that_is_left_early_leaves_the_catalog_usable(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 100))
    for _ in range(10):
        next(catalog.select(Query()))
    assert len(list(catalog.select(Query()))) == 100
    catalog.commit(full_batch(100, 101))


def test_what_is_selected_may_be_acted_on_meanwhile(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 10))
    for row in catalog.select(Query()):
        assert catalog.find(row.uuid) == row


def test_a_message_that_nothing_else_speaks_of_has_no_mentions(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    assert catalog.mentions(batch.rows[0].uuid, "alerts") == Mentions()


def test_duplicates_and_collisions_of_a_uuid_are_told_and_counted(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    own = batch.rows[0].uuid
    copies = [Duplicate(offset, 7, own, "same UUID") for offset in range(10, 15)]
    stranger = Duplicate(15, 7, batch.rows[1].uuid, "same UUID")
    elsewhere = slice_of(0, 2, topic="elsewhere")
    derived = row_at(elsewhere, 1)
    collision = Collision(1, own, derived.uuid)
    catalog.commit(batch)
    catalog.commit(Batch(slice_of(10, 16), duplicates=[*copies, stranger]))
    catalog.commit(Batch(elsewhere, rows=[derived], collisions=[collision]))
    told = catalog.mentions(own, "alerts", limit=2)
    assert list(told.duplicates) == [(ALERTS, copies[0]), (ALERTS, copies[1])]
    assert told.duplicate_count == 5
    assert list(told.collisions) == [(elsewhere.partition_log, collision)]
    assert told.collision_count == 1
    assert catalog.mentions(derived.uuid, "elsewhere").collisions == told.collisions
