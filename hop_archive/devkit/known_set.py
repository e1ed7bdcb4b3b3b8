"""The known set: one message for each odd thing that a publisher can do, told apart by a header with its name.

What belongs here: cases that the archive has to get right, each with a name and a sentence. A new oddity seen in
the wild becomes a new case. Nothing here sends anything: a source does that.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from hop_archive.devkit.alert_values import alert_value
from hop_archive.devkit.samples import Headers, Sample

NAME_HEADER = "_known_test_data"
"""Header that holds the case's name. Copies of one message share it, or they would be no copies."""

END = "end"
"""Name of the last message, of which each partition gets one."""

LARGE_BYTES = 750_000
"""The largest value in the set: well below what brokers take if nobody told them otherwise (1 MiB)."""

_WRITTEN_MS = 1_767_225_600_000
"""The dates inside values: 2026-01-01. Those depend on no clock, or the same seed would not give the same set."""

_HOUR_MS = 3_600_000
_IN_2001_MS = 1_000_000_000_000
_IN_2100_MS = 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class Case:
    """One message of the set, without its topic and the header with its name; ``about`` says what is odd about it.

    Its create time is that of its turn where ``timestamp_ms`` is None.
    """

    name: str
    about: str
    value: bytes | None
    headers: Headers = ()
    key: bytes | None = None
    timestamp_ms: int | None = None


def known_set(topic: str, *, now_ms: int, seed: int = 0, partitions: int = 1) -> Iterator[Sample]:
    """Yield the known set for one topic, ``Sample.kind`` being the name of the case.

    The same seed gives the same content; another one shares no ``_id`` with it. Only create times follow
    ``now_ms``: each message is of a millisecond later than the one before, but for cases about time. So of a
    set that is sent again, what has an ``_id`` of its own is a duplicate, and the rest are new messages. Messages without a
    key take turns of the topic's partitions; the end marker goes to each.
    """
    cases = known_cases(now_ms=now_ms, seed=seed)
    for number, case in enumerate(cases):
        partition = number % partitions if case.key is None else None
        timestamp_ms = now_ms + number if case.timestamp_ms is None else case.timestamp_ms
        yield _sample(topic, case, timestamp_ms, partition)
    for partition in range(partitions):
        # With the partition, or else those of the others would be duplicates of the first.
        facts = {"known_test_data": END, "messages": len(cases), "seed": seed, "partition": partition}
        end = Case(END, "the end of the set", json.dumps(facts).encode(), (("_format", b"json"),))
        yield _sample(topic, end, now_ms + len(cases), partition)


def known_cases(*, now_ms: int, seed: int = 0) -> list[Case]:
    """Return the cases in the order in which they are sent, but for the end marker."""
    dice = random.Random(f"known:{seed}")  # noqa: S311 - reproducible on purpose; nothing here is secret
    groups = (
        _formats(dice, seed),
        _ids(dice),
        _repetitions(dice, now_ms),
        _keys_and_values(dice),
        _headers(dice),
        _times(dice, now_ms),
    )
    return [case for group in groups for case in group]


def _sample(topic: str, case: Case, timestamp_ms: int, partition: int | None) -> Sample:
    headers = (*case.headers, (NAME_HEADER, case.name.encode()))
    return Sample(topic, case.key, case.value, headers, timestamp_ms, partition, case.name)


def _message_id(dice: random.Random) -> bytes:
    return uuid.UUID(bytes=dice.randbytes(16), version=4).bytes


def _text(dice: random.Random) -> bytes:
    """A short value that no other case has."""
    return f"known test data {dice.getrandbits(48):012x}".encode()


def _formats(dice: random.Random, seed: int) -> Iterator[Case]:
    kinds = {
        "voevent": "voevent",
        "gcntextnotice": "gcn-text",
        "circular": "circular",
        "blob": "gcn-binary",
        "json": "lvk",
        "avro": "avro",
        "external": "external",
    }
    for name, kind in kinds.items():
        value = alert_value(kind, seed=f"known:{seed}", timestamp_ms=_WRITTEN_MS)
        headers = (("_id", _message_id(dice)), ("_sender", b"known-test-data"), ("_format", name.encode()))
        yield Case(f"format-{name}", f"an ordinary alert with _format {name}", value, headers)


def _ids(dice: random.Random) -> Iterator[Case]:
    text = str(uuid.UUID(bytes=_message_id(dice))).encode()
    ids: dict[str, tuple[str, tuple[bytes | None, ...]]] = {
        "no-id": ("no _id header", ()),
        "text-id": ("a UUID as text", (text,)),
        "empty-id": ("an empty _id", (b"",)),
        "null-id": ("a null _id", (None,)),
        "short-id": ("an _id of 15 bytes", (dice.randbytes(15),)),
        "long-id": ("an _id of 17 bytes", (dice.randbytes(17),)),
        "id-of-no-version": ("16 bytes that claim no version of UUID", (b"\x00\xff" + dice.randbytes(14),)),
        "id-of-letters": ("16 letters", ("".join(dice.choices("abcdefgh", k=16)).encode(),)),
        "several-ids": ("two UUIDs: the first counts", (_message_id(dice), _message_id(dice))),
        "several-ids-first-bad": ("text, null, then a UUID: that counts", (text, None, _message_id(dice))),
        "several-ids-all-bad": ("empty, null and text: none counts", (b"", None, text)),
    }
    for name, (about, values) in ids.items():
        yield Case(name, about, _text(dice), tuple(("_id", value) for value in values))


def _repetitions(dice: random.Random, now_ms: int) -> Iterator[Case]:
    shared_id, value = ("_id", _message_id(dice)), _text(dice)
    yield Case("colliding-id", "a UUID that the next three use too", value, (shared_id,))
    yield Case("colliding-id-other-value", "the same UUID, another value", _text(dice), (shared_id,))
    yield Case(
        "colliding-id-other-key", "the same UUID and value, another key", value, (shared_id,), key=b"k"
    )
    yield Case(
        "colliding-id-other-headers", "the same UUID and value, a header more", value, (shared_id, ("a", b""))
    )
    with_id = Case("duplicate", "sent three times", _text(dice), (("_id", _message_id(dice)),))
    yield from (with_id, with_id, with_id)
    without_id = Case(
        "duplicate-without-id", "sent twice, with the same timestamp", _text(dice), (), None, now_ms
    )
    yield from (without_id, without_id)
    twin = Case("twin", "sent twice without an _id, at different times: two messages", _text(dice))
    yield from (twin, twin)


def _keys_and_values(dice: random.Random) -> Iterator[Case]:
    with_id = (("_id", _message_id(dice)),)
    yield Case("null-key", "no key", _text(dice))
    yield Case("empty-key", "an empty key", _text(dice), with_id, key=b"")
    yield Case("binary-key", "a key of all bytes", _text(dice), key=bytes(range(256)))
    yield Case("long-key", "a key of 10 kB", _text(dice), key=dice.randbytes(10_000))
    blob = dice.randbytes(LARGE_BYTES)
    key = b"withdrawn-%d" % dice.getrandbits(30)
    values: dict[str, tuple[str, bytes | None]] = {
        "empty-value": ("an empty value", b""),
        "empty-list": ("an empty JSON list", b"[]"),
        "empty-object": ("an empty JSON object", b"{}"),
        "one-byte": ("a single zero byte", b"\0"),
        "broken-json": ("what begins like JSON and is none", b'{"ra": 12.5, "dec": '),
        "broken-text": ("what begins like text and is no UTF-8", b"Gr\xfc\xdfe \xc3"),
        "large-value": ("a blob of 750 kB", blob),
    }
    yield Case("null-value", "a tombstone: a key, and no value", None, (("_id", _message_id(dice)),), key)
    yield Case("null-value-null-key", "neither key nor value", None, (("_id", _message_id(dice)),))
    for name, (about, value) in values.items():
        yield Case(name, about, value, (("_id", _message_id(dice)),))


def _headers(dice: random.Random) -> Iterator[Case]:
    many = tuple((f"header-{number}", b"%d" % number) for number in range(300))
    headers: dict[str, tuple[str, Headers]] = {
        "no-other-headers": ("nothing but its name and the mark of a test", ()),
        "many-headers": ("300 headers", many),
        "repeated-header-names": ("names that repeat, in an order that counts", (("b", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"2"))),
        "null-header-values": ("null header values", (("title", None), ("note", None))),
        "empty-header-values": ("empty header values", (("title", b""), ("note", b""))),
        "binary-header-values": ("header values that are no text", (("title", b"\xff\xfe\x00"), ("note", bytes(range(256))))),
        "long-header-value": ("a header value of 50 kB", (("note", dice.randbytes(50_000)),)),
        "non-ascii-header-names": ("header names in other scripts", (("größe", b"1"), ("名前", b"2"), ("🔭", b"3"))),
        "empty-header-name": ("a header with an empty name", (("", b"nameless"),)),
        "empty-test-header": ("a _test header with no value besides the usual one", (("_test", b""),)),
    }  # fmt: skip
    for name, (about, pairs) in headers.items():
        yield Case(name, about, _text(dice), pairs)
    titles = (("title", b"\xff"), ("title", b"zweiter, lesbarer Titel"), ("title", b"third"))
    described = (
        ("title", "Möglicher Gegenstück-Kandidat".encode()),
        ("_sender", b"known-test-data"),
        ("file_name", b"alert.txt"),
        ("originator", b"https://observatory.example.org/"),
    )
    formats = (("_format", b"json"), ("_format", None), ("_format", b"hologram"))
    yield Case("described", "every header that describes a message", _text(dice), described)
    yield Case("several-titles", "three titles: the first that can be read counts", _text(dice), titles)
    yield Case("several-formats", "three _format headers: the last known one counts", b'{"a": 1}', formats)
    yield Case("unknown-format", "a _format that nobody knows", _text(dice), formats[2:])
    yield Case("wrong-format", "_format avro, and no Avro", _text(dice), (("_format", b"avro"),))
    yield Case("format-without-underscore", "format in the place of _format", b"<a/>", (("format", b"xml"),))


def _times(dice: random.Random, now_ms: int) -> Iterator[Case]:
    times = {
        "timestamp-none": ("Kafka's sign for no timestamp, -1", -1),
        "timestamp-before-1970": ("a day before 1970", -86_400_000),
        "timestamp-in-2001": ("years before Kafka", _IN_2001_MS),
        "timestamp-in-half-an-hour": ("half an hour ahead of the clock", now_ms + _HOUR_MS // 2),
        "timestamp-in-2100": ("far ahead, as brokers may refuse", _IN_2100_MS),
    }
    for name, (about, timestamp_ms) in times.items():
        yield Case(name, about, _text(dice), (), None, timestamp_ms)
