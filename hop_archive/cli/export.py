"""``hop-archive export``: selected messages into a folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hop_archive.cli.display import Display, one_line
from hop_archive.cli.options import (
    COLUMNS_HELP,
    Explained,
    StanzaOptions,
    described,
    selection_options,
    stanza_options,
)
from hop_archive.cli.output import duration, print_json, program_version, rate, say, size
from hop_archive.errors import CorruptError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.read.export import ExportRequest, Form

_EPILOG = f"""\b
Examples:
  hop-archive export night -D local-db -S local-store -T 'ztf.*' --since 1d
  hop-archive export all -D local-db -S local-store --where "size > 1e6"
  hop-archive export alerts -D local-db -S local-store --format payloads
  bsondump night/ztf.alerts.bson | head -1

\b
The folder gets:
  catalog.parquet  a row a message: all that the catalog says of it, and in
                   which file it is, and where in it
  TOPIC.bson       with --format bson: documents end to end, as mongodump does
  TOPIC/UUID.EXT   with --format payloads: exact bytes; no file for a null one
  manifest.json    what was selected, when, and counts and checksums
  damaged.jsonl    with --skip-damaged: what was left out, and why

\b
It appears whole or not at all: while it is filled it is FOLDER.partial.

{COLUMNS_HELP}"""


@click.command(epilog=_EPILOG)
@stanza_options
@selection_options
@click.argument(
    "folder",
    type=click.Path(path_type=Path),
    cls=Explained,
    help="Where to; it must not be there yet, or be empty, unless --force is given.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["bson", "payloads"]),
    default="bson",
    show_default=True,
    help="Whole documents, a file a topic; or only payloads, a file each.",
)
@click.option(
    "--skip-damaged",
    is_flag=True,
    help="Leave out messages that are damaged or missing, rather than stop there.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export in that folder; never anything else.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest at the end instead of a line.")
def export(
    chosen: StanzaOptions,
    query: Query,
    timeout_s: float,
    folder: Path,
    form: Form,
    *,
    skip_damaged: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Copy messages out of the archive into a folder: all, or those that options or a condition select.

    Each is fetched and checked: size, CRC-32, UUID and digest. The first that is damaged ends it with exit code 5,
    unless --skip-damaged is given; then that is the exit code at the end, too, if any was left out. The archive
    itself is only read.
    """
    from hop_archive.read.export import ExportRequest

    request = ExportRequest(query, form, skip_damaged, force, timeout_s)
    write_folder(chosen, folder, request, as_json=as_json)


def write_folder(chosen: StanzaOptions, folder: Path, request: ExportRequest, *, as_json: bool) -> None:
    """Export to a folder, and say what came of it: what ``export`` does, and ``restore --to-files``.

    Raises:
        ConfigurationError: The folder is there, and is no earlier export.
        CorruptError: Messages are damaged.
    """
    from hop_archive.archive import utc_now
    from hop_archive.read.export import DAMAGED, refuse_other_content
    from hop_archive.read.export import export as write

    setup = chosen.setup("database", "store")
    refuse_other_content(folder, replace=request.replace)
    database, store_name, stanzas = setup.selection.database, setup.selection.store, setup.configuration
    origin = {
        "hop_archive": program_version(),
        "database": f"{database} ({stanzas.database(database).resolved().describe()})",
        "store": f"{store_name} ({stanzas.store(store_name).resolved().describe()})",
        "selection": described(request.query),
    }
    with setup.catalog_and_store() as (catalog, store):
        began, progress = time.monotonic(), Progress()

        def notice(now: Progress) -> None:
            nonlocal progress
            progress = now

        def draw(_: Console) -> RenderableType:
            return one_line(how_far(progress, time.monotonic() - began))

        with Display(draw, start_log=setup.start_log).shown():
            originated = replace(request, origin=origin)
            manifest = write(catalog, store, folder, originated, now=utc_now, notice=notice)
    if as_json:
        print_json(manifest, ensure_ascii=False)
    else:
        what = "message" if manifest["format"] == "bson" else "payload"
        say(
            f"Exported {counted(manifest['messages'], what)} ({size(manifest['bytes'])}) of"
            f" {counted(len(manifest['topics']), 'topic')} to {folder} in {duration(time.monotonic() - began)}."
        )
    if manifest["damaged"]:
        raise CorruptError(
            f"{counted(manifest['damaged'], 'message')} damaged and left out: see {folder / DAMAGED}.",
            damaged=manifest["damaged"],
        )


def how_far(progress: Progress, elapsed_s: float) -> str:
    """How far an export is, in one line."""
    messages = progress.counts["messages"]
    done = f"{counted(messages, 'message')}, {size(progress.counts['size_bytes'])}"
    return f"{done}, {rate(messages / max(elapsed_s, 1e-3))}   {progress.topic}"
