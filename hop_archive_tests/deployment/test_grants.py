"""Each right of deploy/postgres/roles.sql, taken away in its turn: what its holder needs it for fails, and says what is lacking.

Of the catalog's own methods, for a command makes hundreds of statements. Reading is not divided: who has a role may read all.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import psycopg
import pytest

from hop_archive.catalog.checked import CheckedRange, Look, Section, VerifiedRange
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.records import (
    GONE,
    UNKNOWN_CLUSTER,
    Batch,
    Collision,
    CopyOf,
    Correction,
    Duplicate,
    Outcome,
    Removal,
    Replaced,
    Row,
    RowJob,
    Snapshot,
)
from hop_archive.errors import ForbiddenError, SequenceBehindError
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import PartitionLog
from hop_archive.model.watermarks import Watermarks
from hop_archive.upkeep.doctor import Verdict, examine_catalog
from hop_archive_tests.contract.catalog_helpers import row_at, slice_of
from hop_archive_tests.deployment.test_roles import Server, server

__all__ = ["server"]

pytestmark = pytest.mark.local

Deed: TypeAlias = Callable[[PostgresCatalog, str], object]
"""What a role does with a topic that is prepared for it (``topic``)."""

REMOVAL = Removal("prune", "too old", backups=("copy",))


def _rows(catalog: PostgresCatalog, topic: str) -> list[Row]:
    return [*catalog.rows(topic)]


def _log(topic: str) -> PartitionLog:
    return PartitionLog(topic, 1, 0)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _batch(topic: str, start: int) -> Batch:
    """Five messages, one with a collision, a duplicate, and an offset that is absent."""
    where = slice_of(start, start + 7, topic)
    rows = [row_at(where, offset) for offset in range(start, start + 5)]
    collision = Collision(start, uuid.uuid4(), rows[0].uuid)
    copy = Duplicate(start + 5, rows[1].timestamp_ms, rows[1].uuid, "same")
    return Batch(where, rows=rows, duplicates=[copy], collisions=[collision])


def committing(catalog: PostgresCatalog, topic: str) -> None:
    catalog.commit(_batch(topic, 100))


def beginning(catalog: PostgresCatalog, topic: str) -> None:
    catalog.begin_generation(topic, 2, "cluster", None, "made anew")


def claiming(catalog: PostgresCatalog, topic: str) -> None:
    assert catalog.claim_generation(topic, 1, "cluster", "id", "found there")


def observing(catalog: PostgresCatalog, topic: str) -> None:
    for stable in (10, 20):
        catalog.observe({_log(topic): Watermarks(0, stable, stable)})


def proving(catalog: PostgresCatalog, topic: str) -> None:
    catalog.note_proven({_log(topic): 1})


def calling_gone(catalog: PostgresCatalog, topic: str) -> None:
    catalog.note_proven({_log(topic): GONE})


def noting(catalog: PostgresCatalog, topic: str) -> None:
    catalog.note_findings([Finding(Kind.LOST, topic, "x")], _now())
    catalog.resolve_findings([record.number for record in catalog.findings([topic])], "mended", _now())


def merging(catalog: PostgresCatalog, topic: str) -> None:
    catalog.merge_ledger(_now() + datetime.timedelta(days=1))


def verifying(catalog: PostgresCatalog, topic: str) -> None:
    for start, stop in ((0, 3), (2, 5)):
        catalog.note_verified(VerifiedRange(*_log(topic), start, stop, _now()))
    assert [(done.start, done.stop) for done in catalog.verified([topic])] in ([(0, 5)], [(0, 2), (2, 5)])


def checking(catalog: PostgresCatalog, topic: str) -> None:
    section = Section("archive", topic, Look.ALONE)
    for after, through in (("a", "c"), ("b", "d")):
        catalog.note_checked([CheckedRange(section, after, through, _now())])


def restoring(catalog: PostgresCatalog, topic: str) -> None:
    begun = catalog.begin_restore(topic, "target", {})
    catalog.note_restore(begun.number, outcome="done")
    with catalog.hold(topic):
        pass


def keeping_snapshots(catalog: PostgresCatalog, topic: str) -> None:
    catalog.keep_snapshots("cluster", [Snapshot("cluster", "topic", topic, {}, _now())])


def sharing(catalog: PostgresCatalog, topic: str) -> None:
    logs = [_log(topic)]
    assert catalog.claim_logs("other", logs, 60.0).mine == {*logs}
    catalog.claim_logs("own", logs, 60.0)
    catalog.renew_claims("own", 60.0)
    catalog.claim_logs("other", [], 60.0)
    assert catalog.claim_logs("own", logs, 60.0).mine == {*logs}
    catalog.drop_claims("own")
    catalog.drop_claims("other")


def going_over_rows(catalog: PostgresCatalog, topic: str) -> None:
    for job in (RowJob.MEDIA_TYPES, RowJob.CHECK_OBJECTS):
        with catalog.hold(job.value):
            catalog.note_row_job(job, catalog.begin_row_job(job).last)


def indexing(catalog: PostgresCatalog, topic: str) -> None:
    catalog.add_texts([])


def rebuilding(catalog: PostgresCatalog, topic: str) -> None:
    catalog.reinstate(_batch(topic, 200))
    catalog.recount(topic)


def suppressing(catalog: PostgresCatalog, topic: str) -> None:
    catalog.suppress({uuid.uuid4(): topic}, "by court order")


def removing(catalog: PostgresCatalog, topic: str) -> None:
    assert catalog.remove([slice_of(1, 2, topic)], "pruned", REMOVAL).messages == 1
    catalog.strike_out(catalog.pending_deletes("prune", "archive"))


def removing_copies(catalog: PostgresCatalog, topic: str) -> None:
    first, second, *_ = _rows(catalog, topic)
    pair = CopyOf(second.uuid, first.uuid, "same")
    assert catalog.move_to_duplicates([pair], REMOVAL).messages == 1
    assert {copy.uuid for _, copy in catalog.duplicates(topic)} == {first.uuid}


def making_a_tombstone(catalog: PostgresCatalog, topic: str) -> None:
    row = _rows(catalog, topic)[0]
    key = f"{topic}/tombstone.bson"
    catalog.note_pending_deletes([(row.bucket, key)], topic, REMOVAL)
    new = Replaced(row.uuid, key, None, 7, 9, is_tombstone=True)
    assert catalog.replace_documents((row.bucket, row.object_key), [new], REMOVAL) == {row.uuid}


def retracting(catalog: PostgresCatalog, topic: str) -> None:
    row = _rows(catalog, topic)[0]
    assert catalog.retract([row.uuid], retracted=True) == {row.uuid}


def compacting(catalog: PostgresCatalog, topic: str) -> None:
    row = _rows(catalog, topic)[0]
    moved = row._replace(object_key=f"{topic}/elsewhere")
    with catalog.hold(topic):
        catalog.note_pending_deletes([(row.bucket, moved.object_key)], topic, REMOVAL)
        catalog.move_documents([Correction(row, moved)], REMOVAL)
    catalog.note_compacted(_log(topic), done_to=1, looked_to=1)


def skipping(catalog: PostgresCatalog, topic: str) -> None:
    """As ``clean-tests`` does with what is not archived yet."""
    catalog.commit(Batch(slice_of(300, 310, topic), Outcome.SKIPPED, "a test"))


def correcting(catalog: PostgresCatalog, topic: str) -> None:
    row = _rows(catalog, topic)[0]
    catalog.correct_rows([Correction(row, row._replace(uuid=uuid.uuid4()))])


def putting_back(catalog: PostgresCatalog, topic: str) -> None:
    """A row that the ledger counts, and somebody took away (``_without_its_last_row``)."""
    where = slice_of(4, 5, topic)
    catalog.put_back(Batch(where, rows=[row_at(where, 4)]))


def accounting(catalog: PostgresCatalog, topic: str) -> None:
    catalog.account(_batch(topic, 400))


def recording_a_copy(catalog: PostgresCatalog, topic: str) -> None:
    row = _rows(catalog, topic)[0]
    catalog.record_copy(_log(topic), Duplicate(6, row.timestamp_ms, row.uuid, "same"))


def recounting(catalog: PostgresCatalog, topic: str) -> None:
    catalog.recount_ledger(slice_of(0, 7, topic))
    catalog.recount_summary(topic)


# Of each role what it does, and the rights that this takes.
NEEDED: Mapping[str, Mapping[Deed, str]] = {
    "archiver": {
        committing: "INSERT messages, INSERT duplicates, INSERT logs, INSERT topics, UPDATE topics, INSERT batches",
        beginning: "INSERT generations",
        observing: "INSERT observed, UPDATE observed",
        noting: "INSERT findings, UPDATE findings",
        merging: "UPDATE batches, DELETE batches",
        verifying: "INSERT verified, DELETE verified",
        checking: "INSERT checked, DELETE checked",
        restoring: "INSERT restores, UPDATE restores, INSERT held, UPDATE held",
        keeping_snapshots: "INSERT snapshots, UPDATE snapshots",
        sharing: "INSERT archivers, UPDATE archivers, DELETE archivers, INSERT claims, UPDATE claims, DELETE claims",
        indexing: "INSERT message_ts",
        going_over_rows: "INSERT row_progress, UPDATE row_progress",
        claiming: "UPDATE generations.cluster_id, UPDATE generations.topic_id, UPDATE generations.reason",
        suppressing: "INSERT suppressions, DELETE message_ts",
    },
    "cleaner": {
        removing: "DELETE messages, DELETE duplicates, UPDATE topics, INSERT condemned, UPDATE condemned, DELETE condemned,"
        " INSERT batches, UPDATE batches, DELETE batches",
        removing_copies: "INSERT duplicates, UPDATE duplicates",
        making_a_tombstone: "UPDATE messages.key, UPDATE messages.position, UPDATE messages.size, UPDATE messages.crc32,"
        " UPDATE messages.title, UPDATE messages.sender, UPDATE messages.file_name, UPDATE messages.originator,"
        " UPDATE messages.frame, UPDATE messages.frame_size",
        retracting: "UPDATE messages.retracted",
        compacting: "INSERT compacted, UPDATE compacted, INSERT held, UPDATE held",
        suppressing: "INSERT suppressions, DELETE message_ts",
        beginning: "INSERT generations",
        observing: "INSERT observed, UPDATE observed",
        noting: "INSERT findings, UPDATE findings",
    },
    "repairer": {
        putting_back: "INSERT messages, INSERT logs, INSERT topics, UPDATE topics",
        correcting: "UPDATE messages, DELETE message_ts",
        accounting: "INSERT batches",
        recording_a_copy: "INSERT duplicates, UPDATE batches",
        recounting: "DELETE duplicates",
        calling_gone: "UPDATE observed.leader_epoch",
        noting: "INSERT findings, UPDATE findings",
        verifying: "INSERT verified, DELETE verified",
        checking: "INSERT checked, DELETE checked",
        going_over_rows: "INSERT row_progress, UPDATE row_progress, INSERT held, UPDATE held",
    },
}
ALSO: Mapping[str, tuple[Deed, ...]] = {
    "archiver": (proving, rebuilding),
    "cleaner": (skipping, proving),
    "repairer": (),
}
"""What a role does besides, with rights that are shown to be needed elsewhere."""

RIGHTS = [
    (role, deed, right)
    for role, deeds in NEEDED.items()
    for deed, rights in deeds.items()
    for right in rights.split(", ")
]

GRANTED = r"""
    SELECT grantee::regrole::text, privilege_type || ' ' || relname FROM pg_class, aclexplode(relacl) WHERE relkind = 'r'
    UNION
    SELECT grantee::regrole::text, privilege_type || ' ' || relname || '.' || attname
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl) WHERE relkind = 'r'
"""


def said(right: str) -> tuple[str, str]:
    """A right as SQL says it, and the table."""
    verb, table = right.split()
    table, _, column = table.partition(".")
    return f"{verb} ({column}) ON {table}" if column else f"{verb} ON {table}", table


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.inside, autocommit=True) as found:
        yield found


@pytest.fixture(scope="module")
def owners(server: Server) -> Iterator[PostgresCatalog]:
    made = PostgresCatalog("owner", server.inside)
    yield made
    made.close()


@pytest.fixture(scope="module")
def catalogs(server: Server) -> Iterator[Mapping[str, PostgresCatalog]]:
    made = {role: PostgresCatalog(role, server.url(role)) for role in (*NEEDED, "reader")}
    yield made
    for catalog in made.values():
        catalog.close()


@pytest.fixture
def topic(owners: PostgresCatalog, owner: psycopg.Connection, request: pytest.FixtureRequest) -> str:
    """A topic with messages, a duplicate, a collision and an absent offset; what the deed is to mend is damaged."""
    made = f"t{uuid.uuid4().hex[:12]}"
    deed = request.node.callspec.params.get("deed") if hasattr(request.node, "callspec") else None
    owners.begin_generation(made, 1, UNKNOWN_CLUSTER if deed is claiming else "cluster", None, "first seen")
    owners.observe({_log(made): Watermarks(0, 7, 7)})
    owners.commit(_batch(made, 0))
    if deed is putting_back:
        owner.execute('DELETE FROM messages WHERE topic = %s AND "offset" = 4', [made])
    return made


@pytest.mark.parametrize(
    ("role", "deed"),
    [(role, deed) for role in NEEDED for deed in (*NEEDED[role], *ALSO[role])],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_each_role_may_do_what_it_is_for(
    catalogs: Mapping[str, PostgresCatalog], topic: str, role: str, deed: Deed
) -> None:
    deed(catalogs[role], topic)


def test_nobody_has_another_right_than_those_that_are_shown_to_be_needed(owner: psycopg.Connection) -> None:
    found = {
        (role.removeprefix("hop_archive_"), right)
        for role, right in owner.execute(GRANTED)
        if role.startswith("hop_archive_") and not right.startswith("SELECT ")
    }
    assert found == {(role, right) for role, _, right in RIGHTS}


@pytest.mark.parametrize(
    ("role", "deed", "right"),
    RIGHTS,
    ids=[f"{role}-{right}-{deed.__name__}" for role, deed, right in RIGHTS],
)
def test_without_a_right_what_needs_it_fails_and_says_what_is_lacking(
    catalogs: Mapping[str, PostgresCatalog],
    owner: psycopg.Connection,
    topic: str,
    role: str,
    deed: Deed,
    right: str,
) -> None:
    statement, table = said(right)
    owner.execute(f"REVOKE {statement} FROM hop_archive_{role}".encode())
    try:
        with pytest.raises(ForbiddenError, match=rf"permission denied for table {table}\b.*roles\.sql"):
            deed(catalogs[role], topic)
    finally:
        owner.execute(f"GRANT {statement} TO hop_archive_{role}".encode())


NUMBERING: Mapping[str, Deed] = {"archiver": committing, "cleaner": skipping, "repairer": accounting}
"""What numbers rows, of each role that does."""


@pytest.fixture
def sequences(owners: PostgresCatalog, owner: psycopg.Connection, topic: str) -> Iterator[list[str]]:
    """All sequences, each of a table that has rows; right again in the end."""
    owners.begin_restore(topic, "target", {})
    found = owners.condition().sequences
    assert all(sequence.greatest for sequence in found)
    yield [sequence.name for sequence in found]
    for sequence in owners.condition().sequences:
        owner.execute(sequence.remedy.encode())


@pytest.mark.parametrize("role", NUMBERING)
def test_who_numbers_rows_sets_all_sequences_right_and_says_of_which_it_may_not(
    catalogs: Mapping[str, PostgresCatalog],
    owner: psycopg.Connection,
    sequences: list[str],
    topic: str,
    role: str,
) -> None:
    def leave_behind() -> None:
        for sequence in catalogs["reader"].condition().sequences:
            owner.execute("SELECT setval(%s, %s)", [sequence.name, max(sequence.greatest - 1, 1)])

    for name in sequences:
        leave_behind()
        owner.execute(f"REVOKE UPDATE ON SEQUENCE {name} FROM hop_archive_{role}".encode())
        with pytest.raises((ForbiddenError, SequenceBehindError), match=name.rpartition(".")[2]):
            NUMBERING[role](catalogs[role], topic)
        owner.execute(f"GRANT UPDATE ON SEQUENCE {name} TO hop_archive_{role}".encode())
    leave_behind()
    NUMBERING[role](catalogs[role], topic)
    assert not [sequence for sequence in catalogs[role].condition().sequences if sequence.is_behind]


@pytest.mark.parametrize("role", [*NEEDED, "reader"])
def test_all_may_look_where_sequences_stand_and_doctor_says_of_which_it_may_not(
    catalogs: Mapping[str, PostgresCatalog], owner: psycopg.Connection, sequences: list[str], role: str
) -> None:
    for name in sequences:
        owner.execute(f"REVOKE SELECT ON SEQUENCE {name} FROM hop_archive_{role}".encode())
        told = [
            each
            for each in examine_catalog(catalogs[role], deleting_allowed=False)
            if each.what == "sequences"
        ]
        owner.execute(f"GRANT SELECT ON SEQUENCE {name} TO hop_archive_{role}".encode())
        assert [each.verdict for each in told] == [Verdict.UNKNOWN]
        assert name in told[0].detail


def test_nobody_has_another_right_to_sequences(owner: psycopg.Connection) -> None:
    found = owner.execute(
        r"""SELECT DISTINCT grantee::regrole::text, privilege_type FROM pg_class, aclexplode(relacl)
            WHERE relkind = 'S' AND grantee::regrole::text LIKE 'hop\_archive\_%'"""
    )
    assert {(role.removeprefix("hop_archive_"), right) for role, right in found} == {
        *((role, "SELECT") for role in (*NEEDED, "reader")),
        *((role, "UPDATE") for role in NUMBERING),
    }


@pytest.mark.parametrize("role", [*NEEDED, "reader"])
def test_who_may_not_enter_the_schema_is_told_what_is_lacking(
    server: Server, owner: psycopg.Connection, role: str
) -> None:
    owner.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    owner.execute(f"REVOKE USAGE ON SCHEMA public FROM hop_archive_{role}".encode())
    catalog = PostgresCatalog(role, server.url(role))
    try:
        for ask in (catalog.check, catalog.condition, catalog.topics):
            with pytest.raises(ForbiddenError, match=r"schema.*roles\.sql"):
                ask()
    finally:
        catalog.close()
        owner.execute(f"GRANT USAGE ON SCHEMA public TO hop_archive_{role}".encode())
        owner.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
