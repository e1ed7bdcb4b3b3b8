"""What the archive says of a message for those who search: media type, title, sender and the like. Pure.

They describe; nothing depends on them. Header conventions are hop-client's and archive-core's.
"""

from __future__ import annotations

from collections.abc import Sequence
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

_MAGIC = (
    (b"Obj\x01", "application/avro"),  # Avro 1.11 specification, "Object Container Files"
    (b"SIMPLE  =", "application/fits"),  # FITS standard 4.0, 4.4.1.1
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (b"\x1f\x8b", "application/gzip"),
)
_TEXTS = frozenset({"title", "_sender", "file_name", "originator"})
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
    head = value[:_SNIFFED_BYTES]
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    start = head.lstrip()[:1]
    if start == b"<":
        return "application/x.voevent" if b"VOEvent" in head else "application/xml"
    if start in (b"{", b"["):
        return "application/json"
    try:
        # The cut may fall inside a character: up to three bytes of one are left out.
        text = head.decode() if len(head) < _SNIFFED_BYTES else head.decode(errors="ignore")
    except UnicodeDecodeError:
        return "application/octet-stream"
    is_text = (
        b"\x00" not in head
        and len(text.encode()) > len(head) - 4
        and all(c.isprintable() or c in "\r\n\t\f" for c in text)
    )
    return "text/plain" if is_text else "application/octet-stream"


def _text(content: bytes | None) -> str | None:
    """Header content as text that Postgres can hold, which U+0000 is none of; None where it is none."""
    try:
        return None if content is None else content.decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
    except UnicodeDecodeError:
        return None
