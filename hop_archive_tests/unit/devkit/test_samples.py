from __future__ import annotations

import base64
import io
import itertools
import json
import struct
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import fastavro
import pytest

from hop_archive.devkit.samples import (
    ECHO_KINDS,
    KINDS,
    ODD_KINDS,
    ORDINARY_KINDS,
    SAMPLE_TOPICS,
    Sample,
    SampleTopic,
    filler,
    samples,
)
from hop_archive.errors import ConfigurationError

NOW_MS = 1_750_000_000_000
DUPLICATE_KINDS = ("duplicate", "duplicate-without-id")
STREAM = tuple(samples(3_000, now_ms=NOW_MS))


def of_kind(kind: str) -> list[Sample]:
    found = [sample for sample in STREAM if sample.kind == kind]
    assert found
    return found


def values(kind: str) -> list[bytes]:
    found = [sample.value for sample in of_kind(kind) if sample.value is not None]
    assert len(found) == len(of_kind(kind))
    return found


def header(sample: Sample, name: str) -> list[bytes | None]:
    return [value for found, value in sample.headers if found == name]


def usable_id(sample: Sample) -> bytes | None:
    return next((value for value in header(sample, "_id") if value is not None and len(value) == 16), None)


def as_published(sample: Sample) -> Sample:
    return replace(sample, kind="")


def test_the_same_arguments_give_the_same_samples() -> None:
    assert tuple(samples(3_000, now_ms=NOW_MS)) == STREAM


def test_asking_for_more_only_adds_to_the_end() -> None:
    assert tuple(samples(700, now_ms=NOW_MS)) == STREAM[:700]


@pytest.mark.parametrize(("seed", "now_ms"), [(1, NOW_MS), (0, NOW_MS + 1)])
def test_another_seed_or_time_shares_no_id_with_this_stream(seed: int, now_ms: int) -> None:
    ids = {usable_id(sample) for sample in STREAM} - {None}
    assert ids.isdisjoint(usable_id(sample) for sample in samples(1_000, seed=seed, now_ms=now_ms))


def test_what_is_counted_of_samples_does_not_depend_on_the_clock() -> None:
    one, other = (
        [(s.topic, s.kind, s.partition, s.key) for s in samples(400, seed=7, now_ms=now_ms)]
        for now_ms in (1_700_000_000_000, 1_764_000_000_123)
    )
    assert one == other


def test_forty_samples_show_every_kind() -> None:
    assert {sample.kind for sample in STREAM[:40]} == set(KINDS)


def test_forty_samples_show_every_kind_in_whatever_order_the_topics_are() -> None:
    backwards = samples(40, now_ms=NOW_MS, topics=SAMPLE_TOPICS[::-1])
    assert {sample.kind for sample in backwards} == set(KINDS)


def test_forty_samples_reach_every_topic() -> None:
    assert {sample.topic for sample in STREAM[:40]} == {topic.name for topic in SAMPLE_TOPICS}


def test_every_sample_belongs_to_its_topic_and_partition() -> None:
    topics = {topic.name: topic for topic in SAMPLE_TOPICS}
    for sample in STREAM:
        topic = topics[sample.topic]
        assert sample.kind in topic.kinds
        assert sample.partition is None or 0 <= sample.partition < topic.partitions


def test_every_partition_of_every_topic_can_be_chosen() -> None:
    unkeyed = {(sample.topic, sample.partition) for sample in STREAM if sample.partition is not None}
    keyed = {sample.topic for sample in STREAM if sample.partition is None and sample.key is not None}
    for topic in SAMPLE_TOPICS:
        every = {(topic.name, partition) for partition in range(topic.partitions)}
        assert topic.name in keyed or every <= unkeyed


def test_after_the_first_cycle_a_few_per_cent_are_odd() -> None:
    kinds = Counter(sample.kind for sample in STREAM[100:])
    odd = sum(kinds[kind] for kind in ODD_KINDS + ECHO_KINDS)
    assert 0.02 < odd / kinds.total() < 0.07
    assert all(kinds[kind] for kind in ORDINARY_KINDS)


def test_samples_are_a_millisecond_apart_unless_they_repeat_one() -> None:
    stamps = [
        (position, sample.timestamp_ms)
        for position, sample in enumerate(STREAM)
        if sample.kind not in {*DUPLICATE_KINDS, "cross-posted", "no-timestamp"}
    ]
    assert all(stamp == NOW_MS + position for position, stamp in stamps)


def test_voevents_parse_and_say_where_and_when() -> None:
    ivorns = set()
    for value in values("voevent"):
        root = ET.fromstring(value)
        assert root.tag == "{http://www.ivoa.net/xml/VOEvent/v2.0}VOEvent"
        assert root.get("version") == "2.0"
        ivorns.add(root.get("ivorn"))
        assert 0 <= float(root.findtext("WhereWhen//C1", "")) < 360
        assert -90 <= float(root.findtext("WhereWhen//C2", "")) <= 90
        assert root.findtext("WhereWhen//ISOTime", "").startswith("2025-06-15T")
    assert len(ivorns) == len(values("voevent"))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gcn-json", {"mission", "trigger_time", "ra", "dec"}),
        ("lvk", {"alert_type", "superevent_id", "event", "external_coinc"}),
        ("icecube", {"nu_energy", "p_astro", "ra", "dec"}),
        ("snews", {"detector_name", "p_val", "timing_series"}),
        ("circular", {"header", "body"}),
        ("external", {"url"}),
        ("heartbeat", {"timestamp", "count"}),
    ],
)
def test_json_values_parse_and_have_their_fields(kind: str, fields: set[str]) -> None:
    assert all(fields <= json.loads(value).keys() for value in values(kind))


def test_superevents_carry_a_base64_sky_map_unless_retracted() -> None:
    for notice in map(json.loads, values("lvk")):
        assert (notice["event"] is None) == (notice["alert_type"] == "RETRACTION")
        if notice["event"]:
            assert base64.b64decode(notice["event"]["skymap"], validate=True).startswith(b"SIMPLE")
            assert sum(notice["event"]["classification"].values()) == pytest.approx(1)


def test_binary_notices_are_forty_big_endian_integers() -> None:
    for value in values("gcn-binary"):
        packet = struct.unpack(">40i", value)
        assert packet[39] == 10
        assert 0 <= packet[7] <= 3_600_000
        assert -900_000 <= packet[8] <= 900_000


def test_binary_notices_count_days_as_gcn_does() -> None:
    first = struct.unpack(">40i", values("gcn-binary")[0])
    assert first[5] == 20_841  # 2025-06-15, MJD 60841; TJD = MJD - 40000


def test_text_notices_are_labelled_lines() -> None:
    for value in values("gcn-text"):
        lines = value.decode("ascii").splitlines()
        assert lines[0].split(":", 1)[0] == "TITLE"
        assert all(": " in line for line in lines)


def avro_records(value: bytes) -> list[dict[str, Any]]:
    reader = fastavro.reader(io.BytesIO(value))
    records = cast("list[dict[str, Any]]", list(reader))
    # Encoding them anew gives the same bytes: none was skipped, none left over.
    encoded = io.BytesIO()
    for record in records:
        fastavro.schemaless_writer(encoded, reader.writer_schema or {}, record)
    sync_marker = value[-16:]
    assert value.endswith(encoded.getvalue() + sync_marker)
    return records


def test_avro_files_decode_with_another_implementation() -> None:
    for value in values("avro"):
        [alert] = avro_records(value)
        assert 0 <= alert["candidate"]["ra"] <= 360
        assert 14 <= alert["candidate"]["magpsf"] <= 21
        assert alert["candidate"]["pid"] == -(alert["candid"] // 1_000_000)


def test_avro_files_show_each_branch_of_their_unions() -> None:
    alerts = [alert for value in values("avro") for alert in avro_records(value)]
    previous = [alert["prv_candidates"] for alert in alerts]
    assert None in previous
    assert [] in previous
    assert any(visits for visits in previous)
    assert {alert["cutoutTemplate"] is None for alert in alerts} == {True, False}
    assert {alert["candidate"]["ssnamenr"] for alert in alerts} == {None, "null", "2004 SM1"}


def test_blobs_are_no_text() -> None:
    for value in values("blob"):
        with pytest.raises(UnicodeDecodeError):
            value.decode()


def test_ordinary_values_are_of_typical_sizes() -> None:
    sizes = [len(value) for kind in ORDINARY_KINDS for value in values(kind)]
    assert min(sizes) < 200
    assert 30_000 < max(sizes) <= 60_000


@pytest.mark.parametrize("kind", sorted({*ORDINARY_KINDS} - {"heartbeat"}))
def test_ordinary_headers_are_those_that_publishers_set(kind: str) -> None:
    for sample in of_kind(kind):
        assert [name for name, _ in sample.headers] == ["_id", "_sender", "_format"]
        assert usable_id(sample)


def id_lengths(sample: Sample) -> list[int | None]:
    return [None if value is None else len(value) for value in header(sample, "_id")]


ODDITIES: dict[str, Callable[[Sample], bool]] = {
    "tombstone": lambda sample: sample.value is None and bool(sample.key),
    "empty-value": lambda sample: sample.value == b"",
    "empty-key": lambda sample: sample.key == b"" and bool(sample.value),
    "no-timestamp": lambda sample: sample.timestamp_ms is None,
    "no-headers": lambda sample: sample.headers == (),
    "no-id": lambda sample: header(sample, "_id") == [] and sample.headers != (),
    "text-id": lambda sample: id_lengths(sample) == [36],
    "empty-id": lambda sample: header(sample, "_id") == [b""],
    "null-id": lambda sample: header(sample, "_id") == [None],
    "long-id": lambda sample: len(header(sample, "_id")) == 1 and (id_lengths(sample)[0] or 0) > 16,
    "several-ids": lambda sample: id_lengths(sample) == [36, 16, 16] and len(set(header(sample, "_id"))) == 3,
    "repeated-names": lambda sample: header(sample, "tag") == [b"b", b"a", b"b"],
    "null-header": lambda sample: header(sample, "note") == [None],
    "empty-header": lambda sample: header(sample, "note") == [b""],
    "not-utf8-header": lambda sample: header(sample, "_sender")[0] == b"\xff\xfe\x80",
    "odd-format": lambda sample: header(sample, "_format") == [b"json", None, b"hologram"],
    "described": lambda sample: (
        all(header(sample, name) for name in ("title", "file_name", "originator", "_sender"))
        and sample.headers[-1][0] == "title"
    ),
    "test": lambda sample: header(sample, "_test") == [b"true"],
}


def test_every_oddity_has_its_check() -> None:
    assert set(ODDITIES) == set(ODD_KINDS)


@pytest.mark.parametrize("kind", sorted(ODDITIES))
def test_an_odd_sample_is_odd_as_its_kind_says(kind: str) -> None:
    assert all(ODDITIES[kind](sample) for sample in of_kind(kind))


@pytest.mark.parametrize("kind", sorted(ODDITIES))
def test_an_ordinary_sample_is_not_odd(kind: str) -> None:
    ordinary = [sample for sample in STREAM if sample.kind in ORDINARY_KINDS and sample.kind != "heartbeat"]
    assert not any(ODDITIES[kind](sample) for sample in ordinary)


def test_a_header_that_is_not_utf8_does_not_decode() -> None:
    for sample in of_kind("not-utf8-header"):
        for name in ("_sender", "title", "größe"):
            with pytest.raises(UnicodeDecodeError):
                (header(sample, name)[0] or b"").decode()


def test_duplicates_and_nothing_else_equal_an_earlier_sample() -> None:
    seen: set[Sample] = set()
    for sample in STREAM:
        published = as_published(sample)
        assert (published in seen) == (sample.kind in DUPLICATE_KINDS)
        seen.add(published)


def test_a_duplicate_has_an_id_and_a_time_to_be_known_by() -> None:
    assert all(usable_id(sample) and sample.timestamp_ms for sample in of_kind("duplicate"))


def test_a_duplicate_without_id_has_no_id() -> None:
    assert not any(header(sample, "_id") for sample in of_kind("duplicate-without-id"))


def test_a_colliding_id_was_used_in_the_topic_for_another_value() -> None:
    first_use: dict[tuple[str, bytes | None], Sample] = {}
    for sample in STREAM:
        earlier = first_use.setdefault((sample.topic, usable_id(sample)), sample)
        if sample.kind == "colliding-id":
            assert earlier is not sample
            assert earlier.headers == sample.headers
            assert earlier.value != sample.value


def test_a_cross_posted_sample_equals_one_of_another_topic() -> None:
    first_use: dict[bytes | None, Sample] = {}
    for sample in STREAM:
        earlier = first_use.setdefault(usable_id(sample), sample)
        if sample.kind == "cross-posted":
            assert earlier.topic != sample.topic
            assert (
                replace(earlier, topic=sample.topic, partition=sample.partition, kind=sample.kind) == sample
            )


def test_only_echoes_use_an_id_again() -> None:
    ids = [usable_id(sample) for sample in STREAM if sample.kind not in ECHO_KINDS and usable_id(sample)]
    assert len(ids) == len(set(ids))


def test_nothing_repeats_a_heartbeat() -> None:
    heartbeats = {sample.value for sample in of_kind("heartbeat")}
    assert heartbeats.isdisjoint(sample.value for sample in STREAM if sample.kind != "heartbeat")


def test_topics_of_ones_own_get_their_kinds_only() -> None:
    topic = SampleTopic("mine", 3, ("snews", "duplicate"))
    mine = list(samples(500, now_ms=NOW_MS, topics=[topic]))
    assert {(sample.topic, sample.kind) for sample in mine} == {("mine", "snews"), ("mine", "duplicate")}


def test_a_topic_of_odd_kinds_only_is_odd_throughout() -> None:
    topic = SampleTopic("odd", 1, ("empty-id", "null-id"))
    kinds = Counter(sample.kind for sample in samples(100, now_ms=NOW_MS, topics=[topic]))
    assert kinds["empty-id"] + kinds["null-id"] == 100


@pytest.mark.parametrize(
    ("partitions", "kinds", "said"),
    [
        (0, ("voevent",), "at least one partition"),
        (1, (), r"\(none\)"),
        (1, ("voevnt",), "Remove the unknown voevnt"),
        (1, ("heartbeat", "duplicate"), "no kind that duplicate could repeat"),
        (1, ("voevent", "duplicate-without-id"), "Add one of no-id"),
    ],
)
def test_a_topic_that_makes_no_sense_is_refused(partitions: int, kinds: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SampleTopic("mine", partitions, kinds)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ((), "at least one topic"),
        ((SampleTopic("mine", 1, ("voevent", "cross-posted")),), "no other topic"),
    ],
)
def test_topics_that_make_no_sense_together_are_refused_before_the_first_sample(
    topics: tuple[SampleTopic, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        samples(1, now_ms=NOW_MS, topics=topics)


@pytest.mark.parametrize("size_bytes", [16, 1_000, 1_000_000])
def test_filler_has_the_size_asked_for_and_no_two_values_alike(size_bytes: int) -> None:
    sent = list(filler(50, size_bytes, topic="load"))
    assert {len(sample.value or b"") for sample in sent} == {size_bytes}
    assert len({sample.value for sample in sent}) == 50
    assert len({usable_id(sample) for sample in sent}) == 50


def test_filler_is_the_same_for_the_same_topic_and_seed_only() -> None:
    def ids(topic: str, seed: int) -> set[bytes | None]:
        return {usable_id(sample) for sample in filler(20, 100, topic=topic, seed=seed)}

    assert ids("load", 0) == ids("load", 0)
    for one, other in itertools.combinations([("load", 0), ("load", 1), ("more", 0)], 2):
        assert ids(*one).isdisjoint(ids(*other))


def test_filler_too_small_to_tell_apart_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes, found 15"):
        filler(1, 15, topic="load")
