"""``hop-archive uuids``, and a reader that has enough of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.model.query import Query
from hop_archive_tests.cli_helpers import DEADLINE_S, M, command, environment, place

__all__ = ["catalog", "place"]
from hop_archive_tests.unit.cli.test_uuids import catalog, uuids


def test_a_reader_that_has_enough_ends_it_quietly(catalog: MockCatalog, place: Path) -> None:
    many = list(catalog.select(Query()))
    catalog.adopt(row._replace(uuid=own) for own in uuids(5_000) for row in many[:1])
    with subprocess.Popen(
        command("uuids", *M, "--json"),
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as printing:
        assert printing.stdout is not None
        assert printing.stderr is not None
        printing.stdout.readline()
        printing.stdout.close()
        assert printing.stderr.read() == b""
        assert printing.wait(DEADLINE_S) == 0
