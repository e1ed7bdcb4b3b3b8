"""Snapshots of the catalog: what they hold, that they grow, and that a catalog comes back from them whole."""

from __future__ import annotations

import contextlib
import datetime
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Outcome, Row, SnapshotKind
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash
from hop_archive.errors import ConfigurationError, ConflictError, CorruptError, HopArchiveError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.read.catalog_snapshot import CatalogSnapshot, latest, snapshot
from hop_archive.read.parquet import sha256
from hop_archive.read.snapshot_locations import PREFIX, FolderLocation, SnapshotLocation, StoreLocation
from hop_archive.read.snapshot_manifest import FORMAT, WITHOUT_DIGEST, read, sealed
from hop_archive.recover.rebuild.from_snapshot import take_in
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.restore.request import Request
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive_tests.restores import empty_cluster, restoration, run
from hop_archive_tests.worlds import BUSY, QUIET, World, adopted_row, awkward_world, exhausted, fill


@pytest.fixture
def world() -> World:
    made = awkward_world("zstd")
    exhausted(catch_up(made.archive(run_id="first"), overlap=0))
    made.catalog.adopt([adopted_row(QUIET)])
    made.catalog.commit(Batch(Slice(QUIET, 1, 0, 500, 510), Outcome.LOST, "too late"))
    return made


@pytest.fixture(params=["folder", "store"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotLocation:
    return FolderLocation(tmp_path / "catalog") if request.param == "folder" else StoreLocation(MockStore())


KINDS: tuple[SnapshotKind, ...] = ("topic", "group")


def taken(world: World, location: SnapshotLocation, **options: Any) -> tuple[dict[str, Any], int]:
    """The manifest, and how many rows were written for it."""
    wanted = CatalogSnapshot(world.catalog, location, **options)
    return snapshot(wanted), wanted.progress.counts["rows"]


def rows_of(catalog: MockCatalog) -> dict[str, list[Row]]:
    return {topic: list(catalog.rows(topic)) for topic in catalog.topics()}


def everything(catalog: MockCatalog) -> tuple[object, ...]:
    """All but moments."""
    return (
        rows_of(catalog),
        [replace(entry, created_at=datetime.datetime.min) for entry in catalog.ledger()],
        [(list(catalog.duplicates(topic)), catalog.collisions(topic)) for topic in (BUSY, QUIET)],
        {
            topic: [replace(g, detected_at=datetime.datetime.min) for g in some]
            for topic, some in catalog.generations([BUSY, QUIET]).items()
        },
    )


def back(
    world: World, location: SnapshotLocation, faults: Faults | None = None, most_rows: int = 100
) -> MockCatalog:
    catalog = MockCatalog()
    wrap = (faults or Faults()).wrap
    with contextlib.suppress(CrashError, HopArchiveError):
        exhausted(take_in(Rebuild(wrap(catalog, "catalog"), world.store, most_rows=most_rows), location))
    return catalog


def test_a_snapshot_is_not_taken_in_where_its_generations_are_other_topics_in_the_catalog(
    world: World, location: SnapshotLocation
) -> None:
    """A topic was made anew, and archiving began before the snapshot was taken in: what it says would be said of that one."""
    taken(world, location)
    world.cluster.recreate_topic(BUSY)
    world.cluster.append(BUSY, b"the first of the topic of now", partition=0)
    anew = replace(world, catalog=MockCatalog())
    exhausted(catch_up(anew.archive(), overlap=0))
    before = anew.catalog.ledger([BUSY])
    with pytest.raises(ConflictError, match="archiving began before the snapshot was taken in"):
        exhausted(take_in(Rebuild(anew.catalog, anew.store), location))
    assert anew.catalog.ledger([BUSY]) == before
    assert list(anew.catalog.rows(QUIET)) == list(world.catalog.rows(QUIET)), "the others are"


def test_a_catalog_comes_back_from_a_snapshot_as_it_was(world: World, location: SnapshotLocation) -> None:
    with world.catalog._state.change() as tables:
        for own in list(tables.rows)[::5]:
            tables.rows[own] = tables.rows[own]._replace(retracted=True)
    manifest, written = taken(world, location)
    assert manifest["messages"] == written == sum(len(rows) for rows in rows_of(world.catalog).values())
    assert everything(back(world, location)) == everything(world.catalog)


def test_nothing_new_writes_nothing_and_what_is_new_is_all_that_is_written(
    world: World, location: SnapshotLocation
) -> None:
    first, _ = taken(world, location)
    again, rows = taken(world, location)
    assert (rows, again["number"], again["topics"]) == (0, first["number"] + 1, first["topics"])
    before = sum(len(some) for some in rows_of(world.catalog).values())
    fill(world.cluster, seed=4)
    exhausted(catch_up(world.archive(), overlap=0))
    after = sum(len(some) for some in rows_of(world.catalog).values())
    third, rows = taken(world, location)
    assert 0 < rows == after - before
    assert third["messages"] == after
    assert everything(back(world, location)) == everything(world.catalog)


def without_a_row(catalog: MockCatalog) -> None:
    (row, *_) = catalog.rows(BUSY)
    with catalog._state.change() as tables:
        del tables.rows[row.uuid]
    catalog.recount(BUSY)


def with_a_retracted_row(catalog: MockCatalog) -> None:
    (row, *_) = catalog.rows(BUSY)
    with catalog._state.change() as tables:
        tables.rows[row.uuid] = row._replace(retracted=True)


def with_another_adopted_row(catalog: MockCatalog) -> None:
    (row, *_) = catalog.rows(QUIET)
    catalog.adopt([adopted_row(QUIET)._replace(uuid=row.uuid.__class__(int=row.uuid.int ^ 1))])


@pytest.mark.parametrize("change", [without_a_row, with_a_retracted_row, with_another_adopted_row])
def test_rows_that_changed_or_went_are_seen_and_their_topic_is_written_anew(
    world: World, location: SnapshotLocation, change: Callable[[MockCatalog], None]
) -> None:
    taken(world, location)
    change(world.catalog)
    assert taken(world, location)[1] > 1
    assert everything(back(world, location)) == everything(world.catalog)


def test_a_row_that_is_lost_stops_no_snapshot(world: World, location: SnapshotLocation) -> None:
    """Only once what came since is written does its number tell, and all of the topic is written in the same snapshot."""
    taken(world, location)
    fill(world.cluster, seed=4)
    exhausted(catch_up(world.archive(), overlap=0))
    row = next(row for row in reversed([*world.catalog.rows(BUSY)]) if row.offset is not None)
    with world.catalog._state.change() as tables:
        del tables.rows[row.uuid]
    for _ in range(2):
        manifest, _ = taken(world, location)
        assert manifest["messages"] == sum(len(rows) for rows in rows_of(world.catalog).values())
    assert rows_of(back(world, location)) == rows_of(world.catalog)


def test_everything_is_written_anew_when_asked_for_and_after_some_days(
    world: World, location: SnapshotLocation
) -> None:
    _, every = taken(world, location)
    assert taken(world, location, full=True)[1] == every
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=31)
    assert taken(world, location, now=lambda: later)[1] == every


def test_topics_that_are_not_meant_stay_in_the_manifest(world: World, location: SnapshotLocation) -> None:
    first, _ = taken(world, location)
    fill(world.cluster, seed=4)
    exhausted(catch_up(world.archive(), overlap=0))
    second, _ = taken(world, location, topics=(QUIET,))
    assert second["topics"][BUSY] == first["topics"][BUSY]
    assert second["topics"][QUIET] != first["topics"][QUIET]


def test_pyarrow_reads_the_folder_as_it_is(world: World, tmp_path: Path) -> None:
    for seed in (1, 2):
        taken(world, FolderLocation(tmp_path / "catalog"))
        fill(world.cluster, seed=seed)
        exhausted(catch_up(world.archive(), overlap=0))
    taken(world, FolderLocation(tmp_path / "catalog"))
    table = ds.dataset(tmp_path / "catalog" / "messages", partitioning="hive").to_table()
    found = {(r["topic"], r["uuid"], r["offset"], r["key"]) for r in table.to_pylist()}
    rows = [row for some in rows_of(world.catalog).values() for row in some]
    assert found == {(r.topic, r.uuid, r.offset, r.object_key) for r in rows}
    assert table.num_rows == len(rows)
    assert set(table.column("month").to_pylist()) == {"2023-11"}
    counted = ds.dataset(tmp_path / "catalog" / "ledger", partitioning="hive").to_table()
    assert sum(counted.column("archived").to_pylist()) == len(rows) - 1


def test_a_snapshot_that_was_killed_anywhere_leaves_the_one_before_whole(
    world: World, location: SnapshotLocation
) -> None:
    faults = Faults()
    snapshot(CatalogSnapshot(faults.wrap(world.catalog, "catalog"), faults.wrap(location, "location")))
    fill(world.cluster, seed=4)
    before = everything(world.catalog)
    exhausted(catch_up(world.archive(), overlap=0))
    for number in range(1, 400, 7):
        deadly = Faults((Fault(number, When.BEFORE, crash),))
        try:
            snapshot(
                CatalogSnapshot(
                    deadly.wrap(world.catalog, "catalog"), deadly.wrap(location, "location"), full=True
                )
            )
        except CrashError:
            if number < 60:
                assert latest(location) is not None
                assert everything(back(world, location)) == before
            continue
        break
    assert everything(back(world, location)) == everything(world.catalog)


def test_taking_a_snapshot_in_that_was_killed_anywhere_goes_on(
    world: World, location: SnapshotLocation
) -> None:
    taken(world, location)
    faults = Faults()
    back(world, location, faults, most_rows=5)
    for number in range(1, len(faults.calls) + 1, 2):
        for when in When:
            catalog = back(world, location, Faults((Fault(number, when, crash),)), most_rows=5)
            exhausted(take_in(Rebuild(catalog, world.store, most_rows=5), location))
            assert rows_of(catalog) == rows_of(world.catalog)
            assert catalog.coverage() == world.catalog.coverage()
            assert list(catalog.duplicates(BUSY)) == list(world.catalog.duplicates(BUSY))


def test_what_is_in_the_store_beyond_an_old_snapshot_is_added_by_a_rebuild(
    world: World, location: SnapshotLocation
) -> None:
    taken(world, location)
    fill(world.cluster, seed=4)
    exhausted(catch_up(world.archive(), overlap=0))
    catalog = back(world, location)
    assert list(rebuild(Rebuild(catalog, world.store))) == []
    assert rows_of(catalog) == rows_of(world.catalog)


def test_a_file_that_is_not_as_it_was_written_is_refused(world: World, tmp_path: Path) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    (one, *_) = sorted((tmp_path / "catalog" / "messages").rglob("*.parquet"))
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="not as it was written"):
        exhausted(take_in(Rebuild(MockCatalog(), world.store), location))


def test_a_topic_whose_file_is_damaged_does_not_stop_the_others(world: World, tmp_path: Path) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    for path in (tmp_path / "catalog" / "messages" / f"topic={BUSY}").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    catalog = MockCatalog()
    wanted = Rebuild(catalog, world.store)
    with pytest.raises(CorruptError, match=BUSY):
        exhausted(take_in(wanted, location))
    assert list(catalog.rows(QUIET)) == list(world.catalog.rows(QUIET))
    assert BUSY in wanted.failures
    with pytest.raises(
        CorruptError, match="the others are done"
    ):  # and is not rebuilt with less than there is of it
        exhausted(rebuild(wanted))
    assert BUSY not in catalog.topics()


def rewritten(
    folder: Path, kind: str, change: Callable[[pa.Table], pa.Table] | Callable[[Path], object]
) -> None:
    """Let files of a topic say something else, with a manifest that knows them so."""
    (manifest,) = (folder / "manifests").glob("*.json")
    found = json.loads(manifest.read_bytes())
    for told in found["topics"][BUSY]["files"]:
        if told["kind"] == kind:
            path = folder / told["path"]
            tampered(path, change)
            told["sha256"] = sha256(path)
    found["topics"][BUSY] = sealed(BUSY, found["topics"][BUSY])
    manifest.write_text(json.dumps(sealed("", found)))


def tampered(path: Path, change: Callable[[Any], Any]) -> None:
    if change in (no_parquet, with_other_bytes):
        change(path)
    else:
        pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 no Parquet at all PAR1")


def with_other_bytes(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[4 : len(body) // 2] = bytes(len(body) // 2 - 4)
    path.write_bytes(body)


def with_column(name: str, value: object, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        kind_of_all = kind or table.schema.field(name).type
        return table.set_column(at, name, pa.array([value] * table.num_rows, kind_of_all))

    return change


def without_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["crc32"])


def with_numbers_as_text(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("size"), "size", table["size"].cast(pa.string()))


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("messages", no_parquet),
        ("ledger", no_parquet),
        ("messages", with_other_bytes),
        ("messages", without_column),
        ("messages", with_numbers_as_text),
        ("messages", with_column("uuid", "no UUID", pa.string())),
        ("messages", with_column("size", None)),
        ("messages", with_column("partition", None)),
        ("messages", with_column("timestamp_type", 99)),
        ("messages", twice),
        ("duplicates", with_column("uuid", "no UUID", pa.string())),
        ("ledger", with_column("outcome", "eaten")),
        ("ledger", with_column("start", 2**40)),
    ],
)
def test_a_file_that_says_what_cannot_be_costs_its_topic_and_is_one_message(
    world: World, tmp_path: Path, kind: str, change: Callable[[Any], Any]
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    rewritten(tmp_path / "catalog", kind, change)
    catalog = MockCatalog()
    wanted = Rebuild(catalog, world.store)
    with pytest.raises(CorruptError, match=rf"{BUSY}: .* cannot be what was taken: .*an older snapshot"):
        exhausted(take_in(wanted, location))
    assert list(catalog.rows(QUIET)) == list(world.catalog.rows(QUIET))
    assert BUSY in wanted.failures


def as_before(table: pa.Table) -> pa.Table:
    """As files were until 2026-11: without ``time``, and with text as UUIDs."""
    texts = pa.array([str(each) for each in table.column("uuid").to_pylist()], pa.string())
    return table.set_column(table.column_names.index("uuid"), "uuid", texts).drop_columns(["time"])


def test_a_snapshot_of_before_is_read_and_the_next_one_writes_its_topics_anew(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "catalog"
    location = FolderLocation(folder)
    _, every = taken(world, location)
    for kind in ("messages", "duplicates"):
        rewritten(folder, kind, as_before)
    (manifest,) = (folder / "manifests").glob("*.json")
    found = json.loads(manifest.read_bytes())
    for topic, part in found["topics"].items():
        del part["state"]["form"]
        found["topics"][topic] = sealed(topic, part)
    manifest.write_text(json.dumps(sealed("", found)))
    assert everything(back(world, location)) == everything(world.catalog)
    again, rows = taken(world, location)
    assert rows == every
    for told in (each for topic in again["topics"].values() for each in topic["files"]):
        if told["kind"] != "ledger":
            schema = pq.read_schema(folder / told["path"])
            assert (str(schema.field("time").type), schema.field("uuid").type) == (
                "timestamp[ms, tz=UTC]",
                pa.uuid(),
            )
    assert everything(back(world, location)) == everything(world.catalog)


def without_frames(table: pa.Table) -> pa.Table:
    """As files were before segments were compressed."""
    return table.drop_columns(["frame", "frame_size"])


def test_a_snapshot_of_before_there_were_frames_is_read(tmp_path: Path) -> None:
    world = awkward_world("segment")
    exhausted(catch_up(world.archive(), overlap=0))
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    rewritten(tmp_path / "catalog", "messages", without_frames)
    found = back(world, location)
    assert {row.frame for row in found.rows(BUSY)} == {None}
    assert everything(found) == everything(world.catalog)


def test_a_topic_with_the_longest_name_comes_back_from_a_snapshot(location: SnapshotLocation) -> None:
    world = World("segment")
    longest = "x" * 249
    world.cluster.create_topic(longest)
    world.cluster.append(longest, b"value")
    exhausted(catch_up(world.archive(), overlap=0))
    taken(world, location)
    catalog = MockCatalog()
    exhausted(take_in(Rebuild(catalog, world.store), location))
    assert list(catalog.rows(longest)) == list(world.catalog.rows(longest))


def test_a_folder_of_somebody_else_is_left_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="no catalog snapshot"):
        taken(world, FolderLocation(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigurationError, match="no catalog snapshot"):
        exhausted(take_in(Rebuild(MockCatalog(), world.store), FolderLocation(tmp_path / "none")))


def test_two_snapshots_to_one_folder_at_once_are_refused(world: World, tmp_path: Path) -> None:
    location = FolderLocation(tmp_path / "catalog")
    with location.writing(), pytest.raises(ConflictError):
        taken(world, location)


def test_old_files_go_from_a_folder_with_the_manifests_that_named_them(world: World, tmp_path: Path) -> None:
    location = FolderLocation(tmp_path / "catalog")
    for _ in range(2):
        manifest, _ = taken(world, location, full=True)
    there = {path.relative_to(tmp_path / "catalog").as_posix() for path in tmp_path.rglob("*.parquet")}
    assert there == {file["path"] for one in manifest["topics"].values() for file in one["files"]}
    (text,) = (tmp_path / "catalog" / "manifests").iterdir()
    assert json.loads(text.read_bytes())["number"] == 2


# --- manifests


def manifest_of(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "catalog" / "manifests").iterdir()
    return found


def as_of_before_digests(text: bytes) -> dict[str, Any]:
    """A manifest as earlier versions wrote it."""
    found: dict[str, Any] = json.loads(text)
    for part in (found, *found["topics"].values()):
        part.pop("digest")
        part.pop("observed", None)
    del found["setups"]
    return {**found, "manifest": WITHOUT_DIGEST}


def test_one_bit_that_flipped_anywhere_in_a_manifest_is_noticed_and_nothing_of_it_is_believed(
    world: World, tmp_path: Path
) -> None:
    take_snapshot(world.archive())
    taken(world, FolderLocation(tmp_path / "catalog"))
    text = manifest_of(tmp_path).read_bytes()
    whole = read(text)
    assert (whole.problem, whole.damaged, set(whole.topics)) == ("", {}, {BUSY, QUIET})
    for position in range(0, len(text), max(1, len(text) // 700)):
        flipped = bytearray(text)
        flipped[position] ^= 1 << (position % 8)
        found = read(bytes(flipped))
        with contextlib.suppress(ValueError):
            if json.loads(bytes(flipped)) == json.loads(text):
                continue  # white space
        assert found.problem, position
        assert all(found.topics[topic] == whole.topics[topic] for topic in found.topics)
        assert found.setups in ((), whole.setups)


def test_a_topic_id_that_changed_in_the_manifest_costs_that_topic_alone_until_the_next_snapshot(
    world: World, tmp_path: Path
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    path = manifest_of(tmp_path)
    own = world.catalog.generations([BUSY])[BUSY][0].topic_id or ""
    path.write_text(path.read_text().replace(own, chr(ord(own[0]) ^ 1) + own[1:]))
    catalog = MockCatalog()
    wanted = Rebuild(catalog, world.store)
    with pytest.raises(CorruptError, match=f"{BUSY}.*not as it was written"):
        exhausted(take_in(wanted, location))
    assert catalog.generations(None).keys() == {QUIET}
    assert BUSY in wanted.failures
    taken(world, location, topics=(QUIET,))
    assert everything(back(world, location)) == everything(world.catalog)


def test_a_manifest_whose_head_changed_is_told_though_every_topic_of_it_came_back(
    world: World, tmp_path: Path
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    path = manifest_of(tmp_path)
    path.write_text(path.read_text().replace('"number": 1', '"number": 9', 1))
    catalog = MockCatalog()
    with pytest.raises(CorruptError, match="its digest is another"):
        exhausted(take_in(Rebuild(catalog, world.store), location))
    assert everything(catalog) == everything(world.catalog)


def test_where_the_digest_of_a_manifest_alone_is_wrong_what_is_beyond_it_still_comes_from_the_store(
    world: World, tmp_path: Path
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location, topics=(QUIET,))
    path = manifest_of(tmp_path)
    path.write_text(path.read_text().replace('"number": 1', '"number": 9', 1))
    catalog = MockCatalog()
    wanted = Rebuild(catalog, world.store)
    with pytest.raises(CorruptError, match="its digest is another"):
        exhausted(take_in(wanted, location))
    assert wanted.failures
    assert catalog.generations(None).keys() == {QUIET}
    with pytest.raises(CorruptError, match="its digest is another"):
        exhausted(rebuild(wanted))
    assert catalog.generations(None).keys() == {BUSY, QUIET}


@pytest.mark.parametrize("depth", [900, 950, 970, 980, 985, 990, 995])
@pytest.mark.parametrize("form", [FORMAT, WITHOUT_DIGEST])
@pytest.mark.parametrize("part", ["topics", "setups", "manifest"])
def test_a_manifest_that_is_nested_too_deep_is_damaged_and_no_crash(depth: int, form: str, part: str) -> None:
    deep = '{"of":' + "[" * depth + "]" * depth + "}"
    parts = {"manifest": json.dumps(form), "topics": "{}", "setups": "null"}
    parts[part] = '{"alerts": ' + deep + "}" if part == "topics" else deep
    found = read(("{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}").encode())
    assert found.problem or found.damaged


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"manifest": 1, "topics": {}}', b"null"]
)
def test_what_is_no_manifest_is_refused_and_where_it_is_damaged_the_next_snapshot_is_whole(
    world: World, tmp_path: Path, text: bytes
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    manifest_of(tmp_path).write_bytes(text)
    with pytest.raises(CorruptError, match="not believed"):
        exhausted(take_in(Rebuild(MockCatalog(), world.store), location))
    if b"manifest" in text:
        with pytest.raises(CorruptError, match="cannot be gone on from"):
            taken(world, location)
        return
    taken(world, location)
    assert everything(back(world, location)) == everything(world.catalog)


def test_a_manifest_of_before_digests_is_read_with_a_warning_and_the_next_one_has_one(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    path = manifest_of(tmp_path)
    path.write_text(json.dumps(as_of_before_digests(path.read_bytes())))
    assert everything(back(world, location)) == everything(world.catalog)
    assert "carries no digest" in caplog.text
    assert taken(world, location)[1] == 0
    assert read(manifest_of(tmp_path).read_bytes()).has_digest


def wrong(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(part: dict[str, Any]) -> None:
        *names, last = path.split(".")
        place: Any = part
        for name in names:
            place = place[int(name) if name.isdigit() else name]
        place[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("messages", "12"),
        ("messages", True),
        ("whole_at", 5),
        ("whole_at", "yesterday"),
        ("whole_at", "1700000000"),
        ("state", None),
        ("state.archived", [[1, 0, [[0]]]]),
        ("state.archived", [[1, 0, [[5, 3]]]]),
        ("state.retracted", "x"),
        ("observed", [[1, 0, 0, 9, 3]]),
        ("generations", {}),
        ("generations.0.number", 2**40),
        ("generations.0.number", "1"),
        ("generations.0.topic_id", ["a"]),
        ("generations.0.cluster_id", None),
        ("generations.0.reason", "a\0b"),
        ("collisions", [[1, 0, 3, "no uuid", "no uuid"]]),
        ("files", "none"),
        ("files.0", None),
        ("files.0.path", "messages/../../../etc/passwd"),
        ("files.0.path", "/etc/passwd"),
        ("files.0.kind", "pickles"),
        ("files.0.sha256", None),
    ],
)
def test_a_value_of_a_wrong_type_in_a_manifest_costs_its_topic_and_is_one_message(
    world: World, tmp_path: Path, path: str, value: object
) -> None:
    location = FolderLocation(tmp_path / "catalog")
    taken(world, location)
    found = as_of_before_digests(manifest_of(tmp_path).read_bytes())
    wrong(path, value)(found["topics"][BUSY])
    manifest_of(tmp_path).write_text(json.dumps(found))
    catalog = MockCatalog()
    with pytest.raises(
        CorruptError, match=f"{BUSY}.*what the manifest says of it cannot be: {path.split('.')[0]}"
    ):
        exhausted(take_in(Rebuild(catalog, world.store), location))
    assert catalog.topics() == [QUIET]


def test_an_object_that_is_not_what_was_put_is_noticed_by_its_etag_where_no_digest_tells(
    world: World,
) -> None:
    store = MockStore()
    taken(world, StoreLocation(store))
    key = f"{PREFIX}manifests/00000001.json"
    old = as_of_before_digests(next(iter(store.fetch([Extent(key)]))))
    key = key.replace("01.json", "02.json")
    store.create([NewObject(key, json.dumps(old).encode())])
    assert everything(back(world, StoreLocation(store))) == everything(world.catalog)
    own = world.catalog.generations([BUSY])[BUSY][0].topic_id or ""
    store.damage(key, json.dumps(old).replace(own, "A" + own[1:]).encode())
    with pytest.raises(CorruptError, match="its ETag is that of other bytes"):
        exhausted(take_in(Rebuild(MockCatalog(), world.store), StoreLocation(store)))


def test_how_topics_and_groups_were_set_up_comes_back_with_the_catalog(
    world: World, location: SnapshotLocation, tmp_path: Path
) -> None:
    world.cluster.create_topic("alerts.empty", 4)
    at = TopicPartition("alerts.empty", 3)
    MockSource(cluster=world.cluster).set_group_offsets("readers", {at: Committed(0, "beside")})
    exhausted(catch_up(world.archive()))
    take_snapshot(world.archive())
    taken(world, location)
    catalog = back(world, location)
    for kind in KINDS:
        assert catalog.snapshots(kind) == world.catalog.snapshots(kind)
    every = [BUSY, QUIET, "alerts.empty"]
    assert catalog.observed(every) == world.catalog.observed(every)
    again = World("segment", catalog=catalog, store=world.store)
    target = empty_cluster()
    request = Request(query=Query(topics=("alerts.empty",)))
    outcome = run(restoration(again, target, request), tmp_path / "restore", move_groups=("readers",))
    assert MockSource(cluster=target).topics()["alerts.empty"].partitions == 4
    assert MockSource(cluster=target).groups() == {"readers": {at: Committed(0, "beside")}}
    assert outcome.unrestored == []


def test_set_ups_of_topics_that_are_not_meant_are_not_taken_in(
    world: World, location: SnapshotLocation
) -> None:
    take_snapshot(world.archive())
    taken(world, location)
    catalog = MockCatalog()
    exhausted(take_in(Rebuild(catalog, world.store, topics=(QUIET,)), location))
    assert {one.name for one in catalog.snapshots("topic")} == {QUIET}


def test_what_the_catalog_knows_since_is_not_replaced_by_what_a_snapshot_knew(
    world: World, location: SnapshotLocation
) -> None:
    taken(world, location)
    fill(world.cluster, seed=4)
    exhausted(catch_up(world.archive(), overlap=0))
    after = world.catalog.observed([BUSY, QUIET])
    exhausted(take_in(Rebuild(world.catalog, world.store), location))
    assert world.catalog.observed([BUSY, QUIET]) == after


def test_a_topic_whose_name_kafka_would_not_take_is_in_a_snapshot_and_can_be_selected(
    world: World, location: SnapshotLocation
) -> None:
    theirs = f"{BUSY}+oversized"
    world.catalog.adopt([adopted_row(theirs)._replace(uuid=uuid.UUID(int=77), object_key="theirs.bson")])
    manifest, _ = taken(world, location)
    assert manifest["topics"][theirs]["messages"] == 1
    assert rows_of(back(world, location)) == rows_of(world.catalog)
    for selected in (theirs, f"{BUSY}[+]*"):
        assert [row.topic for row in world.catalog.select(Query((selected,)))] == [theirs]
    for regex in (f"{BUSY}+", "^a$", "[a", ""):
        with pytest.raises(ConfigurationError, match="Wanted a topic name or glob"):
            list(world.catalog.select(Query((regex,))))
