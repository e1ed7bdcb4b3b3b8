"""``hop-archive scrub``: reads every document again within some days, a share each time."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import TOPICS_HELP, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, moment
from hop_archive.cli.verify import as_object, display, line, opened
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.catalog.records import VerifiedShare

_EPILOG = """\b
Examples:
  hop-archive scrub -D local-db -S local-store
      run once a day: all is read again within 30 days
  hop-archive scrub -D aws-prod-db -S s3-prod --days 7 -T 'gcn.*'
      run once a day: these topics within a week
  hop-archive scrub -D local-db -S local-store --days 1
      everything that was not read today, now

\b
It is hop-archive verify --deep in shares, which remembers what was read and when:
what was never read first, a day's share of it; then all that is due, the longest ago
first; then, up to that share, what is due next. Again on the same day it reads what
is left of the share. Ctrl-C, or a kill, costs at most a portion; the next scrub goes
on where it was. A whole verify --deep counts, too. What it finds is in hop-archive
findings. Ends with 1 where anything is found, else with 0.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option(TOPICS_HELP)
@click.option(
    "--days",
    metavar="DAYS",
    type=click.FloatRange(min=1),
    default=30,
    show_default=True,
    help="Within how many days everything is to be read again, if this runs once a day.",
)
@json_option
@click.pass_context
def scrub(
    ctx: click.Context, chosen: StanzaOptions, topics: tuple[str, ...], days: float, *, as_json: bool
) -> None:
    """Read and compare a share of all documents, the longest unread first, and remember which."""
    from hop_archive.cli.stopping import Stop
    from hop_archive.model.query import Query
    from hop_archive.upkeep.verify.notebook import Notebook
    from hop_archive.upkeep.verify.scrub import Scrub
    from hop_archive.upkeep.verify.scrub import scrub as scrubbed

    setup = chosen.setup("database", "store")
    stop = Stop()
    found: list[dict[str, Any]] = []
    number = 0
    query = Query(tuple(dict.fromkeys(topics)))
    with opened(setup, query, 0) as verification, stop.on_signals(), display(verification).shown():
        for finding, is_open in scrubbed(
            Scrub(verification, days, stop=stop), Notebook(verification.catalog)
        ):
            number += is_open
            if is_open and as_json:
                found.append(as_object(finding))
            elif is_open:
                click.echo(line(finding))
        read = age(verification.catalog.verified_shares())
    checked = verification.checked.counts
    if as_json:
        click.echo(json.dumps({"findings": found, "checked": dict(checked), "scrub": read}))
    else:
        click.echo(
            f"{counted(checked['messages'], 'document')} read, {counted(number, 'finding')} found. {sentence(read)}"
        )
    if stop.requested:
        ctx.exit(130)
    if number:
        ctx.exit(1)


def age(shares: Collection[VerifiedShare]) -> dict[str, Any]:
    """How much of the archive was read again, and how long ago the oldest check is."""
    oldest = min((share.oldest for share in shares if share.oldest), default=None)
    return {
        "offsets": sum(share.offsets for share in shares),
        "never": sum(share.never for share in shares),
        "oldest": moment(oldest),
    }


def sentence(read: dict[str, Any]) -> str:
    """The same, for people."""
    if not read["offsets"]:
        return "Nothing is archived so far."
    if read["never"] == read["offsets"]:
        return "Nothing was scrubbed so far."
    part = (read["offsets"] - read["never"]) / read["offsets"]
    left = f", {count(read['never'])} offsets never" if read["never"] else ""
    return f"{part:.1%} of the archive was read again, the oldest check at {read['oldest']}{left}."
