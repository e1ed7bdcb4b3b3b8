"""``hop-archive inspect`` on mocks: what it shows, what it writes, and what it says of damage."""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
import pytest
from click.testing import Result

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Row
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import crc32, decode
from hop_archive.model.query import Query
from hop_archive.read.check import check
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]


@dataclass(frozen=True)
class Mocks:
    """Mocks with samples archived in them."""

    directory: Path

    @property
    def catalog(self) -> MockCatalog:
        return MockCatalog("m", directory=self.directory)

    @property
    def store(self) -> MockStore:
        return MockStore("m", directory=self.directory / "objects", deleting_allowed=True)

    def publish(
        self, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = (), **more: Any
    ) -> Row:
        """Publish a message and archive it."""
        before = {row.uuid for row in self.catalog.select(Query())}
        source = MockSource("m", directory=self.directory)
        source.cluster.append("snews.alerts", value, headers=headers, **more)
        assert invoke("run", *M, "--until-caught-up").exit_code == 0
        (row,) = [row for row in self.catalog.select(Query()) if row.uuid not in before]
        return row

    def body(self, row: Row) -> bytes:
        (body,) = self.store.fetch([Extent(row.object_key)])
        return body

    def replace(self, row: Row, body: bytes) -> None:
        self.store.delete([row.object_key])
        self.store.create([NewObject(row.object_key, body)])


@pytest.fixture
def world(place: Path) -> Mocks:
    directory = mocks(place, archived=True)
    return Mocks(directory)


def inspect(*args: object) -> Result:
    return invoke("inspect", *M, *map(str, args))


def as_json(row: Row) -> dict[str, Any]:
    result = inspect(row.uuid, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_sample_is_shown_and_as_json_has_all_that_was_published(world: Mocks) -> None:
    rows = list(world.catalog.select(Query()))
    result = inspect(*(row.uuid for row in rows), "--json")
    assert result.exit_code == 0
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    for row, found in zip(rows, objects, strict=True):
        message = decode(world.body(row)).message
        assert found["uuid"] == str(row.uuid)
        assert (found["partition"], found["offset"]) == (row.partition, row.offset)
        assert payload_of(found["payload"]) == message.value
        assert bytes_of(found["key"]) == message.key
        assert [(name, bytes_of(value)) for name, value in found["headers"]] == list(message.headers)
        assert found["annotations"]["sender"] == row.annotations.sender
        assert found["problems"] == []
    assert inspect(*(row.uuid for row in rows)).exit_code == 0


def bytes_of(found: dict[str, str] | None) -> bytes | None:
    if found is None:
        return None
    return bytes.fromhex(found["hex"]) if "hex" in found else found["text"].encode()


def payload_of(found: dict[str, Any] | None) -> bytes | None:
    """What can be had back of it: JSON as its meaning, else the bytes."""
    if found is None:
        return None
    if found["encoding"] == "base64":
        return base64.b64decode(found["content"])
    return AnyJson(found["content"])


class AnyJson(bytes):
    """Equal to any bytes that are this content as JSON."""

    def __new__(cls, content: object) -> AnyJson:
        made = super().__new__(cls)
        made.content = content
        return made

    content: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and json.loads(other) == self.content

    __hash__ = bytes.__hash__


@pytest.mark.parametrize(
    "value",
    [
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b"[1e999]",
        b'{"a": "\\ud800"}',
        b"[" * 5_000 + b"]" * 5_000,
        b"\xff",
        b"",
        b"plain",
    ],
)
def test_what_json_could_not_give_back_is_base64(world: Mocks, value: bytes) -> None:
    row = world.publish(value)
    assert as_json(row)["payload"] == {"encoding": "base64", "content": base64.b64encode(value).decode()}


def test_null_empty_text_and_bytes_can_be_told_apart(world: Mocks) -> None:
    own = uuid.uuid4()
    headers = (
        ("a", None),
        ("a", b""),
        ("a", b"null"),
        ("b", b"\x00\xff"),
        ("_id", own.bytes),
        ("n\x1b", b"\x1b[2J"),
    )
    row = world.publish(None, headers, key=b"")
    text = inspect(own).stdout
    assert '  a      null\n  a      ""\n  a      "null"\n  b      0x00ff (2 bytes)\n' in text
    assert f"  _id    0x{own.hex}\n" in text
    assert f" UUID {own}\n" in text
    assert "Payload      null\n" in text
    assert 'Key          ""\n' in text
    assert "\x1b" not in text
    found = as_json(row)
    assert found["headers"][:5] == [
        ["a", None],
        ["a", {"text": ""}],
        ["a", {"text": "null"}],
        ["b", {"hex": "00ff"}],
        ["_id", {"hex": own.hex, "uuid": str(own)}],
    ]
    assert (found["payload"], found["key"]) == (None, {"text": ""})


def test_nothing_of_a_message_acts_on_the_terminal(world: Mocks) -> None:
    nasty = "\x1b]0;owned\x07\x9b2J\u202e".encode()
    headers = (("title", nasty), ("_sender", nasty), ("x", nasty))
    row = world.publish(b"plain text " * 20 + nasty, headers, key=nasty)
    text = inspect(row.uuid).stdout
    assert all(c == "\n" or c.isprintable() for c in text)
    assert text.count("owned") == 3  # title, sender, payload; what is binary is shown as such


def test_a_long_payload_is_cut_short_and_says_how_much_there_is(world: Mocks) -> None:
    row = world.publish(b"x" * 10_000)
    assert inspect(row.uuid).stdout.count("x" * 4000) == 1
    short = inspect(row.uuid, "--bytes", "10").stdout
    assert "\nxxxxxxxxxx\n" in short
    assert "--bytes 0 shows all 10,000 bytes" in short
    assert "x" * 10_000 in inspect(row.uuid, "--bytes", "0").stdout


def test_the_exact_bytes_are_written(world: Mocks, place: Path) -> None:
    value = bytes(range(256))
    row = world.publish(value)
    assert inspect(row.uuid, "--payload", "p", "--bson", "b").exit_code == 0
    assert (place / "p").read_bytes() == value
    assert (place / "b").read_bytes() == world.body(row)
    assert sorted(path.name for path in place.iterdir()) == ["b", "hop_archive.toml", "mocks", "p"]


@pytest.mark.parametrize("option", ["--payload", "--bson"])
def test_bytes_for_the_output_come_alone(world: Mocks, option: str) -> None:
    row = world.publish(bytes(range(256)))
    result = inspect(row.uuid, option, "-")
    assert result.stdout_bytes == (bytes(range(256)) if option == "--payload" else world.body(row))


def test_a_file_that_is_there_is_overwritten_only_by_force(world: Mocks, place: Path) -> None:
    row = world.publish(b"new")
    (place / "p").write_text("mine")
    result = inspect(row.uuid, "--payload", "p")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert (place / "p").read_text() == "mine"
    assert inspect(row.uuid, "--payload", "p", "--force").exit_code == 0
    assert (place / "p").read_text() == "new"
    assert inspect(row.uuid, "--payload", "no/such/folder").exit_code == 2
    assert inspect(row.uuid, "--payload", "/dev/null", "--force").exit_code == 0


@pytest.mark.parametrize("option", ["--payload", "--bson"])
@pytest.mark.parametrize(
    ("target", "why"),
    [("mine", "is there already"), ("no/such/folder", "cannot be written"), ("mine/x", "cannot be written"),
     ("/proc/x", "cannot be written"), (".", "Is a directory")],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_told_before_anything_is_shown(
    world: Mocks, place: Path, option: str, target: str, why: str
) -> None:
    row = next(world.catalog.select(Query()))
    (place / "mine").write_text("mine")
    result = inspect(row.uuid, option, target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr
    assert inspect(row.uuid, option, "new").exit_code == 0
    assert sorted(path.name for path in place.iterdir()) == ["hop_archive.toml", "mine", "mocks", "new"]


def test_the_way_to_a_file_is_tried_without_touching_what_is_there(world: Mocks, place: Path) -> None:
    (place / "mine").write_text("mine")
    assert inspect(uuid.uuid4(), "--payload", "mine", "--bson", "new", "--force").exit_code == 2
    assert (place / "mine").read_text() == "mine"
    assert sorted(path.name for path in place.iterdir()) == ["hop_archive.toml", "mine", "mocks"]


def test_a_payload_that_is_null_is_not_written_as_an_empty_file(world: Mocks, place: Path) -> None:
    row = world.publish(None)
    result = inspect(row.uuid, "--payload", "p")
    assert result.exit_code == 2
    assert "null" in result.stderr
    assert not (place / "p").exists()


def test_a_uuid_that_is_not_there_says_so(world: Mocks) -> None:
    own = uuid.uuid4()
    result = inspect(own)
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: Database m has no message {own}. hop-archive uuids finds messages by topic, time and more.\n"
    )


@pytest.mark.parametrize(
    "args", [("1234",), ("x",), (), (uuid.uuid4(), uuid.uuid4(), "--bson", "b"), (uuid.uuid4(), "--bson", "-", "--json"),
             (uuid.uuid4(), "--bson", "-", "--payload", "-"), (uuid.uuid4(), "--bson", "x", "--payload", "x")]
)  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error(place: Path, args: tuple[object, ...]) -> None:
    mocks(place)
    result = inspect(*args)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_duplicates_and_collisions_are_told(world: Mocks) -> None:
    own = uuid.uuid4()
    row = world.publish(b"one", (("_id", own.bytes),))
    source = MockSource("m", directory=world.directory)
    for value in (b"one", b"one", b"other"):
        source.cluster.append("snews.alerts", value, headers=(("_id", own.bytes),))
    invoke("run", *M, "--until-caught-up")
    text = inspect(own).stdout
    assert row.offset is not None
    assert f"Duplicates   2, not stored again: 0@{row.offset + 1}, 0@{row.offset + 2}\n" in text
    found = as_json(row)
    assert found["duplicates"] == 2
    (collision,) = found["collisions"]
    assert collision["client_uuid"] == str(own)
    assert collision["archived_as"] in text
    assert world.catalog.find(uuid.UUID(collision["archived_as"])) is not None


# Damage


def flip(body: bytes) -> bytes:
    """Another payload of the same length: the document decodes as before."""
    assert body.count(b"good") == 1
    return body.replace(b"good", b"evil")


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another payload": (flip, "digest of its content: "),
    "shorter": (lambda body: body[:-1], "size: "),
    "no document": (lambda body: b"\x05" + bytes(len(body) - 1), "not an archived document"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_and_the_bytes_can_be_saved_for_study(world: Mocks, place: Path, name: str) -> None:
    damage, told = DAMAGES[name]
    row = world.publish(b"good")
    body = damage(world.body(row))
    world.replace(row, body)
    result = inspect(row.uuid, "--bson", "b")
    assert result.exit_code == 5
    assert f"UUID         {row.uuid}" in result.stdout
    assert "PROBLEM " in result.stdout
    assert told in result.stderr
    assert f"CRC-32: the catalog says {row.crc32}, stored is {crc32(body)}" in result.stderr
    assert (place / "b").read_bytes() == body
    found = json.loads(inspect(row.uuid, "--json").stdout)
    assert any(told in problem for problem in found["problems"])


def test_an_object_that_is_gone_is_told_and_other_messages_are_shown_all_the_same(
    world: Mocks, place: Path
) -> None:
    row, other = world.publish(b"good"), world.publish(b"better")
    world.store.delete([row.object_key])
    result = inspect(row.uuid, other.uuid)
    assert result.exit_code == 5
    assert "there is no object" in result.stderr
    assert "better" in result.stdout
    assert inspect(row.uuid, "--payload", "p").exit_code == 5
    assert inspect(row.uuid, "--bson", "p").exit_code == 5
    assert not (place / "p").exists()


def test_the_row_of_another_document_is_noticed(world: Mocks) -> None:
    first, second = world.publish(b"one"), world.publish(b"two")
    document, problems = check(first, world.body(second))
    assert document is not None
    named = {problem.partition(":")[0] for problem in problems}
    assert named >= {"CRC-32", "UUID", "offset", "digest", "CRC-32 of the value"}
    assert check(first, world.body(first))[1] == ()
    for changed in (
        {"partition": 7},
        {"offset": 9**9},
        {"timestamp_ms": 1},
        {"topic": "x"},
        {"digest": bytes(16)},
    ):
        (problem, *_) = check(first._replace(**changed), world.body(first))[1]
        assert problem.split(":")[0] in ("partition", "offset", "timestamp", "topic", "digest")


def test_a_message_that_an_older_archiver_stored_is_shown(world: Mocks) -> None:
    own = uuid.uuid4()
    body = bson.encode(
        {
            "message": b"old text",
            "metadata": {"timestamp": 5, "headers": [["_id", own.bytes]], "key": None, "topic": "gcn"},
            "annotations": {
                "con_text_uuid": str(own),
                "con_is_client_uuid": True,
                "con_message_crc32": zlib.crc32(b"old text"),
            },
        }
    )
    row = Row(
        "gcn", None, None, None, 5, None, own, True, None, f"gcn/1970/1/1/0/{own}.bson", "mock", None,
        len(body), crc32(body), zlib.crc32(b"old text"), Annotations(), False,
    )  # fmt: skip
    world.catalog.adopt([row])
    world.store.create([NewObject(row.object_key, body)])
    text = inspect(own).stdout
    assert "Place        not known (the row of another archiver)" in text
    assert "Digest       none" in text
    assert "old text" in text
    found = as_json(row)
    assert (found["offset"], found["digest"], found["problems"]) == (None, None, [])
