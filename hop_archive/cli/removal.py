"""What the commands that take something away share: the plan first, a question, and what was done."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Explained
from hop_archive.cli.output import size
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.cli.options import Setup
    from hop_archive.config.open import Permission
    from hop_archive.upkeep.remove.remove import Removing, Tally

uuids_argument = click.argument(
    "uuids",
    metavar="UUID...",
    nargs=-1,
    required=True,
    type=click.UUID,
    cls=Explained,
    help="Which messages.",
)
yes_option = click.option(
    "--yes",
    is_flag=True,
    help="Do it without asking. Without this, a terminal is asked, and a script does nothing.",
)


@contextlib.contextmanager
def opened(setup: Setup, permission: Permission) -> Iterator[Removing]:
    """What a removal works on, while the block lasts; that both servers answer is known.

    Raises:
        ForbiddenError: A stanza does not permit it.
        UnavailableError, MissingSettingError: As the checks of catalog and store tell.
    """
    from hop_archive.config.open import open_for_removal
    from hop_archive.upkeep.remove.remove import Removing

    parts = open_for_removal(setup.configuration, setup.selection, permission)
    with contextlib.closing(Removing(*parts)) as removing:
        removing.catalog.check()
        removing.store.check()
        yield removing


def agreed(question: str, *, yes: bool, as_json: bool) -> bool:
    """Whether to go on: said on the command line, or on a terminal when asked."""
    if yes:
        return True
    if not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        return click.confirm(question)
    if not as_json:
        click.echo("Nothing was done: this was the plan. Add --yes to do it.")
    return False


def print_plan(plan: Any, done: bool, tally: Tally | None = None, **more: Any) -> None:
    """One JSON object: the plan, whether it was done, and what was removed."""
    found = {"plan": plan, "done": done}
    if tally is not None:
        found["removed"] = {
            "messages": tally.removed.messages,
            "duplicates": tally.removed.duplicates,
            "offsets": tally.removed.offsets,
            "bytes": tally.removed.size_bytes,
            "objects": tally.objects,
            "backup_objects": tally.copies,
            "objects_that_stay": len(tally.staying),
            "backup_refusal": tally.backup_refusal or None,
        }
    click.echo(json.dumps({**found, **more}))


def print_tally(tally: Tally) -> None:
    """What was done, for people."""
    removed = tally.removed
    click.echo(
        f"Removed {counted(removed.messages, 'message')} ({size(removed.size_bytes)}), "
        f"{counted(tally.objects, 'object')} and {counted(tally.copies, 'object')} of the backup."
    )
    if tally.staying:
        click.echo(
            f"Of {counted(len(tally.staying), 'segment')} other messages need the rest: there the removed ones have no row any "
            "more, and their bytes go with the segment."
        )
    if tally.backup_refusal:
        click.echo(
            f"In the backup, copies stay: {tally.backup_refusal} They are remembered: run this again with other rights."
        )
