"""Indexing text and correcting media types: all that is to be done, once, whatever ends it in between."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from dataclasses import replace

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Row, RowJob
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash
from hop_archive.errors import ConflictError, HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.annotations import annotate
from hop_archive.model.document import decode
from hop_archive.model.findings import Finding
from hop_archive.model.progress import Progress
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.upkeep import row_jobs
from hop_archive.upkeep.media_types import correct_media_types
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.text_index import backlog, index_text, is_indexed
from hop_archive_tests.damaging import Ruin, ruin, verified
from hop_archive_tests.invariants import fetched
from hop_archive_tests.worlds import BUSY, QUIET, World, exhausted

ALL = ("*",)
FILES = "files"
VALUES: dict[str, bytes] = {
    "image/fits": b"SIMPLE  =                    T" + bytes(3_000),
    "image/png": b"\x89PNG\r\n\x1a\n",
    "text/csv": b"ra,dec\n1,2\n3,4\n5,6\n",
    "text/xml": b"<?xml version='1.0'?><a/>",
    "application/x-empty": b"",
    "application/json": b'{"a": 1}',
    "text/plain": b"words",
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_jobs, "PORTION_ROWS", 4)


@pytest.fixture(params=["message", "segment", "zstd"])
def sound(request: pytest.FixtureRequest) -> Ruin:
    return ruin(request.param)


def index(sound: Ruin, faults: Faults | None = None, **options: object) -> Progress:
    archive, progress = sound.archive(faults), Progress()
    patterns = options.pop("patterns", ALL)
    index_text(archive.catalog, archive.store, patterns, progress, **options)  # type: ignore[arg-type] # as given
    return progress


def texts(sound: Ruin) -> dict[uuid.UUID, str]:
    with sound.world.catalog._state.read() as tables:
        return {own: entry.text for own, entry in tables.texts.items()}


def every(sound: Ruin) -> list[Row]:
    return [row for topic in sound.world.catalog.topics() for row in sound.rows(topic)]


# --- text


def test_every_message_is_indexed_once_and_the_next_run_has_nothing_to_do(sound: Ruin) -> None:
    rows = every(sound)
    done = index(sound)
    assert texts(sound).keys() == {row.uuid for row in rows}
    assert done.counts["indexed"] == len(rows)
    assert done.counts["rows"] == done.total == len(rows)
    assert backlog(sound.world.catalog, ALL).messages == 0
    faults = Faults()
    assert index(sound, faults).counts["indexed"] == 0
    assert not [call for call in faults.calls if call.startswith("store")]


def test_what_is_archived_later_is_indexed_later(sound: Ruin) -> None:
    index(sound)
    sound.world.cluster.append(QUIET, b"a later notice")
    exhausted(catch_up(sound.archive()))
    assert backlog(sound.world.catalog, ALL).messages == 1
    assert index(sound).counts["indexed"] == 1
    assert "a later notice" in texts(sound).values()


def test_a_topic_that_is_added_to_the_key_is_indexed_by_a_run_over_all(sound: Ruin) -> None:
    index(sound, patterns=(QUIET,))
    assert texts(sound).keys() == {row.uuid for row in sound.rows(QUIET)}
    assert index(sound).counts["indexed"] == 0
    assert index(sound, everything=True).counts["indexed"] == len(sound.rows(BUSY))
    assert texts(sound).keys() == {row.uuid for row in every(sound)}


def test_what_hop_client_sent_another_way_is_indexed_with_its_topic() -> None:
    assert is_indexed("lvk.alerts+oversized", ("lvk.alerts",))
    assert is_indexed("lvk.alerts+oversized", ("lvk.*",))
    assert not is_indexed("lvk.alerts+oversized", ("gcn.*",))
    assert not is_indexed("lvk.alerts", ())


def test_a_run_is_bounded_and_goes_on_where_it_was(sound: Ruin) -> None:
    number = len(every(sound))
    assert index(sound, limit=6).counts["indexed"] == 6
    assert index(sound, stop=lambda: True).counts["indexed"] == 4
    assert index(sound).counts["indexed"] == number - 10


def test_killed_anywhere_it_leaves_nothing_out_and_does_nothing_twice() -> None:
    faults = Faults()
    whole = ruin("message")
    index(whole, faults)
    expected = texts(whole)
    for number in range(1, len(faults.calls) + 1, 3):
        for when in When:
            broken = ruin("message")
            with contextlib.suppress(CrashError, HopArchiveError):
                index(broken, Faults((Fault(number, when, crash),)))
            index(broken)
            assert sorted(texts(broken).values()) == sorted(expected.values())


def test_one_at_a_time_indexes(sound: Ruin) -> None:
    with sound.world.catalog.hold(RowJob.INDEX_TEXT.value), pytest.raises(ConflictError):
        index(sound)
    assert index(sound).counts["indexed"]


def test_a_document_that_is_damaged_or_missing_stops_only_itself(sound: Ruin) -> None:
    first = sound.rows(QUIET)[0]
    sound.flip(first)
    rows = every(sound)
    done = index(sound)
    assert done.counts["unreadable"] >= 1
    assert done.counts["indexed"] + done.counts["unreadable"] == len(rows)
    assert first.uuid not in texts(sound)
    sound.flip(first)
    assert index(sound, everything=True).counts["indexed"] == done.counts["unreadable"]


def test_nothing_of_what_is_suppressed_is_found_before_or_after() -> None:
    for before in (True, False):
        broken = ruin("message")
        row = next(row for row in broken.rows(BUSY) if row.offset == 5)
        if before:
            index(broken)
        suppress(Removing(broken.world.catalog, broken.world.store), [row.uuid], "by order")
        index(broken, everything=True)
        assert texts(broken).keys() == {other.uuid for other in every(broken)} - {row.uuid}


def test_the_age_of_the_backlog_is_that_of_what_was_archived_first(sound: Ruin) -> None:
    since = backlog(sound.world.catalog, ALL).since
    assert since is not None
    assert datetime.datetime.now(datetime.UTC) - since < datetime.timedelta(minutes=10)


# --- media types


def filed(layout: str) -> Ruin:
    """An archive of files; each message has its media type in a header of no meaning."""
    world = World("segment" if layout == "segment" else "message", store=MockStore(deleting_allowed=True))
    world.cluster.create_topic(FILES)
    for media_type, value in VALUES.items():
        for form in ((), (("_format", b"blob"),)) if value else ((),):
            world.cluster.append(FILES, value, headers=(("wanted", media_type.encode()), *form))
    exhausted(catch_up(world.archive()))
    return Ruin(world, MockStore("backup", bucket="backup"))


@pytest.fixture(params=["message", "segment", "zstd"])
def files(request: pytest.FixtureRequest) -> Ruin:
    return filed(request.param)


def looked(files: Ruin) -> list[Finding]:
    """What a deep look finds; there is no backup."""
    return list(verified(files.archive()))


def age(files: Ruin) -> list[Row]:
    """Let the rows say what an older version said of them: what their documents do."""
    rows = files.rows(FILES)
    for row in rows:
        files.alter(row, annotations=decode(fetched(files.world.store, row)).annotations)
    return rows


def test_rows_have_the_better_media_type_and_documents_keep_the_bytes_that_they_always_had(
    files: Ruin,
) -> None:
    for row in files.rows(FILES):
        document = decode(fetched(files.world.store, row))
        wanted = dict(document.message.headers)["wanted"]
        assert wanted is not None
        assert row.annotations.media_type == wanted.decode()
        assert document.annotations == annotate(document.message.headers, document.message.value)
    assert looked(files) == []


def correct(files: Ruin, faults: Faults | None = None, limit: int | None = None) -> int:
    archive, progress = files.archive(faults), Progress()
    correct_media_types(archive.catalog, archive.store, progress, limit=limit)
    return progress.counts["corrected"]


def test_rows_of_an_older_version_are_no_difference_and_are_corrected_once(files: Ruin) -> None:
    rows = age(files)
    old = files.rows(FILES)
    assert old != rows
    bodies = [fetched(files.world.store, row) for row in rows]
    assert looked(files) == []
    assert correct(files) == sum(a != b for a, b in zip(old, rows, strict=True))
    assert files.rows(FILES) == rows
    assert [fetched(files.world.store, row) for row in rows] == bodies
    assert looked(files) == []
    faults = Faults()
    assert correct(files, faults) == 0
    assert not [call for call in faults.calls if call.startswith("store")]


def test_correcting_is_bounded_and_killed_anywhere_goes_on(files: Ruin) -> None:
    rows = age(files)
    for number in range(1, 30, 2):
        with contextlib.suppress(CrashError, HopArchiveError):
            correct(files, Faults((Fault(number, When.AFTER, crash),)), limit=3)
    for _ in range(10):
        correct(files, limit=3)
    assert files.rows(FILES) == rows


def test_a_row_whose_document_is_damaged_is_left_as_it_is(files: Ruin) -> None:
    age(files)
    old = files.rows(FILES)[0]
    files.flip(old)
    correct(files)
    assert files.rows(FILES)[0] == old
    assert [finding.kind.value for finding in looked(files)] == ["corrupt_object"]


def test_what_is_suppressed_keeps_what_its_tombstone_says(files: Ruin) -> None:
    age(files)
    row = files.rows(FILES)[0]
    suppress(Removing(files.world.catalog, files.world.store), [row.uuid], "by order")
    correct(files)
    assert files.world.catalog.find(row.uuid).annotations.media_type == row.annotations.media_type  # type: ignore[union-attr] # it is there
    assert looked(files) == []


def test_a_row_that_was_corrected_while_it_was_suppressed_is_no_difference(files: Ruin) -> None:
    (old, *_) = age(files) and files.rows(FILES)
    suppress(Removing(files.world.catalog, files.world.store), [old.uuid], "by order")
    now = files.rows(FILES)[0]
    files.alter(now, annotations=now.annotations._replace(media_type="image/fits"))
    assert looked(files) == []
    suppress(Removing(files.world.catalog, files.world.store), [old.uuid], "by order")
    assert looked(files) == []


@pytest.mark.parametrize("corrected", [True, False])
def test_a_lost_object_is_made_anew_from_kafka_with_the_bytes_that_it_had(
    files: Ruin, corrected: bool
) -> None:
    if not corrected:
        age(files)
    rows = files.rows(FILES)
    keys = {row.object_key: files.body(row.object_key) for row in rows}
    for key in keys:
        files.drop(key)
    looked(files)
    files.repair(backup=False)
    assert {key: files.body(key) for key in keys} == keys
    assert files.rows(FILES) == rows
    assert looked(files) == []


def test_a_row_that_was_altered_is_mended_whether_its_media_type_was_corrected_or_not(files: Ruin) -> None:
    for aged in (False, True):
        row = age(files)[0] if aged else files.rows(FILES)[0]
        was = files.world.catalog.find(row.uuid)
        assert was is not None
        files.alter(was, crc32=was.crc32 ^ 1)
        looked(files)
        files.repair(backup=False, source=False)
        assert files.world.catalog.find(row.uuid) == was


def test_a_media_type_that_is_neither_is_a_difference_and_mended(files: Ruin) -> None:
    row = files.rows(FILES)[0]
    files.alter(row, annotations=row.annotations._replace(media_type="text/nonsense"))
    assert [finding.kind.value for finding in looked(files)] == ["row_differs"]
    files.repair(backup=False, source=False)
    assert files.world.catalog.find(row.uuid) == row


def test_a_catalog_that_is_rebuilt_has_the_better_media_types(files: Ruin) -> None:
    rows = files.rows(FILES)
    world = replace(files.world, catalog=MockCatalog())
    exhausted(rebuild(Rebuild(world.catalog, world.store)))
    assert list(world.catalog.rows(FILES)) == rows
