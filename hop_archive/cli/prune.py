"""``hop-archive prune``: old messages go, by a policy."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, print_lines, size, table
from hop_archive.cli.removal import agreed, opened, print_removed, yes_option

if TYPE_CHECKING:
    from hop_archive.upkeep.remove.prune import Old

_AGE = re.compile(r"([0-9]{1,6})([dwy])", re.ASCII)
_DAYS = {"d": 1, "w": 7, "y": 365}

_EPILOG = """\b
Examples:
  hop-archive prune -D local-db -S local-store -T 'gcn.*' --older-than 400d
      what would go; changes nothing
  hop-archive prune -D local-db -S local-store -T igwn.gwalert --older-than 2y --yes
      and takes it away

\b
What goes:
  of each partition the oldest messages, without a gap, up to the first one
  that is not old, whose timestamp tells nothing, or that a younger duplicate
  refers to; and old rows of another archiver. The ledger says "pruned" of
  their offsets, which are not archived again.

\b
What is refused:
  stanzas of database or store that do not say deleting_allowed = true; a topic
  of which a batch was archived within the last two minutes.
"""


def age(value: str) -> datetime.timedelta:
    """The type of an option that takes an age in days, weeks, or years of 365 days: ``400d``, ``52w``, ``2y``.

    Raises:
        click.BadParameter: The text means none.
    """
    found = _AGE.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(
            f"{value!r} is no age: wanted days, weeks or years, such as 400d, 52w or 2y."
        )
    return datetime.timedelta(days=int(found[1]) * _DAYS[found[2]])


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option("Of which topics; a name or a glob. May be given again.", required=True)
@click.option(
    "--older-than", metavar="AGE", type=age, required=True, help="From which age on: 400d, 52w, 2y."
)
@yes_option
@json_option
def prune(
    chosen: StanzaOptions,
    topics: tuple[str, ...],
    older_than: datetime.timedelta,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Take away messages that are older than a policy says, the oldest first: rows, then objects, then copies of those.

    Shows first what would go. Interrupted, it is completed by running it again. Stop the archiving of these topics
    before.
    """
    from hop_archive.upkeep.remove.prune import FAILURES, Policy, plan_pruning
    from hop_archive.upkeep.remove.prune import prune as take_away

    policy = Policy(topics, older_than)
    setup = chosen.setup("database", "store")
    with opened(setup, "look") as removing:
        plan = plan_pruning(removing, policy)
        if not as_json:
            rows = [
                [
                    old.topic,
                    f"{at.generation}/{at.partition}" if (at := old.partition_log) is not None else "adopted",
                    count(old.extent.messages),
                    size(old.extent.size_bytes),
                    count(old.kept_from, ""),
                ]
                for old in plan
            ]
            names = ["topic", "generation/partition", "messages", "bytes", "kept from offset"]
            print_lines(table(names, rows, right={2, 3, 4}) if rows else ["Nothing is so old."])
            if not plan and not yes:
                return
    if not agreed("Take these away?", [_as_object(old) for old in plan], yes=yes, as_json=as_json):
        return
    with opened(setup, "delete") as removing:
        failures = FAILURES()
        done = take_away(removing, policy, failures=failures)
        print_removed(removing.tally, [_as_object(old) for old in done], as_json=as_json)
        failures.raise_any()


def _as_object(old: Old) -> dict[str, Any]:
    return {
        "topic": old.topic,
        "generation": old.partition_log and old.partition_log.generation,
        "partition": old.partition_log and old.partition_log.partition,
        "messages": old.extent.messages,
        "bytes": old.extent.size_bytes,
        "kept_from": old.kept_from,
    }
