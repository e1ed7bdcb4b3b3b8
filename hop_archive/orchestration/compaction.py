"""Small objects that become large segments: a job that shows its plan unless told to act, and a schedule that acts."""

import datetime
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.orchestration.resources import OpenRemoving, as_failures
from hop_archive.orchestration.runs import LONG, MOST_SHOWN, only_fields, scheduled_tags, table, upkeep_tags
from hop_archive.upkeep.compact.compact import compact as put_together
from hop_archive.upkeep.compact.compact import plan_compaction
from hop_archive.upkeep.compact.plan import Compaction

NOT_SET = "The store's stanza sets no compact_after_days: small objects stay as they are."

_DEFAULT_DAYS = 7.0


class CompactConfig(dg.Config):
    """What to put together."""

    topics: list[str] = Field(default=[], description="Only of these topics, names or globs; empty: all.")
    older_than_days: float | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="How long ago it has to have been archived; empty: compact_after_days of the store's stanza, else 7.",
    )
    grace_hours: float = Field(
        default=24.0,
        ge=0,
        le=24 * 365,
        description="How long old objects stay, for who has read of them and not yet themselves.",
    )
    most_messages: int = Field(default=5_000_000, ge=1, description="Move so many messages at most.")
    everything: bool = Field(
        default=False, description="Look from the beginning, not only where it was left: after a repair, say."
    )
    dry_run: bool = Field(default=True, description="Only show what there is to put together.")


@dg.op(out=dg.Out(dg.Nothing))
def compact_objects(
    context: dg.OpExecutionContext,
    config: CompactConfig,
    archive: dg.ResourceParam[Archive],
    removals: dg.ResourceParam[OpenRemoving],
) -> Iterator[dg.Output[None]]:
    """Show what there is to put together, and do it if told to. Again, or after a kill: goes on where it was."""
    days = config.older_than_days
    if days is None:
        days = archive.layouts.compact_after_days
    wanted = Compaction(
        archive.layouts,
        datetime.timedelta(days=_DEFAULT_DAYS if days is None else days),
        tuple(config.topics),
        datetime.timedelta(hours=config.grace_hours),
        config.everything,
        config.most_messages,
    )
    with as_failures(), removals("look" if config.dry_run else "delete", context.run.run_id) as removing:
        # A plan reads a row of each message that was not settled before, and remembers nothing: a nightly run that is to move
        # some of a large archive would read all the rest each night, before it does anything.
        plan = list(plan_compaction(removing, wanted)) if config.dry_run else []
        for number, finding in enumerate([] if config.dry_run else put_together(removing, wanted)):
            if number < MOST_SHOWN:
                context.log.warning(str(finding))
    counts = wanted.progress.counts
    rows = (
        {
            **part.partition_log._asdict(),
            "objects": part.objects,
            "segments": part.segments,
            "bytes": part.stored_bytes,
        }
        for part in plan
    )
    yield dg.Output(
        None,
        metadata={
            "dry_run": config.dry_run,
            **(
                {
                    "planned_objects": sum(part.objects for part in plan),
                    "planned_segments": sum(part.segments for part in plan),
                }
                if config.dry_run
                else {}
            ),
            "objects": counts["objects"],
            "segments": counts["segments"],
            "messages": counts["messages"],
            "old_bytes": counts["old_bytes"],
            "new_bytes": counts["new_bytes"],
            "left_for_damage": counts["damaged"],
            "left_to_others": counts["disturbed"],
            "deleted_objects": removing.tally.objects,
            **({"backup_refusal": removing.tally.backup_refusal} if removing.tally.backup_refusal else {}),
            **table("plan", rows),
        },
    )


@dg.job(
    config=only_fields("compact_objects", CompactConfig),
    tags=upkeep_tags(LONG),
    description="Shows which small objects there are to put together into large segments once they are old enough; does it if told to.",
)
def compact() -> None:
    """One step."""
    compact_objects()


@dg.schedule(
    job=compact,
    cron_schedule="23 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Puts small objects together at night (UTC); where the store's stanza has no compact_after_days, it starts nothing, and says so.",
)
def compact_nightly(archive: dg.ResourceParam[Archive]) -> dg.RunRequest | dg.SkipReason:
    """A run that acts, or why none."""
    with as_failures():
        if archive.layouts.compact_after_days is None:
            return dg.SkipReason(NOT_SET)
        return dg.RunRequest(run_config={"dry_run": False}, tags=scheduled_tags(compact))
