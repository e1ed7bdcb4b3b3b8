"""Verifying by shares: what is new at once, all within the days, and what a look costs however large the archive is."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from hop_archive.catalog.checked import LAST_KEY, Look, Section
from hop_archive.catalog.records import Batch, Row, RowJob
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import object_key, segment_key
from hop_archive.model.slices import Slice
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject, ObjectInfo
from hop_archive.upkeep.verify import objects as comparing
from hop_archive.upkeep.verify import share as sharing
from hop_archive.upkeep.verify.ledger import counts_of
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.share import Freshness, freshness, verify_share
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.contract.catalog_helpers import row_at
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.worlds import BUSY, QUIET, World, WorldLayout, exhausted

T0 = datetime.datetime(2040, 11, 1, tzinfo=datetime.UTC)
"""Later than what the machine's clock says of the objects that are made here: all are old enough to be judged."""
TURN = datetime.timedelta(hours=6)
DAYS = 2.0
LOOKS = 8
"""So many looks are in those days."""
ALL = ("objects", "backup", "ledger")


@pytest.fixture(autouse=True)
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_PORTION", 3)
    for module in (sharing, comparing):
        monkeypatch.setattr(module, "REQUEST", 1)


class Counting(MockStore):
    """A store that counts the objects that it lists."""

    listed = 0

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        for info in super().listing(prefix, start_after):
            self.listed += 1
            yield info


@dataclass
class Looked:
    """An archive that is looked at every six hours."""

    broken: Ruin
    turn: int = 0
    least: int = 1
    wanted: list[Verification] = field(default_factory=list)

    def verification(self) -> Verification:
        archive = self.broken.archive()
        now = T0 + self.turn * TURN
        work = Verification(
            archive.catalog, archive.store, grace_s=0, now=lambda: now, sleep=lambda _: None, backup=self.broken.backup
        )  # fmt: skip
        self.wanted.append(work)
        return work

    def look(self, stop: Callable[[], bool] = lambda: False) -> list[Finding]:
        """The next look: what it found."""
        self.turn += 1
        work = self.verification()
        recorder = FindingsRecorder(work.catalog, now=work.now)
        return [f for f, _ in verify_share(work, recorder, DAYS, least=self.least, stop=stop)]

    def round(self) -> list[Finding]:
        """As many looks as all is to be looked at within."""
        return [finding for _ in range(LOOKS) for finding in self.look()]

    def whole(self) -> list[Finding]:
        """A look at everything."""
        self.turn += 1
        work = self.verification()
        recorder = FindingsRecorder(work.catalog, now=work.now)
        return [f for f, _ in verify(work, recorder, ALL)]

    def fresh(self) -> Freshness:
        return freshness(self.verification())

    def opened(self) -> set[tuple[Kind, str]]:
        records = self.broken.world.catalog.findings()
        return {(r.finding.kind, r.finding.object_key or str(r.finding.slice)) for r in records}


@pytest.fixture(params=["message", "segment", "zstd"])
def sound(request: pytest.FixtureRequest) -> Looked:
    layout: WorldLayout = request.param
    return Looked(ruin(layout))


def test_all_is_looked_at_within_the_days_and_again_within_as_many(sound: Looked) -> None:
    assert sound.fresh().never == sound.fresh().sections
    sound.round()
    fresh = sound.fresh()
    assert fresh.never == 0
    assert fresh.oldest is not None
    assert fresh.oldest >= T0 + TURN
    for _ in range(3 * LOOKS):
        sound.look()
        oldest = sound.fresh().oldest
        assert oldest is not None
        assert oldest > T0 + sound.turn * TURN - (LOOKS + 1) * TURN
    assert sound.opened() == set()


def test_a_look_takes_on_a_share_and_no_more_than_its_last_portion_beyond(sound: Looked) -> None:
    sound.whole()
    there = len([*sound.broken.world.store.listing()])
    looked = []
    for _ in range(LOOKS):
        sound.look()
        looked.append(sound.wanted[-1].checked.counts["objects"])
    assert max(looked) <= there + 2, "half of what there is in the store and its backup"
    assert sum(looked) >= 2 * there


def test_what_was_deleted_after_a_look_is_found_within_the_days_wherever_it_was(sound: Looked) -> None:
    sound.whole()
    rows = [*sound.broken.rows(BUSY), *sound.broken.rows(QUIET)]
    keys = sorted({row.object_key for row in rows})[::3]
    for key in keys:
        sound.broken.drop(key)
    found = sound.round()
    assert {f.object_key for f in found if f.kind is Kind.MISSING_OBJECT} == {*keys}
    assert sound.opened() == {(Kind.MISSING_OBJECT, key) for key in keys}


def test_the_object_of_a_new_message_is_looked_for_with_the_next_look(sound: Looked) -> None:
    sound.whole()
    sound.look()
    before = {info.key for info in sound.broken.world.store.listing()}
    for number in range(40):
        sound.broken.world.cluster.append(BUSY, b"new %d" % number)
    exhausted(catch_up(sound.broken.archive(), overlap=0))
    sound.broken.replicate()
    new = sorted({info.key for info in sound.broken.world.store.listing()} - before)
    missing, cut, uncopied = new[1], new[-1], new[0]
    sound.broken.drop(missing)
    sound.broken.put(cut, sound.broken.body(cut)[:-1])
    sound.broken.backup._shelf.remove(uncopied)
    looked = sound.look()
    found = {(f.kind, f.bucket, f.object_key) for f in looked}
    assert found >= {
        (Kind.MISSING_OBJECT, "mock", missing),
        (Kind.WRONG_SIZE, "mock", cut),
        (Kind.MISSING_OBJECT, "backup", uncopied),
    }
    counts = sound.wanted[-1].checked.counts
    assert counts["new messages"] == 40
    sound.look()
    assert sound.wanted[-1].checked.counts["new messages"] == 0


def test_copies_that_are_not_due_yet_are_looked_for_again(sound: Looked) -> None:
    sound.whole()
    sound.look()
    sound.broken.world.cluster.append(QUIET, b"new")
    exhausted(catch_up(sound.broken.archive(), overlap=0))
    (row,) = [
        row
        for row in sound.broken.rows(QUIET)
        if row.offset == max(r.offset or 0 for r in sound.broken.rows(QUIET))
    ]
    work = sound.verification()
    long_ago = Verification(
        work.catalog, work.store, grace_s=0, sleep=lambda _: None, backup=work.backup,
        now=lambda: datetime.datetime.fromtimestamp(0, datetime.UTC),
    )  # fmt: skip
    recorder = FindingsRecorder(work.catalog, now=work.now)
    assert [f for f, _ in verify_share(long_ago, recorder, DAYS, least=1)] == []
    assert long_ago.checked.counts["new copies not due yet"]
    assert [f.object_key for f in sound.look() if f.bucket == "backup"][:1] == [row.object_key]


def test_what_no_row_names_is_found_within_the_days_and_closed_once_it_is_gone(sound: Looked) -> None:
    sound.whole()
    orphan = f"{BUSY}/2023/11/14/22/{uuid.UUID(int=5)}.bson"
    segment = segment_key(QUIET, 7, 0, 5, 9)
    foreign = [f"{BUSY}/zz", f"segments/{QUIET}/1/x", "elsewhere/x", "a"]
    keys = [orphan, segment, *foreign]
    sound.broken.world.store.create([NewObject(key, b"?") for key in keys])
    sound.round()
    kinds = {
        (Kind.ORPHAN_OBJECT, orphan),
        (Kind.ORPHAN_OBJECT, segment),
        *((Kind.FOREIGN_OBJECT, key) for key in foreign),
    }
    assert sound.opened() == kinds
    sound.broken.world.store.delete(keys)
    open_after = []
    for _ in range(LOOKS):
        sound.look()
        open_after.append(len(sound.opened()))
    assert open_after[-1] == 0


def test_a_look_closes_nothing_that_it_did_not_look_at(sound: Looked) -> None:
    keys = sorted({row.object_key for row in [*sound.broken.rows(BUSY), *sound.broken.rows(QUIET)]})
    kept = [NewObject(key, sound.broken.body(key)) for key in keys]
    for key in keys:
        sound.broken.drop(key)
    sound.whole()
    everything = sound.opened()
    assert len(everything) == len(keys)
    sound.broken.world.store.create(kept)
    ends = []
    for _ in range(LOOKS + 1):
        sound.look()
        looked_at = {
            key
            for done in sound.broken.world.catalog.checked()
            if done.checked_at > T0 + TURN and done.section.bucket == "mock"
            for key in keys
            if (key in _keys_of(sound, done.section)) and done.after < key <= done.through
        }
        assert {key for _, key in sound.opened()} == {*keys} - looked_at
        ends.append(len(sound.opened()))
    assert ends[-1] == 0
    assert len(set(ends)) > 2, "in one look"


def _keys_of(looked: Looked, section: Section) -> set[str]:
    in_segments = section.look is Look.SEGMENTS
    rows = looked.broken.rows(section.topic) if section.topic else []
    return {row.object_key for row in rows if (row.position is not None) is in_segments}


def test_a_wrong_number_in_the_ledger_is_found_within_the_days_and_closed_once_it_is_right(
    sound: Looked,
) -> None:
    sound.whole()
    row = sound.broken.rows(BUSY)[5]
    with sound.broken.world.catalog._state.read() as tables:
        ledger = {at: list(some) for at, some in tables.ledger.items()}
    sound.broken.miscount(row)
    sound.round()
    assert {kind for kind, _ in sound.opened()} == {Kind.COUNT_MISMATCH}
    with sound.broken.world.catalog._state.change() as tables:
        tables.ledger.update(ledger)
    sound.round()
    assert sound.opened() == set()


def test_a_look_that_is_stopped_goes_on_where_it_was(sound: Looked) -> None:
    sound.least = 10_000
    calls = iter(range(10_000))
    sound.look(stop=lambda: next(calls) >= 40)
    first = sound.wanted[-1].checked.counts["rows"]
    done = sound.broken.world.catalog.checked()
    assert done
    assert sound.fresh().never > 0
    sound.look()
    assert sound.fresh().never == 0
    later = {kept.section: kept.checked_at for kept in sound.broken.world.catalog.checked()}
    assert first > 0
    assert later[done[0].section] == T0 + 2 * TURN


def test_a_small_archive_is_looked_at_whole_each_time(sound: Looked) -> None:
    sound.least = 10_000
    sound.look()
    sound.broken.drop(sound.broken.rows(QUIET)[-1].object_key)
    assert {f.kind for f in sound.look()} == {Kind.MISSING_OBJECT}
    assert sound.fresh().oldest == T0 + sound.turn * TURN


def test_a_topic_that_appears_is_looked_at_first_and_counts_as_never_looked_at_until_then(
    sound: Looked,
) -> None:
    sound.whole()
    assert sound.fresh().never == 0
    sound.broken.world.cluster.create_topic("later")
    sound.broken.world.cluster.append("later", b"one")
    exhausted(catch_up(sound.broken.archive(), overlap=0))
    sound.broken.replicate()
    assert sound.fresh() == Freshness(T0 + TURN, 5, sound.fresh().sections)
    assert sound.fresh().whole_since is None
    sound.look()
    sound.look()
    assert sound.fresh().never == 0


def test_a_topic_of_which_only_a_removal_is_left_is_looked_at_as_all_are(sound: Looked) -> None:
    with sound.broken.world.catalog._state.change() as tables:
        gone = [row for row in tables.rows.values() if row.topic == QUIET]
        for row in gone:
            del tables.rows[row.uuid]
        for at in [at for at in tables.ledger if at.topic == QUIET]:
            del tables.ledger[at]
        tables.duplicates.clear()
        tables.collisions.clear()
    sound.round()
    keys = {row.object_key for row in gone}
    assert {key for kind, key in sound.opened() if kind is Kind.ORPHAN_OBJECT} == keys
    assert sound.fresh().never == 0


def large(messages: int, layout: WorldLayout) -> World:
    """An archive of so many messages: rows in some segments, or each in its object."""
    world = World(layout, store=Counting())
    per_topic = messages // 10
    bodies: list[NewObject] = []
    for number in range(10):
        topic = f"topic.{number}"
        where = Slice(topic, 1, 0, 0, per_topic)
        rows: list[Row] = []
        for offset in range(per_topic):
            key = object_key(
                topic, 1_700_000_000_000 + offset * 60_000, uuid.UUID(int=number * 10**9 + offset)
            )
            position = None
            if layout == "segment":
                start = offset // 50 * 50
                key, position = segment_key(topic, 1, 0, start, start + 50), offset % 50 * 10
            rows.append(
                row_at(where, offset, object_key=key, position=position, size_bytes=10)._replace(
                    uuid=uuid.UUID(int=number * 10**9 + offset)
                )
            )
        world.catalog.commit(Batch(where, rows=rows))
        body = b"0123456789" * (50 if layout == "segment" else 1)
        bodies += [NewObject(key, body) for key in sorted({row.object_key for row in rows})]
    world.store.create(bodies)
    return world


@pytest.mark.parametrize("layout", ["message", "segment"])
def test_what_a_look_costs_does_not_grow_with_the_archive_beyond_its_share(layout: WorldLayout) -> None:
    work: dict[int, tuple[int, int]] = {}
    for messages in (5_000, 20_000):
        world = large(messages, layout)
        assert isinstance(world.store, Counting)
        looked = Looked(Ruin(world, MockStore("backup", bucket="backup")))
        looked.turn += 1
        wanted = Verification(world.catalog, world.store, grace_s=0, now=lambda: T0, sleep=lambda _: None)
        exhausted(verify(wanted, FindingsRecorder(world.catalog, now=wanted.now), ("objects", "ledger")))
        world.store.listed = 0
        later = Verification(
            world.catalog, world.store, grace_s=0, now=lambda: T0 + TURN, sleep=lambda _: None
        )
        span = world.catalog.begin_row_job(RowJob.CHECK_OBJECTS)
        world.catalog.note_row_job(RowJob.CHECK_OBJECTS, span.last)
        found = verify_share(later, FindingsRecorder(world.catalog, now=later.now), 10_000.0, least=60)
        assert [f for f, _ in found] == []
        work[messages] = (later.checked.counts["rows"], world.store.listed)
    assert work[20_000][0] <= work[5_000][0] + 50, "a segment more"
    assert work[20_000][1] <= work[5_000][1] + 50
    assert 50 <= work[20_000][0] < 2_000


def test_keys_end_with_the_last_there_is() -> None:
    assert max("z", "~", "é", "\U0001f52d") < LAST_KEY


class Refusing(MockStore):
    """A store that lists some folder to nobody."""

    refused = ""

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        if self.refused and prefix.startswith(self.refused):
            raise ForbiddenError(f"{prefix} may not be listed.")
        return super().listing(prefix, start_after)


def test_what_cannot_be_looked_at_stops_nothing_else_and_counts_as_never_looked_at(sound: Looked) -> None:
    sound.broken.world.store.__class__ = Refusing
    sound.broken.world.store.refused = f"{BUSY}/"  # type: ignore[attr-defined]
    sound.least = 10_000
    with pytest.raises(ForbiddenError, match="may not be listed"):
        sound.look()
    never = {
        section
        for section in sharing.sections_of(sound.verification(), ALL)
        if section not in {done.section for done in sound.broken.world.catalog.checked()}
    }
    assert never == {Section("mock", BUSY, Look.ALONE)}
    sound.broken.world.store.refused = ""  # type: ignore[attr-defined]
    sound.look()
    assert sound.fresh().never == 0


def test_a_backup_that_does_not_answer_leaves_store_and_ledger_looked_at(
    sound: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise UnavailableError("The backup does not answer.")

    monkeypatch.setattr(sound.broken.backup, "check", down)
    sound.least = 10_000
    with pytest.raises(UnavailableError):
        sound.look()
    looked = {(done.section.bucket, done.section.look) for done in sound.broken.world.catalog.checked()}
    assert looked == {
        ("mock", Look.ALONE),
        ("mock", Look.SEGMENTS),
        ("mock", Look.OUTSIDE),
        ("", Look.LEDGER),
    }


def test_no_ledger_row_is_counted_twice_in_a_look(sound: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hop_archive.upkeep.verify.ledger._TOGETHER", 1)
    monkeypatch.setattr(sharing, "_PORTION", 1)
    sound.least = 10_000
    sound.look()
    rows = len(sound.broken.world.catalog.ledger())
    assert rows > 2
    assert sound.wanted[-1].checked.counts["batches counted"] == rows


def test_counting_what_another_archiver_left_is_of_the_share(sound: Looked) -> None:
    sound.whole()
    key, took = "", {}
    for topic in (BUSY, QUIET):
        for key, _, more in counts_of(sound.verification(), topic):
            took[topic, key] = more
    assert {took[topic, LAST_KEY] for topic in (BUSY, QUIET)} == {0}, "all is in the ledger"
    for n in range(100):
        row = sound.broken.rows(BUSY)[0]
        with sound.broken.world.catalog._state.change() as tables:
            other = row._replace(
                uuid=uuid.UUID(int=10**9 + n), digest=None, generation=None, partition=None, offset=None
            )
            tables.rows[other.uuid] = other
    costs = [cost for key, _, cost in counts_of(sound.verification(), BUSY) if key == LAST_KEY]
    assert costs[0] == 5
