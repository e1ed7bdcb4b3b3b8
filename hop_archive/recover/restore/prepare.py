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
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.topics import TopicPolicy
from hop_archive.model.wording import counted
from hop_archive.recover.restore.items import ItemReader
from hop_archive.recover.restore.plan import Pin, RestorePlan, Target, pinned, plan
from hop_archive.recover.restore.preflight import Condition, Problem, notes, problems
from hop_archive.recover.restore.request import Request, fingerprint
from hop_archive.source.protocol import Setting, Source
from hop_archive.store.protocol import Store
from hop_archive.upkeep.verify.objects import recorded_objects
from hop_archive.upkeep.verify.verification import Verification

log = logging.getLogger(__name__)

_MOST_TOLD = 20
_MOST_NAMED = 5
_MOST_COUNTED = 5_000_000
_MOST_FINDINGS = 10_000
"""Objects with a finding that are remembered; where there are more, most likely the wrong store was named."""
_DAMAGED = "Mend it (hop-archive repair), or leave out what is missing: --skip-damaged."


@dataclass(frozen=True, slots=True)
class Restoration:
    """A restore and all that it works with.

    Attributes:
        catalog: What there is.
        store: Where it is.
        target: Where it goes.
        request: What was asked for.
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
        left = [problem for problem in self.problems if problem.setting is None or not settable]
        if not left:
            return
        lines = [f"  {problem.where}: {problem.what}. {problem.remedy}" for problem in left[:_MOST_TOLD]]
        if len(left) > _MOST_TOLD:
            lines.append(f"  and {len(left) - _MOST_TOLD} more")
        is_damage = all(problem.remedy == _DAMAGED for problem in left)
        kind: type[HopArchiveError] = CorruptError if is_damage else ConfigurationError
        raise kind(
            "\n".join(
                [
                    f"Nothing was written: {counted(len(left), 'thing stands', 'things stand')} in the way.",
                    *lines,
                ]
            ),
            problems=[problem.what for problem in left],
        )

    @property
    def selection(self) -> ItemReader:
        """Where the messages come from."""
        return ItemReader(self.restoration.catalog, self.restoration.request)


def prepare(restoration: Restoration, *, anew: bool = False) -> Preparation:
    """Find out what a restore would do, and all that stands in its way.

    Args:
        restoration: What is to be restored.
        anew: Whether to look away from an earlier try that is not over.

    Raises:
        ConfigurationError: Nothing is selected, or a topic means none.
        UnavailableError: Catalog, store or target do not answer.
    """
    begun = None if anew else restoration.running()
    if begun is not None:  # with the moments that it began with: what "2d ago" is goes on
        asked, request = begun.request, restoration.request
        since_ms, until_ms = asked["query"]["since_ms"], asked["query"]["until_ms"]
        query = replace(request.query, since_ms=since_ms, until_ms=until_ms)
        restoration = replace(restoration, request=replace(request, query=query, as_of_ms=asked["as_of_ms"]))
    catalog, request = restoration.catalog, restoration.request
    planned = plan(catalog, request, restoration.policy)
    if begun is not None:
        pins = {name: Pin(**progress["pin"]) for name, progress in begun.progress.items()}
        planned = pinned(catalog, request, planned, pins)
    # With as many partitions as a topic had: those of which nothing is archived, too.
    had = [int(_set_up(catalog, target).get("partitions", 0)) for target in planned.targets]
    targets = [replace(t, partitions=max(t.partitions, n)) for t, n in zip(planned.targets, had, strict=True)]
    planned = RestorePlan(tuple(targets))
    conditions = _conditions(restoration, planned, begun)
    in_the_way = _problems(restoration, planned, conditions)
    said = [note for t in targets for note in notes(t, conditions[t.topic], request)]
    not_told: Sequence[str] | None = begun.report.get("not_told") if begun else None
    if not_told is None:
        not_told = [*_not_told(catalog, planned, conditions)]
    missing = _missing(catalog, planned)
    # Who asked for some messages did not ask for the topic as it was.
    unrestored = [*(not_told if request.is_whole else ()), *missing]
    said += [*not_told, *missing]
    return Preparation(restoration, planned, begun, conditions, in_the_way, said, unrestored, not_told)


def _set_up(catalog: Catalog, target: Target) -> Mapping[str, Any]:
    """How the archived topic was set up, in the generation that is restored, as its snapshot says; empty for no snapshot.

    Where none is of that generation, the last that there is of the topic.
    """
    same, others = _set_ups(catalog, target)
    return next(iter([*same, *others]), {})


def _set_ups(catalog: Catalog, target: Target) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What snapshots say of the generation of a topic that is restored, and of others of its generations."""
    known = catalog.generations([target.source]).get(target.source, ())
    topic_ids = [g.topic_id for g in known if g.number == target.generation]
    found: list[Mapping[str, Any]] = [
        content
        for snapshot in catalog.snapshots("topic", [target.source])
        for content in (snapshot.content, snapshot.content.get("former"))
        if content
    ]
    same = [content for content in found if not topic_ids or content.get("topic_id") == topic_ids[0]]
    return same, [content for content in found if content not in same]


def _not_told(catalog: Catalog, planned: RestorePlan, conditions: Mapping[str, Condition]) -> Iterator[str]:
    """What nobody knows of topics that are to be created: a sentence a kind of it."""
    seen, guessed, of_another, hidden = list[str](), list[str](), list[str](), list[str]()
    for target in planned.targets:
        if conditions[target.topic].partitions is not None:
            continue
        same, others = _set_ups(catalog, target)
        if same:
            if not same[0].get("settings_known", True):
                hidden.append(target.source)
        elif others:
            of_another.append(target.source)
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
    if of_another:
        yield f"The last snapshot of {_named(of_another)} is of another generation: partitions and settings are as it says."
    if hidden:
        yield f"The settings of {_named(hidden)} were not shown when the snapshot was taken (DESCRIBE_CONFIGS): not restored."


def _named(topics: Sequence[str]) -> str:
    more = len(topics) - _MOST_NAMED
    return ", ".join(topics[:_MOST_NAMED]) + (f" and {counted(more, 'more topic')}" if more > 0 else "")


def _conditions(
    restoration: Restoration, planned: RestorePlan, begun: Restore | None
) -> dict[str, Condition]:
    source, names = restoration.target, [target.topic for target in planned.targets]
    there = source.topics(names).whole()
    settings = _settings_of(source, there)
    # What topics of the cluster have that set nothing of their own, as far as one that is there tells.
    usual: dict[str, str] = {}
    if len(there) < len(names):
        for of_any in _settings_of(source, list(itertools.islice(source.topics(), 1))).values():
            usual = {name: setting.value for name, setting in of_any.items() if not setting.own}
    partitions = [TopicPartition(i.name, number) for i in there.values() for number in range(i.partitions)]
    held = Counter[str]()
    for at, mark in source.watermarks(partitions).whole().items():
        held[at.topic] += mark.high - mark.low
    found: dict[str, Condition] = {}
    for target in planned.targets:
        name = target.topic
        # What a topic is created with: what it was set to when archived, and what was asked for.
        archived: Mapping[str, str] = _set_up(restoration.catalog, target).get("settings", {})
        created = dict(archived) | dict(restoration.request.topic_settings)
        is_there = name in there
        current = {key: setting.value for key, setting in settings.get(name, {}).items()}
        found[name] = Condition(
            partitions=there[name].partitions if is_there else None,
            held=held[name],
            settings=current if is_there else usual | created,
            created_with=created,
            resumed=begun is not None and name in begun.progress,
        )
    return found


def _settings_of(source: Source, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
    """The settings of topics; none where the credentials do not allow to look: Kafka's defaults are assumed then."""
    try:
        return source.settings(topics)
    except ForbiddenError as error:
        log.warning("The settings of the target are not known, and taken to be Kafka's defaults: %s", error)
        return {}


def _problems(
    restoration: Restoration, planned: RestorePlan, conditions: Mapping[str, Condition]
) -> list[Problem]:
    request, now_ms = restoration.request, int(restoration.now().timestamp() * 1000)
    found = [
        problem
        for target in planned.targets
        for problem in problems(target, conditions[target.topic], request, now_ms)
    ]
    if request.query.uuids is not None:
        items = ItemReader(restoration.catalog, request)
        selected = {item.row.uuid for target in planned.targets for item in items.items(target)}
        found += [
            Problem(
                "",
                f"message {message_uuid} is not in the catalog, or not to be restored: of another generation, taken back, suppressed",
                "Leave it out, or see hop-archive inspect for what is known of it.",
            )
            for message_uuid in request.query.uuids
            if message_uuid not in selected
        ]
    if not request.skip_damaged:
        found += _damaged(restoration, planned)
    there = [name for name, condition in conditions.items() if condition.partitions is not None]
    found += [  # as far as the cluster tells
        Problem(name, "the credentials may not write to it", "Grant WRITE on it to the stanza's user.")
        for name, may in sorted(restoration.target.access(there).items())
        if may is not None and not may & {"write", "all", "any"}
    ]
    return found


def _damaged(restoration: Restoration, planned: RestorePlan) -> Iterator[Problem]:
    """Objects of the selection that are not there, or not as long as they should be; by listing."""
    items = ItemReader(restoration.catalog, restoration.request)
    for target in planned.targets:
        if not target.lanes:
            continue
        verification = Verification(restoration.catalog, restoration.store, Query(topics=(target.source,)))
        met = itertools.islice(recorded_objects(verification, target.source), _MOST_FINDINGS)
        findings = {finding.object_key: finding for finding in met}
        for item in items.items(target) if findings else ():
            if finding := findings.pop(item.row.object_key, None):
                yield Problem(target.source, f"object {finding.object_key}: {finding.detail}", _DAMAGED)


def _missing(catalog: Catalog, planned: RestorePlan) -> list[str]:
    """Of each topic, whether the ledger counts messages that have no row: those cannot be restored.

    To count takes every row of the topic, of an index: of very many that is left to verify.
    """
    said: list[str] = []
    topics = {target.source for target in planned.targets} if planned.messages <= _MOST_COUNTED else ()
    for topic in sorted(topics):
        gone = sum(
            max(0, miscount.said - miscount.found)
            for miscount in catalog.miscounts(topic)
            if miscount.slice and miscount.what == "archived"
        )
        if gone:
            said.append(
                f"the ledger counts {counted(gone, 'message')} of {topic} without a row: not restored. "
                "hop-archive verify tells which, and hop-archive repair puts back what it can."
            )
    return said
