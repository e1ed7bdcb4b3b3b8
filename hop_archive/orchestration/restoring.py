"""Restoring to Kafka from the UI: an asset whose materializations are restores, and the job that makes one."""

import datetime
import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.config.load import load
from hop_archive.config.open import open_source
from hop_archive.errors import ConfigurationError, ForbiddenError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.times import MOMENT_HELP, is_ago, milliseconds, moment_of
from hop_archive.model.wording import counted
from hop_archive.orchestration.assets import archived_messages
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import ASKED, upkeep_tags
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Preparation, Restoration, prepare
from hop_archive.recover.restore.request import SAME_NAME, Request, generations_of
from hop_archive.recover.restore.run import RestoreResult, restore
from hop_archive.source.protocol import Source

_MOST_SHOWN = 100
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
    generation: str = Field(default="latest", description="Which life of a topic: latest, all, or a number.")
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


class Targets:
    """Opens the source stanzas that restores write to."""

    def __init__(self, toml_file: str = "", environ: Mapping[str, str] = os.environ) -> None:
        self._toml_file = toml_file
        self._environ = environ

    def open(self, name: str, production: str) -> Source:
        """The source of that name.

        Raises:
            ForbiddenError: It is read-only; or it is production, and was not named twice.
            ConfigurationError: There is no such stanza, or a variable that it names is not set.
        """
        configuration = load(Path(self._toml_file) if self._toml_file else None, self._environ)
        stanza = configuration.source(name)
        if not stanza.writable or (stanza.production and production != name):
            raise ForbiddenError(
                f"Source {name} is {'production' if stanza.writable else 'read-only'}: refused to restore to it.",
                remedy="Choose another, or name a production source in the field production, too.",
                source=name,
            )
        return open_source(name, stanza, self._environ)


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
    with told():
        _refuse_unsaid(config)
    with told(), closing(targets.open(config.to_source, config.production)) as target:
        own = _restoration(config, archive, target)
        if config.dry_run:
            found = prepare(own)
            context.log.info("A dry run: nothing is written. Set dry_run to false to restore.")
            return dg.MaterializeResult(metadata=_plan_metadata(found))
        with tempfile.TemporaryDirectory(prefix="hop-archive-restore-") as folder:
            control = Control(
                messages_per_s=config.messages_per_s,
                bytes_per_s=config.bytes_per_s,
                check=config.check,
                patience_s=config.patience_s,
                notice=_Notices(context, archive),
            )
            outcome = restore(own, control, Path(folder), move_groups=config.groups, restart=config.restart)
    _refuse_what_is_wrong(outcome)
    return dg.MaterializeResult(metadata=_metadata(outcome))


restore_job = dg.define_asset_job(
    "restore",
    tags=upkeep_tags(ASKED),
    selection=dg.AssetSelection.assets(restored_topics),
    executor_def=in_process,
    description="Puts archived messages back on Kafka. With dry_run, which is the default, it shows what it would do.",
)


def _refuse_unsaid(config: RestoreConfig) -> None:
    if not (config.topics and config.to_source):
        raise ConfigurationError(
            "Which topics, and where to? The fields topics and to_source are wanted.",
            remedy="Launch the job restore from its Launchpad, where they can be said.",
        )


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
    moments = {"since": config.since, "until": config.until, "as_of": config.as_of}
    at = {name: _milliseconds(text, archive.now()) for name, text in moments.items()}
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
        {name: text for name, text in moments.items() if is_ago(text)},
        archive.now,
    )


def _milliseconds(text: str, now: datetime.datetime) -> int | None:
    if not text:
        return None
    try:
        return milliseconds(moment_of(text, now))
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{text!r} is no moment: wanted {MOMENT_HELP}.") from error


def _plan_metadata(found: Preparation) -> Mapping[str, dg.MetadataValue]:
    targets = [
        dg.TableRecord(
            {"topic": t.source, "to": t.topic, "messages": t.messages, "bytes": t.measure.size_bytes}
        )
        for t in found.plan.targets[:_MOST_SHOWN]
    ]
    findings = [
        dg.TableRecord({"where": one.where, "what": one.what, "remedy": one.remedy})
        for one in found.problems[:_MOST_SHOWN]
    ]
    return {
        "dry_run": dg.MetadataValue.bool(True),
        "messages": dg.MetadataValue.int(found.plan.messages),
        "bytes": dg.MetadataValue.int(found.plan.measure.size_bytes),
        "in_the_way": dg.MetadataValue.int(len(found.problems)),
        "notes": dg.MetadataValue.text("\n".join(found.notes[:_MOST_SHOWN])),
        "topics": dg.MetadataValue.table(targets),
    } | ({"what_is_in_the_way": dg.MetadataValue.table(findings)} if findings else {})


def _metadata(outcome: RestoreResult) -> Mapping[str, dg.MetadataValue]:
    rows = [
        dg.TableRecord(
            {
                "topic": one["source_topic"],
                "to": name,
                "messages": one["messages"],
                "compared": one["compared"] or 0,
            }
        )
        for name, one in sorted(outcome.report["topics"].items())[:_MOST_SHOWN]
    ]
    return {
        "dry_run": dg.MetadataValue.bool(False),
        "restore": dg.MetadataValue.int(outcome.number),
        "messages": dg.MetadataValue.int(outcome.report["messages"]),
        "left_out": dg.MetadataValue.int(outcome.left_out),
        "checked": dg.MetadataValue.bool(outcome.report["checked"]),
        "topics": dg.MetadataValue.table(rows),
        "report": dg.MetadataValue.text(outcome.report["report"]),
        "notes": dg.MetadataValue.text("\n".join(outcome.report["notes"][:_MOST_SHOWN])),
    }


def _refuse_what_is_wrong(outcome: RestoreResult) -> None:
    if outcome.differences or outcome.left_out:
        raise dg.Failure(
            f"{counted(outcome.differences, 'message of the target is', 'messages of the target are')} not as they should be, and {outcome.left_out} were left "
            "out. Everything else is there.",
            metadata=_metadata(outcome),
            allow_retries=False,
        )
    if outcome.unrestored:
        raise dg.Failure(
            f"Every message is there, and not all is as it was: {' '.join(outcome.unrestored[:_MOST_NAMED])}",
            metadata=_metadata(outcome),
            allow_retries=False,
        )
