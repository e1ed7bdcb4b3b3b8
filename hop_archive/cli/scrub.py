"""``hop-archive scrub``: reads every document again within some days, a share each time."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import TOPICS_HELP, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, moment, print_lines
from hop_archive.cli.stopping import Stop
from hop_archive.cli.verify import as_object, display, line, opened
from hop_archive.model.query import Query
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.catalog.checked import VerifiedShare

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
on where it was. A whole verify --deep counts, too. What archive-core stored is read
as well; the share of offsets at the end does not count it. What it finds is in
hop-archive findings. Ends with 1 where anything is found, else with 0.
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
def scrub(chosen: StanzaOptions, topics: tuple[str, ...], days: float, *, as_json: bool) -> int:
    """Read and compare a share of all documents, the longest unread first, and remember which."""
    from hop_archive.upkeep.verify.recorder import FindingsRecorder
    from hop_archive.upkeep.verify.scrub import scrub as scrubbed

    setup = chosen.setup("database", "store")
    stop = Stop()
    found: list[dict[str, Any]] = []
    number = 0
    query = Query(tuple(dict.fromkeys(topics)))
    with opened(setup, query, 0) as verification, stop.on_signals(), display(verification).shown():
        recorder = FindingsRecorder(verification.catalog)
        for finding, is_open in scrubbed(verification, recorder, days, stop):
            number += is_open
            if is_open and as_json:
                found.append(as_object(finding))
            elif is_open:
                print_lines([line(finding)])
        read = age(verification.catalog.verified_shares())
    checked = verification.checked.counts
    if as_json:
        click.echo(json.dumps({"findings": found, "checked": dict(checked), "scrub": read}))
    else:
        print_lines(
            [
                f"{counted(checked['messages'], 'document')} read, {counted(number, 'finding')} found. {sentence(read)}"
            ]
        )
    if stop.requested:
        return 130
    return 1 if number else 0


def age(shares: Collection[VerifiedShare]) -> dict[str, Any]:
    """How much of what the ledger counts was read again, and how long ago the oldest check is.

    Adopted rows have no offsets: they are read again as the others are, and are not in these numbers.
    """
    oldest = min((share.oldest for share in shares if share.oldest), default=None)
    return {
        "offsets": sum(share.offsets for share in shares),
        "never": sum(share.never for share in shares),
        "oldest": moment(oldest),
    }


def sentence(read: dict[str, Any]) -> str:
    """The same, for people."""
    if not read["offsets"]:
        return "The ledger has no offsets so far."
    if read["never"] == read["offsets"]:
        return "None of the ledger's offsets was read again so far."
    part = (read["offsets"] - read["never"]) / read["offsets"]
    left = f", {count(read['never'])} never" if read["never"] else ""
    return f"{part:.1%} of the ledger's offsets were read again, the oldest check at {read['oldest']}{left}."
