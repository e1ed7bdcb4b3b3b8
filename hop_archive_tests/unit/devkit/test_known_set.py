"""The known set: every oddity is in it, under its name, the same for the same seed, and archived as it should be."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.known_set import END, LARGE_BYTES, NAME_HEADER, known_cases, known_set
from hop_archive.devkit.prove import prove
from hop_archive.devkit.samples import Sample
from hop_archive.ingest.follow import catch_up
from hop_archive.model.identity import client_uuid
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.upkeep.verify.sent import sent_by_place
from hop_archive_tests.worlds import exhausted

NOW_MS = 1_790_000_000_000
SET = list(known_set("t", now_ms=NOW_MS, partitions=2))
BY_NAME = {one.kind: one for one in SET}


def header(name: str, of: str) -> list[bytes | None]:
    return [value for found, value in BY_NAME[name].headers if found == of]


def names(test: Callable[[Sample], bool]) -> set[str]:
    return {one.kind for one in SET if test(one)}


def test_every_message_says_its_name() -> None:
    for one in SET:
        assert [value for name, value in one.headers if name == NAME_HEADER] == [one.kind.encode()]


def test_every_case_says_what_is_odd_about_it() -> None:
    assert all(case.about for case in known_cases(now_ms=NOW_MS))


def test_the_same_seed_gives_the_same_content_whatever_the_time() -> None:
    later = known_set("t", now_ms=NOW_MS + 12_345, partitions=2)
    assert [replace(one, timestamp_ms=0) for one in later] == [replace(one, timestamp_ms=0) for one in SET]


def test_another_seed_shares_no_id() -> None:
    def ids(some: list[Sample]) -> set[uuid.UUID | None]:
        return {client_uuid(one.headers) for one in some} - {None}

    others = ids(list(known_set("t", now_ms=NOW_MS, seed=1)))
    assert others
    assert others.isdisjoint(ids(SET))


def test_each_partition_ends_with_an_end_marker_of_its_own() -> None:
    ends = SET[-2:]
    assert [(one.kind, one.partition) for one in ends] == [(END, 0), (END, 1)]
    assert ends[0].value != ends[1].value
    assert END not in {one.kind for one in SET[:-2]}


def test_messages_without_a_key_take_turns_in_the_partitions() -> None:
    spread = Counter(one.partition for one in SET if one.key is None)
    assert spread.keys() == {0, 1}
    assert abs(spread[0] - spread[1]) < 10


@pytest.mark.parametrize("name", ["voevent", "gcntextnotice", "circular", "blob", "json", "avro", "external"])
def test_each_format_has_an_ordinary_alert(name: str) -> None:
    assert header(f"format-{name}", "_format") == [name.encode()]
    assert len(BY_NAME[f"format-{name}"].value or b"") > 50


def test_an_id_is_missing_empty_null_text_short_long_and_several() -> None:
    assert header("no-id", "_id") == []
    assert header("empty-id", "_id") == [b""]
    assert header("null-id", "_id") == [None]
    (text,) = header("text-id", "_id")
    assert uuid.UUID((text or b"").decode())
    assert [len(header(name, "_id")[0] or b"") for name in ("short-id", "long-id")] == [15, 17]
    first, second = header("several-ids", "_id")
    assert first != second
    assert client_uuid(BY_NAME["several-ids"].headers) == uuid.UUID(bytes=first)
    assert client_uuid(BY_NAME["several-ids-first-bad"].headers) is not None
    assert client_uuid(BY_NAME["several-ids-all-bad"].headers) is None


def test_colliding_ids_have_other_content_and_copies_the_same() -> None:
    colliding = [one for one in SET if one.kind.startswith("colliding-id")]
    assert len({client_uuid(one.headers) for one in colliding}) == 1
    assert len({(one.key, one.value, one.headers) for one in colliding}) == len(colliding) == 4
    copies = [one for one in SET if one.kind == "duplicate"]
    assert len(copies) == 3
    assert len({(one.key, one.value, one.headers) for one in copies}) == 1


def test_keys_and_values_are_null_and_empty() -> None:
    assert names(lambda one: one.key == b"") == {"empty-key"}
    assert names(lambda one: one.value is None) == {"null-value", "null-value-null-key"}
    assert names(lambda one: one.value == b"") == {"empty-value"}
    assert BY_NAME["null-value"].key is not None
    assert [BY_NAME[name].value for name in ("empty-list", "empty-object")] == [b"[]", b"{}"]
    assert len(BY_NAME["large-value"].value or b"") == LARGE_BYTES


def test_headers_are_many_repeated_null_empty_binary_and_foreign() -> None:
    assert len(BY_NAME["many-headers"].headers) == 301
    found = [name for name, _ in BY_NAME["repeated-header-names"].headers]
    assert Counter(found)["b"] == Counter(found)["a"] == 2
    assert header("null-header-values", "title") == [None]
    assert header("empty-header-values", "title") == [b""]
    assert header("binary-header-values", "note") == [bytes(range(256))]
    assert names(lambda one: any(not name.isascii() for name, _ in one.headers)) == {"non-ascii-header-names"}


def test_times_are_absent_old_and_ahead() -> None:
    times = {one.kind: one.timestamp_ms or 0 for one in SET if one.kind.startswith("timestamp-")}
    assert times["timestamp-none"] == -1
    assert times["timestamp-before-1970"] < -1
    assert 0 < times["timestamp-in-2001"] < NOW_MS < times["timestamp-in-half-an-hour"]
    assert times["timestamp-in-2100"] > NOW_MS


def archived(some: list[Sample]) -> tuple[Archive, dict[str, int]]:
    archive = Archive(MockSource(), MockCatalog(), MockStore())
    archive.source.create_topic("t", 2)
    sent = sent_by_place(some, archive.source.publish(some))
    exhausted(catch_up(archive))
    (proof,) = prove(archive, ["t"], sent)
    assert proof.holds, proof
    (summary,) = archive.catalog.summaries()
    collisions = len(archive.catalog.collisions("t"))
    return archive, {"messages": summary.messages, "duplicates": summary.duplicates, "collisions": collisions}


def test_the_set_is_archived_whole_with_three_duplicates_and_three_collisions() -> None:
    _, counts = archived(SET)
    assert counts == {"messages": len(SET) - 3, "duplicates": 3, "collisions": 3}


def test_a_set_that_is_sent_again_is_duplicates_where_it_has_ids() -> None:
    again = list(known_set("t", now_ms=NOW_MS + 60_000, partitions=2))
    with_id = sum(client_uuid(one.headers) is not None for one in SET)
    _, counts = archived([*SET, *again])
    # Colliding messages are archived under UUIDs that the archive derives from their times: those are new.
    timed = sum(one.timestamp_ms == again[n].timestamp_ms for n, one in enumerate(SET))
    assert counts["duplicates"] == 3 + 1 + (with_id - 3) + timed
