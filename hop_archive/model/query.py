"""What is selected of the catalog: one value for every command that works on some of the messages. Pure."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from hop_archive.errors import ConfigurationError
from hop_archive.model.slices import Slice
from hop_archive.model.topics import matches, refuse_illegal, without_meaning


class Order(enum.Enum):
    """In which order selected rows come.

    ``PLACE``: topic by topic (in byte order of their names), and in each by generation, partition and offset; adopted
    rows, which have none, stand last in their topic, by timestamp. ``ID``: as they came into the catalog. ``NEWEST``: by
    timestamp, the greatest first; of one timestamp the last that came.
    """

    PLACE = "place"
    ID = "id"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages: those that meet everything that is said. Saying nothing means all.

    Attributes:
        topics: Names or globs, any of which; empty: all topics. Any name that the catalog has is one, legal in Kafka or not.
        since_ms: Least timestamp; None: no bound. Any int64, as in Kafka.
        until_ms: Timestamp that is too late, itself not selected; None: no bound.
        senders: Senders as annotated, any of which, in full; empty: all.
        media_types: Media types as annotated, any of which, in full; empty: all.
        uuids: UUIDs, any of which; one that is not in the catalog selects nothing. None: all; empty: none at all.
        places: Disjoint slices, any of which, in order of place whatever order is asked for; adopted rows, which have
            no place, are then not selected. Empty: all.
        adopted: Only rows that another archiver wrote, which have no place, or only those that have one; None: both.
        retracted: Only messages that were taken back, or only those that were not; None: both.
        condition: A condition in SQL on the columns of ``messages``; '' for none. Only Postgres knows SQL.
        limit: Most rows to come, the first ones of the order; None: no bound.

    Raises:
        ConfigurationError: A bound makes no sense, or a text can stand in no database.
    """

    topics: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    senders: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ()
    uuids: tuple[uuid.UUID, ...] | None = None
    places: tuple[Slice, ...] = ()
    adopted: bool | None = None
    retracted: bool | None = None
    condition: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        for text in (*self.topics, *self.senders, *self.media_types, self.condition):
            # Arguments that are no UTF-8 reach a program as lone surrogates.
            if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
                raise ConfigurationError(f"Wanted text in UTF-8 without NUL, found {text!r}.")
        if self.limit is not None and self.limit < 0:
            raise ConfigurationError(f"Wanted a limit of 0 or more, found {self.limit}.", limit=self.limit)
        if self.since_ms is not None and self.until_ms is not None and self.since_ms > self.until_ms:
            raise ConfigurationError(
                "The time range ends before it begins.", since_ms=self.since_ms, until_ms=self.until_ms
            )

    def means(self, topic: str) -> bool:
        """Tell whether messages of this topic may be among the selected."""
        return not self.topics or matches(topic, self.topics)

    def meaningless(self, known: Iterable[str]) -> list[str]:
        """The names and globs that mean none of these topics."""
        return without_meaning(self.topics, known)

    def chosen_topics(self, known: Iterable[str]) -> Sequence[str]:
        """The topics to look in, sorted: those of ``known`` that are meant.

        Raises:
            ConfigurationError: A name or glob means none of them: most likely it is misspelt, and what was to be
                verified or restored would silently be nothing.
        """
        names = sorted(known)
        for pattern in self.meaningless(names):
            refuse_illegal([pattern])
            near = get_close_matches(pattern, names, n=1)
            raise ConfigurationError(
                f"The catalog has no messages of a topic {pattern}.",
                remedy=f"Did you mean {near[0]}?"
                if near
                else "See hop-archive status for the topics that it has.",
                topic=pattern,
            )
        return [name for name in names if self.means(name)]
