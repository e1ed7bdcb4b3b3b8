"""Documents of a segment as zstd frames, and back. Pure.

A compressed segment is in zstd's seekable format (contrib/seekable_format in facebook/zstd): independent frames, of some
whole documents each, then a skippable frame that lists them. So a document is read by one range, that of its frame, and
``zstd -d`` makes of the whole what ``mongodump`` would have written. Each frame's header states the size of its content, and
each ends with a checksum of it. What a frame claims is believed only within bounds that the reader sets.

The same documents make the same bytes with the same version of the zstd library; another version may compress otherwise.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hop_archive.errors import CorruptError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_BYTES = 128 * 2**10
"""Documents are put into a frame up to this size; a larger one is a frame of its own.

Half as much would take 2–25 % more room on alerts, twice as much 0–10 % less; reading one document costs 0.1–0.2 ms of CPU
(docs/decisions/0008-segments-in-zstd-frames.md, 2026-11-29).
"""

_LEVEL = 1
"""Level 3 takes up to 3 % less room on alerts and 1.1–1.6 times the CPU (2026-11-29, likewise)."""

MOST_SHARED_BYTES = 8 * 2**20
"""No frame of several documents has more content. Of one document the content may be larger: it says its own length first."""

_MOST_WINDOW_LOG = 23
"""A reader's window is at most so large (8 MiB), whatever a frame asks for; level 1 asks for 512 KiB."""

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50
"""The first of sixteen; the seek table's is the fifteenth."""
_SEEK_TABLE_MAGIC = 0x184D2A5E
_ENTRY = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_SEEKABLE_MAGIC = 0x8F92EAB1
_LENGTH = struct.Struct("<i")

_MOST_HEADER_BYTES = 1024
"""More than a frame has beside its content: header, checksum, and three bytes for each block of up to 128 KiB (RFC 8878, 3.1.1)."""

_LEAST_TABLE_BYTES = _SKIPPABLE.size + _FOOTER.size
"""The seek table of no frames."""


class Frame(NamedTuple):
    """Where a frame stands in its object, in bytes, and how long it is there."""

    position: int
    size_bytes: int


class FramedPlace(NamedTuple):
    """The frame in which a document stands, and where in the frame's content it begins."""

    frame: Frame
    position: int


def compress(bodies: Sequence[bytes]) -> tuple[bytes, list[FramedPlace]]:
    """The object that holds these documents, and the place of each in it, in the order given."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.content_size_flag: 1,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    parts: list[bytes] = []
    entries: list[bytes] = []
    places: list[FramedPlace] = []
    start = 0
    for some in _shared(bodies):
        content = b"".join(some)
        part = compressor.compress(content, zstd.ZstdCompressor.FLUSH_FRAME)
        frame = Frame(start, len(part))
        positions = itertools.accumulate((len(body) for body in some[:-1]), initial=0)
        places += [FramedPlace(frame, position) for position in positions]
        entries.append(_ENTRY.pack(len(part), len(content)))
        parts.append(part)
        start += len(part)
    footer = _FOOTER.pack(len(entries), 0, _SEEKABLE_MAGIC)
    table = b"".join((*entries, footer))
    return b"".join((*parts, _SKIPPABLE.pack(_SEEK_TABLE_MAGIC, len(table)), table)), places


def _shared(bodies: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The documents that are to share a frame."""
    some: list[bytes] = []
    size_bytes = 0
    for body in bodies:
        if some and size_bytes + len(body) > FRAME_BYTES:
            yield some
            some, size_bytes = [], 0
        some.append(body)
        size_bytes += len(body)
    if some:
        yield some


def decompress(data: bytes | memoryview, most_bytes: int | None = None) -> bytes:
    """The content of the one frame that ``data`` is.

    Whatever the frame claims, no more is made of it than ``MOST_SHARED_BYTES``, or ``most_bytes`` where that is more; where
    that is not given, than one document that says itself that it is so long.

    Raises:
        CorruptError: It is no whole frame, not sound, or claims more.
    """
    try:
        claimed = zstd.get_frame_info(data).decompressed_size
        if claimed is None:
            raise CorruptError("a zstd frame does not say how large its content is")
        decompressor = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _MOST_WINDOW_LOG}
        )
        begun = b""
        if claimed > max(MOST_SHARED_BYTES, most_bytes or 0):
            begun = decompressor.decompress(data, _LENGTH.size) if most_bytes is None else b""
            if begun != claimed.to_bytes(_LENGTH.size, "little") or claimed >= 2**31:
                raise CorruptError(f"a zstd frame claims {claimed} bytes, more than its documents can have")
            data = b""
        # One more than is claimed: so all of it is read, checksum included, and what goes beyond is noticed.
        content = begun + decompressor.decompress(data, claimed - len(begun) + 1)
    except (zstd.ZstdError, OverflowError) as error:
        raise CorruptError(f"a zstd frame is damaged: {error}") from error
    if len(content) != claimed or not decompressor.eof or decompressor.unused_data:
        raise CorruptError(
            f"a zstd frame is damaged: {claimed} bytes of content wanted, {len(content)} found"
        )
    return content


def object_bytes(end_bytes: int, frames: int) -> int:
    """How large a compressed segment of so many frames is, the last of which ends there."""
    return end_bytes + _LEAST_TABLE_BYTES + frames * _ENTRY.size


def frames_in(body: bytes) -> list[Frame]:
    """The frames of a compressed segment, by the seek table at its end; where that is damaged, as far as they follow one another."""
    told = seek_table(body, len(body))
    return [frame for frame, _ in walk([body])] if told is None else told


def seek_table(tail: bytes | memoryview, size_bytes: int) -> list[Frame] | None:
    """The frames that the seek table names, at the end of an object of this size; None where it is damaged, or not whole in ``tail``.

    It is believed where its frames and itself are just what the object is.
    """
    if len(tail) < _LEAST_TABLE_BYTES:
        return None
    count, descriptor, magic = _FOOTER.unpack_from(tail, len(tail) - _FOOTER.size)
    table_bytes = count * _ENTRY.size + _FOOTER.size
    start = len(tail) - table_bytes - _SKIPPABLE.size
    if magic != _SEEKABLE_MAGIC or descriptor != 0 or start < 0:
        return None
    if _SKIPPABLE.unpack_from(tail, start) != (_SEEK_TABLE_MAGIC, table_bytes):
        return None
    frames: list[Frame] = []
    reached = 0
    for n in range(count):
        compressed, _ = _ENTRY.unpack_from(tail, start + _SKIPPABLE.size + n * _ENTRY.size)
        frames.append(Frame(reached, compressed))
        reached += compressed
    return frames if reached + table_bytes + _SKIPPABLE.size == size_bytes else None


def walk(pieces: Iterable[bytes]) -> Iterator[tuple[Frame, bytes]]:
    """The frames, with their bytes, that stand end to end in an object that comes in pieces, skippable ones left out; ends where none begins.

    Holds one frame at a time, of no more bytes than the content that it states can need: where that is passed, nothing begins
    any more. What hides a frame's end hides those after it.
    """
    held, start, skipped = bytearray(), 0, 0
    for piece in pieces:
        held += piece
        while True:
            passed = min(skipped, len(held))
            del held[:passed]
            start, skipped = start + passed, skipped - passed
            if skipped or len(held) < _SKIPPABLE.size:
                break  # the rest of it is in the next piece
            magic, length = _SKIPPABLE.unpack_from(held)
            if magic & ~0xF == _SKIPPABLE_MAGIC:
                skipped = _SKIPPABLE.size + length
                continue
            if held[: len(_MAGIC)] != _MAGIC:
                return
            try:
                size_bytes = zstd.get_frame_size(held)
            except zstd.ZstdError:  # it does not end in what is held
                if len(held) > _most_bytes(held):
                    return
                break
            yield Frame(start, size_bytes), bytes(held[:size_bytes])
            skipped = size_bytes


def _most_bytes(data: bytes | bytearray) -> int:
    """How long the frame may be that begins here, by what it states of its content."""
    try:
        claimed = zstd.get_frame_info(data).decompressed_size
    except zstd.ZstdError:
        return _MOST_HEADER_BYTES
    return _MOST_HEADER_BYTES + (claimed + claimed // 128 if claimed is not None and claimed < 2**31 else 0)
