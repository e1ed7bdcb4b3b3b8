"""Selecting, inspecting and exporting on real servers: rows out of Postgres, documents out of S3, in both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import bson
import pytest

from hop_archive.archive import Archive, utc_now
from hop_archive.devkit.samples import filler
from hop_archive.errors import CorruptError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode
from hop_archive.model.query import Query
from hop_archive.read import browse
from hop_archive.read.export import ExportRequest, export
from hop_archive.read.fetch import fetch_documents
from hop_archive.read.inspect import inspect
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.worlds import exhausted

pytestmark = pytest.mark.local

A_LAYOUT = 120


@pytest.fixture
def archive(open_archive: OpenArchive, namespace: str) -> Archive:
    """Messages of one topic, the first half in objects of their own, the second in segments."""
    archive = open_archive(layout="message")
    archive.source.create_topic(namespace, 2)
    for seed, layout in enumerate(("message", "segment")):
        archive.source.publish(list(filler(A_LAYOUT, 400 + seed, topic=namespace, seed=seed)))
        exhausted(catch_up(open_archive(layout=layout)))
    return archive


def test_documents_of_both_layouts_come_by_their_rows_and_are_sound(archive: Archive) -> None:
    rows = list(archive.catalog.select(Query(condition="size > 0")))
    assert len(rows) == 2 * A_LAYOUT
    assert {row.position is None for row in rows} == {True, False}
    found = list(fetch_documents(archive.store, rows))
    assert [one.row for one in found] == rows
    assert {one.problems for one in found} == {()}
    for row in (rows[0], rows[-1]):
        one = inspect(archive.catalog, archive.store, row.uuid)
        assert one is not None
        assert (one.row, one.problems) == (row, ())


@pytest.mark.role("cleaner")  # who may delete them
def test_objects_that_are_gone_are_told_one_by_one_and_the_rest_is_exported(
    archive: Archive, tmp_path: Path
) -> None:
    rows = list(archive.catalog.select(Query()))
    gone = [row for row in rows if row.position is None][5:20:3]
    archive.store.delete([row.object_key for row in gone])
    with pytest.raises(CorruptError, match=str(gone[0].uuid)):
        export(archive.catalog, archive.store, tmp_path / "out", ExportRequest(Query()), now=utc_now)
    wanted = ExportRequest(Query(), skip_damaged=True)
    manifest = export(archive.catalog, archive.store, tmp_path / "out", wanted, now=utc_now)
    assert (manifest["messages"], manifest["damaged"]) == (len(rows) - len(gone), len(gone))
    told = [
        json.loads(line)["uuid"] for line in (tmp_path / "out" / "damaged.jsonl").read_text().splitlines()
    ]
    assert told == [str(row.uuid) for row in gone]
    ((_, topic),) = manifest["topics"].items()
    exported = bson.decode_all((tmp_path / "out" / topic["file"]).read_bytes())
    assert [one["annotations"]["con_text_uuid"] for one in exported] == [
        str(row.uuid) for row in rows if row not in gone
    ]


def test_messages_are_selected_and_fetched_while_more_arrive(archive: Archive, namespace: str) -> None:
    fetched = fetch_documents(archive.store, archive.catalog.select(Query(topics=(namespace,))))
    first = next(fetched)
    archive.source.publish(list(filler(10, 100, topic=namespace, seed=7)))
    exhausted(catch_up(archive))
    rest = list(fetched)
    assert 1 + len(rest) >= 2 * A_LAYOUT
    assert decode(first.body) == first.document


def test_python_reads_rows_counts_tables_and_the_newest_of_both_layouts(
    archive: Archive, namespace: str
) -> None:
    opened = browse.OpenArchive(archive.catalog, archive.store)
    messages = list(opened.messages(namespace))
    third = '"offset" % 3 = 0'
    some = [found.row for found in messages if found.message.offset % 3 == 0]
    assert 0 < len(some) < len(messages) == 2 * A_LAYOUT
    assert list(opened.rows(namespace, where=third)) == some
    assert list(opened.uuids(namespace, where=third)) == [row.uuid for row in some]
    assert opened.count(namespace, where=third) == len(some)
    assert opened.count(uuids=[row.uuid for row in some[:3]]) == 3
    table = opened.to_arrow(namespace, values=True)
    assert table.column("value").to_pylist() == [found.value for found in messages]
    assert table.column("time").to_pylist() == [found.timestamp for found in messages]
    newest = list(opened.messages(namespace, newest_first=True))
    assert [found.row for found in newest] == list(opened.rows(namespace, newest_first=True))
    assert {found.uuid: found for found in newest} == {found.uuid: found for found in messages}
    times = [found.row.timestamp_ms for found in newest]
    assert times == sorted(times, reverse=True)
    assert list(opened.messages(newest_first=True, limit=5)) == newest[:5]
    assert opened.count(since="1d") + opened.count(until="1d") == len(messages)
