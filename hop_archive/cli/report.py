"""``hop-archive report``: the archive by topic and day, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from hop_archive.cli.options import Explained, StanzaOptions, stanza_options, topic_option
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
@topic_option("Only this topic. May be given again.")
def report(chosen: StanzaOptions, file: Path, days: int, topics: tuple[str, ...]) -> None:
    """Write the archive by topic and day to FILE, as HTML with plots."""
    from hop_archive.archive import utc_now
    from hop_archive.read.report import gather, page

    setup = chosen.setup("database")
    with setup.catalog() as catalog:
        found = gather(catalog, utc_now(), days, topics or None)
    file.write_text(page(found), encoding="utf-8")
    click.echo(f"{file}: {counted(len(found.topics), 'topic')}, {counted(days, 'day')}.")
