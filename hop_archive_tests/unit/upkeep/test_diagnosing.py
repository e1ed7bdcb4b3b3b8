"""What a look at each part says, where all is well and where it is not."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.samples import filler
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.conditions import CatalogCondition, StoreCondition
from hop_archive.model.topics import Compression, LayoutPolicy, TopicPolicy
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Answers, TopicInfo
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Created, Extent, NewObject
from hop_archive.upkeep import doctor as diagnosing
from hop_archive.upkeep.doctor import (
    PROBE_KEY,
    Check,
    Verdict,
    examine_catalog,
    examine_clocks,
    examine_source,
    examine_store,
    examine_together,
)
from hop_archive_tests.worlds import QUIET, WorldLayout, adopted_row, awkward_world, exhausted

OK, WARNING, UNKNOWN, FAILED = Verdict.OK, Verdict.WARNING, Verdict.UNKNOWN, Verdict.FAILED
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def verdicts(checks: Sequence[Check]) -> dict[str, Verdict]:
    return {check.what: check.verdict for check in checks}


def named(checks: Sequence[Check], what: str) -> Check:
    (found,) = [check for check in checks if check.what == what]
    return found


# The source


class Source(MockSource):
    """A mock with rights, and ids, of the test's choice."""

    rights: frozenset[str] | None = frozenset({"read", "describe"})
    group_rights: frozenset[str] | None = frozenset({"read"})
    has_ids = True

    def group_access(self) -> frozenset[str] | None:
        return self.group_rights

    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        return dict.fromkeys(self.topics(topics), self.rights)

    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        found = super().topics(names)
        if self.has_ids:
            return found
        return Answers({name: replace(info, topic_id=None) for name, info in found.items()})


@pytest.fixture
def source() -> Source:
    made = Source()
    made.create_topic("alerts", 2)
    made.create_topic("sys.heartbeat")
    made.publish([replace(one, partition=1) for one in filler(1, 100, topic="alerts")])
    return made


POLICY = TopicPolicy(veto=("sys.*",))


def look(
    source: Source, policy: TopicPolicy = POLICY, *, writable: bool = False, production: bool = False
) -> list[Check]:
    return list(examine_source(source, policy, writable=writable, production=production))


def test_a_source_that_can_be_read_and_not_written_is_well(source: Source) -> None:
    found = look(source)
    assert set(verdicts(found).values()) == {OK}
    assert named(found, "topics").detail == "1 of 2 topics are archived"
    assert named(found, "reads").detail == "alerts[1] at offset 0"
    assert named(found, "may write").detail == named(found, "may delete").detail == "no, as it should be"


def test_a_source_that_does_not_answer_fails_and_nothing_else_is_asked(source: Source) -> None:
    source.cluster.stop()
    (found,) = look(source)
    assert (found.what, found.verdict) == ("answers", FAILED)
    assert found.remedy
    assert found.remedy not in found.detail


def test_no_topic_that_is_wanted_is_a_warning(source: Source) -> None:
    found = look(source, TopicPolicy(topics=("other.*",)))
    assert verdicts(found) == {"answers": OK, "topics": WARNING, "group": OK}


def test_topics_that_may_not_be_read_are_a_failure_that_names_them(source: Source) -> None:
    source.rights = frozenset({"describe"})
    check = named(look(source), "may read")
    assert (check.verdict, check.detail) == (FAILED, "no right to read alerts")


def test_rights_that_are_not_told_are_not_known_and_reading_is_tried_all_the_same(source: Source) -> None:
    source.rights = None
    found = verdicts(look(source))
    assert {found[what] for what in ("may read", "may write", "may delete")} == {UNKNOWN}
    assert found["reads"] is OK


def test_where_nothing_waits_it_is_not_known_whether_reading_works(source: Source) -> None:
    source.create_topic("other")
    assert verdicts(look(source, TopicPolicy(topics=("other",))))["reads"] is UNKNOWN


def test_a_cluster_without_topic_ids_is_a_warning(source: Source) -> None:
    source.has_ids = False
    assert verdicts(look(source))["topic ids"] is WARNING


@pytest.mark.parametrize(
    ("rights", "writable", "production", "write", "delete"),
    [
        ({"read"}, False, False, OK, OK),
        ({"read"}, False, True, OK, OK),
        ({"read", "write"}, True, False, OK, OK),
        ({"read", "write", "delete"}, True, False, OK, OK),
        ({"read"}, True, False, WARNING, OK),
        ({"read", "write"}, False, False, WARNING, OK),
        ({"read", "delete"}, False, False, OK, WARNING),
        ({"read", "write", "delete"}, True, True, WARNING, WARNING),
    ],
)
def test_rights_to_write_and_to_delete_are_each_compared_with_what_the_stanza_says(
    source: Source, rights: set[str], writable: bool, production: bool, write: Verdict, delete: Verdict
) -> None:
    source.rights = frozenset(rights)
    found = verdicts(look(source, writable=writable, production=production))
    assert (found["may write"], found["may delete"]) == (write, delete)


def test_test_topics_are_told_apart_from_archived_ones_be_they_archived_or_not(source: Source) -> None:
    source.create_topic("sys.my-test")
    source.rights = frozenset({"read", "write"})
    found = look(source, replace(POLICY, test_topics=("*-test",)), writable=True)
    assert named(found, "may write").detail == "yes: archived topics alerts, and test topics sys.my-test"
    assert named(found, "may read").detail == "all 1 topics"


@pytest.mark.parametrize(
    ("rights", "verdict"), [({"read"}, OK), ({"describe"}, WARNING), (set(), WARNING), (None, UNKNOWN)]
)
def test_a_group_that_may_not_be_committed_to_is_a_warning(
    source: Source, rights: set[str] | None, verdict: Verdict
) -> None:
    source.group_rights = None if rights is None else frozenset(rights)
    assert verdicts(look(source))["group"] is verdict


@pytest.mark.parametrize(
    ("call", "what"),
    [("topics", "topics"), ("access", "may read"), ("watermarks", "reads"), ("group_access", "group")],
)
def test_an_error_halfway_is_told_of_what_was_being_looked_at_and_takes_nothing_back(
    source: Source, call: str, what: str
) -> None:
    setattr(source, call, refuse)
    found = look(source)
    assert [check.verdict for check in found if check.what == "answers"] == [OK]
    assert (found[-1].what, found[-1].verdict) == (what, FAILED)
    assert len({check.what for check in found}) == len(found)


def refuse(*_: object) -> NoReturn:
    raise UnavailableError("It is away.", remedy="Wait.")


# The database


class Catalog(MockCatalog):
    """A mock in a condition of the test's choice."""

    lacks: Mapping[str, str] = {}
    is_old = read_only = False

    def condition(self) -> CatalogCondition:
        whole = super().condition()
        rights = {table: may - {self.lacks.get(table, "")} for table, may in whole.rights.items()}
        return replace(whole, rights=rights, is_old=self.is_old, read_only=self.read_only, role="joe")


def test_a_database_that_lets_everything_be_done_is_well() -> None:
    found = list(examine_catalog(Catalog(), deleting_allowed=True))
    assert set(verdicts(found).values()) == {OK}


def test_a_right_to_insert_that_lacks_is_a_failure_that_names_role_and_table() -> None:
    catalog = Catalog()
    catalog.lacks = {"batches": "INSERT"}
    check = named(list(examine_catalog(catalog, deleting_allowed=False)), "may write")
    assert (check.verdict, check.detail) == (FAILED, "role joe lacks INSERT on batches")


@pytest.mark.parametrize(
    ("lacks", "what"),
    [
        ("INSERT on held", "may restore and rebuild"),
        ("UPDATE on held", "may restore and rebuild"),
        ("UPDATE on restores", "may restore and rebuild"),
        ("INSERT on suppressions", "may restore and rebuild"),
        ("INSERT on snapshots", "may verify and take snapshots"),
        ("DELETE on verified", "may verify and take snapshots"),
        ("INSERT on claims", "may share work"),
        ("UPDATE on archivers", "may share work"),
    ],
)
def test_who_was_granted_nothing_on_a_new_table_is_told_to_have_the_roles_made_again(
    lacks: str, what: str
) -> None:
    catalog = Catalog()
    assert {check.verdict for check in examine_catalog(catalog, deleting_allowed=True)} == {OK}
    right, _, table = lacks.partition(" on ")
    catalog.lacks = {table: right}
    found = list(examine_catalog(catalog, deleting_allowed=True))
    check = named(found, what)
    assert (check.verdict, check.detail) == (WARNING, f"role joe lacks {lacks}")
    assert "deploy/postgres/roles.sql" in check.remedy
    assert named(found, "may write").verdict is OK


@pytest.mark.parametrize("lacks", ["INSERT on message_ts", "SELECT on message_ts"])
def test_rights_on_the_text_index_are_missed_only_where_the_stanza_names_topics(lacks: str) -> None:
    catalog = Catalog()
    right, _, table = lacks.partition(" on ")
    catalog.lacks = {table: right}
    assert set(verdicts(list(examine_catalog(catalog, deleting_allowed=True))).values()) == {OK}
    check = named(list(examine_catalog(catalog, deleting_allowed=True, indexes_text=True)), "may index text")
    assert (check.verdict, check.detail) == (WARNING, f"role joe lacks {lacks}")


SEGMENTS, MESSAGES = LayoutPolicy("segment"), LayoutPolicy()
MIXED = LayoutPolicy(by_topic=((QUIET, "segment"),))


@pytest.mark.parametrize(
    ("layouts", "verdict", "named_topic"),
    [
        (SEGMENTS, WARNING, QUIET),
        (MIXED, WARNING, QUIET),
        (MESSAGES, OK, ""),
        (LayoutPolicy(by_topic=(("other", "segment"),)), OK, ""),
        (LayoutPolicy(compact_after_days=7.0), WARNING, QUIET),
    ],
)
def test_segments_in_an_adopted_catalog_are_warned_of(
    layouts: LayoutPolicy, verdict: Verdict, named_topic: str
) -> None:
    catalog = Catalog()
    catalog.adopt([adopted_row(QUIET)])
    check = named(
        list(examine_catalog(catalog, deleting_allowed=True, layouts=layouts)), "archive-core's readers"
    )
    assert check.verdict is verdict
    assert named_topic in check.detail
    assert bool(check.remedy) is (verdict is WARNING)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_readers_of_an_adopted_catalog_are_told_that_segments_are_compressed(
    compression: Compression,
) -> None:
    catalog = Catalog()
    catalog.adopt([adopted_row(QUIET)])
    layouts = LayoutPolicy("segment", compression=compression)
    check = named(
        list(examine_catalog(catalog, deleting_allowed=True, layouts=layouts)), "archive-core's readers"
    )
    assert ("compressed" in check.detail) is (compression == "zstd")


def test_segments_in_a_catalog_that_was_not_adopted_are_nothing_to_say() -> None:
    found = list(examine_catalog(Catalog(), deleting_allowed=True, layouts=SEGMENTS))
    assert "archive-core's readers" not in verdicts(found)


@pytest.mark.parametrize(("allowed", "verdict"), [(True, WARNING), (False, OK)])
def test_a_right_to_delete_is_missed_only_where_the_stanza_allows_deleting(
    allowed: bool, verdict: Verdict
) -> None:
    catalog = Catalog()
    catalog.lacks = {"messages": "DELETE"}
    assert verdicts(list(examine_catalog(catalog, deleting_allowed=allowed)))["may delete"] is verdict


def test_a_standby_and_an_old_server_are_failures() -> None:
    catalog = Catalog()
    catalog.read_only = catalog.is_old = True
    found = verdicts(list(examine_catalog(catalog, deleting_allowed=False)))
    assert (found["version"], found["may write"]) == (FAILED, FAILED)


# The store


class Overwriting(MockStore):
    """A server that does not know If-None-Match."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        return [Created.NEW for _ in objects]


class Denying(MockStore):
    """A store whose credentials may only read."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        raise ForbiddenError("Store x refused: AccessDenied.", remedy="Check the keys.")


def test_a_store_is_asked_with_one_object_that_stays_as_it_is_however_often() -> None:
    store = MockStore()
    for _ in range(2):
        assert set(verdicts(list(examine_store(store))).values()) == {OK}
    assert [info.key for info in store.listing()] == [PROBE_KEY]


def test_where_deleting_is_allowed_it_is_tried_and_leaves_nothing() -> None:
    store = MockStore(deleting_allowed=True)
    found = verdicts(list(examine_store(store, deleting_allowed=True)))
    assert (found["may read objects"], found["may delete objects"]) == (OK, OK)
    assert list(store.listing()) == []


class Losing(MockStore):
    """A store that neither gives back nor deletes."""

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        raise ForbiddenError("no reading", remedy="ask")

    def delete(self, keys: Collection[str]) -> None:
        raise ForbiddenError("no deleting", remedy="ask")


def test_what_may_not_be_read_or_deleted_is_a_failure() -> None:
    found = verdicts(list(examine_store(Losing(), deleting_allowed=True)))
    assert (found["may read objects"], found["may delete objects"]) == (FAILED, FAILED)


def test_without_a_probe_nothing_is_created() -> None:
    store = MockStore()
    assert "may create objects" not in verdicts(list(examine_store(store, probe=False)))
    assert list(store.listing()) == []


def test_a_server_that_replaces_objects_is_a_failure() -> None:
    assert verdicts(list(examine_store(Overwriting())))["may create objects"] is FAILED


def test_a_probe_that_an_overwriting_server_left_is_no_failure_of_a_mended_one() -> None:
    store = MockStore()
    store.create([NewObject(PROBE_KEY, diagnosing._OTHER_PROBE)])
    assert verdicts(list(examine_store(store)))["may create objects"] is OK


@pytest.mark.parametrize("right", ["UPDATE on observed", "DELETE on batches", "UPDATE on topics"])
def test_each_right_that_archiving_needs_is_missed(right: str) -> None:
    catalog = Catalog()
    what, _, table = right.partition(" on ")
    catalog.lacks = {table: what}
    check = named(list(examine_catalog(catalog, deleting_allowed=False)), "may write")
    assert (check.verdict, check.detail) == (FAILED, f"role joe lacks {right}")


def test_a_store_that_takes_nothing_is_a_failure_with_its_remedy() -> None:
    check = named(list(examine_store(Denying())), "may create objects")
    assert (check.verdict, check.detail, check.remedy) == (
        FAILED,
        "Store x refused: AccessDenied.",
        "Check the keys.",
    )


class Keeping(MockStore):
    """A store in a condition of the test's choice."""

    def __init__(
        self, versioning: bool | None, why_unknown: str = "", replication: bool | None = None
    ) -> None:
        super().__init__()
        self.found = StoreCondition(None, versioning, replication, why_unknown)

    def condition(self) -> StoreCondition:
        return self.found


@pytest.mark.parametrize(
    ("versioning", "why_unknown", "expected", "verdict"),
    [
        (True, "", True, OK),
        (False, "", True, WARNING),
        (False, "", False, OK),
        (None, "denied", True, UNKNOWN),
    ],
)
def test_versions_are_missed_where_they_are_expected(
    versioning: bool | None, why_unknown: str, expected: bool, verdict: Verdict
) -> None:
    checks = list(examine_store(Keeping(versioning, why_unknown), keeps_versions=expected))
    assert verdicts(checks)["versioning, replication"] is verdict


@pytest.mark.parametrize(
    ("replication", "why_unknown", "expected", "verdict"),
    [
        (True, "", True, OK),
        (False, "", True, WARNING),
        (False, "", False, OK),
        (None, "denied", True, UNKNOWN),
        (False, "versioning: denied", True, WARNING),
    ],
)
def test_copies_are_missed_where_the_stanza_names_a_bucket_for_them(
    replication: bool | None, why_unknown: str, expected: bool, verdict: Verdict
) -> None:
    versioning = None if why_unknown else True
    checks = list(examine_store(Keeping(versioning, why_unknown, replication), is_copied=expected))
    check = named(checks, "versioning, replication")
    assert check.verdict is verdict
    assert ("backup_bucket" in check.remedy) is (verdict is WARNING)


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [((), OK), (("rule r deletes objects after 3 days",), WARNING), (None, UNKNOWN)],
)
def test_rules_that_take_objects_away_are_warned_of(rules: tuple[str, ...] | None, verdict: Verdict) -> None:
    store = Keeping(versioning=True)
    store.found = replace(store.found, lifecycle=rules)
    check = named(list(examine_store(store)), "lifecycle")
    assert check.verdict is verdict
    assert all(rule in check.detail for rule in rules or ())
    assert bool(check.remedy) is (verdict is WARNING)


# Clocks


def unavailable() -> datetime.datetime:
    raise UnavailableError("not there")


@pytest.mark.parametrize(
    ("off_s", "verdict"),
    [(0, OK), (4, OK), (-4, OK), (6, WARNING), (-299, WARNING), (300, FAILED), (-86_400, FAILED)],
)
def test_a_clock_that_is_off_is_a_warning_and_far_off_a_failure(off_s: int, verdict: Verdict) -> None:
    theirs = NOW + datetime.timedelta(seconds=off_s)
    (check,) = examine_clocks(lambda: NOW, {"store": lambda: theirs})
    assert check.verdict is verdict


def test_a_slow_answer_is_no_clock_that_is_off() -> None:
    ours = iter([NOW, NOW + datetime.timedelta(seconds=20)])
    (check,) = examine_clocks(lambda: next(ours), {"store": lambda: NOW + datetime.timedelta(seconds=10)})
    assert check.verdict is OK


def test_a_clock_that_is_not_told_or_not_there_is_left_out() -> None:
    assert list(examine_clocks(lambda: NOW, {"store": lambda: None, "database": unavailable})) == []


def test_a_partition_without_a_leader_is_told(source: Source) -> None:
    source.cluster.lose_leader("alerts", 1)
    (found,) = [one for one in look(source) if one.what == "reads"]
    assert found.verdict is Verdict.FAILED
    assert "alerts[1] has no leader" in found.detail


# Catalog and store together


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_the_newest_message_tells_whether_catalog_and_store_belong_together(layout: WorldLayout) -> None:
    world = awkward_world(layout)
    world.store = MockStore(deleting_allowed=True)
    exhausted(catch_up(world.archive(), overlap=0))
    (check,) = examine_together(world.catalog, world.store)
    assert (check.verdict, "is what its row says" in check.detail) == (OK, True)
    world.store.delete([info.key for info in world.store.listing()])
    (check,) = examine_together(world.catalog, world.store)
    assert (check.verdict, "there is no object" in check.detail) == (FAILED, True)
    assert "hop-archive verify" in check.remedy


def test_an_empty_catalog_beside_a_bucket_with_objects_is_a_warning() -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive(), overlap=0))
    (check,) = examine_together(MockCatalog(), world.store)
    assert (check.verdict, "rebuild-catalog" in check.remedy) == (WARNING, True)
    probed = MockStore()
    probed.create([NewObject(PROBE_KEY, b"")])
    (check,) = examine_together(MockCatalog(), probed)
    assert check.verdict is OK
