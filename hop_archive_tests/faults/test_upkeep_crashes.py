"""Noting what is found, and scrubbing, may die at any call: the next run leaves what one that was let alone leaves."""

from __future__ import annotations

import datetime
import itertools
import random
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pytest

from hop_archive.catalog.checked import VerifiedRange
from hop_archive.catalog.records import Row
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind
from hop_archive.model.progress import Progress
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.verify import objects as comparing
from hop_archive.upkeep.verify import recorder as noting
from hop_archive.upkeep.verify import scrub as scrubbing
from hop_archive.upkeep.verify import share as sharing
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import scrub
from hop_archive.upkeep.verify.share import verify_share
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.damaging import Ruin
from hop_archive_tests.removals import Backed, archive_all, copied, double, small_world
from hop_archive_tests.worlds import BUSY, QUIET, WorldLayout, exhausted

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
CHANGES = (
    "note_findings",
    "close_unseen",
    "resolve_findings",
    "note_verified",
    "note_checked",
    "note_row_job",
)
SAMPLE = 8
"""How many of the calls that only read are struck, evenly spread."""
PAIRS = 20
PORTION = 2
DAYS = 2.9
"""So that what was read two nights ago is due, and what was read last night is not."""
T0 = datetime.datetime(2040, 5, 1, 12, tzinfo=datetime.UTC)
"""Later than what the machine's clock says of the objects that are made here: all are old enough to be judged."""
DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "_TOGETHER", 2)
    monkeypatch.setattr(scrubbing, "_PORTION", PORTION)
    monkeypatch.setattr(sharing, "_PORTION", 2 * PORTION)
    for module in (sharing, comparing):
        monkeypatch.setattr(module, "REQUEST", 1)


@dataclass
class Kept(Ruin):
    """An archive, what befell it, and the clock of all that look after it; the clock goes on when it is asked."""

    world: Backed
    day: float = 0
    checked: Progress = field(default_factory=Progress)
    ticks: Iterator[int] = field(default_factory=itertools.count)

    def now(self) -> datetime.datetime:
        return T0 + self.day * DAY + datetime.timedelta(milliseconds=next(self.ticks))

    def tomorrow(self) -> None:
        self.day, self.ticks = self.day + 1, itertools.count()

    def again(self) -> Kept:
        """The same once more, for another history."""
        world = copied(self.world)
        return Kept(world, world.backup, self.day)

    def wanted(self, faults: Faults) -> Verification:
        """What a new process looks at; its calls are subject to ``faults``."""
        archive = self.world.archive(faults)
        return Verification(
            archive.catalog, archive.store, grace_s=0, checked=self.checked, now=self.now,
            sleep=lambda _: None, backup=faults.wrap(self.backup, "backup"),
        )  # fmt: skip

    def recorder(self, wanted: Verification) -> FindingsRecorder:
        return FindingsRecorder(wanted.catalog, now=self.now, monotonic=lambda: 0.0)

    def stores(self) -> tuple[MockStore, MockStore]:
        return self.world.store, self.backup

    def findings(self, *, open_only: bool = False) -> list[FindingRecord]:
        return list(self.world.catalog.findings(open_only=open_only))


Deed: TypeAlias = Callable[[Kept, Faults], None]
Judgement: TypeAlias = Callable[[Kept], None]
End: TypeAlias = Callable[[int, When], Faults]


def kept_archive(layout: WorldLayout) -> Kept:
    world = archive_all(small_world(layout))
    return Kept(world, world.backup)


def look(kept: Kept, faults: Faults) -> None:
    """Every direction, deep; each is noted, and what it did not see again closed."""
    wanted, archive = kept.wanted(faults), kept.world.archive(faults)
    wanted = replace(wanted, open_archive=lambda: nullcontext(archive))
    directions = ("objects", "backup", "ledger", "source", "documents")
    exhausted(verify(wanted, kept.recorder(wanted), directions))


def night(kept: Kept, faults: Faults) -> None:
    """One night's scrub."""
    wanted = kept.wanted(faults)
    exhausted(scrub(wanted, kept.recorder(wanted), DAYS))


def shares(kept: Kept, faults: Faults) -> None:
    """A look at all, share by share."""
    wanted = kept.wanted(faults)
    exhausted(verify_share(wanted, kept.recorder(wanted), DAYS, least=10_000))


# --- ends


def killed(number: int, when: When) -> Faults:
    """The process is gone: nothing that it would have tidied up reaches anything."""
    later = (Fault(after, When.BEFORE, crash) for after in range(number + 1, number + 10))
    return Faults((Fault(number, when, crash), *later))


def interrupted(number: int, when: When) -> Faults:
    """The process is told to end, and may tidy up."""
    return Faults((Fault(number, when, crash),))


def failed(number: int, when: When) -> Faults:
    """A server does not answer, this once."""
    return Faults((Fault(number, when, fail),))


ENDS: tuple[End, ...] = (killed, interrupted, failed)


def attempt(kept: Kept, deed: Deed, faults: Faults) -> None:
    with suppress(CrashError, HopArchiveError):
        deed(kept, faults)


def struck(base: Kept, deed: Deed) -> list[int]:
    """Every call that changes the catalog, and a sample of those that do not."""
    calm = Faults()
    deed(base.again(), calm)
    changes = [n for n, name in enumerate(calm.calls, start=1) if name.partition(".")[2] in CHANGES]
    rest = sorted({*range(1, len(calm.calls) + 1)} - {*changes})
    assert len(changes) > 10
    return sorted([*changes, *rest[:: max(1, len(rest) // SAMPLE)]])


def end_at_each_call(base: Kept, deed: Deed, end: End, meanwhile: Judgement, judge: Judgement) -> None:
    """``meanwhile`` is asked of what a process leaves that ends, ``judge`` of what the next one makes of it."""
    for number, when in itertools.product(struck(base, deed), When):
        kept, faults = base.again(), end(number, when)
        attempt(kept, deed, faults)
        assert len(faults.calls) >= number, "the fault did not strike"
        meanwhile(kept)
        deed(kept, Faults())
        judge(kept)


def end_in_pairs(base: Kept, deed: Deed, meanwhile: Judgement, judge: Judgement) -> None:
    """Two processes end anywhere, one after the other; nothing is in the third one's way."""
    numbers, chance = struck(base, deed), random.Random(7)
    for _ in range(PAIRS):
        kept = base.again()
        for _ in range(2):
            end, number, when = chance.choice(ENDS), chance.choice(numbers), chance.choice(list(When))
            attempt(kept, deed, end(number, when))
            meanwhile(kept)
        deed(kept, Faults())
        judge(kept)


# --- what is left


def told(kept: Kept) -> Counter[FindingRecord]:
    """The findings, each as often as it is there: by days, and without their numbers."""
    return Counter(map(_by_day, kept.findings()))


def _by_day(one: FindingRecord) -> FindingRecord:
    return one._replace(
        number=0,
        first_seen=_day(one.first_seen),
        last_seen=_day(one.last_seen),
        resolved_at=one.resolved_at and _day(one.resolved_at),
        resolution=re.sub(r"\d\d:\d\d UTC", "", one.resolution),
    )


def _day(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def opened(kept: Kept) -> Counter[Finding]:
    """What is open, each as often as it is there."""
    return Counter(one.finding._replace(detail="") for one in kept.findings(open_only=True))


def archived(kept: Kept) -> list[object]:
    """All that looking after an archive must leave as it is."""
    catalog = kept.world.catalog
    topics = sorted(catalog.topics())
    bodies = [{info.key: one._shelf.get(info.key) for info in one.listing()} for one in kept.stores()]
    return [
        *(list(catalog.rows(topic)) for topic in topics),
        *(list(catalog.duplicates(topic)) for topic in topics),
        catalog.ledger(), catalog.summaries(), bodies,
    ]  # fmt: skip


# --- noting


def looked_at_yesterday(layout: WorldLayout) -> Kept:
    """Of what was found yesterday some is mended, some there as it was, some accepted, some back; and some is new."""
    kept = kept_archive(layout)
    mended, lasting, accepted, altered, flipped, back, uncopied, *_, unlisted = kept.rows(BUSY)
    last = kept.rows(QUIET)[-1]
    copy = NewObject(mended.object_key, kept.body(mended.object_key))
    for row in (mended, lasting, accepted, back):
        kept.flip(row)
    kept.drop(last.object_key)
    kept.backup.delete([copy.key, last.object_key])
    for number in (1, 2):
        kept.put(orphan(number), b"of no row")
    kept.world.cluster.append(QUIET, b"not read yet")
    look(kept, Faults())
    resolve(kept, accepted, f"{ACCEPTED}nobody needs it")
    resolve(kept, back, "mended")

    kept.tomorrow()
    exhausted(catch_up(kept.archive(), overlap=0))
    kept.flip(mended)
    kept.flip(flipped)
    kept.backup.create([copy])
    kept.backup.delete([uncopied.object_key])
    kept.drop(orphan(1))
    kept.put(orphan(3), b"of no row")
    kept.alter(altered, timestamp_ms=5)
    kept.drop_row(unlisted)
    kept.world.cluster.append(BUSY, b"not read yet either")
    return kept


def orphan(number: int) -> str:
    return f"{BUSY}/2023/11/14/22/{uuid.UUID(int=number)}.bson"


def resolve(kept: Kept, row: Row, how: str) -> None:
    numbers = [one.number for one in kept.findings(open_only=True) if one.finding.uuid == row.uuid]
    assert kept.world.catalog.resolve_findings(numbers, how, kept.now()) == 1


@dataclass
class LetAlone:
    """What a look leaves that nothing befalls, and what any other has to leave."""

    base: Kept
    left: Kept

    @classmethod
    def of(cls, base: Kept, deed: Deed) -> LetAlone:
        left = base.again()
        deed(left, Faults())
        return cls(base, left)

    def meanwhile(self, kept: Kept) -> None:
        before, after = opened(self.base), opened(self.left)
        now = opened(kept)
        assert now & before & after == before & after, "what is there was told as gone"
        assert now <= before | after, "what is there is told twice, or what is not is told"
        assert archived(kept) == archived(self.base)

    def judge(self, kept: Kept) -> None:
        assert told(kept) == told(self.left)
        assert archived(kept) == archived(self.base)


def test_a_look_that_is_let_alone_closes_what_is_gone_and_notes_what_is_new_or_back() -> None:
    left = LetAlone.of(looked_at_yesterday("segment"), look).left
    assert Counter((one.finding.kind, fate(one)) for one in left.findings()) == {
        (Kind.CORRUPT_OBJECT, "gone"): 1,
        (Kind.CORRUPT_OBJECT, "again"): 1,
        (Kind.CORRUPT_OBJECT, f"{ACCEPTED}nobody needs it"): 1,
        (Kind.CORRUPT_OBJECT, "mended"): 1,
        (Kind.CORRUPT_OBJECT, "new"): 2,
        (Kind.COUNT_MISMATCH, "new"): 1,
        (Kind.MISSING_OBJECT, "gone"): 1,
        (Kind.MISSING_OBJECT, "again"): 2,
        (Kind.MISSING_OBJECT, "new"): 2,
        (Kind.NOT_ARCHIVED, "gone"): 1,
        (Kind.NOT_ARCHIVED, "new"): 1,
        (Kind.ORPHAN_OBJECT, "gone"): 1,
        (Kind.ORPHAN_OBJECT, "again"): 1,
        (Kind.ORPHAN_OBJECT, "new"): 1,
        (Kind.ROW_DIFFERS, "new"): 1,
    }


def fate(one: FindingRecord) -> str:
    """What a second day made of a finding."""
    second = T0 + DAY
    if one.resolved_at is None:
        return "new" if one.first_seen >= second else "again" if one.last_seen >= second else "left"
    return "gone" if one.resolution.startswith("not found any more") else one.resolution


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ENDS)
def test_wherever_a_look_ends_the_next_one_leaves_the_same_findings_once_each(
    layout: WorldLayout, end: End
) -> None:
    alone = LetAlone.of(looked_at_yesterday(layout), look)
    end_at_each_call(alone.base, look, end, alone.meanwhile, alone.judge)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_two_looks_end_the_next_one_leaves_the_same_findings_once_each(layout: WorldLayout) -> None:
    alone = LetAlone.of(looked_at_yesterday(layout), look)
    end_in_pairs(alone.base, look, alone.meanwhile, alone.judge)


# --- looking by shares


def looked_at_in_part(layout: WorldLayout) -> Kept:
    """What ``looked_at_yesterday`` is, of which some was looked at today already, before more befell it."""
    kept = looked_at_yesterday(layout)
    calls = itertools.count()
    wanted = kept.wanted(Faults())
    some = verify_share(wanted, kept.recorder(wanted), DAYS, least=10_000, stop=lambda: next(calls) > 20)
    exhausted(some)
    # By objects: what only reading them can tell is not found by listing.
    kept.drop(kept.rows(QUIET)[0].object_key)
    kept.drop(orphan(2))
    kept.day += 0.25
    return kept


def looked_at(kept: Kept) -> dict[tuple[str, str], set[str]]:
    """The keys that were looked at since, of all that are there or that rows name, by bucket and topic."""
    keys = {row.object_key for row in every(kept)} | {
        info.key for one in kept.stores() for info in one.listing()
    }
    today = [done for done in kept.world.catalog.checked() if done.checked_at >= T0 + kept.day * DAY]
    found: dict[tuple[str, str], set[str]] = {}
    for done in today:
        bucket, topic, look = done.section
        in_segments = look.value == "segments"
        if look.value in ("alone", "segments"):
            mine = {
                key for key in keys if key.startswith(f"segments/{topic}/" if in_segments else f"{topic}/")
            }
            found.setdefault((bucket, topic), set()).update(k for k in mine if done.after < k <= done.through)
    return found


def assert_what_was_looked_at_is_told(kept: Kept) -> None:
    """Of what is remembered as looked at since, what is missing is open."""
    opened_ = {(r.finding.bucket, r.finding.object_key) for r in kept.findings(open_only=True)}
    named = {row.object_key for row in every(kept)}
    for (bucket, _), keys in looked_at(kept).items():
        store = kept.world.store if bucket == kept.world.store.bucket else kept.backup
        there = {info.key for info in store.listing()}
        for key in keys:
            if key in named and key not in there:
                assert (bucket, key) in opened_, "looked at, and not told"


def test_a_look_by_shares_leaves_what_a_look_at_all_leaves() -> None:
    by_shares, at_once = looked_at_in_part("segment"), looked_at_in_part("segment")
    shares(by_shares, Faults())
    wanted = at_once.wanted(Faults())
    exhausted(verify(wanted, at_once.recorder(wanted), ("objects", "backup", "ledger")))
    assert opened(by_shares) == opened(at_once)


@pytest.mark.parametrize(("layout", "end"), [("message", killed), ("segment", interrupted), ("zstd", failed)])
def test_wherever_a_look_by_shares_ends_the_next_one_leaves_the_same_findings_once_each(
    layout: WorldLayout, end: End
) -> None:
    alone = LetAlone.of(looked_at_in_part(layout), shares)

    def meanwhile(kept: Kept) -> None:
        alone.meanwhile(kept)
        assert_what_was_looked_at_is_told(kept)

    def judge(kept: Kept) -> None:
        alone.judge(kept)
        sections = {done.section for done in alone.left.world.catalog.checked()}
        assert {done.section for done in kept.world.catalog.checked()} == sections
        assert all(done.checked_at >= T0 + kept.day * DAY for done in kept.world.catalog.checked())

    end_at_each_call(alone.base, shares, end, meanwhile, judge)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_two_looks_by_shares_end_the_next_one_leaves_the_same_findings_once_each(
    layout: WorldLayout,
) -> None:
    alone = LetAlone.of(looked_at_in_part(layout), shares)
    end_in_pairs(alone.base, shares, alone.meanwhile, alone.judge)


# --- scrubbing


def scrubbed_two_nights(layout: WorldLayout) -> Kept:
    """Some is due, some was read last night, some never; in all of it is damage that has come since, or that is mended."""
    kept = kept_archive(layout)
    first = kept.rows(BUSY)
    adopt(kept, first[:5])
    mended, lasting, new, _, altered = first[:5]
    old = adopted(kept)
    for row in (mended, lasting, old[1]):
        kept.flip(row)
    night(kept, Faults())
    assert claimed(kept) == {row.uuid for row in (*first[:5], *old[:2])}

    kept.tomorrow()
    adopt(kept, first[8:])
    night(kept, Faults())
    last_night = claimed(kept)
    assert len(last_night) == 5 + 3

    kept.tomorrow()
    fresh = [row for row in adopted(kept) if row not in old]
    assert fresh[0].uuid in last_night
    for row in (mended, new, first[5], *kept.rows(QUIET)[::2], old[0], old[-1], fresh[0]):
        kept.flip(row)
    kept.alter(altered, message_crc32=5)
    return kept


def ruined(layout: WorldLayout) -> Kept:
    """No document is what it was, and none was ever read."""
    kept = kept_archive(layout)
    adopt(kept, kept.rows(BUSY)[:5])
    for row in every(kept):
        kept.flip(row)
    return kept


def adopt(kept: Kept, rows: Sequence[Row]) -> None:
    """Copies of these, as another archiver wrote them."""
    copies = [double(kept.world, row, 1_000 + row.timestamp_ms % 1_000) for row in rows]
    kept.world.catalog.adopt(
        [row._replace(generation=None, partition=None, offset=None, digest=None) for row in copies]
    )


def adopted(kept: Kept) -> list[Row]:
    return list(kept.world.catalog.adopted_rows(BUSY, 0))


def every(kept: Kept) -> list[Row]:
    return [*kept.rows(BUSY), *kept.rows(QUIET)]


def claimed(kept: Kept) -> set[uuid.UUID]:
    """The rows of which it is remembered that they were compared today."""
    today = [one for one in kept.world.catalog.verified() if one.verified_at >= T0 + kept.day * DAY]
    return {row.uuid for row in every(kept) if any(holds(one, row) for one in today)}


def holds(one: VerifiedRange, row: Row) -> bool:
    at = row.timestamp_ms if row.offset is None else row.offset
    place = (row.topic, row.generation or 0, row.partition or 0)
    return place == one[:3] and one.start <= at < one.stop


def damaged(kept: Kept) -> set[uuid.UUID]:
    return {found.row.uuid for found in fetch_documents(kept.world.store, every(kept)) if found.problems}


def found_today(kept: Kept) -> set[uuid.UUID | None]:
    return {one.finding.uuid for one in kept.findings(open_only=True) if one.last_seen >= T0 + kept.day * DAY}


def memory(kept: Kept) -> tuple[object, ...]:
    """What is remembered of what was read, by days."""
    catalog = kept.world.catalog
    ranges = [one._replace(verified_at=_day(one.verified_at)) for one in catalog.verified()]
    shares = [one._replace(oldest=one.oldest and _day(one.oldest)) for one in catalog.verified_shares()]
    return ranges, shares


def assert_claims_are_true(kept: Kept) -> None:
    """What is remembered as read today was read: its damage is noted, and what was mended is closed."""
    claims = claimed(kept)
    assert claims & damaged(kept) == claims & found_today(kept)
    left = {one.finding.uuid for one in kept.findings(open_only=True)}
    assert claims & left == claims & found_today(kept), "what is mended is told still"


def meanwhile_of(alone: LetAlone) -> Judgement:
    def meanwhile(kept: Kept) -> None:
        alone.meanwhile(kept)
        assert_claims_are_true(kept)

    return meanwhile


def judge_of(alone: LetAlone, ends: int) -> Judgement:
    once = alone.left.checked.counts["messages"]

    def judge(kept: Kept) -> None:
        alone.judge(kept)
        assert memory(kept) == memory(alone.left)
        assert_claims_are_true(kept)
        assert kept.checked.counts["messages"] <= once + ends * PORTION, "more than a portion was read again"

    return judge


def test_a_scrub_that_is_let_alone_reads_what_is_due_or_was_never_read_and_nothing_else() -> None:
    left = LetAlone.of(scrubbed_two_nights("segment"), night).left
    assert left.checked.counts["messages"] == 5 + 3 + 2 + 2
    assert Counter((one.finding.kind, fate(one)) for one in left.findings()) == {
        (Kind.CORRUPT_OBJECT, "gone"): 1,
        (Kind.CORRUPT_OBJECT, "again"): 2,
        (Kind.CORRUPT_OBJECT, "new"): 5,
        (Kind.ROW_DIFFERS, "new"): 1,
    }
    assert len(damaged(left) - found_today(left)) == 2
    assert_claims_are_true(left)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ENDS)
def test_wherever_a_scrub_ends_the_next_one_reads_the_rest_and_finds_the_same_once_each(
    layout: WorldLayout, end: End
) -> None:
    alone = LetAlone.of(scrubbed_two_nights(layout), night)
    end_at_each_call(alone.base, night, end, meanwhile_of(alone), judge_of(alone, ends=1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_two_scrubs_end_the_next_one_reads_the_rest_and_finds_the_same_once_each(
    layout: WorldLayout,
) -> None:
    alone = LetAlone.of(scrubbed_two_nights(layout), night)
    end_in_pairs(alone.base, night, meanwhile_of(alone), judge_of(alone, ends=2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", ENDS)
def test_wherever_the_first_scrub_ends_it_claims_no_document_unread_and_all_is_read_within_the_days(
    layout: WorldLayout, end: End
) -> None:
    def judge(kept: Kept) -> None:
        assert_claims_are_true(kept)
        for _ in range(2):
            kept.tomorrow()
            night(kept, Faults())
        assert sum(one.never for one in kept.world.catalog.verified_shares()) == 0
        assert Counter(one.finding.uuid for one in kept.findings()) == Counter(r.uuid for r in every(kept))
        for _ in range(3):
            kept.tomorrow()
            night(kept, Faults())
        oldest = min(one.verified_at for one in kept.world.catalog.verified())
        assert oldest > kept.now() - 3 * DAY

    end_at_each_call(ruined(layout), night, end, assert_claims_are_true, judge)
