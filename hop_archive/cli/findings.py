"""``hop-archive findings``: what verification found and nobody has settled."""

from __future__ import annotations

from typing import Any

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import JsonList, moment, print_lines, say
from hop_archive.cli.verify import as_object, line
from hop_archive.errors import ConfigurationError
from hop_archive.model.findings import ACCEPTED, FindingRecord, kinds_of
from hop_archive.model.wording import counted

_EPILOG = """\b
Examples:
  hop-archive findings -D local-db
      what is open: its number, what is wrong and where, since when
  hop-archive findings -D local-db -T gcn.notices --kind corrupt_object --all
      and what has become of others like it
  hop-archive findings -D local-db --accept 17 --because "lost in the outage of May 3"
      live with it: it is not told again, and turns no check red

\b
hop-archive verify finds them, hop-archive repair mends what can be mended. What
archiving itself met is among them:
  no_leader        a partition has no leader, or its broker does not answer
                   or gives nothing of what it has
  not_readable     a topic may be seen but not read, or cannot be described; or
                   one partition cannot be read, or compared with what was
                   archived of it, for now: its detail says why
  not_shown        a topic is not shown any more, and not all of it was archived
  left_undone      the same work was left undone for the same reason twice
  log_truncated    a log lost its end; what it held is archived all the same
The first four close by themselves once archiving gets past them, or records what was
lost.
Ends with 1 where any that was asked for is open, and with 0 where none is.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option("Only of this topic; a name or a glob. May be given again.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only of this kind. May be given again.")
@click.option("--all", "every", is_flag=True, help="Those that are resolved, too.")
@click.option("--limit", metavar="NUMBER", type=click.IntRange(min=0), help="Only so many, the oldest.")
@click.option(
    "--accept",
    "accepted",
    metavar="NUMBER",
    type=int,
    multiple=True,
    help="Live with this one. May be given again.",
)
@click.option("--because", metavar="TEXT", default="", help="Why it is accepted.")
@json_option
def findings(
    chosen: StanzaOptions,
    topics: tuple[str, ...],
    kinds: tuple[str, ...],
    limit: int | None,
    accepted: tuple[int, ...],
    because: str,
    *,
    every: bool,
    as_json: bool,
) -> int:
    """Show what verification found and nobody has settled: each finding once, however often it was seen."""
    from hop_archive.archive import utc_now
    from hop_archive.upkeep.repair.plan import topics_meant

    setup = chosen.setup("database")
    with setup.catalog() as catalog:
        meant = topics_meant(catalog, topics)
        if accepted:
            if not because.strip():
                raise ConfigurationError(
                    "Nothing was accepted: it is not said why.",
                    remedy='Add --because "…": who comes later will ask.',
                )
            if unknown := set(accepted) - {record.number for record in catalog.findings()}:
                raise ConfigurationError(
                    f"Nothing was accepted: no finding of number {', '.join(map(str, sorted(unknown)))} is open.",
                    remedy="hop-archive findings shows those that are, with their numbers.",
                )
            done = catalog.resolve_findings(accepted, f"{ACCEPTED}{because}", utc_now())
            say(f"Accepted {counted(done, 'finding')}.")
            return 0
        found = catalog.findings(meant, kinds_of(kinds), open_only=not every, limit=limit)
        opened, any_found = 0, False
        listed = JsonList("findings") if as_json else None
        for record in found:
            any_found = True
            opened += record.resolved_at is None
            if listed:
                listed.add(record_object(record))
            else:
                how = f"  [{moment(record.resolved_at)}: {record.resolution}]" if record.resolved_at else ""
                since = moment(record.first_seen)
                print_lines([f"{record.number}  since {since}  {line(record.finding)}{how}"])
    if listed:
        listed.end(open=opened)
    else:
        say(f"{counted(opened, 'finding')} open." if any_found else "Nothing is open.")
    return 1 if opened else 0


def record_object(record: FindingRecord) -> dict[str, Any]:
    """A finding as JSON has it."""
    return {
        "number": record.number,
        **as_object(record.finding),
        "first_seen": moment(record.first_seen),
        "last_seen": moment(record.last_seen),
        "resolved_at": moment(record.resolved_at),
        "resolution": record.resolution or None,
    }
