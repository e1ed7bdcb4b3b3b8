"""``hop_archive.open``: what a service or a notebook sees of an archive."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import hop_archive
from hop_archive.catalog.records import COLUMNS, Row
from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    MessageNotFoundError,
    MissingSettingError,
    ObjectMissingError,
)
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import TopicPartition
from hop_archive.read import fetch
from hop_archive.read.browse import OpenArchive
from hop_archive.store.coalesce import Span, spans
from hop_archive.store.protocol import Extent
from hop_archive_tests.cli_helpers import mocks, place
from hop_archive_tests.cold_store import removed_while_read
from hop_archive_tests.invariants import committed
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, adopted_row, awkward_world, exhausted

__all__ = ["place"]


@pytest.fixture(params=["message", "segment", "zstd"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(
        "hop_archive.model.frames.FRAME_BYTES", 1
    )  # so what damages one document damages no other
    made = awkward_world(request.param)
    exhausted(catch_up(made.archive(), overlap=0))
    return made


@pytest.fixture
def archive(world: World) -> OpenArchive:
    a_day_after = datetime.datetime.fromtimestamp(NOW_MS / 1000 + 86_400, datetime.UTC)
    return OpenArchive(world.catalog, world.store, now=lambda: a_day_after)


def test_messages_are_as_kafka_delivered_them_in_order_of_place(world: World, archive: OpenArchive) -> None:
    sent = [
        message for number in (0, 1) for message in committed(world.cluster, TopicPartition(BUSY, number))
    ]
    archived = {(row.partition, row.offset) for row in world.catalog.rows(BUSY)}
    wanted = [message for message in sent if (message.partition, message.offset) in archived]
    assert [found.message for found in archive.messages(BUSY)] == wanted
    assert {found.topic for found in archive.messages()} == {BUSY, QUIET}
    (first, *_) = archive.messages(QUIET)
    assert (first.key, first.value) == (b"tombstone", None)
    assert first.headers == ()
    assert first.timestamp == datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)


class ScaleError(Exception):
    """As astropy's: of no class that others have, too."""


class Astropys:
    """What a Time of astropy's does: of UTC alone it makes a datetime with a zone, where there is such a moment."""

    def __init__(self, text: str, scale: str = "tt") -> None:
        self.text = text
        self.scale = scale

    @property
    def utc(self) -> Astropys:
        if self.scale == "local":
            raise ScaleError(self.scale)
        return Astropys(self.text, "utc")

    def to_datetime(self, timezone: datetime.tzinfo) -> datetime.datetime:
        if self.scale != "utc":
            raise ScaleError(self.scale)
        return datetime.datetime.fromisoformat(self.text).replace(tzinfo=timezone)


@pytest.mark.parametrize(
    "moment",
    [
        NOW_MS,
        "1d",
        " 1d ",
        pd.Timestamp("2023-11-14T23:13:20+01:00"),
        pd.Timestamp("2023-11-14T22:13:20"),
        pd.Series([NOW_MS])[0],
        Astropys("2023-11-14T22:13:20"),
        datetime.datetime.fromtimestamp(NOW_MS // 1000, datetime.UTC),
        datetime.datetime.fromtimestamp(NOW_MS // 1000, datetime.UTC).replace(tzinfo=None),
        "2023-11-14T22:13:20Z",
        "2023-11-14T23:13:20+01:00",
    ],
)
def test_moments_are_said_in_any_of_the_usual_ways(archive: OpenArchive, moment: Any) -> None:
    assert len(list(archive.messages(QUIET, since=moment))) == len(list(archive.messages(QUIET)))
    assert list(archive.messages(QUIET, until=moment)) == []


def test_a_date_is_its_first_moment_in_utc(archive: OpenArchive) -> None:
    day = datetime.date(2023, 11, 14)
    assert archive.count(since=day) == archive.count(since=str(day)) == archive.count()
    assert archive.count(since=day + datetime.timedelta(days=1)) == archive.count(until=day) == 0


@pytest.mark.parametrize(
    "moment",
    [
        "yesterday",
        "2d ago",
        "",
        "9999999w",
        True,
        1.5,
        pd.NaT,
        Astropys("2016-12-31T23:59:60"),
        Astropys("2026-11-01", "local"),
        [1],
        b"1d",
    ],
)
def test_what_is_no_moment_is_an_error_that_says_what_would_be(archive: OpenArchive, moment: Any) -> None:
    for ask in (archive.messages, archive.rows, archive.count, archive.to_arrow):
        with pytest.raises(ConfigurationError, match=r"is no moment.*how long ago: 90s, 15m"):
            ask(since=moment)


def test_topics_may_be_several_or_a_glob_and_uuids_text(world: World, archive: OpenArchive) -> None:
    every = list(archive.messages("alerts.*"))
    assert list(archive.messages([BUSY, QUIET])) == every
    own = every[5].uuid
    for uuids in ([str(own)], str(own), own):
        assert list(archive.messages(uuids=uuids)) == [every[5]]
    assert archive.message(own) == archive.message(str(own)) == every[5]
    assert list(archive.messages(uuids=[])) == []
    assert len(list(archive.messages(limit=3))) == 3
    assert {one.topic: one.messages for one in archive.topics()} == {
        topic: len(list(archive.messages(topic))) for topic in (BUSY, QUIET)
    }


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"topic": BUSY, "limit": 5},
    {"topic": "alerts.q*"},
    {"since": NOW_MS + 1},
    {"media_types": "text/plain"},
    {"senders": ["nobody"]},
    {"newest_first": True, "limit": 3},
    {"retracted": True},
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_rows_uuids_counts_and_tables_are_of_the_messages_selected_and_fetch_no_object(
    world: World, archive: OpenArchive, monkeypatch: pytest.MonkeyPatch, selection: dict[str, Any]
) -> None:
    wanted = [found.row for found in archive.messages(**selection)]
    monkeypatch.setattr(world.store, "fetch", lambda _: pytest.fail("an object was fetched"))
    assert list(archive.rows(**selection)) == wanted
    assert list(archive.uuids(**selection)) == [row.uuid for row in wanted]
    assert archive.count(**selection) == len(wanted)
    table = archive.to_arrow(**selection)
    assert [Row.of_cells([row[name] for name in COLUMNS]) for row in table.to_pylist()] == wanted
    assert list(archive.to_pandas(**selection)["uuid"]) == [row.uuid for row in wanted]


def test_a_table_has_times_whole_numbers_and_uuids_as_such(world: World, archive: OpenArchive) -> None:
    world.catalog.adopt([adopted_row(QUIET)._replace(timestamp_ms=timestamp) for timestamp in [2**60]])
    table = archive.to_arrow()
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["time"], kinds["timestamp"], kinds["offset"]) == (
        "timestamp[ms, tz=UTC]",
        "int64",
        "int64",
    )
    assert table.schema.field("uuid").type == pa.uuid()
    times = table.column("time").to_pylist()
    assert times == [None if row.timestamp_ms == 2**60 else row.timestamp for row in archive.rows()]
    assert times.count(None) == 1
    frame = archive.to_pandas()
    assert frame.dtypes[["generation", "partition", "offset"]].astype(str).to_list() == [
        "Int32",
        "Int32",
        "Int64",
    ]
    assert str(frame["time"].dtype) == "datetime64[ms, UTC]"
    assert frame["offset"].isna().sum() == frame["time"].isna().sum() == 1
    assert frame["offset"].max() == max(row.offset or 0 for row in archive.rows())


def test_a_table_has_payloads_where_they_are_asked_for(archive: OpenArchive) -> None:
    wanted = [found.value for found in archive.messages()]
    assert archive.to_arrow(values=True).column("value").to_pylist() == wanted
    assert archive.to_arrow(values=True, limit=0).num_rows == 0
    assert [
        None if value is None else bytes(value) for value in archive.to_pandas(values=True)["value"]
    ] == wanted


def test_the_newest_come_first_whatever_their_place_and_as_they_are_elsewhere(
    world: World, archive: OpenArchive
) -> None:
    for number in (3, 1, 2):
        world.cluster.append(QUIET, b"%d" % number, timestamp_ms=NOW_MS + 60_000 + number)
    world.cluster.append(BUSY, b"newest", timestamp_ms=NOW_MS + 90_000)
    exhausted(catch_up(world.archive(), overlap=0))
    found = list(archive.messages(newest_first=True))
    assert [message.value for message in found[:4]] == [b"newest", b"3", b"2", b"1"]
    times = [message.row.timestamp_ms for message in found]
    assert times == sorted(times, reverse=True)
    assert {message.uuid: message for message in found} == {m.uuid: m for m in archive.messages()}
    assert [message.value for message in archive.messages(QUIET, newest_first=True, limit=1)] == [b"3"]


def test_newest_first_asks_for_neighbours_at_once_and_holds_little(
    world: World, archive: OpenArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_PORTION_ROWS", 10)
    every = [message.uuid for message in archive.messages(newest_first=True)]
    asked: list[list[Span]] = []
    real = world.store.fetch

    def noting(extents: Iterable[Extent]) -> Iterator[bytes]:
        some = [*extents]
        asked.append([*spans(some)])
        return real(iter(some))

    monkeypatch.setattr(world.store, "fetch", noting)
    assert [message.uuid for message in archive.messages(newest_first=True)] == every
    assert len(asked) == -(-len(every) // 10)
    if world.layout != "message":
        assert all(len({span.key for span in some}) == len(some) for some in asked)
    asked.clear()
    monkeypatch.setattr(fetch, "_PORTION_BYTES", 1)
    assert [message.uuid for message in archive.messages(newest_first=True)] == every
    assert len(asked) == len(every), "one that is larger comes alone"


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_message_that_is_removed_while_all_are_read_is_passed_by(newest_first: bool) -> None:
    world = awkward_world("message")
    exhausted(catch_up(world.archive(), overlap=0))
    rows = list(world.catalog.rows(QUIET))
    removed_while_read(world, rows[1])
    seen = [
        message.uuid
        for message in OpenArchive(world.catalog, world.store).messages(QUIET, newest_first=newest_first)
    ]
    assert {*seen} == {row.uuid for row in rows} - {rows[1].uuid}


def test_a_message_that_is_not_there_has_an_error_of_its_own(archive: OpenArchive) -> None:
    with pytest.raises(MessageNotFoundError) as caught:
        archive.message(str(uuid.UUID(int=404)))
    assert caught.value.facts == {"uuid": str(uuid.UUID(int=404))}


def test_no_payload_is_printed(world: World) -> None:
    world.cluster.append(QUIET, b"payload " * 1000, key=b"k")
    exhausted(catch_up(world.archive(), overlap=0))
    with OpenArchive(world.catalog, world.store) as archive:
        (*_, last) = archive.messages(QUIET)
    assert "payload p" not in f"{last!r} {last.message!r} {[last]}"
    assert repr(last) == f"<Archived {last.uuid} of {QUIET!r}, timestamp {NOW_MS}, payload 8,000 bytes>"


def test_a_payload_is_decoded_as_inspect_shows_it(world: World) -> None:
    world.cluster.append(QUIET, b'{"ra": 1.5}')
    exhausted(catch_up(world.archive(), overlap=0))
    with OpenArchive(world.catalog, world.store) as archive:
        (first, *_, last) = archive.messages(QUIET)
    assert (first.decode(), last.decode()) == (None, {"ra": 1.5})


def test_what_was_taken_back_comes_only_when_asked_for(world: World, archive: OpenArchive) -> None:
    (first, *rest) = archive.messages(QUIET)
    with world.catalog._state.change() as tables:
        tables.rows[first.uuid] = first.row._replace(retracted=True)
    assert [found.uuid for found in archive.messages(QUIET)] == [found.uuid for found in rest]
    assert next(archive.messages(QUIET, retracted=True)).uuid == first.uuid
    assert archive.message(first.uuid).row.retracted


def damage(world: World, row: Row) -> None:
    body = bytearray(world.store._shelf.get(row.object_key) or b"")
    if row.frame is None:
        body[(row.position or 0) + row.size_bytes - 2] ^= 1
    else:
        body[row.frame + (row.frame_size or 0) - 1] ^= 1
    world.store._shelf.remove(row.object_key)
    world.store._shelf.add(row.object_key, bytes(body))


def test_a_damaged_message_is_raised_or_passed_over(world: World, archive: OpenArchive) -> None:
    victim = list(world.catalog.rows(BUSY))[2]
    every = [found.uuid for found in archive.messages(BUSY)]
    damage(world, victim)
    with pytest.raises(CorruptError, match=str(victim.uuid)):
        list(archive.messages(BUSY))
    with pytest.raises(CorruptError, match=str(victim.uuid)):
        archive.message(victim.uuid)
    assert [f.uuid for f in archive.messages(BUSY, skip_damaged=True)] == [
        u for u in every if u != victim.uuid
    ]
    world.store._shelf.remove(victim.object_key)
    with pytest.raises(ObjectMissingError):
        archive.message(victim.uuid)


def test_bad_questions_get_an_error_of_ours(archive: OpenArchive) -> None:
    for ask in (
        lambda: list(archive.messages("no.such.topic")),
        lambda: list(archive.messages(since="yesterday")),
        lambda: list(archive.messages(where="true")),
        lambda: archive.message("no uuid"),
        lambda: archive.message("00000000-0000-0000-0000-000000000000"),
    ):
        with pytest.raises(ConfigurationError):
            ask()
    with pytest.raises(MissingSettingError):
        hop_archive.open("no-such-database", "mock-store")


def test_stopping_early_and_closing_twice_are_harmless(archive: OpenArchive) -> None:
    with archive as opened:
        assert len(list(islice(opened.messages(), 2))) == 2
        assert "mock-db" in repr(opened)
    archive.close()


def test_open_takes_stanzas_as_the_commands_do(place: Path) -> None:
    mocks(place, samples=30, archived=True)
    with hop_archive.open("m", "m", toml=place / "hop_archive.toml") as archive:
        assert len(list(archive.messages())) == sum(one.messages for one in archive.topics()) > 20
    with pytest.raises(MissingSettingError, match="No store is named"):
        hop_archive.open("m")
