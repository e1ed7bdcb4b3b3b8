"""What takes something away, as assets that run alone: copies, tests, old messages. Each shows its plan unless told to act."""

import datetime
from typing import Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import ConflictError
from hop_archive.model.query import Query
from hop_archive.model.wording import counted
from hop_archive.orchestration.archiving import archived_messages, live_runs
from hop_archive.orchestration.resources import OpenRemoving, as_failures
from hop_archive.orchestration.runs import ASKED, LONG, MOST_SHOWN, schedule, table, upkeep_job
from hop_archive.upkeep.remove.clean_tests import clean_marked, clean_topics, plan_cleaning, topics_to_clean
from hop_archive.upkeep.remove.duplicates import deduplicate as move_copies
from hop_archive.upkeep.remove.duplicates import find_copies
from hop_archive.upkeep.remove.prune import Old, Policy, plan_pruning
from hop_archive.upkeep.remove.prune import prune as take_away
from hop_archive.upkeep.remove.remove import Removing

NO_DUPLICATES = "no_duplicates"


class DeduplicateConfig(dg.Config):
    """Which copies to look for, and whether to move them."""

    topics: list[str] = Field(default=[], description="Only of these topics, names or globs; empty: all.")
    dry_run: bool = Field(
        default=True, description="Only report. Otherwise copies become duplicates, and their objects go."
    )
    red_above: int = Field(
        default=1000, ge=0, description="The check is red above so many copies, and yellow below."
    )


@dg.asset(
    deps=[archived_messages],
    group_name="upkeep",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    check_specs=[
        dg.AssetCheckSpec(
            NO_DUPLICATES,
            asset="deduplicated",
            description="No message is in the archive twice, as of the last look.",
        )
    ],
    description="Messages that are in the archive twice, looked for by schedule; moved to the duplicates when told to.",
)
def deduplicated(
    context: dg.AssetExecutionContext,
    config: DeduplicateConfig,
    open_removing: dg.ResourceParam[OpenRemoving],
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Find copies, say how many, and move them if told to. Again: goes on."""
    query = Query(topics=tuple(config.topics))
    shown: list[dict[str, str]] = []
    copies = 0
    with as_failures(), open_removing("look" if config.dry_run else "delete", context.run.run_id) as removing:
        if not config.dry_run:
            move_copies(removing, query)
        for pair in find_copies(removing, query):
            copies += 1
            if len(shown) < MOST_SHOWN:
                shown.append({"copy": str(pair.copy.uuid), "kept": str(pair.kept.uuid)})
    check = dg.AssetCheckResult(
        passed=not copies,
        check_name=NO_DUPLICATES,
        severity=dg.AssetCheckSeverity.ERROR if copies > config.red_above else dg.AssetCheckSeverity.WARN,
        description=f"{counted(copies, 'message is', 'messages are')} in the archive twice."
        if copies
        else None,
    )
    return dg.MaterializeResult(
        metadata={"copies": copies, **_done(removing), **table("first", shown)}, check_results=[check]
    )


class CleanTestsConfig(dg.Config):
    """Which tests to clean up."""

    topics: list[str] = Field(default=[], description="Only these test topics, names or globs; empty: all.")
    test_header: bool = Field(
        default=False, description="Messages with a header _test as well, of any topic: reads every document."
    )
    delete_records: bool = Field(
        default=False, description="Delete the topics' records in Kafka, too, where that can be done."
    )
    dry_run: bool = Field(default=True, description="Only show what would go.")


@dg.asset(
    deps=[archived_messages],
    group_name="upkeep",
    owners=["team:hop-archive"],
    kinds={"kafka", "s3", "postgres"},
    description="Test topics, emptied and read dry. Only where all stanzas allow it; shows its plan unless told to act.",
)
def cleaned_tests(
    context: dg.AssetExecutionContext,
    config: CleanTestsConfig,
    archive: dg.ResourceParam[Archive],
    open_removing: dg.ResourceParam[OpenRemoving],
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Show what there is of tests, and remove it if told to. Again: goes on."""
    with as_failures(), open_removing("clean", context.run.run_id) as removing:
        names = topics_to_clean(archive, config.topics)
        plan = plan_cleaning(archive, removing, names)
        skipped = 0
        if not config.dry_run:
            skipped = clean_topics(archive, removing, names, delete_records=config.delete_records).skipped
            if config.test_header:
                clean_marked(removing, Query())
    rows = ({"topic": test.topic, "messages": test.messages, "unread": test.unread} for test in plan)
    return dg.MaterializeResult(
        metadata={
            "messages": sum(test.messages for test in plan),
            "skipped": skipped,
            **_done(removing),
            **table("plan", rows),
        }
    )


class PruneRule(dg.Config):
    """From which age on the messages of some topics go."""

    topics: list[str] = Field(description="Names or globs of the topics.")
    older_than_days: float = Field(ge=1, description="From which age on, by the message's timestamp.")


class PruneConfig(dg.Config):
    """By which rules to prune."""

    rules: list[PruneRule] = Field(default=[], description="The rules; with none, nothing goes.")
    dry_run: bool = Field(default=True, description="Only show what would go.")


@dg.asset(
    deps=[archived_messages],
    group_name="upkeep",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    description="Messages that are older than the rules of the run say, taken away. Shows its plan unless told to act.",
)
def pruned(
    context: dg.AssetExecutionContext, config: PruneConfig, open_removing: dg.ResourceParam[OpenRemoving]
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Show what is old, and take it away if told to and nothing is being archived. Again: goes on."""
    with as_failures(), open_removing("look" if config.dry_run else "delete", context.run.run_id) as removing:
        rules = [Policy(tuple(r.topics), datetime.timedelta(days=r.older_than_days)) for r in config.rules]
        if not config.dry_run:
            others = [run.run_id for run in live_runs(context.instance) if run.run_id != context.run.run_id]
            if others:
                raise ConflictError(
                    f"{len(others)} runs are archiving, or about to ({others[0]}).",
                    remedy="Switch the sensor kafka_offsets off, let them end, and prune then.",
                    runs=others[:10],
                )
        old: list[Old] = []
        for rule in rules:
            old += plan_pruning(removing, rule) if config.dry_run else take_away(removing, rule)
    rows = (
        {
            "topic": part.topic,
            "where": str(part.partition_log or "adopted rows"),
            "messages": part.extent.messages,
        }
        for part in old
    )
    return dg.MaterializeResult(
        metadata={
            "messages": sum(part.extent.messages for part in old),
            "bytes": sum(part.extent.size_bytes for part in old),
            **_done(removing),
            **table("plan", rows),
        }
    )


def _done(removing: Removing) -> dict[str, Any]:
    tally = removing.tally
    return {
        "removed_messages": tally.removed.messages,
        "removed_bytes": tally.removed.size_bytes,
        "removed_objects": tally.objects,
        **({"backup_refusal": tally.backup_refusal} if tally.backup_refusal else {}),
    }


deduplicate = upkeep_job(
    "deduplicate",
    LONG,
    deduplicated,
    "Looks for messages that are in the archive twice; moves them if told to.",
)
deduplicate_weekly = schedule(
    "deduplicate_weekly",
    deduplicate,
    "7 12 * * 0",
    "Looks for copies once a week, at a quiet hour (UTC). Reports and removes nothing.",
)
clean_tests = upkeep_job(
    "clean_tests", ASKED, cleaned_tests, "Shows what there is of test topics; removes it if told to."
)
prune = upkeep_job(
    "prune",
    ASKED,
    pruned,
    "Shows which messages are older than the given rules say; takes them away if told to.",
)
