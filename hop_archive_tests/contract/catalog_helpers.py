"""What tests of catalogs are written with: rows and batches to commit, a server to ask, and conditions to wait for."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Row
from hop_archive.devkit.local import processes
from hop_archive.devkit.local.postgres import SUPERUSER, Postgres
from hop_archive.model.annotations import Annotations
from hop_archive.model.conditions import TABLES as EVERY_TABLE
from hop_archive.model.identity import Identity
from hop_archive.model.message import TimestampType
from hop_archive.model.slices import Slice
from hop_archive_tests.databases import drop_database

DATABASE_VARIABLE = "HOP_ARCHIVE_TEST_DATABASE_URL"
DEADLINE_S = 120.0
TABLES = ", ".join(EVERY_TABLE)

Adopt = Callable[[Sequence[Row]], object]


@dataclass(slots=True)
class OwnServer:
    """A Postgres server that this session started, and may stop."""

    server: Postgres
    ports: tuple[int, ...]
    log: Path
    mark: processes.ProcessMark | None = None

    def start(self) -> None:
        self.mark = processes.start(self.server.launch(self.ports), self.log)
        processes.await_answer("postgres", lambda: self.server.settle(self.ports), self.mark, self.log)

    def stop(self) -> None:
        if self.mark is not None:
            processes.stop(self.mark, self.server.stop_signal, self.server.grace_s)
            self.mark = None

    def restart(self) -> None:
        self.stop()
        self.start()


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """Where databases for tests can be made.

    Attributes:
        url: Of a database of a user who may create others.
        own: The server, where it is ours to stop.
    """

    url: str
    own: OwnServer | None

    def create(self, database: str) -> str:
        """The URL of a new, empty database of this name."""
        self.drop(database)
        self.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return make_conninfo(self.url, dbname=database)

    def drop(self, database: str) -> None:
        with connect(self.url) as connection:
            drop_database(connection, database)

    def run(self, statement: sql.Composed) -> None:
        with connect(self.url) as connection:
            connection.execute(statement)

    @property
    def superuser_url(self) -> str:
        """The same as a superuser; skips the test where the server is not ours."""
        if self.own is None:
            pytest.skip(f"the server of {DATABASE_VARIABLE} has no superuser to offer")
        return make_conninfo(self.url, user=SUPERUSER, password=self.own.server.superuser_password)


def connect(url: str) -> psycopg.Connection:
    """A connection in autocommit mode."""
    return psycopg.connect(url, autocommit=True)


def as_url(conninfo: str) -> str:
    """What a stanza takes of what a test's database is named by."""
    return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(conninfo))


def insert_as_archive_core(url: str, rows: Iterable[Row]) -> None:
    """One insert a row, naming the columns that archive-core knows."""
    with connect(url) as connection:
        for row in rows:
            notes = row.annotations
            connection.execute(
                """INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public,
                       direct_upload, message_crc32, title, sender, media_type, file_name, originator, retracted)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
                [row.topic, row.timestamp_ms, row.uuid, row.size_bytes, row.object_key, row.bucket, row.crc32,
                 row.is_client_uuid, notes.public, notes.direct_upload, row.message_crc32, notes.title,
                 notes.sender, notes.media_type, notes.file_name, notes.originator, row.retracted],
            )  # fmt: skip


def slice_of(start: int, stop: int, topic: str = "alerts", generation: int = 1, partition: int = 0) -> Slice:
    return Slice(topic, generation, partition, start, stop)


def row_at(where: Slice, offset: int, **changes: object) -> Row:
    """The row of a message at this offset, unlike all others."""
    own = uuid.uuid4()
    row = Row(
        topic=where.topic,
        generation=where.generation,
        partition=where.partition,
        offset=offset,
        timestamp_ms=1_700_000_000_000 + offset % 10**9,
        timestamp_type=TimestampType.CREATE,
        uuid=own,
        is_client_uuid=True,
        digest=own.bytes[::-1],
        object_key=f"segments/{where}.bson",
        bucket="archive",
        position=offset * 100,
        size_bytes=100 + offset % 7,
        crc32=0xFFFFFFFF - offset % 1000,
        message_crc32=offset % 1000,
        annotations=Annotations(media_type="application/json", sender="somebody"),
    )
    return row._replace(**changes)  # type: ignore[arg-type] # as given


def adopted_row(topic: str = "alerts", **changes: object) -> Row:
    """A row as another archiver left it."""
    nulls = {"generation": None, "partition": None, "offset": None, "timestamp_type": None}
    row = row_at(slice_of(0, 10, topic), 5)
    return row._replace(digest=None, position=None, **nulls, **changes)  # type: ignore[arg-type] # as given


def full_batch(
    start: int, stop: int, topic: str = "alerts", partition: int = 0, run_id: str = "run"
) -> Batch:
    """A batch with a message at every offset."""
    where = slice_of(start, stop, topic, partition=partition)
    return Batch(where, rows=[row_at(where, offset) for offset in range(start, stop)], run_id=run_id)


def identity_of(row: Row, **changes: object) -> Identity:
    """The identity of the message that ``row`` is of."""
    digest = row.digest or bytes(16)
    identity = Identity(row.uuid, row.is_client_uuid, row.topic, row.timestamp_ms, digest, row.message_crc32)
    return identity._replace(**changes)  # type: ignore[arg-type] # as given


def everything(catalog: Catalog, *topics: str) -> tuple[object, ...]:
    """All that a catalog says of these topics: equal before and after means that nothing was changed."""
    return (
        catalog.coverage(topics),
        catalog.ledger(topics),
        catalog.summaries(topics),
        [(list(catalog.rows(t)), list(catalog.duplicates(t)), catalog.collisions(t)) for t in topics],
    )


def await_condition(what: str, condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds; fails, saying ``what`` was waited for, after two minutes."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s: {what}"
        time.sleep(0.01)


class InThread(threading.Thread):
    """A call in a thread of its own; ``outcome`` is what it returned, or the error that it raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._call()
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the outcome
            self._outcome = error

    def outcome(self) -> object:
        self.join(DEADLINE_S)
        assert not self.is_alive(), "the call did not come back"
        return self._outcome


def waiting_backends(url: str) -> list[int]:
    """Process ids of the sessions of hop_archive that wait for a lock."""
    with connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'hop_archive'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return [pid for (pid,) in found]


def backends(url: str) -> list[int]:
    """Process ids of the sessions of hop_archive."""
    with connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'hop_archive'"
            " AND datname = current_database()"
        )
        return [pid for (pid,) in found]


def terminate(url: str, pids: Iterable[int]) -> None:
    """End these sessions, and wait until they are gone."""
    doomed = list(pids)
    with connect(url) as connection:
        for pid in doomed:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    await_condition("sessions to end", lambda: not set(doomed) & set(backends(url)))


def password_of(url: str) -> str:
    return str(conninfo_to_dict(url)["password"])
