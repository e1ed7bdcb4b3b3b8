"""A topic that archive-core archived before, read again from its beginning: nothing twice, and nothing left out."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.samples import Sample
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Header, Message, TopicPartition
from hop_archive.store.protocol import NewObject
from hop_archive_tests.contract.source_fixtures import read_until
from hop_archive_tests.integration.archive_core_catalog import stored_by_archive_core
from hop_archive_tests.worlds import NOW_MS, World, exhausted

EMPTY: list[tuple[bytes | None, tuple[Header, ...]]] = [
    (None, ()),
    (None, (("a", b""),)),
    (None, (("a", None),)),
    (None, (("a", b""), ("a", None))),
    (None, (("_id", b"no UUID"),)),
    (b"", ()),
    (b"", (("a", b""),)),
    (b"k", ()),
    (b"k", (("_id", None),)),
    (b"k", (("a", b"1"), ("b", b"2"))),
    (b"k", (("b", b"2"), ("a", b"1"))),
    (b"other", ()),
]
"""Key and headers of messages without a value and without a UUID of their publisher's."""


@pytest.fixture(params=["mock", pytest.param("local stack", marks=pytest.mark.local)])
def archive(request: pytest.FixtureRequest) -> Archive:
    if request.param == "mock":
        return World().archive()
    opened: Archive = request.getfixturevalue("open_archive")()
    return opened


@pytest.fixture
def topic(archive: Archive, namespace: str) -> str:
    name = f"{namespace}.adopted"
    archive.source.create_topic(name)
    return name


def delivered(archive: Archive, topic: str, *, same_moment: bool = False) -> Sequence[Message]:
    """The empty messages, published, as Kafka delivers them: each at a moment of its own, or all at one."""
    archive.source.publish(
        Sample(topic, key, b"", headers, NOW_MS + (0 if same_moment else number), 0, "filler")
        for number, (key, headers) in enumerate(EMPTY)
    )
    at = TopicPartition(topic, 0)
    with archive.source.reader({at: 0}) as reader:
        return read_until(reader, at, len(EMPTY))


def adopt(archive: Archive, messages: Sequence[Message], *, early: bool = False) -> list[uuid.UUID]:
    """Let archive-core have stored these; their UUIDs."""
    stored = [stored_by_archive_core(message, archive.store.bucket, early=early) for message in messages]
    archive.store.create([made for _, made in stored])
    archive.catalog.adopt([row for row, _ in stored])
    return [row.uuid for row, _ in stored]


def archived_and_copies(archive: Archive, topic: str) -> tuple[list[int], dict[int, uuid.UUID]]:
    """After a run: the offsets that were archived, and what each of the others is a copy of."""
    exhausted(catch_up(archive))
    rows = [row.offset for row in archive.catalog.rows(topic) if row.offset is not None]
    return rows, {copy.offset: copy.uuid for _, copy in archive.catalog.duplicates(topic)}


@pytest.mark.parametrize("early", [False, True])
def test_empty_messages_that_archive_core_stored_are_not_archived_again(
    archive: Archive, topic: str, early: bool
) -> None:
    stored = adopt(archive, delivered(archive, topic), early=early)
    assert archived_and_copies(archive, topic) == ([], dict(enumerate(stored)))
    reasons = {copy.reason for _, copy in archive.catalog.duplicates(topic)}
    assert reasons == {"same timestamp, key, headers and value"}


def test_of_empty_messages_of_one_moment_only_those_that_were_stored_are_copies(
    archive: Archive, topic: str
) -> None:
    messages = delivered(archive, topic, same_moment=True)
    stored = adopt(archive, messages[::3])
    rows, copies = archived_and_copies(archive, topic)
    assert copies == dict(zip(range(0, len(messages), 3), stored, strict=True))
    assert rows == [n for n in range(len(messages)) if n % 3]


def test_what_the_store_lost_of_them_or_holds_damaged_is_archived_again(archive: Archive, topic: str) -> None:
    messages = delivered(archive, topic)
    stored = [stored_by_archive_core(message, archive.store.bucket) for message in messages]
    missing, damaged, short = 2, 5, 7
    objects = [made for n, (_, made) in enumerate(stored) if n != missing]
    objects[damaged - 1] = NewObject(objects[damaged - 1].key, objects[damaged].body)
    objects[short - 1] = NewObject(objects[short - 1].key, objects[short - 1].body[:-9])
    archive.store.create(objects)
    archive.catalog.adopt([row for row, _ in stored])
    rows, copies = archived_and_copies(archive, topic)
    assert rows == [missing, damaged, short]
    assert copies.keys() == set(range(len(messages))) - {missing, damaged, short}
