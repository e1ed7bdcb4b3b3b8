"""What the archive says of a message for those who search: media type, title, sender and the like. Pure.

They describe; nothing depends on them. Header conventions are hop-client's and archive-core's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hop_archive.message import Header

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

_MAGIC = (
    (b"Obj\x01", "application/avro"),  # Avro 1.11 specification, "Object Container Files"
    (b"SIMPLE  =", "application/fits"),  # FITS standard 4.0, 4.4.1.1
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (b"\x1f\x8b", "application/gzip"),
)
_SNIFFED_BYTES = 512
"""How much of a payload is looked at: telling a kind must cost the same for 100 bytes and for 20 MB."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Descriptive facts of one message; text is '' where there is none.

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
    if not headers:
        return Annotations(public=public, media_type=sniffed_media_type(value))
    return Annotations(
        public=public,
        media_type=_declared_media_type(headers) or sniffed_media_type(value),
        title=_first_text(headers, "title"),
        sender=_first_text(headers, "_sender"),
        file_name=_first_text(headers, "file_name"),
        originator=_first_text(headers, "originator"),
    )


def sniffed_media_type(value: bytes | None) -> str:
    """A guess from the first bytes; '' for a tombstone and for an empty value."""
    if not value:
        return ""
    head = value[:_SNIFFED_BYTES]
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    return _text_media_type(head)


def _text_media_type(head: bytes) -> str:
    text = head.lstrip()
    if text.startswith(b"<"):
        return "application/x.voevent" if b"VOEvent" in head else "application/xml"
    if text[:1] in (b"{", b"["):
        return "application/json"
    return "text/plain" if _is_text(head) else "application/octet-stream"


def _is_text(head: bytes) -> bool:
    try:
        # The cut may fall inside a character: up to three bytes of one are left out.
        text = head.decode() if len(head) < _SNIFFED_BYTES else head.decode(errors="ignore")
    except UnicodeDecodeError:
        return False
    return len(text.encode()) > len(head) - 4 and all(c.isprintable() or c in "\r\n\t\f" for c in text)


def _declared_media_type(headers: Sequence[Header]) -> str:
    for name, value in reversed(headers):
        if name == "_format" and value in MEDIA_TYPES:
            return MEDIA_TYPES[value]
    return ""


def _first_text(headers: Sequence[Header], wanted: str) -> str:
    for name, value in headers:
        if name == wanted and value is not None:
            try:
                # Postgres text cannot hold U+0000; the header itself keeps it.
                return value.decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
            except UnicodeDecodeError:
                continue
    return ""
