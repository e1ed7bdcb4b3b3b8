"""What a restore writes, what it leaves out, and what it notices. On mocks; real ones are in ``integration``."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Miscount, Snapshot
from hop_archive.catalog.stored import Stored
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash
from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    CorruptError,
    ForbiddenError,
    GenerationChangedError,
    MissingSettingError,
    ObjectFrozenError,
    UnavailableError,
)
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.message import Committed, Message, Receipt, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetRange, PartitionLog
from hop_archive.model.topics import TopicPolicy
from hop_archive.recover.restore import groups
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore import write as writing
from hop_archive.recover.restore.items import ItemReader
from hop_archive.recover.restore.partitioner import partition_of
from hop_archive.recover.restore.prepare import prepare
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import TargetState
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import GROUP_ID, MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.remove.clean_tests import clean_marked
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive_tests.cold_store import ColdStore
from hop_archive_tests.invariants import committed
from hop_archive_tests.removals import archive_all, small_world
from hop_archive_tests.restores import (
    archived_world,
    content,
    empty_cluster,
    held,
    patient,
    restoration,
    run,
    stored,
)
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, adopted_row, exhausted

AGAIN = f"{BUSY}.again"
ONE = Request(query=Query(topics=(BUSY,)), template="{topic}.again")


def wholly(world: World, request: Request, tmp_path: Path, cluster: MockCluster | None = None) -> MockCluster:
    """Restore without a fault; the target."""
    target = cluster or empty_cluster()
    outcome = run(restoration(world, target, request), tmp_path)
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    return target


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_everything_is_put_back_as_it_was_to_the_same_partitions_in_order(
    layout: str, tmp_path: Path
) -> None:
    world = archived_world(layout)  # type: ignore[arg-type]  # one of the two
    target = wholly(world, Request(template="{topic}.again"), tmp_path)
    for topic in (BUSY, QUIET):
        assert held(target, f"{topic}.again") == stored(world.archive(), topic)
    assert any(m.headers.count(("a", None)) for m in held(target, f"{QUIET}.again")[0])


def test_duplicates_can_be_put_back_too_for_the_exact_stream(tmp_path: Path) -> None:
    world = archived_world()
    target = wholly(world, replace(ONE, duplicates=True), tmp_path)
    for number in range(2):
        original = committed(world.cluster, TopicPartition(BUSY, number))
        assert held(target, AGAIN)[number] == [content(message) for message in original]


def test_the_archives_own_id_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    world = archived_world()
    derived = [row for row in world.catalog.rows(BUSY) if not row.is_client_uuid]
    plain = wholly(world, ONE, tmp_path / "a")
    with_ids = wholly(world, replace(ONE, keep_archive_id=True), tmp_path / "b")

    def ids(cluster: MockCluster) -> set[bytes | None]:
        return {
            value
            for messages in held(cluster, AGAIN).values()
            for one in messages
            for name, value in one.headers
            if name == ID_HEADER
        }

    own = {row.uuid.bytes for row in derived}
    assert own
    assert not own & ids(plain)
    # A message whose publisher's UUID is in use by other content keeps its own header, and gets no second one.
    assert own - ids(with_ids) == {c.archived_as.bytes for _, c in world.catalog.collisions(BUSY)}


def test_a_restored_topic_is_recognised_and_does_not_grow_the_archive(tmp_path: Path) -> None:
    world = archived_world()
    before = {topic: len(list(world.catalog.rows(topic))) for topic in (BUSY, QUIET)}
    wholly(world, Request(append=True), tmp_path, world.cluster)
    exhausted(catch_up(world.archive()))
    assert {topic: len(list(world.catalog.rows(topic))) for topic in (BUSY, QUIET)} == before
    assert sum(1 for _ in world.catalog.duplicates(BUSY)) == before[BUSY] + 3


def test_a_selection_by_time_offset_and_uuid_is_put_back_and_nothing_else(tmp_path: Path) -> None:
    world = archived_world()
    rows = [row for row in world.catalog.rows(BUSY) if row.partition == 0]
    chosen = rows[3].offset or 0
    at = ((TopicPartition(BUSY, 0), OffsetRange(chosen, chosen + 4)),)
    target = wholly(world, Request(offsets=at, template="{topic}.again"), tmp_path / "a")
    expected = [row for row in rows if chosen <= (row.offset or 0) < chosen + 4]
    assert len(held(target, AGAIN)[0]) == len(expected) > 1
    target = wholly(
        world, Request(query=Query(uuids=(rows[5].uuid,)), template="{topic}.again"), tmp_path / "b"
    )
    assert sum(map(len, held(target, AGAIN).values())) == 1
    later = Query(topics=(BUSY,), since_ms=NOW_MS + 1)
    with pytest.raises(ConfigurationError, match="Nothing in the catalog"):
        run(restoration(world, empty_cluster(), Request(query=later)), tmp_path / "c")


def test_a_topic_that_the_catalog_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"Did you mean {BUSY}"):
        run(
            restoration(archived_world(), empty_cluster(), Request(query=Query(topics=("alerts.bussy",)))),
            tmp_path,
        )


def test_the_latest_generation_is_put_back_or_all_or_the_one_that_is_named(tmp_path: Path) -> None:
    world = archived_world()
    first = stored(world.archive(), QUIET)[0]
    world.cluster.recreate_topic(QUIET)
    world.cluster.append(QUIET, b"second life")
    exhausted(catch_up(world.archive()))
    quiet = Request(query=Query(topics=(QUIET,)), template="{topic}.again")
    assert len(held(wholly(world, quiet, tmp_path / "a"), f"{QUIET}.again")[0]) == 1
    every = held(wholly(world, replace(quiet, generations="all"), tmp_path / "b"), f"{QUIET}.again")[0]
    assert [one.value for one in every] == [*(one.value for one in first), b"second life"]
    one = held(wholly(world, replace(quiet, generations=1), tmp_path / "c"), f"{QUIET}.again")[0]
    assert one == first
    born = world.catalog.generations([QUIET])[QUIET][1].detected_at.timestamp() * 1000
    then = held(wholly(world, replace(quiet, as_of_ms=int(born) - 1), tmp_path / "d"), f"{QUIET}.again")[0]
    assert then == first


def test_messages_that_were_taken_back_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    world = archived_world()
    with world.catalog._state.change() as tables:
        row = next(row for row in tables.rows.values() if row.topic == QUIET)
        tables.rows[row.uuid] = row._replace(retracted=True)
    quiet = Request(query=Query(topics=(QUIET,), retracted=False), template="{topic}.again")
    without = held(wholly(world, quiet, tmp_path / "a"), f"{QUIET}.again")[0]
    both = replace(quiet, query=Query(topics=(QUIET,)))
    assert len(held(wholly(world, both, tmp_path / "b"), f"{QUIET}.again")[0]) == len(without) + 1


def test_content_that_was_removed_for_good_is_never_put_back(tmp_path: Path) -> None:
    world = archived_world()
    gone = next(row for row in world.catalog.rows(QUIET) if row.digest)
    world.catalog.suppress({gone.uuid: QUIET}, "by order of a court")
    quiet = Request(query=Query(topics=(QUIET,)), template="{topic}.again", duplicates=True)
    target = empty_cluster()
    outcome = run(restoration(world, target, quiet), tmp_path)
    assert (outcome.complete, outcome.differences) == (True, 0)
    assert outcome.report["messages"] == len(list(world.catalog.rows(QUIET))) - 1
    message = decode(next(world.store.fetch([Extent(gone.object_key)]))).message
    assert content(message) not in held(target, f"{QUIET}.again")[0]


@pytest.mark.parametrize("duplicates", [False, True])
def test_a_plan_counts_nothing_whose_content_was_removed_for_good(duplicates: bool, tmp_path: Path) -> None:
    world = archived_world()
    world.catalog.adopt([adopted_row(QUIET), adopted_row(QUIET)._replace(uuid=uuid.UUID(int=5))])
    copied = {copy.uuid for _, copy in world.catalog.duplicates(BUSY)}
    own = next(row for row in world.catalog.rows(BUSY) if row.uuid in copied)
    world.catalog.suppress({own.uuid: BUSY, uuid.UUID(int=5): QUIET}, "by order of a court")
    request = Request(template="{topic}.again", duplicates=duplicates)
    found = prepare(restoration(world, empty_cluster(), request)).plan
    written = {
        target.source: sum(len(page.messages) for page in ItemReader(world.catalog, request).pages(target))
        for target in found.targets
    }
    assert {target.source: target.messages for target in found.targets} == written
    kept = [row for topic in (BUSY, QUIET) for row in world.catalog.rows(topic)]
    kept = [row for row in kept if row.uuid not in (own.uuid, uuid.UUID(int=5))]
    assert found.measure.size_bytes == sum(row.size_bytes for row in kept)


def test_a_topic_of_whose_last_generation_all_was_removed_is_not_restored_as_it_was_in_an_earlier_one(
    tmp_path: Path,
) -> None:
    world = archived_world()
    world.cluster.recreate_topic(QUIET)
    world.cluster.append(QUIET, b"the only one of now")
    exhausted(catch_up(world.archive()))
    now = next(row for row in world.catalog.rows(QUIET) if row.generation == 2)
    world.catalog.suppress({now.uuid: QUIET}, "by order of a court")
    quiet = Request(query=Query(topics=(QUIET,)), template="{topic}.again")
    target = empty_cluster()
    outcome = run(restoration(world, target, quiet), tmp_path)
    assert (outcome.complete, held(target, f"{QUIET}.again")) == (True, {0: []})


def test_test_messages_can_be_left_out(tmp_path: Path) -> None:
    world = archived_world()
    world.cluster.append(QUIET, b"a test", headers=(("_test", b"true"),))
    exhausted(catch_up(world.archive()))
    outcome = run(
        restoration(
            world,
            empty_cluster(),
            Request(template="{topic}.again", tests=False),
            policy=TopicPolicy(test_topics=(BUSY,)),
        ),
        tmp_path,
    )
    assert list(outcome.report["topics"]) == [f"{QUIET}.again"]
    assert outcome.report["topics"][f"{QUIET}.again"]["tests_left_out"] == 1


def test_by_key_messages_go_where_a_producer_would_put_them(tmp_path: Path) -> None:
    world = World()
    world.cluster.create_topic(BUSY, 2)
    for number in range(40):
        world.cluster.append(BUSY, b"%d" % number, key=b"key %d" % (number % 7), partition=number % 2)
    exhausted(catch_up(world.archive()))
    target = empty_cluster()
    target.create_topic(AGAIN, 5)
    wholly(world, replace(ONE, by_key=True), tmp_path, target)
    for partition, messages in held(target, AGAIN).items():
        assert all(partition_of(one.key, 0, 5) == partition for one in messages)
    assert sum(map(len, held(target, AGAIN).values())) == 40


def adopt_message(world: World, topic: str) -> None:
    """One message that another archiver left, with its object."""
    message = Message(topic, -1, -1, NOW_MS - 5, 0, b"k", b"of old", ())  # type: ignore[arg-type]  # CREATE
    own = uuid.UUID(int=77)
    document = Document(message, own, True, b"", crc32(b"of old"))
    body = encode(document)
    row = adopted_row(topic)._replace(
        uuid=own, is_client_uuid=True, object_key=f"{topic}/2023/11/14/22/{own}.bson", size_bytes=len(body),
        crc32=crc32(body), message_crc32=crc32(b"of old"), timestamp_ms=NOW_MS - 5,
    )  # fmt: skip
    world.store.create([NewObject(row.object_key, body)])
    world.catalog.adopt([row])


def test_adopted_messages_which_have_no_place_are_put_back_first(tmp_path: Path) -> None:
    world = archived_world()
    adopt_message(world, QUIET)
    quiet = Request(query=Query(topics=(QUIET,)), template="{topic}.again")
    target = wholly(world, quiet, tmp_path)
    found = held(target, f"{QUIET}.again")[0]
    assert found[0] == (b"k", b"of old", (), NOW_MS - 5)
    assert found[1:] == stored(world.archive(), QUIET)[0]


# --- what stands in the way


def test_all_that_stands_in_the_way_is_told_before_anything_is_written(tmp_path: Path) -> None:
    world = archived_world()
    target = empty_cluster()
    target.create_topic(AGAIN, 1, {"max.message.bytes": "10"})
    target.append(AGAIN, b"somebody's")
    with pytest.raises(ConfigurationError) as caught:
        run(restoration(world, target, ONE), tmp_path)
    told = str(caught.value)
    for part in (
        "3 things",
        "too few partitions: 1, of 2 that are needed",
        "holds 1 offset already",
        "max.message.bytes",
        "--append",
    ):
        assert part in told
    assert len(held(target, AGAIN)[0]) == 1
    assert world.catalog.restores() == []


def test_settings_are_changed_for_the_time_of_the_restore_and_put_back(tmp_path: Path) -> None:
    world = archived_world()
    target = empty_cluster()
    target.create_topic(AGAIN, 2, {"max.message.bytes": "10"})
    outcome = run(restoration(world, target, replace(ONE, set_topic_config=True)), tmp_path)
    assert outcome.report["topics"][AGAIN]["settings_changed"] == ["max.message.bytes"]
    assert held(target, AGAIN) == stored(world.archive(), BUSY)
    source = MockSource(cluster=target)
    assert source.settings([AGAIN])[AGAIN]["max.message.bytes"] == ("10", True)


def test_a_missing_object_is_told_beforehand_and_can_be_left_out(tmp_path: Path) -> None:
    world = archived_world()
    gone = [row for row in world.catalog.rows(BUSY) if row.partition == 1][4]
    MockStore.delete(_deleting(world.store), [gone.object_key])
    with pytest.raises(CorruptError, match=str(gone.uuid)):
        run(restoration(world, empty_cluster(), ONE), tmp_path / "a")
    target = empty_cluster()
    outcome = run(restoration(world, target, replace(ONE, skip_damaged=True)), tmp_path / "b")
    assert (outcome.left_out, outcome.differences) == (1, 0)
    assert outcome.report["topics"][AGAIN]["left_out"][0]["uuid"] == str(gone.uuid)
    assert sum(map(len, held(target, AGAIN).values())) == len(list(world.catalog.rows(BUSY))) - 1


def test_an_object_in_cold_storage_ends_it_until_that_is_restored(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    world.store = cold = ColdStore(
        world.store, [row for row in world.catalog.rows(BUSY) if row.partition == 1][4].object_key
    )
    with pytest.raises(ObjectFrozenError, match="Restore it"):
        run(restoration(world, target, replace(ONE, skip_damaged=True)), tmp_path / "a")
    cold.cold.clear()
    wholly(world, replace(ONE, skip_damaged=True), tmp_path / "b", target)


def test_it_stops_before_a_damaged_document_and_goes_on_when_told_to(tmp_path: Path) -> None:
    world = archived_world()
    bad = [row for row in world.catalog.rows(BUSY) if row.partition == 1][4]
    body = bytearray(next(world.store.fetch([Extent(bad.object_key)])))
    body[-3] ^= 1
    MockStore.delete(_deleting(world.store), [bad.object_key])
    world.store.create([NewObject(bad.object_key, bytes(body))])
    target = empty_cluster()
    with pytest.raises(CorruptError, match=str(bad.uuid)):
        run(restoration(world, target, ONE), tmp_path / "a")
    assert len(held(target, AGAIN)[1]) == 4
    outcome = run(restoration(world, target, replace(ONE, skip_damaged=True)), tmp_path / "b")
    assert (outcome.left_out, outcome.differences) == (1, 0)
    expected = stored(_sound(world, bad.uuid).archive(), BUSY)
    assert held(target, AGAIN) == expected


def _sound(world: World, without: uuid.UUID) -> World:
    """The world without a row, for what a target should hold."""
    with world.catalog._state.change() as tables:
        del tables.rows[without]
    return world


def _deleting(store: MockStore) -> MockStore:
    store._deleting_allowed = True
    return store


def test_a_timestamp_of_zero_is_told_and_can_be_left_out(tmp_path: Path) -> None:
    world = archived_world()
    world.cluster.append(QUIET, b"of 1970", timestamp_ms=0)
    exhausted(catch_up(world.archive()))
    quiet = Request(query=Query(topics=(QUIET,)), template="{topic}.again")
    with pytest.raises(ConfigurationError, match="timestamp 0"):
        run(restoration(world, empty_cluster(), quiet), tmp_path / "a")
    outcome = run(restoration(world, empty_cluster(), replace(quiet, skip_unsendable=True)), tmp_path / "b")
    assert (outcome.left_out, outcome.differences) == (1, 0)


def test_a_read_only_target_is_refused(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    own = replace(restoration(world, target, ONE), target=MockSource("there", cluster=target, writable=False))
    with pytest.raises(ForbiddenError):
        run(own, tmp_path)


def test_a_topic_whose_name_kafka_does_not_take_is_left_out_and_told_and_goes_to_a_name_that_is_given(
    tmp_path: Path,
) -> None:
    world, theirs = archived_world(), f"{QUIET}+oversized"
    adopt_message(world, theirs)
    outcome = run(restoration(world, target := empty_cluster(), Request()), tmp_path / "all")
    assert outcome.complete
    assert held(target, QUIET) == stored(world.archive(), QUIET)
    assert any(theirs in note and "--to-topic" in note for note in outcome.unrestored)
    named = Request(query=Query(topics=(theirs,)))
    with pytest.raises(ConfigurationError, match="takes no topic of that name") as refused:
        prepare(restoration(world, target, named))
    assert "--to-topic" in str(refused.value.remedy)
    outcome = run(restoration(world, target, replace(named, template="big")), tmp_path / "one")
    assert [message.value for message in committed(target, TopicPartition("big", 0))] == [b"of old"]


def test_topics_that_would_go_to_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="would both go to one"):
        run(restoration(archived_world(), empty_cluster(), Request(template="one")), tmp_path)


def test_old_messages_to_a_new_topic_need_nothing_to_be_said(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    later = datetime.datetime.fromtimestamp(NOW_MS / 1000, tz=datetime.UTC) + datetime.timedelta(days=400)
    own = replace(restoration(world, target, ONE), now=lambda: later)
    outcome = run(own, tmp_path)
    assert (outcome.complete, outcome.differences) == (True, 0)
    assert held(target, AGAIN) == stored(world.archive(), BUSY)
    assert MockSource(cluster=target).settings([AGAIN])[AGAIN]["retention.ms"] == ("-1", True)
    (told,) = [note for note in outcome.report["notes"] if f"{AGAIN} gets retention.ms=-1" in note]
    assert "7.0 days" in told


def test_what_a_new_topic_got_other_than_archived_is_told_by_who_goes_on_with_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    later = datetime.datetime.fromtimestamp(NOW_MS / 1000, tz=datetime.UTC) + datetime.timedelta(days=400)
    own = replace(restoration(world, target, ONE), now=lambda: later)
    stops = iter([False, False, True])
    assert not run(own, tmp_path / "a", patient(stop=lambda: next(stops))).complete
    outcome = run(own, tmp_path / "b")
    assert outcome.complete
    (told,) = [note for note in outcome.report["notes"] if f"{AGAIN} gets retention.ms=-1" in note]
    assert "7.0 days" in told


@pytest.mark.parametrize(("veto", "is_told"), [((), True), ((AGAIN,), False)])
def test_a_target_that_is_archived_in_turn_is_told(
    veto: tuple[str, ...], is_told: bool, tmp_path: Path
) -> None:
    own = restoration(archived_world(), empty_cluster(), ONE, target_policy=TopicPolicy(veto=veto))
    assert (
        any(f"{AGAIN}: what archives source there archives" in note for note in prepare(own).notes) is is_told
    )
    same = replace(own, request=Request(query=Query(topics=(BUSY,))), target_policy=TopicPolicy())
    assert any(f"{BUSY}: " in note and "copies" in note for note in prepare(same).notes)
    assert not any("archives" in note for note in prepare(replace(own, target_policy=None)).notes)


def test_every_ledger_row_of_a_whole_topic_is_compared_and_of_a_part_it_is_said_that_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, count = archived_world(), MockCatalog.miscounts

    def where_totals_agree(
        catalog: MockCatalog, topic: str, *, every: int = 1, turn: int = 0
    ) -> Sequence[Miscount]:
        return count(catalog, topic) if every == 1 else []

    monkeypatch.setattr(MockCatalog, "miscounts", where_totals_agree)
    row = next(iter(world.catalog.rows(BUSY)))
    with world.catalog._state.change() as tables:
        del tables.rows[row.uuid]
    whole = prepare(restoration(world, empty_cluster(), ONE))
    assert any("without a row" in sentence for sentence in whole.unrestored)
    assert not any("verify compares all" in note for note in whole.notes)
    since = replace(ONE, query=Query(topics=(BUSY,), since_ms=0))
    part = prepare(restoration(world, empty_cluster(), since))
    assert any("verify compares all" in note for note in part.notes)
    assert not any("without a row" in note for note in part.notes)


# --- others at work


def test_of_two_of_the_same_at_once_one_is_refused(tmp_path: Path) -> None:
    world = archived_world()
    own = restoration(world, empty_cluster(), ONE)
    held_name = f"the restore {own.fingerprint[:12]}, which is this very one"
    with world.catalog.hold(held_name), pytest.raises(ConflictError, match="very one"):
        run(own, tmp_path)


class Rude(MockSource):
    """A cluster to whose topic somebody else writes, too."""

    def publish(self, messages):  # type: ignore[no-untyped-def]
        receipts = super().publish(messages)
        if receipts and self.cluster_is_quiet:
            self.cluster_is_quiet = False
            self.cluster.append(receipts[0].topic, b"mine", partition=receipts[0].partition)
        return receipts

    cluster_is_quiet = True


def test_another_writer_is_noticed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    own = replace(restoration(world, target, ONE), target=Rude("there", cluster=target))
    with pytest.raises(ConflictError, match=rf"{AGAIN}\[0\].*offset"):
        run(own, tmp_path)


def test_where_another_wrote_in_the_place_of_a_lost_message_the_receipts_tell(tmp_path: Path) -> None:
    """The number of messages is then what it is to be."""
    world, target = archived_world(), empty_cluster()

    class Replacing(MockSource):
        def publish(self, messages):  # type: ignore[no-untyped-def]
            *sent, lost = messages
            self.cluster.append(lost.topic, b"mine", partition=lost.partition)
            receipts = super().publish(sent)
            after = 1 + max(one.offset for one in receipts if one.partition == lost.partition)
            return [*receipts, Receipt(lost.topic, lost.partition, after)]

    own = replace(restoration(world, target, ONE), target=Replacing("there", cluster=target))
    with pytest.raises(ConflictError, match=rf"{AGAIN}\[[01]\].*offset 0, and ends at 1"):
        run(own, tmp_path, patient(check=False))


def test_what_another_wrote_after_a_crash_is_noticed_before_anything_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    stops = iter([False, False, True])
    outcome = run(restoration(world, target, ONE), tmp_path / "a", patient(stop=lambda: next(stops)))
    assert not outcome.complete
    number = next(n for n, messages in held(target, AGAIN).items() if messages)
    target.append(AGAIN, b"mine", partition=number)
    count = len(held(target, AGAIN)[number])
    with pytest.raises(ConflictError, match="something else"):
        run(restoration(world, target, ONE), tmp_path / "b")
    assert len(held(target, AGAIN)[number]) == count


@pytest.mark.parametrize("check", [True, False])
def test_what_stands_there_and_was_removed_from_the_archive_since_is_noticed_where_nothing_is_added_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    """As many messages stand in the partition as are to."""
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 1)
    world, target, stops = small_world(), empty_cluster(), iter([False, False, True])
    world.cluster.create_topic("tested", 2)
    for partition, headers in ((0, (("_test", b"true"),)), (0, ()), (1, ())):
        world.cluster.append("tested", b"an alert", headers=headers, partition=partition)
    own = restoration(
        archive_all(world), target, Request(query=Query(topics=("tested",)), template="{topic}.b")
    )
    assert not run(own, tmp_path / "a", patient(stop=lambda: next(stops))).complete
    assert [len(messages) for messages in held(target, "tested.b").values()] == [1, 0]
    clean_marked(world.removing(), own.request.query)
    with pytest.raises(ConflictError, match=r"tested.b\[0\] .*holds something else at offset 0"):
        run(own, tmp_path / "b", patient(check=check))


def test_what_stands_there_and_is_not_delivered_is_not_called_another_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    stops = iter([False, False, True])
    run(restoration(world, target, ONE), tmp_path / "a", patient(stop=lambda: next(stops)))

    class Silent(MockSource):
        """Delivers nothing of what it holds."""

        def reader(self, starts):  # type: ignore[no-untyped-def]
            reader = super().reader(starts)
            reader.poll = lambda *_: ()  # type: ignore[method-assign]
            return reader

    own = replace(restoration(world, target, ONE), target=Silent("there", cluster=target))
    with pytest.raises(UnavailableError, match="does not deliver it"):
        run(own, tmp_path / "b")


def test_a_target_that_is_deleted_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()

    def stop_and_delete() -> bool:
        if any(held(target, AGAIN).values()):
            target.recreate_topic(AGAIN)
        return False

    with pytest.raises((GenerationChangedError, MissingSettingError), match=AGAIN):
        run(restoration(world, target, ONE), tmp_path, patient(stop=stop_and_delete))
    target.delete_topic(AGAIN)
    with pytest.raises(GenerationChangedError, match="--restart"):
        run(restoration(world, target, ONE), tmp_path / "b")
    outcome = run(restoration(world, target, ONE), tmp_path / "c", restart=True)
    assert outcome.complete
    assert held(target, AGAIN) == stored(world.archive(), BUSY)
    assert [one.outcome for one in world.catalog.restores()] == ["done", "abandoned"]


def test_an_outage_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    portions = iter(range(100))

    def stop_the_broker() -> bool:
        if next(portions) == 2:
            target.stop()
        return False

    control = patient(stop=stop_the_broker, patience_s=60.0, sleep=lambda _: target.start())
    assert run(restoration(world, target, ONE), tmp_path, control).complete
    assert held(target, AGAIN) == stored(world.archive(), BUSY)


class Refusing(MockSource):
    """A cluster that refuses the second portion once."""

    portions = 0

    def publish(self, messages):  # type: ignore[no-untyped-def]
        self.portions += 1
        if self.portions == 2:
            raise ForbiddenError("The login was refused.")
        return super().publish(messages)


def test_what_is_refused_midway_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    own = replace(restoration(world, target, ONE), target=Refusing("there", cluster=target))
    assert run(own, tmp_path, patient(patience_s=60.0)).complete
    assert held(target, AGAIN) == stored(world.archive(), BUSY)


def test_a_target_that_may_not_be_read_is_told_once_it_is_written(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    target.create_topic(AGAIN, 2)
    target.deny(AGAIN)
    with pytest.raises(ForbiddenError, match=AGAIN):
        run(restoration(world, target, ONE), tmp_path)
    assert held(target, AGAIN) == stored(world.archive(), BUSY)
    target.allow(AGAIN)
    wholly(world, ONE, tmp_path, target)


def test_an_outage_that_lasts_ends_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    target.stop()
    with pytest.raises(UnavailableError):
        run(restoration(world, target, ONE), tmp_path / "a")
    target.start()
    wholly(world, ONE, tmp_path / "b", target)


def test_a_restore_that_is_done_is_not_done_again_unless_there_is_more_or_it_is_asked_for(
    tmp_path: Path,
) -> None:
    world, target = archived_world(), empty_cluster()
    first = run(restoration(world, target, ONE), tmp_path / "a")
    again = run(restoration(world, target, ONE), tmp_path / "b")
    assert (again.number, again.complete) == (first.number, True)
    assert again.report["messages"] == first.report["messages"]
    assert held(target, AGAIN) == stored(world.archive(), BUSY)
    world.cluster.append(BUSY, b"one more")
    exhausted(catch_up(world.archive()))
    with pytest.raises(ConfigurationError, match="holds"):
        run(restoration(world, target, ONE), tmp_path / "c")
    twice = run(restoration(world, target, replace(ONE, append=True)), tmp_path / "d")
    assert twice.number != first.number
    assert sum(map(len, held(target, AGAIN).values())) == 2 * first.report["messages"] + 1


def test_a_restore_whose_target_is_another_by_now_is_no_more_done(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    run(restoration(world, target, ONE), tmp_path / "a")
    target.delete_topic(AGAIN)
    wholly(world, ONE, tmp_path / "b", target)
    assert held(target, AGAIN) == stored(world.archive(), BUSY)


def test_what_is_archived_after_it_began_is_not_of_a_restore_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    expected = stored(world.archive(), BUSY)
    stops = iter([False, False, True])
    run(restoration(world, target, ONE), tmp_path / "a", patient(stop=lambda: next(stops)))
    world.cluster.append(BUSY, b"later")
    exhausted(catch_up(world.archive()))
    wholly(world, ONE, tmp_path / "b", target)
    assert held(target, AGAIN) == expected


# --- afterwards


def test_a_message_that_differs_in_the_target_is_told_with_its_place(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()

    class Careless(MockSource):
        """Loses the headers of one message."""

        def publish(self, messages):  # type: ignore[no-untyped-def]
            sent = list(messages)
            return super().publish([*sent[:3], sent[3]._replace(value=b"!"), *sent[4:]])

    own = replace(restoration(world, target, ONE), target=Careless("there", cluster=target))
    outcome = run(own, tmp_path)
    assert (outcome.complete, outcome.differences) == (True, 1)
    (told,) = outcome.report["topics"][AGAIN]["differences"]
    assert told["topic"] == AGAIN
    assert "key, value or headers" in told["what"]
    assert world.catalog.restores()[0].outcome == "failed"


def test_a_report_and_the_map_of_offsets_are_in_the_store(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    outcome = run(restoration(world, target, ONE), tmp_path)
    keys = {info.key for info in world.store.listing("hop_archive/restores/")}
    assert keys == {outcome.report["report"], *outcome.report["topics"][AGAIN]["offset_map"]}
    folder = tmp_path / "map"
    folder.mkdir()
    for key in outcome.report["topics"][AGAIN]["offset_map"]:
        (body,) = world.store.fetch([Extent(key)])
        (folder / key.rpartition("/")[2]).write_bytes(body)
    rows = {(row.partition, row.offset): row for row in world.catalog.rows(BUSY)}
    table = pq.read_table(folder, partitioning=None).to_pylist()
    assert {(each["uuid"], each["time"]) for each in table} == {(r.uuid, r.timestamp) for r in rows.values()}
    assert {(each["partition"], each["offset"]) for each in table} == rows.keys()
    for each in table:
        at = TopicPartition(each["target_topic"], each["target_partition"])
        (message,) = [m for m in committed(target, at) if m.offset == each["target_offset"]]
        row = rows[each["partition"], each["offset"]]
        assert (each["uuid"], each["digest"], each["timestamp"]) == (row.uuid, row.digest, row.timestamp_ms)
        found = decode(next(world.store.fetch([Extent(row.object_key)])))
        assert content(found.message) == content(message)


def test_nothing_is_read_back_where_that_is_not_wanted_and_the_report_says_so(tmp_path: Path) -> None:
    outcome = run(restoration(archived_world(), empty_cluster(), ONE), tmp_path, patient(check=False))
    assert outcome.report["checked"] is False
    assert outcome.report["topics"][AGAIN]["compared"] is None


def test_who_ends_a_restore_while_it_compares_finds_all_written_and_compared_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.recover.restore.compare._MOST_AT_ONCE", 2)
    world, target, checked = archived_world(), empty_cluster(), [0]
    control = patient(
        notice=lambda progress: checked.append(progress.counts["checked"]), stop=lambda: checked[-1] > 0
    )
    outcome = run(restoration(world, target, ONE), tmp_path / "a", control)
    assert (outcome.complete, outcome.report["outcome"]) == (False, "stopped")
    before = held(target, AGAIN)
    assert checked[-1] < sum(map(len, before.values()))
    outcome = run(restoration(world, target, ONE), tmp_path / "b")
    assert (outcome.complete, outcome.differences) == (True, 0)
    assert outcome.report["topics"][AGAIN]["compared"] == outcome.report["messages"]
    assert held(target, AGAIN) == before


def test_offsets_of_groups_are_mapped_exactly_holes_included(tmp_path: Path) -> None:
    at = PartitionLog("a", 2, 5)
    some = [Stored(old, 1, b"u" * 16, b"d" * 16, "key", None, 1, 1, None, None) for old in (3, 4, 8, 20)]
    with journal.Journal(tmp_path) as kept:
        kept.add("a", at, TopicPartition("b", 5), 100, some[:1], [b"d" * 16])
        kept.add("a", at, TopicPartition("b", 5), 101, some[1:], [b"d" * 16] * 3)
    wanted = {0: 100, 3: 100, 4: 101, 5: 102, 8: 102, 9: 103, 20: 103, 21: 104, 999: 104}
    assert {old: groups.new_offset(tmp_path, at, old, 5) for old in wanted} == wanted
    assert groups.new_offset(tmp_path, PartitionLog("a", 1, 5), 3, 5) is None
    committed_offsets = {
        TopicPartition("a", n): Committed(offset, str(n)) for n, offset in ((5, 9), (6, 1), (7, 1))
    }
    assert groups.moved(tmp_path, 2, committed_offsets, "b", empty={5: 90, 7: 40}) == {
        TopicPartition("b", 5): Committed(103, "5"),
        TopicPartition("b", 7): Committed(40, "7"),
    }


def snapshot(world: World, kind: str, name: str, content: Mapping[str, object]) -> None:
    with world.cluster.read() as state:
        cluster_id = state.cluster_id
    now = datetime.datetime.now(datetime.UTC)
    world.catalog.keep_snapshots(cluster_id, [Snapshot(cluster_id, kind, name, content, now)])  # type: ignore[arg-type]


def topic_id(world: World, topic: str) -> str | None:
    return world.catalog.generations([topic])[topic][-1].topic_id


def test_a_topic_is_created_as_it_was_set_up_and_groups_go_on_where_they_were(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    own = topic_id(world, BUSY)
    settings = {"retention.ms": "-1", "max.message.bytes": "1234567"}
    snapshot(world, "topic", BUSY, {"topic_id": own, "partitions": 6, "settings": settings})
    rows = [row for row in world.catalog.rows(BUSY) if row.partition == 0]
    before = rows[5].offset or 0
    offsets = [[BUSY, 0, before], [BUSY, 1, 10_000], ["other", 0, 3]]
    snapshot(world, "group", "readers", {"offsets": offsets, "topic_ids": {BUSY: own}})
    snapshot(world, "group", "of another life", {"offsets": offsets, "topic_ids": {BUSY: "gone"}})
    outcome = run(restoration(world, target, ONE), tmp_path, move_groups=())
    source = MockSource(cluster=target)
    assert source.topics([AGAIN])[AGAIN].partitions == 6
    assert source.settings([AGAIN])[AGAIN]["max.message.bytes"] == ("1234567", True)
    ends = len(held(target, AGAIN)[1])
    assert source.groups() == {
        "readers": {TopicPartition(AGAIN, 0): Committed(5), TopicPartition(AGAIN, 1): Committed(ends)}
    }
    assert outcome.report["topics"][AGAIN]["groups"] == [
        {"group": "readers", "offsets": [[AGAIN, 0, 5], [AGAIN, 1, ends]]}
    ]


def test_groups_are_moved_where_others_may_not_be_listed(tmp_path: Path) -> None:
    """And with the groups of a cluster of a thousand topics none has to be listed for each topic."""

    class Reticent(MockSource):
        def groups(
            self, names: Collection[str] | None = None
        ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
            if names is None:
                raise ForbiddenError("no DESCRIBE on the cluster")
            return super().groups(names)

    world, target = archived_world(), empty_cluster()
    content = {"offsets": [[BUSY, 0, 0]], "topic_ids": {BUSY: topic_id(world, BUSY)}}
    snapshot(world, "group", "readers", content)
    run(replace(restoration(world, target, ONE), target=Reticent(cluster=target)), tmp_path, move_groups=())
    assert MockSource(cluster=target).groups() == {"readers": {TopicPartition(AGAIN, 0): Committed(0)}}


def test_groups_are_left_alone_unless_they_are_asked_for(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    content = {"offsets": [[BUSY, 0, 3]], "topic_ids": {BUSY: topic_id(world, BUSY)}}
    for name in ("one", "other"):
        snapshot(world, "group", name, content)
    run(restoration(world, target, ONE), tmp_path / "a")
    assert MockSource(cluster=target).groups() == {}
    again = replace(ONE, template="{topic}.b")
    run(restoration(world, target, again), tmp_path / "b", move_groups=("other",))
    assert list(MockSource(cluster=target).groups()) == ["other"]


def test_a_plan_says_how_much_it_is_and_writes_nothing() -> None:
    world, target = archived_world(), empty_cluster()
    found = prepare(restoration(world, target, ONE))
    assert found.plan.messages == len(list(world.catalog.rows(BUSY)))
    assert found.plan.measure.size_bytes == sum(row.size_bytes for row in world.catalog.rows(BUSY))
    assert found.problems == []
    with target.read() as state:
        assert not state.topics
    assert world.catalog.restores() == []


def test_a_bound_on_the_rate_is_kept(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    control = patient(messages_per_s=10.0, sleep=sleep, monotonic=lambda: clock[0])
    outcome = run(restoration(world, target, ONE), tmp_path, control)
    assert clock[0] >= outcome.report["messages"] / 10 - 0.5


def test_progress_counts_up_to_all_that_there_is(tmp_path: Path) -> None:
    seen: list[int] = []

    def notice(now: Progress) -> None:
        seen.append(now.counts["there"])

    outcome = run(restoration(archived_world(), empty_cluster(), ONE), tmp_path, patient(notice=notice))
    assert seen == sorted(seen)
    assert seen[-1] == outcome.report["messages"]


# --- what reviewers tried


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_what_is_suppressed_after_it_was_selected_is_not_put_back_as_an_empty_message(
    layout: WorldLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 2)
    world, target = archive_all(small_world(layout)), empty_cluster()
    *_, last = (row for row in world.catalog.rows(BUSY) if row.partition == 0)
    expected = stored(world.archive(), BUSY)
    expected[0].pop()

    def suppress_it() -> bool:
        suppress(world.removing(), [last.uuid], "by order of a court", grace_s=0)
        return False

    outcome = run(restoration(world, target, ONE), tmp_path, patient(stop=suppress_it))
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    assert held(target, AGAIN) == expected


def test_who_asks_to_stop_is_not_told_that_all_before_a_damaged_message_was_written(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    victim = [row for row in world.catalog.rows(BUSY) if row.partition == 0][5]
    body = world.store._shelf.get(victim.object_key) or b""
    world.store.damage(victim.object_key, body[:-9] + b"?" + body[-8:])
    stops = iter([False, False, True])
    outcome = run(restoration(world, target, ONE), tmp_path / "a", patient(stop=lambda: next(stops, True)))
    assert not outcome.complete
    assert sum(map(len, held(target, AGAIN).values())) == 1
    with pytest.raises(CorruptError, match=str(victim.uuid)):
        run(restoration(world, target, ONE), tmp_path / "b")


def test_a_map_of_offsets_that_is_made_message_by_message_holds_few_tables(tmp_path: Path) -> None:
    at = PartitionLog("a", 1, 0)
    with journal.Journal(tmp_path) as kept:
        for n in range(1_050):
            one = Stored(n, n, b"u" * 16, b"d" * 16, "key", None, 1, 1, None, None)
            kept.add("a", at, TopicPartition("b", 0), n, [one], [b"d" * 16])
        assert len(kept._written[0][0]._tables) <= 100
    (path,) = journal.files(tmp_path)
    assert pq.read_table(path)["target_offset"].to_pylist() == [*range(1_050)]


def test_a_topic_made_anew_between_two_tries_does_not_change_what_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    for stopped_after in (0, 2):
        world, target = archived_world(), empty_cluster()
        expected = stored(world.archive(), BUSY)
        stops = iter([False] * 2 * stopped_after + [True] * 100)
        outcome = run(
            restoration(world, target, ONE),
            tmp_path / f"{stopped_after}",
            patient(stop=lambda s=stops: next(s)),
        )
        assert not outcome.complete
        world.cluster.recreate_topic(BUSY)
        world.cluster.append(BUSY, b"another life")
        exhausted(catch_up(world.archive()))
        wholly(world, ONE, tmp_path / f"{stopped_after} again", target)
        assert held(target, AGAIN) == expected


def test_offsets_that_are_named_twice_are_written_once(tmp_path: Path) -> None:
    world = archived_world()
    at = TopicPartition(BUSY, 0)
    ranges = ((at, OffsetRange(4, 12)), (at, OffsetRange(4, 12)), (at, OffsetRange(10, 14)))
    target = wholly(world, Request(offsets=ranges, template="{topic}.again"), tmp_path)
    wanted = [row for row in world.catalog.rows(BUSY) if row.partition == 0 and 4 <= (row.offset or 0) < 14]
    assert len(held(target, AGAIN)[0]) == len(wanted)


def test_how_long_ago_is_another_restore_each_time_it_is_done(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    daily = replace(ONE, append=True)
    said = {"since": "1d"}
    first = run(restoration(world, target, daily, said=said), tmp_path / "a")
    again = run(restoration(world, target, daily, said=said), tmp_path / "b")
    assert again.number != first.number
    assert sum(map(len, held(target, AGAIN).values())) == 2 * first.report["messages"]


def test_more_than_was_done_is_not_called_done(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    run(restoration(world, target, ONE), tmp_path / "a", patient(check=False))
    with pytest.raises(ConfigurationError, match="holds"):
        run(restoration(world, target, ONE), tmp_path / "b")


def test_what_another_writes_at_the_very_end_is_noticed(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    rows = sum(1 for _ in world.catalog.rows(BUSY))

    class Late(MockSource):
        """A cluster to which somebody writes once the restore has written all."""

        sent = 0

        def publish(self, messages):  # type: ignore[no-untyped-def]
            receipts = super().publish(messages)
            self.sent += len(receipts)
            if self.sent == rows:
                self.cluster.append(AGAIN, b"mine", partition=1)
            return receipts

    own = replace(restoration(world, target, ONE), target=Late("there", cluster=target))
    with pytest.raises(ConflictError, match=rf"{AGAIN}\[1\]"):
        run(own, tmp_path)


def test_what_another_writes_after_the_target_was_looked_at_is_noticed(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    target.create_topic(AGAIN, 2)

    class Early(MockSource):
        """A cluster to which somebody writes just before the restore begins."""

        def create_topic(self, name: str, partitions: int = 1, config: object = None) -> None:
            self.cluster.append(AGAIN, b"mine")

    own = replace(restoration(world, target, ONE), target=Early("there", cluster=target))
    with pytest.raises(ConflictError, match="changed since"):
        run(own, tmp_path)


def test_a_process_that_wakes_up_after_another_took_over_writes_nothing(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    clock = [0.0]

    class Hanging(MockStore):
        """A store that hangs once, until the restore was done by somebody else."""

        hung = False

        def fetch(self, extents):  # type: ignore[no-untyped-def]
            for body in super().fetch(extents):
                if not self.hung:
                    type(self).hung = True
                    world.catalog._held.clear()  # as a database does that was started anew
                    wholly(world, ONE, tmp_path / "other", target)
                    clock[0] += 1_000
                yield body

    hanging = Hanging()
    hanging._shelf = world.store._shelf
    own = replace(restoration(world, target, ONE), store=hanging)
    with pytest.raises(ConflictError):
        run(own, tmp_path / "own", patient(monotonic=lambda: clock[0]))
    assert held(target, AGAIN) == stored(world.archive(), BUSY)


def test_a_message_or_group_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    world = archived_world()
    row = next(iter(world.catalog.rows(BUSY)))
    unknown = uuid.UUID(int=404)
    request = Request(query=Query(uuids=(row.uuid, unknown)), template="{topic}.again")
    with pytest.raises(ConfigurationError, match=str(unknown)):
        run(restoration(world, empty_cluster(), request), tmp_path)
    with pytest.raises(ConfigurationError, match="nosuch"):
        run(restoration(world, empty_cluster(), ONE), tmp_path, move_groups=("nosuch",))
    with pytest.raises(ConfigurationError, match="by key"):
        run(restoration(world, empty_cluster(), replace(ONE, by_key=True)), tmp_path, move_groups=())


def test_a_bound_on_the_rate_holds_after_it_was_asked_to_stop(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    asked: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:  # as a sleep that ends early does, once it was asked to stop
        asked.append(seconds)
        clock[0] += seconds if len(asked) < 3 else 0.0

    control = patient(
        messages_per_s=4.0, sleep=sleep, monotonic=lambda: clock[0], stop=lambda: len(asked) >= 3
    )
    outcome = run(restoration(world, target, ONE), tmp_path, control)
    assert not outcome.complete
    assert sum(map(len, held(target, AGAIN).values())) <= 5


def test_an_earlier_try_is_given_up_only_once_nothing_stands_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 7)
    world, target = archived_world(), empty_cluster()
    stops = iter([False] * 20 + [True] * 100)
    run(restoration(world, target, ONE), tmp_path / "a", patient(stop=lambda: next(stops)))
    with pytest.raises(ConfigurationError, match="holds"):
        run(restoration(world, target, ONE), tmp_path / "b", restart=True)
    wholly(world, ONE, tmp_path / "c", target)


def test_duplicates_keep_their_own_place_in_the_map_of_offsets(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    outcome = run(restoration(world, target, replace(ONE, duplicates=True)), tmp_path)
    folder = tmp_path / "map"
    folder.mkdir()
    for key in outcome.report["topics"][AGAIN]["offset_map"]:
        (folder / key.rpartition("/")[2]).write_bytes(next(world.store.fetch([Extent(key)])))
    entries = pq.read_table(folder, partitioning=None).to_pylist()
    assert all(entry["partition"] == entry["target_partition"] for entry in entries)
    copies = {(at.partition, one.offset) for at, one in world.catalog.duplicates(BUSY)}
    assert copies <= {(entry["partition"], entry["offset"]) for entry in entries}


def groups_of(cluster: MockCluster) -> dict[str, Mapping[TopicPartition, Committed]]:
    """All groups but the one for monitoring, which the archive itself commits."""
    found = MockSource(cluster=cluster).groups()
    return {name: places for name, places in found.items() if name != GROUP_ID}


def cluster_with_empties() -> World:
    """A world, archived, beside whose messages there are empty partitions and topics, and places of groups in them."""
    world = archived_world()
    world.cluster.create_topic("alerts.empty", 3, {"retention.ms": "1234", "cleanup.policy": "compact"})
    world.cluster.create_topic("alerts.aborted", 2)
    world.cluster.create_topic("alerts.wide", 6)
    aborted = world.cluster.begin()
    world.cluster.append("alerts.aborted", b"never", partition=1, transaction=aborted)
    world.cluster.abort(aborted)
    world.cluster.append("alerts.wide", b"one", partition=1)
    places = {
        TopicPartition("alerts.empty", 2): Committed(0, "streams: 17"),
        TopicPartition("alerts.aborted", 1): Committed(2),
        TopicPartition("alerts.wide", 1): Committed(1, "late"),
        TopicPartition("alerts.wide", 5): Committed(0),
    }
    MockSource(cluster=world.cluster).set_group_offsets("readers", places)
    exhausted(catch_up(world.archive()))
    return world


def test_empty_topics_and_partitions_come_back_with_the_places_of_groups_in_them(tmp_path: Path) -> None:
    world, target = cluster_with_empties(), empty_cluster()
    take_snapshot(world.archive())
    outcome = run(restoration(world, target, Request()), tmp_path, move_groups=())
    source = MockSource(cluster=target)
    assert {name: info.partitions for name, info in source.topics().items()} == {
        BUSY: 2,
        QUIET: 1,
        "alerts.empty": 3,
        "alerts.aborted": 2,
        "alerts.wide": 6,
    }
    assert source.settings(["alerts.empty"])["alerts.empty"]["retention.ms"] == ("1234", True)
    assert groups_of(target) == {
        "readers": {
            TopicPartition("alerts.empty", 2): Committed(0, "streams: 17"),
            TopicPartition("alerts.aborted", 1): Committed(0),
            TopicPartition("alerts.wide", 1): Committed(1, "late"),
            TopicPartition("alerts.wide", 5): Committed(0),
        }
    }
    assert (outcome.complete, outcome.differences, outcome.unrestored) == (True, 0, [])
    again = run(restoration(world, target, Request()), tmp_path, move_groups=())
    assert "This was done before" in again.report["notes"][0]


def test_without_a_snapshot_partitions_are_as_many_as_were_ever_seen_and_what_nobody_knows_is_told(
    tmp_path: Path,
) -> None:
    world, target = cluster_with_empties(), empty_cluster()
    calls = Faults()
    run(restoration(cluster_with_empties(), empty_cluster(), Request(), calls), tmp_path / "calls")
    first = 1 + calls.calls.index("target.create_topic")
    with pytest.raises(CrashError):
        run(restoration(world, target, Request(), Faults((Fault(first, When.AFTER, crash),))), tmp_path)
    assert MockSource(cluster=target).topics()  # of which nobody could tell any more why it is as it is
    outcome = run(restoration(world, target, Request()), tmp_path)
    found = {name: info.partitions for name, info in MockSource(cluster=target).topics().items()}
    assert (found["alerts.empty"], found["alerts.aborted"], found["alerts.wide"]) == (3, 2, 6)
    (told,) = outcome.unrestored
    assert "No snapshot tells the settings" in told
    assert told in outcome.report["notes"]


def test_a_topic_whose_settings_no_snapshot_knows_is_told_once_for_all_of_its_kind(tmp_path: Path) -> None:
    world = archived_world()
    own = topic_id(world, BUSY)
    snapshot(
        world, "topic", BUSY, {"topic_id": own, "partitions": 2, "settings": {}, "settings_known": False}
    )
    snapshot(world, "topic", QUIET, {"topic_id": "another", "partitions": 9, "settings": {}})
    world.catalog.adopt([adopted_row("old")])
    found = prepare(restoration(world, empty_cluster(), Request()))
    hidden, other, guessed = (
        next(note for note in found.unrestored if part in note)
        for part in ("DESCRIBE_CONFIGS", "another generation", "there may have been more")
    )
    assert BUSY in hidden
    assert QUIET in other
    assert "old" in guessed


def test_some_messages_bring_back_no_empty_topic_and_its_name_alone_does(tmp_path: Path) -> None:
    world, target = cluster_with_empties(), empty_cluster()
    some = Request(query=Query(until_ms=NOW_MS + 10**9))
    assert {one.topic for one in prepare(restoration(world, target, some)).plan.targets} == {
        BUSY,
        QUIET,
        "alerts.wide",
    }
    alone = Request(query=Query(topics=("alerts.empty",)), template="{topic}.again")
    outcome = run(restoration(world, target, alone), tmp_path)
    assert outcome.report["messages"] == 0
    assert MockSource(cluster=target).topics()["alerts.empty.again"].partitions == 3


def test_a_place_of_a_group_that_cannot_be_told_is_left_alone_and_said(tmp_path: Path) -> None:
    world, target = cluster_with_empties(), empty_cluster()
    target.create_topic("alerts.wide", 6)
    for partition in range(6):
        target.append("alerts.wide", b"there before", partition=partition)
    own = topic_id(world, "alerts.wide")
    content = {"offsets": [["alerts.wide", 1, 1], ["alerts.wide", 5, 0]], "topic_ids": {"alerts.wide": own}}
    snapshot(world, "group", "readers", content)
    snapshot(
        world, "group", "strangers", {**content, "topic_ids": {"alerts.wide": "unknown"}, "metadata": []}
    )
    request = Request(query=Query(topics=("alerts.wide",)), append=True)
    outcome = run(restoration(world, target, request), tmp_path, move_groups=())
    assert groups_of(target) == {"readers": {TopicPartition("alerts.wide", 1): Committed(2)}}
    held_before, without_metadata, other_life = outcome.unrestored
    assert "partitions 5 of alerts.wide" in held_before
    assert "readers" in without_metadata
    assert "strangers" in other_life


def test_a_group_that_read_only_a_life_before_has_no_place_in_this_one(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    before = topic_id(world, BUSY)
    world.cluster.recreate_topic(BUSY)
    world.cluster.append(BUSY, b"anew")
    exhausted(catch_up(world.archive()))
    content = {"offsets": [[BUSY, 0, 3]], "metadata": [], "topic_ids": {BUSY: before}}
    snapshot(world, "group", "readers of before", content)
    outcome = run(restoration(world, target, ONE), tmp_path, move_groups=())
    assert groups_of(target) == {}
    assert not any("readers of before" in note for note in outcome.report["notes"])


def test_a_life_before_comes_back_with_what_groups_wrote_beside_their_places(tmp_path: Path) -> None:
    world, target = archived_world(), empty_cluster()
    MockSource(cluster=world.cluster).set_group_offsets(
        "readers", {TopicPartition(BUSY, 0): Committed(1, "then")}
    )
    take_snapshot(world.archive())
    world.cluster.recreate_topic(BUSY)
    MockSource(cluster=world.cluster).set_group_offsets(
        "readers", {TopicPartition(BUSY, 0): Committed(0, "now")}
    )
    exhausted(catch_up(world.archive()))
    hour = datetime.timedelta(hours=1)
    take_snapshot(replace(world.archive(), now=lambda: datetime.datetime.now(datetime.UTC) + hour))
    run(restoration(world, target, ONE), tmp_path, move_groups=())
    assert groups_of(target) == {"readers": {TopicPartition(AGAIN, 0): Committed(1, "then")}}


@pytest.mark.parametrize("partition", [0, 2])
def test_what_another_left_in_a_partition_where_all_is_restored_or_nothing_is_to_be_is_refused(
    partition: int, tmp_path: Path
) -> None:
    world, (target, other) = archived_world(), (empty_cluster(), empty_cluster())
    for cluster in (target, other):
        cluster.create_topic(AGAIN, 3, {"retention.ms": "-1"})
    calls = Faults()
    run(restoration(archived_world(), other, ONE, calls), tmp_path / "calls")
    last = len(calls.calls) - calls.calls[::-1].index("target.append")
    with pytest.raises(CrashError):
        run(restoration(world, target, ONE, Faults((Fault(last, When.AFTER, crash),))), tmp_path / "a")
    assert len(held(target, AGAIN)[0]) == len(stored(world.archive(), BUSY)[0])
    target.append(AGAIN, b"of another", partition=partition)
    with pytest.raises(
        ConflictError, match=rf"{AGAIN}\[{partition}\] .* holds 1 more messages than were to be"
    ):
        run(restoration(world, target, ONE), tmp_path / "b")


@pytest.mark.parametrize("result", [None, {"messages": 3}])
def test_what_the_catalog_keeps_of_a_target_stays_as_it_is(result: dict[str, int] | None) -> None:
    """Restores that were begun by an earlier version go on with it."""
    kept = {
        "topic_id": "an-id",
        "partitions": 2,
        "base": {"0": 5, "1": 0},
        "empty": [1],
        "pin": {"source": "a.b", "lanes": [[1, 0, 9]], "adopted": False, "generation": None},
        "planned": 9,
        "settings_before": {"retention.ms": None, "max.message.bytes": "5"},
    } | ({} if result is None else {"result": result})
    state = TargetState.of(kept)
    assert state.base == {0: 5, 1: 0}
    assert json.loads(json.dumps(state.as_object())) == kept
    assert TargetState.of({name: kept[name] for name in kept if name != "empty"}).empty == ()
