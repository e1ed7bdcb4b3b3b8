"""Cleaning tests up, pruning and suppressing: what goes, what stays, and what is refused."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, CopyOf, Outcome, Removal
from hop_archive.devkit.faults import Faults, When
from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    CorruptError,
    ForbiddenError,
    ObjectMissingError,
    UnavailableError,
)
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.model.topics import TopicPolicy
from hop_archive.read.check import check
from hop_archive.source.mock.source import GROUP_ID, MockSource
from hop_archive.source.protocol import Source
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.clean_tests import (
    clean_marked,
    clean_topics,
    marked,
    plan_cleaning,
    topics_to_clean,
)
from hop_archive.upkeep.remove.duplicates import deduplicate
from hop_archive.upkeep.remove.prune import Policy, plan_pruning, prune
from hop_archive.upkeep.remove.suppress import suppress, tombstone
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.invariants import fetched
from hop_archive_tests.removals import Backed, archive_all, assert_nowhere, assert_whole, small_world
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, WorldLayout, adopted_row, exhausted

DAY = datetime.timedelta(days=1)


def archive_of(world: Backed, source: Source | None = None) -> Archive:
    archive = replace(world.archive(), topics=TopicPolicy(test_topics=(QUIET, "*-test")))
    return replace(archive, source=source or MockSource(cluster=world.cluster, writable=True))


def test_a_test_topic_is_emptied_read_dry_and_its_group_stands_at_the_end() -> None:
    world = archive_all(small_world())
    world.catalog.adopt([adopted_row(QUIET)])
    for _ in range(4):
        world.cluster.append(QUIET, b"more")
    removing = world.removing()
    (plan,) = plan_cleaning(archive_of(world), removing, [QUIET])
    assert (plan.topic, plan.messages, plan.unread) == (QUIET, 4, 4)
    cleaned = clean_topics(archive_of(world), removing, [QUIET], delete_records=True)
    at = TopicPartition(QUIET, 0)
    assert (cleaned.skipped, cleaned.ends, cleaned.deleted_below) == (4, {at: 7}, {at: 7})
    assert removing.tally.removed.messages == 4
    assert list(world.catalog.rows(QUIET)) == []
    assert {e.outcome for e in world.catalog.ledger([QUIET])} == {Outcome.SKIPPED}
    with world.cluster.read() as state:
        assert state.progress[GROUP_ID][at].offset == 7
        assert state.topics[QUIET].logs[0].low == 7
    assert_whole(world)
    assert plan_cleaning(archive_of(world), removing, [QUIET])[0].messages == 0
    exhausted(catch_up(world.archive(), overlap=0))
    assert list(world.catalog.rows(QUIET)) == []
    assert len(list(world.catalog.rows(BUSY))) == 10


def test_objects_of_a_test_topic_that_no_row_names_go_too_but_for_young_documents() -> None:
    world = archive_all(small_world())
    alone = f"{QUIET}/2023/11/14/22/{uuid.UUID(int=1)}.bson"
    late = f"segments/{QUIET}/1/0/{0:020}-{2:020}.bson"
    coming = f"segments/{QUIET}/1/0/{50:020}-{60:020}.bson"
    for store in (world.store, world.backup):
        for key in (alone, late, coming, f"{QUIET}/not.ours"):
            store._shelf.add(key, b"left behind")
    clean_topics(archive_of(world), world.removing(), [QUIET])
    left = {info.key for info in world.store.listing() if QUIET in info.key}
    assert left == {alone, coming, f"{QUIET}/not.ours"}
    clean_topics(archive_of(world), world.removing(), [QUIET], grace_s=-1)
    assert {info.key for info in world.store.listing() if QUIET in info.key} == {f"{QUIET}/not.ours"}
    assert {info.key for info in world.backup.listing() if QUIET in info.key} == {f"{QUIET}/not.ours"}
    assert len(world.rows()) == 10


def test_records_of_a_source_that_may_not_be_written_stay_and_that_is_told() -> None:
    world = archive_all(small_world())
    source = MockSource(cluster=world.cluster, writable=False)
    cleaned = clean_topics(archive_of(world, source), world.removing(), [QUIET], delete_records=True)
    assert "not writable" in cleaned.why_not_deleted[QUIET]
    assert list(world.catalog.rows(QUIET)) == []


def test_only_test_topics_are_cleaned() -> None:
    world = archive_all(small_world())
    archive = archive_of(world)
    assert topics_to_clean(archive, ()) == topics_to_clean(archive, [QUIET]) == [QUIET]
    with pytest.raises(ConfigurationError, match=r"alerts\.busy is no test topic"):
        topics_to_clean(archive, ["alerts.*"])
    with pytest.raises(ConfigurationError, match="There is no test topic nothing-test"):
        topics_to_clean(archive, ["nothing-test"])
    with pytest.raises(ForbiddenError, match="is no test topic"):
        clean_topics(archive, world.removing(), [BUSY])
    assert len(world.rows()) == 13


def test_a_message_with_a_test_header_goes_from_among_others_and_its_segment_stays() -> None:
    world = small_world("segment")
    world.cluster.append(BUSY, b"a test", headers=(("_test", None),), partition=0)
    archive_all(world)
    (row,) = marked(world.removing(), Query())
    removing = world.removing()
    clean_marked(removing, Query())
    assert removing.tally.staying == {row.object_key}
    assert removing.tally.objects == 0
    assert world.catalog.find(row.uuid) is None
    assert len(world.rows()) == 13
    assert_whole(world)


def test_a_store_that_does_not_allow_deleting_is_refused_and_the_pending_deletes_are_remembered() -> None:
    world = archive_all(small_world())
    store = MockStore()
    store._shelf = world.store._shelf
    with pytest.raises(ForbiddenError, match="does not allow deleting"):
        clean_topics(archive_of(world), replace(world.removing(), store=store), [QUIET])
    clean_topics(archive_of(world), world.removing(), [QUIET])
    assert_whole(world)


class Refusing(MockStore):
    """A store whose policy protects objects with this in their keys."""

    protected = "nothing"

    def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            if self.protected in key:
                raise ForbiddenError(f"AccessDenied for {key}.")
            super().delete([key])


def refusing(world: Backed, protected: str) -> Refusing:
    """The world's store, as one that protects some objects."""
    store = Refusing(world.store.name, bucket=world.store.bucket, deleting_allowed=True)
    store._shelf, store.protected = world.store._shelf, protected
    return store


@pytest.mark.parametrize("command", ["prune", "suppress", "clean-duplicates", "clean-tests"])
def test_an_object_that_may_not_be_deleted_holds_no_other_one_up_and_is_told_each_time(command: str) -> None:
    world = archive_all(small_world())
    first, *rest = sorted(world.catalog.rows(BUSY), key=lambda row: row.object_key)
    removing = replace(
        world.removing(), store=refusing(world, first.object_key), now=lambda: at_day(world, 99)
    )
    left_by = removing.removal(command, "left by an earlier run")
    world.catalog.note_pending_deletes([(first.bucket, first.object_key)], BUSY, left_by)
    world.catalog.remove_messages([first.uuid], "skipped", left_by)
    stray = f"{BUSY}/left.bson"
    world.store._shelf.add(stray, b"left behind")
    world.catalog.note_pending_deletes([(first.bucket, stray)], BUSY, left_by)
    deeds: dict[str, Callable[[], object]] = {
        "prune": lambda: prune(removing, Policy((BUSY,), DAY)),
        "suppress": lambda: suppress(removing, [row.uuid for row in rest], "a reason", grace_s=-1),
        "clean-duplicates": lambda: deduplicate(removing),
        "clean-tests": lambda: clean_marked(removing, Query()),
    }
    for _ in range(2):
        with pytest.raises(
            ForbiddenError, match=f"1 object could not be deleted.*AccessDenied for {first.object_key}"
        ):
            deeds[command]()
    left = {info.key for info in world.store.listing()}
    assert first.object_key in left
    assert stray not in left
    if command in ("prune", "suppress"):
        assert not {row.object_key for row in rest} & left
    removing.store.protected = "nothing"  # type: ignore[attr-defined] # as ``refusing`` made it
    deeds[command]()
    assert_whole(world)


def test_a_marked_test_that_may_not_be_deleted_is_told_with_what_else_failed() -> None:
    world = small_world()
    world.cluster.append(BUSY, b"a test", headers=(("_test", None),), partition=0)
    archive_all(world)
    (row,) = marked(world.removing(), Query())
    removing = replace(world.removing(), store=refusing(world, row.object_key))
    failures = Failures("topic", "could not be cleaned")
    failures.take(BUSY, CorruptError("The ledger counts too little."))
    clean_marked(removing, Query(), failures=failures)
    assert removing.tally.removed.messages == 1
    with pytest.raises(CorruptError, match=r"counts too little.*1 object could not be deleted"):
        failures.raise_any()


def test_where_nothing_may_be_deleted_that_is_said_before_much_is_taken_away() -> None:
    world = small_world()
    for number in range(300):
        world.cluster.create_topic(f"topic.{number}")
        world.cluster.append(f"topic.{number}", b"old", timestamp_ms=NOW_MS)
    archive_all(world)
    removing = replace(world.removing(), store=refusing(world, "topic"), now=lambda: at_day(world, 99))
    with pytest.raises(ForbiddenError, match="AccessDenied"):
        prune(removing, Policy(("topic.*",), DAY))
    assert len(world.rows()) > 150


class Overcounted(Faults):
    """A catalog that cannot take away what is of this topic: its ledger counts too little."""

    def perform(
        self, number: int, found: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]
    ) -> Any:
        if BUSY in repr(arguments) and self.calls[number - 1] in ("catalog.remove", "catalog.likely_copies"):
            raise CorruptError("The ledger counts too little.")
        return found(*arguments, **more)


@pytest.mark.parametrize("command", ["prune", "clean-duplicates", "clean-tests"])
def test_a_topic_of_which_something_fails_stops_no_other_one(command: str) -> None:
    world = archive_all(small_world())
    removing = replace(world.removing(Overcounted()), now=lambda: at_day(world, 99))
    archive = replace(archive_of(world), topics=TopicPolicy(test_topics=(BUSY, QUIET)))
    deeds: dict[str, Callable[[], object]] = {
        "prune": lambda: prune(removing, Policy((BUSY, QUIET), DAY)),
        "clean-duplicates": lambda: deduplicate(removing),
        "clean-tests": lambda: clean_topics(archive, removing, [BUSY, QUIET]),
    }
    with pytest.raises(CorruptError, match=f"the others are done.*{BUSY}.*counts too little"):
        deeds[command]()
    assert len(list(world.catalog.rows(BUSY))) == 10
    assert (len(list(world.catalog.rows(QUIET))) == 0) is (command != "clean-duplicates")


def test_what_could_not_be_pruned_is_not_among_what_went() -> None:
    world = archive_all(small_world())
    removing = replace(world.removing(Overcounted()), now=lambda: at_day(world, 99))
    failures = Failures("partition", "could not be pruned")
    done = prune(removing, Policy((BUSY, QUIET), DAY), failures=failures)
    assert {old.topic for old in done} == {QUIET}
    assert {name.partition("/")[0] for name, _ in failures} == {BUSY}


def test_a_test_topic_that_cannot_be_looked_at_whole_keeps_no_other_one_from_being_planned() -> None:
    world = archive_all(small_world())
    world.cluster.append(QUIET, b"more")
    world.cluster.append(BUSY, b"more", partition=0)
    world.cluster.lose_leader(BUSY)
    archive = replace(archive_of(world), topics=TopicPolicy(test_topics=(BUSY, QUIET)))
    plan = plan_cleaning(archive, world.removing(), [BUSY, QUIET])
    assert [(each.topic, each.messages, each.unread) for each in plan] == [(BUSY, 10, None), (QUIET, 3, 1)]


def test_a_backup_that_does_not_allow_deleting_keeps_its_copies_and_that_is_told() -> None:
    world = archive_all(small_world())
    backup = MockStore("backup", bucket="backup")
    backup._shelf = world.backup._shelf
    removing = replace(world.removing(), backup=backup)
    clean_topics(archive_of(world), removing, [QUIET])
    assert "backup does not allow deleting" in removing.tally.backup_refusal
    assert len(world.catalog.pending_deletes("clean-tests", "backup")) == 3
    clean_topics(archive_of(world), world.removing(), [QUIET])
    assert_whole(world)


# --- pruning


def at_day(world: Backed, days: float, ms: int = 0) -> datetime.datetime:
    return datetime.datetime.fromtimestamp((NOW_MS + ms) / 1000, datetime.UTC) + days * DAY


def test_pruning_stops_at_the_first_message_that_is_not_old_and_says_what_goes() -> None:
    world = archive_all(small_world("segment"))
    world.cluster.append(BUSY, b"alert 0", headers=(("_id", bytes(16)),), partition=1, timestamp_ms=-1)
    world.cluster.append(BUSY, b"old again", partition=1, timestamp_ms=NOW_MS - 5)
    archive_all(world)
    removing = replace(world.removing(), now=lambda: at_day(world, 30, ms=100))
    policy = Policy((BUSY,), 30 * DAY)
    plan = plan_pruning(removing, policy)
    assert [
        (old.partition_log and old.partition_log.partition, old.extent.messages, old.kept_from)
        for old in plan
    ] == [
        (0, 5, None),
        (1, 5, 5),
    ]
    assert len(world.rows()) == 15, "a plan changes nothing"
    prune(removing, policy)
    assert [row.offset for row in world.catalog.rows(BUSY)] == [5, 6]
    (summary,) = world.catalog.summaries([BUSY])
    assert (summary.messages, summary.pruned) == (2, 10)
    assert_whole(world)
    assert plan_pruning(removing, policy) == []
    exhausted(catch_up(world.archive(), overlap=0))
    assert len(list(world.catalog.rows(BUSY))) == 2


def test_a_message_that_a_young_duplicate_refers_to_stays() -> None:
    world = small_world()
    own = (("_id", bytes(16)),)
    world.cluster.append(BUSY, b"once", headers=own, partition=0, timestamp_ms=NOW_MS + 8)
    world.cluster.append(BUSY, b"once", headers=own, partition=1, timestamp_ms=NOW_MS + 2 * 86_400_000)
    archive_all(world)
    removing = replace(world.removing(), now=lambda: at_day(world, 30, ms=100))
    plan = plan_pruning(removing, Policy((BUSY,), 30 * DAY))
    assert [(old.partition_log and old.partition_log.partition, old.kept_from) for old in plan] == [
        (0, 5),
        (1, 5),
    ]


@pytest.mark.parametrize("later", ["at the end", "after what stays", "in another generation"])
def test_no_duplicate_is_left_of_what_was_pruned(later: str) -> None:
    world = small_world()
    own = (("_id", bytes(16)),)
    day_ms = 86_400_000
    for again in range(2):
        if again and later == "after what stays":
            world.cluster.append(BUSY, b"young", partition=0, timestamp_ms=NOW_MS + 2 * day_ms)
        if again and later == "in another generation":
            archive_all(world)
            world.cluster.recreate_topic(BUSY)
        world.cluster.append(BUSY, b"once", headers=own, partition=0, timestamp_ms=NOW_MS + 8)
    archive_all(world)
    removing = replace(world.removing(), now=lambda: at_day(world, 30, ms=100))
    prune(removing, Policy((BUSY,), 30 * DAY))
    kept = {row.uuid for row in world.rows()}
    copies = [copy.uuid for _, copy in world.catalog.duplicates(BUSY)]
    assert kept.issuperset(copies)
    assert len(copies) == (1 if later == "after what stays" else 0)
    assert_whole(world)


def test_adopted_rows_are_pruned_by_their_time() -> None:
    world = archive_all(small_world())
    world.catalog.adopt([adopted_row(QUIET)])
    removing = replace(world.removing(), now=lambda: at_day(world, 30))
    prune(removing, Policy((QUIET,), 30 * DAY))
    assert not world.catalog.has_adopted(QUIET)
    assert len(list(world.catalog.rows(QUIET))) == 3


def test_a_topic_that_is_being_archived_is_not_pruned() -> None:
    world = archive_all(small_world())
    removing = replace(world.removing(), now=lambda: at_day(world, 0))
    with pytest.raises(ConflictError, match="being archived"):
        prune(removing, Policy((BUSY,), DAY))
    assert len(world.rows()) == 13


def test_a_policy_names_topics_and_an_age_of_a_day_or_more() -> None:
    with pytest.raises(ConfigurationError, match="names no topic"):
        Policy((), DAY)
    with pytest.raises(ConfigurationError, match="a day or more"):
        Policy((BUSY,), DAY / 2)


# --- suppressing


def test_a_tombstone_has_no_content_and_reads_back_as_what_it_is() -> None:
    world = archive_all(small_world())
    row = next(iter(world.catalog.rows(BUSY)))
    stone = tombstone(row, "a reason")
    body = encode(stone)
    assert decode(body) == stone
    assert encode(decode(body)) == body
    named = row._replace(size_bytes=len(body), crc32=crc32(body))
    assert check(named._replace(annotations=stone.annotations), body)[1] == ()
    assert stone.message.key is stone.message.value is None
    assert stone.message.headers == ()


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_a_suppressed_message_verifies_and_what_repeats_it_later_is_a_duplicate(layout: str) -> None:
    world = small_world(layout)  # type: ignore[arg-type] # of these two it is one
    own = uuid.UUID(int=5)
    world.cluster.append(BUSY, b"secret", headers=(("_id", own.bytes),), partition=0)
    archive_all(world)
    found = suppress(world.removing(), [own, uuid.UUID(int=6)], "a reason")
    assert (found.done, found.unknown, found.keeps_versions) == ((own,), (uuid.UUID(int=6),), False)
    assert_whole(world)
    world.cluster.append(BUSY, b"secret", headers=(("_id", own.bytes),), partition=1)
    archive_all(world)
    assert [d.uuid for _, d in world.catalog.duplicates(BUSY)] == [own]
    wanted = Verification(world.catalog, world.store, grace_s=0, sleep=lambda _: None)
    assert [*objects(wanted), *ledger(wanted), *documents(wanted)] == []
    before = list(world.store.listing())
    suppress(world.removing(), [own], "another reason")
    assert list(world.store.listing()) == before
    row = world.catalog.find(own)
    assert row is not None
    assert decode(fetched(world.store, row)).suppressed == "a reason"


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_a_copy_that_stands_among_others_in_a_segment_and_that_no_row_names_goes_too(
    layout: WorldLayout,
) -> None:
    world = small_world(layout)
    for partition, timestamp_ms in ((0, NOW_MS), (1, NOW_MS + 1)):
        world.cluster.append(BUSY, b"a secret", partition=partition, timestamp_ms=timestamp_ms)
    archive_all(world)
    first, second = (row for row in world.catalog.rows(BUSY) if b"a secret" in fetched(world.store, row))
    world.catalog.move_to_duplicates(
        [CopyOf(second.uuid, first.uuid, "alike")], Removal("deduplicate", "alike")
    )
    world.removing().delete_pending("deduplicate")
    assert second.object_key in {info.key for info in world.store.listing()}
    suppress(world.removing(), [first.uuid], "a reason", grace_s=-1)
    assert_whole(world)
    assert_nowhere(world, b"a secret")
    assert world.catalog.find(first.uuid) is not None
    before = list(world.store.listing())
    suppress(world.removing(), [first.uuid], "a reason", grace_s=-1)
    assert list(world.store.listing()) == before, "what holds no more than its rows is left alone"


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_suppressing_keeps_what_stands_beside_a_message_whole_where_the_store_answers_by_a_half(
    layout: WorldLayout,
) -> None:
    world = archive_all(small_world(layout))
    torn: list[int] = []

    class Torn(Faults):
        def delivered(self, number: int, item: Any) -> Any:
            if self.calls[number - 1] == "store.fetch item" and not torn:
                torn.append(number)
                return item[: len(item) // 2]
            return item

    first = next(row for row in world.rows() if row.topic == BUSY)
    suppress(world.removing(Torn()), [first.uuid], "a reason", grace_s=-1)
    assert torn
    assert_whole(world)


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_suppressing_over_a_catalog_that_is_not_rebuilt_deletes_nothing_that_it_does_not_know(
    layout: WorldLayout,
) -> None:
    """The topic was made anew, and then the catalog: under the same numbers stand segments of the topic of before."""
    world = archive_all(small_world(layout))
    before = {info.key for info in world.store.listing()}
    world.cluster.recreate_topic(BUSY)
    world.cluster.append(BUSY, b"a secret", partition=0)
    world.catalog = MockCatalog()
    archive_all(world)
    secret = next(row for row in world.catalog.rows(BUSY) if b"a secret" in fetched(world.store, row))
    suppress(world.removing(), [secret.uuid], "a reason", grace_s=-1)
    assert before <= {info.key for info in world.store.listing()}
    assert_nowhere(world, b"a secret")


@pytest.mark.parametrize("layout", ["segment", "zstd"])
@pytest.mark.parametrize("is_taken", [False, True])
def test_suppressing_refuses_to_delete_what_the_catalog_does_not_know_beside_the_message_and_that_alone(
    layout: WorldLayout, *, is_taken: bool
) -> None:
    """A catalog that was made anew has one message of a segment again, and is to be rebuilt first; another attempt left it alone.

    Other content may have the UUID of the other one by now.
    """
    world = archive_all(small_world(layout))
    own, other, *_ = (row for row in world.rows() if row.topic == BUSY and row.partition == 0)
    world.catalog = MockCatalog()
    world.layout = "message"
    world.catalog.begin_generation(BUSY, 1, "id", None, "")
    alone = own._replace(object_key="alone.bson", position=None, frame=None, frame_size=None)
    later = f"segments/{BUSY}/1/0/{0:020}-{9:020}.bson"
    world.store.create([NewObject("alone.bson", b""), NewObject(later, fetched(world.store, own))])
    assert own.slice is not None
    world.catalog.commit(Batch(own.slice, rows=[alone]))
    if is_taken:
        stranger = other._replace(topic="other", digest=b"of other content", object_key="stranger.bson")
        world.store.create([NewObject("stranger.bson", b"")])
        where = Slice("other", 1, own.partition or 0, other.offset or 0, (other.offset or 0) + 1)
        world.catalog.commit(Batch(where, rows=[stranger]))
    with pytest.raises(CorruptError, match=f"holds the message {other.uuid}"):
        suppress(world.removing(), [own.uuid], "a reason", grace_s=-1)
    left = {info.key for info in world.store.listing()}
    assert other.object_key in left
    assert later not in left


def test_where_the_segment_is_not_there_suppressing_says_what_to_do_and_is_done_after_that() -> None:
    world = archive_all(small_world("segment"))
    first = next(row for row in world.rows() if row.topic == BUSY)
    (body,) = world.store.fetch([Extent(first.object_key)])
    world.store.delete([first.object_key])
    with pytest.raises(
        ObjectMissingError, match="hop-archive repair, and then this again; the suppression is remembered"
    ):
        suppress(world.removing(), [first.uuid], "a reason", grace_s=-1)
    world.store.create([NewObject(first.object_key, body)])
    suppress(world.removing(), [first.uuid], "a reason", grace_s=-1)
    assert_whole(world)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_message_that_cannot_be_suppressed_stops_no_other_one(place: int) -> None:
    world = archive_all(small_world("segment"))
    rows = [*{row.object_key: row for row in world.rows()}.values()]
    assert len(rows) == 3
    asked = [row.uuid for row in rows]
    (body,) = world.store.fetch([Extent(rows[place].object_key)])
    for store in (world.store, world.backup):
        store.delete([rows[place].object_key])
    failures = Failures("message", "could not be suppressed")
    found = suppress(world.removing(), asked, "a reason", grace_s=-1, failures=failures)
    assert [name for name, _ in failures] == [str(asked[place])]
    assert found.done == tuple(own for own in asked if own != asked[place])
    with pytest.raises(
        ObjectMissingError, match=rf"{asked[place]}: .* hop-archive repair, and then this again"
    ):
        suppress(world.removing(), asked, "a reason", grace_s=-1)
    for number in {0, 1, 2} - {place}:
        now = world.catalog.find(asked[number])
        assert now is not None
        assert decode(fetched(world.store, now)).suppressed == "a reason"
    for store in (world.store, world.backup):
        store.create([NewObject(rows[place].object_key, body)])
    assert suppress(world.removing(), asked, "a reason", grace_s=-1).done == tuple(asked)
    assert_whole(world)


def test_a_server_that_is_down_ends_suppressing_at_once() -> None:
    world = archive_all(small_world())
    asked = [row.uuid for row in world.catalog.rows(BUSY)]

    class Down(Faults):
        def strike(self, number: int, when: When) -> None:
            if self.calls[number - 1].startswith("store."):
                raise UnavailableError("It does not answer.")

    down = Down()
    with pytest.raises(UnavailableError, match="It does not answer"):
        suppress(world.removing(down), asked, "a reason", grace_s=-1)
    assert len([call for call in down.calls if call.startswith("store.")]) == 2
    assert world.catalog.suppressed(asked) == {*asked}


def test_what_a_crashed_run_left_of_a_suppressed_message_goes_once_it_is_old_enough() -> None:
    world = archive_all(small_world())
    row = next(iter(world.catalog.rows(BUSY)))
    stray = row.object_key.replace(".bson", ".3.bson")
    segment = f"segments/{BUSY}/1/0/{0:020}-{9:020}.bson"
    for store in (world.store, world.backup):
        store._shelf.add(stray, b"secret")
        store._shelf.add(segment, b"secret")
    found = suppress(world.removing(), [row.uuid], "a reason")
    assert sorted(found.young) == sorted([stray, segment])
    found = suppress(world.removing(), [row.uuid], "a reason", grace_s=-1)
    assert found.young == ()
    assert_whole(world)
