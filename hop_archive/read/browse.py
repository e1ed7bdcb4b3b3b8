"""Reading an archive from Python: messages by topic, time and UUID, each checked as it comes.

``hop_archive.open`` makes an `OpenArchive`; services and notebooks need nothing else of this package.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypedDict, Unpack

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S, Catalog
from hop_archive.catalog.records import Row, TopicSummary
from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    MessageNotFoundError,
    ObjectMissingError,
    needing_extra,
)
from hop_archive.model.annotations import Annotations
from hop_archive.model.message import Header, Message
from hop_archive.model.query import Order, Query
from hop_archive.model.times import MOMENT_HELP, milliseconds, moment_of
from hop_archive.model.wording import counted
from hop_archive.read.check import check_message
from hop_archive.read.fetch import fetch_checked, fetch_in_portions, was_removed
from hop_archive.store.protocol import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Convertible(Protocol):
    """A Time of astropy's."""

    @property
    def utc(self) -> Any:
        """The same moment in the scale UTC, which has ``to_datetime``."""


Moment: TypeAlias = datetime.datetime | datetime.date | str | int | Convertible
"""A moment: a datetime, as pandas' Timestamp is one, or a date (without a zone: UTC); text as the commands take it, ISO 8601 or how
long ago, as in ``2d``; milliseconds since 1970; or a Time of astropy's."""


class Selection(TypedDict, total=False):
    """What may be said of the messages that are wanted, beside their topics; all that is said must hold.

    Attributes:
        since: Least timestamp.
        until: Timestamp that is too late.
        where: A condition in SQL on the columns of the catalog's messages; needs Postgres.
        uuids: Only these, or this; one that is not there brings nothing, and so does an empty sequence. None: any.
        senders: Only of these, or this; empty: any.
        media_types: Likewise.
        retracted: Whether messages that were taken back come, too.
        limit: Most to come.
        newest_first: Whether they come by timestamp, the greatest first, rather than by topic, generation, partition and offset.
        timeout_s: Longest that the database may look for the next rows.
    """

    since: Moment | None
    until: Moment | None
    where: str
    uuids: uuid.UUID | str | Sequence[uuid.UUID | str] | None
    senders: str | Sequence[str]
    media_types: str | Sequence[str]
    retracted: bool
    limit: int | None
    newest_first: bool
    timeout_s: float


@dataclass(frozen=True, slots=True, repr=False)
class Archived:
    """One archived message: what it was, and what the catalog says of it.

    Attributes:
        message: As Kafka delivered it, but for the ``caveats``.
        row: What the catalog says.
        caveats: In what it may not be just what Kafka carried, for people; empty for all that this archive stored itself, and
            for most that another archiver did (docs/adopting.md).
    """

    message: Message
    row: Row
    caveats: tuple[str, ...] = ()

    def __repr__(self) -> str:
        payload = "null" if self.value is None else counted(len(self.value), "byte")
        return (
            f"<Archived {self.uuid} of {self.topic!r}, timestamp {self.row.timestamp_ms}, payload {payload}>"
        )

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
        """Its timestamp, UTC; ``OverflowError`` where no calendar reaches it: see ``row.timestamp_ms``."""
        return self.row.timestamp

    def decode(self) -> Any:
        """What its payload says, by what the bytes are; see `hop_archive.read.payload.decode`."""
        from hop_archive.read.payload import decode

        return decode(self.value)


class OpenArchive:
    """An archive that is open for reading. A context manager; nothing is connected before something is asked.

    Messages are selected by topic (a name, or a glob such as ``gcn.*``, or several; empty: all) and by what `Selection`
    says, in the same way by each call. ``rows``, ``uuids``, ``count`` and tables ask the catalog alone, and fetch no object.
    """

    def __init__(
        self, catalog: Catalog, store: Store, *, now: Callable[[], datetime.datetime] = utc_now
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._now = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenArchive({self._catalog.name!r}, {self._store.name!r})"

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
        self._catalog.close()
        self._store.close()

    def topics(self) -> Sequence[TopicSummary]:
        """What there is: a summary a topic, sorted by name."""
        return self._catalog.summaries()

    def rows(self, topic: str | Sequence[str] = (), **selection: Unpack[Selection]) -> Iterator[Row]:
        """What the catalog says of the messages that are selected, in bounded memory.

        Raises:
            ConfigurationError: A topic means none, a moment or condition makes no sense, or takes too long.
            UnavailableError: The database does not answer.
        """
        query, order, timeout_s = self._asked(topic, **selection)
        return self._catalog.select(query, order, timeout_s=timeout_s)

    def uuids(self, topic: str | Sequence[str] = (), **selection: Unpack[Selection]) -> Iterator[uuid.UUID]:
        """The UUIDs of those; as ``rows``."""
        return (row.uuid for row in self.rows(topic, **selection))

    def count(self, topic: str | Sequence[str] = (), **selection: Unpack[Selection]) -> int:
        """How many those are; as ``rows``."""
        query, _, timeout_s = self._asked(topic, **selection)
        found = self._catalog.measure(query, timeout_s=timeout_s).messages
        return found if query.limit is None else min(found, query.limit)

    def messages(
        self,
        topic: str | Sequence[str] = (),
        *,
        skip_damaged: bool = False,
        **selection: Unpack[Selection],
    ) -> Iterator[Archived]:
        """The messages that are selected; each document is checked as it comes.

        Fetches ahead, and holds no more than that, however many there are. Close the iterator, or leave the archive's
        block, to stop early.

        Args:
            topic: Which topics.
            skip_damaged: Whether a message that is damaged or missing is passed over rather than raised.
            selection: Which of their messages.

        Raises:
            ConfigurationError: As for ``rows``.
            ObjectMissingError: An object is not there.
            CorruptError: A document is not the one that was archived.
            UnavailableError: The database or the store does not answer.
        """
        query, order, timeout_s = self._asked(topic, **selection)
        rows = self._catalog.select(query, order, timeout_s=timeout_s)
        return self._archived(rows, order, skip_damaged=skip_damaged)

    def message(self, message_uuid: uuid.UUID | str) -> Archived:
        """The message of a UUID, retracted or not.

        Raises:
            MessageNotFoundError: The archive has none of this UUID.
            ObjectMissingError, CorruptError, UnavailableError: As for ``messages``.
        """
        row = self._catalog.find(_uuid(message_uuid))
        if row is None:
            raise MessageNotFoundError(f"The archive has no message {message_uuid}.", uuid=str(message_uuid))
        return next(self._archived([row], Order.PLACE, skip_damaged=False))

    def to_arrow(
        self, topic: str | Sequence[str] = (), *, values: bool = False, **selection: Unpack[Selection]
    ) -> pa.Table:
        """The rows that are selected as a table of pyarrow's, with the columns of Parquet exports.

        All of it is in memory: some 300 bytes a row.

        Args:
            topic: Which topics.
            values: Whether there is a column ``value``, too, of payloads; these are fetched and checked as by ``messages``.
            selection: Which of their messages.

        Raises:
            ConfigurationError, ObjectMissingError, CorruptError, UnavailableError: As for ``messages``.
        """
        from hop_archive.read.parquet import ROWS, WITH_VALUES, cells_of, tables_of

        if values:
            found = self.messages(topic, **selection)
            return tables_of(((*cells_of(each.row), each.value) for each in found), WITH_VALUES)
        return tables_of(map(cells_of, self.rows(topic, **selection)), ROWS)

    def to_pandas(
        self, topic: str | Sequence[str] = (), *, values: bool = False, **selection: Unpack[Selection]
    ) -> pd.DataFrame:
        """``to_arrow`` as a data frame of pandas': times are ``datetime64[ms, UTC]``, whole numbers that may be missing ``Int64``.

        Raises:
            MissingSettingError: pandas is not installed.
            ConfigurationError, ObjectMissingError, CorruptError, UnavailableError: As for ``messages``.
        """
        with needing_extra("analysis"):
            import pandas as pd  # noqa: F401 (before anything is fetched)
        return self.to_arrow(topic, values=values, **selection).to_pandas()

    def _asked(
        self,
        topic: str | Sequence[str],
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        where: str = "",
        uuids: uuid.UUID | str | Sequence[uuid.UUID | str] | None = None,
        senders: str | Sequence[str] = (),
        media_types: str | Sequence[str] = (),
        retracted: bool = False,
        limit: int | None = None,
        newest_first: bool = False,
        timeout_s: float = SELECT_TIMEOUT_S,
    ) -> tuple[Query, Order, float]:
        query = Query(
            topics=_several(topic),
            since_ms=self._milliseconds(since),
            until_ms=self._milliseconds(until),
            senders=_several(senders),
            media_types=_several(media_types),
            uuids=None
            if uuids is None
            else tuple(map(_uuid, [uuids] if isinstance(uuids, uuid.UUID | str) else uuids)),
            retracted=None if retracted else False,
            condition=where,
            limit=limit,
        )
        return query, Order.NEWEST if newest_first else Order.PLACE, timeout_s

    def _milliseconds(self, moment: Moment | None) -> int | None:
        if moment is None:
            return None
        at: Any = None if isinstance(moment, bool) else moment
        if isinstance(at, Integral):  # numpy's, too
            return int(at)
        try:
            if isinstance(moment, str):
                at = moment_of(moment, self._now())
            elif not isinstance(moment, datetime.date):
                at = at.utc.to_datetime(timezone=datetime.UTC)
            elif not isinstance(moment, datetime.datetime):
                at = datetime.datetime.combine(moment, datetime.time())
            # int, because pandas' NaT is a datetime of which all is not a number.
            return int(milliseconds(at.replace(tzinfo=at.tzinfo or datetime.UTC)))
        except Exception:  # noqa: BLE001 (a leap second, an array, a scale without UTC: astropy has errors of its own)
            raise ConfigurationError(
                f"{moment!r} is no moment.",
                remedy=f"Give a datetime, milliseconds since 1970, or as text {MOMENT_HELP}.",
            ) from None

    def _archived(
        self, rows: Iterator[Row] | list[Row], order: Order, *, skip_damaged: bool
    ) -> Iterator[Archived]:
        fetch = fetch_in_portions if order is Order.NEWEST else fetch_checked
        for fetched in fetch(self._store, rows, check_message, self._catalog.find):
            row = fetched.row
            if not fetched.problems and fetched.document is not None:
                yield Archived(fetched.document.message, row, fetched.document.caveats)
            elif was_removed(fetched, self._catalog.find):
                continue
            elif not skip_damaged:
                message = f"Message {row.uuid} of {row.topic} is not stored as the catalog says: {'; '.join(fetched.problems)}."
                facts = {"uuid": str(row.uuid), "object_key": row.object_key, "bucket": row.bucket}
                is_missing = isinstance(fetched.error, ObjectMissingError)
                raise ObjectMissingError(message, **facts) if is_missing else CorruptError(message, **facts)


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _uuid(given: uuid.UUID | str) -> uuid.UUID:
    try:
        return given if isinstance(given, uuid.UUID) else uuid.UUID(given)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"{given!r} is not a UUID.", uuid=str(given)) from None
