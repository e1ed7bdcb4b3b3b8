"""What a repair works with, Kafka among it, and what is planned of a finding; and moving objects aside, as several plans do."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.archive import Archive, utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Miscount
from hop_archive.errors import ForbiddenError, ObjectMissingError
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.findings import Kind
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, Slice
from hop_archive.read.contents import ObjectContents
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import Extent, NewObject, Store
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S

QUARANTINE = f"{OWN_FOLDER}quarantine/"
"""Under this prefix stands what was moved aside: damaged bytes, and what no row names. A person may delete it."""


class NotMendedError(Exception):
    """Why a finding stays as it is; a sentence for people. Not an error: it is told of the finding."""


class GoneError(Exception):
    """The finding is not there any more."""


class RepairPlan(NamedTuple):
    """What would mend a finding.

    Attributes:
        how: What is done, for people.
        do: Does it, and says what was done, or nothing where that is ``how``; may raise ``NotMendedError``.
    """

    how: str
    do: Callable[[], str | None]


@dataclass(slots=True)
class Upstream:
    """The source as mending asks it; ``archive`` is None where it is not to be asked.

    What a topic holds is asked once, and remembered for the topic asked last.
    """

    archive: Archive | None
    _topic: str = ""
    _seen: Survey | None = field(default=None)

    @property
    def is_asked(self) -> bool:
        """Whether there is a source to ask."""
        return self.archive is not None

    def held(self, where: Slice) -> OffsetSet:
        """The offsets of a slice that Kafka holds now; none where its topic is another generation by now, or gone.

        Raises:
            UnavailableError: The source does not answer.
        """
        if self.archive is None:
            return EMPTY
        if self._seen is None or self._topic != where.topic:
            seen = survey(self.archive, [where.topic])
            seen.refuse_unseen()  # what is not known is not gone
            self._topic, self._seen = where.topic, seen
        seen = self._seen
        if where.topic not in seen.infos or seen.recognitions[where.topic].is_new:
            return EMPTY
        known = seen.knowledge.get(where.partition_log)
        if known is None or known.watermarks.low >= known.watermarks.stable:
            return EMPTY
        return where.offsets & OffsetSet.between(known.watermarks.low, known.watermarks.stable)

    def readings(self, slices: Sequence[Slice]) -> Iterator[Reading]:
        """What Kafka delivers for slices that it holds; what went meanwhile is left out.

        Raises:
            UnavailableError: The source does not answer.
        """
        if self.archive is None or not slices:
            return
        with self.archive.source.reader({}) as reader:
            yield from read_slices(reader, slices, self.archive.limits, self.archive.monotonic)


@dataclass(frozen=True, slots=True)
class Repair:
    """What to mend, and what with.

    Attributes:
        topics: Findings of these topics only; None for all.
        kinds: Findings of these kinds only; None for all.
        stop: Asked between findings; what is left is for the next time.
        run_id: Noted in the ledger.
        backup_grace_s: How old an object has to be before its copy counts as missing in the backup.
        miscounts: The wrong counts of one topic, as they were when they were asked for.
    """

    catalog: Catalog
    store: Store
    backup: Store | None
    upstream: Upstream
    topics: Collection[str] | None = None
    kinds: Collection[Kind] | None = None
    now: Callable[[], datetime.datetime] = utc_now
    stop: Callable[[], bool] = field(default=lambda: False)
    run_id: str = "repair"
    backup_grace_s: float = BACKUP_GRACE_S
    miscounts: dict[str, Sequence[Miscount]] = field(default_factory=dict)


def whole(store: Store, key: str) -> bytes | None:
    """The bytes of an object; None where it is not there."""
    try:
        (body,) = store.fetch([Extent(key)])
    except ObjectMissingError:
        return None
    return body


def contents(store: Store, key: str) -> ObjectContents | None:
    """What an object holds; None where it is not there."""
    body = whole(store, key)
    return None if body is None else ObjectContents(key, body)


def quarantine(store: Store, key: str) -> str:
    """Move an object aside, byte for byte; says where it is now. Again, after a crash, it goes on.

    Raises:
        NotMendedError: The store's stanza does not allow deleting; nothing was done.
    """
    try:
        store.delete([])
    except ForbiddenError as error:
        raise NotMendedError(f"{key} stays where it is: the store does not allow deleting") from error
    body = whole(store, key)
    if body is None:
        return f"{key} is gone"
    ending = None if key.endswith((".bson", ".bson.zst")) else ""
    (kept,) = create_free(store, [NewObject(f"{QUARANTINE}{key}", body)], ending)
    store.delete([key])
    return f"{key} moved to {kept}"


def runs(offsets: Iterable[int]) -> OffsetSet:
    """Offsets as a set of ranges."""
    return OffsetSet.of((offset, offset + 1) for offset in offsets)


def topics_meant(catalog: Catalog, topics: Sequence[str]) -> Sequence[str] | None:
    """The topics that these names and globs mean, of those that the catalog has, be it but findings of them; None for all.

    Raises:
        ConfigurationError: One means none: of a misspelt one all would look well.
    """
    if not topics:
        return None
    told = {record.finding.topic for record in catalog.findings(open_only=False)}
    return Query(tuple(topics)).chosen_topics(told.union(catalog.known_topics()) - {""})
