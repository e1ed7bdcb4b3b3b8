"""Reading an archive from Python: messages by topic, time and UUID, each checked as it comes.

``hop_archive.open`` makes an `OpenArchive`; services and notebooks need nothing else of this package.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from hop_archive.catalog.protocol import SELECT_TIMEOUT_S, Catalog
from hop_archive.catalog.records import Row, TopicSummary
from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    DataError,
    MissingSettingError,
    ObjectMissingError,
)
from hop_archive.model.annotations import Annotations
from hop_archive.model.message import Header, Message
from hop_archive.model.query import Order, Query
from hop_archive.model.times import milliseconds
from hop_archive.read.fetch import Fetched, fetch_documents
from hop_archive.store.protocol import Store

Moment: TypeAlias = datetime.datetime | str | int
"""A moment: a datetime (without a zone: UTC), ISO 8601 text, or milliseconds since 1970."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Archived:
    """One archived message: what it was, and what the catalog says of it.

    Attributes:
        message: The message as Kafka delivered it.
        row: Its catalog row.
    """

    message: Message
    row: Row

    @property
    def uuid(self) -> uuid.UUID:
        """The UUID that it is archived under."""
        return self.row.uuid

    @property
    def topic(self) -> str:
        """Its topic."""
        return self.row.topic

    @property
    def key(self) -> bytes | None:
        """Its key; None where it had none."""
        return self.message.key

    @property
    def value(self) -> bytes | None:
        """Its payload; None where that was null."""
        return self.message.value

    @property
    def headers(self) -> tuple[Header, ...]:
        """Its headers as sent: pairs, in order; names repeat."""
        return self.message.headers

    @property
    def annotations(self) -> Annotations:
        """Media type, sender, title and the like."""
        return self.row.annotations

    @property
    def timestamp(self) -> datetime.datetime:
        """Its timestamp, UTC.

        Raises:
            OverflowError: It is outside of the years 1 to 9999, which Kafka allows: see ``message.timestamp_ms``.
        """
        return _EPOCH + datetime.timedelta(milliseconds=self.row.timestamp_ms)


class OpenArchive:
    """An archive that is open for reading. A context manager; nothing is connected before something is asked.

    Args:
        catalog: Where rows are.
        store: Where documents are.
    """

    def __init__(self, catalog: Catalog, store: Store) -> None:
        self._catalog = catalog
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenArchive({self._catalog.name!r}, {self._store.name!r})"

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
        self._catalog.close()
        self._store.close()

    def topics(self) -> Sequence[TopicSummary]:
        """What there is: a summary a topic, sorted by name.

        Raises:
            UnavailableError: The database does not answer.
        """
        return self._catalog.summaries()

    def messages(
        self,
        topic: str | Sequence[str] = (),
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        where: str = "",
        uuids: Sequence[uuid.UUID | str] | None = None,
        senders: Sequence[str] = (),
        media_types: Sequence[str] = (),
        retracted: bool = False,
        limit: int | None = None,
        skip_damaged: bool = False,
        timeout_s: float = SELECT_TIMEOUT_S,
    ) -> Iterator[Archived]:
        """The messages that meet all that is said, in order of place; each document is checked as it comes.

        Fetches ahead, and holds no more than that, however many there are. Close the iterator, or leave the archive's
        block, to stop early.

        Args:
            topic: Name, or glob such as ``gcn.*``, or several; empty: all.
            since: Least timestamp.
            until: Timestamp that is too late.
            where: A condition in SQL on the columns of the catalog's messages; needs Postgres.
            uuids: Only these; one that is not there brings nothing.
            senders: Only of these.
            media_types: Only of these.
            retracted: Whether messages that were taken back come, too.
            limit: Most to come.
            skip_damaged: Whether a message that is damaged or missing is passed over rather than raised.
            timeout_s: Longest that the database may look for the next rows.

        Raises:
            ConfigurationError: A topic means none, a moment or condition makes no sense, or takes too long.
            ObjectMissingError: An object is not there.
            CorruptError: A document is not the one that was archived.
            UnavailableError: The database or the store does not answer.
        """
        query = Query(
            topics=(topic,) if isinstance(topic, str) else tuple(topic),
            since_ms=_milliseconds(since),
            until_ms=_milliseconds(until),
            senders=tuple(senders),
            media_types=tuple(media_types),
            uuids=None if uuids is None else tuple(map(_uuid, uuids)),
            retracted=None if retracted else False,
            condition=where,
            limit=limit,
        )
        rows = self._catalog.select(query, Order.PLACE, timeout_s=timeout_s)
        for fetched in fetch_documents(self._store, rows):
            if (fault := _fault(fetched)) is None:
                assert fetched.document is not None
                yield Archived(fetched.document.message, fetched.row)
            elif not skip_damaged:
                raise fault

    def message(self, message_uuid: uuid.UUID | str) -> Archived:
        """The message of a UUID, retracted or not.

        Raises:
            MissingSettingError: The archive has none of this UUID.
            ObjectMissingError, CorruptError, UnavailableError: As for ``messages``.
        """
        row = self._catalog.find(_uuid(message_uuid))
        if row is None:
            raise MissingSettingError(f"The archive has no message {message_uuid}.", uuid=str(message_uuid))
        (fetched,) = fetch_documents(self._store, [row])
        if (fault := _fault(fetched)) is not None:
            raise fault
        assert fetched.document is not None
        return Archived(fetched.document.message, row)


def _fault(fetched: Fetched) -> DataError | None:
    row = fetched.row
    if not fetched.problems:
        return None
    message = (
        f"Message {row.uuid} of {row.topic} is not stored as the catalog says: {'; '.join(fetched.problems)}."
    )
    facts = {"uuid": str(row.uuid), "object_key": row.object_key, "bucket": row.bucket}
    is_missing = isinstance(fetched.error, ObjectMissingError)
    return ObjectMissingError(message, **facts) if is_missing else CorruptError(message, **facts)


def _uuid(given: uuid.UUID | str) -> uuid.UUID:
    try:
        return given if isinstance(given, uuid.UUID) else uuid.UUID(given)
    except ValueError:
        raise ConfigurationError(f"{given!r} is not a UUID.", uuid=str(given)) from None


def _milliseconds(moment: Moment | None) -> int | None:
    if moment is None or isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError:
            raise ConfigurationError(
                f"{moment!r} is no moment.", remedy="Write it as 2026-11-24 or 2026-11-24T20:00:00Z."
            ) from None
    return milliseconds(moment.replace(tzinfo=moment.tzinfo or datetime.UTC))
