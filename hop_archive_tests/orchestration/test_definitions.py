"""The definitions load anywhere: with nothing to connect to and no environment."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import hop_archive
from hop_archive.orchestration.archiving import archived_messages
from hop_archive.orchestration.definitions import build_definitions, defs
from hop_archive.orchestration.pacing import Pacing
from hop_archive.orchestration.runs import in_process

CHECKOUT = Path(hop_archive.__file__).parents[1]

# A connection, a server or a look-up of a name counts as a failure.
LOADER = """
import sys
def refuse(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.bind")):
        print("DEED", event, args[:2])
sys.addaudithook(refuse)
import dagster as dg
from hop_archive.orchestration.archiving import archived_messages
from hop_archive.orchestration.definitions import defs
dg.Definitions.validate_loadable(defs)
print("LOADED", sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")))
"""


def python(program: str, tmp_path: Path, environ: dict[str, str]) -> str:
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_they_load_with_no_environment_and_connect_to_nothing(tmp_path: Path) -> None:
    program = f"import sys; sys.path += {sys.path!r}\n{LOADER}"
    out = python(program, tmp_path, {})
    assert "DEED" not in out
    assert "LOADED" in out


def test_they_load_with_stanzas_selected_that_nothing_answers_for(tmp_path: Path) -> None:
    environ = {
        "HOP_ARCHIVE_SOURCE": "hop-prod",
        "HOP_ARCHIVE_DATABASE": "aws-prod-db",
        "HOP_ARCHIVE_STORE": "s3-prod",
        "HOP_ARCHIVE_TOML": str(tmp_path / "not-there.toml"),
    }
    out = python(f"import sys; sys.path += {sys.path!r}\n{LOADER}", tmp_path, environ)
    assert "DEED" not in out
    assert "LOADED" in out


def test_a_tick_with_a_wrong_stanza_fails_with_the_names_to_choose_from(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_SOURCE", "hop-prud")
    sensor = next(s for s in defs.sensors or () if s.name == "kafka_offsets")
    with (
        pytest.raises(Exception, match="archive") as raised,
        dg.build_sensor_context(instance=instance, resources=dict(defs.resources or {})) as context,
    ):
        sensor.evaluate_tick(context)
    causes = [str(error) for error in chain(raised.value)]
    assert any('no source stanza named "hop-prud"' in c and "hop-prod" in c for c in causes), causes


def chain(error: BaseException | None) -> list[BaseException]:
    return [error, *chain(error.__cause__ or error.__context__)] if error else []


@pytest.mark.parametrize("file", ["workspace.yaml", "dagster.yaml"])
def test_dagsters_files_are_where_its_programs_look(file: str) -> None:
    assert (CHECKOUT / file).is_file()


def test_the_instances_file_is_one_that_dagster_takes(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes((CHECKOUT / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        assert not made.telemetry_enabled
        assert made.python_log_level == "INFO"
        assert made.run_retries_enabled
        assert made.run_monitoring_enabled
        assert not made.nux_enabled


def test_sensors_and_schedules_are_on_from_the_start() -> None:
    instigators = [*(defs.sensors or ()), *(defs.schedules or ())]
    off = [
        one.name
        for one in instigators
        if one.default_status not in (dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.RUNNING)
    ]
    assert off == []


def test_everything_that_people_see_is_described() -> None:
    checks = [spec for check in defs.asset_checks or () for spec in check.check_specs]
    shown = [*own_jobs(), *(defs.sensors or ()), *(defs.schedules or ()), *checks, *own_nodes()]
    described = {one.name: one.description for one in shown}
    graph = defs.resolve_asset_graph()
    described |= {key.to_user_string(): graph.get(key).description for key in graph.get_all_asset_keys()}
    described |= {name: resource_description(one) for name, one in (defs.resources or {}).items()}
    assert described.keys() >= {"archived_messages", "archive", "plan", "write_objects", "pacing"}
    assert [name for name, description in described.items() if not description] == []


def test_everything_that_people_can_set_is_described() -> None:
    fields = {
        f"{op.name}.{name}": description
        for op in own_nodes()
        if isinstance(op, dg.OpDefinition)
        for name, description in fields_of(op.config_schema.config_type)
    }
    for name, resource in (defs.resources or {}).items():
        fields |= {f"{name}.{field}": description for field, description in resource_fields(resource)}
    nested = {f"plan.slices.{field}" for field in ("topic", "generation", "partition", "start", "stop")}
    assert fields.keys() >= {
        "plan.topics",
        "plan.slices",
        "follow.follow_s",
        "archive_topics.topics",
        "archive.run_messages",
        *nested,
    }
    assert [name for name, description in fields.items() if not description] == []


def own_nodes() -> list[Any]:
    """Every op and graph of every job, each once."""
    return list({node.name: node for job in own_jobs() for node in job.all_node_defs}.values())


def fields_of(config_type: Any, path: str = "") -> Iterator[tuple[str, str | None]]:
    """Every field of a config schema with its description, and those inside of it, be they in lists or optional."""
    if inner := getattr(config_type, "inner_type", None):
        yield from fields_of(inner, path)
    for name, field in getattr(config_type, "fields", {}).items():
        yield f"{path}{name}", field.description
        yield from fields_of(field.config_type, f"{path}{name}.")


def resource_fields(resource: Any) -> Iterator[tuple[str, str | None]]:
    """The same of a resource, be it one of Dagster's own or a class with fields."""
    if isinstance(resource, dg.ResourceDefinition):
        yield from fields_of(resource.config_schema.config_type)
    else:
        own = getattr(resource, "resource_cls", None) or type(
            resource
        )  # one that is configured at launch is a part of it
        # Another resource that it rests on is no field: people set that one's, which are looked at by themselves.
        yield from (
            (name, field.description)
            for name, field in own.model_fields.items()
            if "resource_dependency" not in field.metadata
        )


def resource_description(resource: Any) -> str | None:
    """What the UI shows of a resource."""
    if isinstance(resource, dg.ResourceDefinition):
        return resource.description
    return (getattr(resource, "resource_cls", None) or type(resource)).__doc__


def test_everything_that_there_is_is_in_the_runbook() -> None:
    runbook = (CHECKOUT / "docs" / "operating-dagster.md").read_text()
    checks = [spec.name for check in defs.asset_checks or () for spec in check.check_specs]
    instigators = [one.name for one in (*(defs.sensors or ()), *(defs.schedules or ()))]
    assets = [key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()]
    variables = [f"HOP_ARCHIVE_{field.name.upper()}" for field in dataclasses.fields(Pacing)]
    names = [*checks, *instigators, *assets, *variables, *(job.name for job in own_jobs())]
    assert [name for name in names if f"`{name}`" not in runbook] == []


def own_jobs() -> list[dg.JobDefinition]:
    return [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]


def test_resources_are_replaced_by_name() -> None:
    replaced = build_definitions(pacing="another").resources or {}
    assert replaced["pacing"] == "another"
    assert set(replaced) == {
        "stanzas",
        "archive",
        "backup",
        "removals",
        "pacing",
        "run_files",
        "restore_targets",
        "alarms",
    }


def test_a_backfill_starts_a_run_for_each_partition_named_by_its_key() -> None:
    # A policy of so many partitions a run, even one, makes runs of key ranges, which nothing here knows.
    assert archived_messages.backfill_policy is None


@pytest.mark.parametrize("job", defs.resolve_all_job_defs(), ids=lambda job: job.name)
def test_each_run_is_one_process_that_shows_signs_of_life_what_people_start_too(
    job: dg.JobDefinition,
) -> None:
    assert job.executor_def is in_process
