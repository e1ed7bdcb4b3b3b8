"""Exports: what is in the folder, what is checked, and that a folder appears whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import io
import itertools
import json
import locale
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hop_archive.archive import utc_now
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Row
from hop_archive.cli.display import one_line
from hop_archive.cli.export import how_far
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import ConfigurationError, ConflictError, CorruptError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.read.export import MARK, ExportRequest, FileNames, export
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive_tests.cli_helpers import M, invoke, mocks, place
from hop_archive_tests.cold_store import removed_while_read
from hop_archive_tests.worlds import World, WorldLayout, awkward_world, exhausted

__all__ = ["place"]


@pytest.fixture(params=["message", "segment", "zstd"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(
        "hop_archive.model.frames.FRAME_BYTES", 1
    )  # so what damages one document damages no other
    layout: WorldLayout = request.param
    world = awkward_world(layout)
    world.store = MockStore(deleting_allowed=True)
    exhausted(catch_up(world.archive()))
    return world


def run(world: World, folder: Path, query: Query | None = None, **options: Any) -> dict[str, Any]:
    wanted = ExportRequest(query or Query(), **options)
    return export(world.catalog, world.store, folder, wanted, now=utc_now)


def rows_of(world: World, query: Query | None = None) -> list[Row]:
    rows = list(world.catalog.select(query or Query()))
    assert rows
    return rows


def body_of(world: World, row: Row) -> bytes:
    (fetched,) = fetch_documents(world.store, [row])
    assert not fetched.problems
    return fetched.body


def test_documents_stand_end_to_end_and_the_table_says_where(world: World, tmp_path: Path) -> None:
    manifest = run(world, tmp_path / "out")
    rows = rows_of(world)
    table = pq.read_table(tmp_path / "out" / "catalog.parquet").to_pylist()
    assert len(table) == len(rows) == manifest["messages"]
    for row, found in zip(rows, table, strict=True):
        file = (tmp_path / "out" / found["file"]).read_bytes()
        assert file[found["file_position"] :][: found["size"]] == body_of(world, row)
        assert found["uuid"] == row.uuid
        assert found["time"] == row.timestamp
        assert (found["topic"], found["generation"], found["partition"], found["offset"]) == row[:4]
        assert (found["timestamp"], found["digest"], found["crc32"]) == (
            row.timestamp_ms,
            row.digest,
            row.crc32,
        )
        assert found["sender"] == row.annotations.sender


def test_any_reader_of_bson_reads_the_files(world: World, tmp_path: Path) -> None:
    manifest = run(world, tmp_path / "out")
    for topic, told in manifest["topics"].items():
        content = (tmp_path / "out" / told["file"]).read_bytes()
        documents = bson.decode_all(content)
        assert [one["annotations"]["con_text_uuid"] for one in documents] == [
            str(row.uuid) for row in rows_of(world, Query(topics=(topic,)))
        ]
        assert told["messages"] == len(documents)
        assert (told["bytes"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_payloads_are_files_of_the_exact_bytes_and_null_has_none(world: World, tmp_path: Path) -> None:
    manifest = run(world, tmp_path / "out", form="payloads")
    table = pq.read_table(tmp_path / "out" / "catalog.parquet").to_pylist()
    nulls = 0
    for row, found in zip(rows_of(world), table, strict=True):
        value = decode(body_of(world, row)).message.value
        if value is None:
            nulls += 1
            assert found["file"] is None
        else:
            assert found["file"].startswith(f"{row.topic}/{row.uuid}.")
            assert (tmp_path / "out" / found["file"]).read_bytes() == value
    assert nulls
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == len(table) - nulls + 2
    assert manifest["format"] == "payloads"


def test_only_what_is_selected_is_exported(world: World, tmp_path: Path) -> None:
    (first, *_) = rows_of(world)
    query = Query(topics=(first.topic,), limit=3)
    manifest = run(world, tmp_path / "out", query)
    assert (manifest["messages"], list(manifest["topics"])) == (3, [first.topic])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "catalog.parquet",
        "manifest.json",
        f"{first.topic}.bson",
    }


def test_nothing_selected_is_an_export_of_nothing(world: World, tmp_path: Path) -> None:
    manifest = run(world, tmp_path / "out", Query(since_ms=2**62))
    assert (manifest["messages"], manifest["topics"]) == (0, {})
    assert pq.read_table(tmp_path / "out" / "catalog.parquet").num_rows == 0


# Damage


def damaged_world() -> tuple[World, list[Row]]:
    """A world in which four messages in a row, and the last one, are damaged or missing."""
    world = awkward_world("message")
    world.store = MockStore(deleting_allowed=True)
    exhausted(catch_up(world.archive()))
    rows = rows_of(world)
    bad = [*rows[3:7], rows[-1]]
    for number, row in enumerate(bad):
        body = body_of(world, row)
        world.store.delete([row.object_key])
        if number % 2:
            world.store.create([NewObject(row.object_key, body[:-1] + b"\x01")])
    return world, bad


def test_a_damaged_message_ends_it_by_name_and_leaves_no_folder(tmp_path: Path) -> None:
    world, bad = damaged_world()
    with pytest.raises(CorruptError, match=str(bad[0].uuid)):
        run(world, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_is_removed_while_it_is_exported_is_no_damage(tmp_path: Path) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive()))
    rows = rows_of(world)
    removed_while_read(world, rows[3])
    assert run(world, tmp_path / "out")["messages"] == len(rows) - 1


def test_damaged_messages_can_be_left_out_and_are_recorded(tmp_path: Path) -> None:
    world, bad = damaged_world()
    rows = rows_of(world)
    manifest = run(world, tmp_path / "out", skip_damaged=True)
    assert (manifest["messages"], manifest["damaged"]) == (len(rows) - len(bad), len(bad))
    told = [json.loads(line) for line in (tmp_path / "out" / "damaged.jsonl").read_text().splitlines()]
    assert [one["uuid"] for one in told] == [str(row.uuid) for row in bad]
    assert all(one["problems"] and one["object_key"] for one in told)
    table = pq.read_table(tmp_path / "out" / "catalog.parquet").to_pylist()
    expected = [row for row in rows if row not in bad]
    assert [one["uuid"] for one in table] == [row.uuid for row in expected]
    for row, found in zip(expected, table, strict=True):
        file = (tmp_path / "out" / found["file"]).read_bytes()
        assert file[found["file_position"] :][: found["size"]] == body_of(world, row)


# The folder


def test_a_folder_that_is_not_empty_is_left_alone_even_by_force(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "manifest.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "file"):
        for replace in (False, True):
            with pytest.raises(ConfigurationError, match=r"no export|no folder"):
                run(world, folder, replace=replace)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not list(tmp_path.parent.glob("*.partial"))


def test_an_empty_folder_is_filled_and_a_missing_one_made_with_those_above(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    run(world, tmp_path / "empty")
    run(world, tmp_path / "a" / "b" / "c")
    assert (tmp_path / "empty" / "manifest.json").exists()
    assert (tmp_path / "a" / "b" / "c" / "manifest.json").exists()


def test_an_earlier_export_is_replaced_only_by_force_and_only_when_the_new_one_is_whole(
    world: World, tmp_path: Path
) -> None:
    run(world, tmp_path / "out", Query(limit=1))
    with pytest.raises(ConfigurationError, match="--force"):
        run(world, tmp_path / "out")
    with pytest.raises(ConfigurationError):
        run(world, tmp_path / "out", Query(condition="true"), replace=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["messages"] == 1
    run(world, tmp_path / "out", Query(limit=2), replace=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["messages"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_rest_may_be_replaced_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    run(world, tmp_path / "out", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
@pytest.mark.parametrize("name", ["out.partial", "out.old"])
def test_what_somebody_else_keeps_under_a_like_name_is_never_deleted(
    tmp_path: Path, name: str, kind: str
) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive()))
    run(world, tmp_path / "out", Query(limit=1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    mine = tmp_path / name
    if kind == "folder":
        (tmp_path / "mine").rename(mine)
    elif kind == "file":
        mine.write_text("mine")
    else:
        (tmp_path / "mine" / MARK).touch()
        mine.symlink_to(tmp_path / "mine", target_is_directory=True)
    if name == "out.partial":
        with pytest.raises(ConfigurationError, match="left as it is"):
            run(world, tmp_path / "out", Query(limit=2), replace=True)
    else:
        run(world, tmp_path / "out", Query(limit=2), replace=True)
    assert (mine if kind == "file" else mine / "thesis").read_text() == "mine"
    assert mine.is_symlink() == (kind == "link")
    count = json.loads((tmp_path / "out" / "manifest.json").read_text())["messages"]
    assert count == (1 if name == "out.partial" else 2)


def test_an_earlier_export_that_cannot_be_deleted_is_told_and_the_new_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive()))
    run(world, tmp_path / "out", Query(limit=1))

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("hop_archive.read.export.shutil.rmtree", refuse)
    assert run(world, tmp_path / "out", Query(limit=2), replace=True)["messages"] == 2
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["messages"] == 2
    (old,) = (path for path in tmp_path.iterdir() if path.name != "out")
    assert json.loads((old / "manifest.json").read_text())["messages"] == 1
    assert str(old) in caplog.text


def test_an_earlier_export_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive()))
    run(world, tmp_path / "out", Query(limit=1))
    rename = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "out.partial":
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        run(world, tmp_path / "out", Query(limit=2), replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["messages"] == 1


def test_the_manifest_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    world, _ = damaged_world()
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        run(world, tmp_path / "out", skip_damaged=True, origin={"database": "grün"})
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert "grün" in (tmp_path / "out" / "manifest.json").read_bytes().decode()


def test_an_export_that_is_under_way_is_not_disturbed(world: World, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    handle = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConflictError, match="under way"):
            run(world, tmp_path / "out", replace=True)
    finally:
        os.close(handle)
    assert (tmp_path / "out.partial").is_dir()


@pytest.mark.parametrize("call", [1, 4])
def test_an_outage_leaves_nothing_behind(world: World, tmp_path: Path, call: int) -> None:
    store = Faults((Fault(call, When.BEFORE, fail),)).wrap(world.store, "store")
    with pytest.raises(UnavailableError):
        export(world.catalog, store, tmp_path / "out", ExportRequest(Query()), now=utc_now)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_of_the_users(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run(world, tmp_path / "file" / "out")


# Names


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["a.b", "a_b", "A.B", "a.b"], ["a.b", "a_b", "A.B~2", "a.b"]),
        (["manifest.json", "catalog.parquet"], ["manifest.json~2", "catalog.parquet~2"]),
        ([".", "..", "a/b", "../x", "\x00"], ["%2E", "%2E%2E", "a%2Fb", "..%2Fx", "%00"]),
        (["x" * 249, "x" * 250], ["x" * 240, "x" * 240 + "~2"]),
        ([""], [""]),
    ],
)
def test_any_topic_has_a_file_name_of_its_own(topics: list[str], names: list[str]) -> None:
    files = FileNames()
    assert [files.of(topic) for topic in topics] == names


# Much of it


def test_memory_is_bounded_however_much_is_exported(tmp_path: Path) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive()))
    rows = rows_of(world)

    class Many(MockCatalog):
        def select(self, *_: object, **__: object) -> Iterator[Row]:
            return itertools.islice(itertools.cycle(rows[:5]), count)

    peaks = []
    for count in (10_500, 21_000):  # more than one group of rows, and twice as many
        tracemalloc.start()
        export(Many(), world.store, tmp_path / str(count), ExportRequest(Query()), now=utc_now)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# The command


def test_the_command_exports_and_says_so(place: Path) -> None:
    directory = mocks(place, archived=True)
    result = invoke("export", *M, "out")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = list(MockCatalog("m", directory=directory).select(Query()))
    assert result.stdout.startswith(f"Exported {len(rows)} messages (")
    manifest = json.loads((place / "out" / "manifest.json").read_text())
    assert manifest["database"] == f"m (a mock in the directory {directory})"
    result = invoke("export", *M, "p", "--format", "payloads", "-T", "gcn.*", "--limit", "2", "--json")
    manifest = json.loads(result.stdout)
    assert manifest == json.loads((place / "p" / "manifest.json").read_text())
    assert manifest["selection"] == {"topics": ["gcn.*"], "limit": 2}
    assert invoke("export", *M, "out").exit_code == 2
    assert invoke("export", *M, "out", "--force").exit_code == 0


def test_the_command_ends_with_code_5_where_something_is_damaged(place: Path) -> None:
    directory = mocks(place, archived=True)
    row = next(MockCatalog("m", directory=directory).select(Query()))
    MockStore("m", directory=directory / "objects", deleting_allowed=True).delete([row.object_key])
    result = invoke("export", *M, "out")
    assert result.exit_code == 5
    assert str(row.uuid) in result.stderr
    assert "--skip-damaged" in result.stderr
    result = invoke("export", *M, "out", "--skip-damaged")
    assert result.exit_code == 5
    assert "1 message damaged and left out: see out/damaged.jsonl" in result.stderr
    assert result.stdout.startswith("Exported ")


def test_what_is_shown_meanwhile_is_one_line_that_fits() -> None:
    console = Console(file=io.StringIO(), width=78)
    progress = Progress("x" * 249, counts=Counter(messages=3, size_bytes=10))
    # As a live display renders it; what is printed at once is put together anew, and wraps.
    (line,) = console.render_lines(one_line(how_far(progress, 0.6)), pad=False)
    text = "".join(segment.text for segment in line)
    assert text.startswith("3 messages, 10 B, 5.0/s   xxx")
    assert len(text) == 78
