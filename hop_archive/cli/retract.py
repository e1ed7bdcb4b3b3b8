"""``hop-archive retract``: messages that their publishers took back."""

from __future__ import annotations

import uuid

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, uuids_argument
from hop_archive.cli.output import say
from hop_archive.cli.removal import agreed, print_plan, yes_option
from hop_archive.model.wording import counted

_EPILOG = """\b
Examples:
  hop-archive retract 9a3f...-... -D local-db --yes     readers and restores leave it out
  hop-archive retract 9a3f...-... -D local-db --undo    and put it back
  hop-archive uuids -D local-db "where retracted"       which are

\b
Nothing is removed: see hop-archive suppress for content that has to go.
Ends with 1 where a UUID is not in the catalog.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@uuids_argument("Which messages.")
@click.option("--undo", is_flag=True, help="Take the mark away again.")
@yes_option
@json_option
def retract(
    chosen: StanzaOptions, uuids: tuple[uuid.UUID, ...], *, undo: bool, yes: bool, as_json: bool
) -> int:
    """Mark messages as retracted: they stay in the archive, and readers and restores leave them out."""
    with chosen.setup().catalog() as catalog:
        rows = {message_uuid: catalog.find(message_uuid) for message_uuid in uuids}
        unknown = [str(message_uuid) for message_uuid, row in rows.items() if row is None]
        changing = [row.uuid for row in rows.values() if row is not None and row.retracted is undo]
        plan = {"change": [str(message_uuid) for message_uuid in changing], "unknown": unknown}
        if not as_json:
            for message_uuid in unknown:
                say(f"{message_uuid} is not in the catalog.")
            verb = "to be marked as retracted" if not undo else "to lose the mark"
            say(f"{counted(len(changing), 'message')} {verb}.")
        if changing and agreed("Do that?", plan, yes=yes, as_json=as_json):
            catalog.retract(changing, retracted=not undo)
            if as_json:
                print_plan(plan, done=True)
            else:
                say("Done.")
        elif as_json and not changing:
            print_plan(plan, done=False)
    return 1 if unknown else 0
