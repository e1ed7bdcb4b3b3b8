"""The numbers of an archive at a moment, by one look at catalog and source; the same that `metrics` serves."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.catalog.records import TopicSummary
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.survey import survey
from hop_archive.model.wording import said
from hop_archive.upkeep.monitoring.lags import Marks, lag_s, marked
from hop_archive.upkeep.monitoring.problems import positions_of

log = logging.getLogger(__name__)

OTHERS = "(others)"
"""The label of what is beyond `MOST_TOPICS`, summed; Kafka takes no topic of that name."""
MOST_TOPICS = 1_000


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind a topic is.

    Attributes:
        messages: Offsets that wait.
        oldest_s: For how long the oldest of them has been seen to wait; None where that is not known: this was the first look.
    """

    messages: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one look found. What could not be asked has nothing here, and not what it said before.

    Attributes:
        at_s: When it was made (seconds since 1970), and how long it took, ``took_s``.
        database_error: Why the database could not be asked; '' where it could. Likewise ``source_error``.
        asked_source: Whether a source was asked at all.
        summaries: By topic; the last one, where there are too many, is of ``OTHERS``.
        lags: By topic; none of those of which something could not be looked at.
        findings: Open ones, by kind.
        offsets: Archived offsets; ``never`` are those of them that were never read again and compared.
        oldest_check_s: When the check was that is longest ago; None without any.
        marks: For the next look.
    """

    at_s: float
    took_s: float = 0.0
    database_error: str = ""
    source_error: str = ""
    asked_source: bool = True
    summaries: Mapping[str, TopicSummary] = field(default_factory=dict)
    lags: Mapping[str, Lag] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    topics: int = 0
    offsets: int = 0
    never: int = 0
    oldest_check_s: float | None = None
    marks: Marks = field(default_factory=dict)


def count(
    archive: Archive, marks: Marks, *, unasked: bool = False, has_looked: bool = True, most: int = MOST_TOPICS
) -> Numbers:
    """Look at catalog and source; raises nothing where one does not answer.

    Args:
        archive: What to look at.
        marks: Of the look before.
        unasked: Whether the source is left alone.
        has_looked: Whether there was a look before: else it is not known for how long messages wait.
        most: How many topics have numbers of their own.
    """
    began, at_s = time.monotonic(), archive.now().timestamp()
    try:
        archive.catalog.check()
        summaries = {summary.topic: summary for summary in archive.catalog.summaries()}
        findings = Counter[str]()
        for opened in archive.catalog.open_findings():
            findings[opened.kind.value] += opened.number
        shares = archive.catalog.verified_shares()
    except HopArchiveError as error:
        return Numbers(at_s, time.monotonic() - began, str(error), asked_source=False, marks=marks)
    lags: dict[str, Lag] = {}
    source_error = ""
    if not unasked:
        try:
            positions = positions_of(survey(archive))
        except HopArchiveError as error:
            source_error = str(error)
        else:
            marks = marked(marks, positions, at_s)
            for topic, places in positions.items():
                waiting = sum(at.waiting for at in places.values())
                known = has_looked or not waiting
                lags[topic] = Lag(waiting, lag_s(marks, topic, at_s) if known else None)
    names = sorted({*summaries, *lags})
    summaries, lags = _bounded(summaries, lags, names[most:])
    return Numbers(
        at_s,
        time.monotonic() - began,
        source_error=source_error,
        asked_source=not unasked,
        summaries=summaries,
        lags=lags,
        findings=findings,
        topics=len(names),
        offsets=sum(share.offsets for share in shares),
        never=sum(share.never for share in shares),
        oldest_check_s=min((share.oldest.timestamp() for share in shares if share.oldest), default=None),
        marks=marks,
    )


def _bounded(
    summaries: dict[str, TopicSummary], lags: dict[str, Lag], beyond: list[str]
) -> tuple[dict[str, TopicSummary], dict[str, Lag]]:
    """The same, where all topics that are ``beyond`` are one: counts are summed, of times the worst is told."""
    if not beyond:
        return summaries, lags
    rest = [summaries.pop(name) for name in beyond if name in summaries]
    behind = [lags.pop(name) for name in beyond if name in lags]
    summaries[OTHERS] = TopicSummary(
        OTHERS,
        messages=sum(s.messages for s in rest),
        duplicates=sum(s.duplicates for s in rest),
        lost=sum(s.lost for s in rest),
        size_bytes=sum(s.size_bytes for s in rest),
        last_batch_at=max((s.last_batch_at for s in rest if s.last_batch_at), default=None),
    )
    if behind:
        waits = [lag.oldest_s for lag in behind if lag.oldest_s is not None]
        lags[OTHERS] = Lag(sum(lag.messages for lag in behind), max(waits, default=None))
    return summaries, lags


class Looking:
    """Counts again and again in a thread of its own, so that whoever asks is answered at once, and never with what is old.

    Used as a context.
    """

    def __init__(self, look: Callable[[Marks, bool], Numbers], every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._latest: Numbers | None = None
        self._seen_at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="metrics", daemon=True)

    def __enter__(self) -> Looking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=15.0)

    def numbers(self) -> Numbers | None:
        """The latest, None where there are none yet, or the look has been hanging for long: what it saw before is old."""
        if self._latest is None or time.monotonic() - self._seen_at > max(60.0, 4 * self._every_s):
            return None
        return self._latest

    def _go_on(self) -> None:
        marks: Marks = {}
        pause_s, has_looked = 0.0, False
        while not self._over.wait(pause_s):
            try:
                self._latest = self._look(marks, has_looked)
            except Exception as error:  # noqa: BLE001 - else there would be no look any more, and nobody would know why
                log.warning("A look failed, and is made again: %s: %s", type(error).__name__, said(error))
                self._latest, pause_s = None, self._every_s
                continue
            self._seen_at = time.monotonic()
            marks, has_looked = self._latest.marks, True
            # Where there is much to look at, looking takes a tenth of the time at most.
            pause_s = max(self._every_s, 10 * self._latest.took_s)
