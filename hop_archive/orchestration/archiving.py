"""Archiving: every message of a topic as an asset, a partition a topic; how it is made, checked and reported.

Ops: plan → write objects (a step for each unit) → catalog (likewise) → follow → report → judge. Each can be run again:
the ledger says what is done, and objects are created only if absent.

Dagster takes a check of a partition to be of the materialization that it was evaluated after, and shows one that is
of an older materialization as not evaluated. So green says of a topic that nothing was open when verification last
looked, and that nothing was archived since; red and yellow are said again after each run that archives.
"""

import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch
from hop_archive.errors import ConfigurationError, ConflictError, HopArchiveError
from hop_archive.ingest.follow import catch_up, follow_for
from hop_archive.ingest.plan import Plan, units
from hop_archive.ingest.survey import plan_work, survey
from hop_archive.ingest.tally import TopicTally, sum_tallies, tally
from hop_archive.ingest.undone import Undone
from hop_archive.ingest.write import Done, commit_batches, store_slices
from hop_archive.model.findings import Kind, OpenCount
from hop_archive.model.slices import EMPTY, OffsetSet, Slice
from hop_archive.model.topics import unmet_message
from hop_archive.orchestration import hand_over
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import LIVE, newest_materializations, table, topic_tags

ARCHIVED_MESSAGES = dg.AssetKey("archived_messages")

TOPICS = dg.DynamicPartitionsDefinition(name="topics")
"""Partition keys: one a topic, added as topics appear, never removed (what was archived stays)."""

UNIT_MESSAGES = 20_000
"""Offsets in one unit of work: its rows pass between steps at once, some 10 MB of them."""

_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)

_WHICH_TOPICS = "Topics; empty: that of the run's partition, or all that the source stanza says are archived."


class SliceConfig(dg.Config):
    """Half-open offset range of one partition of one generation."""

    topic: str = Field(description="Kafka topic name.")
    generation: int = Field(description="Number of the topic's generation, as in the catalog.")
    partition: int = Field(description="Kafka partition.")
    start: int = Field(description="First offset.")
    stop: int = Field(description="Offset after the last.")


class PlanConfig(dg.Config):
    """What to archive. Nothing need be given: it is then the partition that the run is for, or all topics."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    slices: list[SliceConfig] = Field(
        default=[], description="Just these slices; empty: all that is to be done."
    )


class FollowConfig(dg.Config):
    """Whether to stay and archive what arrives."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    follow_s: float = Field(
        default=0.0, ge=0, description="How long to stay after catching up, in seconds; 0: not at all."
    )


@dg.op(
    out={
        "units": dg.DynamicOut(list[Slice], io_manager_key="hand_over"),
        "slices": dg.Out(list[Slice], io_manager_key="hand_over"),
        "lost": dg.Out(dict[str, TopicTally], io_manager_key="hand_over"),
    },
    retry_policy=_RETRIES,
)
def plan(
    context: dg.OpExecutionContext, config: PlanConfig, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.DynamicOutput[list[Slice]] | dg.Output[list[Slice]] | dg.Output[dict[str, TopicTally]]]:
    """Compare watermarks with coverage; record what is lost; divide the work into units."""
    with as_failures():
        try:
            given = tuple(Slice(s.topic, s.generation, s.partition, s.start, s.stop) for s in config.slices)
        except ValueError as error:
            raise ConfigurationError(
                f"A slice of the run configuration cannot be: {error}.", remedy="Launch the run with others."
            ) from error
        found = Plan(given) if given else plan_work(archive, _topics(context, config.topics, archive)).plan
    for gone in found.lost:
        context.log.warning(f"Recorded as no longer to be had: {gone}")
    work = units(found.slices, UNIT_MESSAGES)
    context.log.info(f"{found.messages} offsets in {len(found.slices)} slices, {len(work)} units")
    for number, unit in enumerate(work):
        yield dg.DynamicOutput(list(unit), mapping_key=f"unit_{number:05}", output_name="units")
    yield dg.Output(list(found.slices), output_name="slices")
    lost = sum_tallies({s.topic: TopicTally(s.topic, lost=len(s))} for s in found.lost)
    yield dg.Output(lost, output_name="lost")


@dg.op(out=dg.Out(io_manager_key="hand_over"), retry_policy=_RETRIES)
def write_objects(archive: dg.ResourceParam[Archive], unit: list[Slice]) -> list[Batch]:
    """Read the slices of a unit and create their objects, each only if absent."""
    with as_failures():
        return store_slices(archive, unit)


# Rows before the next unit's objects: a higher priority keeps few units in the making.
@dg.op(out=dg.Out(io_manager_key="hand_over"), retry_policy=_RETRIES, tags={"dagster/priority": "1"})
def catalog(
    context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], batches: list[Batch]
) -> dict[str, TopicTally]:
    """Commit each batch with its rows in one transaction; what another run has taken is left."""
    with as_failures():
        dones = commit_batches(archive, batches)
    return _counted(context, {}, dones)


@dg.op(
    out={
        "total": dg.Out(dict[str, TopicTally], io_manager_key="hand_over"),
        "left": dg.Out(str, io_manager_key="hand_over"),
    },
    retry_policy=_RETRIES,
)
def follow(
    context: dg.OpExecutionContext,
    config: FollowConfig,
    archive: dg.ResourceParam[Archive],
    tallies: list[dict[str, TopicTally]],
    slices: list[Slice],
) -> tuple[dict[str, TopicTally], str]:
    """Do again what was left of the plan; stay for a while, if asked to, and archive what arrives about a second later.

    What is left undone in the end, with its reason, is handed to the last step: there the run fails. So does an outage hand on
    what was archived before it; one before anything was is tried again.
    """
    planned = sorted({*config.topics, *(s.topic for s in slices)})
    here: dict[str, TopicTally] = {}
    at_first = meanwhile = ""
    with as_failures():
        missing = _missing(archive, slices)
        _close_done(archive, planned, missing)
        try:
            targets = {
                s.partition_log: max(t.stop for t in missing if t.partition_log == s.partition_log)
                for s in missing
            }
            again = sorted({s.topic for s in missing})
            for done in catch_up(archive, again, targets=targets) if missing else ():
                here = _counted(context, here, [done])
        except HopArchiveError as error:
            at_first = str(error)
        try:
            try:
                topics = _topics(context, config.topics, archive) if config.follow_s else []
                for dones in follow_for(archive, topics, config.follow_s, time.sleep):
                    here = _counted(context, here, dones)
            except ConflictError as error:
                meanwhile = str(error)
            # What could not be done at first may have been done since: then it is no reason to fail.
            missing = _missing(archive, missing)
            if not meanwhile:
                _close_done(archive, planned, missing)
        except HopArchiveError as error:
            if not here:
                raise
            meanwhile = str(error)
    left = at_first if missing else ""
    return sum_tallies([*tallies, here]), " ".join(filter(None, [left, meanwhile]))


def _topics(context: dg.OpExecutionContext, configured: list[str], archive: Archive) -> list[str]:
    if configured or context.has_partition_key or context.has_partition_key_range:
        return configured or list(context.partition_keys)
    found = archive.source.topics()
    # The plan says of what could not be described that it is in the way.
    there = sorted({*found, *found.untold})
    if unmet := unmet_message(archive.topics.unmet(there), archive.source.name):
        context.log.warning(unmet)
    return [name for name in there if archive.topics.archived(name)]


def _missing(archive: Archive, slices: list[Slice]) -> list[Slice]:
    """Those of ``slices`` of which the ledger does not have all."""
    coverage = archive.catalog.coverage(sorted({s.topic for s in slices})) if slices else {}
    return [s for s in slices if OffsetSet.between(s.start, s.stop) - coverage.get(s.partition_log, EMPTY)]


def _close_done(archive: Archive, topics: list[str], missing: list[Slice]) -> None:
    """Close what was found to be left undone in ``topics``, but for those in which something is ``missing``."""
    Undone(archive, topics).plan([], pending={s.topic for s in missing})


def _counted(
    context: dg.OpExecutionContext, counts: dict[str, TopicTally], dones: list[Done]
) -> dict[str, TopicTally]:
    """The counts with what was stored added; what was disputed is logged."""
    for done in dones:
        if done.note:
            context.log.info(f"Left for the next plan: {done.note}")
    return sum_tallies([counts, tally(batch for done in dones for batch in done.batches)])


@dg.op
def report(
    context: dg.OpExecutionContext,
    archive: dg.ResourceParam[Archive],
    total: dict[str, TopicTally],
    lost: dict[str, TopicTally],
    left: str,
) -> Iterator[dg.Output[None]]:
    """Say what was archived: of the partition that the run is for, or of each topic that had messages.

    A run of a partition ends here. Where it left work undone again and again, it fails after that: what was archived is,
    and the rest is not well.
    """
    with as_failures():
        metadata = _report_topics(context, archive, sum_tallies([total, lost]))
    yield dg.Output(None, metadata=metadata)
    if context.has_partition_key or context.has_partition_key_range:
        _end(context, left)


def _report_topics(
    context: dg.OpExecutionContext, archive: Archive, total: Mapping[str, TopicTally]
) -> dict[str, Any]:
    """Log a materialization of every topic that had messages, unless the run is an asset's own; tag the run.

    Returns:
        The metadata of the run's output: its topic's numbers, or the sums over all.
    """
    shared = not context.has_partition_key
    lags = survey(archive, list(total)).pending() if total else {}
    now_s = archive.now().timestamp()
    record = context.instance.get_run_record_by_id(context.run_id)
    elapsed_s = max(now_s - (record.start_time if record and record.start_time else now_s), 0.001)
    if shared:
        for topic, numbers in sorted(total.items()):
            metadata = _metadata(archive, numbers, lags.get(topic, 0), elapsed_s)
            context.log_event(dg.AssetMaterialization(ARCHIVED_MESSAGES, partition=topic, metadata=metadata))
    # Followed topics are known now only, and runs that people start have no tags of the sensor's.
    tags = topic_tags(total if shared else [context.partition_key], shared=shared)
    context.instance.add_run_tags(
        context.run_id, {k: v for k, v in tags.items() if k not in context.run_tags}
    )
    whole = sum(total.values(), start=TopicTally("all"))
    return _metadata(archive, whole, sum(lags.values()), elapsed_s)


def _metadata(archive: Archive, numbers: TopicTally, lag: int, elapsed_s: float) -> dict[str, Any]:
    """Numbers that the UI plots."""
    lag_s = 0.0  # where there is no message to judge by
    if numbers.last_timestamp_ms is not None and numbers.last_timestamp_ms >= 0:
        lag_s = round(max(0.0, archive.now().timestamp() - numbers.last_timestamp_ms / 1000), 1)
    return {
        "messages": numbers.messages,
        "bytes": numbers.size_bytes,
        "duplicates": numbers.duplicates,
        "absent": numbers.absent,
        "lost": numbers.lost,
        "collisions": numbers.collisions,
        "lag_messages": lag,
        "lag_s": lag_s,
        "messages_per_s": round(numbers.messages / elapsed_s, 1),
    }


@dg.op(ins={"reported": dg.In(dg.Nothing)}, retry_policy=_RETRIES)
def judge(context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], left: str) -> None:
    """Say again what is open of the topics that this run archived: a check from before it would be out of date.

    A shared run ends here: it fails, where it left work undone again and again.
    """
    logs = context.instance.all_logs(context.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    judged = {event.partition for entry in logs if (event := entry.dagster_event) and event.partition}
    with as_failures():
        if left:
            found = archive.catalog.open_findings()
            judged |= {count.topic for count in found if count.kind is Kind.LEFT_UNDONE}
        for evaluation in evaluations(context.instance, archive.catalog, judged, only_open=True):
            context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them; its type does not say so (1.13)
    _end(context, left)


def _end(context: dg.OpExecutionContext, left: str) -> None:
    # A run that goes on with another one was handed that one's files too.
    run = context.run
    earlier = [run_id for run_id in (run.parent_run_id, run.root_run_id) if run_id]
    hand_over.discard(context.instance, run.run_id, earlier)
    if left:
        raise dg.Failure(left, allow_retries=False)


def _reported() -> tuple[Any, Any]:
    """The steps that both graphs have, and what each hands to the next; what was reported, and what is left undone."""
    planned = plan()
    written = planned.units.map(write_objects)
    followed = follow(written.map(catalog).collect(), planned.slices)
    return report(followed.total, planned.lost, followed.left), followed.left


@dg.graph(
    description="Plans, writes objects unit by unit, catalogues each, does again what was left, follows for a while if "
    "asked to, reports."
)
def archiving() -> None:
    """Ends with what makes the materialization; a run of one partition has that partition's checks."""
    return _reported()[0]  # type: ignore[no-any-return]


@dg.graph(description="The same of several topics, and says again what is open of them.")
def archiving_together() -> None:
    """Ends with what needs the materializations to be there."""
    reported, left = _reported()
    judge(reported=reported, left=left)


archived_messages = dg.AssetsDefinition.from_graph(
    archiving,
    keys_by_output_name={"result": ARCHIVED_MESSAGES},
    # With no backfill policy, a backfill starts a run for each partition, named by its key. With one, its runs
    # are of key ranges: the sensor, the queue's limit for each topic, and plots by partition rest on keys.
    partitions_def=TOPICS,
    group_name="archive",
    owners_by_output_name={"result": ["team:hop-archive"]},
    tags_by_output_name={"result": {f"dagster/kind/{kind}": "" for kind in ("kafka", "s3", "postgres")}},
    descriptions_by_output_name={
        "result": (
            "Every message of a public Kafka topic: an object in S3 and a row in the catalog. To archive what "
            "is new, or to fill any hole, materialize a partition: no configuration is needed, the ledger says "
            "what is to be done, and nothing is archived twice."
        )
    },
)

# A run that died is done again whole: the ledger says what is left, and what the steps of the dead one handed
# over may be on a machine that is gone.
_AFRESH = {"dagster/retry_strategy": "ALL_STEPS"}

archive_topic = dg.define_asset_job(
    "archive_topic",
    selection=dg.AssetSelection.assets(archived_messages),
    description="Archives one topic: a partition of archived_messages. The sensor runs it for busy topics.",
    tags=_AFRESH,
)

archive_quiet_topics = archiving_together.to_job(
    "archive_quiet_topics",
    description="Archives the topics of its configuration in one run, and follows them if asked to. The sensor "
    "runs it: what many quiet topics cost is one run.",
    tags=_AFRESH,
)

_ARCHIVING_JOBS = (archive_topic.name, archive_quiet_topics.name, "__ASSET_JOB")
"""The last is what Dagster calls the runs that people and backfills start from the asset's page."""


def live_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that archive, or are about to, and those that people started from an asset's page."""
    filters = (dg.RunsFilter(job_name=name, statuses=LIVE) for name in _ARCHIVING_JOBS)
    # Runs from an asset's page are of all assets, or of a selection, or of checks alone.
    return [
        run
        for of_job in filters
        for run in instance.get_runs(of_job)
        if (
            ARCHIVED_MESSAGES in run.asset_selection
            if run.asset_selection is not None
            else not run.asset_check_selection
        )
    ]


_OF_OBJECTS = frozenset({Kind.MISSING_OBJECT, Kind.WRONG_SIZE, Kind.CORRUPT_OBJECT})
_HARMLESS = frozenset({Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT, Kind.NOT_ARCHIVED})


@dataclass(frozen=True, slots=True)
class FindingsCheck:
    """What open findings of some kinds say.

    Attributes:
        name: The check's name.
        description: What holds while it is green.
        kinds: The findings that it is about.
    """

    name: str
    description: str
    kinds: frozenset[Kind]

    def judge(self, found: Iterable[OpenCount]) -> dg.AssetCheckResult:
        """Red while findings of its kinds are open; yellow where all is archived and only something too much is there."""
        counts = [count for count in found if count.kind in self.kinds]
        number = sum(count.number for count in counts)
        harmless = all(count.kind in _HARMLESS for count in counts)
        rows = (
            {
                "topic": count.topic,
                "kind": count.kind.value,
                "open": count.number,
                "since": f"{count.since:%Y-%m-%d %H:%M} UTC",
            }
            for count in counts
        )
        return dg.AssetCheckResult(
            passed=not counts,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.WARN if harmless else dg.AssetCheckSeverity.ERROR,
            description=f"Open findings: {number:,}, by topic below." if counts else None,
            metadata={"open": number, **table("by_topic", rows)},
        )


OBJECTS_PRESENT = FindingsCheck(
    "objects_present",
    "No object is missing, cut short or damaged, as far as the jobs verify and scrub have looked.",
    _OF_OBJECTS,
)
NO_OPEN_FINDINGS = FindingsCheck(
    "no_open_findings",
    "Nothing else that verification found is open: the jobs verify and scrub look, repair mends.",
    frozenset(Kind) - _OF_OBJECTS,
)
_BOTH = (OBJECTS_PRESENT, NO_OPEN_FINDINGS)

with warnings.catch_warnings():
    # Checks by partition are called a preview (1.13): what is used of them is here alone.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    _specs = [
        dg.AssetCheckSpec(
            check.name, asset=ARCHIVED_MESSAGES, description=check.description, partitions_def=TOPICS
        )
        for check in _BOTH
    ]


@dg.multi_asset_check(specs=_specs)
def topic_findings(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.AssetCheckResult]:
    """Judge one topic, the run's partition, by what is open of it."""
    with as_failures():
        found = archive.catalog.open_findings([context.partition_key])
    for check in _BOTH:
        yield check.judge(found)


# The type of a public field of AssetCheckEvaluation; by itself it is not exported (1.13).
_Materialization, _ = get_args(get_type_hints(dg.AssetCheckEvaluation)["target_materialization_data"])


def evaluations(
    instance: dg.DagsterInstance, catalog: Catalog, topics: Collection[str], *, only_open: bool = False
) -> Iterator[dg.AssetCheckEvaluation]:
    """Both checks of each of these topics that has a partition, as of now, for a run of several topics to log.

    Args:
        instance: Where the partitions and their materializations are.
        catalog: What is open.
        topics: The topics to judge.
        only_open: Only those of which something is open.
    """
    partitions = set(instance.get_dynamic_partitions("topics"))
    found: dict[str, list[OpenCount]] = {}
    for count in catalog.open_findings(sorted(topics)):
        found.setdefault(count.topic, []).append(count)
    judged = sorted(partitions.intersection(found if only_open else topics))
    newest = {
        record.partition_key: _Materialization(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in newest_materializations(instance, ARCHIVED_MESSAGES, judged)
    }
    for topic in judged:
        for check in _BOTH:
            result = check.judge(found.get(topic, ()))
            if result.passed and only_open:
                continue
            yield dg.AssetCheckEvaluation(
                ARCHIVED_MESSAGES,
                check.name,
                passed=result.passed,
                metadata=result.metadata,
                target_materialization_data=newest.get(topic),
                severity=result.severity,
                description=result.description,
                partition=topic,
            )
