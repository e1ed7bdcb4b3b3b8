"""Restoring to Kafka from the UI, and rebuilding the catalog from the store. Started by people; nothing runs them by itself.

The asset ``restores`` is what restores there were, with their reports. The job ``restore`` is the deed, and wants to be told which topics
and where to before it starts.

What it takes, pyarrow before all, is imported when it is used: each run of each job imports this module, and waits for it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.times import MOMENT_HELP, is_ago, milliseconds, moment_of
from hop_archive.model.wording import counted
from hop_archive.orchestration.archiving import archived_messages
from hop_archive.orchestration.reports import unless_zero
from hop_archive.orchestration.resources import Targets, as_failures
from hop_archive.orchestration.runs import ASKED, MOST_SHOWN, only_fields, table, upkeep_job, upkeep_tags
from hop_archive.recover.restore.request import SAME_NAME, Request, generations_of
from hop_archive.source.protocol import Source

if TYPE_CHECKING:
    from hop_archive.recover.restore.prepare import Restoration
    from hop_archive.recover.restore.run import RestoreResult

_MOST_NAMED = 5
_SAY_EVERY_S = 30.0


_TOPICS = "Topics to restore: names, or globs such as gcn.*; ['*'] for all."
_TO_SOURCE = "Source stanza to write to; it has to say writable = true."


class RestoreConfig(dg.Config):
    """What to restore, and where to: nothing, as the asset is materialized. Nothing is written unless ``dry_run`` is false."""

    topics: list[str] = Field(default=[], description=_TOPICS)
    to_source: str = Field(default="", description=_TO_SOURCE)
    to_topic_template: str = Field(
        default=SAME_NAME, description="Name of each target topic; {topic} stands for the archived name."
    )
    since: str = Field(default="", description=f"Only from this moment on: {MOMENT_HELP}. Empty: no bound.")
    until: str = Field(default="", description="Only before this moment. Empty: no bound.")
    as_of: str = Field(default="", description="The archive as it was at this moment. Empty: as it is.")
    where: str = Field(default="", description="Only what meets this condition in SQL. Empty: all.")
    generation: str = Field(
        default="latest", description="Which generation of a topic: latest, all, or a number."
    )
    append: bool = Field(default=False, description="Add to topics that hold messages already.")
    with_duplicates: bool = Field(default=False, description="Put back recorded duplicates, too.")
    with_retracted: bool = Field(default=False, description="Put back what its publisher took back, too.")
    without_tests: bool = Field(default=False, description="Leave out test topics and test messages.")
    skip_damaged: bool = Field(default=False, description="Go on past what is damaged; the report names it.")
    skip_unsendable: bool = Field(default=False, description="Leave out messages with the timestamp 0.")
    set_topic_config: bool = Field(
        default=False, description="Change settings that stand in the way, and put them back at the end."
    )
    topic_config: dict[str, str] = Field(
        default={}, description="Settings of topics that are created, by name, over the archived ones."
    )
    groups: list[str] | None = Field(
        default=None,
        description="Consumer groups to set on the target; []: all of the last snapshot; null: none.",
    )
    messages_per_s: float = Field(default=0.0, ge=0, description="Most messages a second; 0: no bound.")
    bytes_per_s: float = Field(default=0.0, ge=0, description="Most bytes a second; 0: no bound.")
    patience_s: float = Field(default=300.0, ge=0, description="How long to wait for a server that is down.")
    keep_topic_config: bool = Field(default=False, description="Do not put changed settings back.")
    by_key: bool = Field(default=False, description="Choose partitions by key, as a producer would.")
    keep_archive_id: bool = Field(default=False, description="Keep the _id headers that the archive made.")
    check: bool = Field(default=True, description="Read the target back and compare it, message by message.")
    restart: bool = Field(
        default=False, description="Give up an earlier try of the same restore; begin anew."
    )
    production: str = Field(default="", description="A production source's name again, to write to it.")
    dry_run: bool = Field(default=True, description="Only show what would be written and what is in the way.")


class RestoreRequest(RestoreConfig):
    """The same, as the job wants it."""

    topics: list[str] = Field(description=_TOPICS)
    to_source: str = Field(description=_TO_SOURCE)


@dg.asset(
    group_name="restore",
    deps=[archived_messages],
    kinds={"kafka"},
    owners=["team:hop-archive"],
    output_required=False,
    description="Restores to Kafka: which there were, and the report of the last one. The job restore makes one; it only shows its "
    "plan unless dry_run is false, and then nothing is materialized. Launched again with the same configuration, a restore that "
    "was interrupted goes on where it was.",
)
def restores(
    context: dg.AssetExecutionContext,
    config: RestoreConfig,
    archive: dg.ResourceParam[Archive],
    restore_targets: dg.ResourceParam[Targets],
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Say which restores there were. If told what to restore: plan it; unless it is a dry run, write, compare, and report."""
    from hop_archive.recover.restore.control import Control
    from hop_archive.recover.restore.run import restore

    if not (config.topics or config.to_source):
        with as_failures():
            past = _past(archive)
        yield dg.MaterializeResult(metadata=past)
        return
    with as_failures():
        if not (config.topics and config.to_source):
            raise ConfigurationError(
                "Which topics, and where to? The fields topics and to_source are wanted.",
                remedy="Launch the job restore, and say both.",
            )
        with closing(restore_targets.open(config.to_source, config.production)) as target:
            in_turn = restore_targets.policy(config.to_source)
            restoration = replace(_restoration(config, archive, target), target_policy=in_turn)
            if config.dry_run:
                # An observation: nothing was restored, so nothing turns green.
                plan = dg.AssetObservation(context.asset_key, metadata=_plan_metadata(restoration, config))
                context.log_event(plan)
                context.log.info("A dry run: nothing is written. Set dry_run to false to restore.")
                return
            control = Control(
                messages_per_s=config.messages_per_s,
                bytes_per_s=config.bytes_per_s,
                check=config.check,
                patience_s=config.patience_s,
                notice=_Notices(context, archive),
            )
            with tempfile.TemporaryDirectory(prefix="hop-archive-restore-") as folder:
                result = restore(
                    restoration, control, Path(folder), move_groups=config.groups, restart=config.restart
                )
        past = _past(archive)
    if result.differences or result.left_out:
        wrong = (
            f"{counted(result.differences, 'message of the target is', 'messages of the target are')} not as they should "
            f"be, and {result.left_out} were left out. Everything else is there."
        )
    elif result.unrestored:
        wrong = (
            f"Every message is there, and not all is as it was: {' '.join(result.unrestored[:_MOST_NAMED])}"
        )
    else:
        yield dg.MaterializeResult(metadata={**_metadata(result), **past})
        return
    raise dg.Failure(wrong, metadata=_metadata(result), allow_retries=False)


def _past(archive: Archive) -> dict[str, Any]:
    """The latest restores, as the catalog has them."""
    found = archive.catalog.restores(limit=MOST_SHOWN)
    rows = (
        {
            "restore": past.number,
            "target": past.target,
            "outcome": past.outcome,
            "began": f"{past.started_at:%Y-%m-%d %H:%M} UTC",
            "last_seen": f"{past.updated_at:%Y-%m-%d %H:%M} UTC",
            "messages": past.report.get("messages", 0),
        }
        for past in found
    )
    running = sum(past.outcome == "running" for past in found)
    return {
        "restores": unless_zero(len(found)),
        "running": f"{running}",
        **table("latest", rows),
    }


class _Notices:
    """A line in the run's log now and then."""

    def __init__(self, context: dg.AssetExecutionContext, archive: Archive) -> None:
        self._log = context.log
        self._monotonic = archive.monotonic
        self._next = archive.monotonic() + _SAY_EVERY_S

    def __call__(self, now: Progress) -> None:
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + _SAY_EVERY_S
            self._log.info(
                f"{now.topic}: {now.counts['there']} of {now.total} there, {now.counts['checked']} compared"
            )


def _restoration(config: RestoreConfig, archive: Archive, target: Source) -> "Restoration":
    from hop_archive.recover.restore.prepare import Restoration

    texts = {"since": config.since, "until": config.until, "as_of": config.as_of}
    at: dict[str, int | None] = {}
    for name, text in texts.items():
        try:
            at[name] = milliseconds(moment_of(text, archive.now())) if text else None
        except (ValueError, OverflowError) as error:
            raise ConfigurationError(f"{text!r} is no moment: wanted {MOMENT_HELP}.") from error
    return Restoration(
        archive.catalog,
        archive.store,
        target,
        Request(
            query=Query(
                topics=() if config.topics == ["*"] else tuple(config.topics),
                since_ms=at["since"],
                until_ms=at["until"],
                condition=config.where,
                retracted=None if config.with_retracted else False,
            ),
            generations=generations_of(config.generation),
            as_of_ms=at["as_of"],
            template=config.to_topic_template,
            append=config.append,
            duplicates=config.with_duplicates,
            tests=not config.without_tests,
            skip_damaged=config.skip_damaged,
            skip_unsendable=config.skip_unsendable,
            topic_settings=config.topic_config,
            set_topic_config=config.set_topic_config,
            keep_topic_config=config.keep_topic_config,
            by_key=config.by_key,
            keep_archive_id=config.keep_archive_id,
        ),
        archive.topics,
        {name: text for name, text in texts.items() if is_ago(text)},
        archive.now,
    )


def _plan_metadata(restoration: "Restoration", config: RestoreConfig) -> dict[str, Any]:
    from hop_archive.recover.restore.prepare import prepare
    from hop_archive.recover.restore.run import done_before

    found = prepare(restoration, anew=config.restart)
    done = None if config.restart else done_before(found, config.groups, check=config.check)
    if done is not None:
        return {**_metadata(done), "dry_run": True, "in_the_way": 0}
    targets = (
        {"topic": t.source, "to": t.topic, "messages": t.messages, "bytes": t.measure.size_bytes}
        for t in found.plan.targets
    )
    problems = ({"where": p.where, "what": p.what, "remedy": p.remedy} for p in found.problems)
    return {
        "dry_run": True,
        "messages": found.plan.messages,
        "bytes": found.plan.measure.size_bytes,
        "in_the_way": len(found.problems),
        "notes": "\n".join(found.notes[:MOST_SHOWN]),
        **table("topics", targets),
        **table("what_is_in_the_way", problems),
    }


def _metadata(result: "RestoreResult") -> dict[str, Any]:
    rows = (
        {
            "topic": topic["source_topic"],
            "to": name,
            "messages": topic["messages"],
            "compared": topic["compared"] or 0,
        }
        for name, topic in sorted(result.report["topics"].items())
    )
    return {
        "dry_run": False,
        "restore": result.number,
        "messages": result.report["messages"],
        "left_out": result.left_out,
        "checked": result.report["checked"],
        **table("topics", rows),
        "report": result.report["report"],
        "notes": "\n".join(result.report["notes"][:MOST_SHOWN]),
    }


restore_job = upkeep_job(
    "restore",
    ASKED,
    restores,
    "Puts archived messages back on Kafka: Materialize ▾ → Open launchpad. With dry_run, which is the default, it shows what it would do.",
    only_fields("restores", RestoreRequest),
)


class RebuildConfig(dg.Config):
    """What of the catalog to rebuild."""

    topics: list[str] = Field(
        default=[],
        description="Only these topics: names, or globs such as gcn.*; empty: all that are stored.",
    )
    dry_run: bool = Field(default=True, description="Only say what would be read; nothing is changed.")
    ask_source: bool = Field(
        default=True,
        description="Ask Kafka whether a topic is still the archived one. Else it is read once more, as copies.",
    )


@dg.op(out=dg.Out(dg.Nothing))
def rebuild_rows(
    context: dg.OpExecutionContext, config: RebuildConfig, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.Output[None]]:
    """Plan, or do it; topic by topic. A run that was killed is done again, and goes on."""
    from hop_archive.recover.rebuild.plan import plan, stored_topics
    from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild

    with as_failures():
        if config.dry_run:
            plans = list(plan(archive.catalog, archive.store, stored_topics(archive.store, config.topics)))
            to_read = table("plan", (asdict(topic) for topic in plans if topic.to_read))
            objects = sum(topic.to_read for topic in plans)
            context.log.info(f"{counted(objects, 'object')} to read. A dry run: nothing is changed.")
            yield dg.Output(None, metadata={"dry_run": True, "objects_to_read": objects, **to_read})
            return
        source = archive.source if config.ask_source else None
        work = Rebuild(archive.catalog, archive.store, source, tuple(config.topics), run_id=archive.run_id)
        rows = []
        for finding in rebuild(work):
            context.log.warning(f"{finding.kind.value} {finding.object_key}: {finding.detail}")
            rows.append({"kind": finding.kind.value, "object": finding.object_key, "detail": finding.detail})
    counts = work.progress.counts
    yield dg.Output(
        None,
        metadata={
            "dry_run": False,
            "messages_added": counts["added"],
            "objects_read": counts["read"],
            "topics": counts["topics"],
            "recognised": counts["claimed"],
            "findings": "none",
            **table("findings", rows),
        },
    )


@dg.job(
    config=only_fields("rebuild_rows", RebuildConfig),
    tags=upkeep_tags(ASKED),
    description="Completes the catalog from the documents in the store, for a database that was lost or damaged: what is missing is "
    "added, what is there stays. First as a plan (dry_run), then for real. Running it again does what is left.",
)
def rebuild_catalog() -> None:
    """One step."""
    rebuild_rows()
