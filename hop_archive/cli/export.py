"""``hop-archive export``: selected messages into a folder."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import (
    COLUMNS_HELP,
    Explained,
    Setup,
    StanzaOptions,
    described,
    selection_options,
    stanza_options,
)
from hop_archive.cli.output import duration, rate, size
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.model.progress import Progress
    from hop_archive.model.query import Query
    from hop_archive.read.export import Form

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

_SHOW_EVERY_S = 0.5


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
    write_folder(
        chosen,
        query,
        folder,
        form,
        skip_damaged=skip_damaged,
        force=force,
        timeout_s=timeout_s,
        as_json=as_json,
    )


def write_folder(
    chosen: StanzaOptions,
    query: Query,
    folder: Path,
    form: Form,
    *,
    skip_damaged: bool = False,
    force: bool = False,
    timeout_s: float = 60.0,
    as_json: bool = False,
) -> None:
    """Export to a folder, and say what came of it: what ``export`` does, and ``restore --to-files``.

    Raises:
        ConfigurationError: The folder is there, and is no earlier export.
        CorruptError: Messages are damaged.
    """
    from hop_archive.archive import utc_now
    from hop_archive.read.export import ExportRequest, refuse_other_content
    from hop_archive.read.export import export as write

    setup = chosen.setup("database", "store")
    refuse_other_content(folder, replace=force)
    wanted = ExportRequest(query, form, skip_damaged, force, timeout_s, _origin(setup, query))
    with setup.catalog_and_store() as (catalog, store):
        began = time.monotonic()
        with _notices(began) as notice:
            manifest = write(catalog, store, folder, wanted, now=utc_now, notice=notice)
    if as_json:
        click.echo(json.dumps(manifest, indent=2, ensure_ascii=False))
    else:
        click.echo(_summary(manifest, folder, time.monotonic() - began))
    _tell_damage(manifest, folder)


def _origin(setup: Setup, query: Query) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("hop_archive")
    except PackageNotFoundError:
        own = ""
    database, store = setup.selection.database, setup.selection.store
    return {
        "hop_archive": own,
        "database": f"{database} ({setup.configuration.database(database).resolved().describe()})",
        "store": f"{store} ({setup.configuration.store(store).resolved().describe()})",
        "selection": described(query),
    }


@contextlib.contextmanager
def _notices(began: float) -> Any:
    """A line that says how far it is, drawn over itself, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    line = _Line(began)
    try:
        yield line.show
    finally:
        line.clear()


class _Line:
    """One line at the bottom of a terminal."""

    def __init__(self, began: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._began = began
        self._clock = clock
        self._next = began

    def show(self, progress: Progress) -> None:
        """Draw it, if it is time."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _SHOW_EVERY_S
        speed = rate(progress.counts["messages"] / max(now - self._began, 1e-3))
        text = f"{counted(progress.counts['messages'], 'message')}, {size(progress.counts['size_bytes'])}, {speed}   {progress.topic}"
        sys.stderr.write(f"\r\x1b[K{text[:78]}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave nothing of it."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _summary(manifest: dict[str, Any], folder: Path, elapsed_s: float) -> str:
    what = "message" if manifest["format"] == "bson" else "payload"
    return (
        f"Exported {counted(manifest['messages'], what)} ({size(manifest['bytes'])}) of"
        f" {counted(len(manifest['topics']), 'topic')} to {folder} in {duration(elapsed_s)}."
    )


def _tell_damage(manifest: dict[str, Any], folder: Path) -> None:
    from hop_archive.errors import CorruptError
    from hop_archive.read.export import DAMAGED

    if manifest["damaged"]:
        raise CorruptError(
            f"{counted(manifest['damaged'], 'message')} damaged and left out: see {folder / DAMAGED}.",
            damaged=manifest["damaged"],
        )
