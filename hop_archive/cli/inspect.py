"""``hop-archive inspect``: all that the archive knows of a message."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import StanzaOptions, stanza_options, uuids_argument
from hop_archive.cli.output import count, timestamp
from hop_archive.errors import ConfigurationError, CorruptError, DataError, MessageNotFoundError
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from hop_archive.catalog.records import Mentions, Row
    from hop_archive.read.inspect import Inspection

_EPILOG = """\b
Examples:
  hop-archive inspect 70022980-87e2-40de-9a10-b8532010c9d4 -D local-db -S local-store
  hop-archive inspect UUID -D local-db -S local-store --payload alert.fits
  hop-archive inspect UUID -D local-db -S local-store --payload - | less
  hop-archive uuids -D local-db --limit 3 | xargs hop-archive inspect -D local-db -S local-store --json

\b
As JSON:
  headers   pairs in order: the name, and null, {"text": …} or {"hex": …}, which
            has a "uuid" too where the bytes are one; the key is written so, too
  payload   null, or {"encoding": "json", "content": …}, or for all that is not
            JSON, or would lose something, {"encoding": "base64", "content": "…"}
  problems  in what the stored bytes are not what the catalog says; empty is well
  caveats   in what this may not be what Kafka carried: in forms of other archivers

\b
The bytes are checked against the catalog's row: size, CRC-32, UUID, place and
digest. Where they differ the exit code is 5, and --bson saves them all the same.
"""

_LABEL = 12
_SHOWN_HEADER = 400
"""Characters of a header's value that are shown; --json has all."""


@click.command(epilog=_EPILOG)
@stanza_options
@uuids_argument("Of the messages, in any usual spelling; hop-archive uuids finds them.")
@click.option(
    "--bytes",
    "shown",
    metavar="NUMBER",
    type=click.IntRange(min=0),
    default=4000,
    show_default=True,
    help="How much of the payload is shown; 0 shows all of it.",
)
@click.option("--payload", metavar="FILE", help="Write the payload's exact bytes to a file; - is the output.")
@click.option(
    "--bson", metavar="FILE", help="Write the stored document's exact bytes to a file; - is the output."
)
@click.option("--force", is_flag=True, help="Let --payload and --bson overwrite a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each UUID.")
def inspect(
    chosen: StanzaOptions,
    uuids: tuple[uuid.UUID, ...],
    shown: int,
    payload: str | None,
    bson: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Show all that the archive knows of a message: its row, headers, annotations, payload.

    The payload is shown by what it is: JSON and XML (such as VOEvent) laid out, Avro decoded where it carries its
    schema, text, else a hex dump. Control characters are written out, so that no message can play with the
    terminal. Several UUIDs are shown one after the other.
    """
    if (payload or bson) and len(uuids) > 1:
        raise click.UsageError("--payload and --bson take one UUID at a time.")
    if payload == bson == "-":
        raise click.UsageError("Only one of --payload and --bson can go to the output.")
    if payload and payload == bson:
        raise click.UsageError("--payload and --bson need a file each.")
    if as_json and "-" in (payload, bson):
        raise click.UsageError("The output takes either bytes or JSON.")
    for target in filter(None, (payload, bson)):
        if target != "-":
            # Before anything is fetched or shown, rather than after it.
            with _refusing(target):
                path = Path(target)
                _refuse_present(path, force=force)
                if not path.exists() or path.is_file():
                    beside = _beside(path)
                    beside.touch()
                    beside.unlink()
    setup = chosen.setup("database", "store")
    with setup.catalog_and_store() as (catalog, store):
        from hop_archive.read.inspect import inspect as look

        fault: DataError | None = None
        for message_uuid in uuids:
            found = look(catalog, store, message_uuid)
            if found is None:
                raise MessageNotFoundError(
                    f"Database {setup.selection.database} has no message {message_uuid}.",
                    remedy="hop-archive uuids finds messages by topic, time and more.",
                    uuid=str(message_uuid),
                    database=setup.selection.database,
                )
            _show(found, shown or None, payload, bson, force=force, as_json=as_json)
            fault = fault or found.fault()
    if fault is not None:
        raise fault


def _show(
    found: Inspection, limit: int | None, payload: str | None, bson: str | None, *, force: bool, as_json: bool
) -> None:
    """Print it, or write its bytes: what goes to the output as bytes leaves no room for anything else there."""
    message_uuid = found.row.uuid
    if as_json:
        click.echo(json.dumps(as_object(found)))
    elif "-" not in (payload, bson):
        click.echo("\n".join(_lines(found, limit)) + "\n")
    if bson:
        if found.body is None:
            raise found.fault() or CorruptError(f"Message {message_uuid} has no stored bytes.")
        _write(bson, found.body, force=force)
    if payload:
        if found.document is None:
            raise found.fault() or CorruptError(f"Message {message_uuid} has no document.")
        value = found.document.message.value
        if value is None:
            raise ConfigurationError(
                f"The payload of {message_uuid} is null, which is not an empty file: nothing was written.",
                uuid=str(message_uuid),
            )
        _write(payload, value, force=force)


def _refuse_present(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not force:
        raise FileExistsError(path)


@contextlib.contextmanager
def _refusing(target: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise ConfigurationError(f"{target} is there already.", remedy="--force overwrites it.") from error
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written: {error.strerror}.",
            remedy="Name a file in a directory that is there and that you can write in.",
            path=target,
        ) from error


def _write(target: str, content: bytes, *, force: bool) -> None:
    if target == "-":
        from hop_archive.cli.uuids import quietly_closed

        with quietly_closed():
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        return
    path = Path(target)
    with _refusing(target):
        _refuse_present(path, force=force)
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # such as /dev/null or a pipe, beside which nothing can be put
            return
        # Whole or not at all: what is interrupted must not look like the payload.
        beside = _beside(path)
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def as_object(found: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON has it."""
    row, document = found.row, found.document
    message = document.message if document else None
    return {
        "uuid": str(row.uuid),
        "is_client_uuid": row.is_client_uuid,
        "topic": row.topic,
        "generation": row.generation,
        "partition": row.partition,
        "offset": row.offset,
        "timestamp": timestamp(row.timestamp_ms),
        "timestamp_ms": row.timestamp_ms,
        "timestamp_type": None if row.timestamp_type is None else row.timestamp_type.name.lower(),
        "leader_epoch": message.leader_epoch if message else None,
        "retracted": row.retracted,
        "suppressed": (document.suppressed or None) if document else None,
        "object": {
            "key": row.object_key, "bucket": row.bucket, "position": row.position, "size": row.size_bytes,
            "crc32": row.crc32, "frame": row.frame, "frame_size": row.frame_size,
        },
        "digest": row.digest.hex() if row.digest else None,
        "message_crc32": row.message_crc32,
        "annotations": row.annotations._asdict(),
        "duplicates": found.mentions.duplicate_count,
        "collisions": [
            {"topic": at.topic, "generation": at.generation, "partition": at.partition, "offset": other.offset,
             "client_uuid": str(other.client_uuid), "archived_as": str(other.archived_as)}
            for at, other in found.mentions.collisions
        ],
        "key": _bytes_object(message.key) if message else None,
        "headers": [[name, _bytes_object(value)] for name, value in message.headers] if message else None,
        "payload_size": len(message.value) if message and message.value is not None else None,
        "payload": _payload_object(message.value) if message else None,
        "problems": list(found.problems),
        "caveats": list(document.caveats) if document else [],
    }  # fmt: skip


def _bytes_object(value: bytes | None) -> dict[str, str] | None:
    from hop_archive.read.payload import text_of

    if value is None:
        return None
    text = text_of(value)
    if text is not None:
        return {"text": text}
    as_uuid = {"uuid": str(uuid.UUID(bytes=value))} if len(value) == 16 else {}
    return {"hex": value.hex(), **as_uuid}


def _payload_object(value: bytes | None) -> dict[str, Any] | None:
    """JSON as such where nothing of it is lost by that: no repeated name, no number that is none elsewhere."""
    if value is None:
        return None

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    def finite(text: str) -> float:
        if abs(number := float(text)) == float("inf"):
            raise ValueError(f"{text} is no number of JSON's here")
        return number

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a name is repeated, and one of its values would be lost")
        return found

    try:
        content = json.loads(
            value.decode(),
            parse_constant=refuse_constant,
            parse_float=finite,
            object_pairs_hook=without_repeats,
        )
        json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate could not be printed
    except (ValueError, RecursionError):
        return {"encoding": "base64", "content": base64.b64encode(value).decode()}
    return {"encoding": "json", "content": content}


def _lines(found: Inspection, limit: int | None) -> Iterator[str]:
    from hop_archive.read.payload import PayloadKind, show

    yield from _row_lines(found.row, found.mentions)
    for problem in found.problems:
        yield _line("PROBLEM", harmless(problem))
    if found.document is None:
        return
    for caveat in found.document.caveats:
        yield _line("Note", harmless(caveat))
    if found.document.suppressed:
        yield _line("SUPPRESSED", f"its content was removed for good: {harmless(found.document.suppressed)}")
    message = found.document.message
    if message.leader_epoch is not None:
        yield _line("Leader epoch", count(message.leader_epoch))
    first, *more = _bytes_lines(message.key)
    yield _line("Key", first)
    yield from (_line("", line) for line in more)
    yield _line("Headers", "" if message.headers else "none").rstrip()
    names = [harmless(name) for name, _ in message.headers]
    width = min(max(map(len, names), default=0), _LABEL * 2)
    for name, (_, value) in zip(names, message.headers, strict=True):
        first, *more = _bytes_lines(value)
        yield f"  {name:{width}}  {first}"
        yield from (f"  {'':{width}}  {line}" for line in more)
    shown = show(message.value, limit)
    if shown.kind in (PayloadKind.NULL, PayloadKind.EMPTY):
        yield _line("Payload", shown.kind.value)
        return
    size = counted(len(message.value or b""), "byte")
    yield _line("Payload", f"{shown.kind.value}, {size}{f'; {shown.note}' if shown.note else ''}")
    yield ""
    yield shown.text
    if not shown.complete:
        yield ""
        yield f"[Cut short: --bytes 0 shows all {size}, --payload FILE writes them.]"


def _line(label: str, text: str) -> str:
    return f"{label:{_LABEL}} {text}"


def _row_lines(row: Row, mentions: Mentions) -> Iterator[str]:
    """What the catalog says of the message: its row, and where it is named as a duplicate or a collision."""
    whose = "the publisher's" if row.is_client_uuid else "the archive's own"
    clock = f" ({row.timestamp_type.name.lower()} time)" if row.timestamp_type is not None else ""
    place = "not known (the row of another archiver)"
    if row.offset is not None:
        place = f"generation {row.generation}, partition {row.partition}, offset {count(row.offset)}"
    extent = counted(row.size_bytes, "byte")
    if row.position is not None:
        extent += f" from {count(row.position)} on"
    if row.frame is not None:
        extent += f" in the zstd frame of {counted(row.frame_size or 0, 'byte')} at {count(row.frame)}"
    yield _line("UUID", f"{row.uuid} ({whose})")
    yield _line("Topic", harmless(row.topic))
    yield _line("Place", place)
    yield _line("Timestamp", f"{timestamp(row.timestamp_ms)}{clock}")
    yield _line("Object", harmless(row.object_key))
    yield _line("", f"{extent}, bucket {harmless(row.bucket)}")
    yield _line("", f"CRC-32 {row.crc32:08x}; of the payload alone {row.message_crc32:08x}")
    yield _line("Digest", row.digest.hex() if row.digest else "none (the row of another archiver)")
    notes = row.annotations
    for label, text in (
        ("Media type", notes.media_type),
        ("Title", notes.title),
        ("Sender", notes.sender),
        ("File name", notes.file_name),
        ("Originator", notes.originator),
    ):
        if text:
            yield _line(label, harmless(text))
    states = ["public" if notes.public else "private"]
    if notes.direct_upload:
        states.append("directly uploaded")
    if row.retracted:
        states.append("retracted")
    yield _line("Is", ", ".join(states))
    if mentions.duplicate_count:
        at = [f"{log.partition}@{count(duplicate.offset)}" for log, duplicate in mentions.duplicates]
        more = ", …" if len(at) < mentions.duplicate_count else ""
        number = count(mentions.duplicate_count)
        yield _line("Duplicates", f"{number}, not stored again: {', '.join(at)}{more}")
    for log, collision in mentions.collisions:
        where = f"{harmless(log.topic)}[{log.partition}]@{count(collision.offset)}"
        yield _line("Collision", f"{where} came with UUID {collision.client_uuid}")
        yield _line("", f"in use by other content; archived as {collision.archived_as}")
    if (more_collisions := mentions.collision_count - len(mentions.collisions)) > 0:
        yield _line("", f"and {counted(more_collisions, 'more collision')}")


def _bytes_lines(value: bytes | None) -> list[str]:
    """``null`` without quotes, text in quotes, anything else in hexadecimal digits; and the UUID that it may be."""
    from hop_archive.read.payload import text_of

    if value is None:
        return ["null"]
    text = text_of(value)
    if text is not None:
        return [f'"{_shortened(harmless(text))}"']
    digits = f"0x{_shortened(value.hex())}"
    if len(value) == 16:
        return [digits, f"UUID {uuid.UUID(bytes=value)}"]
    return [f"{digits} ({counted(len(value), 'byte')})"]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_HEADER else f"{text[:_SHOWN_HEADER]}…"
