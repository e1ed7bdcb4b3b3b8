"""Hypothesis strategies for messages as Kafka lets them be, and the settings that all properties run under.

Everything here is legal: what a broker accepts, the archive keeps. Oddities of real publishers (every kind of
``_id`` header, null against empty, names repeated, timestamps of any int64) come up often, not by luck.
"""

from __future__ import annotations

import datetime
import os
import uuid
from operator import itemgetter
from typing import Any

import bson
from bson import Code, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.int64 import Int64
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hop_archive.model.annotations import annotate
from hop_archive.model.document import Document, encode
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.identity import candidates, identify
from hop_archive.model.message import NO_TIMESTAMP_MS, Header, Message, TimestampType
from hop_archive.model.slices import OffsetSet

LEAST_INT64 = -(2**63)
GREATEST_INT64 = 2**63 - 1
YEAR_10000_MS = 253_402_300_800_000

# No deadline and no complaint of slow data: how busy the machine is must not decide whether a test passes.
settings.register_profile(
    "hop_archive", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
# In CI the same commit always gets the same verdict; new examples are looked for on people's machines.
settings.register_profile(
    "hop_archive_ci", settings.get_profile("hop_archive"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("hop_archive_ci" if os.environ.get("CI") else "hop_archive")

topics = st.from_regex(r"[a-zA-Z0-9._-]{1,30}", fullmatch=True).filter(lambda name: name not in (".", ".."))
partitions = st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1))
offsets = st.one_of(st.integers(0, 1000), st.integers(0, GREATEST_INT64))
timestamps_ms = st.one_of(
    st.sampled_from([NO_TIMESTAMP_MS, 0, 1, YEAR_10000_MS - 1, YEAR_10000_MS, LEAST_INT64, GREATEST_INT64]),
    st.integers(1_500_000_000_000, 2_000_000_000_000),
    st.integers(LEAST_INT64, GREATEST_INT64),
)
nullable_bytes = st.one_of(st.none(), st.just(b""), st.binary(max_size=40), st.binary(max_size=2_000))

legal_ids = st.binary(min_size=16, max_size=16)
illegal_ids = st.one_of(
    st.none(),
    st.just(b""),
    st.uuids().map(lambda own: str(own).encode()),
    st.uuids().map(lambda own: own.hex.encode()),
    st.binary(min_size=17, max_size=40),
    st.binary(min_size=1, max_size=15),
)
ANNOTATED = ("title", "_sender", "file_name", "originator", "_format", "_test")
header_names = st.one_of(st.sampled_from([*ANNOTATED, "", "_ID", "id"]), st.text(max_size=12))
other_headers: st.SearchStrategy[Header] = st.tuples(
    header_names.filter(lambda name: name != ID_HEADER), nullable_bytes
)
illegal_id_headers: st.SearchStrategy[Header] = st.tuples(st.just(ID_HEADER), illegal_ids)
id_headers: st.SearchStrategy[Header] = st.tuples(st.just(ID_HEADER), st.one_of(legal_ids, illegal_ids))
headers_without_id: st.SearchStrategy[tuple[Header, ...]] = st.lists(
    st.one_of(other_headers, illegal_id_headers), max_size=6
).map(tuple)
headers_with_id: st.SearchStrategy[tuple[Header, ...]] = st.builds(
    lambda before, own, after: (*before, (ID_HEADER, own), *after),
    headers_without_id,
    legal_ids,
    st.lists(st.one_of(other_headers, id_headers), max_size=3),
)
any_headers: st.SearchStrategy[tuple[Header, ...]] = st.one_of(
    st.just(()),
    headers_without_id,
    headers_with_id,
    st.lists(st.one_of(other_headers, id_headers), min_size=1, max_size=3).map(lambda some: (*some, *some)),
)


def messages(headers: st.SearchStrategy[tuple[Header, ...]] = any_headers) -> st.SearchStrategy[Message]:
    """Any message that a broker could deliver, with these headers."""
    return st.builds(
        Message,
        topic=topics,
        partition=partitions,
        offset=offsets,
        timestamp_ms=timestamps_ms,
        timestamp_type=st.sampled_from(TimestampType),
        key=nullable_bytes,
        value=nullable_bytes,
        headers=headers,
        leader_epoch=st.one_of(st.none(), st.integers(0, 2**31 - 1)),
    )


def archived(message: Message, *, collides: bool = False, public: bool = True) -> Document:
    """The document that the archive makes of a message.

    Args:
        message: Any message.
        collides: Whether other content holds the message's UUID already, so that the next one is taken.
        public: Whether its topic is.
    """
    attempts = candidates(identify(message))
    own = next(attempts)
    if collides:
        own = next(attempts)
    notes = annotate(message.headers, message.value, public=public)
    return Document(message, own.uuid, own.is_client_uuid, own.digest, own.message_crc32, notes)


def documents(
    headers: st.SearchStrategy[tuple[Header, ...]] = any_headers,
) -> st.SearchStrategy[Document]:
    """Documents of any message, of collisions and of private topics too."""
    return st.builds(archived, messages(headers), collides=st.booleans(), public=st.booleans())


bson_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.floats(),
        st.integers(LEAST_INT64, GREATEST_INT64).map(Int64),
        st.sampled_from([Int64(2**50), Int64(GREATEST_INT64), Int64(-1), -1, 0, 1, 16]),
        st.text(max_size=8),
        st.sampled_from([str(uuid.UUID(int=7)), "", "ab", "\x00"]),
        st.binary(max_size=20),
        st.builds(Binary, st.binary(max_size=16), st.integers(0, 255).filter(lambda n: n not in (2, 3, 4))),
        st.builds(Decimal128, st.decimals(allow_nan=True).map(str).filter(lambda text: len(text) < 20)),
        st.builds(ObjectId, st.binary(min_size=12, max_size=12)),
        st.builds(Code, st.text("ab", max_size=4)),
        st.builds(Regex, st.just("a[")),
        st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        st.sampled_from([MinKey(), MaxKey()]),
        st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 12, 31)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["$ref", "$id", "ab", "name", "con_text_uuid"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@st.composite
def strangely_typed(draw: st.DrawFn, document: Document) -> bytes:
    """The BSON of a document, ours or as another archiver leaves it, with values of any types in some of its fields."""
    found: dict[str, Any] = bson.decode(encode(document))
    parts = [(name,) for name in found]
    places = [*parts, *((part, name) for (part,) in parts[1:] for name in (*found[part], "suppressed"))]
    changes = draw(st.dictionaries(st.sampled_from(places), bson_values, min_size=1, max_size=3))
    if draw(st.booleans()):
        del found["annotations"]["digest"]
    for (*parents, name), value in sorted(changes.items(), key=itemgetter(0), reverse=True):
        inside = found[parents[0]] if parents else found
        inside[name] = value
    return bson.encode(found)


small_ranges = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: (min(ends), max(ends)))
offset_sets = st.lists(small_ranges, max_size=6).map(OffsetSet.of)


def plain(found: OffsetSet) -> set[int]:
    """The same offsets as Python's own set: the reference for the algebra."""
    return {offset for start, stop in found for offset in range(start, stop)}
