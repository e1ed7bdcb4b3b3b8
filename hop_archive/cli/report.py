"""``hop-archive report``: the archive by topic and day, as one page."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from hop_archive.cli.options import Explained, StanzaOptions, stanza_options, topic_option
from hop_archive.cli.output import say
from hop_archive.cli.status import why_unasked
from hop_archive.model.wording import counted

_EPILOG = """\b
Examples:
  hop-archive report archive.html -H hop-local -D local-db
  hop-archive report gcn.html -D aws-prod-db --days 90 -T gcn.notices

\b
The page needs nothing but a browser, wide or narrow, light or dark. First what is red and how far behind
the archive is (where a source is named), then totals, and by day and by topic: messages, bytes, the
longest lag, losses, duplicates; which share was read again and compared (hop-archive scrub), and what was
found and is still open. The Dagster job report_archive writes the same page once a day.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.argument(
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    cls=Explained,
    help="Where to; what is there is replaced.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3660),
    default=30,
    show_default=True,
    help="So many days at most, up to today, or to the newest message where that is older; from the first message on.",
)
@topic_option("Only this topic. May be given again.")
def report(chosen: StanzaOptions, file: Path, days: int, topics: tuple[str, ...]) -> None:
    """Write the archive by topic and day to FILE, as HTML with plots."""
    from hop_archive.read.report import gather
    from hop_archive.read.report_page import page

    setup = chosen.setup()
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        found = gather(archive, days, topics or None, unasked=why_unasked(setup))
    file.write_text(page(found), encoding="utf-8")
    first, last = found.days[0], found.days[-1]
    span = f"{counted(len(found.days), 'day')}, {first} to {last}" if first < last else f"{first}"
    say(f"{file}: {counted(len(found.topics), 'topic')}, {span}.")
    say(found.headline)
