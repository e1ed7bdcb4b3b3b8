"""``hop-archive catalog-snapshot``: the catalog as Parquet."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import click

from hop_archive.cli.options import Explained, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import duration, say
from hop_archive.model.wording import counted

_EPILOG = """\b
Examples:
  hop-archive catalog-snapshot ~/catalog -D aws-prod-db
      a folder that DuckDB, pandas and pyarrow read as it is; called again, it
      gets what came since
  hop-archive catalog-snapshot store -D aws-prod-db -S s3-prod
      into the store itself, under hop_archive/snapshots/
  duckdb -c "SELECT topic, month, count(*)
             FROM read_parquet('~/catalog/messages/*/*/*.parquet') GROUP BY ALL"
  hop-archive rebuild-catalog --from-snapshot ~/catalog -D new-db -S s3-prod

\b
The folder gets:
  messages/topic=TOPIC/month=YYYY-MM/part-*.parquet   a row a message
  ledger/topic=TOPIC/part-*.parquet                   what became of all offsets
  duplicates/topic=TOPIC/part-*.parquet               copies that were not stored
  manifests/NUMBER.json    which files count, with counts and checksums, and
                           generations and collisions
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.argument(
    "folder",
    type=click.Path(path_type=Path),
    cls=Explained,
    help="Where to: a new or empty folder, or that of the snapshot before.",
)
@topic_option(
    "Only of this topic; a name, or a glob such as 'gcn.*'. Others stay as they are. May be given again."
)
@click.option("--full", is_flag=True, help="Write all anew, also what does not seem to have changed.")
@click.option(
    "--whole-after",
    "whole_after_days",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Write a topic anew after so many days in any case: rows that were moved to other objects are not seen.",
)
@json_option
def catalog_snapshot(
    chosen: StanzaOptions,
    folder: Path,
    topics: tuple[str, ...],
    *,
    full: bool,
    whole_after_days: float,
    as_json: bool,
) -> None:
    """Write the catalog as Parquet into FOLDER, or into the store where FOLDER is the word store.

    Only what changed since the snapshot that is there is written. Killed at any moment, the one before stays whole.
    The catalog is only read.
    """
    from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
    from hop_archive.read.snapshot_locations import FolderLocation, StoreLocation

    in_store = str(folder) == "store"
    setup = chosen.setup("database", *(("store",) if in_store else ()))
    began = time.monotonic()
    with setup.catalog() as catalog, contextlib.ExitStack() as ending:
        location: Any = FolderLocation(folder)
        if in_store:
            location = StoreLocation(ending.enter_context(contextlib.closing(setup.open_store())))
        taking = CatalogSnapshot(catalog, location, topics, full=full, whole_after_days=whole_after_days)
        manifest = snapshot(taking)
    done = taking.progress.counts
    if as_json:
        about = {name: manifest[name] for name in ("number", "began_at", "ended_at", "database", "messages")}
        click.echo(json.dumps({**about, "rows_written": done["rows"], "files_written": done["files"]}))
        return
    say(
        f"Snapshot {manifest['number']} in {location}: {counted(manifest['messages'], 'message')} of"
        f" {counted(len(manifest['topics']), 'topic')}; {counted(done['rows'], 'row')} of"
        f" {counted(done['written'], 'topic')} written in {duration(time.monotonic() - began)}."
    )
