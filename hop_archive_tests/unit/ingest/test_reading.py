from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import (
    CorruptError,
    GenerationChangedError,
    HopArchiveError,
    OffsetsGoneError,
    UnavailableError,
    UnreadableMessageError,
)
from hop_archive.ingest.read import STALL_S, Reading, follow, grouped, read_slices
from hop_archive.model.limits import Limits
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive_tests.strategies import offset_sets, plain

T0 = TopicPartition("t", 0)
L0 = PartitionLog("t", 1, 0)
ROOMY = Limits()


class Clock:
    """Seconds that pass only when a test lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Log:
    """One partition: the sizes of its messages by offset; the other offsets below the end are absent."""

    sizes: dict[int, int]
    end: int

    @classmethod
    def full(cls, count: int, size_bytes: int = 1) -> Log:
        return cls(dict.fromkeys(range(count), size_bytes), count)

    def after(self, offset: int, count: int) -> list[int]:
        held = (o for o in range(offset, self.end) if o in self.sizes)
        return list(itertools.islice(held, count))


@dataclass
class ScriptedReader:
    """A Reader over logs in memory. A poll that finds nothing takes its whole timeout, on the fake clock.

    Partitions share each poll, so that all fill together. It passes over trailing absent offsets only in a poll
    that delivers nothing of that partition, which is the latest that the contract allows to tell. An error is
    raised by the poll after the one that delivered what stands before it, whatever was released meanwhile.
    """

    logs: dict[TopicPartition, Log]
    clock: Clock
    errors: dict[TopicPartition, HopArchiveError] = field(default_factory=dict)
    error_at: int = 0
    stuck: frozenset[TopicPartition] = frozenset()
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    assigned: list[TopicPartition] = field(default_factory=list)
    due: list[HopArchiveError] = field(default_factory=list)
    polled: list[list[Message]] = field(default_factory=list)
    polled_bytes: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        for at, start in starts.items():
            self.positions[at] = start
            if at not in self.assigned:
                self.assigned.append(at)

    def release(self, partitions: Collection[TopicPartition]) -> None:
        self.assigned = [at for at in self.assigned if at not in partitions]

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        if self.due:
            raise self.due.pop()
        found: list[Message] = []
        share = -(-max_messages // max(1, len(self.assigned)))
        for at in self.assigned:
            found += self._take(at, min(share, max_messages - len(found)))
        self.assigned = self.assigned[1:] + self.assigned[:1]
        self._notice_errors()
        if self.due and not found:
            raise self.due.pop()
        self.polled.append(found)
        self.polled_bytes += sum(m.size_bytes for m in found)
        if not found:
            self.clock.now += timeout_s
        return found

    def position(self, partition: TopicPartition) -> int:
        return self.positions[partition]

    def _notice_errors(self) -> None:
        for at in list(self.assigned):
            if at in self.errors and self.positions[at] >= self.error_at:
                self.release([at])
                self.due.append(self.errors.pop(at))

    def _take(self, at: TopicPartition, count: int) -> list[Message]:
        if at in self.stuck or count == 0:
            return []
        log, start = self.logs[at], self.positions[at]
        limit = count if at not in self.errors else min(count, max(0, self.error_at - start))
        offsets = log.after(start, limit)
        if limit:
            self.positions[at] = offsets[-1] + 1 if offsets else max(start, log.end)
        return [message(at, offset, log.sizes[offset]) for offset in offsets]


def message(at: TopicPartition, offset: int, size_bytes: int = 1) -> Message:
    return Message(*at, offset, 0, TimestampType.CREATE, None, bytes(size_bytes))


def read(
    reader: ScriptedReader, slices: Iterable[Slice], limits: Limits = ROOMY, stall_s: float = STALL_S
) -> list[Reading]:
    return list(read_slices(reader, slices, limits, reader.clock, stall_s))


def one(log: Log, **script: object) -> ScriptedReader:
    return ScriptedReader({T0: log}, Clock(), **script)  # type: ignore[arg-type]  # (fields by name)


def ends(readings: Iterable[Reading]) -> list[tuple[int, int]]:
    return [(r.slice.start, r.slice.stop) for r in readings]


def offsets(readings: Iterable[Reading]) -> list[int]:
    return [m.offset for r in readings for m in r.messages]


def test_no_slices_give_no_readings() -> None:
    assert read(one(Log.full(3)), []) == []


def test_a_slice_that_fits_is_one_reading() -> None:
    (found,) = read(one(Log.full(10)), [L0.slices(OffsetSet.between(2, 7))[0]])
    assert found.slice == Slice("t", 1, 0, 2, 7)
    assert offsets([found]) == [2, 3, 4, 5, 6]
    assert found.size_bytes == 5


def test_readings_are_cut_exactly_at_the_limit_of_messages() -> None:
    found = read(one(Log.full(10)), [Slice("t", 1, 0, 0, 10)], Limits(batch_messages=4))
    assert ends(found) == [(0, 4), (4, 8), (8, 10)]


def test_what_comes_later_fills_a_reading_up_to_the_limit_of_messages_and_no_further() -> None:
    limits = Limits(batch_messages=4, poll_messages=3)
    assert ends(read(one(Log.full(10)), [Slice("t", 1, 0, 0, 10)], limits)) == [(0, 4), (4, 8), (8, 10)]


def test_of_messages_that_come_together_each_partition_is_given_the_weight_of_its_own() -> None:
    light, heavy = T0, TopicPartition("t", 1)
    reader = ScriptedReader({light: Log.full(3, size_bytes=1), heavy: Log.full(3, size_bytes=50)}, Clock())
    found = read(reader, [Slice("t", 1, 0, 0, 3), Slice("t", 1, 1, 0, 3)])
    assert {r.slice.partition: r.size_bytes for r in found} == {0: 3, 1: 150}


def test_a_limit_reached_at_the_end_makes_no_empty_reading() -> None:
    found = read(one(Log.full(8)), [Slice("t", 1, 0, 0, 8)], Limits(batch_messages=4))
    assert ends(found) == [(0, 4), (4, 8)]


def test_a_reading_is_closed_once_it_weighs_as_much_as_the_limit_of_bytes() -> None:
    log = Log({0: 4, 1: 5, 2: 1, 3: 99, 4: 9, 5: 1}, 6)
    found = read(one(log), [Slice("t", 1, 0, 0, 6)], Limits(batch_bytes=10))
    assert ends(found) == [(0, 3), (3, 4), (4, 6)]


def test_offsets_for_which_nothing_comes_belong_to_a_reading_too() -> None:
    log = Log({2: 1, 3: 1, 7: 1}, 10)
    found = read(one(log), [Slice("t", 1, 0, 0, 10)], Limits(batch_messages=2))
    assert ends(found) == [(0, 4), (4, 10)]
    assert offsets(found) == [2, 3, 7]


def test_markers_after_the_last_full_reading_make_one_without_messages() -> None:
    found = read(one(Log({0: 1, 1: 1}, 5)), [Slice("t", 1, 0, 0, 5)], Limits(batch_messages=2))
    assert ends(found) == [(0, 2), (2, 5)]
    assert found[1].messages == ()


def test_a_slice_without_any_message_is_read_to_its_end() -> None:
    (found,) = read(one(Log({}, 5)), [Slice("t", 1, 0, 0, 5)])
    assert (found.slice.start, found.slice.stop, found.messages) == (0, 5, ())


def test_nothing_beyond_a_slice_is_delivered_though_more_is_there() -> None:
    found = read(one(Log({4: 1, 9: 1}, 20)), [Slice("t", 1, 0, 0, 8)])
    assert ends(found) == [(0, 8)]
    assert offsets(found) == [4]


@pytest.mark.parametrize("starts", [[(0, 3), (3, 6)], [(0, 2), (5, 6)], [(0, 1), (2, 3), (4, 5)]])
def test_several_slices_of_a_partition_are_read_in_turn(starts: list[tuple[int, int]]) -> None:
    found = read(one(Log.full(10)), [Slice("t", 1, 0, *ends_) for ends_ in starts])
    assert ends(found) == starts
    assert offsets(found) == [o for ends_ in starts for o in range(*ends_)]


def test_partitions_are_let_go_once_read() -> None:
    reader = one(Log.full(3))
    read(reader, [Slice("t", 1, 0, 0, 3)])
    assert reader.assigned == []


logs = st.builds(
    lambda held, beyond: Log({o: 1 + o % 5 for o in plain(held)}, max(30, held.stop) + beyond),
    offset_sets,
    st.integers(0, 5),
)
numbers = st.integers(0, 2)
limits = st.builds(
    Limits, batch_messages=st.integers(1, 8), batch_bytes=st.integers(1, 30), buffer_bytes=st.integers(1, 60)
)


@given(st.dictionaries(numbers, st.tuples(logs, offset_sets), max_size=3), limits)
def test_readings_tile_the_slices_and_hold_every_message_once_in_order(
    wanted: dict[int, tuple[Log, OffsetSet]], limits: Limits
) -> None:
    reader = ScriptedReader({TopicPartition("t", n): log for n, (log, _) in wanted.items()}, Clock())
    slices = [s for n, (_, held) in wanted.items() for s in PartitionLog("t", 1, n).slices(held)]
    found = read(reader, slices, limits)
    for number, (log, held) in wanted.items():
        mine = [r for r in found if r.slice.partition == number]
        assert [o for r in mine for o in range(r.slice.start, r.slice.stop)] == sorted(plain(held))
        assert offsets(mine) == [o for o in sorted(plain(held)) if o in log.sizes]
        assert all(r.slice.start <= m.offset < r.slice.stop for r in mine for m in r.messages)


@given(logs, offset_sets, limits)
def test_no_reading_exceeds_its_limits_by_more_than_its_last_message(
    log: Log, held: OffsetSet, limits: Limits
) -> None:
    for found in read(one(log), L0.slices(held), limits):
        assert len(found.messages) <= limits.batch_messages
        assert sum(m.size_bytes for m in found.messages[:-1]) < limits.batch_bytes


def held_bytes(reader: ScriptedReader, readings: Iterator[Reading]) -> Iterator[int]:
    """What is held between polls: polled, and not handed over yet."""
    handed = 0
    for found in readings:
        handed += found.size_bytes
        yield reader.polled_bytes - handed


def test_readings_in_the_making_of_many_partitions_hold_no_more_than_the_buffer() -> None:
    buffer = Limits(batch_messages=10_000, batch_bytes=10**9, buffer_bytes=50_000)
    partitions = [TopicPartition("t", n) for n in range(50)]
    reader = ScriptedReader({at: Log.full(200, size_bytes=100) for at in partitions}, Clock())
    slices = [Slice(at.topic, 1, at.partition, 0, 200) for at in partitions]
    readings = read_slices(reader, slices, buffer, reader.clock)
    greatest = max(held_bytes(reader, readings))
    one_poll = max(sum(m.size_bytes for m in polled) for polled in reader.polled)
    assert greatest <= buffer.buffer_bytes + one_poll
    assert reader.polled_bytes == 50 * 200 * 100


def test_the_larger_the_messages_the_fewer_are_asked_for_at_a_time() -> None:
    buffer = Limits(batch_messages=10_000, batch_bytes=10**9, buffer_bytes=80_000)
    reader = one(Log.full(1_000, size_bytes=1_000))
    read(reader, [Slice("t", 1, 0, 0, 1_000)], buffer)
    assert all(len(polled) <= 10 for polled in reader.polled[1:])


def test_small_messages_are_asked_for_by_the_thousand() -> None:
    reader = one(Log.full(20_000))
    read(reader, [Slice("t", 1, 0, 0, 20_000)])
    assert max(map(len, reader.polled)) == 5_000


def test_one_message_larger_than_every_limit_is_a_reading_of_its_own() -> None:
    log = Log({0: 1, 1: 5_000, 2: 1}, 3)
    tight = Limits(batch_messages=10, batch_bytes=100, buffer_bytes=100)
    assert ends(read(one(log), [Slice("t", 1, 0, 0, 3)], tight)) == [(0, 1), (1, 2), (2, 3)]


def gone(offset: int) -> OffsetsGoneError:
    return OffsetsGoneError("gone", topic="t", partition=0, offset=offset)


def test_where_offsets_are_gone_what_was_read_comes_and_the_rest_does_not() -> None:
    reader = one(Log.full(10), errors={T0: gone(4)}, error_at=4)
    found = read(reader, [Slice("t", 1, 0, 0, 6), Slice("t", 1, 0, 8, 10)])
    assert ends(found) == [(0, 4)]
    assert offsets(found) == [0, 1, 2, 3]


def test_where_offsets_are_gone_from_the_start_nothing_comes() -> None:
    reader = one(Log.full(10), errors={T0: gone(0)}, error_at=0)
    assert read(reader, [Slice("t", 1, 0, 0, 6)]) == []


@pytest.mark.parametrize("error", [gone(4), GenerationChangedError("deleted", topic="t", partition=0)])
def test_other_partitions_are_read_on_when_one_fails(error: HopArchiveError) -> None:
    other, elsewhere = TopicPartition("t", 1), TopicPartition("u", 0)
    held = {at: Log.full(300) for at in (T0, other, elsewhere)}
    reader = ScriptedReader(held, Clock(), errors={T0: error}, error_at=4)
    found = read(reader, [Slice(at.topic, 1, at.partition, 0, 300) for at in held])
    by_partition = {at: [r for r in found if r.slice.topic_partition == at] for at in held}
    assert offsets(by_partition[other]) == offsets(by_partition[elsewhere]) == list(range(300))
    assert offsets(by_partition[T0]) in ([], [0, 1, 2, 3])


def test_a_deleted_topic_takes_all_its_partitions_and_what_was_read_of_them() -> None:
    held = {at: Log.full(500) for at in (T0, TopicPartition("t", 1), TopicPartition("u", 0))}
    deleted = GenerationChangedError("deleted", topic="t")
    reader = ScriptedReader(held, Clock(), errors={T0: deleted}, error_at=10)
    found = read(reader, [Slice(at.topic, 1, at.partition, 0, 500) for at in held])
    assert {r.slice.topic for r in found} == {"u"}
    assert offsets(found) == list(range(500))
    assert reader.assigned == []


def test_readings_handed_over_before_a_topic_was_deleted_stand() -> None:
    reader = one(Log.full(10), errors={T0: GenerationChangedError("deleted", topic="t")}, error_at=7)
    found = read(reader, [Slice("t", 1, 0, 0, 10)], Limits(batch_messages=3))
    assert ends(found) == [(0, 3), (3, 6)]


def test_a_damaged_message_is_told_when_all_else_is_read_up_to_it_and_of_others() -> None:
    other = TopicPartition("t", 1)
    damaged = CorruptError("damaged", topic="t", partition=0, offset=4)
    reader = ScriptedReader(
        {T0: Log.full(10), other: Log.full(300)}, Clock(), errors={T0: damaged}, error_at=4
    )
    found: list[Reading] = []
    with pytest.raises(CorruptError, match="damaged"):
        found.extend(
            read_slices(reader, [Slice("t", 1, 0, 0, 10), Slice("t", 1, 1, 0, 300)], ROOMY, reader.clock)
        )
    assert offsets(r for r in found if r.slice.partition == 0) == [0, 1, 2, 3]
    assert offsets(r for r in found if r.slice.partition == 1) == list(range(300))


def unreadable(offset: int) -> UnreadableMessageError:
    return UnreadableMessageError("unreadable", topic="t", partition=0, offset=offset, why="no UTF-8")


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, [(0, 1, "no UTF-8"), (1, 10, "")]),
        (4, [(0, 4, ""), (4, 5, "no UTF-8"), (5, 10, "")]),
        (9, [(0, 9, ""), (9, 10, "no UTF-8")]),
    ],
)
def test_a_message_that_cannot_be_represented_is_a_reading_of_its_own_that_says_why(
    offset: int, expected: list[tuple[int, int, str]]
) -> None:
    reader = one(Log.full(10), errors={T0: unreadable(offset)}, error_at=offset)
    found = read(reader, [Slice("t", 1, 0, 0, 10)])
    assert [(r.slice.start, r.slice.stop, r.skipped) for r in found] == expected
    assert offsets(found) == [o for o in range(10) if o != offset]


def test_an_unreadable_message_beyond_the_slice_is_none_of_its_business() -> None:
    reader = one(Log.full(10), errors={T0: unreadable(6)}, error_at=6)
    found = read(reader, [Slice("t", 1, 0, 0, 6), Slice("t", 1, 0, 8, 10)])
    assert ends(found) == [(0, 6), (8, 10)]


def test_an_unreadable_message_of_a_partition_that_was_read_holds_up_no_other() -> None:
    held = {T0: Log.full(10), TopicPartition("t", 1): Log.full(300)}
    reader = ScriptedReader(held, Clock(), errors={T0: unreadable(6)}, error_at=6)
    found = read(reader, [Slice("t", 1, 0, 0, 6), Slice("t", 1, 1, 0, 300)])
    assert offsets(r for r in found if r.slice.partition == 1) == list(range(300))


def test_following_goes_on_after_a_message_that_cannot_be_represented() -> None:
    following = Following(one(Log.full(10), errors={T0: unreadable(4)}, error_at=4))
    found: list[Reading] = []
    while len(found) < 3:
        found += following.until_something()
    assert [(r.slice.start, r.slice.stop, r.skipped) for r in found] == [
        (0, 4, ""),
        (4, 5, "no UTF-8"),
        (5, 10, ""),
    ]


def test_a_partition_that_stands_still_is_given_up_with_where_and_how_long() -> None:
    reader = one(Log.full(10), stuck=frozenset({T0}))
    with pytest.raises(UnavailableError, match=r"t\[0\] stands at offset 2 for 5 s") as caught:
        read(reader, [Slice("t", 1, 0, 2, 6)], stall_s=5.0)
    assert caught.value.facts == {"topic": "t", "partition": 0, "offset": 2}
    assert 5.0 < reader.clock.now - 100.0 < 7.0


def test_a_partition_that_stands_still_after_another_was_read_is_given_up_too() -> None:
    other = TopicPartition("t", 1)
    held = {T0: Log.full(10), other: Log.full(10)}
    reader = ScriptedReader(held, Clock(), stuck=frozenset({other}))
    readings = read_slices(reader, [Slice("t", 1, n, 0, 10) for n in (0, 1)], Limits(), reader.clock, 5.0)
    assert next(readings).slice == Slice("t", 1, 0, 0, 10)
    with pytest.raises(UnavailableError, match=r"t\[1\]"):
        next(readings)


def slowly(reader: ScriptedReader, readings: Iterator[Reading], pause_s: float) -> Iterator[Reading]:
    """Consume as a slow store does: the clock runs on while each reading is being written."""
    for found in readings:
        reader.clock.now += pause_s
        yield found


@pytest.mark.parametrize("batch_messages", [100, 4])
def test_a_consumer_that_takes_its_time_is_no_stall(batch_messages: int) -> None:
    reader = one(Log.full(10))
    limits = Limits(batch_messages=batch_messages)
    readings = read_slices(reader, [Slice("t", 1, 0, 0, 10)], limits, reader.clock, 5.0)
    assert offsets(slowly(reader, readings, 60.0)) == list(range(10))


def test_a_slow_consumer_of_many_partitions_is_no_stall() -> None:
    held = {TopicPartition("t", n): Log.full(400) for n in range(3)}
    reader = ScriptedReader(held, Clock())
    slices = [Slice("t", 1, n, 0, 400) for n in range(3)]
    readings = read_slices(reader, slices, Limits(batch_messages=50), reader.clock, 5.0)
    assert len(offsets(slowly(reader, readings, 60.0))) == 1_200


@dataclass
class Following:
    """Runs ``follow`` step by step, while the test lets messages arrive."""

    reader: ScriptedReader
    limits: Limits = ROOMY
    linger_s: float = 1.0
    over: bool = False

    def __post_init__(self) -> None:
        starts = {PartitionLog(at.topic, 1, at.partition): 0 for at in self.reader.logs}
        self.groups = follow(
            self.reader, starts, self.limits, self.reader.clock, lambda: self.over, self.linger_s
        )

    def until_something(self, polls: int = 100) -> list[Reading]:
        for _ in range(polls):
            if found := next(self.groups):
                return found
        return []

    def end(self) -> list[Reading]:
        self.over = True
        return [r for group in self.groups for r in group]


def arrive(log: Log, count: int) -> None:
    log.sizes.update(dict.fromkeys(range(log.end, log.end + count), 1))
    log.end += count


def test_following_hands_over_what_came_after_it_lingered() -> None:
    log = Log.full(3)
    following = Following(one(log))
    start = following.reader.clock.now
    (found,) = following.until_something()
    assert (found.slice, offsets([found])) == (Slice("t", 1, 0, 0, 3), [0, 1, 2])
    assert 1.0 <= following.reader.clock.now - start <= 1.5


def test_what_arrives_while_lingering_joins_the_reading() -> None:
    log = Log.full(1)
    following = Following(one(log))
    assert next(following.groups) == []
    arrive(log, 2)
    (found,) = following.until_something()
    assert offsets([found]) == [0, 1, 2]


def test_a_trickle_does_not_put_off_the_reading_for_ever() -> None:
    log = Log.full(1)
    following = Following(one(log))
    for _ in range(10):
        following.reader.clock.now += 0.2
        arrive(log, 1)
        if found := next(following.groups):
            break
    assert found
    assert following.reader.clock.now <= 100.0 + 1.5


def test_a_reading_that_is_full_does_not_linger() -> None:
    following = Following(one(Log.full(7)), Limits(batch_messages=3))
    found = next(following.groups)
    assert ends(found) == [(0, 3), (3, 6)]
    assert ends(following.until_something()) == [(6, 7)]


def test_following_goes_on_where_it_was() -> None:
    log = Log.full(2)
    following = Following(one(log))
    assert ends(following.until_something()) == [(0, 2)]
    arrive(log, 3)
    assert ends(following.until_something()) == [(2, 5)]
    assert following.until_something(polls=20) == []


def test_following_ends_on_stop_with_everything_handed_over_that_was_read() -> None:
    log = Log.full(5)
    following = Following(one(log))
    assert next(following.groups) == []
    assert ends(following.end()) == [(0, 5)]


def test_following_that_is_over_before_it_began_gives_nothing() -> None:
    assert Following(one(Log.full(5))).end() == []


def test_markers_join_the_reading_of_the_messages_before_them() -> None:
    following = Following(one(Log({0: 1, 1: 1}, 4)))
    assert ends(following.until_something()) == [(0, 4)]


def test_markers_alone_come_alone_once_they_have_lingered() -> None:
    following = Following(one(Log({}, 4)))
    start = following.reader.clock.now
    (found,) = following.until_something()
    assert (found.slice, found.messages) == (Slice("t", 1, 0, 0, 4), ())
    assert following.reader.clock.now - start >= 1.0


def test_markers_alone_join_the_messages_that_come_while_they_linger() -> None:
    log = Log({}, 4)
    following = Following(one(log))
    first = next(following.groups)
    arrive(log, 2)
    assert ends([*first, *following.until_something()]) == [(0, 6)]


def test_markers_alone_are_handed_over_when_following_ends() -> None:
    following = Following(one(Log({}, 4)))
    first = next(following.groups)
    assert ends([*first, *following.end()]) == [(0, 4)]


def test_following_ends_when_offsets_are_gone_with_everything_handed_over_that_was_read() -> None:
    held = {T0: Log.full(10), TopicPartition("u", 0): Log.full(3)}
    following = Following(ScriptedReader(held, Clock(), errors={T0: gone(4)}, error_at=4))
    found = [r for group in itertools.islice(following.groups, 100) for r in group]
    assert next(following.groups, None) is None
    assert offsets(r for r in found if r.slice.topic == "t") == [0, 1, 2, 3]
    assert offsets(r for r in found if r.slice.topic == "u") == [0, 1, 2]


def test_following_ends_when_a_topic_is_deleted_and_what_was_read_of_it_is_void() -> None:
    held = {T0: Log.full(10), TopicPartition("u", 0): Log.full(3)}
    deleted = GenerationChangedError("deleted", topic="t")
    following = Following(ScriptedReader(held, Clock(), errors={T0: deleted}, error_at=4))
    found = [r for group in itertools.islice(following.groups, 100) for r in group]
    assert next(following.groups, None) is None
    assert [(r.slice.topic, len(r.messages), r.is_void) for r in found] == [("t", 4, True), ("u", 3, False)]


def test_no_more_messages_are_asked_for_at_a_time_than_the_limit() -> None:
    reader = one(Log.full(100))
    found = read(reader, [Slice("t", 1, 0, 0, 100)], Limits(poll_messages=7))
    assert offsets(found) == list(range(100))
    assert max(map(len, reader.polled)) == 7


def test_following_ends_by_itself_when_nothing_is_left_to_follow() -> None:
    deleted = GenerationChangedError("deleted", topic="t")
    following = Following(one(Log.full(10), errors={T0: deleted}, error_at=4))
    assert [r.is_void for group in following.groups for r in group] == [True]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=25), limits)
def test_following_hands_over_every_offset_once_in_order(
    arrivals: list[tuple[int, bool]], limits: Limits
) -> None:
    log = Log({}, 0)
    following = Following(one(log), limits)
    found: list[Reading] = []
    for count, marked in arrivals:
        arrive(log, count)
        log.end += marked
        found += next(following.groups)
    found += next(following.groups)
    found += following.end()
    reached = following.reader.positions[T0]
    assert [o for r in found for o in range(r.slice.start, r.slice.stop)] == list(range(reached))
    assert offsets(found) == [o for o in sorted(log.sizes) if o < reached]


def reading(start: int, sizes: Sequence[int]) -> Reading:
    held = tuple(message(T0, start + n, size) for n, size in enumerate(sizes))
    weight = sum(m.size_bytes for m in held)
    return Reading(Slice("t", 1, 0, start, start + max(1, len(sizes))), held, size_bytes=weight)


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=12), limits)
def test_groups_hold_all_readings_in_order_and_no_more_than_one_batch(
    sizes: list[list[int]], limits: Limits
) -> None:
    readings = [reading(n * 10, some) for n, some in enumerate(sizes)]
    groups = list(grouped(readings, limits))
    assert [r for group in groups for r in group] == readings
    for group in groups:
        assert group
        fits = sum(len(r.messages) for r in group) <= limits.batch_messages
        light = sum(r.size_bytes for r in group) <= limits.batch_bytes
        assert (fits and light) or len(group) == 1


def test_small_readings_share_a_group() -> None:
    assert [len(g) for g in grouped([reading(n * 10, [1, 1]) for n in range(5)], Limits())] == [5]


def test_a_reading_too_many_begins_a_new_group() -> None:
    readings = [reading(n * 10, [1, 1]) for n in range(5)]
    assert [len(g) for g in grouped(readings, Limits(batch_messages=4))] == [2, 2, 1]
    assert [len(g) for g in grouped(readings, Limits(batch_bytes=5))] == [2, 2, 1]


def test_groups_are_handed_over_before_the_next_reading_is_asked_for_twice() -> None:
    def endless() -> Iterator[Reading]:
        start = 0
        while True:
            yield reading(start, [1, 1])
            start += 10

    groups = grouped(endless(), Limits(batch_messages=4))
    assert [len(next(groups)) for _ in range(3)] == [2, 2, 2]
