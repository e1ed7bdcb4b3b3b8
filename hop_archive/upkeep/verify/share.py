"""Verifies an archive by shares: what is new, what is due, and so all of it within some days; remembers how far it is.

Each look takes on what was added since the last one, and of the rest what was never looked at or longest ago: a share that
is such that, look by look, all has been looked at within the days. So what it costs grows with what is new and with the share.
Each portion is remembered once what was found in it is noted and what is there no more is closed: a look that was killed
goes on where it was, and nothing counts as looked at that was not.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from hop_archive.catalog.checked import (
    FIRST_KEY,
    LAST_KEY,
    CheckedRange,
    CheckedScope,
    Look,
    Section,
    ledger_key,
)
from hop_archive.catalog.records import Recorded, Row, RowJob
from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.findings import Finding, Kind, remembered
from hop_archive.store.protocol import ObjectInfo, Store
from hop_archive.upkeep.verify.ledger import counts_of, coverage
from hop_archive.upkeep.verify.objects import (
    REQUEST,
    ROWS_IN_A_STEP,
    Step,
    at,
    compared,
    confirmed,
    copies_of,
    is_named,
    not_waiting,
    objects_of,
    outside_of_topics,
)
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import NEW_NOT_DUE, Verification

log = logging.getLogger(__name__)

DAYS = 7.0
"""Within so many days all is looked at again, unless somebody says otherwise."""

LEAST = 200_000
"""A look takes on at least so much, in objects that are listed: some ten seconds. A smaller archive is looked at whole each time."""

_PORTION = 20_000
"""What is looked at before it is remembered; and how many new messages are."""

_NEAR = 1_000
"""Objects that are passed over until the next that is wanted, before it is asked for by its name: a page of a listing."""

_MOST_FAILED = 20
"""After so many parts that could not be looked at, one after another or not, the rest of a direction is left for the next time."""

_DAY = datetime.timedelta(days=1)
_TURN = datetime.timedelta(hours=6)
"""So long ago the last look is taken to have been where there was none."""

_MOST_TOLD = 100_000
"""So many findings are told once in a look; beyond, what is new and of the share perhaps twice. Some 30 MB."""

_MISSING = (Kind.MISSING_OBJECT, Kind.WRONG_SIZE)

Told = tuple[Finding, bool]


@dataclass(frozen=True, slots=True)
class Freshness:
    """When what is to be looked at was looked at.

    Attributes:
        oldest: When the look that is longest ago began (UTC); None where there was none.
        never: Of how many sections (objects of a topic, its segments, its ledger, each bucket by itself) some was never looked at.
        sections: How many there are.
    """

    oldest: datetime.datetime | None
    never: int
    sections: int

    @property
    def whole_since(self) -> datetime.datetime | None:
        """Since when (UTC) all was looked at; None where something never was."""
        return None if self.never else self.oldest


def sections_of(verification: Verification, looks: Collection[str]) -> list[Section]:
    """What there is to look at in some directions of ``verify``."""
    topics, found = verification.topics(), list[Section]()
    if "objects" in looks:
        bucket = verification.store.bucket
        found += [Section(bucket, topic, look) for topic in topics for look in (Look.ALONE, Look.SEGMENTS)]
        if not verification.query.topics:
            found.append(Section(bucket, "", Look.OUTSIDE))
    if "backup" in looks and verification.backup is not None:
        bucket = verification.backup.bucket
        found += [Section(bucket, topic, look) for topic in topics for look in (Look.ALONE, Look.SEGMENTS)]
    if "ledger" in looks:
        found += [Section("", topic, Look.LEDGER) for topic in topics]
    return found


def freshness(verification: Verification) -> Freshness:
    """When all that is to be looked at was looked at last, the backup included where there is one."""
    sections = sections_of(verification, ("objects", "backup", "ledger"))
    parts = _parts(sections, verification.catalog.checked())
    never = {part.section for part in parts if part.when is None}
    moments = [part.when for part in parts if part.when is not None]
    return Freshness(min(moments, default=None), len(never), len(sections))


def verify_share(
    verification: Verification,
    recorder: FindingsRecorder,
    days: float = DAYS,
    *,
    least: int = LEAST,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Told]:
    """Look at what is new, at what is due, and at a share of the rest; note what is found, and close what is gone.

    The ledger is compared with itself each time. Run again and again, it has looked at everything within ``days``; where
    looks were missed, it takes on more. Two at once look at some twice. ``stop`` is asked between portions.

    Args:
        verification: Of all topics, without a query.
        recorder: Where to note.
        days: Within how many days all is to be looked at.
        least: How much is looked at in any case, of the objects, of those in the backup and of the ledger each.
        stop: Whether to end; what is left is for the next time.

    Yields:
        What is found, once it is noted, with whether it is open.

    Raises:
        UnavailableError: A server does not answer. What was looked at is remembered. The backup is looked at last: where it does
            not answer, all else was looked at.
        HopArchiveError: A part could not be looked at, which is refused, say. All others were, but for those of a direction with
            many such; none that was not counts as looked at.
    """
    told: set[Finding] = set()
    for finding, is_open in _looks(verification, recorder, days, least, stop):
        same = remembered(finding)._replace(detail="")
        if same not in told:
            yield finding, is_open
        if len(told) < _MOST_TOLD:
            told.add(same)


def _looks(
    verification: Verification,
    recorder: FindingsRecorder,
    days: float,
    least: int,
    stop: Callable[[], bool],
) -> Iterator[Told]:
    """What is found, as often as it is met: what is new may be of the share, too."""
    catalog, backup, began = verification.catalog, verification.backup, recorder.now()
    failed: list[HopArchiveError] = []
    yield from recorder.noted(coverage(verification))
    recorder.close(CheckedScope((Kind.COVERAGE_HOLE, Kind.LOST), began))
    messages = {summary.topic: summary.messages for summary in catalog.summaries()}
    yield from _new(verification, recorder, RowJob.CHECK_OBJECTS, verification.store, stop, failed)
    for looks in ("objects", "ledger", "backup"):
        if looks == "backup" and backup is not None:
            backup.check()
            yield from _new(verification, recorder, RowJob.CHECK_COPIES, backup, stop, failed)
        sections = sections_of(verification, (looks,))
        parts = _parts(sections, catalog.checked(), messages)
        last = max((part.when for part in parts if part.when is not None), default=began - _TURN)
        missed = min(days, max(0.0, (began - last) / _DAY))
        # To begin and to end within a portion takes a request more.
        share = max(least, math.ceil(sum(part.took for part in parts) * missed / days) + 2 * REQUEST)
        yield from _share(verification, recorder, parts, share, began - _DAY * (days - missed), stop, failed)
    if failed:
        raise failed[0]


class _Part(NamedTuple):
    """A part of a section; when it was looked at, None where it never was; and what that took, or may take at most."""

    section: Section
    after: str
    through: str
    when: datetime.datetime | None
    took: int


def _parts(
    sections: Collection[Section], known: Sequence[CheckedRange], messages: Mapping[str, int] | None = None
) -> list[_Part]:
    """All that the sections are, in parts that were looked at at one time each, or never."""
    ranges: dict[Section, list[CheckedRange]] = {}
    for done in known:
        ranges.setdefault(done.section, []).append(done)
    parts: list[_Part] = []
    for section in sections:
        reached, least = FIRST_KEY, 1 if section.look is Look.LEDGER else REQUEST
        size = (messages or {}).get(section.topic, 0)
        size = size // ROWS_IN_A_STEP if section.look is Look.LEDGER else size
        left = max(0, size - sum(done.took for done in ranges.get(section, ())))
        unknown = left + least * (1 + left // _PORTION)
        for done in sorted(ranges.get(section, ()), key=lambda done: done.after):
            if reached < done.after:
                parts.append(_Part(section, reached, done.after, None, unknown))
            parts.append(_Part(section, done.after, done.through, done.checked_at, max(least, done.took)))
            reached = done.through
        if reached < LAST_KEY:
            parts.append(_Part(section, reached, LAST_KEY, None, unknown))
    return parts


def _share(
    verification: Verification,
    recorder: FindingsRecorder,
    parts: Sequence[_Part],
    share: int,
    due_at: datetime.datetime,
    stop: Callable[[], bool],
    failed: list[HopArchiveError],
) -> Iterator[Told]:
    """Look at what was never looked at, as much as is the share; at what is due; and at what is next, up to that share.

    What could not be looked at is put into ``failed``, and stays what comes first the next time.
    """
    most_failed = len(failed) + _MOST_FAILED
    began, topics = recorder.now(), frozenset(verification.topics())
    read = sorted(((part.when, part) for part in parts if part.when is not None), key=itemgetter(0))
    due = [part for when, part in read if when <= due_at]
    following = [part for when, part in read if when > due_at]
    never = [part for part in parts if part.when is None]
    for some, is_bounded in ((never, True), (due, False), (following, True)):
        for part in some:
            after = part.after
            while after < part.through and not (is_bounded and share <= 0):
                if stop():
                    return
                most = min(_PORTION, share) if is_bounded else _PORTION
                here = part._replace(after=after)
                try:
                    after, took = yield from _portion(verification, recorder, topics, here, began, most)
                except UnavailableError:
                    raise
                except HopArchiveError as error:
                    log.warning("%s could not be looked at: %s", part.section, error)
                    failed.append(error)
                    if len(failed) == most_failed:
                        return
                    break
                share -= took


def _portion(
    verification: Verification,
    recorder: FindingsRecorder,
    topics: Collection[str],
    part: _Part,
    run_began: datetime.datetime,
    most: int,
) -> Generator[Told, None, tuple[str, int]]:
    """Look at the beginning of a part, note what is found, close what is gone, and remember it; up to where, and what it took."""
    section, after, began = part.section, part.after, recorder.now()
    reached, took = part.through, 1 if section.look is Look.LEDGER else REQUEST

    def looked() -> Iterator[Finding]:
        nonlocal reached, took
        last = after
        with closing(_steps(verification, topics, section, after)) as steps:
            for key, finding, more in steps:
                if key > part.through:
                    return
                # Between two keys, of which Postgres can keep the first.
                if took > most and after < last < key and "\0" not in last:
                    reached = last
                    return
                last = max(last, key)
                took += more
                if finding is not None:
                    yield finding

    yield from recorder.noted(not_waiting(verification, looked()))
    _close(verification, recorder, section, (after, reached), began)
    recorder.note_checked([CheckedRange(section, after, reached, run_began, took)])
    return reached, took


def _steps(
    verification: Verification, topics: Collection[str], section: Section, after: str
) -> Generator[Step]:
    bucket, topic, look = section
    if look is Look.LEDGER:
        yield from counts_of(verification, topic, after)
    elif look is Look.OUTSIDE:
        yield from outside_of_topics(verification, topics, after)
    elif bucket == verification.store.bucket:
        yield from objects_of(verification, topics, topic, segments=look is Look.SEGMENTS, after=after)
    elif verification.backup is not None:
        yield from copies_of(
            verification, verification.backup, topic, segments=look is Look.SEGMENTS, after=after
        )


def _close(
    verification: Verification,
    recorder: FindingsRecorder,
    section: Section,
    keys: tuple[str, str],
    began: datetime.datetime,
) -> None:
    """Close what was found in a part of a section before and was not seen again."""
    bucket, topic, look = section
    (after, through), catalog = keys, verification.catalog
    young = began - datetime.timedelta(seconds=verification.grace_s)
    if look is Look.LEDGER:
        recorder.resolve(
            [
                record.number
                for record in catalog.findings([topic], (Kind.COUNT_MISMATCH,))
                # What is about the summary, which is looked at last, has the last key.
                if record.last_seen < began
                and after
                < (
                    LAST_KEY
                    if (at := record.finding.slice) is None
                    else ledger_key(at.generation, at.partition, at.stop)
                )
                <= through
            ]
        )
    elif look is Look.OUTSIDE:
        known = set(verification.topics())
        recorder.resolve(
            [
                record.number
                for record in catalog.findings(None, (Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT))
                if record.last_seen < began
                and record.first_seen < young
                and after < (key := record.finding.object_key) <= through
                and record.finding.topic not in known
                and not _is_in_folder(key, known)
            ]
        )
    else:
        is_backup = bucket != verification.store.bucket
        # Rows of other archivers may name no bucket.
        other = verification.backup.bucket if verification.backup is not None and not is_backup else ""
        named = CheckedScope(_MISSING, began, [topic], bucket if is_backup else "", other)
        unnamed = CheckedScope((Kind.ORPHAN_OBJECT,), began, [topic], young_since=young)
        own, foreign = _keys(topic, in_segments=look is Look.SEGMENTS)
        for between in own:
            if (there := _within(between, keys)) is not None:
                recorder.close(replace(named, keys=there))
                if not is_backup:
                    recorder.close(replace(unnamed, keys=there))
        if not is_backup and foreign is not None and (there := _within(foreign, keys)) is not None:
            recorder.close(replace(unnamed, kinds=(Kind.FOREIGN_OBJECT,), topics=[""], keys=there))


def _keys(topic: str, *, in_segments: bool) -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    """Between which keys findings of a topic's objects, of one document or segments, may be; and what is foreign there.

    Where a topic is called ``segments``, what is foreign in its folder is seen with the segments of others.
    """
    start = "segments/segments/" if topic == "segments" else "segments/"
    end = start + LAST_KEY
    if in_segments:
        folder = f"segments/{topic}/"
        return [(start, end)], (folder, folder + LAST_KEY)
    folder = f"{topic}/"
    return [(FIRST_KEY, start), (end, LAST_KEY)], None if topic == "segments" else (folder, folder + LAST_KEY)


def _within(between: tuple[str, str], keys: tuple[str, str]) -> tuple[str, str] | None:
    after, through = max(between[0], keys[0]), min(between[1], keys[1])
    return (after, through) if after < through else None


def _is_in_folder(key: str, topics: Collection[str]) -> bool:
    folder, slash, rest = key.partition("/")
    return bool(slash) and (folder in topics or (folder == "segments" and rest.partition("/")[0] in topics))


def _new(
    verification: Verification,
    recorder: FindingsRecorder,
    job: RowJob,
    store: Store,
    stop: Callable[[], bool],
    failed: list[HopArchiveError],
) -> Iterator[Told]:
    """Look whether the objects of rows that were added since the last look are there, in the store or its backup.

    Where some cannot be looked at, it ends there, and begins there the next time: the shares see the others. Of copies that are not due yet nothing is remembered: they are looked at the next time.
    """
    catalog, counts = verification.catalog, verification.checked.counts
    try:
        span = catalog.begin_row_job(job)
    except (
        ForbiddenError
    ) as error:  # a role that may only read: it remembers nothing, and sees them with its shares
        log.warning("New messages are not looked at by themselves: %s", error)
        return
    topics, reached = catalog.topics(), span.done_to
    while reached < span.last and not stop():
        rows, end = catalog.rows_for(job, topics, reached, span.last, _PORTION)
        try:
            yield from recorder.noted(_objects_of_rows(verification, store, rows))
        except UnavailableError:
            raise
        except HopArchiveError as error:
            log.warning("New messages could not be looked at in bucket %s: %s", store.bucket, error)
            failed.append(error)
            return
        if store is verification.store:
            counts["new messages"] += len(rows)
        reached = end
        if (
            recorder.keeps
            and not counts[NEW_NOT_DUE]
            and span.done_to < (done_to := min(reached, span.settled_to))
        ):
            catalog.note_row_job(job, done_to)


def _objects_of_rows(verification: Verification, store: Store, rows: Sequence[Row]) -> Iterator[Finding]:
    in_order = sorted(rows, key=lambda row: (row.object_key, row.bucket, row.place_in_object))
    groups = groupby(in_order, key=lambda row: (row.object_key, row.bucket))
    recorded = (Recorded.of_rows(list(some)) for _, some in groups)
    for record, info in _near(store, recorded):
        if (finding := compared(record, info)) is None:
            continue
        if store is verification.store:
            if (told := confirmed(verification, record, finding)) is not None:
                yield told
            continue
        original = at(verification.store, record.key) if info is None else None
        if original and original.modified_ms > verification.oldest_young_ms(verification.backup_grace_s):
            verification.checked.counts[NEW_NOT_DUE] += 1
        elif is_named(verification, record):
            yield finding._replace(bucket=store.bucket)


def _near(store: Store, recorded: Iterable[Recorded]) -> Iterator[tuple[Recorded, ObjectInfo | None]]:
    """Each with its object, if it is there. They come in order of keys; those that stand near one another are listed at once."""
    for folder, some in groupby(recorded, key=lambda record: record.key[: record.key.rfind("/") + 1]):
        listing: Iterator[ObjectInfo] = iter(())
        info: ObjectInfo | None = None
        passed = _NEAR
        for record in some:
            while passed < _NEAR and info is not None and info.key < record.key:
                info, passed = next(listing, None), passed + 1
            if passed >= _NEAR:
                listing = store.listing(folder, record.key[:-1])
                info = next(listing, None)
                while info is not None and info.key < record.key:
                    info = next(listing, None)
            passed = 0
            yield record, info if info is not None and info.key == record.key else None
