"""Restoring to Kafka from the UI, and rebuilding the catalog from the store. Started by people; nothing runs them by itself."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.times import MOMENT_HELP, is_ago, milliseconds, moment_of
from hop_archive.model.wording import counted
from hop_archive.orchestration.archiving import archived_messages
from hop_archive.orchestration.resources import Targets, as_failures
from hop_archive.orchestration.runs import ASKED, MOST_SHOWN, table, upkeep_job
from hop_archive.recover.rebuild.plan import plan, stored_topics
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration, prepare
from hop_archive.recover.restore.request import SAME_NAME, Request, generations_of
from hop_archive.recover.restore.run import RestoreResult, restore
from hop_archive.source.protocol import Source

_MOST_NAMED = 5
_SAY_EVERY_S = 30.0


class RestoreConfig(dg.Config):
    """What to restore, and where to. Nothing is written unless ``dry_run`` is false."""

    topics: list[str] = Field(
        default=[], description="Topics to restore: names, or globs such as gcn.*; ['*'] for all. Wanted."
    )
    to_source: str = Field(
        default="", description="Source stanza to write to; it has to say writable = true. Wanted."
    )
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


@dg.asset(
    group_name="restore",
    deps=[archived_messages],
    kinds={"kafka"},
    owners=["team:hop-archive"],
    description="Topics that were put back on Kafka: each materialization is a restore, with its report. The job "
    "restore makes one; it only shows its plan unless dry_run is false. Launched again with the same "
    "configuration, a restore that was interrupted goes on where it was.",
)
def restored_topics(
    context: dg.AssetExecutionContext,
    config: RestoreConfig,
    archive: dg.ResourceParam[Archive],
    targets: dg.ResourceParam[Targets],
) -> dg.MaterializeResult[None]:
    """Plan a restore; unless it is a dry run, write, compare, and report."""
    with as_failures():
        if not (config.topics and config.to_source):
            raise ConfigurationError(
                "Which topics, and where to? The fields topics and to_source are wanted.",
                remedy="Launch the job restore from its Launchpad, where they can be said.",
            )
        with closing(targets.open(config.to_source, config.production)) as target:
            restoration = _restoration(config, archive, target)
            if config.dry_run:
                metadata = _plan_metadata(restoration)
                context.log.info("A dry run: nothing is written. Set dry_run to false to restore.")
                return dg.MaterializeResult(metadata=metadata)
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
        return dg.MaterializeResult(metadata=_metadata(result))
    raise dg.Failure(wrong, metadata=_metadata(result), allow_retries=False)


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


def _restoration(config: RestoreConfig, archive: Archive, target: Source) -> Restoration:
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


def _plan_metadata(restoration: Restoration) -> dict[str, Any]:
    found = prepare(restoration)
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


def _metadata(result: RestoreResult) -> dict[str, Any]:
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
    restored_topics,
    "Puts archived messages back on Kafka. With dry_run, which is the default, it shows what it would do.",
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


@dg.asset(
    group_name="upkeep",
    kinds={"s3", "postgres"},
    owners=["team:hop-archive"],
    description="The catalog, completed from the documents in the store: what is missing is added, what is there stays. "
    "For a database that was lost or damaged. Running it again does what is left.",
)
def rebuilt_catalog(
    context: dg.AssetExecutionContext, config: RebuildConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Plan, or do it; topic by topic. A run that was killed is done again, and goes on."""
    with as_failures():
        if config.dry_run:
            plans = list(plan(archive.catalog, archive.store, stored_topics(archive.store, config.topics)))
            to_read = table("plan", (topic._asdict() for topic in plans if topic.to_read))
            objects = sum(topic.to_read for topic in plans)
            return dg.MaterializeResult(metadata={"objects_to_read": objects, **to_read})
        source = archive.source if config.ask_source else None
        work = Rebuild(archive.catalog, archive.store, source, tuple(config.topics), run_id=archive.run_id)
        rows = []
        for finding in rebuild(work):
            context.log.warning(f"{finding.kind.value} {finding.object_key}: {finding.detail}")
            rows.append({"kind": finding.kind.value, "object": finding.object_key, "detail": finding.detail})
    counts = work.progress.counts
    return dg.MaterializeResult(
        metadata={
            "messages_added": counts["added"],
            "objects_read": counts["read"],
            "topics": counts["topics"],
            "recognised": counts["claimed"],
            "findings": "none",
            **table("findings", rows),
        }
    )


rebuild_catalog = upkeep_job(
    "rebuild_catalog",
    ASKED,
    rebuilt_catalog,
    "Makes the catalog from the store: first as a plan (dry_run), then for real. Started by people.",
)
