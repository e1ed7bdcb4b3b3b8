"""Payloads made readable: JSON, XML, Avro, text, else a hex dump. Never more than asked for, and harmless on a terminal.

Shown is a likeness for people: the exact bytes are had elsewhere. A payload is a stranger's: nothing in it is
fetched, expanded, or let reach the terminal as a control character.
"""

from __future__ import annotations

import datetime
import enum
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from hop_archive.model.wording import harmless

DEFAULT_SHOWN = 4_000
"""Characters, or bytes of a hex dump, that are shown unless somebody wants more."""


class Kind(enum.Enum):
    """What a payload turned out to be."""

    NULL = "null"
    EMPTY = "empty"
    JSON = "JSON"
    XML = "XML"
    AVRO = "Avro"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload as it is shown.

    Attributes:
        kind: What it is.
        text: Lines without control characters; '' for null and empty.
        complete: Whether that is all of it.
        note: What else is to be said of it; '' for nothing.
    """

    kind: Kind
    text: str = ""
    complete: bool = True
    note: str = ""


def show(value: bytes | None, limit: int | None = DEFAULT_SHOWN) -> Shown:
    """Make a payload readable, by what its bytes are, not by what they are said to be.

    Args:
        value: The payload.
        limit: Most characters (of a hex dump: bytes of the payload); None for all.
    """
    if not value:
        return Shown(Kind.NULL if value is None else Kind.EMPTY)
    for attempt in (_avro, _json, _xml, _text):
        if (found := attempt(value, limit)) is not None:
            return found
    return _dump(value, limit)


def text_of(value: bytes) -> str | None:
    """The text that the bytes are; None where they are not UTF-8, or hold control characters other than line ends."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if any(unicodedata.category(c) == "Cc" and c not in "\t\n\r" for c in text) else text


def hex_lines(value: bytes) -> Iterator[str]:
    """Offset, sixteen bytes and the same as ASCII, as ``hexdump -C`` has it."""
    for at in range(0, len(value), 16):
        row = value[at : at + 16]
        pairs = f"{row[:8].hex(' '):23}  {row[8:].hex(' '):23}"
        ascii_only = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {pairs}  |{ascii_only}|"


def _dump(value: bytes, limit: int | None, note: str = "") -> Shown:
    return Shown(Kind.BINARY, "\n".join(hex_lines(value[:limit])), limit is None or len(value) <= limit, note)


class _Enough(Exception):  # noqa: N818 - no error
    """As much is there as is wanted."""


class _Page:
    """Lines, up to a limit."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Take a line; raises _Enough once the limit is reached."""
        line = harmless(line, "\n\t")
        if self._left is not None and len(line) >= self._left:
            self._lines.append(line[: self._left])
            raise _Enough
        self._lines.append(line)
        if self._left is not None:
            self._left -= len(line) + 1

    def filled(self, kind: Kind, fill: Callable[[], object], note: str = "") -> Shown:
        """What is shown once ``fill`` has added its lines, or enough of them."""
        complete = True
        try:
            fill()
        except _Enough:
            complete = False
        return Shown(kind, "\n".join(self._lines), complete, note)


# JSON: laid out piece by piece, so that numbers, escapes and repeated names stay as they were written.

# Quantifiers are possessive: what can go back keeps a note of each character, some hundred bytes.
_JSON_PART = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_INDENT = "  "


def _json(value: bytes, limit: int | None) -> Shown | None:
    if value.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        text = value.decode()
        json.loads(text, parse_int=len, parse_float=len)  # numbers as they are: only the form counts
    except (ValueError, RecursionError):
        return None
    page = _Page(limit)
    return page.filled(Kind.JSON, lambda: _add_all(page, _json_lines(text)))


def _add_all(page: _Page, lines: Iterable[str]) -> None:
    for line in lines:
        page.add(line)


def _json_lines(text: str) -> Iterator[str]:
    line, depth, opened = "", 0, False
    for found in _JSON_PART.finditer(text):
        part = found[0]
        if part in "]}":
            depth -= 1
            if not opened:
                yield line
                line = _INDENT * depth
        elif opened:
            yield line
            line = _INDENT * depth
        opened = part in "[{"
        depth += opened
        line += f"{part} " if part == ":" else part
        if part == ",":
            yield line
            line = _INDENT * depth
    yield line


# XML: laid out as expat tells it. A document type declaration, where entities come from, is refused.


_DEEPEST = 60
"""Levels that are told apart by indentation: a million elements in one another would make a million long lines."""


class _DoctypeError(Exception):
    """There is a document type declaration."""


def _xml(value: bytes, limit: int | None) -> Shown | None:
    if not value.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return None
    page = _Page(limit)
    try:
        return page.filled(Kind.XML, lambda: _XmlLines(page).parse(value))
    except _DoctypeError:
        found = _text(value, limit)
        return found and Shown(Kind.XML, found.text, found.complete, "with a DOCTYPE, so shown as it is")
    except (
        expat.ExpatError,
        ValueError,
        LookupError,
    ):  # the latter two: an encoding that Python does not have
        return None


class _XmlLines:
    """Adds a line for each start, end, comment and instruction; an element that holds text alone takes one."""

    def __init__(self, page: _Page) -> None:
        self._page = page
        self._depth = 0
        self._open = ""
        self._text = ""
        self._parser = expat.ParserCreate()
        self._parser.ordered_attributes = True
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.XmlDeclHandler = self._declaration
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.CommentHandler = lambda text: self._aside(f"<!--{text}-->")
        self._parser.ProcessingInstructionHandler = lambda target, data: self._aside(f"<?{target} {data}?>")

    def parse(self, value: bytes) -> None:
        """Parse it all, or until the page is full."""
        self._parser.Parse(value, True)

    def _refuse(self, *_: object) -> NoReturn:
        raise _DoctypeError

    def _line(self, text: str) -> None:
        self._page.add(_INDENT * min(self._depth, _DEEPEST) + text)

    def _declaration(self, version: str, encoding: str | None, _: int) -> None:
        self._line(f'<?xml version="{version}"' + (f' encoding="{encoding}"' if encoding else "") + "?>")

    def _start(self, name: str, attributes: list[str]) -> None:
        self._settle()
        pairs = zip(attributes[::2], attributes[1::2], strict=True)
        self._open = f"<{name}" + "".join(f" {key}={quoteattr(value)}" for key, value in pairs)

    def _end(self, name: str) -> None:
        text = escape(self._text.strip())
        if self._open:
            self._line(f"{self._open}>{text}</{name}>" if text else f"{self._open}/>")
            self._open = self._text = ""
            return
        self._settle()
        self._depth -= 1
        self._line(f"</{name}>")

    def _characters(self, text: str) -> None:
        self._text += text

    def _aside(self, text: str) -> None:
        self._settle()
        self._line(text)

    def _settle(self) -> None:
        """Write what was held back to see whether more than text would follow."""
        if self._open:
            self._line(f"{self._open}>")
            self._depth += 1
        if text := escape(self._text.strip()):
            self._line(text)
        self._open = self._text = ""


# Avro object container files, which carry their schema (Avro 1.11 specification, "Object Container Files").

_AVRO_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_MOST_INFLATED_BYTES = 8 * 2**20
"""A small block can be made to inflate to gigabytes: what is behind a block that does is not read."""
_MOST_FREE_VALUES = 1_000
"""Values that one value may bring about without a byte of their own, records among them; alerts have about ten."""
_SHOWN_BYTES = 16
"""Bytes shown of a value of type bytes: cutouts of images are long."""


class _OversizedError(Exception):
    """A few bytes can say so much, or so deep, that decoding them is not safe."""


def _avro(value: bytes, limit: int | None) -> Shown | None:
    if not value.startswith(_AVRO_MAGIC):
        return None
    import fastavro

    page = _Page(limit)
    try:
        readable, note = _readable_blocks(value)
        records = fastavro.reader(io.BytesIO(readable))
        return page.filled(Kind.AVRO, lambda: _add_all(page, map(_record_text, records)), note)
    except _OversizedError as error:
        return _dump(value, limit, f"an Avro file {error}, so not decoded")
    except Exception:  # noqa: BLE001 - a schema of anybody's can make fastavro fail in any way
        return None


def _readable_blocks(value: bytes) -> tuple[bytes, str]:
    """The file up to where its blocks become too large or cannot be read here, and what is to be said of that.

    Raises:
        IndexError, ValueError: It is not whole.
        _OversizedError: It is not safe to decode.
    """
    codec, schema, at = _avro_header(value)
    if codec not in (b"null", b"deflate"):
        return value[
            :at
        ], f"compressed with {harmless(codec.decode(errors='replace'))}, which is not read here"
    _Weights().check(schema)
    inflated = 0
    while at < len(value):
        count, start = _avro_long(value, at)
        size, start = _avro_long(value, start)
        if size < 0:
            raise ValueError(size)
        inside = _inflated(value[start : start + size], codec)
        if count > inside:
            raise _OversizedError("with more objects in a block than bytes")
        inflated += inside
        if inflated > _MOST_INFLATED_BYTES:
            return value[:at], "what would inflate to more than 64 MiB is left out"
        at = start + size + _SYNC_BYTES
    return value, ""


def _inflated(block: bytes, codec: bytes) -> int:
    if codec == b"null":
        return len(block)
    return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(block, _MOST_INFLATED_BYTES + 1))


class _Weights:
    """Checks that what a schema's values take in memory is bounded by their bytes, and how deep they go by the schema."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[int, int] | None] = {}

    def check(self, schema: bytes) -> None:
        """Pass, or raise _OversizedError; ValueError, KeyError and the like where it is no schema."""
        import fastavro

        self._of(fastavro.parse_schema(json.loads(schema, object_hook=_without_hints)))

    def _of(self, schema: Any) -> tuple[int, int]:
        """Fewest bytes of a value, as 0 or 1; and the most values in it that have no byte of their own.

        What follows the number of items, in an array or map, or the number of a branch, is not counted: an array
        may be empty.
        """
        if isinstance(schema, list):
            return 1, max((self._of(branch)[1] for branch in schema), default=0)
        if isinstance(schema, str):
            return self._of_name(schema)
        kind = schema["type"]
        if kind in ("array", "map"):
            return self._of_many(schema["items" if kind == "array" else "values"])
        if kind in ("record", "error"):
            return self._of_record(schema)
        if kind in ("fixed", "enum"):
            weight = (0, 1) if schema.get("size") == 0 and kind == "fixed" else (1, 0)
            self._named[schema["name"]] = weight
            return weight
        return self._of(kind)

    def _of_name(self, name: str) -> tuple[int, int]:
        if name in _AVRO_PRIMITIVES:
            return (0, 1) if name == "null" else (1, 0)
        if (weight := self._named[name]) is None:
            # Each level takes a piece of the C stack: 300,000 of them ended the process (fastavro 1.12).
            raise _OversizedError("whose schema holds itself")
        return weight

    def _of_many(self, item: Any) -> tuple[int, int]:
        least, free = self._of(item)
        if not least:
            raise _OversizedError("with items that take no bytes")
        return 1, free

    def _of_record(self, schema: Any) -> tuple[int, int]:
        self._named[schema["name"]] = None
        weights = [self._of(field["type"]) for field in schema["fields"]]
        free = 1 + sum(free for _, free in weights)
        if free > _MOST_FREE_VALUES:
            raise _OversizedError("whose schema makes much of few bytes")
        weight = max((least for least, _ in weights), default=0), free
        self._named[schema["name"]] = weight
        return weight


_AVRO_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def _without_hints(table: dict[str, Any]) -> dict[str, Any]:
    """Refuse what fastavro writes into schemas for itself, and would believe: names with another meaning."""
    if any(name.startswith("__") for name in table):
        raise ValueError(sorted(table))
    return table


def _avro_header(value: bytes) -> tuple[bytes, bytes, int]:
    """The codec, the schema, and where the first block begins."""
    told, at = {b"avro.codec": b"null"}, len(_AVRO_MAGIC)
    while (count_and_at := _avro_long(value, at))[0]:
        count, at = count_and_at
        if count < 0:  # then the size of this part of the map follows
            _, at = _avro_long(value, at)
        for _ in range(abs(count)):
            name, at = _avro_bytes(value, at)
            told[name], at = _avro_bytes(value, at)
    return told[b"avro.codec"], told[b"avro.schema"], count_and_at[1] + _SYNC_BYTES


def _avro_bytes(value: bytes, at: int) -> tuple[bytes, int]:
    size, at = _avro_long(value, at)
    if not 0 <= size <= len(value) - at:
        raise ValueError(size)
    return value[at : at + size], at + size


def _avro_long(value: bytes, at: int) -> tuple[int, int]:
    """A number in zigzag, seven bits a byte; and where what follows it begins."""
    number = shift = 0
    while True:
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        if shift > 63:
            raise ValueError(shift)


def _record_text(record: object) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False, default=_avro_text)


def _avro_text(value: object) -> Any:
    if isinstance(value, bytes):
        more = "…" if len(value) > _SHOWN_BYTES else ""
        return f"<{len(value)} bytes: {value[:_SHOWN_BYTES].hex()}{more}>"
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


# Text

_ODD_SHARE = 1 / 32
"""More control characters than this, and it is no text."""


def _text(value: bytes, limit: int | None) -> Shown | None:
    head = value if limit is None else value[: 4 * limit + 4]  # a character takes four bytes at most
    try:
        text = head.decode() if len(head) == len(value) else _cut_text(head)
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    odd = sum(unicodedata.category(c) == "Cc" and c not in "\t\n\r\f" for c in text)
    if odd > len(text) * _ODD_SHARE or "\x00" in text:
        return None
    shown = text if limit is None else text[:limit]
    return Shown(Kind.TEXT, harmless(shown, "\n\t"), len(head) == len(value) and shown == text)


def _cut_text(head: bytes) -> str:
    """Text whose last character may be cut in two."""
    for missing in range(4):
        try:
            return head[: len(head) - missing].decode()
        except UnicodeDecodeError as error:
            last = error
    raise last
