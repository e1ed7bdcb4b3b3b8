"""What was published by hop-client's conventions and archived by us, asked for as archive-core asks: its questions, our SQL."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any, LiteralString, NamedTuple

import bson
import psycopg
import pytest
from psycopg.rows import dict_row

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import Sample
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Header
from hop_archive.store.protocol import Extent
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.field.forms import NOW_MS
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.field, pytest.mark.local]

COLUMNS: LiteralString = (
    "id, topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload, message_crc32,"
    " title, sender, media_type, file_name, originator, retracted"
)
BY_UUID: LiteralString = f"SELECT {COLUMNS} FROM messages WHERE uuid = %s"
IS_THERE: LiteralString = (
    "SELECT count(*) FROM messages WHERE timestamp = %s AND topic = %s AND message_crc32 = %s"
)
FROM_WHEN: LiteralString = "SELECT min(e_timestamp) FROM topics WHERE topic = ANY(%s)"
FIRST_PAGE: LiteralString = f"""SELECT {COLUMNS} FROM messages
    WHERE topic = ANY(%s) AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, id LIMIT %s"""
NEXT_PAGE: LiteralString = f"""SELECT {COLUMNS} FROM messages
    WHERE topic = ANY(%s) AND timestamp < %s AND (timestamp, id) > (%s, %s) ORDER BY timestamp, id LIMIT %s"""
BACKWARDS: LiteralString = f"""SELECT {COLUMNS} FROM messages
    WHERE topic = ANY(%s) AND public ORDER BY timestamp DESC, id DESC LIMIT %s"""
WHERE_IT_IS: LiteralString = "SELECT bucket, key FROM messages WHERE id = ANY(%s)"
HOW_MANY: LiteralString = "SELECT n_messages, e_timestamp, l_timestamp FROM topics WHERE topic = %s"
WITH_PUBLIC: LiteralString = "SELECT DISTINCT topic FROM messages WHERE public AND topic = %s"


class Published(NamedTuple):
    uuid: uuid.UUID
    value: bytes
    headers: tuple[Header, ...]
    timestamp_ms: int


def as_hop_client_does(number: int) -> Published:
    """JSON with the headers that hop-client adds: sender, UUID, format; and a title of the publisher's."""
    own = uuid.uuid4()
    headers = (
        ("title", b"GRB %d" % number),
        ("_sender", b"user-abc"),
        ("_id", own.bytes),
        ("_format", b"json"),
    )
    return Published(own, json.dumps({"number": number}).encode(), headers, NOW_MS + number)


@pytest.fixture
def archive(open_archive: OpenArchive) -> Archive:
    return open_archive()


@pytest.fixture
def topic(archive: Archive, namespace: str) -> str:
    archive.source.create_topic(f"{namespace}.asked")
    return f"{namespace}.asked"


@pytest.fixture
def published(archive: Archive, topic: str) -> list[Published]:
    """Five messages, archived."""
    sent = [as_hop_client_does(number) for number in range(5)]
    archive.source.publish(
        Sample(topic, None, one.value, one.headers, one.timestamp_ms, 0, "filler") for one in sent
    )
    exhausted(catch_up(archive))
    return sent


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(address: StackAddress, namespace: str) -> Iterator[Ask]:
    """Rows by the names of their columns."""
    with psycopg.connect(address.database_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(f"SET search_path TO {namespace}".encode())
        yield lambda question, *values: connection.execute(question, values).fetchall()


def test_one_is_found_by_its_uuid_with_what_its_headers_say(
    ask: Ask, published: list[Published], topic: str
) -> None:
    for number, one in enumerate(published):
        (row,) = ask(BY_UUID, one.uuid)
        assert (row["topic"], row["timestamp"], row["is_client_uuid"]) == (topic, one.timestamp_ms, True)
        assert (row["message_crc32"], row["direct_upload"], row["retracted"]) == (
            zlib.crc32(one.value),
            False,
            False,
        )
        said = {name: row[name] for name in ("title", "sender", "media_type", "file_name", "originator")}
        assert said == {
            "title": f"GRB {number}",
            "sender": "user-abc",
            "media_type": "application/json",
            "file_name": "",
            "originator": "",
        }
        assert ask(IS_THERE, one.timestamp_ms, topic, zlib.crc32(one.value)) == [{"count": 1}]


def test_all_are_found_by_topic_and_time_page_by_page_and_backwards(
    ask: Ask, published: list[Published], topic: str
) -> None:
    uuids = [one.uuid for one in published]
    (since,) = ask(FROM_WHEN, [topic])
    page = ask(FIRST_PAGE, [topic], since["min"], NOW_MS + 4, 3)
    assert [row["uuid"] for row in page] == uuids[:3]
    page = ask(NEXT_PAGE, [topic], NOW_MS + 4, page[-1]["timestamp"], page[-1]["id"], 3)
    assert [row["uuid"] for row in page] == uuids[3:4]
    assert [row["uuid"] for row in ask(BACKWARDS, [topic], 9)] == uuids[::-1]
    (summary,) = ask(HOW_MANY, topic)
    assert summary == {"n_messages": 5, "e_timestamp": NOW_MS, "l_timestamp": NOW_MS + 4}
    assert ask(WITH_PUBLIC, topic) == [{"topic": topic}]


def test_its_object_is_the_document_that_archive_core_would_read(
    ask: Ask, archive: Archive, published: list[Published]
) -> None:
    rows = [ask(BY_UUID, one.uuid)[0] for one in published]
    places = ask(WHERE_IT_IS, [row["id"] for row in rows])
    assert {place["bucket"] for place in places} == {archive.store.bucket}
    bodies = archive.store.fetch(Extent(row["key"]) for row in rows)
    for one, row, body in zip(published, rows, bodies, strict=True):
        assert (len(body), zlib.crc32(body)) == (row["size"], row["crc32"])
        found = bson.decode(body)
        assert found["message"] == one.value
        assert [tuple(pair) for pair in found["metadata"]["headers"]] == list(one.headers)
        assert (found["metadata"]["topic"], found["metadata"]["timestamp"]) == (
            row["topic"],
            one.timestamp_ms,
        )
        assert found["annotations"]["con_text_uuid"] == str(one.uuid)


def test_one_without_a_uuid_is_found_by_the_one_that_it_was_given_and_it_stands_in_its_headers(
    ask: Ask, archive: Archive, topic: str
) -> None:
    archive.source.publish([Sample(topic, None, b"{}", (("_format", b"json"),), NOW_MS, 0, "filler")])
    exhausted(catch_up(archive))
    (row,) = ask(FIRST_PAGE, [topic], 0, NOW_MS + 1, 9)
    assert row["is_client_uuid"] is False
    (body,) = archive.store.fetch([Extent(row["key"])])
    assert ["_id", row["uuid"].bytes] in bson.decode(body)["metadata"]["headers"]
