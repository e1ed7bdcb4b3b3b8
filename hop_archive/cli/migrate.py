"""``hop-archive migrate``: brings a database to the catalog that this version needs."""

from __future__ import annotations

import json

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options
from hop_archive.errors import ConfigurationError

_EPILOG = """\b
Examples:
  hop-archive migrate -D local-db
  hop-archive migrate -D aws-dev-db

\b
As JSON: {"database": ..., "where": ..., "ran": [migrations that were run, in order]}.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@json_option
def migrate(chosen: StanzaOptions, *, as_json: bool) -> None:
    """Make the catalog in a database, or bring it to what this version needs.

    Once for a new database, and after each upgrade. It is done whole or not at all; again, it changes nothing. A
    catalog that the archive-core package made is adopted in place, with all that it holds.
    """
    from hop_archive.config.stanzas import PostgresStanza

    setup = chosen.setup()
    name = setup.selection.database
    stanza = setup.configuration.database(name).resolved()
    if not isinstance(stanza, PostgresStanza):
        raise ConfigurationError(
            f"Database {name} is {stanza.describe()}, which needs no migration.",
            remedy="Name a Postgres database: hop-archive migrate -D NAME (hop-archive list shows them).",
            database=name,
        )
    from hop_archive.catalog.postgres.migrate import migrate as bring

    done = bring(stanza.dsn().get_secret_value(), schema=stanza.schema_name, name=name)
    if as_json:
        click.echo(json.dumps({"database": name, "where": stanza.describe(), "ran": list(done)}))
        return
    where = f"Database {name} ({stanza.describe()})"
    if not done:
        click.echo(f"{where} is up to date already; nothing to do.")
        return
    click.echo(f"{where}: ran {', '.join(done)}.")
    click.echo(
        "Where programs connect by roles of their own: run deploy/postgres/roles.sql now, again after an upgrade."
    )
