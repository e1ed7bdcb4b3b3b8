"""The soak's checker on real servers: it finds nothing in what the archive made, and names each and all of what a broken writer did."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bson
import pytest
from psycopg.conninfo import make_conninfo

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.records import Batch, Row
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import KINDS, SampleTopic
from hop_archive.ingest import survey, write
from hop_archive.ingest.decide import Decision, decide
from hop_archive.ingest.follow import catch_up
from hop_archive.model.identity import candidates
from hop_archive.model.topics import LayoutPolicy, TopicPolicy
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.store.protocol import Created, NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.test_broker import Cluster
from hop_archive_tests.soak import checker
from hop_archive_tests.soak.checker import Place
from hop_archive_tests.soak.producer import Publisher
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.slow_kafka, pytest.mark.local]

MESSAGES = 2_000
LAYOUTS = LayoutPolicy(
    "message", (("*.segment", "segment"), ("*.frames", "segment")), "none", (("*.frames", "zstd"),)
)


class Sent:
    """A soak's messages of every kind on Apache Kafka, in three topics, one of each layout, and what was written down of them."""

    def __init__(self, broker: ApacheKafka, directory: Path, count: int) -> None:
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self.record = directory / f"{self.name}.bson"
        topics = [SampleTopic(f"{self.name}.{kind}", 1, KINDS) for kind in ("message", "segment", "frames")]
        for topic in topics:
            Cluster(broker.bootstrap_servers).new_topic(topic.name)
        publisher = Publisher(broker.bootstrap_servers, topics, self.record, seed=7, per_s=1_000)
        publisher.start()
        wait_for(lambda: publisher.acknowledged >= count, "messages are there")
        publisher.stop()
        wait_for(lambda: not publisher.waiting(), "nothing is under way")
        publisher.close()
        assert publisher.failed == 0

    def plain(self, kind: str = "") -> dict[Place, bytes]:
        """Where five messages stand, far apart, whose content and UUID no other one has; and their values."""
        read = checker.read_record(self.record)
        entries = {e["number"]: e for e in bson.decode_all(self.record.read_bytes()) if "headers" in e}
        contents = Counter(message.digest for message in read.messages.values())
        own = {number: checker.client_id(entry["headers"]) for number, entry in entries.items()}
        uuids = Counter(own.values())
        found = [
            (place, entries[number]["value"])
            for place, (number, _) in sorted(read.acknowledged.items())
            if place[0].endswith(kind)
            and len(entries[number]["value"] or b"") >= 100
            and own[number] is not None
            and contents[read.messages[number].digest] == uuids[own[number]] == 1
        ]
        assert len(found) >= 50
        return dict(found[len(found) * n // 10] for n in range(1, 10, 2))


@pytest.fixture(scope="module")
def sent(broker: ApacheKafka, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    return Sent(broker, tmp_path_factory.mktemp("sent"), MESSAGES)


Opened = Callable[[Sent], Archive]


@pytest.fixture
def opened(open_archive: OpenArchive, broker: ApacheKafka) -> Iterator[Opened]:
    """Opens an archive of what was sent, in a catalog and under a prefix of the test's own."""
    sources: list[KafkaSource] = []

    def make(sent: Sent) -> Archive:
        sources.append(KafkaSource("apache", bootstrap_servers=broker.bootstrap_servers))
        topics = TopicPolicy((f"{sent.name}.*",))
        return replace(open_archive(topics=topics), source=sources[-1], layouts=LAYOUTS)

    yield make
    for source in sources:
        source.close()


Judged = Callable[[Sent], dict[str, Any]]


@pytest.fixture
def judged(address: StackAddress, namespace: str) -> Judged:
    """What the checker says, as a process."""

    def judge(sent: Sent) -> dict[str, Any]:
        url = make_conninfo(address.database_url, options=f"-c search_path={namespace}")
        keys = (address.s3_endpoint, address.s3_access_key, address.s3_secret_key)
        where = json.dumps(asdict(checker.Where(str(sent.record), url, *keys, f"{namespace}/")))
        program = [sys.executable, "-m", checker.__name__]
        told = subprocess.run(program, input=where, capture_output=True, text=True, check=False)
        verdict: dict[str, Any] = json.loads(told.stdout)
        assert told.returncode == (1 if verdict["wrong"] else 0)
        return verdict

    return judge


def test_it_finds_nothing_in_what_the_archive_made(sent: Sent, opened: Opened, judged: Judged) -> None:
    exhausted(catch_up(opened(sent)))
    verdict = judged(sent)
    assert verdict["wrong"] == {}, verdict["first"]
    assert verdict["figures"]["acknowledged"] >= MESSAGES
    assert verdict["figures"]["duplicates"]


def named(verdict: dict[str, Any], kind: str, places: Iterable[Place]) -> set[Place]:
    """Which of some places the checker names for a kind of finding, of which it keeps the first five."""
    lines = [line for line in verdict["first"] if line.startswith(f"{kind}: ")]
    return {place for place in places if any(str(place) in line for line in lines)}


def test_it_names_each_message_that_was_left_out(
    sent: Sent, opened: Opened, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out, real = sent.plain(), PostgresCatalog.commit

    def commit(catalog: PostgresCatalog, *batches: Batch) -> None:
        real(catalog, *(replace(b, rows=[r for r in b.rows if place_of(r) not in left_out]) for b in batches))

    monkeypatch.setattr(PostgresCatalog, "commit", commit)
    exhausted(catch_up(opened(sent)))
    verdict = judged(sent)
    assert verdict["wrong"].pop("told to be gone") <= 5  # batches, which count them as absent
    assert verdict["wrong"] == {"lost": 5}
    assert named(verdict, "lost", left_out) == set(left_out)


def place_of(row: Row) -> Place:
    assert row.partition is not None
    assert row.offset is not None
    return (row.topic, row.partition, row.offset)


@pytest.mark.parametrize("layout", ["message", "segment"])
def test_it_names_each_message_of_which_a_byte_was_changed(
    sent: Sent, opened: Opened, judged: Judged, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    damaged, real = sent.plain(layout), S3Store.create

    def create(store: S3Store, objects: Sequence[NewObject]) -> Sequence[Created]:
        made = []
        for new in objects:
            body = new.body
            for value in damaged.values():
                body = body.replace(value, value[:50] + bytes([value[50] ^ 1]) + value[51:])
            made.append(NewObject(new.key, body))
        return real(store, made)

    monkeypatch.setattr(S3Store, "create", create)
    exhausted(catch_up(opened(sent)))
    verdict = judged(sent)
    # The CRC-32 of the document, and that of the value and the digest, of both what the document says and the row.
    assert verdict["wrong"] == {
        "row and document differ": 5 * 5,
        "other bytes than were sent": 5,
        "nobody sent what is archived": 5,
    }
    assert named(verdict, "other bytes than were sent", damaged) == set(damaged)


def test_it_names_each_row_whose_object_was_never_written(
    sent: Sent, opened: Opened, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent, real = sent.plain("message"), S3Store.create

    def create(store: S3Store, objects: Sequence[NewObject]) -> Sequence[Created]:
        kept = [new for new in objects if not any(value in new.body for value in absent.values())]
        told = iter(real(store, kept))
        return [next(told) if new in kept else Created.NEW for new in objects]

    monkeypatch.setattr(S3Store, "create", create)
    exhausted(catch_up(opened(sent)))
    verdict = judged(sent)
    assert verdict["wrong"] == {"row points at nothing": 5, "lost": 5}
    assert named(verdict, "lost", absent) == set(absent)


def test_it_names_each_message_that_is_there_under_two_uuids(
    sent: Sent, opened: Opened, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice: dict[uuid.UUID, Place] = {}

    def doubling(*args: Any) -> list[Decision]:
        decisions = decide(*args)
        for number, (message, identity, original, _, _) in enumerate(decisions):
            if original and identity.is_client_uuid and original not in twice and len(twice) < 5:
                twice[original] = (message.topic, message.partition, message.offset)
                own, given = itertools.islice(candidates(identity), 2)
                assert own is identity
                decisions[number] = Decision(message, given)
        return decisions

    monkeypatch.setattr(write, "decide", doubling)
    exhausted(catch_up(opened(sent)))
    verdict = judged(sent)
    assert verdict["wrong"] == {
        "one message under two UUIDs": 5,
        "a UUID was given though its publisher's is free": 5,
    }
    told = [line for line in verdict["first"] if line.startswith("one message under two UUIDs")]
    for original, (_, partition, offset) in twice.items():
        (line,) = [line for line in told if str(original) in line]
        assert f"partition={partition}, offset={offset}," in line


@pytest.mark.parametrize("is_recorded", [True, False])
def test_it_names_each_message_that_kafka_lost_recorded_or_not(
    broker: ApacheKafka,
    tmp_path: Path,
    opened: Opened,
    judged: Judged,
    monkeypatch: pytest.MonkeyPatch,
    is_recorded: bool,
) -> None:
    sent, gone = Sent(broker, tmp_path, 100), 5
    topic = f"{sent.name}.message"
    archive = opened(sent)
    survey.survey(archive)  # what was not seen before it went is not known to have been
    Cluster(broker.bootstrap_servers).delete_records_before(topic, gone)
    if not is_recorded:
        monkeypatch.setattr(survey, "_record_gone", lambda *_: True)
    exhausted(catch_up(archive))
    verdict = judged(sent)
    told = "told to be gone" if is_recorded else "gap or overlap in the ledger"
    assert verdict["wrong"] == {"lost": gone, told: 1}
    lost = {(topic, 0, offset) for offset in range(gone)}
    assert named(verdict, "lost", lost) == lost
