"""Payloads made readable: JSON, XML, Avro, text, else a hex dump. Never more than asked for, and harmless on a terminal.

Shown is a likeness for people: the exact bytes are had elsewhere. A payload is a stranger's: nothing in it is
fetched, expanded, or let reach the terminal as a control character.
"""

from __future__ import annotations

import codecs
import datetime
import enum
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, cast
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from hop_archive.model.wording import harmless

DEFAULT_SHOWN = 4_000
"""Characters, or bytes of a hex dump, that are shown unless somebody wants more."""


class PayloadKind(enum.Enum):
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
        text: Lines without control characters; '' for null and empty.
        complete: Whether that is all of it.
        note: What else is to be said of it; '' for nothing.
    """

    kind: PayloadKind
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
        return Shown(PayloadKind.NULL if value is None else PayloadKind.EMPTY)
    for attempt in (_avro, _json, _xml, _text):
        if (found := attempt(value, limit)) is not None:
            return found
    return _dump(value, limit)


def decode(value: bytes | None) -> Any:
    """What a payload says, by what its bytes are, not by what they are said to be.

    Returns:
        Of JSON what it means; of XML, such as VOEvent, its root element (``xml.etree.ElementTree.Element``); of an Avro file
        its records, a list; of text that. None and empty bytes as they are, and the bytes themselves of all that is none of
        these, or that it is not safe to decode whole. Nothing in it is fetched or expanded.
    """
    if not value:
        return value
    with suppress(Exception):  # whatever a schema of anybody's makes fastavro do, or a document the parsers
        if value.startswith(_AVRO_MAGIC):
            records, note = avro_records(value)
            return value if note else [*records]
        if value.lstrip()[:1] in (b"{", b"["):
            return json.loads(value.decode())
        if _is_markup(value):
            xml_parser().Parse(value, True)
            return ElementTree.fromstring(value)  # noqa: S314 (it has no DOCTYPE, where entities would come from)
    with suppress(UnicodeDecodeError):
        text = value.decode()
        return text if _is_text(text) and not value.startswith(_AVRO_MAGIC) else value
    return value


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
    return Shown(
        PayloadKind.BINARY, "\n".join(hex_lines(value[:limit])), limit is None or len(value) <= limit, note
    )


def _page(kind: PayloadKind, lines: Iterable[str], limit: int | None, note: str = "") -> Shown:
    """What is shown of lines, of which no more are taken than are shown."""
    shown: list[str] = []
    left = limit
    for line in lines:
        safe = harmless(line, "\n\t")
        if left is not None:
            if len(safe) >= left:
                return Shown(kind, "\n".join([*shown, safe[:left]]), complete=False, note=note)
            left -= len(safe) + 1
        shown.append(safe)
    return Shown(kind, "\n".join(shown), note=note)


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
    return _page(PayloadKind.JSON, _json_lines(text), limit)


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


# XML: laid out as expat reads it, and no further than the page. ElementTree and its indent lose prefixes, the declaration
# and comments beside the root, end at 1,000 levels, and take 21 times the payload (CPython 3.11, 2026-11-28).

_DEEPEST = 60
"""Levels that are told apart by indentation: a million elements in one another would make a million long lines."""
_XML_CHUNK_BYTES = 2**16
"""What is parsed at once, and so parsed in vain, beyond what is shown."""


class DoctypeError(Exception):
    """There is a document type declaration, where entities come from."""


def _is_markup(value: bytes) -> bool:
    return value.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


XML_ERRORS = (expat.ExpatError, ValueError, LookupError)
"""What a parser raises: the latter two for an encoding that Python does not have."""


def xml_parser() -> expat.XMLParserType:
    """A parser that refuses document type declarations; attributes come as a list, in their order."""
    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    return parser


def _refuse_doctype(*_: object) -> NoReturn:
    raise DoctypeError


def parsed(parser: expat.XMLParserType, value: bytes, made: list[str]) -> Iterator[str]:
    """What the parser's handlers put into ``made``, as far as it is taken; what is wrong is raised after what is before it."""
    for at in range(0, len(value) + _XML_CHUNK_BYTES, _XML_CHUNK_BYTES):
        error: Exception | None = None
        try:
            parser.Parse(value[at : at + _XML_CHUNK_BYTES], at >= len(value))
        except (*XML_ERRORS, DoctypeError) as met:
            error = met
        yield from made
        made.clear()
        if error is not None:
            raise error


def _xml(value: bytes, limit: int | None) -> Shown | None:
    if not _is_markup(value):
        return None
    try:
        return _page(PayloadKind.XML, _XmlLayout().lines_of(value), limit)
    except DoctypeError:
        found = _text(value, limit)
        return found and Shown(
            PayloadKind.XML, found.text, found.complete, "with a DOCTYPE, so shown as it is"
        )
    except XML_ERRORS:
        return None


class _XmlLayout:
    """A line for each start, end, comment and instruction; an element that holds text alone takes one."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0
        self._open = ""
        self._text: list[str] = []
        self._parser = xml_parser()
        self._parser.XmlDeclHandler = lambda version, encoding, _: self._line(
            f'<?xml version="{version}"' + (f' encoding="{encoding}"' if encoding else "") + "?>"
        )
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.CommentHandler = lambda text: self._aside(f"<!--{text}-->")
        self._parser.ProcessingInstructionHandler = lambda target, data: self._aside(f"<?{target} {data}?>")

    def lines_of(self, value: bytes) -> Iterator[str]:
        """The lines, as far as they are taken; what is wrong is raised after those before it."""
        return parsed(self._parser, value, self._lines)

    def _line(self, text: str) -> None:
        self._lines.append(_INDENT * min(self._depth, _DEEPEST) + text)

    def _start(self, name: str, attributes: list[str]) -> None:
        self._settle()
        pairs = zip(attributes[::2], attributes[1::2], strict=True)
        self._open = f"<{name}" + "".join(f" {key}={quoteattr(value)}" for key, value in pairs)

    def _end(self, name: str) -> None:
        if self._open:
            text = self._taken()
            self._line(f"{self._open}>{text}</{name}>" if text else f"{self._open}/>")
            self._open = ""
            return
        self._settle()
        self._depth -= 1
        self._line(f"</{name}>")

    def _aside(self, text: str) -> None:
        self._settle()
        self._line(text)

    def _settle(self) -> None:
        """Write what was held back to see whether more than text would follow."""
        if self._open:
            self._line(f"{self._open}>")
            self._depth += 1
            self._open = ""
        if text := self._taken():
            self._line(text)

    def _taken(self) -> str:
        text = escape("".join(self._text).strip())
        self._text.clear()
        return text


# Avro object container files, which carry their schema (Avro 1.11 specification, "Object Container Files").

_AVRO_MAGIC = b"Obj\x01"
_BLOCK_HEAD = {
    "type": "record",
    "name": "block",
    "fields": [{"name": name, "type": "long"} for name in ("count", "size")],
}
_SYNC_BYTES = 16
_MOST_INFLATED_BYTES = 8 * 2**20
"""A small block can be made to inflate to gigabytes: what is behind a block that does is not read."""
_MOST_FREE_VALUES = 1_000
"""Values that one value may bring about without a byte of their own, records among them; alerts have about ten."""
_SHOWN_BYTES = 16
"""Bytes shown of a value of type bytes: cutouts of images are long."""
_AVRO_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


class _OversizedError(Exception):
    """A few bytes can say so much, or so deep, that decoding them is not safe."""


def _avro(value: bytes, limit: int | None) -> Shown | None:
    if not value.startswith(_AVRO_MAGIC):
        return None
    try:
        records, note = avro_records(value)
        lines = (json.dumps(r, indent=2, ensure_ascii=False, default=_avro_text) for r in records)
        return _page(PayloadKind.AVRO, lines, limit, note)
    except _OversizedError as error:
        return _dump(value, limit, f"an Avro file {error}, so not decoded")
    except Exception:  # noqa: BLE001 - a schema of anybody's can make fastavro fail in any way
        return None


def avro_records(value: bytes) -> tuple[Iterator[Any], str]:
    """The records of an Avro file, as far as it is safe to decode them, and what is to be said of the rest.

    Raises:
        _OversizedError: It is not safe to decode.
        Exception: Any, now or with a record, where it is not whole.
    """
    import fastavro

    readable, note = _readable_blocks(value)
    return iter(fastavro.reader(io.BytesIO(readable))), note


def _readable_blocks(value: bytes) -> tuple[bytes, str]:
    """The file up to where its blocks become too large or cannot be read here, and what is to be said of that."""
    import fastavro

    file = io.BytesIO(value)
    metadata = fastavro.reader(file).metadata  # reads no further than the first block
    codec = metadata.get("avro.codec", "null")
    if codec not in ("null", "deflate"):
        return value[: file.tell()], f"compressed with {harmless(codec)}, which is not read here"
    schema = json.loads(metadata["avro.schema"], object_hook=_without_hints)
    _weight(fastavro.parse_schema(schema), {})
    block_head = fastavro.parse_schema(_BLOCK_HEAD)
    inflated = 0
    while (at := file.tell()) < len(value):
        count, size = cast("dict[str, int]", fastavro.schemaless_reader(file, block_head, None)).values()
        if size < 0:
            raise ValueError(size)
        block = file.read(size)
        if codec == "deflate":
            block = zlib.decompressobj(-zlib.MAX_WBITS).decompress(block, _MOST_INFLATED_BYTES + 1)
        if count > len(block):
            raise _OversizedError("with more objects in a block than bytes")
        inflated += len(block)
        if inflated > _MOST_INFLATED_BYTES:
            return value[
                :at
            ], f"what would inflate to more than {_MOST_INFLATED_BYTES // 2**20} MiB is left out"
        file.seek(_SYNC_BYTES, io.SEEK_CUR)
    return value, ""


def _weight(schema: Any, named: dict[str, tuple[int, int] | None]) -> tuple[int, int]:
    """Fewest bytes of a value, as 0 or 1; and the most values in it that have no byte of their own.

    What follows the number of items, in an array or map, or the number of a branch, is not counted: an array may be empty.
    ``named`` has the weights of named schemas, None of those that are being weighed.

    Raises:
        _OversizedError: What values take in memory is not bounded by their bytes, or how deep they go by the schema.
    """
    if isinstance(schema, list):
        return 1, max((_weight(branch, named)[1] for branch in schema), default=0)
    if isinstance(schema, str):
        if schema in _AVRO_PRIMITIVES:
            return (0, 1) if schema == "null" else (1, 0)
        if (weight := named[schema]) is None:
            # Each level takes a piece of the C stack: 300,000 of them ended the process (fastavro 1.12).
            raise _OversizedError("whose schema holds itself")
        return weight
    match schema["type"]:
        case "array" | "map" as kind:
            least, free = _weight(schema["items" if kind == "array" else "values"], named)
            if not least:
                raise _OversizedError("with items that take no bytes")
            return 1, free
        case "fixed" | "enum" as kind:
            weight = (0, 1) if kind == "fixed" and schema.get("size") == 0 else (1, 0)
        case "record" | "error":
            named[schema["name"]] = None
            weights = [_weight(field["type"], named) for field in schema["fields"]]
            weight = max((least for least, _ in weights), default=0), 1 + sum(free for _, free in weights)
            if weight[1] > _MOST_FREE_VALUES:
                raise _OversizedError("whose schema makes much of few bytes")
        case kind:
            return _weight(kind, named)
    named[schema["name"]] = weight
    return weight


def _without_hints(table: dict[str, Any]) -> dict[str, Any]:
    """Refuse what fastavro writes into schemas for itself, and would believe: names with another meaning."""
    if any(name.startswith("__") for name in table):
        raise ValueError(sorted(table))
    return table


def _avro_text(value: object) -> Any:
    if isinstance(value, bytes):
        more = "…" if len(value) > _SHOWN_BYTES else ""
        return f"<{len(value)} bytes: {value[:_SHOWN_BYTES].hex()}{more}>"
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


# Text

_ODD_SHARE = 1 / 32
"""More control characters than this, and it is no text."""


def _is_text(text: str) -> bool:
    odd = sum(unicodedata.category(c) == "Cc" and c not in "\t\n\r\f" for c in text)
    return odd <= len(text) * _ODD_SHARE and "\x00" not in text


def _text(value: bytes, limit: int | None) -> Shown | None:
    head = value if limit is None else value[: 4 * limit + 4]  # a character takes four bytes at most
    whole = len(head) == len(value)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not _is_text(text):
        return None
    shown = text if limit is None else text[:limit]
    return Shown(PayloadKind.TEXT, harmless(shown, "\n\t"), whole and shown == text)
