"""An export whose process was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hop_archive.archive import utc_now
from hop_archive.errors import ConfigurationError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.read.export import MARK, ExportRequest, export
from hop_archive_tests.cli_helpers import place
from hop_archive_tests.worlds import World

__all__ = ["place", "world"]
from hop_archive_tests.unit.read.test_exporting import run, world


def test_the_rest_of_an_interrupted_export_is_told_and_replaced_by_force(
    world: World, tmp_path: Path
) -> None:
    interrupted(world, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out.partial").iterdir())
    assert len(left) > 1
    with pytest.raises(ConfigurationError, match="interrupted"):
        run(world, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out.partial").iterdir()) == left
    run(world, tmp_path / "out", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / MARK).exists()


def interrupted(world: World, folder: Path) -> None:
    """Export in a process of its own, which dies amid it."""

    def die(_: Progress) -> None:
        os._exit(0)

    if not (child := os.fork()):
        try:
            export(world.catalog, world.store, folder, ExportRequest(Query()), now=utc_now, notice=die)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
