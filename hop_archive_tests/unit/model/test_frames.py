"""Segments in zstd frames: that any zstd makes the documents of them again, and what a frame that lies is worth."""

from __future__ import annotations

import itertools
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import CorruptError
from hop_archive.model import frames
from hop_archive.model.frames import Frame, compress, decompress, frames_in, object_bytes, seek_table, walk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
CHECKSUM_FLAG, SINGLE_SEGMENT = 0x04, 0x20


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES", 100)


def documents(*sizes: int) -> list[bytes]:
    """Bytes that say their length first, as BSON does."""
    return [
        struct.pack("<i", size) + (bytes(range(n, 251)) * (size // (251 - n) + 1))[: size - 4]
        for n, size in enumerate(sizes)
    ]


SIZES = st.lists(
    st.sampled_from([5, 60, 70_000, frames.FRAME_BYTES - 1, frames.FRAME_BYTES, frames.FRAME_BYTES + 1]),
    min_size=1,
    max_size=12,
)


@given(SIZES)
def test_each_document_is_in_its_frame_and_the_whole_is_what_zstd_makes_of_the_object(
    sizes: list[int],
) -> None:
    bodies = documents(*sizes)
    body, places = compress(bodies)
    assert zstd.decompress(body) == b"".join(bodies)
    for document, (frame, position) in zip(bodies, places, strict=True):
        content = decompress(body[frame.position : frame.position + frame.size_bytes])
        assert content[position : position + len(document)] == document
        assert len(content) <= max(frames.FRAME_BYTES, len(document))
    assert frames_in(body) == [frame for frame, _ in itertools.groupby(place.frame for place in places)]


@given(SIZES)
def test_the_same_documents_make_the_same_bytes(sizes: list[int]) -> None:
    assert compress(documents(*sizes)) == compress(documents(*sizes))


def test_each_frame_says_how_large_its_content_is_and_ends_with_a_checksum_of_it(small_frames: None) -> None:
    body, places = compress(documents(60, 30, 50, 1_000, 20))
    told = [
        (frame, zstd.get_frame_info(body[frame.position :]).decompressed_size) for frame in frames_in(body)
    ]
    assert [size for _, size in told] == [90, 50, 1_000, 20]
    assert all(body[frame.position + 4] & CHECKSUM_FLAG for frame, _ in told)
    assert [place.position for place in places] == [0, 60, 0, 0, 0]


def test_the_seek_table_says_what_the_format_says(small_frames: None) -> None:
    body, _ = compress(documents(60, 70))
    first, second = frames_in(body)
    table = body[second.position + second.size_bytes :]
    # contrib/seekable_format/zstd_seekable_compression_format.md of facebook/zstd, 0.1.0
    assert struct.unpack("<II IIII IBI", table) == (
        0x184D2A5E, 25, first.size_bytes, 60, second.size_bytes, 70, 2, 0, 0x8F92EAB1,
    )  # fmt: skip
    assert len(body) == object_bytes(second.position + second.size_bytes, 2)


def bits(data: bytes) -> Iterator[bytes]:
    """The data with one bit flipped, in all ways."""
    for at, bit in itertools.product(range(len(data)), range(8)):
        yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_no_flipped_bit_of_a_frame_goes_unnoticed() -> None:
    (document,) = documents(300)
    body, ((frame, _),) = compress([document])
    for flipped in bits(body[: frame.size_bytes]):
        with suppress(CorruptError):  # of some bits of the header nothing depends
            assert decompress(flipped) == document


def test_a_frame_that_is_cut_short_or_goes_on_is_damaged() -> None:
    body, ((frame, _),) = compress(documents(300))
    data = body[: frame.size_bytes]
    for wrong in (b"", data[:3], data[:-1], data + b"\0", data + data, b"\0" * 50):
        with pytest.raises(CorruptError, match="zstd frame"):
            decompress(wrong)


def frame_of(content: bytes, **options: int) -> bytes:
    wanted: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in options.items()}
    return zstd.ZstdCompressor(options=wanted).compress(content, zstd.ZstdCompressor.FLUSH_FRAME)


def test_nothing_is_made_of_a_frame_that_claims_more_than_is_allowed() -> None:
    bomb = frame_of(bytes(64 * 2**20))
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        for allowed in (None, 0, 1_000, frames.MOST_SHARED_BYTES):
            with pytest.raises(CorruptError, match="claims 67108864 bytes"):
                decompress(bomb, allowed)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert decompress(bomb, 64 * 2**20) == bytes(64 * 2**20)


def test_a_large_frame_is_one_document_that_says_how_long_it_is() -> None:
    size = frames.MOST_SHARED_BYTES + 1
    document = struct.pack("<i", size) + bytes(size - 4)
    (frame,) = frames_in(compress([document])[0])
    data = compress([document])[0][: frame.size_bytes]
    assert decompress(data) == decompress(data, size) == document
    with pytest.raises(CorruptError, match="claims"):
        decompress(frame_of(struct.pack("<i", size - 1) + bytes(size - 4)))


def test_a_frame_with_more_in_it_than_it_claims_is_damaged() -> None:
    data = bytearray(frame_of(bytes(1_000), checksum_flag=0))
    assert data[4] & SINGLE_SEGMENT
    assert data[5:7] == struct.pack("<H", 1_000 - 256)
    data[5:7] = struct.pack("<H", 500 - 256)
    with pytest.raises(CorruptError):
        decompress(bytes(data))


def test_a_frame_that_does_not_say_how_large_its_content_is_is_refused() -> None:
    with pytest.raises(CorruptError, match="does not say"):
        decompress(frame_of(bytes(1_000), content_size_flag=0))


@given(st.binary(max_size=200), st.none() | st.integers(0, 10_000))
def test_whatever_bytes_are_no_frame_is_said_and_no_other_error_comes(data: bytes, most: int | None) -> None:
    for candidate in (data, FRAME_MAGIC + data):
        with suppress(CorruptError):
            assert len(decompress(candidate, most)) <= frames.MOST_SHARED_BYTES
        found = frames_in(candidate)
        assert all(0 <= at <= at + size <= len(candidate) for at, size in found)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_of_an_object_that_was_changed_anywhere_no_document_is_another(
    bodies: list[bytes], data: st.DataObject
) -> None:
    body, places = compress(bodies)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + data.draw(st.binary(max_size=9)) + body[at + data.draw(st.integers(0, 9)) :]
    for frame, position in places:
        with suppress(CorruptError):
            content = decompress(changed[frame.position : frame.position + frame.size_bytes])
            assert (
                content[position:]
                == decompress(body[frame.position : frame.position + frame.size_bytes])[position:]
            )
    frames_in(changed)


def test_frames_are_found_without_the_seek_table_in_whatever_pieces(small_frames: None) -> None:
    bodies = documents(*[60] * 30)
    body, places = compress(bodies)
    wanted = [place.frame for place in places]
    for size in (1, 17, 100, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert [frame for frame, _ in walk(pieces)] == wanted
    for end in (len(body) - 1, len(body) - 9, wanted[-1].position + wanted[-1].size_bytes):
        assert seek_table(body[:end], end) is None
        assert frames_in(body[:end]) == wanted


def test_a_seek_table_is_believed_only_where_it_is_of_the_whole_object(small_frames: None) -> None:
    body, _ = compress(documents(60, 70, 80))
    assert seek_table(body[-60:], len(body)) == frames_in(body)
    assert seek_table(body[-60:], len(body) + 1) is None
    assert seek_table(body[-30:], len(body)) is None  # not all of it
    table = len(body) - object_bytes(0, 3)
    for flipped in bits(body[table:]):
        told = seek_table(flipped, len(body))
        # The sizes of contents, which nobody here reads, may be others.
        assert told in (None, frames_in(body))


def test_a_frame_whose_end_cannot_be_told_hides_none_as_long_as_the_seek_table_is_there(
    small_frames: None,
) -> None:
    body, places = compress(documents(60, 70, 80))
    second = places[1].frame
    damaged = body[: second.position] + b"junk" + body[second.position + 4 :]
    assert frames_in(damaged) == frames_in(body)
    assert [frame for frame, _ in walk([damaged])] == [places[0].frame]
    assert places[0].frame == Frame(0, second.position)


def endless(beginning: bytes, block: bytes) -> Iterator[bytes]:
    """An object of 64 MiB that is one frame, in pieces of a megabyte."""
    yield beginning
    for _ in range(64):
        yield block * (2**20 // len(block))


RAW_BLOCK = (128 * 2**10 << 3).to_bytes(3, "little") + bytes(128 * 2**10)


@pytest.mark.parametrize(
    ("beginning", "block"),
    [
        (struct.pack("<II", 0x184D2A50, 2**32 - 1), bytes(2**10)),
        (FRAME_MAGIC + bytes([0x60]) + struct.pack("<H", 1_000), RAW_BLOCK),
        (FRAME_MAGIC + bytes([0, 0x58]), RAW_BLOCK),
    ],
)
def test_a_frame_without_end_is_not_held_whole(beginning: bytes, block: bytes) -> None:
    tracemalloc.start()
    try:
        assert list(walk(endless(beginning, block))) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_what_comes_after_a_skippable_frame_in_many_pieces_is_found() -> None:
    body, places = compress(documents(50, 60))
    skippable = struct.pack("<II", 0x184D2A51, 1_000) + bytes(1_000)
    whole = skippable + body
    pieces = [whole[n : n + 7] for n in range(0, len(whole), 7)]
    (frame,) = {place.frame for place in places}
    assert [found for found, _ in walk(pieces)] == [Frame(len(skippable), frame.size_bytes)]
