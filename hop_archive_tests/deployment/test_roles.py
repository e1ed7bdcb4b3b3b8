"""deploy/postgres/roles.sql on a real Postgres: each role can do its work, and nothing more."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from hop_archive.archive import Archive
from hop_archive.catalog.checked import VerifiedRange
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.catalog.records import GONE, Batch, CopyOf, Correction, Duplicate, Removal, Replaced
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import ForbiddenError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.conditions import TABLES
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.progress import Progress
from hop_archive.model.slices import Slice
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.upkeep.doctor import examine_catalog
from hop_archive.upkeep.media_types import correct_media_types
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.text_index import index_text
from hop_archive_tests.deployment.image import CHECKOUT
from hop_archive_tests.roles import administrator
from hop_archive_tests.worlds import BUSY, QUIET, awkward_world, exhausted

pytestmark = pytest.mark.local

ROLES = ("archiver", "reader", "cleaner", "repairer")
SQL = (CHECKOUT / "deploy" / "postgres" / "roles.sql").read_text()
REFUSED = psycopg.errors.InsufficientPrivilege


@dataclass(frozen=True, slots=True)
class Server:
    """A database of a test's own, with the roles and a login for each."""

    administrator: str
    name: str

    def url(self, role: str) -> str:
        at = urlsplit(self.administrator)
        return f"postgresql://{self.name}_{role}:secret@{at.hostname}:{at.port}/{self.name}"

    @property
    def inside(self) -> str:
        """The database, as an administrator."""
        return urlsplit(self.administrator)._replace(path=f"/{self.name}").geturl()

    def does(self, role: str, statement: str) -> int:
        """Do something as a role; how many rows it was."""
        with psycopg.connect(self.url(role)) as connection:
            return connection.execute(statement.encode()).rowcount


@pytest.fixture(scope="module")
def server(local_stack: LocalStack) -> Iterator[Server]:
    made = Server(administrator(local_stack), f"t{uuid.uuid4().hex[:12]}")
    database = sql.Identifier(made.name)
    with psycopg.connect(made.administrator, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    try:
        migrate(made.inside, name="owner")
        for _ in range(2):  # again, it changes nothing
            with psycopg.connect(made.inside) as connection:
                connection.execute(SQL.encode())
        with psycopg.connect(made.administrator, autocommit=True) as connection:
            for role in ROLES:
                login = sql.Identifier(f"{made.name}_{role}")
                group = sql.Identifier(f"hop_archive_{role}")
                statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' IN ROLE {}")
                connection.execute(statement.format(login, group))
        yield made
    finally:
        with psycopg.connect(made.administrator, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
            for name in (
                *(f"{made.name}_{role}" for role in ROLES),
                *(f"hop_archive_{role}" for role in ROLES),
            ):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def archive(server: Server) -> Iterator[Archive]:
    """An archive by the archiver's login, with an awkward world in it: duplicates, collisions, absent and lost ones."""
    catalog = PostgresCatalog("archiver", server.url("archiver"))
    world = replace(awkward_world(), store=MockStore(deleting_allowed=True))
    world.cluster.append(QUIET, b"\x89PNG\r\n\x1a\n")
    with_catalog = replace(world.archive(), catalog=catalog)
    exhausted(catch_up(with_catalog))
    yield with_catalog
    catalog.close()


def test_the_archiver_archives(archive: Archive, server: Server) -> None:
    archive.catalog.check()
    assert sum(summary.messages for summary in archive.catalog.summaries()) > 0
    assert sum(1 for _ in archive.catalog.duplicates(BUSY)) > 0


def test_the_archiver_keeps_snapshots_and_replaces_them(archive: Archive) -> None:
    for _ in range(2):
        assert take_snapshot(archive).topics > 0
    assert archive.catalog.snapshots("topic")


def test_the_archiver_merges_the_ledger(archive: Archive) -> None:
    archive.catalog.merge_ledger(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1))


def test_the_archiver_rebuilds_what_the_catalog_lacks(archive: Archive, server: Server) -> None:
    with psycopg.connect(server.inside) as owner:
        owner.execute(f"DELETE FROM messages WHERE topic = '{BUSY}' AND \"offset\" > 20".encode())
        owner.execute(f"DELETE FROM generations WHERE topic = '{BUSY}'".encode())
    assert list(rebuild(Rebuild(archive.catalog, archive.store, archive.source))) == []
    assert archive.catalog.miscounts(BUSY) == []
    assert [one.cluster_id for one in archive.catalog.generations([BUSY])[BUSY]] == [
        archive.source.cluster_id()
    ]
    archive.catalog.suppress({uuid.uuid4(): BUSY}, "by court order")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM messages",
        "UPDATE messages SET key = 'elsewhere'",
        "DELETE FROM duplicates",
        "DELETE FROM generations",
        "DELETE FROM topics",
        "TRUNCATE messages",
        "DROP TABLE messages",
        "CREATE TABLE mine (id int)",
        "UPDATE hop_archive_alembic_version SET version_num = '0'",
    ],
)
@pytest.mark.parametrize("role", ["archiver", "reader"])
def test_neither_archiver_nor_reader_can_take_away_or_change_what_is_archived(
    archive: Archive, server: Server, role: str, statement: str
) -> None:
    with pytest.raises(REFUSED):
        server.does(role, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO messages DEFAULT VALUES",
        "INSERT INTO topics DEFAULT VALUES",
        "UPDATE topics SET n_messages = 0",
        "DELETE FROM batches",
        "INSERT INTO findings (kind, topic) VALUES ('x', 'x')",
    ],
)
def test_the_reader_adds_nothing(archive: Archive, server: Server, statement: str) -> None:
    with pytest.raises(REFUSED):
        server.does("reader", statement)


MODES = (
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", TABLES)
def test_the_reader_locks_no_table_but_to_read(
    archive: Archive, server: Server, table: str, mode: str
) -> None:
    with pytest.raises(REFUSED):
        server.does("reader", f"LOCK TABLE {table} IN {mode} MODE")


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT FROM {table} FOR KEY SHARE" for table in TABLES),
        "INSERT INTO held (name) VALUES ('reinstating busy')",
        "SELECT nextval('messages_id_seq')",
        "SELECT setval('messages_id_seq', 1)",
    ],
)
def test_the_reader_holds_no_row_no_name_and_takes_no_number(
    archive: Archive, server: Server, statement: str
) -> None:
    with pytest.raises(REFUSED):
        server.does("reader", statement)


@pytest.fixture
def owner(server: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.inside, autocommit=True) as found:
        yield found


@pytest.fixture
def _telling_advisory_locks(owner: psycopg.Connection) -> None:
    """Whoever may connect can hold any advisory lock, and so whoever needs one: a commit that has one is refused."""
    owner.execute(
        """CREATE FUNCTION refuse_locks() RETURNS trigger LANGUAGE plpgsql AS $do$
           BEGIN
               IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) THEN
                   RAISE 'an advisory lock is held';
               END IF;
               RETURN NULL;
           END $do$"""
    )
    for table in ("batches", "duplicates", "verified", "condemned"):
        owner.execute(
            f"CREATE CONSTRAINT TRIGGER refuse_locks AFTER INSERT OR UPDATE ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_locks()".encode()
        )


@pytest.mark.usefixtures("_telling_advisory_locks")
def test_nothing_that_a_reader_may_hold_holds_up_the_others(
    archive: Archive, server: Server, owner: psycopg.Connection
) -> None:
    archiver = PostgresCatalog("archiver", server.url("archiver"), timeout_s=2.0)
    cleaner = PostgresCatalog("cleaner", server.url("cleaner"), timeout_s=2.0)
    where, now = Slice("held up?", 1, 0, 0, 2), datetime.datetime.now(datetime.UTC)
    row = next(archiver.rows(BUSY))._replace(
        topic=where.topic, generation=1, partition=0, offset=0, uuid=uuid.uuid4()
    )
    batch = Batch(where, rows=[row], duplicates=[Duplicate(1, row.timestamp_ms, row.uuid, "same")])
    with psycopg.connect(server.url("reader")) as reader:
        for table in TABLES:
            reader.execute(f"SELECT count(*) FROM {table}".encode())
            reader.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE".encode())
        archiver.begin_generation(where.topic, 1, "cluster", None, "first seen")
        archiver.commit(batch)
        archiver.note_verified(VerifiedRange(*where.partition_log, where.start, where.stop, now))
        archiver.reinstate(batch)
        archiver.recount(where.topic)
        archiver.merge_ledger(now + datetime.timedelta(days=1))
        with archiver.hold("the restore to topic x"):
            advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            assert owner.execute(advisory).fetchone() == (0,)
        assert cleaner.remove_messages([row.uuid], "skipped", Removal("clean", "a test")).messages == 1
    archiver.close()
    cleaner.close()


@pytest.mark.parametrize("role", ROLES)
def test_all_read_all(archive: Archive, server: Server, role: str) -> None:
    with psycopg.connect(server.url(role)) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert len(found) >= 8
    for (table,) in found:
        server.does(role, f'SELECT * FROM "{table}"')


def test_doctor_tells_the_archiver_what_it_lacks_on_a_new_table_and_the_script_grants_it(
    archive: Archive, owner: psycopg.Connection
) -> None:
    def remedies() -> dict[str, str]:
        found = examine_catalog(archive.catalog, deleting_allowed=False)
        return {one.what: one.remedy for one in found if one.remedy}

    owner.execute("REVOKE ALL ON held FROM hop_archive_archiver")
    lacking = remedies()
    owner.execute(SQL.encode())
    assert list(lacking) == ["may restore and rebuild"]
    assert "deploy/postgres/roles.sql" in lacking["may restore and rebuild"]
    assert remedies() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO messages DEFAULT VALUES",
        "UPDATE messages SET digest = 'x'",
        "UPDATE messages SET uuid = gen_random_uuid()",
        "DELETE FROM generations",
        "DELETE FROM suppressions",
        "TRUNCATE messages",
    ],
)
def test_the_cleaner_can_neither_add_messages_nor_change_what_they_are(
    archive: Archive, server: Server, statement: str
) -> None:
    with pytest.raises(REFUSED):
        server.does("cleaner", statement)


def test_the_cleaner_removes_moves_and_suppresses_and_the_ledger_says_so(
    archive: Archive, server: Server
) -> None:
    catalog = PostgresCatalog("cleaner", server.url("cleaner"))
    removal = Removal("prune", "too old", backups=("copy",))
    rows = list(catalog.rows(QUIET))
    places = [s.within(s.start, s.start + 1) for s in catalog.spans(QUIET)]
    assert catalog.remove(places, "pruned", removal).messages == 1
    one, two = rows[1], rows[2]
    assert catalog.move_to_duplicates([CopyOf(one.uuid, two.uuid, "same")], removal).messages == 1
    catalog.suppress({two.uuid: QUIET}, "it has to go")
    catalog.note_pending_deletes([(two.bucket, "elsewhere.bson")], QUIET, removal)
    new = Replaced(two.uuid, "elsewhere.bson", None, 7, 9, is_tombstone=True)
    assert catalog.replace_documents((two.bucket, two.object_key), [new], removal) == {two.uuid}
    assert catalog.retract([two.uuid], retracted=True) == {two.uuid}
    pending = catalog.pending_deletes("prune", "copy")
    catalog.strike_out(pending)
    assert len(pending) == 3
    assert catalog.miscounts(QUIET) == []
    catalog.close()


def test_the_archiver_indexes_text_and_what_the_cleaner_takes_away_or_suppresses_is_found_no_more(
    archive: Archive, server: Server
) -> None:
    progress = Progress()
    index_text(archive.catalog, archive.store, ["*"], progress, everything=True)
    assert progress.counts["indexed"] > 2
    one, two = list(archive.catalog.rows(BUSY))[-2:]
    catalog = PostgresCatalog("cleaner", server.url("cleaner"))
    catalog.suppress({one.uuid: BUSY}, "it has to go")
    catalog.remove_messages([two.uuid], "skipped", Removal("clean", "a test"))
    catalog.close()
    found = f"SELECT FROM message_ts WHERE uuid IN ('{one.uuid}', '{two.uuid}')"
    assert server.does("reader", found) == 0
    assert server.does("reader", "SELECT FROM message_ts") > 0


def test_the_repairer_corrects_media_types_which_the_archiver_cannot(
    archive: Archive, server: Server
) -> None:
    with psycopg.connect(server.inside) as owner:
        # As an older version wrote it.
        changed = "UPDATE messages SET media_type = 'application/octet-stream' WHERE media_type = 'image/png'"
        assert owner.execute(changed.encode()).rowcount == 1
    catalog = PostgresCatalog("repairer", server.url("repairer"))
    progress = Progress()
    correct_media_types(catalog, archive.store, progress)
    catalog.close()
    assert progress.counts["corrected"] == 1
    assert progress.counts["rows"] == progress.total
    with pytest.raises(REFUSED):
        server.does("archiver", "UPDATE messages SET media_type = ''")


def indexing(catalog: PostgresCatalog, archive: Archive) -> None:
    index_text(catalog, archive.store, ["*"], Progress(), everything=True)
    catalog.add_texts([])


def suppressing(catalog: PostgresCatalog, archive: Archive) -> None:
    catalog.suppress({uuid.uuid4(): BUSY}, "by court order")


@pytest.mark.parametrize("role", ["reader", "repairer", "cleaner"])
def test_only_the_archiver_indexes(archive: Archive, server: Server, role: str) -> None:
    catalog = PostgresCatalog(role, server.url(role))
    with pytest.raises(ForbiddenError):
        indexing(catalog, archive)
    catalog.close()


@pytest.mark.parametrize("role", ["reader", "repairer"])
def test_neither_reader_nor_repairer_suppresses(archive: Archive, server: Server, role: str) -> None:
    catalog = PostgresCatalog(role, server.url(role))
    with pytest.raises(ForbiddenError):
        suppressing(catalog, archive)
    catalog.close()


def test_the_cleaner_suppresses_with_all_that_belongs_to_it(archive: Archive, server: Server) -> None:
    index_text(archive.catalog, archive.store, ["*"], Progress(), everything=True)
    row = [*archive.catalog.rows(BUSY)][-3]
    text = f"SELECT FROM message_ts WHERE uuid = '{row.uuid}'"
    assert server.does("reader", text) == 1
    catalog = PostgresCatalog("cleaner", server.url("cleaner"))
    suppress(Removing(catalog, archive.store), [row.uuid], "by order")
    catalog.close()
    assert server.does("reader", text) == 0
    index_text(archive.catalog, archive.store, ["*"], Progress(), everything=True)
    assert server.does("reader", text) == 0


def test_the_cleaner_takes_away_and_what_is_left_is_counted(archive: Archive, server: Server) -> None:
    before = {s.topic: s.messages for s in archive.catalog.summaries()}
    gone = server.does("cleaner", f"DELETE FROM messages WHERE topic = '{BUSY}' AND \"offset\" < 10")
    assert gone > 0
    after = {s.topic: s.messages for s in archive.catalog.summaries()}
    assert after == {**before, BUSY: before[BUSY] - gone}
    assert server.does("cleaner", f"UPDATE messages SET retracted = true WHERE topic = '{BUSY}'") > 0


def test_the_repairer_corrects_and_puts_back_and_takes_no_message_away(
    archive: Archive, server: Server
) -> None:
    catalog = PostgresCatalog("repairer", server.url("repairer"))
    try:
        row = next(iter(catalog.rows(QUIET)))
        # Under a name of this test's own: another one's is about to be deleted.
        catalog.correct_rows([Correction(row, row._replace(object_key="mended"))])
        catalog.correct_rows([Correction(row._replace(object_key="mended"), row)])
        entry = next(e for e in catalog.ledger([QUIET]) if e.archived)
        catalog.recount_ledger(entry.slice)
        catalog.recount_summary(BUSY)
        catalog.note_findings([Finding(Kind.LOST, BUSY, "x")], entry.created_at)
        at = entry.slice.partition_log
        epoch = catalog.observed([QUIET])[at].leader_epoch
        catalog.note_proven({at: GONE})  # as before an object of an earlier generation is put aside
        assert catalog.observed([QUIET])[at].leader_epoch == GONE
        catalog.note_proven({at: epoch})
        with pytest.raises(ForbiddenError):
            PostgresCatalog("reader", server.url("reader")).note_findings(
                [Finding(Kind.LOST, BUSY, "x")], entry.created_at
            )
        for statement in ("DELETE FROM messages", "DELETE FROM batches", "DELETE FROM suppressions"):
            with pytest.raises(REFUSED):
                server.does("repairer", statement)
    finally:
        catalog.close()
