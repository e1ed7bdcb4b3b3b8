"""``hop-archive run``, in this process, on mocks: what it archives, compares, refuses and says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch
from hop_archive.cli.stopping import Stop
from hop_archive.config import open as opening
from hop_archive.devkit.samples import Sample
from hop_archive.devkit.sampling import create_sample_topics, sample_stream
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.model.message import Receipt, TopicPartition
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Created, Extent, NewObject
from hop_archive.upkeep.verify.sent import record_sent
from hop_archive_tests.cli_helpers import M, archived, invoke, mocks, place

__all__ = ["place"]

NOW_MS = 1_790_000_000_000


def published(directory: Path) -> int:
    source = MockSource("m", directory=directory)
    with source.cluster.read() as state:
        return sum(log.high for topic in state.topics.values() for log in topic.logs)


def in_ledger(directory: Path) -> set[str]:
    return {entry.slice.topic for entry in MockCatalog("m", directory=directory).ledger()}


# --- what is archived


def test_with_no_stanza_named_it_archives_sample_alerts_and_says_so(place: Path) -> None:
    result = invoke("run", "--until-caught-up")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "No stanza named: archiving sample alerts from mock-hop to mock-db and mock-store…\n"
    )
    assert "Caught up." in result.stdout
    assert " of 7 topics " in result.stdout


def test_a_named_stanza_needs_no_such_line(place: Path) -> None:
    mocks(place)
    assert "No stanza named" not in invoke("run", *M, "--until-caught-up").stderr


def test_a_mock_source_holds_as_many_samples_as_its_stanza_says(place: Path) -> None:
    directory = mocks(place, samples=250)
    invoke("run", *M, "--until-caught-up")
    assert published(directory) == 250


def test_a_mock_source_that_others_may_not_write_to_holds_samples_too(place: Path) -> None:
    directory = mocks(place, samples=60, source="writable = false")
    assert invoke("run", *M, "--until-caught-up").exit_code == 0
    assert published(directory) == 60


def test_a_mock_source_is_filled_once(place: Path) -> None:
    directory = mocks(place, archived=True)
    before = archived(directory)
    second = invoke("run", *M, "--until-caught-up")
    assert (published(directory), archived(directory)) == (100, before)
    assert "Archived 0 messages" in second.stdout


def test_heartbeats_are_left_out(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up")
    assert "sys.heartbeat" not in in_ledger(directory)
    assert len(in_ledger(directory)) == 7


def test_what_is_left_out_is_counted_and_collisions_are_explained(place: Path) -> None:
    directory = mocks(place)
    ran = invoke("run", *M, "--until-caught-up")
    (marks,) = MockSource("m", directory=directory).watermarks([TopicPartition("sys.heartbeat", 0)]).values()
    held = marks.stable - marks.low
    assert held > 0
    assert f"{held} left out: vetoed (sys.heartbeat).\n" in ran.stdout
    assert "use by other content" in ran.stdout
    assert "under a UUID that the archive made" in ran.stdout
    found = json.loads(invoke("run", *M, "--until-caught-up", "--json").stdout)
    assert found["left_out"] == [{"topic": "sys.heartbeat", "why": "vetoed", "offsets": held}]


def test_only_named_topics_are_archived(place: Path) -> None:
    directory = mocks(place)
    result = invoke(
        "run", *M, "--until-caught-up", "-T", "gcn.notices", "-T", "ztf.alerts", "-T", "ztf.alerts"
    )
    assert result.exit_code == 0
    assert in_ledger(directory) == {"gcn.notices", "ztf.alerts"}


def test_how_topics_and_groups_are_set_up_is_kept_too(place: Path) -> None:
    directory = mocks(place)
    assert invoke("run", *M, "--until-caught-up", "--quiet").exit_code == 0
    topics = MockCatalog("m", directory=directory).snapshots("topic")
    assert {one.name for one in topics} == in_ledger(directory)
    invoke("run", *M, "--until-caught-up", "--quiet")
    assert MockCatalog("m", directory=directory).snapshots("topic") == topics  # no hour has gone by


def test_a_topic_that_does_not_exist_is_an_error_that_names_it(place: Path) -> None:
    directory = mocks(place)
    result = invoke("run", *M, "--until-caught-up", "-T", "gcn.notices", "-T", "gcn?notices")
    assert result.exit_code == 2
    assert "Source m has no topic named gcn?notices." in result.stderr
    assert in_ledger(directory) == set()


def test_no_batch_has_more_messages_than_asked_for(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up", "--batch-messages", "3")
    sizes = [entry.archived + entry.duplicates for entry in MockCatalog("m", directory=directory).ledger()]
    assert max(sizes) == 3


def test_less_memory_makes_smaller_batches(place: Path) -> None:
    directory = mocks(place, samples=400)
    invoke("run", *M, "--until-caught-up", "--memory", "1", "-T", "ztf.alerts")
    sizes = [entry.size_bytes for entry in MockCatalog("m", directory=directory).ledger()]
    assert len(sizes) > 4
    assert max(sizes) < 300_000


def test_the_run_id_is_in_the_ledger(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up", "--run-id", "by hand")
    assert {entry.run_id for entry in MockCatalog("m", directory=directory).ledger()} == {"by hand"}


def test_quiet_prints_nothing_where_all_is_well(place: Path) -> None:
    directory = mocks(place)
    result = invoke("run", *M, "--until-caught-up", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert archived(directory) > 80


# --- others at work, and servers that are not there


class Overtaken(MockCatalog):
    """Somebody else commits each batch a moment earlier."""

    def commit(self, *batches: Batch) -> None:
        for batch in batches:
            if batch.slice not in [entry.slice for entry in self.ledger()]:
                super().commit(replace(batch, run_id="the other's"))
        super().commit(*batches)


def test_slices_that_another_archiver_had_first_are_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = mocks(place)
    monkeypatch.setattr(opening, "MockCatalog", Overtaken)
    result = invoke("run", *M, "--until-caught-up")
    assert result.exit_code == 0
    assert ": already archived by the other's" in result.stderr
    assert "ERROR" not in result.stderr
    assert "Archived 0 messages" in result.stdout
    assert "Left to another archiver" in result.stdout
    assert archived(directory) > 80


class Obstructed(MockStore):
    """Whatever is created, other bytes stand there."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        return [Created.OTHER for _ in objects]


def test_data_that_are_wrong_end_a_run_with_5(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Obstructed)
    result = invoke("run", *M, "--until-caught-up")
    assert result.exit_code == 5
    assert "Error: " in result.stderr
    assert "Caught up." not in result.stdout


def test_an_outage_fails_a_run_that_is_to_catch_up(place: Path) -> None:
    directory = mocks(place)
    source = MockSource("m", directory=directory)
    create_sample_topics(source)
    source.cluster.stop()
    result = invoke("run", *M, "--until-caught-up")
    assert result.exit_code == 3
    assert "does not answer" in result.stderr


@pytest.mark.parametrize("words", [("-H", "m", "-D", "m"), ("-D", "m", "-S", "m"), ("-S", "m")])
def test_a_part_that_was_forgotten_beside_what_lasts_is_not_taken_to_be_a_mock(
    place: Path, words: tuple[str, ...]
) -> None:
    directory = mocks(place)
    ran = invoke("run", *words, "--until-caught-up")
    assert ran.exit_code == 2
    assert "if a mock is meant" in ran.stderr
    assert archived(directory) == 0


def test_a_source_alone_is_archived_to_mocks_that_say_so(place: Path) -> None:
    mocks(place)
    ran = invoke("run", "-H", "m", "--until-caught-up")
    assert ran.exit_code == 0
    assert "nothing lasts" in ran.stderr


# --- comparing


class Altering(MockStore):
    """One byte of what is read is not what was written."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        return super().create([NewObject(o.key, _altered(o.body)) for o in objects])


def _altered(body: bytes) -> bytes:
    at = (
        body.index(b"message\x00") + len(b"message\x00") + 5
    )  # the value's first byte, after length and subtype
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def test_what_is_stored_as_received_has_no_differences(place: Path) -> None:
    mocks(place)
    result = invoke("run", *M, "--until-caught-up", "--compare", "-T", "gcn.notices", "-T", "hop.odd-headers")
    assert result.exit_code == 0
    assert "no differences" in result.stdout


def test_a_difference_is_printed_and_is_exit_1(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Altering)
    result = invoke("run", *M, "--until-caught-up", "--compare", "-T", "lvk.superevents")
    assert result.exit_code == 1
    assert "lvk.superevents[0]@0 received/stored crc32: expected " in result.stdout
    assert "lvk.superevents[0]@0 received/stored value: expected " in result.stdout
    assert " differences" in result.stdout


def test_as_json_differences_are_counted_and_told_on_the_error_output(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Altering)
    told = invoke("run", *M, "--until-caught-up", "--compare", "--json", "-T", "lvk.superevents")
    assert told.exit_code == 1
    comparison = json.loads(told.stdout)["comparison"]
    assert comparison["differences"] > 0
    assert not comparison["holds"]
    assert "received/stored value" in told.stderr


def test_as_json_a_run_that_fails_halfway_says_why_and_what_it_did(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Unreadable)
    told = invoke("run", *M, "--until-caught-up", "--compare", "--json", "-T", "gcn.notices")
    assert told.exit_code == 3
    found = json.loads(told.stdout)
    assert (found["caught_up"], found["error"]) == (False, "The store does not answer.")
    assert found["total"]["messages"] > 0


def test_differences_are_printed_even_when_quiet(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Altering)
    result = invoke("run", *M, "--until-caught-up", "-q", "--compare", "-T", "lvk.superevents")
    assert result.exit_code == 1
    assert "received/stored value" in result.stdout


class Unreadable(MockStore):
    """Takes what it is given, and does not answer when it is asked for it."""

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        raise UnavailableError("The store does not answer.")


def test_what_cannot_be_fetched_ends_a_comparison_that_is_to_end(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockStore", Unreadable)
    assert invoke("run", *M, "--until-caught-up", "--compare", "-T", "gcn.notices").exit_code == 3


def test_as_json_a_run_ends_with_one_object_that_sums_it_up(place: Path) -> None:
    directory = mocks(place)
    told = invoke("run", *M, "--until-caught-up", "--compare", "--json")
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    by_topic = {one["topic"]: one for one in found["topics"]}
    assert by_topic.keys() == in_ledger(directory)
    assert (
        sum(one["messages"] for one in by_topic.values()) == found["total"]["messages"] == archived(directory)
    )
    assert (found["caught_up"], found["ended_by"], found["error"]) == (True, None, None)
    assert (found["source"], found["database"], found["store"]) == ("m", "m", "m")
    assert found["comparison"]["compared"] == sum(
        one["messages"] + one["duplicates"] for one in found["topics"]
    )
    assert (found["comparison"]["differences"], found["comparison"]["holds"]) == (0, True)
    again = json.loads(invoke("run", *M, "--until-caught-up", "--json").stdout)
    assert (again["topics"], again["total"]["messages"], again["comparison"]) == ([], 0, None)


class Refusing(MockStore):
    """Takes the first objects, and then refuses."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        if self.bucket in _TAKEN:
            raise ForbiddenError("The store refused: AccessDenied.")
        _TAKEN.append(self.bucket)
        return super().create(objects)


_TAKEN: list[str] = []


def test_a_run_that_is_refused_goes_on_and_ends_with_2_where_it_still_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    _TAKEN.clear()
    monkeypatch.setattr(opening, "MockStore", Refusing)
    looks = itertools.count()
    monkeypatch.setattr(Stop, "requested", property(lambda _: next(looks) > 100))
    result = invoke("run", *M, "--batch-messages", "20")
    assert result.exit_code == 2
    assert "ERROR" in result.stderr
    assert "Waiting, and trying again: The store refused: AccessDenied." in result.stderr


def test_a_run_that_goes_on_counts_what_could_not_be_compared(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = mocks(place)
    monkeypatch.setattr(opening, "MockStore", Unreadable)
    monkeypatch.setattr(Stop, "requested", property(lambda _: directory.exists() and archived(directory) > 0))
    result = invoke("run", *M, "--compare", "-T", "gcn.notices")
    assert result.exit_code == 0
    assert "Compared 0 messages: no differences." in result.stdout
    assert "could not be compared: the store did not answer." in result.stdout


def test_all_topics_are_compared_unless_the_source_is_production(place: Path) -> None:
    mocks(place)
    assert compared(invoke("run", *M, "--until-caught-up", "--compare").stdout) > 80


def test_of_a_production_source_only_test_topics_are_compared_whatever_is_named(place: Path) -> None:
    mocks(place, source='production = true\ntest_topics = ["igwn.*"]')
    named = ("-T", "igwn.circulars", "-T", "gcn.notices")
    assert 0 < compared(invoke("run", *M, "--until-caught-up", "--compare", *named).stdout) < 40


def compared(text: str) -> int:
    (line,) = [one for one in text.splitlines() if one.startswith("Compared ")]
    return int(line.split()[1].replace(",", ""))


def send(directory: Path, record: Path, *, as_recorded: dict[int, bytes] | None = None) -> list[Sample]:
    """Publish samples, and record them, some with another value than the one that was sent."""
    source = MockSource("m", directory=directory)
    create_sample_topics(source)
    alerts = list(sample_stream(80, now_ms=NOW_MS))
    receipts = source.publish(alerts)
    told = [replace(one, value=(as_recorded or {}).get(n, one.value)) for n, one in enumerate(alerts)]
    record_sent(record, told, receipts)
    return alerts


def test_what_was_sent_is_compared_with_what_came(place: Path) -> None:
    directory = mocks(place, source='test_topics = ["*"]')
    send(directory, place / "sent.bson")
    result = invoke("run", *M, "--until-caught-up", "--compare", "--sent", "sent.bson")
    assert result.exit_code == 0
    number = compared(result.stdout)
    assert (
        f"Compared {number} messages, {number} of them with what was sent: no differences." in result.stdout
    )


def test_what_came_otherwise_than_sent_is_a_difference(place: Path) -> None:
    directory = mocks(place, source='test_topics = ["*"]')
    alerts = send(directory, place / "sent.bson", as_recorded={0: b"something else"})
    result = invoke("run", *M, "--until-caught-up", "--compare", "--sent", "sent.bson")
    assert result.exit_code == 1
    assert f"{alerts[0].topic}[" in result.stdout
    assert "sent/received value: expected b'something else'" in result.stdout


def test_what_was_sent_and_did_not_come_is_a_difference(place: Path) -> None:
    directory = mocks(place, source='test_topics = ["*"]')
    send(directory, place / "sent.bson")
    MockSource("m", directory=directory).cluster.compact("igwn.circulars", 0, [1])
    result = invoke("run", *M, "--until-caught-up", "--compare", "--sent", "sent.bson")
    assert result.exit_code == 1
    assert "igwn.circulars[0]@1 sent/received message: expected a message, found nothing" in result.stdout


def test_a_record_of_sending_that_cannot_be_read_is_an_error(place: Path) -> None:
    (place / "sent.bson").write_bytes(b"not BSON at all")
    for name in ("sent.bson", "absent.bson"):
        result = invoke("run", "--until-caught-up", "--compare", "--sent", name)
        assert result.exit_code == 2
        assert name in result.stderr


def test_a_record_of_sending_is_of_no_use_without_comparing(place: Path) -> None:
    assert invoke("run", "--sent", "sent.bson").exit_code == 2


def test_the_samples_have_as_many_partitions_as_they_need(place: Path) -> None:
    source = MockSource("m")
    create_sample_topics(source)
    assert source.watermarks([TopicPartition("ztf.alerts", 3), TopicPartition("ztf.alerts", 4)]).keys() == {
        TopicPartition("ztf.alerts", 3)
    }


def test_comparing_with_what_was_sent_is_no_success_where_nothing_of_it_was_compared(place: Path) -> None:
    mocks(place)
    record_sent(
        place / "sent.bson",
        [Sample("elsewhere", None, b"x", (), None, None, "")],
        [Receipt("elsewhere", 0, 0)],
    )
    result = invoke("run", *M, "--until-caught-up", "--compare", "--sent", "sent.bson")
    assert result.exit_code == 1
    assert "1 were not compared in this run" in result.stdout


def test_a_named_topic_that_may_not_be_described_is_not_called_missing(place: Path) -> None:
    directory = mocks(place, archived=True)
    MockSource("m", directory=directory).cluster.deny("snews.alerts", "describe")
    result = invoke("run", *M, "--until-caught-up", "-T", "snews.alerts", "-T", "gcn.notices")
    assert result.exit_code == 2
    assert "All else is archived" in result.stderr
    assert "has no topic named" not in result.stderr


@pytest.mark.parametrize(("sick", "code"), [("lose_leader", 3), ("deny", 2)])
def test_one_sick_topic_leaves_the_others_archived_and_sets_the_exit_code(
    place: Path, sick: str, code: int
) -> None:
    directory = mocks(place, archived=True)
    cluster = MockSource("m", directory=directory).cluster
    getattr(cluster, sick)("snews.alerts")
    cluster.append("gcn.notices", b"one more")
    before = archived(directory)
    result = invoke("run", *M, "--until-caught-up", "--json")
    assert result.exit_code == code
    assert "All else is archived" in result.stderr
    assert archived(directory) == before + 1
