"""What verification finds, as values. Pure."""

from __future__ import annotations

import enum
import uuid
from typing import NamedTuple

from hop_archive.slices import Slice


class Kind(enum.Enum):
    """What is wrong. Everything but ``LOST`` can be mended, or at least explained."""

    MISSING_OBJECT = "missing_object"
    WRONG_SIZE = "wrong_size"
    CORRUPT_OBJECT = "corrupt_object"
    ROW_DIFFERS = "row_differs"
    ORPHAN_OBJECT = "orphan_object"
    FOREIGN_OBJECT = "foreign_object"
    COVERAGE_HOLE = "coverage_hole"
    COUNT_MISMATCH = "count_mismatch"
    NOT_ARCHIVED = "not_archived"
    LOST = "lost"


class Trouble(NamedTuple):
    """Something that is wrong, and where.

    Attributes:
        kind: What is wrong.
        topic: Of which topic; '' where that is not known.
        detail: What was wanted and what was found, one sentence for people.
        uuid: The message that it is about; None where it is about no single one.
        bucket: Bucket of ``object_key``; '' without one.
        object_key: The object that it is about; '' where it is about none.
        slice: The offsets that it is about; None where it is about none.
    """

    kind: Kind
    topic: str
    detail: str
    uuid: uuid.UUID | None = None
    bucket: str = ""
    object_key: str = ""
    slice: Slice | None = None
