from __future__ import annotations

import pickle

import pytest
from hypothesis import given

from hop_archive.model.message import NO_TIMESTAMP_MS, Message, TimestampType, TopicPartition
from hop_archive_tests.strategies import messages


def message(
    key: bytes | None = None,
    value: bytes | None = None,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> Message:
    return Message("gcn", 2, 7, 1_000, TimestampType.CREATE, key, value, headers)


def test_timestamp_types_have_the_numbers_of_the_kafka_protocol() -> None:
    assert {kind.name: kind.value for kind in TimestampType} == {"NONE": -1, "CREATE": 0, "APPEND": 1}
    assert NO_TIMESTAMP_MS == -1


@pytest.mark.parametrize("field", ["key", "value"])
def test_null_is_not_empty_in(field: str) -> None:
    assert message()._replace(**{field: None}) != message()._replace(**{field: b""})  # type: ignore[arg-type]  # (the name is data)


def test_null_is_not_empty_in_a_header_value() -> None:
    assert message(headers=(("note", None),)) != message(headers=(("note", b""),))


def test_the_order_of_headers_counts() -> None:
    assert message(headers=(("a", b"1"), ("b", b"2"))) != message(headers=(("b", b"2"), ("a", b"1")))


def test_a_repeated_header_counts() -> None:
    assert message(headers=(("a", b"1"),)) != message(headers=(("a", b"1"), ("a", b"1")))


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        message().value = b"other"  # type: ignore[misc]  # (that is what must fail)


def test_a_message_names_its_partition() -> None:
    assert message().topic_partition == TopicPartition("gcn", 2)
    assert str(message().topic_partition) == "gcn[2]"


def test_partitions_sort_by_topic_then_by_number_not_by_text() -> None:
    some = [TopicPartition("b", 0), TopicPartition("a", 10), TopicPartition("a", 9)]
    assert [str(partition) for partition in sorted(some)] == ["a[9]", "a[10]", "b[0]"]


def test_nothing_weighs_nothing() -> None:
    assert message().size_bytes == 0
    assert message(b"", b"", (("", None), ("", b""))).size_bytes == 0


def test_size_is_key_value_and_headers_together() -> None:
    assert message(b"12", b"345", (("name", b"67"), ("n", None))).size_bytes == 2 + 3 + 4 + 2 + 1


@given(messages())
def test_a_message_passes_from_process_to_process_unchanged(sent: Message) -> None:
    assert pickle.loads(pickle.dumps(sent)) == sent


def test_a_header_name_weighs_its_utf8_bytes() -> None:
    assert message(headers=(("größe", b""),)).size_bytes == len("größe".encode())
