"""The archive as one value: where messages come from, where they go, and by which rules."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hop_archive.catalog.protocol import Catalog
from hop_archive.model.limits import Limits
from hop_archive.model.topics import LayoutPolicy, TopicPolicy
from hop_archive.source.protocol import Source
from hop_archive.store.protocol import Store


def utc_now() -> datetime.datetime:
    """The time, UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class Archive:
    """What every use case takes.

    Attributes:
        source: Where messages come from.
        catalog: Where rows go.
        store: Where objects go.
        topics: Which topics are archived, private, tests.
        layouts: Which layout a topic's objects have.
        text_topics: Names and globs of the topics whose messages are to be found by text.
        limits: How much is held at once.
        run_id: Noted in the ledger, for people; '' where there is no run.
        now: The clock on the wall.
        monotonic: A clock that never goes back, in seconds.
    """

    source: Source
    catalog: Catalog
    store: Store
    topics: TopicPolicy = field(default_factory=TopicPolicy)
    layouts: LayoutPolicy = field(default_factory=LayoutPolicy)
    text_topics: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    run_id: str = ""
    now: Callable[[], datetime.datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic

    def close(self) -> None:
        """Let go of every connection."""
        for part in (self.source, self.catalog, self.store):
            part.close()
