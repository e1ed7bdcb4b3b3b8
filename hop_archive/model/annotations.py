"""What the archive says of a message for those who search: media type, title, sender and the like. Pure.

They describe; nothing depends on them. Header conventions are hop-client's and archive-core's.

A media type is told twice. What a document says of its own (``annotate``) is told by a rule that never changes, since the same
message always encodes to the same bytes. A catalog row has the better one that ``refined_media_type`` makes of it, as archive-core
tells it by libmagic; a better rule corrects rows, and no document.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hop_archive.model.message import Header

MEDIA_TYPES = {
    b"voevent": "application/x.voevent",
    b"gcntextnotice": "application/x.gcn.notice",
    b"circular": "application/x.gcn.circular",
    b"blob": "application/octet-stream",
    b"json": "application/json",
    b"avro": "application/avro",
    b"external": "message/x.hop.external+json",
}
"""Media type by the value of the ``_format`` header (hop-client's model names)."""

_MAGIC_TYPES = {
    b"Obj\x01": "application/avro",  # Avro 1.11 specification, "Object Container Files"
    b"SIMPLE  =": "application/fits",  # FITS standard 4.0, 4.4.1.1
    b"\x89HDF\r\n\x1a\n": "application/x-hdf5",
    b"\x1f\x8b": "application/gzip",
}
_MAGIC = tuple(_MAGIC_TYPES)
_OCTETS, _TEXT = "application/octet-stream", "text/plain"
REFINED = frozenset({"", _OCTETS, _TEXT, "application/fits", "application/xml"})
"""The media types of documents of which a row may have a better one."""

# Checked against file 5.44 (libmagic), 2026-11-29. No library: filetype knows neither FITS nor any text, puremagic tells by
# endings of names first, and both would cost each message more than this.
_SIGNATURES = {
    rb"\x89PNG\r\n\x1a\n": "image/png",
    rb"\xff\xd8\xff": "image/jpeg",
    rb"GIF8[79]a": "image/gif",
    rb"II\*\x00|MM\x00\*": "image/tiff",
    rb"RIFF....WEBP": "image/webp",
    rb"%PDF-": "application/pdf",
    rb"%!PS": "application/postscript",
    rb"PK\x03\x04": "application/zip",
    rb".{257}ustar": "application/x-tar",
    rb"BZh": "application/x-bzip2",
    rb"\xfd7zXZ\x00": "application/x-xz",
    rb"\x28\xb5\x2f\xfd": "application/zstd",
}
# Possessive: what can go back over comments or blanks takes more than linear time.
_MARKUP = {
    rb"\s*+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|title)[\s>]": "text/html",
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!doctype\s++svg[^>]*+>\s*+)?+<svg[\s/>]": "image/svg+xml",
    rb"\s*+<[?!a-z_:]": "text/xml",
}


def _told_by(patterns: Mapping[bytes, str], flags: int) -> Callable[[bytes], str]:
    """What tells by which of these the first bytes are; '' for by none."""
    kinds = ["", *patterns.values()]
    match = re.compile(b"|".join(b"(%b)" % pattern for pattern in patterns), flags).match

    def told(head: bytes) -> str:
        found = match(head)
        return kinds[found.lastindex or 0] if found else ""

    return told


_signed = _told_by(_SIGNATURES, re.DOTALL)
_marked_up = _told_by(_MARKUP, re.DOTALL | re.IGNORECASE)
_TELLING = b"\x89\xffGIMR%PB\xfd\x28" + b"OS\x1f" + b"<{[ \t\n\v\f\r"
"""The first bytes of all signatures but tar's, of ``_MAGIC``, of markup and JSON, and what may go before these."""
_JSON = re.compile(rb"""\s*(?:\{\s*["}]|\[\s*[]\[{"\-0-9tfn])""")
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")  # but for those that text has
_UNPRINTABLE = re.compile(
    rb"[\x00-\x08\x0b\x0e-\x1f\x7f]"
)  # ``str.isprintable``, but for those that lay text out
_HIGH = bytes(range(0x80, 0x100))
_LEAST_CSV_LINES, _MOST_CSV_LINES = 3, 10
_REFINED_BYTES = 4096
"""How much a row's media type is told by: as much as archive-core shows libmagic."""

_TEXTS = frozenset({"title", "_sender", "file_name", "originator"})
_LAID_OUT = dict.fromkeys(map(ord, "\r\n\t\f"))
_SNIFFED_BYTES = 512
"""How much of a payload is looked at: telling a kind must cost the same for 100 bytes and for 20 MB."""


class Annotations(NamedTuple):
    """Descriptive facts of one message; text is '' where there is none. A tuple for the reason that ``Row`` is one.

    Attributes:
        public: Whether its topic is one that anybody may read.
        direct_upload: Whether it came by another way than Kafka.
        media_type: From the last telling ``_format`` header, else from the first bytes.
        title: First ``title`` header that decodes as UTF-8.
        sender: First ``_sender`` header that does.
        file_name: First ``file_name`` header that does.
        originator: First ``originator`` header that does.
    """

    public: bool = True
    direct_upload: bool = False
    media_type: str = ""
    title: str = ""
    sender: str = ""
    file_name: str = ""
    originator: str = ""


def annotate(headers: Sequence[Header], value: bytes | None, *, public: bool = True) -> Annotations:
    """The annotations of a message with these headers and this value."""
    found: dict[str, str] = {}
    media_type = ""
    # One pass, since this is done for every message: what is met first wins, but for _format.
    for name, content in headers:
        if name == "_format":
            media_type = MEDIA_TYPES.get(content or b"", media_type)
        elif name in _TEXTS and name not in found and (text := _text(content)) is not None:
            found[name] = text
    return Annotations(
        public=public,
        media_type=media_type or sniffed_media_type(value),
        title=found.get("title", ""),
        sender=found.get("_sender", ""),
        file_name=found.get("file_name", ""),
        originator=found.get("originator", ""),
    )


def sniffed_media_type(value: bytes | None) -> str:
    """A guess from the first bytes; '' for a tombstone and for an empty value."""
    if not value:
        return ""
    # Of most messages the first byte tells that nothing of what follows can be: 0.2 µs in the place of 1.1 (2026-11-29).
    if value[0] in b"{[":
        return "application/json"
    if value[0] not in _TELLING and _CONTROL.search(value, 0, _SNIFFED_BYTES):
        return _OCTETS
    head = value[:_SNIFFED_BYTES]
    if head.startswith(_MAGIC):
        return next(media_type for magic, media_type in _MAGIC_TYPES.items() if head.startswith(magic))
    start = head.lstrip()[:1]
    if start == b"<":
        return "application/x.voevent" if b"VOEvent" in head else "application/xml"
    if start in (b"{", b"["):
        return "application/json"
    if _UNPRINTABLE.search(head):
        return _OCTETS  # as of nearly all that is binary: what decoding would tell, too, in 0.1 of the time
    try:
        # The cut may fall inside a character: up to three bytes of one are left out.
        text = head.decode() if len(head) < _SNIFFED_BYTES else head.decode(errors="ignore")
    except UnicodeDecodeError:
        return "application/octet-stream"
    is_text = len(text.encode()) > len(head) - 4 and text.translate(_LAID_OUT).isprintable()
    return "text/plain" if is_text else "application/octet-stream"


def refined_media_type(media_type: str, value: bytes | None) -> str:
    """The media type that a row has, of a message of which the document says ``media_type``; that one where none is better."""
    if media_type not in REFINED or value is None:
        return media_type
    if not value:
        return media_type or "application/x-empty"
    if (
        media_type == _OCTETS
        and value[0] not in _TELLING
        and _CONTROL.search(value, 0, _SNIFFED_BYTES)
        and not value.startswith(b"ustar", 257)
    ):
        return media_type  # as of most that is binary: nothing of the following tells more
    if media_type == "application/fits":
        return "image/fits"
    if media_type == _OCTETS and (looked_into := sniffed_media_type(value)) != _OCTETS:
        # It was said to be a blob: whatever it is, that is a guess.
        is_guess = looked_into == "application/json" and not _JSON.match(value)
        return refined_media_type(_TEXT if is_guess else looked_into, value)
    head = value[:_REFINED_BYTES]
    if signed := _signed(head):
        return signed
    if media_type == "application/xml":
        media_type = _marked_up(head) or _TEXT
    elif (
        # Text in an encoding such as Latin-1: no control characters, and mostly ASCII.
        media_type == _OCTETS
        and not _CONTROL.search(head)
        and len(head.translate(None, _HIGH)) * 2 >= len(head)
    ):
        media_type = _TEXT
    return "text/csv" if media_type == _TEXT and _is_csv(head) else media_type


def _is_csv(head: bytes) -> bool:
    """Whether its first lines have the same number of cells, of which there are several."""
    if b"," not in head.partition(b"\n")[0]:
        return False
    *lines, _ = head.decode("latin-1").split("\n", _MOST_CSV_LINES)  # the last is cut, or never ended
    try:
        widths = {len(cells) for cells in csv.reader(lines)}
    except csv.Error:
        return False
    return len(lines) >= _LEAST_CSV_LINES and len(widths) == 1 and widths != {1}


def _text(content: bytes | None) -> str | None:
    """Header content as text that Postgres can hold, which U+0000 is none of; None where it is none."""
    try:
        return None if content is None else content.decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
    except UnicodeDecodeError:
        return None
