"""What is asked of a restore, what it plans, and what it finds in its way. No I/O."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.records import Measure
from hop_archive.errors import ConfigurationError
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog
from hop_archive.model.topics import is_topic_name
from hop_archive.recover.restore.partitioner import murmur2, partition_of
from hop_archive.recover.restore.plan import Lane, Target
from hop_archive.recover.restore.preflight import (
    DEFAULTS,
    MAX_LONG,
    NUMBERS,
    Condition,
    fitted,
    notes,
    problems,
)
from hop_archive.recover.restore.request import Request, fingerprint

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


def test_a_template_names_each_target() -> None:
    assert Request(template="{topic}.restored").target_of("gcn.notices") == "gcn.notices.restored"
    assert Request().target_of("gcn.notices") == "gcn.notices"
    assert Request(template="one").target_of("gcn.notices") == "one"


@pytest.mark.parametrize("template", ["", "a b", "{name}", "a/b", "{topic}!"])
def test_a_template_that_makes_no_topic_name_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a Kafka topic"):
        Request(template=template)


def test_a_name_that_becomes_too_long_is_none_that_kafka_takes() -> None:
    assert not is_topic_name(Request(template="{topic}.restored").target_of("x" * 245))


def test_a_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        Request(query=Query(limit=5))


def test_the_same_command_has_the_same_fingerprint_and_another_has_another() -> None:
    one = Request(query=Query(topics=("a",), since_ms=1_000))
    assert fingerprint(one, "there", {}) == fingerprint(dataclasses.replace(one), "there", {})
    others = [
        dataclasses.replace(one, query=Query(topics=("a",), since_ms=1_001)),
        dataclasses.replace(one, template="{topic}.b"),
        dataclasses.replace(one, keep_archive_id=True),
        dataclasses.replace(one, by_key=True),
        dataclasses.replace(one, duplicates=True),
        dataclasses.replace(one, generations="all"),
        dataclasses.replace(one, as_of_ms=4),
    ]
    prints = {fingerprint(request, "there", {}) for request in [one, *others]}
    assert len({*prints, fingerprint(one, "elsewhere", {})}) == len(others) + 2


def test_how_long_ago_is_the_same_request_whenever_it_is_said() -> None:
    before, after = (Request(query=Query(since_ms=at), as_of_ms=at) for at in (1_000, 2_000))
    said = {"since": "2d", "as_of": "1h"}
    assert fingerprint(before, "there", said) == fingerprint(after, "there", said)
    assert fingerprint(before, "there", said) != fingerprint(before, "there", {"since": "3d", "as_of": "1h"})
    assert fingerprint(before, "there", {}) != fingerprint(after, "there", {})


def test_going_on_past_damage_is_still_the_same_restore() -> None:
    assert fingerprint(Request(), "t", {}) == fingerprint(Request(skip_damaged=True, append=True), "t", {})


def test_the_earlier_of_two_bounds_in_time_holds() -> None:
    assert Request(query=Query(until_ms=5), as_of_ms=3).until_ms == 3
    assert Request(query=Query(until_ms=5)).until_ms == 5
    assert Request().until_ms is None


# Of Apache Kafka's own tests (UtilsTest.testMurmur2).
HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), HASHES.items())
def test_keys_hash_as_in_kafkas_own_clients(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(), st.integers(1, 50))
def test_a_key_has_one_partition_of_those_that_there_are(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, 7, partitions) < partitions
    assert partition_of(key, 3, partitions) == partition_of(key, 4, partitions)
    assert partition_of(None, 7, partitions) == 7 % partitions


def target(measure: Measure, partitions: int = 1) -> Target:
    lane = Lane("old", PartitionLog("old", 1, partitions - 1), 100, measure)
    return Target("new", "old", (lane,), partitions)


def condition(
    partitions: int | None = 1, held: int = 0, settings: Mapping[str, str] | None = None
) -> Condition:
    return Condition(partitions, held, {n.replace("_", "."): value for n, value in (settings or {}).items()})


FINE = Measure(10, 1_000, 200, NOW_MS - DAY_MS, NOW_MS - 5, 0, 0)

TABLE: list[tuple[Measure, Mapping[str, str], str | None]] = [
    (FINE, {}, None),
    (FINE._replace(first_timestamp_ms=NOW_MS - 8 * DAY_MS), {}, "retention.ms=-1"),
    (FINE._replace(first_timestamp_ms=NOW_MS - 8 * DAY_MS), {"retention_ms": "-1"}, None),
    (FINE._replace(first_timestamp_ms=NOW_MS - 6 * DAY_MS), {}, None),
    (FINE._replace(first_timestamp_ms=None), {}, None),
    (
        FINE._replace(first_timestamp_ms=5),
        {"retention_ms": "-1", "message_timestamp_type": "LogAppendTime"},
        None,
    ),
    (FINE, {"message_timestamp_before_max_ms": "3600000"}, f"message.timestamp.before.max.ms={MAX_LONG}"),
    (FINE, {"message_timestamp_before_max_ms": str(2 * DAY_MS)}, None),
    (
        FINE._replace(last_timestamp_ms=NOW_MS + 2 * DAY_MS),
        {"message_timestamp_after_max_ms": "3600000"},
        f"message.timestamp.after.max.ms={MAX_LONG}",
    ),
    (FINE._replace(largest_bytes=1_048_589), {}, "max.message.bytes=1049613"),
    (FINE._replace(largest_bytes=1_048_588), {}, None),
    (FINE, {"cleanup_policy": "compact,delete"}, "cleanup.policy=delete"),
    (FINE, {"retention_bytes": "999"}, "retention.bytes=-1"),
    (FINE, {"retention_bytes": "1000"}, None),
]


@pytest.mark.parametrize(("measure", "settings", "wanted"), TABLE)
def test_a_setting_that_stands_in_the_way_is_told_with_the_value_that_would_do(
    measure: Measure, settings: Mapping[str, str], wanted: str | None
) -> None:
    found = [*problems(target(measure), condition(settings=settings), Request(), NOW_MS)]
    assert ["=".join(one.setting or ()) for one in found] == ([wanted] if wanted else [])
    for one in found:
        name, value = one.setting or ("", "")
        mended = condition(settings={**settings, name.replace(".", "_"): value})
        assert not [*problems(target(measure), mended, Request(), NOW_MS)]


@pytest.mark.parametrize(("measure", "settings", "wanted"), TABLE)
def test_a_topic_that_is_created_gets_the_settings_that_its_messages_need_and_the_plan_says_so(
    measure: Measure, settings: Mapping[str, str], wanted: str | None
) -> None:
    archived = condition(None, settings=settings)
    made = fitted(target(measure), archived, Request(), NOW_MS)
    name, _, value = (wanted or "").partition("=")
    assert made.created_with == ({name: value} if wanted else {})
    assert not [*problems(target(measure), made, Request(), NOW_MS)]
    told = [note for note in notes(target(measure), made, Request()) if " gets " in note]
    assert [note.partition(" gets ")[2].partition(" instead of ")[0] for note in told] == (
        [wanted] if wanted else []
    )
    assert all(archived.setting(name) in note for note in told)


def test_only_what_was_not_asked_for_is_fitted_to_messages() -> None:
    old = target(FINE._replace(first_timestamp_ms=NOW_MS - 8 * DAY_MS, largest_bytes=2_000_000))
    asked = Request(topic_settings={"retention.ms": "1000"})
    made = fitted(old, condition(None, settings={"retention_ms": "1000"}), asked, NOW_MS)
    assert [problem.setting for problem in problems(old, made, asked, NOW_MS)] == [("retention.ms", "-1")]
    assert made.created_with == {"max.message.bytes": "2001024"}
    there = condition(1, settings={"retention_ms": "1000"})
    assert fitted(old, there, Request(), NOW_MS) == there
    for_a_time = Request(set_topic_config=True)
    assert fitted(old, condition(None), for_a_time, NOW_MS) == condition(None)


@pytest.mark.parametrize("name", sorted(NUMBERS))
@pytest.mark.parametrize("value", ["abc", "", "1.5", "1_000", "\u0661", str(2**63), "-9" + "9" * 18])
def test_a_setting_that_is_no_number_or_none_that_kafka_takes_is_told_with_its_name(
    name: str, value: str
) -> None:
    created = dataclasses.replace(condition(None, settings={name: value}), created_with={name: value})
    (found,) = problems(target(FINE), created, Request(), NOW_MS)
    assert f"{name}={value} is no number" in found.what
    assert f"--topic-config {name}=NUMBER" in found.remedy
    assert found.setting is None  # nothing that --set-topic-config would set of its own accord


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() & DEFAULTS.keys()))
def test_a_topic_that_is_there_with_a_setting_that_is_no_number_is_told(name: str) -> None:
    (found,) = problems(target(FINE), condition(settings={name: "abc"}), Request(), NOW_MS)
    assert f"its {name} is abc" in found.what


def test_settings_that_kafka_takes_are_no_problem_whatever_it_makes_of_them() -> None:
    own = {name: str(most) for name, (_, most) in NUMBERS.items()} | {
        "cleanup.policy": "delete",
        "new.one": "x",
    }
    created = dataclasses.replace(condition(None, settings=own), created_with=own)
    assert not [*problems(target(FINE), created, Request(), NOW_MS)]


def test_a_compacted_topic_without_messages_is_no_problem() -> None:
    empty = Target("new", "old", (), 1)
    assert not [*problems(empty, condition(settings={"cleanup_policy": "compact"}), Request(), NOW_MS)]


def test_all_that_stands_in_the_way_is_told_at_once() -> None:
    bad = Measure(10, 10_000, 5_000_000, 5, NOW_MS, at_zero=2)
    stands = condition(2, 7, {"retention_bytes": "1", "cleanup_policy": "compact"})
    found = [*problems(target(bad, 3), stands, Request(), NOW_MS)]
    assert len(found) == 7
    assert all(one.where == "new" and one.what and one.remedy for one in found)


def test_what_was_asked_for_is_no_problem() -> None:
    zero = FINE._replace(at_zero=3)
    assert not [*problems(target(zero), condition(), Request(skip_unsendable=True), NOW_MS)]
    assert not [*problems(target(FINE), condition(held=5), Request(append=True), NOW_MS)]
    resumed = dataclasses.replace(condition(held=5), resumed=True)
    assert not [*problems(target(FINE), resumed, Request(), NOW_MS)]
    assert not [*problems(target(FINE, 3), condition(1), Request(by_key=True), NOW_MS)]


def test_what_cannot_be_kept_is_said() -> None:
    said = notes(target(FINE), condition(settings={"message_timestamp_type": "LogAppendTime"}), Request())
    assert any("append times" in one for one in said)
    created = dataclasses.replace(condition(None), created_with={"retention.ms": "5"})
    assert any(
        "created with 1 partition and retention.ms=5" in n for n in notes(target(FINE), created, Request())
    )
    assert any("--by-key" in one for one in notes(target(FINE), condition(4), Request()))
    assert notes(target(FINE), condition(), Request()) == []


def test_hashes_spread_over_all_partitions() -> None:
    found = {partition_of(b"%d" % n, 0, 16) for n in itertools.islice(itertools.count(), 500)}
    assert found == set(range(16))
