"""The jobs verify, scrub and repair, over a mock archive that was damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.report_page import FOLDER_VARIABLE, URL_VARIABLE
from hop_archive.orchestration.resources import Backup
from hop_archive.orchestration.upkeep import VERIFICATION
from hop_archive.store.protocol import Extent
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.orchestration.helpers import archive_of, run_job, told
from hop_archive_tests.worlds import BUSY


@pytest.fixture
def broken() -> Ruin:
    return ruin("segment")


def run(broken: Ruin, job: str, backup_grace_s: float = BACKUP_GRACE_S, **config: Any) -> dict[str, Any]:
    """Run a job alone; what it says."""
    backup = Backup(broken.backup, backup_grace_s)
    defs = build_definitions(archive=archive_of(broken.world), backup=backup)
    with dg.DagsterInstance.ephemeral() as instance:
        return told(run_job(defs, instance, job, **config))


def test_each_job_runs_alone_with_no_configuration_and_finds_nothing_in_a_sound_archive(broken: Ruin) -> None:
    assert run(broken, "verify")["found"] == "none"
    assert run(broken, "scrub")["found"] == "none"
    nothing = {"dry_run": True, "planned": 0, "mended": 0, "gone": 0, "left": 0}
    assert run(broken, "repair") == nothing
    assert BUSY in run(broken, "report_archive")["report"]


def test_the_report_is_a_page_in_the_store_or_a_folder_and_linked(
    broken: Ruin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(broken, "report_archive")
    key = told["page"].removeprefix(f"s3://{broken.world.store.bucket}/")
    (body,) = broken.world.store.fetch([Extent(key)])
    assert told["headline"] in bytes(body).decode()
    assert run(broken, "report_archive", folder=str(tmp_path / "a"))["page"] == str(
        tmp_path / "a" / "archive.html"
    )
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "b"))
    monkeypatch.setenv(URL_VARIABLE, "https://reports.example.org/")
    told = run(broken, "report_archive")
    assert told["page"] == "https://reports.example.org/archive.html"
    assert told["headline"] in (tmp_path / "b" / "archive.html").read_text()


def test_a_repair_changes_nothing_unless_it_is_told_to(broken: Ruin) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    found = run(broken, "verify")
    assert (found["found"], found["missing_object"]) == (1, 1)
    before = list(broken.world.store.listing())
    assert run(broken, "repair")["planned"] == 1
    assert list(broken.world.store.listing()) == before
    assert run(broken, "repair", dry_run=False)["mended"] == 1
    assert run(broken, "verify", deep=True)["found"] == "none"


def test_a_repair_that_looks_first_and_may_note_nothing_fails_and_does_not_seem_to_have_found_nothing(
    broken: Ruin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note_findings(*_: object) -> None:
        raise ForbiddenError("permission denied for table findings")

    broken.drop(broken.rows(BUSY)[0].object_key)
    monkeypatch.setattr(MockCatalog, "note_findings", note_findings)
    with pytest.raises(dg.Failure, match="1 finding found, and the catalog did not let any be noted"):
        run(broken, "repair", verify=True)


def test_the_job_calls_no_copy_missing_that_may_be_on_its_way(broken: Ruin) -> None:
    keys = [info.key for info in broken.backup.listing()]
    broken.backup._deleting_allowed = True
    broken.backup.delete(keys[:2])
    found = run(broken, "verify")
    assert (found["found"], found["copies_not_due_yet"]) == ("none", 2)
    found = run(broken, "verify", backup_grace_s=0)
    assert (found["missing_object"], found.get("copies_not_due_yet")) == (2, None)


def test_a_deep_look_counts_no_trouble_twice(broken: Ruin) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    found = run(broken, "verify", deep=True)
    assert (found["found"], found["missing_object"]) == (1, 1)
    assert run(broken, "repair")["planned"] == 1


def test_a_scrub_finds_what_listing_cannot_see(broken: Ruin) -> None:
    broken.flip(broken.rows(BUSY)[0])
    assert run(broken, "verify")["found"] == "none"
    found = run(broken, "scrub", days=1.0)
    assert found["found"] == 1
    assert found["never_read_offsets"] == "none"
    assert not found.keys() & {"objects", "rows", "offsets"}, "a scrub counts none of these"


def test_a_scrub_that_never_read_anything_claims_no_age(broken: Ruin) -> None:
    assert "oldest_check_days" in run(broken, "scrub")
    broken.world.catalog = MockCatalog()
    assert "oldest_check_days" not in run(broken, "scrub")


def test_a_kind_that_is_none_is_a_failure_that_says_so(broken: Ruin) -> None:
    with pytest.raises(dg.Failure, match="missing_object"):
        run(broken, "repair", kinds=["ghost"])


def test_a_topic_that_is_none_is_a_failure_that_says_so_and_a_glob_is_mended(broken: Ruin) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    assert run(broken, "verify")["found"] == 1
    with pytest.raises(dg.Failure, match=f"no messages of a topic {BUSY[:-1]}"):
        run(broken, "repair", topics=[BUSY[:-1]])
    assert run(broken, "repair", topics=[f"{BUSY[:-1]}*"], dry_run=False)["mended"] == 1


def test_a_verification_that_breaks_off_says_by_its_check_what_it_had_found(
    broken: Ruin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise UnavailableError("The backup does not answer.")

    monkeypatch.setattr(broken.backup, "check", down)
    broken.drop(broken.rows(BUSY)[0].object_key)
    defs = build_definitions(archive=archive_of(broken.world), backup=Backup(broken.backup, BACKUP_GRACE_S))
    with dg.DagsterInstance.ephemeral() as instance:
        run = defs.resolve_job_def("verify").execute_in_process(instance=instance, raise_on_error=False)
        assert not run.success
        for key in (
            dg.AssetCheckKey(VERIFICATION, "nothing_found"),
            dg.AssetCheckKey(dg.AssetKey("archive"), "objects_present"),
        ):
            record = instance.get_latest_asset_check_evaluation_record(key)
            assert record is not None
            assert record.status is AssetCheckExecutionRecordStatus.FAILED, key
