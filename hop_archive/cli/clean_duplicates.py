"""``hop-archive clean-duplicates``: what is in the archive twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import size
from hop_archive.cli.removal import agreed, opened, print_plan, print_tally, yes_option
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.model.query import Query
    from hop_archive.upkeep.remove.remove import Removing

_SHOWN = 20

_EPILOG = """\b
Examples:
  hop-archive clean-duplicates -D local-db -S local-store
      what is there twice; changes nothing
  hop-archive clean-duplicates -D local-db -S local-store -T gcn.notices --yes
      and moves the copies of that topic to the duplicates

\b
What is a copy:
  a message of the same topic with the same key, headers and value, whose
  publisher gave it the same UUID; or gave it none, and it has the same
  timestamp. Each is confirmed by reading both documents. The oldest row stays;
  the offsets of the others then say which message they repeat.
"""


@click.command("clean-duplicates", epilog=_EPILOG)
@stanza_options
@topic_option("Only of this topic; a name or a glob. May be given again.")
@yes_option
@json_option
def clean_duplicates(chosen: StanzaOptions, topics: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Find messages that are in the archive twice, and move the copies to the duplicates: rows first, objects after.

    Without --yes it only looks, which needs no permission. To remove, the stanzas of database and store have to say
    deleting_allowed = true.
    """
    from hop_archive.model.query import Query
    from hop_archive.upkeep.remove.duplicates import deduplicate

    query = Query(topics=topics)
    setup = chosen.setup("database", "store")
    if not yes:
        with opened(setup, "look") as removing:
            plan = _plan(removing, query, as_json=as_json)
        if not plan["copies"] or not agreed("Move these copies to the duplicates?", yes=yes, as_json=as_json):
            if as_json:
                print_plan(plan, done=False)
            return
    with opened(setup, "delete") as removing:
        deduplicate(removing, query)
        if as_json:
            print_plan(None, done=True, tally=removing.tally)
        else:
            print_tally(removing.tally)


def _plan(removing: Removing, query: Query, *, as_json: bool) -> dict[str, Any]:
    """All copies counted, and the first of them shown."""
    from hop_archive.upkeep.remove.duplicates import find_copies

    shown: list[dict[str, str]] = []
    copies = size_bytes = 0
    for pair in find_copies(removing, query):
        copies, size_bytes = copies + 1, size_bytes + pair.copy.size_bytes
        if len(shown) < _SHOWN:
            shown.append(
                {
                    "topic": pair.copy.topic,
                    "copy": str(pair.copy.uuid),
                    "kept": str(pair.kept.uuid),
                    "reason": pair.reason,
                }
            )
            if not as_json:
                click.echo(f"{pair.copy.uuid}  is {pair.kept.uuid}, in {pair.copy.topic}: {pair.reason}")
    if not as_json:
        found = f"{counted(copies, 'copy', 'copies')} found, {size(size_bytes)}."
        click.echo(found if copies else "No copies found.")
    return {"copies": copies, "bytes": size_bytes, "first": shown}
