"""``hop-archive report``: the archive by topic and day, as one page."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from hop_archive.cli.arguments import Explained
from hop_archive.cli.options import Chosen, stanza_options
from hop_archive.cli.parts import catalog_of
from hop_archive.model.wording import counted

_EPILOG = """\b
Examples:
  hop-archive report archive.html -D local-db
  hop-archive report gcn.html -D aws-prod-db --days 90 -T gcn.notices

\b
The page needs nothing but a browser. Of each day, and of each topic: messages, bytes, the longest
lag, losses, duplicates; and which share was read again and compared (hop-archive scrub), and what
verification found that is still open.
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
    help="The last so many days.",
)
@click.option(
    "-T", "--topic", "topics", metavar="NAME", multiple=True, help="Only this topic. May be given again."
)
def report(chosen: Chosen, file: Path, days: int, topics: tuple[str, ...]) -> None:
    """Write the archive by topic and day to FILE, as HTML with plots."""
    from hop_archive.archive import utc_now
    from hop_archive.read.report import gather, page

    setup = chosen.setup("database")
    with contextlib.closing(catalog_of(setup)) as catalog:
        catalog.check()
        found = gather(catalog, utc_now(), days, topics or None)
    file.write_text(page(found), encoding="utf-8")
    click.echo(f"{file}: {counted(len(found.topics), 'topic')}, {counted(days, 'day')}.")
