"""The jobs verify, scrub and repair, over a mock archive that was damaged."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.resources import Backup
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.orchestration.helpers import archive_of
from hop_archive_tests.worlds import BUSY


@pytest.fixture
def broken() -> Ruin:
    return ruin("segment")


def run(
    broken: Ruin, job: str, asset: str, backup_grace_s: float = BACKUP_GRACE_S, **config: Any
) -> dict[str, Any]:
    """Run a job alone; the metadata of what it materialized."""
    backup = Backup(broken.backup, backup_grace_s)
    defs = build_definitions(archive=archive_of(broken.world), backup=backup)
    with dg.DagsterInstance.ephemeral() as instance:
        ran = defs.resolve_job_def(job).execute_in_process(
            instance=instance, run_config={"ops": {asset: {"config": config}}} if config else None
        )
    (found,) = ran.asset_materializations_for_node(asset)
    return {name: value.value for name, value in found.metadata.items()}


def test_each_job_runs_alone_with_no_configuration_and_finds_nothing_in_a_sound_archive(broken: Ruin) -> None:
    assert run(broken, "verify", "verification")["found"] == 0
    assert run(broken, "scrub", "scrubbing")["found"] == 0
    nothing = {"dry_run": True, "planned": 0, "mended": 0, "gone": 0, "left": 0}
    assert run(broken, "repair", "repairs") == nothing
    assert BUSY in run(broken, "report_archive", "archive_report")["report"]


def test_a_repair_changes_nothing_unless_it_is_told_to(broken: Ruin) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    found = run(broken, "verify", "verification")
    assert (found["found"], found["missing_object"]) == (1, 1)
    before = list(broken.world.store.listing())
    assert run(broken, "repair", "repairs")["planned"] == 1
    assert list(broken.world.store.listing()) == before
    assert run(broken, "repair", "repairs", dry_run=False)["mended"] == 1
    assert run(broken, "verify", "verification", deep=True)["found"] == 0


def test_the_job_calls_no_copy_missing_that_may_be_on_its_way(broken: Ruin) -> None:
    keys = [info.key for info in broken.backup.listing()]
    broken.backup._deleting_allowed = True
    broken.backup.delete(keys[:2])
    found = run(broken, "verify", "verification")
    assert (found["found"], found["copies_not_due_yet"]) == (0, 2)
    found = run(broken, "verify", "verification", backup_grace_s=0)
    assert (found["missing_object"], found["copies_not_due_yet"]) == (2, 0)


def test_a_deep_look_counts_no_trouble_twice(broken: Ruin) -> None:
    broken.drop(broken.rows(BUSY)[0].object_key)
    found = run(broken, "verify", "verification", deep=True)
    assert (found["found"], found["missing_object"]) == (1, 1)
    assert run(broken, "repair", "repairs")["planned"] == 1


def test_a_scrub_finds_what_listing_cannot_see(broken: Ruin) -> None:
    broken.flip(broken.rows(BUSY)[0])
    assert run(broken, "verify", "verification")["found"] == 0
    found = run(broken, "scrub", "scrubbing", days=1.0)
    assert found["found"] == 1
    assert found["never_read_offsets"] == 0


def test_a_scrub_that_never_read_anything_claims_no_age(broken: Ruin) -> None:
    assert "oldest_check_days" in run(broken, "scrub", "scrubbing")
    broken.world.catalog = MockCatalog()
    assert "oldest_check_days" not in run(broken, "scrub", "scrubbing")


def test_a_kind_that_is_none_is_a_failure_that_says_so(broken: Ruin) -> None:
    with pytest.raises(dg.Failure, match="missing_object"):
        run(broken, "repair", "repairs", kinds=["ghost"])
