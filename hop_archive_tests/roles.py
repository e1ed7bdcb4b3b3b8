"""The suite under the roles that are shipped (``make test-roles``): ``HOP_ARCHIVE_TEST_ROLES=1``.

Then a test's catalog is migrated by its owner, who runs ``deploy/postgres/roles.sql``, and what the test is given to work with
connects as a login of one role: the archiver, or what ``@pytest.mark.role("cleaner")`` names for a test, class or module. What
that role is not for, as a cleaner's messages that were archived before, is done by a login of whom it is for (``WRITES``).
``role("owner")`` is for what is about the owner. Connections of a test's own, which damage and look, are the owner's as ever.

So it is in S3: the local stack's server knows a user for each role, whom the shipped policies bind (``POLICIES``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import ServerName, StackAddress
from hop_archive.devkit.local.postgres import ROLE, Postgres
from hop_archive.devkit.local.s3 import PRIMARY_BUCKET, ObjectStore, S3Address
from hop_archive.devkit.local.stack import LocalStack, _postgres
from hop_archive.errors import UnavailableError

VARIABLE = "HOP_ARCHIVE_TEST_ROLES"
OWNER = "owner"
WRITES: Mapping[str, frozenset[str]] = {
    role: frozenset(methods.split())
    for role, methods in {
        "archiver": """
            commit begin_generation claim_generation observe note_proven merge_ledger note_logs claim_logs renew_claims drop_claims
            hold begin_restore note_restore keep_snapshots note_findings resolve_findings close_unseen note_verified note_checked
            begin_row_job note_row_job add_texts reinstate adopt recount suppress
        """,
        "cleaner": """
            begin_generation observe note_proven hold remove remove_adopted remove_messages move_to_duplicates retract suppress
            replace_documents note_pending_deletes pending_deletes strike_out move_documents note_compacted note_findings resolve_findings
        """,
        "repairer": """
            hold correct_rows put_back record_copy account recount_ledger recount_summary note_findings resolve_findings
            close_unseen note_verified note_checked begin_row_job note_row_job note_logs note_proven
        """,
        "reader": "",
    }.items()
}
"""The methods of a catalog that change it, by role: the first that has one does it, where the test's own has it not. All may read."""
POLICIES: Mapping[str, tuple[str, ...]] = {
    "archiver": ("archiver",),
    "cleaner": ("archiver", "cleaner"),
    "repairer": ("archiver", "cleaner"),
    "reader": ("reader",),
}
"""Files of ``deploy/iam``, by role: of those who compact, suppress and repair both."""
_DEPLOY = Path(__file__).parents[1] / "deploy"
_SQL = _DEPLOY / "postgres" / "roles.sql"
_LOGIN = "hop_archive_test_"
_PASSWORD = "secret"


def are_wanted() -> bool:
    return bool(os.environ.get(VARIABLE))


def administrator(stack: LocalStack) -> str:
    """The URL of a superuser's database; skips the test where the server is not ours, and fails it under roles."""
    stack.up()
    state = stack._known()
    names: list[ServerName] = ["postgres", "s3"] if are_wanted() else ["postgres"]
    for name in names:
        try:
            stack.pid(name)
        except UnavailableError:
            reason = f"{name} was given, not started by the tests: roles are not made in it"
            if (
                are_wanted()
            ):  # who asks for roles is not to take tests that were skipped for tests that passed
                pytest.fail(reason)
            pytest.skip(reason)
    server: Postgres = _postgres(state)
    port = state.server("postgres").ports[0]
    return f"postgresql://postgres:{server.superuser_password}@127.0.0.1:{port}/postgres"


def make_logins(superuser_url: str) -> None:
    """What an administrator does where the owner may make no roles; a login for each, and what tests need to look at those."""
    with psycopg.connect(superuser_url) as connection:
        for role in WRITES:
            group = sql.Identifier(f"hop_archive_{role}")
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(group))
            login = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
            name = sql.Identifier(_LOGIN + role)
            connection.execute(login.format(name, sql.Literal(_PASSWORD), group))
        # Tests look at sessions, which are others' now, and end them.
        connection.execute(f"GRANT pg_monitor, pg_signal_backend TO {ROLE}".encode())


def prove_policies(address: StackAddress) -> None:
    """Make sure that the server of S3 lets each role put and delete what it may, and nothing else."""
    for role, policies in POLICIES.items():
        user = as_role(role, address)
        asked = S3Address(user.s3_endpoint, user.s3_access_key, user.s3_secret_key)
        told = [asked.call(method, f"{user.bucket}/roles-probe")[0] for method in ("PUT", "DELETE")]
        assert told == [200 if "archiver" in policies else 403, 204 if "cleaner" in policies else 403], role


@contextmanager
def users_of_s3(bucket: str = PRIMARY_BUCKET) -> Iterator[None]:
    """While the block runs, let servers of S3 that are started know a user for each role, under the policies for production."""
    plain = ObjectStore.prepare

    def prepare(server: ObjectStore) -> None:
        plain(server)
        known = json.loads(server._identities.read_text())
        for role, policies in POLICIES.items():
            keys = {"accessKey": _LOGIN + role, "secretKey": _PASSWORD}
            known["identities"].append({"name": role, "credentials": [keys], "policyNames": policies})
        known["policies"] = [
            {"name": file.stem, "content": file.read_text().replace("example-archive", bucket)}
            for file in sorted((_DEPLOY / "iam").glob("*.json"))
            if file.stem in {name for policies in POLICIES.values() for name in policies}
        ]
        server._identities.write_text(json.dumps(known))

    with pytest.MonkeyPatch.context() as patch:
        if are_wanted():
            patch.setattr(ObjectStore, "prepare", prepare)
        yield


def migrate_and_grant(url: str, schema: str = "public", name: str = "test-db") -> None:
    """What an operator does for a new catalog."""
    migrate(url, schema=schema, name=name)
    if are_wanted():
        with psycopg.connect(url, options=f"-c search_path={schema}") as owner:
            owner.execute(_SQL.read_bytes())


def url_of(role: str, url: str) -> str:
    """The same database for a login that has a role; the owner's own where the suite is not run under roles."""
    if not are_wanted() or role == OWNER:
        return url
    login = _LOGIN + role
    if "://" not in url:
        return make_conninfo(url, user=login, password=_PASSWORD)
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}:{_PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()


def as_role(role: str, address: StackAddress) -> StackAddress:
    """The local stack for programs and stores that have a role in its database and its S3."""
    if not are_wanted() or role == OWNER:
        return address
    return replace(
        address,
        database_url=url_of(role, address.database_url),
        s3_access_key=_LOGIN + role,
        s3_secret_key=_PASSWORD,
    )


def role_of(request: pytest.FixtureRequest) -> str:
    """What the test's mark says, or else the archiver."""
    marker = request.node.get_closest_marker("role")
    return str(marker.args[0]) if marker else "archiver"


def open_catalog(request: pytest.FixtureRequest, name: str, url: str, **options: Any) -> PostgresCatalog:
    """A catalog that is asked by whom the test's mark says."""
    role = role_of(request)
    own = PostgresCatalog(name, url_of(role, url), **options)
    if not are_wanted() or role == OWNER:
        return own
    others = {each: PostgresCatalog(name, url_of(each, url), **options) for each in WRITES}
    for each, methods in reversed([*WRITES.items()]):
        for method in methods - WRITES[role]:
            setattr(own, method, getattr(others[each], method))

    def close() -> None:
        for made in (own, *others.values()):
            PostgresCatalog.close(made)

    own.close = close  # type: ignore[method-assign] # of all that it is made of
    return own
