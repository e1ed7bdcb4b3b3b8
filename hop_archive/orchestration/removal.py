"""What takes something away: copies, tests, old messages. Each shows its plan unless told to act.

What looks is an asset: ``copies``, ``test_topics``. What acts is the job with ``dry_run`` false, which its launchpad alone can say.
"""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import ConflictError
from hop_archive.model.query import Query
from hop_archive.model.topics import matches
from hop_archive.model.wording import counted, duration, size
from hop_archive.orchestration.archiving import archived_messages, live_runs
from hop_archive.orchestration.reports import unless_zero
from hop_archive.orchestration.resources import OpenRemoving, as_failures
from hop_archive.orchestration.runs import (
    ASKED,
    LONG,
    MOST_SHOWN,
    Home,
    job_link,
    only_fields,
    schedule,
    table,
    upkeep_job,
    upkeep_tags,
)
from hop_archive.upkeep.remove.clean_tests import FAILURES as NOT_CLEANED
from hop_archive.upkeep.remove.clean_tests import clean_marked, clean_topics, plan_cleaning, topics_to_clean
from hop_archive.upkeep.remove.duplicates import deduplicate as move_copies
from hop_archive.upkeep.remove.duplicates import find_copies, sorted_topics
from hop_archive.upkeep.remove.prune import FAILURES as NOT_PRUNED
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
    everything: bool = Field(
        default=False,
        description="Sort the digests of all topics, however large. Otherwise, of topics beyond some millions of messages, look "
        "for copies among messages alone that archiving itself may leave twice, and another archiver's.",
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
            asset="copies",
            description="No message is in the archive twice, as of the last look.",
        )
    ],
    description="Messages that are in the archive twice, as of the last look. The job deduplicate looks by schedule, and moves "
    "them to the duplicates when told to.",
)
def copies(
    context: dg.AssetExecutionContext,
    config: DeduplicateConfig,
    removals: dg.ResourceParam[OpenRemoving],
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Find copies, say how many, and move them if told to. Again: goes on."""
    query = Query(topics=tuple(config.topics))
    shown: list[dict[str, str]] = []
    number, began_s = 0, time.monotonic()
    with as_failures(), removals("look" if config.dry_run else "delete", context.run.run_id) as removing:
        if not config.dry_run:
            move_copies(removing, query)
        sorting = None if config.everything else sorted_topics(removing, query)
        left_out = (
            0 if sorting is None else len({*query.chosen_topics(removing.catalog.known_topics())} - sorting)
        )
        for pair in find_copies(removing, query, sorting):
            number += 1
            if len(shown) < MOST_SHOWN:
                shown.append(
                    {"topic": pair.copy.topic, "copy": str(pair.copy.uuid), "kept": str(pair.kept.uuid)}
                )
        looked = [
            summary
            for summary in removing.catalog.summaries()
            if (not config.topics or matches(summary.topic, config.topics))
            and (sorting is None or summary.topic in sorting)
        ]
    rows, took_s = sum(summary.messages for summary in looked), time.monotonic() - began_s
    # Green says of what: what was not looked at is not known to be well.
    limits = [f"Only {', '.join(config.topics)} was looked at."] if config.topics else []
    if left_out:
        limits.append(
            f"Of {counted(left_out, 'large topic')} only what archiving itself may leave twice, and another archiver's, was "
            "looked at; with everything: true all is."
        )
    check = dg.AssetCheckResult(
        passed=not number,
        check_name=NO_DUPLICATES,
        severity=dg.AssetCheckSeverity.ERROR if number > config.red_above else dg.AssetCheckSeverity.WARN,
        description=f"{counted(number, 'message is', 'messages are')} in the archive twice; the first is {shown[0]['copy']} of "
        f"{shown[0]['topic']}, a copy of {shown[0]['kept']}. Launch the job deduplicate with dry_run: false: copies become "
        "duplicates, and their objects go."
        if number
        else " ".join(limits) or None,
        metadata={
            "copies": number,
            **(job_link(Home.of(context.run), "deduplicate") if number else {}),
            **table("first", shown),
        },
    )
    return dg.MaterializeResult(
        metadata={
            "looked_at": f"{counted(rows, 'row')} of {counted(len(looked), 'topic')}, in {duration(took_s)}",
            "rows": unless_zero(rows),
            "topics_looked_at_in_part": unless_zero(left_out),
            "took_s": round(took_s, 2),
            "copies": unless_zero(number),
            **_done(removing, config.dry_run),
            **table("first", shown),
        },
        check_results=[check],
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
    description="What there is of test topics, in the archive and waiting in Kafka. The job clean_tests empties and reads them "
    "dry, if told to and where all stanzas allow it.",
)
def test_topics(
    context: dg.AssetExecutionContext,
    config: CleanTestsConfig,
    archive: dg.ResourceParam[Archive],
    removals: dg.ResourceParam[OpenRemoving],
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Show what there is of tests, and remove it if told to. Again: goes on."""
    with as_failures(), removals("look" if config.dry_run else "clean", context.run.run_id) as removing:
        names = topics_to_clean(archive, config.topics)
        plan = plan_cleaning(archive, removing, names)
        skipped = 0
        if not config.dry_run:
            failures = NOT_CLEANED()
            cleaned = clean_topics(
                archive, removing, names, delete_records=config.delete_records, failures=failures
            )
            skipped = cleaned.skipped
            if config.test_header:
                clean_marked(removing, Query(), failures=failures)
            failures.raise_any()
            plan = plan_cleaning(archive, removing, names)  # what there is still
    rows = ({"topic": test.topic, "messages": test.messages, "unread": test.unread} for test in plan)
    unread = [test.unread for test in plan]
    return dg.MaterializeResult(
        metadata={
            "messages": unless_zero(sum(test.messages for test in plan)),
            "unread": "not known" if None in unread else unless_zero(sum(n or 0 for n in unread)),
            **({} if config.dry_run else {"skipped": skipped}),
            **_done(removing, config.dry_run),
            **table("plan", rows),
        }
    )


class PruneRule(dg.Config):
    """From which age on the messages of some topics go."""

    topics: list[str] = Field(description="Names or globs of the topics.")
    older_than_days: float = Field(ge=1, description="From which age on, by the message's timestamp.")


class PruneConfig(dg.Config):
    """By which rules to prune."""

    rules: list[PruneRule] = Field(description="The rules, one after another.")
    dry_run: bool = Field(default=True, description="Only show what would go.")


@dg.op(out=dg.Out(dg.Nothing))
def prune_messages(
    context: dg.OpExecutionContext, config: PruneConfig, removals: dg.ResourceParam[OpenRemoving]
) -> Iterator[dg.Output[None]]:
    """Show what is old, and take it away if told to and nothing is being archived. Again: goes on."""
    with as_failures(), removals("look" if config.dry_run else "delete", context.run.run_id) as removing:
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
        failures = NOT_PRUNED()
        for rule in rules:
            old += (
                plan_pruning(removing, rule)
                if config.dry_run
                else take_away(removing, rule, failures=failures)
            )
        failures.raise_any()
    rows = (
        {
            "topic": part.topic,
            "where": str(part.partition_log or "adopted rows"),
            "messages": part.extent.messages,
        }
        for part in old
    )
    messages, size_bytes = (
        sum(part.extent.messages for part in old),
        sum(part.extent.size_bytes for part in old),
    )
    context.log.info(
        f"{counted(messages, 'message is', 'messages are')} old, {size(size_bytes)}. "
        + ("A dry run: nothing is taken away. Set dry_run to false to prune." if config.dry_run else "")
    )
    yield dg.Output(
        None,
        metadata={
            "dry_run": config.dry_run,
            "messages": messages,
            "bytes": size_bytes,
            **_done(removing, config.dry_run),
            **table("plan", rows),
        },
    )


def _done(removing: Removing, dry_run: bool) -> dict[str, Any]:
    """What was removed; of a dry run nothing."""
    if dry_run:
        return {"removed": "nothing: dry_run is true"}
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
    copies,
    "Looks for messages that are in the archive twice; moves them if told to: Materialize ▾ → Open launchpad, dry_run: false.",
    only_fields("copies", DeduplicateConfig),
)
deduplicate_weekly = schedule(
    "deduplicate_weekly",
    deduplicate,
    "7 12 * * 0",
    "Looks for copies once a week, at a quiet hour (UTC). Reports and removes nothing.",
)
clean_tests = upkeep_job(
    "clean_tests",
    ASKED,
    test_topics,
    "Shows what there is of test topics; removes it if told to: Materialize ▾ → Open launchpad, dry_run: false.",
    only_fields("test_topics", CleanTestsConfig),
)


@dg.job(
    config=only_fields("prune_messages", PruneConfig),
    tags=upkeep_tags(ASKED),
    description="Shows which messages are older than the given rules say; takes them away if told to.",
)
def prune() -> None:
    """One step."""
    prune_messages()
