"""``hop-archive clean-duplicates``: what is in the archive twice."""

from __future__ import annotations

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import say, size
from hop_archive.cli.removal import agreed, opened, print_removed, yes_option
from hop_archive.model.query import Query
from hop_archive.model.wording import counted

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
  the offsets of the others then say which message they repeat. A message that
  was restored to a topic of another name, and archived there, is none: each
  topic has its own messages.
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
    from hop_archive.upkeep.remove.duplicates import deduplicate, find_copies

    query = Query(topics=topics)
    setup = chosen.setup("database", "store")
    if not yes:
        shown: list[dict[str, str]] = []
        copies = size_bytes = 0
        with opened(setup, "look") as removing:
            for pair in find_copies(removing, query):
                copies, size_bytes = copies + 1, size_bytes + pair.copy.size_bytes
                if len(shown) == _SHOWN:
                    continue
                copy, kept = str(pair.copy.uuid), str(pair.kept.uuid)
                shown.append({"topic": pair.copy.topic, "copy": copy, "kept": kept, "reason": pair.reason})
                if not as_json:
                    say(f"{copy}  is {kept}, in {pair.copy.topic}: {pair.reason}")
        if not as_json:
            found = f"{counted(copies, 'copy', 'copies')} found, {size(size_bytes)}."
            say(found if copies else "No copies found.")
        plan = {"copies": copies, "bytes": size_bytes, "first": shown}
        question = "Move these copies to the duplicates?"
        if not (copies or as_json) or not agreed(question, plan, yes=yes, as_json=as_json):
            return
    with opened(setup, "delete") as removing:
        deduplicate(removing, query)
        print_removed(removing.tally, None, as_json=as_json)
