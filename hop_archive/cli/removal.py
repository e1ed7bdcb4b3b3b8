"""What the commands that take something away share: the plan first, a question, and what was done."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.output import say, size
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.cli.options import Setup
    from hop_archive.config.open import Permission
    from hop_archive.upkeep.remove.remove import Removing, Tally

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


def agreed(question: str, plan: Any, *, yes: bool, as_json: bool) -> bool:
    """Whether to go on: said on the command line, or on a terminal when asked. With ``--json`` a no prints the plan."""
    if yes:
        return True
    if as_json:
        print_plan(plan, done=False)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        return click.confirm(question)
    else:
        say("Nothing was done: this was the plan. Add --yes to do it.")
    return False


def print_plan(plan: Any, *, done: bool, **more: Any) -> None:
    """One JSON object: the plan, and whether it was done."""
    click.echo(json.dumps({"plan": plan, "done": done, **more}))


def print_removed(tally: Tally, plan: Any, *, as_json: bool, **more: Any) -> None:
    """What was removed; as one JSON object with the plan and what more is told."""
    removed = tally.removed
    if as_json:
        about = {
            "messages": removed.messages,
            "duplicates": removed.duplicates,
            "offsets": removed.offsets,
            "bytes": removed.size_bytes,
            "objects": tally.objects,
            "backup_objects": tally.copies,
            "objects_that_stay": len(tally.staying),
            "backup_refusal": tally.backup_refusal or None,
        }
        print_plan(plan, done=True, removed=about, **more)
        return
    say(
        f"Removed {counted(removed.messages, 'message')} ({size(removed.size_bytes)}), "
        f"{counted(tally.objects, 'object')} and {counted(tally.copies, 'object')} of the backup."
    )
    if tally.staying:
        say(
            f"Of {counted(len(tally.staying), 'segment')} other messages need the rest: there the removed ones have no row any "
            "more, and their bytes go with the segment."
        )
    if tally.backup_refusal:
        say(
            f"In the backup, copies stay: {tally.backup_refusal} They are remembered: run this again with other rights."
        )
