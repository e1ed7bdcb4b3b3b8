"""``hop-archive doctor``: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

from hop_archive.store.mock import MockStore
from hop_archive.upkeep.doctor import PROBE_KEY
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]


def test_mocks_are_well(place: Path) -> None:
    mocks(place)
    ran = invoke("doctor", *M)
    assert ran.exit_code == 0, ran.output
    assert "All is well" in ran.output
    assert "ok" in ran.output


def test_each_part_that_cannot_even_be_configured_is_told_with_its_remedy(place: Path) -> None:
    ran = invoke("doctor", "-H", "hop-local", "-D", "local-db", "-S", "local-store")
    assert ran.exit_code == 1
    for variable in ("BOOTSTRAP_SERVERS", "DATABASE_URL", "S3_ENDPOINT"):
        assert f"HOP_ARCHIVE_LOCAL_{variable} is not set" in ran.output
    assert ran.output.count("→ Start the local stack") == 3
    assert "3 of 3 checks failed." in ran.output


def test_the_probe_can_be_left_out(place: Path) -> None:
    directory = mocks(place)
    invoke("doctor", *M, "--no-probe")
    assert list(MockStore("m", directory / "objects").listing()) == []
    invoke("doctor", *M)
    assert [info.key for info in MockStore("m", directory / "objects").listing()] == [PROBE_KEY]
