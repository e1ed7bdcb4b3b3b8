"""Keys of objects: under which a document or segment stands, and what a key that stands there is of. Pure."""

from __future__ import annotations

import re
import uuid

from hop_archive.model.slices import Slice
from hop_archive.model.times import utc_hour

OWN_FOLDER = "hop_archive/"
"""Where the archive keeps what is no message. A topic may have this name, too: see ``is_own``."""

_OWN_PARTS = frozenset({"probe", "quarantine", "restores", "snapshots"})
"""What stands right below it: the doctor's probe, what repair moved aside, reports of restores, catalog snapshots.

Whatever else the archive comes to keep there has to be named here, and none may be a number: messages of a topic called
``hop_archive`` have their year there.
"""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ALONE = re.compile(rf"(?P<topic>[^/]+)/-?\d+/\d+/\d+/\d+/(?P<uuid>{_UUID})(?:\.\d{{1,9}})?\.bson", re.ASCII)
_SEGMENT = re.compile(
    r"segments/(?P<topic>[^/]+)/(?P<generation>\d{1,10})/(?P<partition>\d{1,10})/(?P<start>\d{20})-(?P<stop>\d{20})"
    r"(?:\.\d{1,9})?\.bson",
    re.ASCII,
)
_MOST_INT32, _MOST_INT64 = 2**31 - 1, 2**63 - 1
_ATTEMPT = re.compile(r"\.(\d+)\.bson\Z")
_ALTERNATIVE = re.compile(r"(?:\.\d+)?\.bson$")


def object_key(topic: str, timestamp_ms: int, message_uuid: uuid.UUID) -> str:
    """Key of a document's own object: ``{topic}/{Y}/{M}/{D}/{H}/{uuid}.bson``, UTC, numbers unpadded."""
    year, month, day, hour = utc_hour(timestamp_ms)
    return f"{topic}/{year}/{month}/{day}/{hour}/{message_uuid}.bson"


def segment_key(topic: str, generation: int, partition: int, start: int, stop: int) -> str:
    """Key of a segment that holds the documents of offsets in ``[start, stop)``; sorts by offset."""
    return f"segments/{topic}/{generation}/{partition}/{start:020}-{stop:020}.bson"


def alternative_key(key: str, attempt: int, ending: str = ".bson") -> str:
    """The key to take where other bytes already stand under ``key``: ``….{attempt}.bson``; attempt 0 is ``key``."""
    return f"{key.removesuffix(ending)}.{attempt}{ending}" if attempt else key


def is_own(key: str) -> bool:
    """Tell whether the archive keeps something of its own under this key, which is then no message of any topic."""
    return key.startswith(OWN_FOLDER) and key.split("/", 2)[1] in _OWN_PARTS


def topic_of(key: str) -> str | None:
    """The topic whose document or segment would stand under this key; None where the key scheme has no such key.

    A key of the scheme of segments is one of a segment, though a topic may be called ``segments``; and one that begins
    with the archive's own folder is of a topic of that name where it has a year next, which nothing of its own has.
    """
    found = _segment(key) or _ALONE.fullmatch(key)
    return found["topic"] if found else None


def uuid_of(key: str) -> uuid.UUID | None:
    """The message whose document would stand alone under this key; None for other keys."""
    found = _ALONE.fullmatch(key)
    return uuid.UUID(found["uuid"]) if found else None


def is_segment_key(key: str) -> bool:
    """Tell whether a segment would stand under this key."""
    return _segment(key) is not None


def _segment(key: str) -> re.Match[str] | None:
    """A segment's key in its parts; None for others, also where a number is none that Kafka has."""
    found = _SEGMENT.fullmatch(key)
    if found is None:
        return None
    start, stop = int(found["start"]), int(found["stop"])
    sound = (
        start < stop <= _MOST_INT64 and max(int(found["generation"]), int(found["partition"])) <= _MOST_INT32
    )
    return found if sound else None


def slice_of(key: str) -> Slice | None:
    """The offsets that a segment under this key holds documents of; None for other keys."""
    found = _segment(key)
    if found is None:
        return None
    numbers = (int(found[name]) for name in ("generation", "partition", "start", "stop"))
    return Slice(found["topic"], *numbers)


def attempt_of(key: str) -> int:
    """Which alternative of its name a key is: 0 is the name itself."""
    found = _ATTEMPT.search(key)
    return int(found[1]) if found and topic_of(key) is not None else 0


def first_key(key: str) -> str:
    """The key to which this one is an alternative; itself where it is none."""
    return f"{_ALTERNATIVE.sub('', key)}.bson" if topic_of(key) is not None else key
