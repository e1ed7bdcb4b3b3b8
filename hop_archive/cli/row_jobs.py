"""``hop-archive index-text`` and ``correct-media-types``: what is done once for each row, in portions, and goes on where it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import count, moment, print_json, say
from hop_archive.errors import MissingSettingError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.cli.display import Display
    from hop_archive.cli.stopping import Stop
    from hop_archive.model.progress import Progress

_INDEX_EPILOG = """\b
Examples:
  hop-archive index-text -D local-db -S local-store
      the messages that were archived since the last time
  hop-archive index-text -D aws-prod-db -S s3-prod --all
      after topics were added to index_text, or documents repaired
  hop-archive index-text -D local-db -S local-store --limit 100000 --json

\b
Which topics:
  those that index_text of the database's stanza names (index_text = ["*"]: all)

\b
It may be stopped at any time, and goes on where it was; one at a time works. Readers
of archive-core (archive-api) then find messages by the words of their headers and
payloads, of which those of 4 MiB and more are not looked into.
"""

_MEDIA_TYPES_EPILOG = """\b
Examples:
  hop-archive correct-media-types -D local-db -S local-store
  hop-archive correct-media-types -D aws-prod-db -S s3-prod --limit 100000
      some at a time

\b
Run it once after an upgrade to a version that tells more media types (FITS, PNG, PDF,
CSV, HTML, XML, and what blobs hold). It may be stopped at any time, and goes on where it
was. Rows change, documents stay as they are. Wants a login that may change rows, such as
one of the role hop_archive_repairer.
"""

_limit_option = click.option(
    "--limit", metavar="NUMBER", type=click.IntRange(min=1), help="Look at so many messages at most."
)


@click.command("index-text", epilog=_INDEX_EPILOG)
@stanza_options
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Look from the beginning, not only where it was left: for topics that were added to index_text later.",
)
@_limit_option
@json_option
@click.pass_context
def index_text(
    ctx: click.Context, chosen: StanzaOptions, limit: int | None, *, everything: bool, as_json: bool
) -> None:
    """Let messages be found by text: fill the index in which readers of archive-core search."""
    from hop_archive.model.progress import Progress
    from hop_archive.upkeep.text_index import NOT_SET, backlog
    from hop_archive.upkeep.text_index import index_text as indexed

    setup = chosen.setup("database", "store")
    patterns = setup.configuration.database(setup.selection.database).resolved().index_text
    if not patterns:
        name = setup.selection.database
        raise MissingSettingError(
            NOT_SET,
            remedy=f"Write it into [database.{name}] of your hop_archive.toml, with the stanza's other keys: yours replaces a shipped"
            " one whole. See docs/configuration.md, Databases.",
            database=name,
        )
    done = Progress()
    with setup.catalog_and_store() as (catalog, store), _shown("index-text", done) as (display, stop):

        def asked() -> bool:
            display.tick()
            return stop()

        indexed(catalog, store, patterns, done, everything=everything, limit=limit, stop=asked)
        left = backlog(catalog, patterns)
    at_least = "at least " if left.has_more else ""
    if as_json:
        print_json(
            {
                "indexed": done.counts["indexed"],
                "headers_only": done.counts["headers"],
                "unreadable": done.counts["unreadable"],
                "waiting": left.messages,
                "waiting_is_all": not left.has_more,
                "waiting_since": moment(left.since),
            }
        )
    else:
        say(
            f"{counted(done.counts['indexed'], 'message')} indexed, {count(done.counts['headers'])} of them by their headers alone;"
            f" {at_least}{count(left.messages)} waiting."
        )
        if done.counts["unreadable"]:
            say(
                f"{counted(done.counts['unreadable'], 'document')} could not be read: hop-archive verify --deep says why, and after"
                " their repair --all indexes them."
            )
    if stop.requested:
        ctx.exit(130)


@click.command("correct-media-types", epilog=_MEDIA_TYPES_EPILOG)
@stanza_options
@_limit_option
@json_option
@click.pass_context
def correct_media_types(
    ctx: click.Context, chosen: StanzaOptions, limit: int | None, *, as_json: bool
) -> None:
    """Correct the media types of rows that an older version wrote: as archive-core tells them, or better."""
    from hop_archive.model.progress import Progress
    from hop_archive.upkeep.media_types import correct_media_types as corrected

    setup = chosen.setup("database", "store")
    done = Progress()
    with (
        setup.catalog_and_store() as (catalog, store),
        _shown("correct-media-types", done) as (display, stop),
    ):

        def asked() -> bool:
            display.tick()
            return stop()

        corrected(catalog, store, done, limit=limit, stop=asked)
    if as_json:
        print_json({"corrected": done.counts["corrected"], "is_complete": done.counts["rows"] >= done.total})
    else:
        say(f"{counted(done.counts['corrected'], 'row')} corrected.")
    if stop.requested:
        ctx.exit(130)


@contextlib.contextmanager
def _shown(what: str, done: Progress) -> Iterator[tuple[Display, Stop]]:
    """Show how far a job is while the block runs, and be asked to stop by signals."""
    from hop_archive.cli.display import Display, bar
    from hop_archive.cli.stopping import Stop

    def draw(_: Console) -> RenderableType:
        return bar(what, done.counts["rows"], done.total or None)

    stop = Stop()
    display = Display(draw, lambda: f"{what}: row {count(done.counts['rows'])} of {count(done.total)}")
    with stop.on_signals(), display.shown():
        yield display, stop
