"""Verification as command line, Dagster, repair and demo call it: which looks, in which order, and what each closes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from hop_archive.archive import Archive
from hop_archive.catalog.checked import FIRST_KEY, LAST_KEY, CheckedRange, CheckedScope, Section
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.query import Query
from hop_archive.upkeep.verify.documents import KINDS, documents, sent_documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import backup_objects, objects
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import all_documents
from hop_archive.upkeep.verify.source import source, source_documents
from hop_archive.upkeep.verify.verification import NOT_LOOKED_AT, Verification

KINDS_OF = {
    "objects": (Kind.MISSING_OBJECT, Kind.WRONG_SIZE, Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT),
    "backup": (Kind.MISSING_OBJECT, Kind.WRONG_SIZE),
    "documents": KINDS,
    "ledger": (Kind.COVERAGE_HOLE, Kind.COUNT_MISMATCH, Kind.LOST),
    "source": (Kind.NOT_ARCHIVED,),
}
"""The kinds of finding that a complete look in each direction would see, and that are therefore gone if it does not."""

_UNNAMED = (Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT)
"""Those of objects that no row names: what is too young to be judged is not gone."""

MOST_KNOWN = 100_000
"""So many objects with a finding are told only once where they are read as well; beyond, twice. Some 30 MB."""


_LOOKS: Mapping[str, Callable[[Verification, dict[Section, int]], Iterator[Finding]]] = {
    "objects": objects,
    "backup": backup_objects,
    "ledger": ledger,
    "sent": lambda verification, _: sent_documents(verification),
}


def verify(
    verification: Verification,
    recorder: FindingsRecorder,
    directions: Sequence[str] | None = None,
    *,
    deep: bool = False,
) -> Iterator[tuple[Finding, bool]]:
    """Look in each direction, note what is found, and close what a complete look did not see again.

    What was sent, where it was recorded, is compared as well; nobody else knows it, so that is not noted.

    The directions are ``objects``, ``backup``, ``ledger``, ``source``, ``documents``, in the order in which to look; None:
    objects, ledger, and the backup where there is one. Deep is to read every document, too, but of objects that have a finding
    already. Where the source is a direction, what it holds is read again; where it is the only one, no document is read.

    Yields:
        What is found, once it is noted, with whether it is open: False where it was accepted.

    Raises:
        ConfigurationError: A topic means none; or the backup is a direction, and there is none.
        UnavailableError: A server does not answer. What was yielded is noted.
    """
    if directions is None:
        directions = ("objects", "ledger") if verification.backup is None else ("objects", "ledger", "backup")
    chosen = [
        *directions,
        *(["sent"] if verification.sent is not None else []),
        *(["source_documents"] if deep and "source" in directions else []),
        *(["documents"] if deep and set(directions) != {"source"} else []),
    ]
    # None where there is no backup: rows of other archivers may name no bucket.
    backup_bucket = verification.backup.bucket if verification.backup is not None else None
    known: set[tuple[str, str]] = set()
    for direction in dict.fromkeys(chosen):
        topics = verification.topics() if verification.query.topics and direction != "source" else None
        spared = {key for bucket, key in known if bucket != backup_bucket}
        began = recorder.now()
        is_whole = direction in KINDS_OF and replace(verification.query, topics=()) == Query()
        read = all_documents(verification, began) if direction == "documents" and is_whole else []
        took: dict[Section, int] = {}
        if direction in _LOOKS:
            found = _LOOKS[direction](verification, took)
        elif direction == "documents":
            found = documents(verification, known)
        else:
            found = _look_at_source(
                verification, source_documents if direction == "source_documents" else source
            )
        for finding, is_open in recorder.noted(found) if direction != "sent" else zip(found, repeat(True)):
            if deep and direction != "documents" and finding.object_key and len(known) < MOST_KNOWN:
                known.add((finding.bucket, finding.object_key))
            yield finding, is_open
        if direction == "source" and (
            verification.query.topics or verification.checked.counts[NOT_LOOKED_AT]
        ):
            is_whole = False
        if not is_whole:
            continue
        kinds = [kind for kind in KINDS_OF[direction] if kind not in _UNNAMED]
        if direction == "backup":
            scope = CheckedScope(kinds, began, topics, bucket=backup_bucket or "")
        else:
            # What Kafka was found to hold otherwise names no object: only reading it again could tell.
            passed_over = (*spared, "") if direction == "documents" else ()
            scope = CheckedScope(kinds, began, topics, not_bucket=backup_bucket or "", spared=passed_over)
        recorder.close(replace(scope, of_no_message=direction == "source"))
        if direction == "objects":
            young = began - datetime.timedelta(seconds=verification.grace_s)
            recorder.close(CheckedScope(_UNNAMED, began, topics, young_since=young))
        recorder.note_read(read)
        recorder.note_checked(
            [CheckedRange(section, FIRST_KEY, LAST_KEY, began, what) for section, what in took.items()]
        )


def _look_at_source(
    verification: Verification, look: Callable[[Verification, Archive], Iterator[Finding]]
) -> Iterator[Finding]:
    assert verification.open_archive is not None, "the source is a direction"
    with verification.open_archive() as archive:
        yield from look(verification, archive)
