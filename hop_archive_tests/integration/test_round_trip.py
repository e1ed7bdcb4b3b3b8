"""Real alerts through real servers: Kafka → archive → back, byte for byte."""

from __future__ import annotations

import csv
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.prove import prove
from hop_archive.devkit.samples import SAMPLE_TOPICS, samples
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Header, Outgoing
from hop_archive.upkeep.verify.sent import sent_by_place
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.worlds import exhausted

pytestmark = pytest.mark.local

FORMATS = {
    "voevent": b"voevent",
    "gcn-text": b"gcntextnotice",
    "avro": b"avro",
    "json": b"json",
    "lvk": b"json",
}
"""``_format`` by how a corpus folder's name begins or ends, as hop-client's publishers set it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to publish."""

    topic: str
    value: bytes | None
    headers: tuple[Header, ...] = ()
    key: bytes | None = None
    timestamp_ms: int | None = None
    partition: int | None = None


def corpus_alerts(corpus: Path, topic: str) -> Iterator[Alert]:
    """Each file of the manifest, with the headers that hop-client gives: user's first, then the reserved ones."""
    with (corpus / "MANIFEST.tsv").open() as manifest:
        for entry in csv.DictReader(manifest, delimiter="\t"):
            path = corpus / entry["file"]
            kind = next((v for name, v in FORMATS.items() if name in entry["kind"]), b"blob")
            own = uuid.uuid5(uuid.NAMESPACE_URL, entry["file"])
            headers = (
                ("file_name", path.name.encode()),
                ("_id", own.bytes),
                ("_sender", b"tester"),
                ("_format", kind),
            )
            yield Alert(topic, path.read_bytes(), headers)


def published(archive: Archive, alerts: list[Alert]) -> dict[object, object]:
    return dict(sent_by_place(alerts, archive.source.publish(alerts)))


def assert_proved(archive: Archive, topics: list[str], sent: dict[object, object]) -> None:
    for proof in prove(archive, topics, sent):  # type: ignore[arg-type]
        assert proof.holds, proof
    assert sum(p.delivered for p in prove(archive, topics)) == len(sent)


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_each_file_of_the_corpus_comes_back_byte_for_byte(
    open_archive: OpenArchive, namespace: str, corpus: Path, layout: str
) -> None:
    archive = open_archive(layout=layout)
    archive.source.create_topic(namespace, 2)
    alerts = list(corpus_alerts(corpus, namespace))
    assert len(alerts) > 100
    sent = published(archive, alerts)
    exhausted(catch_up(archive))
    assert_proved(archive, [namespace], sent)
    titles = {row.annotations.file_name for row in archive.catalog.rows(namespace)}
    assert titles <= {Path(alert.headers[0][1].decode()).name for alert in alerts if alert.headers[0][1]}


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_sample_alerts_of_every_kind_come_back_and_duplicates_are_not_stored_twice(
    open_archive: OpenArchive, namespace: str, layout: str
) -> None:
    archive = open_archive(layout=layout)
    for topic in SAMPLE_TOPICS:
        archive.source.create_topic(f"{namespace}.{topic.name}", topic.partitions)
    now_ms = int(time.time() * 1000)
    alerts: list[Outgoing] = [
        replace(sample, topic=f"{namespace}.{sample.topic}") for sample in samples(400, now_ms=now_ms - 400)
    ]
    sent = dict(sent_by_place(alerts, archive.source.publish(alerts)))
    exhausted(catch_up(archive))
    topics = sorted({alert.topic for alert in alerts})
    assert_proved(archive, topics, sent)  # type: ignore[arg-type]
    summaries = archive.catalog.summaries(topics)
    kinds = [sample.kind for sample in samples(400, now_ms=now_ms - 400)]
    assert sum(s.duplicates for s in summaries) == sum(kind.startswith("duplicate") for kind in kinds)
    before = archive.catalog.ledger()
    exhausted(catch_up(archive))
    assert archive.catalog.ledger() == before


def test_messages_from_empty_to_twenty_megabytes_come_back(open_archive: OpenArchive, namespace: str) -> None:
    archive = open_archive()
    archive.source.create_topic(namespace, 1, {"max.message.bytes": "25000000"})
    sizes = (0, 1, 1_000_000, 5_000_000, 20_000_000)
    alerts = [Alert(namespace, random.Random(n).randbytes(n)) for n in sizes]
    sent = published(archive, [*alerts, Alert(namespace, None, key=b"gone")])
    exhausted(catch_up(archive))
    assert_proved(archive, [namespace], sent)
    assert max(row.size_bytes for row in archive.catalog.rows(namespace)) > 19_000_000
