"""``hop-archive connect``: psql on a database stanza."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import Explained, StanzaOptions, stanza_options
from hop_archive.cli.output import say
from hop_archive.errors import ConfigurationError, MissingSettingError

if TYPE_CHECKING:
    from hop_archive.config.stanzas import PostgresStanza

_EPILOG = """\b
Examples:
  hop-archive connect -D local-db
  hop-archive connect -D aws-prod-db --read-only
  hop-archive connect -D local-db -- -c 'SELECT topic, n_messages FROM topics'
  hop-archive connect -D local-db -- --csv -f report.sql > report.csv

\b
What follows -- goes to psql. The exit code is psql's.
"""

CLIENTS = ("psql", "pgcli")
"""What is looked for, in this order."""

_MISTAKABLE = ("PGSERVICE", "PGHOSTADDR")
"""Variables of the user's own that would lead somewhere else than ours say."""

_TUNING = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
"""What has no variable, and does not matter to somebody who sits before it."""

_PATIENCE_S = "10"


class _BeforePsql(click.Command):
    """A command whose arguments for another program stand after ``--``, and which says so."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; one that is not ours may have been meant for psql."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"{error.format_message()} What is for psql stands after --: "
                f"hop-archive connect -D NAME -- {error.option_name} ...",
                ctx,
            ) from error


@click.command(cls=_BeforePsql, epilog=_EPILOG)
@stanza_options
@click.option(
    "--read-only",
    is_flag=True,
    help="Begin each transaction read-only: a guard against slips, which SET can lift, not against intent.",
)
@click.argument(
    "arguments",
    metavar="[-- ARGUMENT...]",
    nargs=-1,
    type=click.UNPROCESSED,
    cls=Explained,
    help="What psql, or pgcli, is given as its own arguments.",
)
def connect(chosen: StanzaOptions, arguments: tuple[str, ...], *, read_only: bool) -> None:
    """Open psql on the database, in the catalog's schema; pgcli where there is no psql.

    The password goes by the environment of that program: it is on no command line and on no screen.
    """
    setup = chosen.setup()
    stanza = setup.postgres("where no psql can connect")
    program = client(os.environ)
    kept = {variable: value for variable, value in os.environ.items() if variable not in _MISTAKABLE}
    environment = {**kept, **child_environment(stanza, read_only=read_only)}
    if sys.stderr.isatty():
        say(f"Database {setup.selection.database} ({stanza.describe()})", err=True)
    # The program takes the place of this process: its exit code is ours, and Ctrl-C is its own.
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what follows would inherit that
    os.execve(program, [program, *arguments], environment)  # noqa: S606 - no shell is what is wanted


def client(environ: Mapping[str, str]) -> str:
    """Where the first of `CLIENTS` is that there is.

    Raises:
        MissingSettingError: There is none.
    """
    for name in CLIENTS:
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    raise MissingSettingError(
        "There is no psql here, nor pgcli.",
        remedy="Install PostgreSQL's client (apt install postgresql-client, dnf install postgresql, "
        "brew install libpq), or: pip install pgcli",
    )


def child_environment(stanza: PostgresStanza, *, read_only: bool) -> dict[str, str]:
    """The variables by which libpq, and so psql, finds the database, its schema, and the credentials.

    Raises:
        MissingSettingError: A variable or secret of the stanza is not there.
        ConfigurationError: The connection string is not one, or holds what no variable can say.
    """
    from psycopg import ProgrammingError, pq
    from psycopg.conninfo import conninfo_to_dict

    try:
        keywords = conninfo_to_dict(stanza.dsn().get_secret_value(), connect_timeout=None)
    except ProgrammingError:
        # Its text quotes the string, password and all.
        raise ConfigurationError(
            f"{stanza.label}: its connection string is not one.",
            remedy="Write postgresql://USER@HOST:PORT/DATABASE, with %XX for what is no letter or digit.",
        ) from None
    variables = {each.keyword.decode(): each.envvar for each in pq.Conninfo.get_defaults()}
    said = {
        name: str(value)
        for name, value in keywords.items()
        if value not in (None, "") and name not in _TUNING
    }
    if nameless := sorted(name for name in said if variables.get(name) is None):
        raise ConfigurationError(
            f"{stanza.label}: psql cannot be told {', '.join(nameless)} by its environment.",
            remedy="Leave that out of the url, or call psql by hand.",
        )
    environment = {(variables[name] or b"").decode(): value for name, value in said.items()}
    # What the server is told at the start of the session, in the form of its command line: spaces part words
    # there, and a backslash keeps them together (PostgreSQL 14, 34.1.2, ``options``).
    schema = stanza.schema_name.replace('"', '""')
    settings = [f'search_path="{schema}"', *(["default_transaction_read_only=on"] if read_only else [])]
    escaped = (setting.replace("\\", "\\\\").replace(" ", "\\ ") for setting in settings)
    given = keywords.get("options")
    options = " ".join([*([str(given)] if given else []), *(f"-c {setting}" for setting in escaped)])
    return {"PGCONNECT_TIMEOUT": _PATIENCE_S, **environment, "PGOPTIONS": options, "PGAPPNAME": "hop-archive"}
