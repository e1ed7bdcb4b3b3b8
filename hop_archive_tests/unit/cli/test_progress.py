"""What a run shows of itself: figures, tables, lags, and when."""

from __future__ import annotations

import datetime
import io
import signal
import threading
import uuid
from collections.abc import Mapping

import pytest
from rich.console import Console

from hop_archive.catalog.records import Batch, Duplicate, Row
from hop_archive.cli import output
from hop_archive.cli.display import Display
from hop_archive.cli.progress import Activity, LagWatch, drawn, summary
from hop_archive.cli.stopping import Stop
from hop_archive.errors import UnavailableError
from hop_archive.ingest.write import Done
from hop_archive.model.annotations import Annotations
from hop_archive.model.slices import Slice
from hop_archive_tests.cli_helpers import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def done(topic: str, start: int, messages: int, duplicates: int = 0) -> Done:
    stop = start + messages + duplicates
    rows = [row(topic, offset) for offset in range(start, start + messages)]
    twice = [Duplicate(offset, 0, uuid.UUID(int=1), "") for offset in range(start + messages, stop)]
    wanted = Slice(topic, 1, 0, start, stop)
    return Done(wanted, (Batch(wanted, rows=rows, duplicates=twice),))


def row(topic: str, offset: int) -> Row:
    return Row(
        topic=topic,
        generation=1,
        partition=0,
        offset=offset,
        timestamp_ms=0,
        timestamp_type=None,
        uuid=uuid.UUID(int=offset),
        is_client_uuid=False,
        digest=None,
        object_key="",
        bucket="",
        position=None,
        size_bytes=1000,
        crc32=0,
        message_crc32=0,
        annotations=Annotations(),
    )


def shown(activity: Activity, width: int = 100, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(drawn(activity, "a → b, c", "hint", console))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_what_was_stored_adds_up() -> None:
    activity = Activity(Clock())
    activity.add([done("a", 0, 5), done("a", 5, 2, 1)])
    activity.add([done("b", 0, 1)])
    assert [(one.topic, one.tally.messages) for one in activity.topics()] == [("a", 7), ("b", 1)]
    assert activity.total().tally.messages == 8
    assert activity.total().tally.duplicates == 1


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.add([done("a", 0, 100)])
    clock.now += 10
    assert activity.total().rate == pytest.approx(10)
    for _ in range(30):
        clock.now += 1
        activity.topics()
    assert activity.total().rate == 0


def test_the_lag_shrinks_by_what_was_stored_since_the_survey() -> None:
    activity = Activity(Clock())
    activity.add([done("a", 0, 10)])
    activity.learn_pending({"a": 50}, activity.dealt())
    activity.add([done("a", 10, 20)])
    assert activity.total().lag == 30


def test_what_was_stored_while_a_survey_was_made_is_not_more_than_what_it_found() -> None:
    activity = Activity(Clock())
    before = activity.dealt()
    activity.add([done("a", 0, 10)])
    activity.learn_pending({"a": 4}, before)
    assert activity.total().lag == 0


def test_a_lag_that_is_not_known_is_not_zero() -> None:
    activity = Activity(Clock())
    activity.add([done("a", 0, 10)])
    assert activity.total().lag is None
    activity.learn_pending({}, activity.dealt())
    assert activity.total().lag == 0
    activity.learn_pending(None, activity.dealt())
    assert activity.total().lag is None


def test_the_table_shows_topics_and_their_total() -> None:
    activity = Activity(Clock())
    activity.add([done("alpha", 0, 1200), done("beta", 0, 34)])
    text = shown(activity)
    assert text.index("a → b, c") < text.index("alpha") < text.index("beta") < text.index("total of 2 topics")
    assert "1,234" in text
    assert "hint" in text


def test_of_many_topics_the_busiest_are_shown_and_the_rest_counted() -> None:
    activity = Activity(Clock())
    activity.add([done(f"topic{number:04}", 0, max(1, number - 970)) for number in range(1, 1001)])
    text = shown(activity)
    assert "topic1000" in text
    assert "topic0981" in text
    assert "topic0980" not in text
    assert "… and 980 more" in text
    assert "total of 1,000 topics" in text


def test_the_table_fits_a_small_terminal() -> None:
    activity = Activity(Clock())
    activity.add([done(f"topic{number:04}", 0, max(1, number - 970)) for number in range(1, 1001)])
    lines = shown(activity, width=80, height=16).splitlines()
    assert len(lines) <= 16
    assert max(map(len, lines)) <= 80


def test_a_line_comes_when_it_is_time_and_there_is_news() -> None:
    said: list[str] = []
    clock = Clock()
    activity = Activity(clock)
    display = Display(lambda _: "", activity.news, say=said.append, every_s=5, monotonic=clock)
    activity.add([done("a", 0, 3)])
    display.tick()
    assert said == []
    clock.now += 5
    display.tick()
    display.tick()
    clock.now += 5
    display.tick()
    assert len(said) == 1
    assert said[0].startswith("Archived 3 messages (3.0 kB)")


def test_what_is_fetched_and_written_is_shown_before_anything_is_archived() -> None:
    done_so_far = [0, 0]
    activity = Activity(Clock(), lambda: (done_so_far[0], done_so_far[1]))
    assert activity.news() == ""
    done_so_far[:] = 12_000, 1_234
    assert "fetched 12,000, wrote 1,234 objects" in shown(activity)
    assert activity.news() == "Archived 0 messages (0 B), 0/s lately; fetched 12,000, wrote 1,234 objects."
    assert activity.news() == ""


def test_names_that_do_not_fit_are_folded_and_no_two_look_alike() -> None:
    activity = Activity(Clock())
    names = [f"gcn.classic.voevent.{'long_' * 9}{nth}" for nth in ("first", "second")]
    activity.add([done(name, 0, 1) for name in names])
    lines = shown(activity, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    told = "".join(line.split()[0] for line in lines if line.strip())
    assert all(name in told for name in names)


def test_the_summary_leaves_out_what_did_not_occur() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.add([done("a", 0, 10)])
    clock.now += 2
    assert summary(activity) == "Archived 10 messages (10.0 kB) of 1 topic in 2.0 s, 5.0/s."
    activity.add([done("a", 10, 0, 1)])
    assert summary(activity).endswith("; 1 duplicate.")


def test_the_watch_keeps_lags_true_and_admits_when_it_cannot() -> None:
    activity = Activity()
    asked = threading.Event()

    def pending() -> Mapping[str, int]:
        if asked.is_set():
            raise UnavailableError("gone")
        asked.set()
        return {"a": 7}

    with LagWatch(activity, pending):
        wait_for(lambda: activity.total().lag == 7, "the lag is known")
        wait_for(lambda: activity.total().lag is None, "it is not any more")


def test_sleep_ends_when_a_stop_is_asked_for() -> None:
    stop = Stop()
    stop.signal = signal.SIGINT
    stop.sleep(3600)
    assert stop()


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_345_678_901_234_567, "12,346 TB"),
    ],
)
def test_sizes_are_written_with_three_digits(size_bytes: int, text: str) -> None:
    assert output.size(size_bytes) == text


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (2**63 - 1, "9223372036854775807 ms"),
        (-(2**63), "-9223372036854775808 ms"),
    ],
)
def test_any_timestamp_can_be_written(timestamp_ms: int | None, text: str | None) -> None:
    assert output.timestamp(timestamp_ms) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (3599.6, "1 h 0 min"), (5000, "1 h 23 min")],
)
def test_durations_are_written_in_units_that_fit(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_moments_are_written_in_utc_whatever_their_zone() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert output.moment(datetime.datetime(2026, 1, 1, 1, tzinfo=zone)) == "2025-12-31T23:00:00Z"
    assert output.moment(None) is None


@pytest.mark.parametrize(
    ("a_second", "text"),
    [(0, "0/s"), (0.26, "0.3/s"), (9.94, "9.9/s"), (9.96, "10/s"), (12_345.6, "12,346/s")],
)
def test_rates_are_whole_from_ten_on(a_second: float, text: str) -> None:
    assert output.rate(a_second) == text
