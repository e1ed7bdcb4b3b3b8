"""``hop-archive migrate``: brings a database to the catalog that this version needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hop_archive.cli.display import LINE_EVERY_S
from hop_archive.cli.options import StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import say

if TYPE_CHECKING:
    from hop_archive.catalog.postgres.migrations.steps import MigrationProgress

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

    Once for a new database, and after each upgrade; again, it changes nothing. A catalog that the archive-core package
    made is adopted in place, with all that it holds. Of a catalog that is there it tells each step, and how far it is: its
    tables are read and written meanwhile, also while indexes are built. Interrupted, it goes on when it is run again.
    """
    # Of a source and a store nothing is wanted: what the environment names of them is no matter.
    chosen = replace(chosen, source=chosen.source or "mock-hop", store=chosen.store or "mock-store")
    setup = chosen.setup()
    stanza, name = setup.postgres("which needs no migration"), setup.selection.database
    from hop_archive.catalog.postgres.migrate import migrate as bring

    done = bring(stanza.dsn().get_secret_value(), schema=stanza.schema_name, name=name, tell=_telling())
    if as_json:
        click.echo(json.dumps({"database": name, "where": stanza.describe(), "ran": list(done)}))
        return
    where = f"Database {name} ({stanza.describe()})"
    if not done:
        say(f"{where} is up to date already; nothing to do.")
        return
    say(f"{where}: ran {', '.join(done)}.")
    say(
        "Where programs connect by roles of their own: run deploy/postgres/roles.sql now, again after an upgrade."
    )


def _telling() -> Callable[[MigrationProgress], None]:
    """Says each step as it begins, and now and then how far it is."""
    step, said_at = 0, 0.0

    def tell(progress: MigrationProgress) -> None:
        nonlocal step, said_at
        if progress.step != step or time.monotonic() - said_at >= LINE_EVERY_S:
            step, said_at = progress.step, time.monotonic()
            say(str(progress), err=True)

    return tell
