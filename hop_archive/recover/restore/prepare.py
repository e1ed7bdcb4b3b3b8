"""What a restore would do, and what stands in its way. Reads catalog, store and target; changes nothing."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

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
from hop_archive.recover.restore.preflight import (
    Condition,
    PreflightProblem,
    fitted,
    fitted_notes,
    notes,
    problems,
)
from hop_archive.recover.restore.request import Request, fingerprint
from hop_archive.source.protocol import Setting, Source
from hop_archive.store.protocol import Store
from hop_archive.upkeep.verify.objects import recorded_objects
from hop_archive.upkeep.verify.verification import Verification

log = logging.getLogger(__name__)

_MOST_TOLD = 20
_MOST_NAMED = 5
_MOST_COUNTED = 5_000_000
_COUNTED_SHARES = 100
"""Where not all of a topic is restored one of each so many ledger rows is compared with its rows; the others where the topic's
totals are not those of its rows."""
_MOST_FINDINGS = 10_000
"""Objects with a finding that are remembered; where there are more, most likely the wrong store was named."""
_DAMAGED = "Mend it (hop-archive repair), or leave out what is missing: --skip-damaged."


@dataclass(frozen=True, slots=True)
class Restoration:
    """A restore and all that it works with.

    Attributes:
        policy: What the archived source says about topics: which hold tests.
        target_policy: What the target says of them: which are archived in turn. None: it is a source that nobody archives.
        said: Moments that depend on when they were said, as they were said; see ``fingerprint``.
    """

    catalog: Catalog
    store: Store
    target: Source
    request: Request = field(default_factory=Request)
    policy: TopicPolicy = field(default_factory=TopicPolicy)
    said: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], datetime] = utc_now
    target_policy: TopicPolicy | None = None

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
        begun: The restore that is gone on with; None: it is new.
        unrestored: What of that is not as it was, and nobody chose it so: what is not known, or not there.
        not_told: What no snapshot tells of topics that are created, as it was when the restore began.
        fitted: What topics that are created get other than archived, likewise.
    """

    restoration: Restoration
    plan: RestorePlan
    begun: Restore | None
    conditions: Mapping[str, Condition]
    problems: Sequence[PreflightProblem]
    notes: Sequence[str]
    unrestored: Sequence[str] = ()
    not_told: Sequence[str] = ()
    fitted: Sequence[str] = ()

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
        head = f"Nothing was written: {counted(len(left), 'thing stands', 'things stand')} in the way."
        raise kind("\n".join([head, *lines]), problems=[problem.what for problem in left])

    @property
    def selection(self) -> ItemReader:
        """Where the messages come from."""
        return ItemReader(self.restoration.catalog, self.restoration.request)


def prepare(restoration: Restoration, *, anew: bool = False) -> Preparation:
    """Find out what a restore would do, ``anew`` or on from an earlier try that is not over, and all that stands in its way.

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
    set_ups = {target.topic: _SetUps.of(catalog, target) for target in planned.targets}
    targets = tuple(
        replace(t, partitions=max(t.partitions, set_ups[t.topic].best.get("partitions", 0)))
        for t in planned.targets
    )
    planned = replace(planned, targets=targets)
    conditions = _conditions(restoration, planned, begun, set_ups)
    in_the_way = [*_problems(restoration, planned, conditions)]
    said = [note for t in targets for note in notes(t, conditions[t.topic], request)]
    not_told: Sequence[str] | None = begun.report.get("not_told") if begun else None
    if not_told is None:
        not_told = [*_not_told(catalog, planned, conditions, set_ups)]
    fitted_said = [note for t in targets for note in fitted_notes(t, conditions[t.topic])]
    if begun is not None:  # once topics are there, nobody sees any more what they were to be
        earlier = [note for note in begun.report.get("fitted", ()) if note not in fitted_said]
        said, fitted_said = [*said, *earlier], [*earlier, *fitted_said]
    missing, uncompared = _missing(catalog, planned, request)
    missing += [
        f"{topic} is left out: Kafka takes no topic of that name. Restore it by itself, with --topic and --to-topic."
        for topic in planned.unnamed
    ]
    # Who asked for some messages did not ask for the topic as it was.
    unrestored = [*(not_told if request.is_whole else ()), *missing]
    said += [*_archived_in_turn(restoration, planned), *not_told, *missing, *uncompared]
    return Preparation(
        restoration, planned, begun, conditions, in_the_way, said, unrestored, not_told, fitted_said
    )


def _missing(catalog: Catalog, planned: RestorePlan, request: Request) -> tuple[list[str], list[str]]:
    """What the ledger counts and no row is of; and of what that was not looked at, or not of all of it."""
    missing: list[str] = []
    # To compare all reads every row of a topic: of a part of one, or of very many, most are left to verify.
    is_all = request.is_whole and planned.messages <= _MOST_COUNTED
    topics = sorted({target.source for target in planned.targets})
    compared = topics if planned.messages <= _MOST_COUNTED else []
    for topic in compared:
        found = catalog.miscounts(topic, every=1 if is_all else _COUNTED_SHARES)
        counts = [m for m in found if m.slice and m.what == "archived"]
        if gone := sum(max(0, miscount.said - miscount.found) for miscount in counts):
            missing.append(
                f"the ledger counts {counted(gone, 'message')} of {topic} without a row: not restored. "
                "hop-archive verify tells which, and hop-archive repair puts back what it can."
            )
    if is_all or not topics:
        return missing, []
    share = f"one ledger row in {_COUNTED_SHARES}, and totals," if compared else "none of the ledger"
    verb = "was" if not compared else "were"
    return missing, [
        f"Of {_named(topics)} {share} {verb} compared with rows of messages: hop-archive verify compares all."
    ]


def _archived_in_turn(restoration: Restoration, planned: RestorePlan) -> Iterator[str]:
    """Targets that are archived like any topic, once something is written there."""
    policy, source = restoration.target_policy, restoration.target.name
    targets = [target for target in planned.targets if policy is not None and policy.archived(target.topic)]
    if same := [target.topic for target in targets if target.topic == target.source]:
        yield f"{_named(same)}: what archives source {source} finds these messages to be copies of those that it has, and stores none again."
    if others := [target.topic for target in targets if target.topic != target.source]:
        yield (
            f"{_named(others)}: what archives source {source} archives these messages once more, as those of another topic. "
            "Name it under veto in the source's stanza before restoring, if that is not wanted."
        )


class _SetUps(NamedTuple):
    """What snapshots say of the generation of a topic that is restored, and of others of its generations."""

    same: list[Mapping[str, Any]]
    others: list[Mapping[str, Any]]

    @classmethod
    def of(cls, catalog: Catalog, target: Target) -> _SetUps:
        known = catalog.generations([target.source]).get(target.source, ())
        topic_ids = [g.topic_id for g in known if g.number == target.generation]
        found: list[Mapping[str, Any]] = [
            content
            for snapshot in catalog.snapshots("topic", [target.source])
            for content in (snapshot.content, snapshot.content.get("former"))
            if content
        ]
        same = [content for content in found if not topic_ids or content.get("topic_id") == topic_ids[0]]
        return cls(same, [content for content in found if content not in same])

    @property
    def best(self) -> Mapping[str, Any]:
        """Of the generation that is restored; where none is of that, the last that there is; empty for none."""
        return next(iter([*self.same, *self.others]), {})


def _not_told(
    catalog: Catalog,
    planned: RestorePlan,
    conditions: Mapping[str, Condition],
    set_ups: Mapping[str, _SetUps],
) -> Iterator[str]:
    """What nobody knows of topics that are to be created: a sentence a kind of it."""
    seen, guessed, of_another, hidden = list[str](), list[str](), list[str](), list[str]()
    for target in planned.targets:
        if conditions[target.topic].partitions is not None:
            continue
        told = set_ups[target.topic]
        if told.same:
            if not told.same[0].get("settings_known", True):
                hidden.append(target.source)
        elif told.others:
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
    restoration: Restoration, planned: RestorePlan, begun: Restore | None, set_ups: Mapping[str, _SetUps]
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
        created = {**set_ups[name].best.get("settings", {}), **restoration.request.topic_settings}
        is_there = name in there
        current = {key: setting.value for key, setting in settings.get(name, {}).items()}
        condition = Condition(
            partitions=there[name].partitions if is_there else None,
            held=held[name],
            settings=current if is_there else usual | created,
            created_with=created,
            resumed=begun is not None and name in begun.progress,
        )
        now_ms = int(restoration.now().timestamp() * 1000)
        found[name] = fitted(target, condition, restoration.request, now_ms)
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
) -> Iterator[PreflightProblem]:
    request, now_ms = restoration.request, int(restoration.now().timestamp() * 1000)
    for target in planned.targets:
        yield from problems(target, conditions[target.topic], request, now_ms)
    items = ItemReader(restoration.catalog, request)
    if request.query.uuids is not None:
        selected = {
            m.message_uuid
            for target in planned.targets
            for page in items.pages(target)
            for m in page.messages
        }
        for message_uuid in request.query.uuids:
            if message_uuid not in selected:
                what = f"message {message_uuid} is not in the catalog, or not to be restored: of another generation, taken back, suppressed"
                remedy = "Leave it out, or see hop-archive inspect for what is known of it."
                yield PreflightProblem("", what, remedy)
    for target in planned.targets if not request.skip_damaged else ():
        if target.lanes:  # objects that are not there, or not as long as they should be; by listing
            verification = Verification(
                restoration.catalog, restoration.store, Query(topics=(target.source,))
            )
            met = itertools.islice(recorded_objects(verification, target.source), _MOST_FINDINGS)
            findings = {finding.object_key: finding for finding in met}
            wanted = (m for page in items.pages(target) for m in page.messages) if findings else ()
            for message in wanted:
                if finding := findings.pop(message.object_key, None):
                    yield PreflightProblem(
                        target.source, f"object {finding.object_key}: {finding.detail}", _DAMAGED
                    )
    there = [name for name, condition in conditions.items() if condition.partitions is not None]
    for name, may in sorted(restoration.target.access(there).items()):
        if may is not None and not may & {"write", "all", "any"}:  # as far as the cluster tells
            remedy = "Grant WRITE on it to the stanza's user."
            yield PreflightProblem(name, "the credentials may not write to it", remedy)
