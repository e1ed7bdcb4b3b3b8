"""``hop_archive.open``: what a service or a notebook sees of an archive."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import hop_archive
from hop_archive.catalog.records import Row
from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    MissingSettingError,
    ObjectMissingError,
)
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import TopicPartition
from hop_archive.read.browse import OpenArchive
from hop_archive_tests.cli_helpers import M, invoke, mocks, place
from hop_archive_tests.invariants import committed
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, awkward_world, exhausted

__all__ = ["place"]


@pytest.fixture(params=["message", "segment"])
def world(request: pytest.FixtureRequest) -> World:
    made = awkward_world(request.param)
    exhausted(catch_up(made.archive(), overlap=0))
    return made


@pytest.fixture
def archive(world: World) -> OpenArchive:
    return OpenArchive(world.catalog, world.store)


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


@pytest.mark.parametrize(
    "moment",
    [
        NOW_MS,
        datetime.datetime.fromtimestamp(NOW_MS // 1000, datetime.UTC),
        datetime.datetime.fromtimestamp(NOW_MS // 1000, datetime.UTC).replace(tzinfo=None),
        "2023-11-14T22:13:20Z",
        "2023-11-14T23:13:20+01:00",
    ],
)
def test_moments_are_said_in_any_of_the_usual_ways(archive: OpenArchive, moment: Any) -> None:
    assert len(list(archive.messages(QUIET, since=moment))) == len(list(archive.messages(QUIET)))
    assert list(archive.messages(QUIET, until=moment)) == []


def test_topics_may_be_several_or_a_glob_and_uuids_text(world: World, archive: OpenArchive) -> None:
    every = list(archive.messages("alerts.*"))
    assert list(archive.messages([BUSY, QUIET])) == every
    own = every[5].uuid
    assert list(archive.messages(uuids=[str(own)])) == [every[5]]
    assert archive.message(own) == archive.message(str(own)) == every[5]
    assert list(archive.messages(uuids=[])) == []
    assert len(list(archive.messages(limit=3))) == 3
    assert {one.topic: one.messages for one in archive.topics()} == {
        topic: len(list(archive.messages(topic))) for topic in (BUSY, QUIET)
    }


def test_what_was_taken_back_comes_only_when_asked_for(world: World, archive: OpenArchive) -> None:
    (first, *rest) = archive.messages(QUIET)
    with world.catalog._state.change() as tables:
        tables.rows[first.uuid] = first.row._replace(retracted=True)
    assert [found.uuid for found in archive.messages(QUIET)] == [found.uuid for found in rest]
    assert next(archive.messages(QUIET, retracted=True)).uuid == first.uuid
    assert archive.message(first.uuid).row.retracted


def damage(world: World, row: Row) -> None:
    body = bytearray(world.store._shelf.get(row.object_key) or b"")
    body[(row.position or 0) + row.size_bytes - 2] ^= 1
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
    mocks(place, samples=30)
    assert invoke("run", *M, "--until-caught-up").exit_code == 0
    with hop_archive.open("m", "m", toml=place / "hop_archive.toml") as archive:
        assert len(list(archive.messages())) == sum(one.messages for one in archive.topics()) > 20
    with pytest.raises(MissingSettingError, match="No store is named"):
        hop_archive.open("m")


LOOKS = """
import json, sys, time
began = time.perf_counter()
import hop_archive
ours = [name for name in sys.modules if name.startswith("hop_archive")]
json.dump([ours, time.perf_counter() - began, "bson" in sys.modules, callable(hop_archive.open)], sys.stdout)
"""


def test_importing_the_package_loads_nothing_else_of_it(tmp_path: Path) -> None:
    root = str(Path(hop_archive.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", LOOKS], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    ours, seconds, has_bson, has_open = json.loads(ran.stdout)
    assert (ours, has_bson, has_open) == (["hop_archive"], False, True)
    assert seconds < 1


# The notebook

NOTEBOOK = Path(hop_archive.__file__).parents[1] / "docs" / "examples" / "alerts_by_day.ipynb"


class Plots:
    """Takes the place of matplotlib, and remembers what was drawn."""

    def __init__(self) -> None:
        self.bars: list[int] = []
        self.pyplot = self

    def subplots(self, **_: Any) -> tuple[Plots, Plots]:
        return self, self

    def bar(self, _: Any, heights: Any, **__: Any) -> None:
        self.bars += list(heights)

    def __getattr__(self, _: str) -> Any:
        return lambda *args, **options: self


def test_the_example_notebook_runs_and_draws_every_message(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place, samples=60)
    assert invoke("run", *M, "--until-caught-up").exit_code == 0
    plots = Plots()
    monkeypatch.setitem(sys.modules, "matplotlib", plots)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", plots)
    monkeypatch.setenv("HOP_ARCHIVE_DATABASE", "m")
    monkeypatch.setenv("HOP_ARCHIVE_STORE", "m")
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    with hop_archive.open("m", "m") as archive:
        assert sum(plots.bars) == len(list(archive.messages()))
