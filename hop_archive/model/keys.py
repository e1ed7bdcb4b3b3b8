"""Keys of objects: under which a document or segment stands, and what a key that stands there is of. Pure."""

from __future__ import annotations

import ast
import datetime
import re
import uuid

from hop_archive.model.slices import Slice
from hop_archive.model.times import utc_hour

OWN_FOLDER = "hop_archive/"
"""Where the archive keeps what is no message. A topic may have this name, too: see ``is_own``."""

_OWN_PARTS = frozenset({"probe", "quarantine", "reports", "restores", "snapshots"})
"""What stands right below it: the doctor's probe, what repair moved aside, daily reports, reports of restores, catalog snapshots.

Whatever else the archive comes to keep there has to be named here, and none may be a number: messages of a topic called
``hop_archive`` have their year there.
"""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ALONE = re.compile(
    # What comes before and after the UUID, or is in its place, is archive-ingest's of November 2022: see docs/adopting.md.
    rf"(?P<topic>[^/]+)/-?\d+/\d+/\d+/\d+/(?:(?:urn:uuid:)?(?P<uuid>{_UUID})|(?P<bytes>b(['\"]).{{16,64}}\4))(?:\.\d{{1,9}})?\.bson",
    re.ASCII,
)
_SEGMENT = re.compile(
    r"segments/(?P<topic>[^/]+)/(?P<generation>\d{1,10})/(?P<partition>\d{1,10})/(?P<start>\d{20})-(?P<stop>\d{20})"
    r"(?:\.\d{1,9})?\.bson(?:\.zst)?",
    re.ASCII,
)
_MOST_INT32, _MOST_INT64 = 2**31 - 1, 2**63 - 1
_ATTEMPT = re.compile(r"\.(\d+)\.bson(?:\.zst)?\Z")
_ALTERNATIVE = re.compile(r"(?:\.\d+)?(\.bson(?:\.zst)?)$")
_DIGITS = re.compile(r"\d{1,20}", re.ASCII)
_ZSTD_ENDING = ".bson.zst"


def object_key(topic: str, timestamp_ms: int, message_uuid: uuid.UUID) -> str:
    """Key of a document's own object: ``{topic}/{Y}/{M}/{D}/{H}/{uuid}.bson``, UTC, numbers unpadded."""
    year, month, day, hour = utc_hour(timestamp_ms)
    return f"{topic}/{year}/{month}/{day}/{hour}/{message_uuid}.bson"


def report_key(day: datetime.date) -> str:
    """Key of the page that tells how the archive stood on a day."""
    return f"{OWN_FOLDER}reports/{day}.html"


def segment_key(
    topic: str, generation: int, partition: int, start: int, stop: int, *, compressed: bool = False
) -> str:
    """Key of a segment that holds the documents of offsets in ``[start, stop)``; sorts by offset."""
    stem = f"{segment_folder(topic, generation, partition)}{start:020}-{stop:020}"
    return stem + (_ZSTD_ENDING if compressed else ".bson")


def segment_folder(topic: str, generation: int, partition: int) -> str:
    """What the keys of all segments of a log begin with."""
    return f"segments/{topic}/{generation}/{partition}/"


def start_after(folder: str, key: str) -> int:
    """The least offset that a segment of a log may begin with whose name comes after ``key``; ``folder`` is that of the log."""
    if not key.startswith(folder) or key == folder:
        return 0
    rest = key[len(folder) :]
    if rest[0] > "9":
        return _MOST_INT64
    digits = _DIGITS.match(rest)
    return min(int(digits[0].ljust(20, "0")), _MOST_INT64) if digits else 0


def alternative_key(key: str, attempt: int, ending: str | None = None) -> str:
    """The key to take where other bytes already stand under ``key``: ``….{attempt}.bson``; attempt 0 is ``key``.

    ``ending`` is what stays at the end; without it that of the key, ``.bson.zst`` or ``.bson``.
    """
    if ending is None:
        ending = _ZSTD_ENDING if key.endswith(_ZSTD_ENDING) else ".bson"
    return f"{key.removesuffix(ending)}.{attempt}{ending}" if attempt else key


def is_compressed_key(key: str) -> bool:
    """Tell whether a segment in zstd frames would stand under this key."""
    return key.endswith(_ZSTD_ENDING) and is_segment_key(key)


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
    if found is None or found["uuid"]:
        return uuid.UUID(found["uuid"]) if found else None
    try:
        return uuid.UUID(bytes=ast.literal_eval(found["bytes"]))
    except (SyntaxError, ValueError):
        return None


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
    return _ALTERNATIVE.sub(r"\1", key) if topic_of(key) is not None else key
