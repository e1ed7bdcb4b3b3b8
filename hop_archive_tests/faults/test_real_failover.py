"""A database that fails over under a running archive: read-only for a while, sessions cut, one of them in its COMMIT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.devkit.local.address import StackAddress
from hop_archive.ingest.survey import survey
from hop_archive.model.limits import Limits
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    archiving_on_and_on,
    assert_all_archived,
    plain,
    publish,
)
from hop_archive_tests.roles import url_of

pytestmark = pytest.mark.local

SMALL = Limits(batch_messages=20)


def is_told(words: str, errors: Sequence[Exception]) -> bool:
    return any(words in str(error) for error in errors)


@contextmanager
def read_only(address: StackAddress, namespace: str) -> Iterator[None]:
    """Every transaction of the database's sessions, new and old, is refused when it writes; those of the archive are cut."""
    database = conninfo_to_dict(address.database_url)["dbname"]
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = %s AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on".encode())
        try:
            connection.execute(cut, [namespace])
            yield
        finally:
            # The connection is older than the setting, so it can still write. Sessions that are not cut go on only reading.
            connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only".encode())


@pytest.fixture
def archive(open_archive: OpenArchive, address: StackAddress, namespace: str) -> Iterator[Archive]:
    """An archive whose database sessions can be told from those of others."""
    named = make_conninfo(url_of("archiver", address.database_url), application_name=namespace)
    catalog = PostgresCatalog("local-db", named, schema=namespace)
    yield replace(open_archive(limits=SMALL), catalog=catalog)
    catalog.close()


def test_a_run_on_and_on_waits_for_a_database_that_only_reads_and_then_goes_on_by_itself(
    archive: Archive, open_archive: OpenArchive, address: StackAddress, namespace: str
) -> None:
    watching = open_archive()
    watching.source.create_topic(namespace, 1)
    sent = publish(watching.source, plain(namespace, 50))
    with archiving_on_and_on(archive, [namespace]) as errors:
        wait_for(lambda: not survey(watching, [namespace]).pending(), "the first are archived")
        with read_only(address, namespace):
            sent |= publish(watching.source, plain(namespace, 50, seed=1))
            wait_for(partial(is_told, "read-only", errors), "the database is told to be read-only")
        # No session was cut since, and each remembers that it only reads: new ones have to be made.
        wait_for(lambda: not survey(watching, [namespace]).pending(), "the others are archived")
    assert_all_archived(watching, [namespace], sent)


def test_sessions_that_end_in_their_commit_lose_and_double_nothing(
    archive: Archive, open_archive: OpenArchive, address: StackAddress, namespace: str
) -> None:
    watching = open_archive()
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        connection.execute(f"SET search_path = {namespace}".encode())
        connection.execute("CREATE SEQUENCE deaths")
        connection.execute(
            """CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $do$
               BEGIN
                   -- A number that was drawn stays drawn, whatever becomes of the transaction.
                   IF nextval(TG_TABLE_SCHEMA || '.deaths') <= 3 THEN
                       PERFORM pg_terminate_backend(pg_backend_pid());
                   END IF;
                   RETURN NULL;
               END $do$"""
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON batches DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
    watching.source.create_topic(namespace, 1)
    sent = publish(watching.source, plain(namespace, 100))
    with archiving_on_and_on(archive, [namespace]) as errors:
        wait_for(lambda: not survey(watching, [namespace]).pending(), "all is archived")
    assert len(errors) == 3
    assert_all_archived(watching, [namespace], sent)
