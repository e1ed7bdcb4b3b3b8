"""``hop-archive rebuild-catalog`` and ``catalog-snapshot``, over mocks that share a directory."""

from __future__ import annotations

import json
from pathlib import Path

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.read.parquet import sha256
from hop_archive.read.snapshot_manifest import sealed
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive_tests.cli_helpers import M, archived, invoke, mocks, place

__all__ = ["place"]

DB_AND_STORE = M[2:]


def an_archive(place: Path) -> Path:
    directory = mocks(place, samples=60, archived=True)
    assert archived(directory) > 40
    return directory


def drop_catalog(directory: Path) -> None:
    (directory / "catalog.json").unlink()


def test_without_yes_it_shows_what_it_would_read_and_changes_nothing(place: Path) -> None:
    directory = an_archive(place)
    drop_catalog(directory)
    result = invoke("rebuild-catalog", *DB_AND_STORE)
    assert result.exit_code == 0
    assert "to read" in result.stdout
    assert "--yes does it" in result.stdout
    assert archived(directory) == 0
    planned = json.loads(invoke("rebuild-catalog", *DB_AND_STORE, "--json").stdout)
    assert not planned["done"]
    assert sum(one["to_read"] for one in planned["plan"]) == len(list(_stored(directory)))


def _stored(directory: Path) -> list[str]:
    return [info.key for info in MockStore("m", directory=directory / "objects").listing()]


def test_with_yes_the_catalog_is_there_again_and_verifies(place: Path) -> None:
    directory = an_archive(place)
    before = archived(directory)
    drop_catalog(directory)
    result = invoke("rebuild-catalog", *M, "--yes")
    assert result.exit_code == 0, result.output
    assert archived(directory) == before
    assert "added" in result.stdout
    assert invoke("run", *M, "--until-caught-up").exit_code == 0
    assert archived(directory) == before
    assert invoke("verify", *M, "--deep", "--grace", "0").exit_code == 0
    again = json.loads(invoke("rebuild-catalog", *M, "--yes", "--json").stdout)
    assert (again["added"], again["read"], again["findings"]) == (0, 0, [])


def test_what_is_not_believed_is_told_and_ends_with_1(place: Path) -> None:
    directory = an_archive(place)
    (key, *_) = [key for key in _stored(directory) if not key.startswith("segments/")]
    store = MockStore("m", directory=directory / "objects", deleting_allowed=True)
    (body,) = store.fetch([Extent(key)])
    store.delete([key])
    store._shelf.add(key, body[:-3])
    drop_catalog(directory)
    result = invoke("rebuild-catalog", *DB_AND_STORE, "--yes", "--work-dir", str(place / "work"))
    assert result.exit_code == 1
    assert f"corrupt_object  {key}" in result.stdout
    assert list((place / "work").iterdir()) == []


def test_a_topic_that_the_store_does_not_have_is_one_clear_message(place: Path) -> None:
    an_archive(place)
    result = invoke("rebuild-catalog", *DB_AND_STORE, "-T", "no.such")
    assert result.exit_code == 2
    assert "no.such" in result.stderr
    assert "Traceback" not in result.output


def test_a_snapshot_is_written_grows_and_makes_a_catalog_again(place: Path) -> None:
    directory = an_archive(place)
    before = {row.uuid for topic in _catalog(directory).topics() for row in _catalog(directory).rows(topic)}
    first = json.loads(invoke("catalog-snapshot", "catalog", *DB_AND_STORE, "--json").stdout)
    assert first["messages"] == first["rows_written"] == len(before)
    second = invoke("catalog-snapshot", "catalog", *DB_AND_STORE)
    assert second.exit_code == 0
    assert "0 rows of 0 topics written" in second.stdout
    drop_catalog(directory)
    result = invoke("rebuild-catalog", *DB_AND_STORE, "--from-snapshot", "catalog", "--yes")
    assert result.exit_code == 0, result.output
    catalog = _catalog(directory)
    assert {row.uuid for topic in catalog.topics() for row in catalog.rows(topic)} == before


def test_a_snapshot_with_a_file_that_cannot_be_read_costs_one_topic_and_is_no_bug(place: Path) -> None:
    directory = an_archive(place)
    before = set(_catalog(directory).topics())
    assert invoke("catalog-snapshot", "catalog", *DB_AND_STORE).exit_code == 0
    (manifest,) = Path("catalog/manifests").glob("*.json")
    found = json.loads(manifest.read_bytes())
    damaged = min(found["topics"])
    (told, *_) = (file for file in found["topics"][damaged]["files"] if file["kind"] == "messages")
    Path("catalog", told["path"]).write_bytes(b"no Parquet")
    told["sha256"] = sha256(Path("catalog", told["path"]))
    found["topics"][damaged] = sealed(damaged, found["topics"][damaged])
    manifest.write_text(json.dumps(sealed("", found)))
    drop_catalog(directory)
    result = invoke("rebuild-catalog", *DB_AND_STORE, "--from-snapshot", "catalog", "--yes")
    assert result.exit_code == 5, result.output
    assert told["path"] in result.stderr
    assert "Traceback" not in result.output
    assert "messages added" in result.stdout
    assert set(_catalog(directory).topics()) == before - {damaged}


def test_a_snapshot_can_stand_in_the_store_itself(place: Path) -> None:
    directory = an_archive(place)
    before = archived(directory)
    assert invoke("catalog-snapshot", "store", *DB_AND_STORE).exit_code == 0
    assert invoke("verify", *M, "--grace", "0").exit_code == 0, "it is no foreign object"
    drop_catalog(directory)
    assert invoke("rebuild-catalog", *DB_AND_STORE, "--from-snapshot", "store", "--yes").exit_code == 0
    assert archived(directory) == before


def test_a_folder_that_is_no_snapshot_is_one_clear_message(place: Path) -> None:
    an_archive(place)
    for args in (
        ("catalog-snapshot", str(place)),
        ("rebuild-catalog", "--from-snapshot", "nothing", "--yes"),
    ):
        result = invoke(*args, *DB_AND_STORE)
        assert result.exit_code == 2, result.output
        assert "snapshot" in result.stderr
        assert "Traceback" not in result.output


def _catalog(directory: Path) -> MockCatalog:
    return MockCatalog("m", directory=directory)
