"""Judges an archive by what its producer wrote down. Shares no code with the archive: it imports nothing of it.

What it knows stands in the formats as documented: rows in Postgres, documents in BSON, alone, end to end, or in zstd frames. Of each
message that Kafka acknowledged it wants to see that it is archived once, byte for byte, or a duplicate of one that is; that no row
points at nothing; and that the ledger covers each partition without gap or overlap.
"""

from __future__ import annotations

import json
import struct
import sys
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import boto3
import bson
import psycopg
from psycopg.rows import namedtuple_row

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
Place: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset."""

DERIVED_BY = uuid.uuid5(uuid.NAMESPACE_DNS, "hop_archive")
"""Namespace of the UUIDs that the archive gives."""
TRIES = 8
"""So many UUIDs that the archive may have given are looked at."""
THREADS = 8


def digest(key: bytes | None, headers: Headers, value: bytes | None) -> bytes:
    """128-bit BLAKE2b over key, number of headers, names and values, value; each with its length before it, null with -1."""

    def framed(part: bytes | None) -> bytes:
        return struct.pack(">q", -1) if part is None else struct.pack(">q", len(part)) + part

    parts = [framed(key), struct.pack(">q", len(headers))]
    for name, content in headers:
        parts += [framed(name.encode()), framed(content)]
    return blake2b(b"".join((*parts, framed(value))), digest_size=16).digest()


def client_id(headers: Headers) -> uuid.UUID | None:
    """The first ``_id`` of 16 bytes."""
    found = (value for name, value in headers if name == "_id" and value is not None and len(value) == 16)
    raw = next(found, None)
    return None if raw is None else uuid.UUID(bytes=raw)


class Sent(NamedTuple):
    """A message that was produced: what it was, without its bytes; their digest tells them."""

    topic: str
    digest: bytes
    timestamp_ms: int | None


@dataclass(slots=True)
class Record:
    """What the producer wrote down.

    Attributes:
        messages: What it was about to send, by number.
        acknowledged: Where Kafka said that a message stands, with the number of it and its timestamp.
    """

    messages: dict[int, Sent] = field(default_factory=dict)
    acknowledged: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def contents(self) -> set[tuple[str, bytes]]:
        """What may be archived of each topic."""
        return {(sent.topic, sent.digest) for sent in self.messages.values()}

    def ends(self) -> dict[tuple[str, int], int]:
        """One past the last acknowledged offset of each partition."""
        found: dict[tuple[str, int], int] = defaultdict(int)
        for topic, partition, offset in self.acknowledged:
            found[topic, partition] = max(found[topic, partition], offset + 1)
        return found


def read_record(path: Path) -> Record:
    """Read what a producer wrote; an entry that was being written when it was killed was of no message yet."""
    record = Record()
    with path.open("rb") as file:
        while len(length := file.read(4)) == 4:
            data = length + file.read(size := struct.unpack("<i", length)[0] - 4)
            if len(data) < size + 4:
                break
            entry = bson.decode(data)
            if "offset" in entry:
                place = (entry["topic"], entry["partition"], entry["offset"])
                record.acknowledged[place] = (entry["number"], entry["timestamp"])
            else:
                headers = [(name, value) for name, value in entry["headers"]]
                content = digest(entry["key"], headers, entry["value"])
                record.messages[entry["number"]] = Sent(entry["topic"], content, entry["timestamp"])
    return record


class Archived(NamedTuple):
    """A message as it was read back, by its row and document."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    uuid: uuid.UUID
    client_id: uuid.UUID | None
    digest: bytes


@dataclass(slots=True)
class Findings:
    """What is wrong; the first differences of each kind are kept, all are counted."""

    counts: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, kind: str, detail: object) -> None:
        """Note one."""
        self.counts[kind] += 1
        if self.counts[kind] <= 5:
            self.first.append(f"{kind}: {detail}")


def read_back(row: Any, stored: bytes) -> tuple[Archived, list[str]]:
    """The message of a row and its object's bytes, and what in them contradicts itself."""
    content, start = stored, row.position
    if row.frame is not None:
        content = decompressed(stored[row.frame : row.frame + row.frame_size])
    body = content if start is None else content[start : start + row.size]
    document = bson.decode(body)
    meta, notes, value = document["metadata"], document["annotations"], document["message"]
    headers = [(name, content) for name, content in meta["headers"]]
    given = not notes["con_is_client_uuid"] and headers[-1:] == [("_id", row.uuid.bytes)]
    received = headers[:-1] if given else headers
    found = digest(meta["key"], received, value)
    own = client_id(received)
    pairs = {
        "size": (len(body), row.size),
        "crc32": (zlib.crc32(body), row.crc32),
        "topic": (meta["topic"], row.topic),
        "partition": (meta["partition"], row.partition),
        "offset": (meta["offset"], row.offset),
        "timestamp": (meta["timestamp"], row.timestamp),
        "timestamp type": (meta["timestamp_type"], row.timestamp_type),
        "uuid": (notes["con_text_uuid"], str(row.uuid)),
        "whose uuid": (notes["con_is_client_uuid"], row.is_client_uuid),
        "digest of the document": (bytes(notes["digest"]), found),
        "digest of the row": (row.digest, found),
        "crc32 of the value": (notes["con_message_crc32"], zlib.crc32(value or b"")),
        "crc32 of the value in the row": (row.message_crc32, zlib.crc32(value or b"")),
    }
    wrong = [f"{what} is {a!r} and {b!r}" for what, (a, b) in pairs.items() if a != b]
    if row.is_client_uuid:
        wrong += [f"its publisher's UUID is {own}"] if row.uuid != own else []
    else:
        wrong += ["no _id was given"] if own is None and not given else []
        wrong += ["its UUID is none that is derived"] if row.uuid not in derived(row, found) else []
    archived = Archived(row.topic, row.partition, row.offset, row.timestamp, row.uuid, own, found)
    return archived, wrong


def derived(row: Any, content: bytes) -> list[uuid.UUID]:
    """The UUIDs that the archive gives a message."""
    name = f"{row.topic}/{row.timestamp}/{content.hex()}"
    return [uuid.uuid5(DERIVED_BY, f"{name}/{n}" if n else name) for n in range(TRIES)]


def decompressed(frame: bytes) -> bytes:
    """The content of a zstd frame."""
    return zstd.decompress(frame)


def read_all(
    rows: Iterable[Any], fetch: Callable[[str, str], bytes | None], findings: Findings
) -> Iterator[Archived]:
    """What all rows name; ``rows`` in the order of their keys, ``fetch`` by bucket and key, None where nothing is."""
    with ThreadPoolExecutor(THREADS) as pool:
        objects = ((at, list(some)) for at, some in groupby(rows, lambda row: (row.bucket, row.key)))
        while some := list(islice(objects, 10 * THREADS)):
            bodies = pool.map(lambda entry: fetch(*entry[0]), some)
            for ((_, key), named), stored in zip(some, bodies, strict=True):
                for row in named:
                    if stored is None:
                        findings.add(
                            "row points at nothing", f"{key} of {row.topic}/{row.partition}/{row.offset}"
                        )
                        continue
                    try:
                        archived, wrong = read_back(row, stored)
                    except Exception as error:  # noqa: BLE001 - whatever cannot be read is a finding
                        findings.add("cannot be read", f"{key} at {row.position}: {error!r}")
                        continue
                    for difference in wrong:
                        findings.add("row and document differ", f"{key}: {difference}")
                    yield archived


def judge_messages(
    record: Record, archived: Iterable[Archived], duplicates: Iterable[Any], findings: Findings
) -> dict[str, int]:
    """Compare what was archived, and what was taken for a duplicate, with what was sent."""
    contents = record.contents()
    kept: dict[uuid.UUID, Archived] = {}
    at: dict[Place, Archived] = {}
    for message in archived:
        place = (message.topic, message.partition, message.offset)
        if place in at:
            findings.add("archived twice", f"{place} as {at[place].uuid} and {message.uuid}")
        if message.uuid in kept:
            findings.add("two messages of one UUID", f"{message} and {kept[message.uuid]}")
        at[place] = kept[message.uuid] = message
        if (message.topic, message.digest) not in contents:
            findings.add("nobody sent what is archived", message)
    copies = {(row.topic, row.partition, row.offset): row for row in duplicates}
    for place in at.keys() & copies.keys():
        findings.add("archived, and a duplicate", place)
    for place, copy in copies.items():
        if copy.uuid not in kept:
            findings.add("a duplicate of nothing", f"{place} of {copy.uuid}")
    for place, (number, timestamp_ms) in record.acknowledged.items():
        sent = record.messages[number]
        if place in at:
            message = at[place]
            if message.digest != sent.digest:
                findings.add("other bytes than were sent", f"{place}, number {number}")
            if message.timestamp_ms != timestamp_ms or sent.timestamp_ms not in (None, timestamp_ms):
                findings.add("another timestamp", f"{place}: {message.timestamp_ms} for {timestamp_ms}")
        elif place in copies:
            original = kept.get(copies[place].uuid)
            if original and (original.topic, original.digest) != (place[0], sent.digest):
                findings.add("a duplicate of something else", f"{place}, number {number}, of {original}")
            if copies[place].timestamp != timestamp_ms:
                findings.add("another timestamp of a duplicate", place)
        else:
            findings.add("lost", f"{place}, number {number}")
    _judge_copies(kept, findings)
    return {"archived": len(at), "duplicates": len(copies), "acknowledged": len(record.acknowledged)}


def _judge_copies(kept: Mapping[uuid.UUID, Archived], findings: Findings) -> None:
    """No message is there under two UUIDs, and a UUID is the publisher's unless that is in use by something else."""
    alike: dict[tuple[str, bytes], list[Archived]] = defaultdict(list)
    for message in kept.values():
        alike[message.topic, message.digest].append(message)
        own = message.client_id
        if own is not None and message.uuid != own:
            holder = kept.get(own)
            if holder is None or (holder.topic, holder.digest) == (message.topic, message.digest):
                findings.add("a UUID was given though its publisher's is free", message)
    for (topic, _), some in alike.items():
        under_own = [message for message in some if message.uuid == message.client_id]
        times = {message.timestamp_ms for message in some}
        if (under_own and len(some) > 1) or len(times) < len(some):
            findings.add("one message under two UUIDs", f"{topic}: {some[:3]}")


def judge_ledger(
    ends: Mapping[tuple[str, int], int],
    batches: Iterable[Any],
    places: Mapping[tuple[str, int, int], Sequence[int]],
    copies: Mapping[tuple[str, int, int], Sequence[int]],
    findings: Findings,
) -> None:
    """The ledger covers each partition from its beginning without gap or overlap, and its sums are those of the rows.

    Args:
        ends: How far each partition has to be covered at least.
        batches: Rows of the ledger, by topic, generation, partition and offset.
        places: Offsets of the rows of each topic, generation and partition.
        copies: Those of the duplicates.
        findings: What is wrong is noted there.
    """
    covered: dict[tuple[str, int, int], int] = {}
    rest = {
        kind: {log: set(offsets) for log, offsets in of.items()}
        for kind, of in (("rows", places), ("copies", copies))
    }
    for batch in batches:
        log = (batch.topic, batch.generation, batch.partition)
        where = f"{log} [{batch.start}, {batch.stop})"
        if batch.start != covered.get(log, 0):
            findings.add("gap or overlap in the ledger", f"{where} after {covered.get(log, 0)}")
        covered[log] = max(batch.stop, covered.get(log, 0))
        if batch.outcome != "archived" or batch.absent:
            findings.add(
                "told to be gone", f"{where}: {batch.outcome}, absent {batch.absent}, {batch.reason}"
            )
        for kind, said in (("rows", batch.archived), ("copies", batch.duplicates)):
            left = rest[kind].get(log, set())
            inside = {offset for offset in range(batch.start, batch.stop) if offset in left}
            left -= inside
            if len(inside) != said:
                findings.add("sums of the ledger", f"{where}: {said} {kind}, found {len(inside)}")
    for kind, of in rest.items():
        for log, offsets in of.items():
            if offsets:
                findings.add("outside of the ledger", f"{kind} of {log}: {sorted(offsets)[:5]}")
    for (topic, partition), end in ends.items():
        if covered.get((topic, 1, partition), 0) < end:
            findings.add(
                "not covered", f"{topic}/{partition} to {end}: {covered.get((topic, 1, partition), 0)}"
            )
    for topic, generation, partition in covered:
        if generation != 1:
            findings.add("a generation that never was", f"{topic} {generation}/{partition}")


def judge(
    record: Record,
    rows: Sequence[Any],
    batches: Sequence[Any],
    copies: Sequence[Any],
    fetch: Callable[[str, str], bytes | None],
) -> dict[str, Any]:
    """Judge; ``figures``, what is ``wrong`` by kind, and the ``first`` of each kind. Rows are in the order of ``_ROWS``."""
    findings = Findings()
    figures = judge_messages(record, read_all(rows, fetch, findings), copies, findings)
    judge_ledger(record.ends(), batches, _by_log(rows), _by_log(copies), findings)
    objects = len({(row.bucket, row.key) for row in rows})
    figures |= {"sent": len(record.messages), "objects": objects, "ledger rows": len(batches)}
    return {"figures": figures, "wrong": dict(findings.counts), "first": findings.first}


def _by_log(rows: Iterable[Any]) -> Mapping[tuple[str, int, int], Sequence[int]]:
    found: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for row in rows:
        found[row.topic, row.generation, row.partition].append(row.offset)
    return found


_ROWS = """
    SELECT topic, generation, partition, "offset", timestamp, timestamp_type, uuid, is_client_uuid, digest, bucket, key,
           position, size, crc32, message_crc32, frame, frame_size
    FROM messages ORDER BY bucket, key, frame, position
"""
_BATCHES = """
    SELECT topic, generation, partition, lower(offsets) AS start, upper(offsets) AS stop, outcome, reason, archived, duplicates,
           absent
    FROM batches ORDER BY topic, generation, partition, offsets
"""
_COPIES = 'SELECT topic, generation, partition, "offset", timestamp, uuid FROM duplicates'


@dataclass(frozen=True, slots=True)
class Where:
    """What is to be judged: a record, a database, and an S3 server with the prefix that stands before keys."""

    record: str
    database_url: str = field(repr=False)
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    prefix: str


def check(where: Where) -> dict[str, Any]:
    """Judge; figures and what is wrong, as JSON has it."""
    record = read_record(Path(where.record))
    s3 = boto3.client(
        "s3",
        endpoint_url=where.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=where.s3_access_key,
        aws_secret_access_key=where.s3_secret_key,
    )

    def fetch(bucket: str, key: str) -> bytes | None:
        try:
            body: bytes = s3.get_object(Bucket=bucket, Key=f"{where.prefix}{key}")["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return body

    with psycopg.connect(where.database_url, row_factory=namedtuple_row) as connection:
        rows, batches, copies = (connection.execute(text).fetchall() for text in (_ROWS, _BATCHES, _COPIES))
    return judge(record, rows, batches, copies, fetch)


if __name__ == "__main__":
    judged = check(Where(**json.load(sys.stdin)))
    sys.stdout.write(json.dumps(judged))
    raise SystemExit(1 if judged["wrong"] else 0)
