"""Archiving: every message of a topic as an asset, a partition a topic; how it is made, checked and reported.

A run of one topic goes by steps: plan → write objects (a step for each unit) → catalog (likewise) → follow → report. A run of
several topics is one step: with more, it would leave as many events behind as it archives messages. Each can be run again:
the ledger says what is done, and objects are created only if absent.

Dagster takes a check of a partition to be of the materialization that it was evaluated after, and shows one that is
of an older materialization as not evaluated. So the checks of a topic are evaluated with each report of it, and green says
how much of the topic was read again.
"""

import datetime
import logging
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch
from hop_archive.errors import ConfigurationError, ConflictError, HopArchiveError, UnavailableError
from hop_archive.ingest.follow import catch_up, follow_for
from hop_archive.ingest.left_undone import LeftUndone
from hop_archive.ingest.plan import Plan, units
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.totals import TopicTotals, sum_totals, totals_of
from hop_archive.ingest.write import Done, archive_slices, commit_batches, store_slices
from hop_archive.model.findings import Kind
from hop_archive.model.slices import EMPTY, OffsetSet, Slice
from hop_archive.model.topics import unmet_message
from hop_archive.model.wording import counted
from hop_archive.orchestration import reports, run_files
from hop_archive.orchestration.findings import OF_TOPICS, evaluations
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import ARCHIVED, FOLLOWING, IN_VAIN, LIVE, OVER, Home, topic_tag
from hop_archive.orchestration.succession import Stay, predecessors, take_over

log = logging.getLogger(__name__)

TOPICS = dg.DynamicPartitionsDefinition(name="topics")
"""Partition keys: one a topic, added as topics appear, never removed (what was archived stays)."""

UNIT_MESSAGES = 20_000
"""Offsets in one unit of work: its rows pass between steps at once, some 10 MB of them."""

_PAGES_EVERY_S = 30.0
_PAGES_AT_ONCE = 10
"""How often a run that follows writes pages, and how many."""

_MOST_NAMED = 10

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


_HOW_LONG = "How long to stay after catching up, in seconds; 0: not at all."


class FollowConfig(dg.Config):
    """Whether to stay and archive what arrives."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    follow_s: float = Field(default=0.0, ge=0, description=_HOW_LONG)


class TogetherConfig(PlanConfig):
    """What to archive in one run, and whether to stay and archive what arrives."""

    follow_s: float = Field(default=0.0, ge=0, description=_HOW_LONG)
    report_every_s: float = Field(
        default=300.0,
        ge=0,
        description="A topic's partition is materialized once in so many seconds, and in fewer only where messages were lost.",
    )


@dg.op(
    out={
        "units": dg.DynamicOut(list[Slice], io_manager_key="run_files"),
        "slices": dg.Out(list[Slice], io_manager_key="run_files"),
        "lost": dg.Out(dict[str, TopicTotals], io_manager_key="run_files"),
    },
    retry_policy=_RETRIES,
)
def plan(
    context: dg.OpExecutionContext, config: PlanConfig, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.DynamicOutput[list[Slice]] | dg.Output[list[Slice]] | dg.Output[dict[str, TopicTotals]]]:
    """Compare watermarks with coverage; record what is lost; divide the work into units."""
    with as_failures():
        found = _planned(context, config, archive)
    work = units(found.slices, UNIT_MESSAGES)
    slices = f"{counted(len(found.slices), 'slice')}, {counted(len(work), 'unit')}"
    context.log.info(f"{counted(found.messages, 'message')} to archive: {slices}")
    for number, unit in enumerate(work):
        yield dg.DynamicOutput(list(unit), mapping_key=f"unit_{number:05}", output_name="units")
    yield dg.Output(list(found.slices), output_name="slices")
    yield dg.Output(_lost(found), output_name="lost")


def _planned(context: dg.OpExecutionContext, config: PlanConfig, archive: Archive) -> Plan:
    """What is configured, or what there is to do; losses are recorded, and logged."""
    try:
        given = tuple(Slice(s.topic, s.generation, s.partition, s.start, s.stop) for s in config.slices)
    except ValueError as error:
        raise ConfigurationError(
            f"A slice of the run configuration cannot be: {error}.", remedy="Launch the run with others."
        ) from error
    found = Plan(given) if given else plan_work(archive, _topics(context, config.topics, archive)).plan
    for gone in found.lost:
        context.log.warning(f"Recorded as no longer to be had: {gone}")
    return found


def _lost(found: Plan) -> dict[str, TopicTotals]:
    return sum_totals({s.topic: TopicTotals(s.topic, lost=len(s))} for s in found.lost)


@dg.op(out=dg.Out(io_manager_key="run_files"), retry_policy=_RETRIES)
def write_objects(
    context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], unit: list[Slice]
) -> list[Batch]:
    """Read the slices of a unit and create their objects, each only if absent."""
    with as_failures(), _noting_in_vain(context):
        return store_slices(archive, unit)


# Rows before the next unit's objects: a higher priority keeps few units in the making.
@dg.op(out=dg.Out(io_manager_key="run_files"), retry_policy=_RETRIES, tags={"dagster/priority": "1"})
def catalog(
    context: dg.OpExecutionContext, archive: dg.ResourceParam[Archive], batches: list[Batch]
) -> dict[str, TopicTotals]:
    """Commit each batch with its rows in one transaction; what another run has taken is left."""
    with as_failures(), _noting_in_vain(context):
        dones = commit_batches(archive, batches)
    return _counted(context, {}, dones)


@dg.op(
    out={
        "total": dg.Out(dict[str, TopicTotals], io_manager_key="run_files"),
        "left": dg.Out(str, io_manager_key="run_files"),
    },
    retry_policy=_RETRIES,
)
def follow(
    context: dg.OpExecutionContext,
    config: FollowConfig,
    archive: dg.ResourceParam[Archive],
    tallies: list[dict[str, TopicTotals]],
    slices: list[Slice],
) -> tuple[dict[str, TopicTotals], str]:
    """Do again what was left of the plan; stay for a while, if asked to, and archive what arrives about a second later.

    What is left undone in the end, with its reason, is handed to the last step: there the run fails. So does an outage hand on
    what was archived before it; one before anything was is tried again.
    """
    with as_failures():
        here, left = _completed(context, archive, config, slices)
    return sum_totals([*tallies, here]), left


def _completed(
    context: dg.OpExecutionContext,
    archive: Archive,
    config: FollowConfig | TogetherConfig,
    slices: Sequence[Slice],
    meanwhile_say: Callable[[Mapping[str, TopicTotals]], None] = lambda _: None,
) -> tuple[dict[str, TopicTotals], str]:
    """Do again what is left of ``slices``, and follow; what that archived, and why something is left undone in the end.

    Raises:
        HopArchiveError: Nothing was archived before it: trying again as a whole loses nothing.
    """
    planned = sorted({*config.topics, *(s.topic for s in slices)})
    here: dict[str, TopicTotals] = {}
    at_first = meanwhile = ""
    missing = _missing(archive, slices)
    # A run that takes over has no plan of its own before it follows: of what was left it knows nothing yet.
    has_looked = not predecessors(context.run_tags)
    if has_looked:
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
            for dones in _following(context, archive, config):
                here = _counted(context, here, dones)
                meanwhile_say(here)
        except ConflictError as error:
            meanwhile = str(error)
        # What could not be done at first may have been done since: then it is no reason to fail.
        missing = _missing(archive, missing)
        if has_looked and not meanwhile:
            _close_done(archive, planned, missing)
    except HopArchiveError as error:
        if not here:
            raise
        meanwhile = str(error)
    return here, " ".join(filter(None, [at_first if missing else "", meanwhile]))


def _following(
    context: dg.OpExecutionContext, archive: Archive, config: FollowConfig | TogetherConfig
) -> Iterator[list[Done]]:
    """Follow for the configured time; a run of the sensor's until its successor is ready."""
    topics = _topics(context, config.topics, archive) if config.follow_s else []
    if FOLLOWING not in context.run_tags:
        yield from follow_for(archive, topics, config.follow_s, time.sleep)
        return
    # One that is tried again may have said before that it left.
    follow_s = 0.0 if context.retry_number else config.follow_s
    stay = Stay(context.instance, context.run_id, follow_s, archive.monotonic)
    try:
        yield from follow_for(archive, topics, math.inf, time.sleep, stay.is_over)
    finally:
        stay.left()


@dg.op(out=dg.Out(dg.Nothing), retry_policy=_RETRIES)
def archive_topics(
    context: dg.OpExecutionContext, config: TogetherConfig, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.Output[None]]:
    """Archive what there is of several topics, stay for a while, if asked to, and say in one event what was done.

    Fails after that where it left work undone again and again. An outage before anything was archived is tried again.
    """
    with as_failures(), _Pages(context, archive, config.report_every_s) as pages:
        with _noting_in_vain(context):
            total, left = _archived(context, archive, config, pages)
        if context.retry_number:
            _note_in_vain(context, "")  # an earlier try was
        try:
            pages.write(total)
            if left:
                undone = {c.topic for c in archive.catalog.open_findings() if c.kind is Kind.LEFT_UNDONE}
                pages.judge(undone - {*total})
        except HopArchiveError as error:
            if not left:
                raise
            # What was archived is told all the same, and topic_pages writes the pages later.
            left = _with(left, error)
    yield dg.Output(None, metadata=reports.of_run(total, reports.elapsed_s(context)))
    if left:
        raise dg.Failure(left, allow_retries=False)


@contextmanager
def _noting_in_vain(context: dg.OpExecutionContext) -> Iterator[None]:
    """Tag the run where a server does not answer, or refuses: with its own id, since tags are copied to a run that does it again."""
    try:
        yield
    except (UnavailableError, ConfigurationError):
        _note_in_vain(context, context.run_id)
        raise


def _note_in_vain(context: dg.OpExecutionContext, run_id: str) -> None:
    try:
        context.instance.add_run_tags(context.run_id, {IN_VAIN: run_id})
    except Exception:  # whatever a storage raises: the reason of the run's failure is not to be replaced
        log.warning("Run %s could not be tagged with %s", context.run_id, IN_VAIN, exc_info=True)


def _with(left: str, error: HopArchiveError) -> str:
    """Why something is left, and then what is in the way of telling more, where that is another reason."""
    return left if str(error) in left else f"{left} {error}"


class _Pages:
    """Writes the pages of the topics that a run archives, and what its row in the list of runs says, while it goes on and in the end.

    What arrives does not wait for that meanwhile: a page takes Dagster's storage some 100 ms, with its checks, and those of 50 topics
    were five seconds in which nothing was archived. So a thread writes them; when the block ends, none is being written any more.
    """

    def __init__(self, context: dg.OpExecutionContext, archive: Archive, every_s: float) -> None:
        self._context, self._archive, self._every_s = context, archive, every_s
        self._written: dict[str, TopicTotals] = {}
        self._at = archive.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def write_in_time(self, total: Mapping[str, TopicTotals], *, at_once: bool = False) -> None:
        """Have some written now and then, or all at once, unless some are being written still. In an outage, later."""
        is_time = at_once or self._archive.monotonic() - self._at >= _PAGES_EVERY_S
        if is_time and (self._writing is None or self._writing.done()):
            self._writing = self._pool.submit(self._try, total, None if at_once else _PAGES_AT_ONCE)

    def write(self, total: Mapping[str, TopicTotals]) -> None:
        """Write the pages of what is in ``total`` and on none, at the pace of ``topics_to_report``."""
        self._pool.shutdown()
        self._write(total, None)

    def _try(self, total: Mapping[str, TopicTotals], most: int | None) -> None:
        try:
            self._write(total, most)
        except Exception as error:  # noqa: BLE001 (whatever Dagster's storage raises: the end of the run writes them)
            self._context.log.warning(f"Pages of topics are written later: {error}")

    def _write(self, total: Mapping[str, TopicTotals], most: int | None) -> None:
        took_s, self._at = self._archive.monotonic() - self._at, self._archive.monotonic()
        news = {topic: one for topic, one in total.items() if one != self._written.get(topic)}
        due = reports.topics_to_report(self._context.instance, news, self._every_s, took_s)[:most]
        for materialization in reports.materializations(self._archive, due):
            self._context.log_event(materialization)
        self.judge({*due})
        self._written |= {topic: total[topic] for topic in due}
        self._context.instance.add_run_tags(self._context.run_id, {ARCHIVED: reports.in_a_row(total)})

    def judge(self, topics: Collection[str]) -> None:
        """Evaluate the checks of these topics' partitions."""
        home = Home.of(self._context.run)
        for evaluation in evaluations(self._context.instance, self._archive.catalog, topics, home):
            self._context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them; its type does not say so (1.13)


def _archived(
    context: dg.OpExecutionContext, archive: Archive, config: TogetherConfig, pages: _Pages
) -> tuple[dict[str, TopicTotals], str]:
    """What a run of several topics archived, and why something is left undone in the end."""
    found = _planned(context, config, archive)  # connects, which takes a while
    if before := predecessors(context.run_tags):
        found = Plan(lost=found.lost)  # what there is to do is the other's until it has left
        take_over(context.instance, before, archive.monotonic, time.sleep)
    else:
        topics = sorted({s.topic for s in found.slices})
        named = (
            f": {', '.join(topics[:_MOST_NAMED])}{', …' if len(topics) > _MOST_NAMED else ''}"
            if topics
            else ""
        )
        context.log.info(
            f"{counted(found.messages, 'message')} of {counted(len(topics), 'topic')} to archive{named}"
        )
    total: dict[str, TopicTotals] = _lost(found)
    outage: HopArchiveError | None = None
    try:
        for done in archive_slices(archive, found.slices, refused=lambda _: None):  # noted as findings
            total = _counted(context, total, [done])
    except HopArchiveError as error:
        outage = error
    if config.follow_s and total:
        pages.write_in_time(total, at_once=True)  # it stays for a while: nobody is to wait for that
    try:
        here, left = _completed(
            context,
            archive,
            config,
            found.slices,
            lambda here: pages.write_in_time(sum_totals([total, here])),
        )
    except HopArchiveError as error:
        here, left, outage = {}, str(error), error
    if outage is not None and left and not (total or here):
        raise outage
    return sum_totals([total, here]), left


def _topics(context: dg.OpExecutionContext, configured: list[str], archive: Archive) -> list[str]:
    if configured or context.has_partition_key or context.has_partition_key_range:
        return configured or list(context.partition_keys)
    found = archive.source.topics()
    # The plan says of what could not be described that it is in the way.
    there = sorted({*found, *found.untold})
    if unmet := unmet_message(archive.topics.unmet(there), archive.source.name):
        context.log.warning(unmet)
    return [name for name in there if archive.topics.archived(name)]


def _missing(archive: Archive, slices: Sequence[Slice]) -> list[Slice]:
    """Those of ``slices`` of which the ledger does not have all."""
    coverage = archive.catalog.coverage(sorted({s.topic for s in slices})) if slices else {}
    return [s for s in slices if OffsetSet.between(s.start, s.stop) - coverage.get(s.partition_log, EMPTY)]


def _close_done(archive: Archive, topics: list[str], missing: list[Slice]) -> None:
    """Close what was found to be left undone in ``topics``, but for those in which something is ``missing``."""
    LeftUndone(archive, topics).plan([], pending={s.topic for s in missing})


def _counted(
    context: dg.OpExecutionContext, counts: dict[str, TopicTotals], dones: list[Done]
) -> dict[str, TopicTotals]:
    """The counts with what was stored added; what was disputed is logged."""
    for done in dones:
        if done.note:
            context.log.info(f"Left for the next plan: {done.note}")
    return sum_totals([counts, totals_of(batch for done in dones for batch in done.batches)])


@dg.op
def report(
    context: dg.OpExecutionContext,
    archive: dg.ResourceParam[Archive],
    total: dict[str, TopicTotals],
    lost: dict[str, TopicTotals],
    left: str,
) -> Iterator[dg.Output[None]]:
    """Say what was archived of the partition that the run is for.

    Where it left work undone again and again, it fails after that: what was archived is, and the rest is not well.
    """
    with as_failures():
        try:
            (of_topic,) = reports.materializations(archive, [context.partition_key])
        except HopArchiveError as error:
            if not left:
                raise
            raise dg.Failure(_with(left, error), allow_retries=False) from None
    totals = sum_totals([total, lost])
    # Runs that people start have none of the sensor's tags.
    tags = {**topic_tag(context.partition_key), ARCHIVED: reports.in_a_row(totals)}
    context.instance.add_run_tags(
        context.run_id, {k: v for k, v in tags.items() if k not in context.run_tags}
    )
    rate = sum(one.messages for one in totals.values()) / reports.elapsed_s(context)
    # In words: Dagster plots numbers of all partitions along one line, from one topic to the next.
    this_run = f"{reports.in_a_line(totals)}; {rate:,.1f} messages a second"
    yield dg.Output(None, metadata={**of_topic.metadata, "this_run": this_run})
    # A run that goes on with another one was handed that one's files too.
    run = context.run
    earlier = [run_id for run_id in (run.parent_run_id, run.root_run_id) if run_id]
    run_files.discard(context.instance, run.run_id, earlier)
    if left:
        raise dg.Failure(left, allow_retries=False)


@dg.graph(
    description="Plans, writes objects unit by unit, catalogues each, does again what was left, follows for a while if "
    "asked to, reports."
)
def archiving() -> None:
    """Ends with what makes the materialization, and has that partition's checks."""
    planned = plan()
    written = planned.units.map(write_objects)
    followed = follow(written.map(catalog).collect(), planned.slices)
    return report(followed.total, planned.lost, followed.left)  # type: ignore[no-any-return]


@dg.graph(description="Archives several topics in one step, follows for a while if asked to, reports.")
def archiving_together() -> None:
    """One step."""
    archive_topics()


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
    return [run for of_job in filters for run in instance.get_runs(of_job) if _archives(run)]


def in_vain_since(instance: dg.DagsterInstance) -> float | None:
    """When the last run of several topics ended, in seconds since 1970, where that and the one before failed in vain; else None."""
    finished = dg.RunsFilter(job_name=archive_quiet_topics.name, statuses=OVER)
    last = instance.get_run_records(finished, limit=2)
    failed = [record.end_time for record in last if _failed_in_vain(record.dagster_run)]
    return failed[0] if len(failed) > 1 else None


def own_in_vain(instance: dg.DagsterInstance, now_s: float, within_s: float) -> list[dg.DagsterRun]:
    """The runs of one topic each that failed in vain less than ``within_s`` ago: a server refused, and no unit was committed."""
    after = datetime.datetime.fromtimestamp(now_s - within_s, datetime.UTC)
    over = dg.RunsFilter(job_name=archive_topic.name, statuses=OVER, updated_after=after)
    lately = [
        record.dagster_run
        for record in instance.get_run_records(over)
        # One that is to come is of before a clock was set back.
        if record.end_time is not None and 0 <= now_s - record.end_time < within_s
    ]
    return [run for run in lately if _failed_in_vain(run) and not _committed(instance, run)]


def _failed_in_vain(run: dg.DagsterRun) -> bool:
    return run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(IN_VAIN) == run.run_id


def _committed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run of one topic committed a unit."""
    return any(
        f".{catalog.name}[" in stats.step_key and stats.status is not None and stats.status.value == "SUCCESS"
        for stats in instance.get_run_step_stats(run.run_id)
    )


def _archives(run: dg.DagsterRun) -> bool:
    if run.job_name == archive_quiet_topics.name:
        return True
    # Runs from an asset's page are of all assets, or of a selection, or of checks alone.
    if run.asset_selection is not None:
        return ARCHIVED_MESSAGES in run.asset_selection
    return not run.asset_check_selection


with warnings.catch_warnings():
    # Checks by partition are called a preview (1.13): what is used of them is here alone.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    _specs = [
        dg.AssetCheckSpec(
            check.name, asset=ARCHIVED_MESSAGES, description=check.description, partitions_def=TOPICS
        )
        for check in OF_TOPICS
    ]


@dg.multi_asset_check(specs=_specs)
def topic_findings(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.AssetCheckResult]:
    """Judge one topic, the run's partition, by what is open of it."""
    with as_failures():
        topic, home = context.partition_key, Home.of(context.run)
        results = [check.look(archive.catalog, home, [topic]) for check in OF_TOPICS]
    yield from results
