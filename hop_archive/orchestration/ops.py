"""Ops of archiving: plan → write objects (a step for each unit) → catalog (likewise) → follow → report → judge.

Each can be run again: the ledger says what is done, and objects are created only if absent.
"""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch
from hop_archive.errors import ConfigurationError, ConflictError, HopArchiveError
from hop_archive.ingest.follow import catch_up, follow_for
from hop_archive.ingest.plan import Plan, units
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.tally import TopicTally, sum_tallies, tally
from hop_archive.ingest.undone import Undone
from hop_archive.ingest.write import Done, commit_batches, store_slices
from hop_archive.model.findings import Kind
from hop_archive.model.slices import EMPTY, OffsetSet, Slice
from hop_archive.model.topics import told_unmet
from hop_archive.orchestration import hand_over
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.findings_checks import evaluations
from hop_archive.orchestration.materializing import report_topics

UNIT_MESSAGES = 20_000
"""Offsets in one unit of work: its rows pass between steps at once, some 10 MB of them."""

_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)


_TOPICS = "Topics; empty: that of the run's partition, or all that the source stanza says are archived."


class SliceConfig(dg.Config):
    """Half-open offset range of one partition of one generation."""

    topic: str = Field(description="Kafka topic name.")
    generation: int = Field(description="Number of the topic's generation, as in the catalog.")
    partition: int = Field(description="Kafka partition.")
    start: int = Field(description="First offset.")
    stop: int = Field(description="Offset after the last.")


class PlanConfig(dg.Config):
    """What to archive. Nothing need be given: it is then the partition that the run is for, or all topics."""

    topics: list[str] = Field(default=[], description=_TOPICS)
    slices: list[SliceConfig] = Field(
        default=[], description="Just these slices; empty: all that is to be done."
    )


class FollowConfig(dg.Config):
    """Whether to stay and archive what arrives."""

    topics: list[str] = Field(default=[], description=_TOPICS)
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
    with told():
        found = _given(config) or plan_work(archive, _topics(context, config.topics, archive)).plan
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
    with told():
        return store_slices(archive, unit)


# Rows before the next unit's objects: a higher priority keeps few units in the making.
@dg.op(out=dg.Out(io_manager_key="hand_over"), retry_policy=_RETRIES, tags={"dagster/priority": "1"})
def catalog(
    context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], batches: list[Batch]
) -> dict[str, TopicTally]:
    """Commit each batch with its rows in one transaction; what another run has taken is left."""
    with told():
        dones = commit_batches(archive, batches)
    _log_disputes(context, dones)
    return tally(batch for done in dones for batch in done.batches)


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

    What is left undone in the end, with its reason, is told to the last step: there the run fails. So does an outage tell
    what was archived before it; one before anything was is tried again.
    """
    planned = sorted({*config.topics, *(s.topic for s in slices)})
    here: dict[str, TopicTally] = {}
    at_first = meanwhile = ""
    with told():
        missing = _missing(archive, slices)
        _close_done(archive, planned, missing)
        try:
            for dones in _again(archive, missing):
                here = _counted(context, here, dones)
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
    with told():
        metadata = report_topics(context, archive, sum_tallies([total, lost]))
    yield dg.Output(None, metadata=metadata)
    if context.has_partition_key or context.has_partition_key_range:
        _end(context, left)


@dg.op(ins={"reported": dg.In(dg.Nothing)}, retry_policy=_RETRIES)
def judge(context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], left: str) -> None:
    """Say again what is open of the topics that this run archived: a check from before it would be out of date.

    A shared run ends here: it fails, where it left work undone again and again.
    """
    logs = context.instance.all_logs(context.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    judged = {event.partition for entry in logs if (event := entry.dagster_event) and event.partition}
    with told():
        if left:
            found = archive.catalog.open_findings()
            judged |= {one.topic for one in found if one.kind is Kind.LEFT_UNDONE}
        for one in evaluations(context.instance, archive.catalog, judged, only_open=True):
            context.log_event(one)  # type: ignore[arg-type]  # it takes them; its type does not say so (1.13)
    _end(context, left)


def _end(context: dg.OpExecutionContext, left: str) -> None:
    # A run that goes on with another one was handed that one's files too.
    run = context.run
    earlier = [run_id for run_id in (run.parent_run_id, run.root_run_id) if run_id]
    hand_over.discard(context.instance, run.run_id, earlier)
    if left:
        raise dg.Failure(left, allow_retries=False)


def _given(config: PlanConfig) -> Plan | None:
    """The slices that the configuration names, as a plan; None where it names none."""
    try:
        slices = [Slice(s.topic, s.generation, s.partition, s.start, s.stop) for s in config.slices]
    except ValueError as error:
        raise ConfigurationError(
            f"A slice of the run configuration cannot be: {error}.", remedy="Launch the run with others."
        ) from error
    return Plan(tuple(slices)) if slices else None


def _topics(context: dg.OpExecutionContext, configured: list[str], archive: Archive) -> list[str]:
    if configured or context.has_partition_key or context.has_partition_key_range:
        return configured or list(context.partition_keys)
    found = archive.source.topics()
    there = sorted(
        {*found, *found.untold}
    )  # the plan says of what could not be described that it is in the way
    if unmet := told_unmet(archive.topics.unmet(there), archive.source.name):
        context.log.warning(unmet)
    return [name for name in there if archive.topics.archived(name)]


def _missing(archive: Archive, slices: list[Slice]) -> list[Slice]:
    """Those of ``slices`` of which the ledger does not have all."""
    coverage = archive.catalog.coverage(sorted({s.topic for s in slices})) if slices else {}
    return [s for s in slices if OffsetSet.between(s.start, s.stop) - coverage.get(s.partition_log, EMPTY)]


def _close_done(archive: Archive, topics: list[str], missing: list[Slice]) -> None:
    """Close what was found to be left undone in ``topics``, but for those in which something is ``missing``."""
    Undone(archive, topics).plan([], pending={s.topic for s in missing})


def _again(archive: Archive, missing: list[Slice]) -> Iterator[list[Done]]:
    """Try once more what the ledger does not have."""
    if missing:
        targets = {
            s.partition_log: max(t.stop for t in missing if t.partition_log == s.partition_log)
            for s in missing
        }
        yield from ([done] for done in catch_up(archive, sorted({s.topic for s in missing}), targets=targets))


def _counted(
    context: dg.OpExecutionContext, counts: dict[str, TopicTally], dones: list[Done]
) -> dict[str, TopicTally]:
    """The counts with what was stored added; what was disputed is logged."""
    _log_disputes(context, dones)
    return sum_tallies([counts, tally(batch for done in dones for batch in done.batches)])


def _log_disputes(context: dg.OpExecutionContext, dones: list[Done]) -> None:
    for done in dones:
        if done.note:
            context.log.info(f"Left for the next plan: {done.note}")
