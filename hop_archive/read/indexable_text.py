"""The text by which a message is found: what archive-core would index of it, for its readers search by that. Does no I/O.

Which parts and in which order is archive-core's rule (``get_indexable_text``): headers that are text, then keys, strings and numbers of
the payload, by its media type. Payloads are strangers': ``read.payload`` decodes them, within its bounds.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from hop_archive.model.annotations import refined_media_type, sniffed_media_type
from hop_archive.model.document import Document
from hop_archive.model.message import Header
from hop_archive.read.payload import avro_records, parsed, xml_parser

MOST_PAYLOAD_BYTES = 4 * 2**20
"""Payloads of this size, and longer ones, are not looked into."""
MOST_CHARACTERS = 2**14
"""What text is cut at."""

_WORD_CHARACTERS = 128
"""Text of this length without a space is most likely an encoding of something else."""

_UNWANTED = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters; and surrogates, which an escape in JSON can make, and no database takes."""


def indexable_text(document: Document) -> tuple[str, bool]:
    """The text of a message, and whether that of its payload is in it: it is small enough, of a known kind, and could be decoded."""
    message = document.message
    words = [*_of_headers(message.headers)]
    value = message.value or b""
    told = document.described.media_type or refined_media_type(sniffed_media_type(value), value)
    extract = _EXTRACTORS.get(told)
    is_full = extract is not None and len(value) < MOST_PAYLOAD_BYTES
    if extract is not None and is_full:
        try:
            words += _first(extract(value))
        except Exception:  # noqa: BLE001 - a schema of anybody's can make fastavro fail in any way; the headers stay
            is_full = False
    return _UNWANTED.sub(" ", " ".join(words)[:MOST_CHARACTERS]), is_full


def _of_headers(headers: Iterable[Header]) -> Iterator[str]:
    for name, content in headers:
        if content is not None and (name == "_sender" or not name.startswith("_")):
            try:
                text = content.decode()
            except UnicodeDecodeError:
                continue
            yield name.removeprefix("_")
            yield text


def _first(words: Iterable[str]) -> Iterator[str]:
    """As many as may be shown: more is not decoded."""
    length = 0
    for word in words:
        yield word
        length += len(word) + 1
        if length > MOST_CHARACTERS:
            return


def _is_readable(text: str) -> bool:
    return len(text) < _WORD_CHARACTERS or " " in text


class _Number(str):
    """A whole number as it was written: of any length."""

    __slots__ = ()


_END = object()


def _of_content(content: object) -> Iterator[str]:
    """Strings, and in tables numbers, each after its key; by a stack of its own, however deep."""
    stack: list[Iterator[tuple[str | None, object]]] = [iter([(None, content)])]
    while stack:
        key, found = next(stack[-1], (None, _END))
        match found:
            case _ if found is _END:
                stack.pop()
            case _Number() | bool() | int() | float():
                yield from () if key is None else (key, str(found))
            case str() if _is_readable(found):
                yield from (found,) if key is None else (key, found)
            case dict():
                stack.append(iter(found.items()))
            case list() | tuple():
                stack.append(zip(itertools.repeat(None), found))
            case _:
                continue


def _json(value: bytes) -> object:
    return json.loads(value.decode(), parse_int=_Number)


def _of_text(value: bytes) -> Iterator[str]:
    text = value.decode()
    return iter([text] if _is_readable(text) else [])


def _of_circular(value: bytes) -> Iterator[str]:
    """As hop-client serializes it: a header and a body. Else what JSON there is, or the text."""
    try:
        found = _json(value)
    except (ValueError, RecursionError):
        return _of_text(value)
    match found:
        case {"header": dict(header), "body": str(body)}:
            return itertools.chain(_of_content(header), [body])
        case _:
            return _of_content(found)


def _of_notice(value: bytes) -> Iterator[str]:
    """Fields by name; what a name has been given before, and lines without one, are more of the same field."""
    fields: dict[str, list[str]] = {}
    last: list[str] = []
    for line in value.decode().strip().splitlines():
        name, colon, content = line.partition(":")
        if colon:
            last = fields.setdefault(name.strip().lower(), [])
        last.append(content.strip() if colon else line.lstrip())
    return _of_content({name: "\n".join(lines) for name, lines in fields.items()})


_SECTIONS = ("Who", "What", "WhereWhen", "How", "Why", "Citations", "Description", "Reference")


def _of_voevent(value: bytes) -> Iterator[str]:
    """Of each element below the event its attributes and text by name; or as old versions of hop-client had it, in JSON."""
    if value.lstrip()[:1] != b"{":
        return _Elements().words_of(value)
    match _json(value):
        case dict(found):
            return _of_content([found.get(section) for section in _SECTIONS])
        case _:
            raise ValueError("no event")


class _Elements:
    """The words of XML, as it is parsed; the attributes of the outermost element are left out, as archive-core does."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._text: list[str] = []
        self._depth = 0
        self._bare = ""
        self._parser = xml_parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append

    def words_of(self, value: bytes) -> Iterator[str]:
        return parsed(self._parser, value, self._words)

    def _start(self, name: str, attributes: list[str]) -> None:
        self._take()
        self._depth += 1
        # An element of text alone is a name with a value, as an attribute is.
        self._bare = "" if attributes else name
        if self._depth > 1:
            pairs = zip(attributes[::2], attributes[1::2], strict=True)
            self._words += itertools.chain.from_iterable(pair for pair in pairs if _is_readable(pair[1]))

    def _end(self, _: str) -> None:
        self._take()
        self._depth -= 1

    def _take(self) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        if text and _is_readable(text):
            self._words += [self._bare, text] if self._bare else [text]
        self._bare = ""


_EXTRACTORS: Mapping[str, Callable[[bytes], Iterator[str]]] = {
    "application/avro": lambda value: itertools.chain.from_iterable(map(_of_content, avro_records(value)[0])),
    "application/json": lambda value: _of_content(_json(value)),
    "text/plain": _of_text,
    "application/x.gcn.circular": _of_circular,
    "application/x.gcn.notice": _of_notice,
    "application/x.voevent": _of_voevent,
}
