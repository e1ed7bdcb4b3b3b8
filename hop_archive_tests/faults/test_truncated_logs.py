"""Logs that lose their end, as power loss and unclean elections leave them, and grow past it again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import GONE, UNPROVEN, Batch, Outcome
from hop_archive.devkit.faults import Fault, Faults, When
from hop_archive.errors import ForbiddenError, HopArchiveError, ProofChangedError, UnavailableError
from hop_archive.ingest import truncation
from hop_archive.ingest.follow import archive_continuously, catch_up
from hop_archive.ingest.plan import Knowledge
from hop_archive.ingest.read import Reading
from hop_archive.ingest.survey import HELD_BEFORE, OUTLIVED, OVERTAKEN, READ_NEXT, look, plan_work, survey
from hop_archive.ingest.write import Done, archive_slices, commit_batches, store_slices
from hop_archive.model.document import decode
from hop_archive.model.findings import FindingRecord, Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Answers
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import NOT_LOOKED_AT, Verification
from hop_archive_tests.invariants import assert_archived, assert_ledger_is_sound, fetched
from hop_archive_tests.worlds import BUSY, World, at_call, awkward_world, exhausted, fill, ticking

TOPIC = "cut"


def world_of(count: int = 10) -> World:
    world = World()
    world.cluster.create_topic(TOPIC)
    send(world, "old", count)
    return world


def send(world: World, life: str, count: int) -> None:
    for number in range(count):
        world.cluster.append(TOPIC, f"{life} {number}".encode())


def lose_end(world: World, stop: int = 6, new: int = 8) -> None:
    world.cluster.lose_end(TOPIC, 0, stop)
    send(world, "new", new)


def values(world: World, generation: int) -> list[str]:
    """The values archived of a generation, in order of their offsets; of a duplicate, that of what it repeats."""
    bodies = {row.uuid: decode(fetched(world.store, row)).message.value for row in world.catalog.rows(TOPIC)}
    places = {row.offset: row.uuid for row in world.catalog.rows(TOPIC) if row.generation == generation} | {
        one.offset: one.uuid for at, one in world.catalog.duplicates(TOPIC) if at.generation == generation
    }
    return [str(bodies[places[offset]], "utf-8") for offset in sorted(places)]  # type: ignore[arg-type, type-var]


def truncations(world: World) -> list[FindingRecord]:
    return list(world.catalog.findings([TOPIC], [Kind.LOG_TRUNCATED]))


def test_what_another_run_archived_since_the_survey_is_compared_by_the_next_plan() -> None:
    world, log = world_of(), PartitionLog(TOPIC, 1, 0)
    exhausted(catch_up(world.archive()))
    at = TopicPartition(TOPIC, 0)
    marks = world.archive().source.watermarks([at])[at]
    before = Knowledge(marks, coverage=OffsetSet.between(0, 4))
    proof = truncation.prove_tails(world.archive(), {log: before})
    assert (proof.same, proof.other, proof.left) == ({log}, {}, {})


def assert_both_lives(
    world: World, old: int = 10, kept: int = 6, new: int = 8, end: int = 10, observed: int = 10
) -> None:
    assert values(world, 1) == [f"old {n}" for n in range(old)]
    assert values(world, 2) == [f"old {n}" for n in range(kept)] + [f"new {n}" for n in range(new)]
    assert not survey(world.archive()).pending()
    assert not survey(world.archive()).unproven()
    lost = [entry.slice for entry in world.catalog.ledger([TOPIC]) if entry.outcome is Outcome.LOST]
    assert lost == ([] if observed == end else [Slice(TOPIC, 1, 0, end, observed)])
    assert_ledger_is_sound(world.catalog.ledger([TOPIC]))
    (finding,) = truncations(world)
    place = finding.finding.slice
    assert place is not None
    assert place.partition_log == PartitionLog(TOPIC, 1, 0)
    assert kept <= place.start < place.stop == end


def test_a_log_that_another_run_begins_while_a_plan_looks_and_that_loses_its_end_is_archived_whole() -> None:
    world = world_of()

    def meanwhile() -> None:
        exhausted(catch_up(world.archive(run_id="the other")))
        lose_end(world)

    plan_work(world.archive(at_call("catalog.coverage", meanwhile)))
    exhausted(catch_up(world.archive()))
    assert_both_lives(world)


@pytest.mark.parametrize("new", [8, 4, 2])
def test_a_log_that_lost_its_end_is_a_new_generation_whether_it_grew_past_it_to_it_or_not(new: int) -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    lose_end(world, new=new)
    exhausted(catch_up(world.archive()))
    assert_both_lives(world, new=new)
    exhausted(catch_up(world.archive()))
    assert len(world.catalog.generations([TOPIC])[TOPIC]) == 2


def test_what_was_lost_at_the_end_of_the_log_is_found_out_though_nothing_seems_to_be_new() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    lose_end(world, new=4)
    seen = look(world.archive())
    assert not seen.pending()
    assert list(seen.unproven()) == [PartitionLog(TOPIC, 1, 0)]


def test_another_leader_that_holds_the_same_is_believed_once_its_end_was_read_again() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.move_leader(TOPIC, 0)
    send(world, "more", 3)
    assert survey(world.archive()).unproven()
    exhausted(catch_up(world.archive()))
    assert values(world, 1)[-3:] == ["more 0", "more 1", "more 2"]
    assert not survey(world.archive()).unproven()
    assert not truncations(world)
    assert len(world.catalog.generations([TOPIC])[TOPIC]) == 1


def test_a_message_that_stands_where_none_was_tells_the_lost_end() -> None:
    world = world_of(6)
    aborted = world.cluster.begin()
    for number in range(3):
        world.cluster.append(TOPIC, b"aborted %d" % number, transaction=aborted)
    world.cluster.abort(aborted)
    exhausted(catch_up(world.archive()))
    lose_end(world, new=8)
    exhausted(catch_up(world.archive()))
    assert_both_lives(world, old=6, end=10)


def test_a_duplicate_at_the_end_of_the_coverage_is_compared_as_well() -> None:
    world = world_of(8)
    send(world, "old", 2)
    exhausted(catch_up(world.archive()))
    assert len(list(world.catalog.duplicates(TOPIC))) == 2
    world.cluster.move_leader(TOPIC, 0)
    exhausted(catch_up(world.archive()))
    assert not truncations(world)
    lose_end(world, stop=8, new=5)
    exhausted(catch_up(world.archive()))
    (finding,) = truncations(world)
    assert values(world, 2) == [f"old {n}" for n in range(8)] + [f"new {n}" for n in range(5)]
    assert finding.finding.slice is not None
    assert finding.finding.slice.start == 8


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_messages_that_compaction_took_are_no_lost_end_where_the_topic_is_compacted(policy: str) -> None:
    world = World()
    world.cluster.create_topic(TOPIC, config={"cleanup.policy": policy})
    send(world, "old", 10)
    exhausted(catch_up(world.archive()))
    world.cluster.move_leader(TOPIC, 0)
    world.cluster.compact(TOPIC, 0, [9, 7])
    exhausted(catch_up(world.archive()))
    assert len(truncations(world)) == (policy == "delete")


def test_what_retention_or_a_cleaning_took_is_no_lost_end() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.delete_records(TOPIC, 0, 10)
    world.cluster.move_leader(TOPIC, 0)
    send(world, "more", 2)
    exhausted(catch_up(world.archive()))
    assert values(world, 1)[-2:] == ["more 0", "more 1"]
    assert not truncations(world)


def test_what_retention_took_before_the_end_was_lost_is_not_called_lost_in_the_new_generation() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.delete_records(TOPIC, 0, 4)
    lose_end(world)
    exhausted(catch_up(world.archive()))
    assert values(world, 2) == ["old 4", "old 5", *(f"new {n}" for n in range(8))]
    dealt = [e for e in world.catalog.ledger([TOPIC]) if e.outcome is not Outcome.ARCHIVED]
    assert [(e.outcome, e.reason, e.slice.start, e.slice.stop) for e in dealt] == [
        (Outcome.SKIPPED, HELD_BEFORE, 0, 4)
    ]


def test_what_retention_took_of_a_log_that_differs_from_its_beginning_is_lost() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    lose_end(world, stop=2, new=10)
    world.cluster.delete_records(TOPIC, 0, 4)
    exhausted(catch_up(world.archive()))
    lost = [e for e in world.catalog.ledger([TOPIC]) if e.outcome is Outcome.LOST]
    assert [(e.slice.generation, e.slice.start, e.slice.stop) for e in lost] == [(2, 0, 4)]


def test_an_end_that_is_lost_between_reading_and_committing_is_left_to_the_next_plan() -> None:
    world = world_of()
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    lose_end(world)
    commit_batches(archive, batches)
    exhausted(catch_up(world.archive()))
    assert_both_lives(world)


def test_a_run_that_planned_before_the_end_was_lost_and_reads_after_it_commits_nothing_new() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    send(world, "old", 2)  # duplicates of 0 and 1
    archive = world.archive()
    slices = plan_work(archive).plan.slices
    lose_end(world)
    assert [done.batches for done in archive_slices(archive, slices)] == [()]
    assert store_slices(archive, slices) == []
    exhausted(catch_up(world.archive()))
    assert_both_lives(world, observed=12)


def test_a_run_that_read_before_the_end_was_lost_commits_nothing_once_the_log_was_proven_anew() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    send(world, "gone", 4)
    zombie = world.archive()
    batches = store_slices(zombie, plan_work(zombie).plan.slices)
    lose_end(world)
    plan_work(world.archive())  # the end of what is covered is the same, under another leader
    (done,) = commit_batches(zombie, batches)
    assert not done.batches
    exhausted(catch_up(world.archive()))
    assert values(world, 1) == [f"old {n}" for n in range(6)] + [f"new {n}" for n in range(8)]


def send_gone_and_read(world: World) -> list[Batch]:
    """What a run has read of offsets that the log is going to lose, and not committed."""
    send(world, "gone", 4)
    archive = world.archive()
    return store_slices(archive, plan_work(archive).plan.slices)


def assert_new_life_alone(world: World) -> None:
    exhausted(catch_up(world.archive()))
    assert values(world, 1) == [f"old {n}" for n in range(6)] + [f"new {n}" for n in range(8)]
    assert not survey(world.archive()).unproven()


def test_a_log_that_is_proven_between_a_runs_last_check_and_its_commit_refuses_that_commit() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    batches = send_gone_and_read(world)

    def prove_anew() -> None:
        lose_end(world)
        plan_work(world.archive())

    (done,) = commit_batches(world.archive(at_call("catalog.commit", prove_anew)), batches)
    assert not done.batches
    assert done.disputed
    assert_new_life_alone(world)


def test_what_is_committed_while_a_log_is_proven_leaves_it_unproven() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    batches = send_gone_and_read(world)
    lose_end(world)
    committed: list[Done] = []
    faults = at_call(
        "catalog.note_proven", lambda: committed.extend(commit_batches(world.archive(), batches))
    )
    assert not plan_work(world.archive(faults)).plan.slices
    assert committed[0].batches
    (marks,) = world.catalog.observed([TOPIC]).values()
    assert marks.leader_epoch == UNPROVEN
    (finding,) = world.catalog.findings([TOPIC])
    assert (finding.finding.kind, finding.finding.partition) == (Kind.NOT_READABLE, 0)
    assert "Another run archived" in finding.finding.detail
    exhausted(catch_up(world.archive()))
    assert [one.finding.kind for one in world.catalog.findings([TOPIC])] == [Kind.LOG_TRUNCATED]
    assert values(world, 2) == [f"old {n}" for n in range(6)] + [f"new {n}" for n in range(8)]


def test_a_transaction_that_hangs_before_what_is_to_be_compared_is_no_missing_leader_and_passes() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.lose_end(TOPIC, 0, 6)
    transaction = world.cluster.begin()
    world.cluster.append(TOPIC, b"held back", transaction=transaction)
    send(world, "new", 8)
    with pytest.raises(UnavailableError, match="an open transaction stands before it"):
        exhausted(catch_up(world.archive()))
    (finding,) = world.catalog.findings([TOPIC])
    assert (finding.finding.kind, finding.finding.partition) == (Kind.NOT_READABLE, 0)
    world.cluster.commit(transaction)
    exhausted(catch_up(world.archive()))
    assert [one.finding.kind for one in world.catalog.findings([TOPIC])] == [Kind.LOG_TRUNCATED]
    assert values(world, 2)[5:8] == ["old 5", "held back", "new 0"]


def test_the_first_batch_of_a_topic_that_comes_between_another_plans_looks_is_proven_too() -> None:
    world = world_of()
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    lose_end(world)
    faults = at_call("catalog.observe", lambda: commit_batches(world.archive(), batches))
    assert not plan_work(world.archive(faults)).plan.slices
    exhausted(catch_up(world.archive()))
    assert values(world, 1) == [f"old {n}" for n in range(10)]
    assert values(world, 2) == [f"old {n}" for n in range(6)] + [f"new {n}" for n in range(8)]


@pytest.mark.parametrize("noted", [None, UNPROVEN, GONE])
def test_nothing_is_read_of_a_log_that_was_not_proven_though_its_slices_are_given(noted: int | None) -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    send(world, "gone", 8)
    archive = world.archive()
    slices = plan_work(archive).plan.slices
    world.catalog.note_proven({PartitionLog(TOPIC, 1, 0): noted})
    lose_end(world, new=14)
    assert {done.batches for done in archive_slices(archive, slices)} == {()}
    assert store_slices(archive, slices) == []


@pytest.mark.parametrize("noted", [UNPROVEN, GONE])
def test_not_even_absent_offsets_are_stored_of_a_log_that_was_not_proven(noted: int) -> None:
    assert Reading(Slice(TOPIC, 1, 0, 0, 5), (), proven_epoch=noted).is_beyond_proof
    assert not Reading(Slice(TOPIC, 1, 0, 0, 5), (), proven_epoch=0).is_beyond_proof


def test_a_catalog_from_before_leader_epochs_is_proven_by_its_first_plan_and_goes_on() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    world.catalog.note_proven({PartitionLog(TOPIC, 1, 0): None})
    send(world, "new", 8)
    assert plan_work(world.archive()).plan.slices
    assert_new_life_alone(world)


def test_a_generation_of_which_no_watermarks_were_seen_is_remembered_as_proven() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    with world.catalog._state.change() as tables:  # as a rebuilt catalog is
        tables.observed.clear()
    send(world, "new", 8)
    plan_work(world.archive())
    (marks,) = world.catalog.observed([TOPIC]).values()
    assert marks.leader_epoch == 0
    assert_new_life_alone(world)


class Silent(MockSource):
    """A broker that tells no leader epochs of logs, though its messages have them."""

    def watermarks(self, partitions: Collection[TopicPartition]) -> Answers[TopicPartition, Watermarks]:
        found = super().watermarks(partitions)
        return Answers({at: replace(marks, leader_epoch=None) for at, marks in found.items()}, found.untold)


def test_a_broker_that_tells_leader_epochs_no_more_is_read_on_once_the_end_was_proven() -> None:
    world = world_of(6)
    exhausted(catch_up(world.archive()))
    world.cluster.move_leader(TOPIC, 0)
    send(world, "new", 8)
    silent = replace(world.archive(), source=Silent(cluster=world.cluster))
    exhausted(catch_up(silent))
    assert not survey(silent).unproven()
    assert values(world, 1) == [f"old {n}" for n in range(6)] + [f"new {n}" for n in range(8)]


def test_what_was_read_while_the_broker_told_no_epochs_is_left_once_the_log_was_proven_under_one() -> None:
    world = world_of(6)
    silent = replace(world.archive(), source=Silent(cluster=world.cluster))
    exhausted(catch_up(silent))
    send(world, "gone", 4)
    batches = store_slices(silent, plan_work(silent).plan.slices)
    assert [batch.proven_epoch for batch in batches] == [None]
    lose_end(world)
    plan_work(world.archive())  # by a broker that tells them: the end of what is covered is the same
    (done,) = commit_batches(silent, batches)
    assert not done.batches
    assert_new_life_alone(world)


class Refusing(MockCatalog):
    """A catalog whose logs are always proven anew before a commit."""

    def commit(self, *batches: Batch) -> None:
        """Refuse."""
        raise ProofChangedError(f"{batches[0].slice} was read of another log")


def test_following_waits_where_all_that_came_was_left_to_the_next_plan() -> None:
    world = world_of(6)
    world.catalog = Refusing()
    pauses: list[float] = []
    rounds = archive_continuously(world.archive(), lambda: bool(pauses), pauses.append)
    for _ in itertools.islice(rounds, 1000):
        pass
    assert pauses


def test_following_goes_over_to_the_new_generation_by_itself() -> None:
    world = world_of()
    over: list[bool] = []
    rounds = archive_continuously(world.archive(), lambda: bool(over), lambda _: None)
    archived = 0
    while archived < 10:
        archived += sum(done.archived for done in next(rounds))
    lose_end(world)
    while archived < 18:
        archived += sum(done.archived for done in next(rounds))
    over.append(True)
    exhausted(rounds)
    assert_both_lives(world)


def test_a_leader_that_moves_while_one_follows_costs_no_message_and_no_new_generation() -> None:
    world = world_of()
    rounds = archive_continuously(world.archive(), lambda: False, lambda _: None)
    archived = 0
    for move in range(5):
        while archived < 10 + 2 * move:
            archived += sum(done.archived for done in next(rounds))
        world.cluster.move_leader(TOPIC, 0)
        send(world, f"more {move}", 2)
    assert len(world.catalog.generations([TOPIC])[TOPIC]) == 1
    assert not truncations(world)


def calls() -> int:
    faults = Faults()
    exhausted(catch_up(awkward_world().archive(faults), overlap=0))
    return len(faults.calls)


@pytest.mark.parametrize("when", When)
def test_an_end_that_is_lost_at_any_moment_of_a_run_leaves_neither_life_incomplete(when: When) -> None:
    def cut(world: World) -> None:
        world.cluster.lose_end(BUSY, 0, 9)
        fill(world.cluster, seed=9)

    for number in range(1, calls() + 1):
        world = awkward_world()
        faults = Faults((Fault(number, when, lambda _, world=world: cut(world)),))  # type: ignore[misc]
        with contextlib.suppress(HopArchiveError):
            exhausted(catch_up(world.archive(faults), overlap=0))
        before = {row.uuid for row in world.catalog.rows(BUSY)}
        exhausted(catch_up(world.archive(), overlap=0))
        assert_archived(world.archive(), world.cluster, BUSY)
        assert before <= {row.uuid for row in world.catalog.rows(BUSY)}


def test_a_log_of_which_the_end_cannot_be_read_again_is_a_finding_and_no_success() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.move_leader(TOPIC, 0)
    send(world, "more", 5)
    archive = world.archive()
    silent = replace(archive, source=_Silent(archive.source), monotonic=ticking(step=5.0))
    with pytest.raises(UnavailableError, match="stands at offset"):
        exhausted(catch_up(silent))
    (finding,) = world.catalog.findings([TOPIC])
    assert (finding.finding.kind, finding.finding.partition) == (Kind.NO_LEADER, 0)
    look(silent)
    assert [one.number for one in world.catalog.findings([TOPIC])] == [finding.number]
    exhausted(catch_up(world.archive()))
    assert values(world, 1)[-1] == "more 4"
    assert not list(world.catalog.findings([TOPIC]))


def test_a_log_in_doubt_that_may_not_be_read_is_a_finding_where_the_cluster_tells_no_rights() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    world.cluster.move_leader(TOPIC, 0)
    send(world, "more", 5)
    world.cluster.deny(TOPIC, "read")
    archive = world.archive()
    with pytest.raises(ForbiddenError):
        exhausted(catch_up(replace(archive, source=_Rightless(archive.source))))
    (finding,) = world.catalog.findings([TOPIC])
    assert finding.finding.kind is Kind.NOT_READABLE


def test_what_is_read_again_is_read_of_some_partitions_at_a_time_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(truncation, "_AT_ONCE", 2)
    world = World()
    world.cluster.create_topic(TOPIC, 5)
    for partition in range(5):
        for number in range(6):
            world.cluster.append(TOPIC, b"%d %d" % (partition, number), partition=partition)
    exhausted(catch_up(world.archive()))
    for partition in range(5):
        world.cluster.move_leader(TOPIC, partition)
    archive = world.archive()
    counting = _Counting(archive.source)
    plan_work(replace(archive, source=counting))
    assert counting.most == 2
    assert not survey(world.archive()).unproven()


def sick_world(partitions: int) -> World:
    """All partitions of a topic have another leader."""
    world = World()
    world.cluster.create_topic(TOPIC, partitions)
    for partition in range(partitions):
        for number in range(6):
            world.cluster.append(TOPIC, b"%d %d" % (partition, number), partition=partition)
    exhausted(catch_up(world.archive()))
    for partition in range(partitions):
        world.cluster.move_leader(TOPIC, partition)
    return world


def unproven(world: World) -> set[int]:
    return {partition_log.partition for partition_log in survey(world.archive()).unproven()}


def test_what_cannot_be_read_again_is_waited_for_once_and_not_for_every_hundred_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(truncation, "_AT_ONCE", 2)
    world = sick_world(12)
    archive = world.archive()
    clock = ticking(step=0.05)
    plan_work(replace(archive, source=_Silent(archive.source), monotonic=clock))
    assert clock() < 1.5 * truncation._STALL_S
    found = world.catalog.findings([TOPIC], [Kind.NO_LEADER])
    assert sorted(one.finding.partition for one in found if one.finding.partition is not None) == [*range(12)]


def test_partitions_that_can_be_read_have_their_turn_however_many_before_them_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(truncation, "_AT_ONCE", 2)
    world = sick_world(20)
    silent = set(range(16))
    for microsecond in range(10):
        archive = world.archive()
        source = _Silent(archive.source, silent)
        now = archive.now().replace(microsecond=microsecond)
        plan_work(replace(archive, source=source, monotonic=ticking(step=0.05), now=lambda now=now: now))  # type: ignore[misc]
    assert unproven(world) == silent
    plan_work(world.archive())
    assert not unproven(world)


def test_verifying_says_which_ends_of_logs_it_could_not_read() -> None:
    world = sick_world(2)
    archive = world.archive()
    silent = replace(archive, source=_Silent(archive.source, {1}), monotonic=ticking(step=0.05))
    wanted = Verification(world.catalog, world.store, Query())
    assert [(one.kind, one.partition) for one in source(wanted, silent)] == [(Kind.NO_LEADER, 1)]
    assert wanted.checked.counts[NOT_LOOKED_AT] == 1


@pytest.mark.parametrize("may_describe", [True, False])
@pytest.mark.parametrize("gone", [[5, 6, 7, 8, 9], [6], [9]])
def test_compaction_is_no_lost_end_whatever_it_took_and_whether_or_not_it_may_be_seen(
    gone: list[int], *, may_describe: bool
) -> None:
    world = World()
    world.cluster.create_topic(TOPIC, config={"cleanup.policy": "compact"})
    send(world, "old", 10)
    exhausted(catch_up(world.archive()))
    send(world, "newer", 10)
    world.cluster.compact(TOPIC, 0, gone)
    world.cluster.move_leader(TOPIC, 0)
    archive = world.archive()
    exhausted(catch_up(archive if may_describe else replace(archive, source=_Secret(archive.source))))
    assert len(world.catalog.generations([TOPIC])[TOPIC]) == 1
    assert values(world, 1) == [f"old {n}" for n in range(10)] + [f"newer {n}" for n in range(10)]


def test_a_partition_that_retention_emptied_is_not_lost_where_another_one_lost_its_end() -> None:
    world = World()
    world.cluster.create_topic(TOPIC, 2)
    send(world, "old", 10)
    for number in range(5):
        world.cluster.append(TOPIC, b"beside %d" % number, partition=1)
    exhausted(catch_up(world.archive()))
    world.cluster.delete_records(TOPIC, 1, 5)
    lose_end(world)
    exhausted(catch_up(world.archive()))
    (beside,) = [
        e for e in world.catalog.ledger([TOPIC]) if e.slice.partition_log == PartitionLog(TOPIC, 2, 1)
    ]
    assert (beside.outcome, beside.reason) == (Outcome.SKIPPED, HELD_BEFORE)


def world_with_backlog() -> World:
    """A topic of three partitions, each archived in part; of the last two more was seen."""
    world = World()
    world.cluster.create_topic(TOPIC, 3)
    for partition, count in enumerate((10, 5, 5)):
        for number in range(count):
            world.cluster.append(TOPIC, b"%d %d" % (partition, number), partition=partition)
    exhausted(catch_up(world.archive()))
    for number in range(20):
        world.cluster.append(TOPIC, b"1 later %d" % number, partition=1)
        world.cluster.append(TOPIC, b"2 later %d" % number, partition=2)
    look(world.archive())
    return world


@pytest.mark.parametrize("new", [8, 0])
def test_what_other_partitions_held_is_not_lost_with_the_end_of_one(new: int) -> None:
    world = world_with_backlog()
    world.cluster.lose_end(TOPIC, 0, 6)
    world.cluster.lose_end(TOPIC, 2, 15)
    send(world, "new", new)
    before = world.catalog.ledger()
    look(world.archive())
    assert world.catalog.ledger() == before
    exhausted(catch_up(world.archive()))
    look(world.archive())
    settled = {e.slice: (e.outcome, e.reason) for e in world.catalog.ledger() if e.reason}
    assert settled == {
        Slice(TOPIC, 1, 1, 5, 25): (Outcome.SKIPPED, READ_NEXT),
        Slice(TOPIC, 1, 2, 5, 15): (Outcome.SKIPPED, READ_NEXT),
        Slice(TOPIC, 1, 2, 15, 25): (Outcome.LOST, OUTLIVED),
    }
    assert_archived(world.archive(), world.cluster, TOPIC)


def test_what_was_left_to_the_next_generation_and_retention_took_before_it_was_read_is_lost() -> None:
    world = world_with_backlog()
    lose_end(world)
    plan_work(world.archive())
    assert [e.reason for e in world.catalog.ledger() if e.slice == Slice(TOPIC, 1, 1, 5, 25)] == [READ_NEXT]
    world.cluster.delete_records(TOPIC, 1, 10)
    exhausted(catch_up(world.archive()))
    settled = {
        e.slice: (e.outcome, e.reason) for e in world.catalog.ledger() if e.slice.generation == 2 and e.reason
    }
    assert settled == {
        Slice(TOPIC, 2, 1, 0, 5): (Outcome.SKIPPED, HELD_BEFORE),
        Slice(TOPIC, 2, 1, 5, 10): (Outcome.LOST, OVERTAKEN),
    }


def test_what_a_partition_held_that_has_no_leader_is_settled_once_it_has_one() -> None:
    world = world_with_backlog()
    lose_end(world)
    world.cluster.lose_leader(TOPIC, 1)
    with pytest.raises(UnavailableError):
        exhausted(catch_up(world.archive()))
    backlog = Slice(TOPIC, 1, 1, 5, 25)
    assert not [e for e in world.catalog.ledger() if e.slice == backlog]
    world.cluster.elect_leader(TOPIC, 1)
    exhausted(catch_up(world.archive()))
    assert [e.reason for e in world.catalog.ledger() if e.slice == backlog] == [READ_NEXT]
    assert_archived(world.archive(), world.cluster, TOPIC)


def test_that_a_log_lost_what_was_not_archived_is_told_once_while_it_grows_again() -> None:
    world = world_of()
    exhausted(catch_up(world.archive()))
    send(world, "more", 20)
    look(world.archive())
    world.cluster.lose_end(TOPIC, 0, 12)
    for _ in range(3):
        look(world.archive())
        send(world, "new", 1)
    (finding,) = truncations(world)
    assert finding.finding.slice == Slice(TOPIC, 1, 0, 12, 30)


class _Around:
    """A source, but for what a test changes."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Silent(_Around):
    """Tells offsets, and never delivers a message, or none of some partitions."""

    def __init__(self, inner: Any, partitions: Collection[int] | None = None) -> None:
        super().__init__(inner)
        self._silent = partitions

    def reader(self, starts: Any) -> Any:
        reader = self._inner.reader(starts)
        if self._silent is None:
            reader.poll = lambda *_: []
        else:
            silent, add, position = self._silent, reader.add, reader.position
            given: dict[TopicPartition, int] = {}

            def added(more: Any) -> None:
                given.update(more)
                add({at: start for at, start in more.items() if at.partition not in silent})

            reader.add = added
            reader.position = lambda at: given[at] if at.partition in silent else position(at)
        return reader


class _Rightless(_Around):
    """Does not tell whether a topic may be read."""

    def topics(self, names: Any = None) -> Any:
        found = self._inner.topics(names)
        return Answers({n: replace(info, readable=None) for n, info in found.items()}, found.untold)


class _Secret(_Around):
    """Shows no settings."""

    def settings(self, topics: Any) -> Any:
        raise ForbiddenError("No settings for you.")


class _Counting(_Around):
    """Knows the greatest number of partitions that were assigned to a reader at a time."""

    most = 0

    def reader(self, starts: Any) -> Any:
        reader, assigned = self._inner.reader(starts), {*starts}
        add, release = reader.add, reader.release

        def counted(more: Any) -> None:
            assigned.update(more)
            self.most = max(self.most, len(assigned))
            add(more)

        def released(some: Any) -> None:
            assigned.difference_update(some)
            release(some)

        reader.add, reader.release = counted, released
        return reader
