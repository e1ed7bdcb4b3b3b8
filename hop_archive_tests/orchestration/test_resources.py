"""All resources mean the same stanzas, wherever these are chosen."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.config import logs
from hop_archive.errors import ForbiddenError
from hop_archive.model.slices import Slice
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.resources import (
    ArchiveResource,
    Backup,
    OpenRemoving,
    StanzasResource,
    Targets,
    as_failures,
)

STORE = """
[store.{name}]
type = "s3"
endpoint = "http://127.0.0.1:1"
region = "us-east-1"
bucket = "objects-{name}"
backup_bucket = "backup-{name}"
deleting_allowed = true
access_key_env = "KEY"
secret_key_env = "SECRET"
"""
STANZAS = f"""
[source.a]
type = "mock"
writable = true
[source.b]
type = "mock"
writable = true
[database.a]
type = "mock"
deleting_allowed = true
[database.b]
type = "mock"
deleting_allowed = true
{STORE.format(name="a")}
{STORE.format(name="b")}
"""

Seen = dict[str, Any]


@pytest.fixture
def toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stanzas of which the environment selects those called ``a``."""
    path = tmp_path / "hop_archive.toml"
    path.write_text(STANZAS)
    for name in ("SOURCE", "DATABASE", "STORE"):
        monkeypatch.setenv(f"HOP_ARCHIVE_{name}", "a")
    monkeypatch.setenv("HOP_ARCHIVE_MOCK_DIR", str(tmp_path / "mocks"))
    monkeypatch.setenv("KEY", "key")
    monkeypatch.setenv("SECRET", "secret")
    return path


def seen_by_a_run(instance: dg.DagsterInstance, defs: dg.Definitions, config: Mapping[str, Any]) -> Seen:
    """The names of all parts, as a step is given them."""
    seen: Seen = {}

    @dg.op
    def look(
        archive: dg.ResourceParam[Archive],
        backup: dg.ResourceParam[Backup],
        removals: dg.ResourceParam[OpenRemoving],
        restore_targets: dg.ResourceParam[Targets],
    ) -> None:
        seen["archive"] = (archive.source.name, archive.catalog.name, archive.store.bucket)
        seen["backup"] = backup.store and backup.store.bucket
        with removals("delete", "a-run") as removing:
            assert removing.backup
            seen["removing"] = (removing.catalog.name, removing.store.bucket, removing.backup.bucket)
        seen["target"] = restore_targets.open("b", "").name

    @dg.job
    def looks() -> None:
        look()

    made = dg.Definitions(jobs=[looks], resources=defs.resources)
    made.resolve_job_def("looks").execute_in_process(
        run_config={"resources": dict(config)}, instance=instance
    )
    return seen


def of(name: str) -> Seen:
    return {
        "archive": (name, name, f"objects-{name}"),
        "backup": f"backup-{name}",
        "removing": (name, f"objects-{name}", f"backup-{name}"),
        "target": "b",
    }


def by_the_launchpad(fields: Mapping[str, str]) -> tuple[dg.Definitions, Mapping[str, Any]]:
    return build_definitions(), {"stanzas": {"config": dict(fields)}}


def by_the_definitions(fields: Mapping[str, str]) -> tuple[dg.Definitions, Mapping[str, Any]]:
    return build_definitions(stanzas=StanzasResource.configure_at_launch(**fields)), {}


@pytest.mark.parametrize("chosen", [by_the_launchpad, by_the_definitions])
def test_what_is_chosen_in_one_place_holds_for_the_archive_its_backup_and_removals(
    instance: dg.DagsterInstance,
    toml_file: Path,
    chosen: Callable[[Mapping[str, str]], tuple[dg.Definitions, Mapping[str, Any]]],
) -> None:
    file = {"toml_file": str(toml_file)}
    assert seen_by_a_run(instance, *chosen(file)) == of("a")
    assert seen_by_a_run(instance, *chosen({**file, "source": "b", "database": "b", "store": "b"})) == of("b")
    mixed = seen_by_a_run(instance, *chosen({**file, "store": "b"}))
    assert mixed["archive"] == ("a", "a", "objects-b")
    assert mixed["backup"] == "backup-b", "a store is verified against its own backup"
    assert mixed["removing"] == ("a", "objects-b", "backup-b")


def test_a_failure_says_what_is_wrong_once_and_a_log_at_debug_how_it_was_met(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.DEBUG, "hop_archive"),
        pytest.raises(dg.Failure, match=r"Refused\. Ask for it\.") as raised,
        as_failures(),
    ):
        raise ForbiddenError("Refused.", remedy="Ask for it.") from ValueError("403")
    (line,) = traceback.format_exception_only(raised.value)
    assert line.endswith("Failure: Refused. Ask for it.\n")
    assert "403" not in "".join(traceback.format_exception(raised.value)), "Dagster keeps what stands behind"
    assert "ValueError: 403" in caplog.text


def test_with_nothing_chosen_the_environment_says_it(
    instance: dg.DagsterInstance, toml_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_TOML", str(toml_file))
    assert seen_by_a_run(instance, build_definitions(), {}) == of("a")


def test_a_log_stanza_that_is_named_has_the_lines_of_a_run_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    toml = tmp_path / "my.toml"
    toml.write_text(f"[log.told]\ntype = 'file'\nformat = 'json'\npath = '{tmp_path}/log'\n")
    monkeypatch.setenv("HOP_ARCHIVE_TOML", str(toml))
    monkeypatch.setenv("HOP_ARCHIVE_LOG", "told")
    monkeypatch.setenv("HOP_ARCHIVE_MOCK_DIR", str(tmp_path / "mocks"))

    @dg.op
    def speak(archive: dg.ResourceParam[Archive]) -> None:
        logging.getLogger("hop_archive.ingest").info("%s is told", Slice("gcn", 1, 2, 5, 9))

    @dg.job
    def speaking() -> None:
        speak()

    stanzas: Any = StanzasResource.configure_at_launch()
    resources = {"stanzas": stanzas, "archive": ArchiveResource(stanzas=stanzas)}
    defs = dg.Definitions(jobs=[speaking], resources=resources)
    try:
        run = defs.resolve_job_def("speaking").execute_in_process(instance=instance)
        (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    finally:
        logs.remove_former()
        logs.note_run("")
    assert (line["run"], line["topic"]) == (run.run_id, "gcn")
