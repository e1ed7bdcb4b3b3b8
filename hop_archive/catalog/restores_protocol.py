"""What a catalog knows of restores: which there were, which may run, and how much a selection is."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog


class Measure(NamedTuple):
    """How much a selection is.

    Attributes:
        messages: How many messages.
        size_bytes: Bytes of their documents.
        largest_bytes: Bytes of the largest document; 0 where there is none.
        first_timestamp_ms: Least timestamp above 0; None where there is none.
        last_timestamp_ms: Greatest timestamp above 0.
        at_zero: How many have the timestamp 0, which no librdkafka client can send.
        by_append: How many have a timestamp that the broker gave.
    """

    messages: int = 0
    size_bytes: int = 0
    largest_bytes: int = 0
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None
    at_zero: int = 0
    by_append: int = 0


def total(measures: Iterable[Measure]) -> Measure:
    """The measure of several selections together."""
    found = list(measures)
    firsts = [one.first_timestamp_ms for one in found if one.first_timestamp_ms is not None]
    lasts = [one.last_timestamp_ms for one in found if one.last_timestamp_ms is not None]
    return Measure(
        sum(one.messages for one in found),
        sum(one.size_bytes for one in found),
        max((one.largest_bytes for one in found), default=0),
        min(firsts, default=None),
        max(lasts, default=None),
        sum(one.at_zero for one in found),
        sum(one.by_append for one in found),
    )


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore, as the catalog has it.

    Attributes:
        number: Its number.
        fingerprint: Of what was asked for: the same request finds it, and goes on.
        target: Where to: cluster id and topics, for people.
        request: What was asked for, JSON-able; moments resolved as they were when it began.
        progress: What going on needs to know, JSON-able.
        outcome: ``running`` (also where the process died), ``done``, ``failed`` or ``abandoned``.
        report: What came of it; empty while it runs.
        started_at: When it began (UTC).
        updated_at: When its progress was last noted.
    """

    number: int
    fingerprint: str
    target: str
    request: Mapping[str, Any]
    progress: Mapping[str, Any]
    outcome: str
    report: Mapping[str, Any]
    started_at: datetime.datetime
    updated_at: datetime.datetime


class RestoreCatalog(Protocol):
    """The part of a catalog that restoring needs."""

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold a name for the length of a block: nobody else who asks for it gets it meanwhile.

        Let go of when the process dies, however it does.

        Raises:
            ConflictError: Somebody else holds it.
        """

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        """The logs of which ``topic`` has rows, whatever the ledger says, in order."""

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """How much ``query`` means; its limit is not heeded.

        Raises:
            ConfigurationError: As for ``Catalog.select``.
        """

    def begin_restore(self, fingerprint: str, target: str, request: Mapping[str, Any]) -> Restore:
        """The running restore of this fingerprint, or a new one."""

    def note_restore(
        self,
        number: int,
        *,
        progress: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what is known by now of a restore; None leaves a part as it is.

        Args:
            number: Which.
            progress: By name; what has the name of something that is there takes its place, the rest stays.
            outcome: What came of it.
            report: All that there is to tell.
        """

    def restores(
        self, *, fingerprint: str = "", running_only: bool = False, limit: int = 100
    ) -> Sequence[Restore]:
        """The latest restores, newest first: all, or those of one fingerprint."""
