"""``hop-archive compact``: many small objects become few large ones."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, print_lines, say, size, table
from hop_archive.cli.prune import age
from hop_archive.cli.removal import agreed, opened, print_plan, yes_option
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from hop_archive.upkeep.compact.compact import Planned
    from hop_archive.upkeep.compact.plan import Compaction
    from hop_archive.upkeep.remove.remove import Tally

_DEFAULT_DAYS = 7.0

_EPILOG = """\b
Examples:
  hop-archive compact -D local-db -S local-store
      what there is to put together; changes nothing
  hop-archive compact -D local-db -S local-store --yes
      and puts it together
  hop-archive compact -D aws-prod-db -S s3-prod -T 'gcn.*' --older-than 30d --yes
  hop-archive compact -D aws-prod-db -S s3-prod --limit 1000000 --yes --json
      some at a time

\b
What becomes one segment:
  ten or more neighbouring objects of a partition, up to the segment_mebibytes of
  the store's stanza or 10,000 messages; compressed where the stanza says so.
  Objects of half that size stay as they are. Old ones are deleted a day later:
  by the next run, or the schedule.

\b
Programs that take an object for one document, as archive-core's readers do, cannot
read segments: leave out topics that they read. Stanzas of database and store have to
say deleting_allowed = true. It may be stopped at any time, and goes on where it was.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option("Only of this topic; a name, or a glob such as 'gcn.*'. May be given again.")
@click.option(
    "--older-than",
    metavar="AGE",
    type=age,
    help="How long ago it has to have been archived: 30d, 8w. [default: compact_after_days of the store's stanza, else 7d]",
)
@click.option(
    "--grace",
    "grace_hours",
    metavar="HOURS",
    type=click.FloatRange(min=0, max=24 * 365),
    default=24.0,
    show_default=True,
    help="How long old objects stay, for who has read of them and not yet themselves.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Look from the beginning, not only where it was left."
)
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="Move so many messages, to the next whole segment.",
)
@yes_option
@json_option
@click.pass_context
def compact(
    ctx: click.Context,
    chosen: StanzaOptions,
    topics: tuple[str, ...],
    older_than: datetime.timedelta | None,
    grace_hours: float,
    limit: int | None,
    *,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put small objects together into large segments, which cost less to store, to read and to list.

    Shows first what there is to do. Every document is checked, and what was written is read back, before rows name it.
    """
    from hop_archive.cli.display import Display, bar
    from hop_archive.cli.stopping import Stop
    from hop_archive.upkeep.compact.compact import compact as put_together
    from hop_archive.upkeep.compact.compact import plan_compaction
    from hop_archive.upkeep.compact.plan import Compaction

    setup = chosen.setup("database", "store")
    layouts = setup.configuration.store(setup.selection.store).resolved().layout_policy()
    days = _DEFAULT_DAYS if layouts.compact_after_days is None else layouts.compact_after_days
    stop = Stop()
    wanted = Compaction(
        layouts,
        datetime.timedelta(days=days) if older_than is None else older_than,
        topics,
        datetime.timedelta(hours=grace_hours),
        everything,
        limit,
        stop,
    )
    with opened(setup, "look") as removing:
        plan = list(plan_compaction(removing, wanted))
    if not as_json:
        _print_plan(plan)
        if not plan and not yes:
            return
    if not agreed("Put these together?", _as_object(plan), yes=yes, as_json=as_json):
        return
    wanted.progress.total = sum(part.messages for part in plan)

    def draw(_: Console) -> RenderableType:
        return bar("compact", wanted.progress.counts["messages"], wanted.progress.total)

    display = Display(draw, lambda: f"compact: {_done(wanted)}")
    with opened(setup, "delete") as removing, stop.on_signals(), display.shown():
        findings = []
        for finding in put_together(removing, wanted):
            findings.append(finding)
            display.tick()
    if as_json:
        counts = wanted.progress.counts
        done = {name: counts[name] for name in ("objects", "segments", "messages", "old_bytes", "new_bytes")}
        about = {
            **done,
            "left_for_damage": counts["damaged"],
            "left_to_others": counts["disturbed"],
            "deleted_objects": removing.tally.objects,
            "deleted_copies": removing.tally.copies,
            "backup_refusal": removing.tally.backup_refusal or None,
        }
        print_plan(_as_object(plan), done=True, compacted=about, findings=[str(one) for one in findings])
    else:
        _print_done(wanted, removing.tally, grace_hours)
        for finding in findings:
            say(str(finding))
    if stop.requested:
        ctx.exit(130)
    if findings:
        ctx.exit(1)


def _print_plan(plan: Sequence[Planned]) -> None:
    rows = [
        [
            part.partition_log.topic,
            f"{part.partition_log.generation}/{part.partition_log.partition}",
            count(part.messages),
            size(part.stored_bytes),
            count(part.objects),
            count(part.segments),
        ]
        for part in plan
    ]
    names = ["topic", "generation/partition", "messages", "bytes", "objects now", "then"]
    if not plan:
        print_lines(["There is nothing to put together."])
        return
    objects, segments = sum(part.objects for part in plan), sum(part.segments for part in plan)
    print_lines(table(names, rows, right={2, 3, 4, 5}))
    print_lines([
        "",
        f"{counted(objects, 'object')} become {counted(segments, 'segment')}: to read all of this takes {count(segments)} in place"
        f" of {counted(objects, 'request')}. To put it together takes {counted(objects + segments, 'read')} and"
        f" {counted(segments, 'write')}, and as many reads and writes of segments again where there is a backup.",
    ])  # fmt: skip


def _print_done(wanted: Compaction, tally: Tally, grace_hours: float) -> None:
    counts = wanted.progress.counts
    lines = [f"{_done(wanted)}."]
    if counts["segments"]:
        lines.append(
            f"The old objects stay for {grace_hours:g} hours; the next run after that deletes them."
            if grace_hours
            else "The old objects are deleted."
        )
    if tally.objects:
        lines.append(
            f"Deleted {counted(tally.objects, 'old object')} and {counted(tally.copies, 'copy', 'copies')} in the backup."
        )
    if counts["damaged"]:
        lines.append(
            f"{counted(counts['damaged'], 'segment')} not made, because documents are not sound: see hop-archive findings, and"
            " --all after their repair."
        )
    if counts["disturbed"]:
        lines.append(
            f"{counted(counts['disturbed'], 'log')} left to the next run: another process is at work there."
        )
    if tally.backup_refusal:
        lines.append(f"The backup keeps the old copies, and gets no new ones: {tally.backup_refusal}")
    print_lines(lines)


def _done(wanted: Compaction) -> str:
    counts = wanted.progress.counts
    return (
        f"{counted(counts['objects'], 'object')} ({size(counts['old_bytes'])}) put together into"
        f" {counted(counts['segments'], 'segment')} ({size(counts['new_bytes'])})"
    )


def _as_object(plan: Sequence[Planned]) -> list[dict[str, Any]]:
    return [
        {
            "topic": part.partition_log.topic,
            "generation": part.partition_log.generation,
            "partition": part.partition_log.partition,
            "messages": part.messages,
            "bytes": part.size_bytes,
            "stored_bytes": part.stored_bytes,
            "objects": part.objects,
            "segments": part.segments,
        }
        for part in plan
    ]
