"""What a restore would do, and what stands in its way. Reads catalog, store and target; changes nothing."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Restore
from hop_archive.errors import ConfigurationError, CorruptError, ForbiddenError, HopArchiveError
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.topics import TopicPolicy
from hop_archive.model.wording import counted
from hop_archive.recover.restore.items import ItemReader
from hop_archive.recover.restore.plan import Pin, RestorePlan, Target, pinned, plan
from hop_archive.recover.restore.preflight import Condition, Problem, notes, problems
from hop_archive.recover.restore.request import Request, fingerprint
from hop_archive.source.protocol import Setting, Source, TopicInfo
from hop_archive.store.protocol import Store
from hop_archive.upkeep.verify.objects import Verification, recorded_objects

log = logging.getLogger(__name__)

_MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Restoration:
    """A restore and all that it works with.

    Attributes:
        catalog: What there is.
        store: Where it is.
        target: Where it goes.
        request: What is wanted.
        policy: What the archived source says about topics: which hold tests.
        said: Moments that depend on when they were said, as they were said; see ``fingerprint``.
        now: The clock on the wall.
    """

    catalog: Catalog
    store: Store
    target: Source
    request: Request = field(default_factory=Request)
    policy: TopicPolicy = field(default_factory=TopicPolicy)
    said: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], datetime] = utc_now

    @property
    def fingerprint(self) -> str:
        """What tells this restore from others."""
        return fingerprint(self.request, self.target.name, self.said)

    def running(self) -> Restore | None:
        """The restore of this request that was begun and is not over, if there is one."""
        return next(iter(self.catalog.restores(fingerprint=self.fingerprint, running_only=True)), None)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is to be done.

    Attributes:
        restoration: With the moments of the restore that is gone on with.
        plan: What is to be written where.
        begun: The restore that is gone on with; None: it is new.
        conditions: Each target as it is.
        problems: What stands in the way.
        notes: What can't be kept, or is worth knowing.
        unrestored: What of that is not as it was, and nobody chose it so: what is not known, or not there.
        not_told: What no snapshot tells of topics that are created, as it was when the restore began.
    """

    restoration: Restoration
    plan: RestorePlan
    begun: Restore | None
    conditions: Mapping[str, Condition]
    problems: Sequence[Problem]
    notes: Sequence[str]
    unrestored: Sequence[str] = ()
    not_told: Sequence[str] = ()

    def refuse(self) -> None:
        """Raise all that stands in the way, at once.

        Raises:
            ConfigurationError: Something does.
            CorruptError: All that does is objects that are missing or damaged.
        """
        settable = self.restoration.request.set_topic_config
        left = [one for one in self.problems if one.setting is None or not settable]
        if not left:
            return
        told = "\n".join(f"  {one.where}: {one.what}. {one.remedy}" for one in left[:_MOST_TOLD])
        more = f"\n  and {len(left) - _MOST_TOLD} more" if len(left) > _MOST_TOLD else ""
        kind: type[HopArchiveError] = ConfigurationError
        if all(one.remedy == _DAMAGED for one in left):
            kind = CorruptError
        raise kind(
            f"Nothing was written: {counted(len(left), 'thing stands', 'things stand')} in the way.\n{told}{more}",
            problems=[one.what for one in left],
        )

    @property
    def selection(self) -> ItemReader:
        """Where the messages come from."""
        return ItemReader(self.restoration.catalog, self.restoration.request)


def prepare(restoration: Restoration, *, anew: bool = False) -> Preparation:
    """Find out what a restore would do, and all that stands in its way.

    Args:
        restoration: What is wanted.
        anew: Whether to look away from an earlier try that is not over.

    Raises:
        ConfigurationError: Nothing is selected, or a topic means none.
        UnavailableError: Catalog, store or target do not answer.
    """
    begun = None if anew else restoration.running()
    resumed = _as_it_began(restoration, begun)
    planned = plan(resumed.catalog, resumed.request, resumed.policy)
    if begun is not None:
        pins = {name: Pin(**one["pin"]) for name, one in begun.progress.items()}
        planned = pinned(resumed.catalog, resumed.request, planned, pins)
    planned = RestorePlan(tuple(_with_all_partitions(resumed.catalog, target) for target in planned.targets))
    conditions = _conditions(resumed, planned, begun)
    now_ms = int(resumed.now().timestamp() * 1000)
    found = [
        problem
        for target in planned.targets
        for problem in problems(target, conditions[target.topic], resumed.request, now_ms)
    ]
    found += [*_unknown(resumed, planned), *_damaged(resumed, planned), *_forbidden(resumed, conditions)]
    said = [n for t in planned.targets for n in notes(t, conditions[t.topic], resumed.request)]
    not_told: Sequence[str] | None = begun.report.get("not_told") if begun else None
    if not_told is None:
        not_told = [*_not_told(resumed.catalog, planned, conditions)]
    missing = _missing(resumed.catalog, planned)
    # Who asked for some messages did not ask for the topic as it was.
    unrestored = [*(not_told if resumed.request.is_whole else ()), *missing]
    said += [*not_told, *missing]
    return Preparation(resumed, planned, begun, conditions, found, said, unrestored, not_told)


def _as_it_began(restoration: Restoration, begun: Restore | None) -> Restoration:
    """The same with the moments that the restore began with: what "2d ago" is goes on."""
    if begun is None:
        return restoration
    asked, request = begun.request, restoration.request
    query = replace(request.query, since_ms=asked["query"]["since_ms"], until_ms=asked["query"]["until_ms"])
    return replace(restoration, request=replace(request, query=query, as_of_ms=asked["as_of_ms"]))


def _with_all_partitions(catalog: Catalog, target: Target) -> Target:
    """The target with as many partitions as the topic had; those of which nothing is archived, too."""
    had = int(_set_up(catalog, target).get("partitions", 0))
    return replace(target, partitions=max(target.partitions, had))


def _set_up(catalog: Catalog, target: Target) -> Mapping[str, Any]:
    """How the archived topic was set up, in the life that is restored, as its snapshot says; empty for no snapshot.

    Where none is of that life, the last that there is of the topic.
    """
    same, others = _set_ups(catalog, target)
    return next(iter([*same, *others]), {})


def _set_ups(catalog: Catalog, target: Target) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What snapshots say of the life of a topic that is restored, and of others of its lives."""
    lived = catalog.generations([target.source]).get(target.source, ())
    life = next((one for one in lived if one.number == target.generation), None)
    found: list[Mapping[str, Any]] = [
        content
        for snapshot in catalog.snapshots("topic", [target.source])
        for content in (snapshot.content, snapshot.content.get("former"))
        if content
    ]
    same = [one for one in found if life is None or one.get("topic_id") == life.topic_id]
    return same, [one for one in found if one not in same]


def _not_told(catalog: Catalog, planned: RestorePlan, conditions: Mapping[str, Condition]) -> Iterator[str]:
    """What nobody knows of topics that are to be created: a sentence a kind of it."""
    seen, guessed, of_another_life, hidden = list[str](), list[str](), list[str](), list[str]()
    for target in planned.targets:
        if conditions[target.topic].partitions is not None:
            continue
        same, others = _set_ups(catalog, target)
        if same:
            if not same[0].get("settings_known", True):
                hidden.append(target.source)
        elif others:
            of_another_life.append(target.source)
        elif any(at.generation == target.generation for at in catalog.observed([target.source])):
            seen.append(target.source)
        else:
            guessed.append(target.source)
    take = "hop-archive snapshot take asks the source, as long as that is there."
    if seen:
        yield f"No snapshot tells the settings of {_named(seen)}: not restored. Partitions: as many as were ever seen. {take}"
    if guessed:
        yield (
            f"No snapshot tells the settings and partitions of {_named(guessed)}: settings are not restored, and of "
            f"partitions as many as hold messages; there may have been more. {take}"
        )
    if of_another_life:
        yield f"The last snapshot of {_named(of_another_life)} is of another life: partitions and settings are as it says."
    if hidden:
        yield f"The settings of {_named(hidden)} were not shown when the snapshot was taken (DESCRIBE_CONFIGS): not restored."


_MOST_NAMED = 5


def _named(topics: Sequence[str]) -> str:
    more = len(topics) - _MOST_NAMED
    return ", ".join(topics[:_MOST_NAMED]) + (f" and {counted(more, 'more topic')}" if more > 0 else "")


def _conditions(
    restoration: Restoration, planned: RestorePlan, begun: Restore | None
) -> dict[str, Condition]:
    source, names = restoration.target, [target.topic for target in planned.targets]
    there = source.topics(names).whole()
    settings = {name: _values(found) for name, found in _told_settings(source, there).items()}
    usual = _usual(source) if len(there) < len(names) else {}
    marks = source.watermarks([at for info in there.values() for at in _partitions(info)]).whole()
    held = Counter[str]()
    for at, mark in marks.items():
        held[at.topic] += mark.high - mark.low
    resumed = begun.progress if begun else {}
    return {
        name: Condition(
            there[name].partitions if name in there else None,
            held[name],
            settings.get(name, {}) if name in there else usual | own,
            own,
            name in resumed,
        )
        for target in planned.targets
        for name, own in [(target.topic, _own(restoration, target))]
    }


def _told_settings(source: Source, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
    """The settings of topics; none where the credentials do not allow to look: Kafka's defaults are assumed then."""
    try:
        return source.settings(topics)
    except ForbiddenError as error:
        log.warning("The settings of the target are not known, and taken to be Kafka's defaults: %s", error)
        return {}


def _values(settings: Mapping[str, Setting]) -> dict[str, str]:
    return {name: one.value for name, one in settings.items()}


def _usual(source: Source) -> dict[str, str]:
    """What topics of the cluster have that set nothing of their own, as far as one that is there tells."""
    any_topic = list(itertools.islice(source.topics(), 1))
    found = _told_settings(source, any_topic).get(any_topic[0], {}) if any_topic else {}
    return {name: one.value for name, one in found.items() if not one.own}


def _partitions(info: TopicInfo) -> list[TopicPartition]:
    return [TopicPartition(info.name, number) for number in range(info.partitions)]


def _own(restoration: Restoration, target: Target) -> dict[str, str]:
    """What a topic is created with: what it was set to when archived, and what was asked for."""
    settings: Mapping[str, str] = _set_up(restoration.catalog, target).get("settings", {})
    return dict(settings) | dict(restoration.request.topic_settings)


_DAMAGED = "Mend it (hop-archive repair), or leave out what is missing: --skip-damaged."


def _missing(catalog: Catalog, planned: RestorePlan) -> list[str]:
    """Of each topic, whether the ledger counts messages that have no row: those cannot be restored.

    To count takes every row of the topic, of an index: of very many that is left to verify.
    """
    said: list[str] = []
    if planned.messages > _MOST_COUNTED:
        return said
    for topic in sorted({target.source for target in planned.targets}):
        gone = sum(
            max(0, one.said - one.found)
            for one in catalog.miscounts(topic)
            if one.slice and one.what == "archived"
        )
        if gone:
            said.append(
                f"the ledger counts {counted(gone, 'message')} of {topic} without a row: not restored. "
                "hop-archive verify tells which, and hop-archive repair puts back what it can."
            )
    return said


def _unknown(restoration: Restoration, planned: RestorePlan) -> list[Problem]:
    """UUIDs that were named and mean no message of what is written."""
    wanted = restoration.request.query.uuids
    if wanted is None:
        return []
    selection = ItemReader(restoration.catalog, restoration.request)
    there = {item.row.uuid for target in planned.targets for item in selection.items(target)}
    return [
        Problem(
            "",
            f"message {own} is not in the catalog, or not to be restored: of another generation, taken back, suppressed",
            "Leave it out, or see hop-archive inspect for what is known of it.",
        )
        for own in wanted
        if own not in there
    ]


def _forbidden(restoration: Restoration, conditions: Mapping[str, Condition]) -> list[Problem]:
    """Topics that the credentials may not write to, as far as the cluster tells."""
    there = [name for name, one in conditions.items() if one.partitions is not None]
    return [
        Problem(name, "the credentials may not write to it", "Grant WRITE on it to the stanza's user.")
        for name, may in sorted(restoration.target.access(there).items())
        if may is not None and not may & {"write", "all", "any"}
    ]


_MOST_COUNTED = 5_000_000

_MOST_TROUBLES = 10_000
"""Objects with a finding that are remembered; where there are more, most likely the wrong store was named."""


def _damaged(restoration: Restoration, planned: RestorePlan) -> list[Problem]:
    """Objects of the selection that are not there, or not as long as they should be; by listing."""
    if restoration.request.skip_damaged:
        return []
    found: list[Problem] = []
    for target in planned.targets:
        if not target.lanes:
            continue
        wanted = Verification(restoration.catalog, restoration.store, Query(topics=(target.source,)))
        met = (t for t in recorded_objects(wanted, target.source) if t.kind in _WORTH_TELLING)
        findings = {t.object_key: t for t in itertools.islice(met, _MOST_TROUBLES)}
        if findings:
            found += _selected(restoration, target, findings)
    return found


_WORTH_TELLING = (Kind.MISSING_OBJECT, Kind.WRONG_SIZE)


def _selected(restoration: Restoration, target: Target, findings: Mapping[str, Finding]) -> list[Problem]:
    selection = ItemReader(restoration.catalog, restoration.request)
    told: dict[str, Problem] = {}
    for item in selection.items(target):
        finding = findings.get(item.row.object_key)
        if finding is not None and finding.object_key not in told:
            what = f"object {finding.object_key}: {finding.detail}"
            told[finding.object_key] = Problem(target.source, what, _DAMAGED)
    return list(told.values())
