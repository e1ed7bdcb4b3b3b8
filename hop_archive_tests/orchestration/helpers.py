"""Definitions over a mock world, sensor ticks and runs in this process, and what a run left in the event log."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.devkit.faults import Fault, Faults, When
from hop_archive.orchestration.archiving import archive_quiet_topics, archive_topics
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.pacing import Pacing
from hop_archive.orchestration.sensors import kafka_offsets, topic_pages, topic_partitions
from hop_archive_tests.worlds import BUSY, QUIET, World, fill

QUIET_S = 300.0
"""After so long without a batch a topic is quiet, and a run does not report it again before."""

AT_ONCE = Pacing(enough_messages=1, longest_wait_s=0.0, busy_messages=50, follow_s=0.0)
"""Every message is reason enough for a run; the busy topic of an awkward world gets one of its own."""


def archive_of(world: World, faults: Faults | None = None) -> dg.ResourceDefinition:
    """The world's archive as runs and ticks open it: each of them anew, under its own run id."""

    @dg.resource
    def archive(context: dg.InitResourceContext) -> Archive:
        return world.archive(faults, run_id=context.run.run_id if context.run else "")

    return archive


def definitions(world: World, faults: Faults | None = None, pacing: Pacing = AT_ONCE) -> dg.Definitions:
    """The project's definitions, over a mock world."""
    return build_definitions(archive=archive_of(world, faults), pacing=pacing)


def tick(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    sensor: dg.SensorDefinition = kafka_offsets,
    cursor: str | None = None,
) -> Any:
    """What one evaluation of a sensor says; partitions that it asks for are made, as the daemon does."""
    with dg.build_sensor_context(
        instance=instance,
        instance_ref=instance.get_ref(),  # without it, a partition that is only asked for is not known yet
        definitions=defs,
        cursor=cursor,
        resources=dict(defs.resources or {}),
    ) as context:
        data = sensor.evaluate_tick(context)
    for request in data.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return data


def run_job(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    *,
    raise_on_error: bool = True,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    """A job of one node with these fields, be they all that its launchpad shows or those of its node."""
    job = defs.resolve_job_def(name)
    (node,) = job.graph.nodes
    run_config = config if job.config_mapping else {"ops": {node.name: {"config": config}}} if config else {}
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=raise_on_error)


def told(run: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What a run says: of the asset that it materialized, or observed, else with the end of its step."""
    made = [event.materialization.metadata for event in run.get_asset_materialization_events()]
    made += [
        event.asset_observation_data.asset_observation.metadata
        for event in run.get_asset_observation_events()
    ]
    ends = [e.step_output_data.metadata for e in run.all_events if e.is_successful_output]
    return {name: value.value for name, value in (made or ends)[0].items()}


def add_partitions(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    tick(defs, instance, topic_partitions)


def launch(
    defs: dg.Definitions, instance: dg.DagsterInstance, requests: Iterable[dg.RunRequest], **options: Any
) -> list[dg.ExecuteInProcessResult]:
    """Run what a sensor asked for."""
    return [
        defs.resolve_job_def(request.job_name or "").execute_in_process(
            run_config=request.run_config,
            tags=dict(request.tags),
            partition_key=request.partition_key,
            instance=instance,
            **options,
        )
        for request in requests
    ]


def shared_config(
    topics: Sequence[str], slices: Sequence[Mapping[str, Any]] = (), follow_s: float = 0.0
) -> dict[str, Any]:
    config = {"topics": list(topics), "slices": list(slices), "follow_s": follow_s, "report_every_s": 0.0}
    return {"ops": {archive_topics.name: {"config": config}}}


def run_shared(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    topics: Sequence[str] = (BUSY, QUIET),
    *,
    slices: Sequence[Mapping[str, Any]] = (),
    follow_s: float = 0.0,
    raise_on_error: bool = True,
) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(archive_quiet_topics.name).execute_in_process(
        run_config=shared_config(topics, slices, follow_s),
        instance=instance,
        raise_on_error=raise_on_error,
    )


def materialize_by_hand(
    defs: dg.Definitions, instance: dg.DagsterInstance, topic: str, **options: Any
) -> dg.ExecuteInProcessResult:
    """What the asset page's button, or a backfill, starts for one partition: no configuration, no tags."""
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        partition_key=topic, instance=instance, asset_selection=[dg.AssetKey("archived_messages")], **options
    )


def live_run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    *,
    tags: Mapping[str, str] | None = None,
    run_config: Mapping[str, Any] | None = None,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    assets: Collection[dg.AssetKey] | None = None,
) -> dg.DagsterRun:
    """A run that is not over, as another process has it."""
    return instance.create_run_for_job(
        defs.resolve_job_def(job),
        run_config=run_config,
        tags=tags,
        status=status,
        asset_selection=None if assets is None else frozenset(assets),
    )


def fall_quiet(world: World, instance: dg.DagsterInstance, seed: int = 1) -> dg.Definitions:
    """Archive what there is, and then more, of which no page tells; the definitions that did."""
    defs = definitions(world)
    add_partitions(defs, instance)
    rarely = shared_config([BUSY, QUIET])
    rarely["ops"][archive_topics.name]["config"]["report_every_s"] = QUIET_S
    job = defs.resolve_job_def(archive_quiet_topics.name)
    assert job.execute_in_process(run_config=rarely, instance=instance).success
    fill(world.cluster, seed=seed)
    assert job.execute_in_process(run_config=rarely, instance=instance).success
    return defs


def look_at_pages(
    world: World, instance: dg.DagsterInstance, *, later_s: float, cursor: str | None = None
) -> tuple[str, str]:
    """What the sensor of topics' pages says and remembers, so much later."""

    @dg.resource
    def archive(_: dg.InitResourceContext) -> Archive:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later_s)
        return replace(world.archive(), now=lambda: now)

    data = tick(build_definitions(archive=archive), instance, topic_pages, cursor)
    return data.skip_message, data.cursor


def materializations(instance: dg.DagsterInstance, topic: str) -> list[dict[str, Any]]:
    """The metadata of a topic's materializations, the latest first."""
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey("archived_messages"), asset_partitions=[topic])
    records = instance.fetch_materializations(filters, limit=100).records
    found = (record.asset_materialization for record in records)
    return [{name: value.value for name, value in m.metadata.items()} for m in found if m]


def log_messages(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id)]


def striking(
    method: str, act: Callable[[str], object], when: When = When.BEFORE, occurrence: int = 1
) -> Faults:
    """Faults that strike at the ``occurrence``-th call of ``method``."""
    return Faults((Fault(occurrence, when, act, name=method),))


def trace(like: World, **options: Any) -> list[str]:
    """The calls, in order, that a shared run makes over such a world; it is used up by this."""
    faults = Faults()
    with dg.DagsterInstance.ephemeral() as instance:
        run_shared(definitions(like, faults), instance, **options)
    return faults.calls
