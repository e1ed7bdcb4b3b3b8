"""A restore from beginning to end, and on from wherever an earlier try got to."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hop_archive.catalog.records import Restore
from hop_archive.errors import ConfigurationError, ConflictError, ForbiddenError, UnavailableError
from hop_archive.ingest.collector import calm_collector
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.watermarks import Watermarks
from hop_archive.model.wording import counted
from hop_archive.recover.restore import groups
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.compare import ReadBack, compare
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Journal
from hop_archive.recover.restore.plan import Pin, Target, pin
from hop_archive.recover.restore.preflight import Condition, problems
from hop_archive.recover.restore.prepare import Preparation, Restoration, prepare
from hop_archive.recover.restore.request import as_object
from hop_archive.recover.restore.write import TargetTopic, Writer, Written, already_there
from hop_archive.source.protocol import Setting
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import NewObject

log = logging.getLogger(__name__)

_SETTLE_S = 0.5
_BACKOFF_S = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What came of a restore.

    Attributes:
        number: Its number in the catalog.
        report: All that there is to tell, JSON-able.
        complete: Whether all is written; False where somebody asked to stop.
        differences: How many messages the target does not hold as they were to be.
        left_out: How many were left out because they cannot be had, or not be sent.
    """

    number: int
    report: Mapping[str, Any]
    complete: bool
    differences: int
    left_out: int

    @property
    def unrestored(self) -> Sequence[str]:
        """What is not as it was, and nobody chose it so: sentences, which are among the report's notes, too."""
        return list(self.report.get("unrestored", ()))  # reports of before these were told have none


def restore(
    restoration: Restoration,
    control: Control,
    folder: Path,
    *,
    move_groups: Sequence[str] | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> RestoreResult:
    """Write what is selected, read it back, and say what is where.

    Running it again goes on where it was broken off; where all is done, and the target is as it was left, it does
    nothing, and says what it said then.

    Args:
        restoration: What, from where, to where.
        control: How.
        folder: Where files may be kept meanwhile: about 60 bytes a message.
        move_groups: Consumer groups to set on the target; empty: all that are known; None: none.
        restart: Whether to give up an earlier try of the same restore, and begin anew.
        progress: Told how far it is.

    Raises:
        ConfigurationError: Something stands in the way: all of it is named, and nothing was written.
        CorruptError: A message is missing or damaged: everything before it is written.
        ConflictError: The same restore, or another to the same topic, is at work; or another writer wrote there.
        UnavailableError: Something did not answer for longer than ``control.patience_s``.
    """
    with restoration.catalog.hold(f"the restore {restoration.fingerprint[:12]}, which is this very one"):
        _refuse_groups(restoration, move_groups)
        found = prepare(restoration, anew=restart)
        if not restart and (done := _done_before(found, control, move_groups)) is not None:
            return done
        found.refuse()
        if restart:
            _abandon(restoration)
        run = _RestoreRun(found, control, folder, move_groups, progress or Progress())
        with calm_collector():
            return run.all()


def _refuse_groups(restoration: Restoration, wanted: Sequence[str] | None) -> None:
    """Refuse groups of which nothing is known, and what cannot be told where a group stands.

    Raises:
        ConfigurationError: A group is in no snapshot; or messages go by key, so that no partition goes on as another.
    """
    if wanted is None:
        return
    if restoration.request.by_key:
        raise ConfigurationError(
            "Consumer groups cannot be moved where messages go to partitions by key: no partition goes on as another.",
            remedy="Leave --by-key out, or the groups.",
        )
    known = {one.name for one in restoration.catalog.snapshots("group", wanted or None)}
    if missing := sorted({*wanted} - known):
        raise ConfigurationError(
            f"No snapshot has a consumer group {missing[0]}.",
            remedy="See hop-archive snapshot show for those that there are.",
            group=missing[0],
        )


def _done_before(
    found: Preparation, control: Control, move_groups: Sequence[str] | None
) -> RestoreResult | None:
    """The same restore, where it is done: of the very same messages, and its targets are as it left them.

    Not where its moments depend on when they are said, nor where more is asked for than was done.
    """
    own = found.restoration
    every = own.catalog.restores(fingerprint=own.fingerprint)
    last = next((one for one in every if one.outcome == "done"), None)
    if found.begun is not None or own.said or last is None:
        return None
    done = last.report
    more = (control.check and not done["checked"]) or (
        move_groups is not None and done["groups"] != [*move_groups]
    )
    if more or done["left_out"] or not _is_as_it_was_left(found, last):
        return None
    log.info("Restore %s is this very one, and was done at %s", last.number, last.updated_at)
    done_before = f"This was done before, at {last.updated_at:%Y-%m-%d %H:%M} UTC."
    report = {**last.report, "notes": [done_before, *last.report.get("unrestored", ())]}
    return RestoreResult(last.number, report, True, 0, int(last.report["left_out"]))


def _is_as_it_was_left(found: Preparation, last: Restore) -> bool:
    topics: Mapping[str, Any] = last.report["topics"]
    planned = {one.topic: [pin(one), one.messages] for one in found.plan.targets}
    if planned != {
        name: [Pin(**one["pin"]), one["planned"]] for name in topics for one in [last.progress[name]]
    }:
        return False
    target = found.restoration.target
    now = target.topics(topics)
    if any(name not in now or now[name].topic_id != last.progress[name]["topic_id"] for name in topics):
        return False
    ends = {
        TopicPartition(name, part["partition"]): part["last_offset"] + 1
        for name, one in topics.items()
        for part in one["partitions"]
    }
    marks = target.watermarks(ends)
    return all(at in marks and marks[at].high == end for at, end in ends.items())


def _abandon(restoration: Restoration) -> None:
    begun = restoration.running()
    if begun is None:
        return
    there = restoration.target.topics(begun.progress)
    for name, one in begun.progress.items():
        changed = one["settings_before"] and "result" not in one
        if changed and name in there and there[name].topic_id == one["topic_id"]:
            restoration.target.change_settings(name, one["settings_before"])
    restoration.catalog.note_restore(begun.number, outcome="abandoned")


class _RestoreRun:
    """One try of a restore."""

    def __init__(
        self,
        found: Preparation,
        control: Control,
        folder: Path,
        move_groups: Sequence[str] | None,
        progress: Progress,
    ) -> None:
        self._found = found
        self._own = found.restoration
        self._control = control
        self._folder = folder
        self._move_groups = move_groups
        self._progress = progress
        self._cluster = self._own.target.cluster_id()
        self._record = found.begun or self._begin()
        self._results: dict[str, Any] = {}

    def _begin(self) -> Restore:
        names = [target.topic for target in self._found.plan.targets]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        target = f"{self._own.target.name} ({self._cluster}): {', '.join(names[:3])}{more}"
        asked = as_object(self._own.request)
        begun = self._own.catalog.begin_restore(self._own.fingerprint, target, asked)
        if self._found.not_told:  # once topics are there, nobody sees any more that they were made by guess
            self._own.catalog.note_restore(begun.number, report={"not_told": [*self._found.not_told]})
        return begun

    def all(self) -> RestoreResult:
        """Write every target that is not done yet."""
        self._progress.total = self._found.plan.messages
        complete = True
        for target in self._found.plan.targets:
            state = dict(self._record.progress.get(target.topic, {}))
            if "result" not in state:
                complete = self._one(target, state)
            if not complete:
                break
            self._results.setdefault(target.topic, state.get("result"))
            self._progress.counts["there"] = max(
                self._progress.counts["there"], sum(r["messages"] for r in self._results.values())
            )
        return self._ended(complete=complete)

    def _one(self, target: Target, state: dict[str, Any]) -> bool:
        """Write one target, and compare; whether it is complete."""
        self._progress.topic = target.topic
        with self._own.catalog.hold(f"the restore to topic {target.topic} of cluster {self._cluster}"):
            place = self._ready(target, state)
            before = self._progress.counts["there"]
            written = self._written(target, place, before)
            if not written.complete:
                return False
            result = self._result(target, place, written, state)
            self._put_back(target, state)
            state["result"] = self._results[target.topic] = result
            self._note(target, state)
            shutil.rmtree(self._journal(target), ignore_errors=True)
        return True

    # --- making ready

    def _ready(self, target: Target, state: dict[str, Any]) -> TargetTopic:
        """The target as it was when the restore began to write to it; that is noted before anything is written."""
        source = self._own.target
        condition = self._found.conditions[target.topic]
        if not state:
            source.create_topic(target.topic, target.partitions, condition.created_with)
            info = source.topics([target.topic])[target.topic]
            at = [TopicPartition(target.topic, number) for number in range(info.partitions)]
            marks = source.watermarks(at).whole()
            self._refuse_newcomers(target, condition, marks)
            state |= {
                "topic_id": info.topic_id,
                "partitions": info.partitions,
                "base": {str(one.partition): mark.high for one, mark in marks.items()},
                "empty": sorted(one.partition for one, mark in marks.items() if mark.low == mark.high),
                "pin": pin(target)._asdict(),
                "planned": target.messages,
                "settings_before": {},
            }
        wanted = self._needed(target, condition)
        state["settings_before"] |= self._before(
            target, [n for n in wanted if n not in state["settings_before"]]
        )
        self._note(target, state)
        if wanted:
            log.info("Setting %s on %s for the time of the restore", wanted, target.topic)
            source.change_settings(target.topic, wanted)
        base = {int(number): offset for number, offset in state["base"].items()}
        return TargetTopic(source, target.topic, state["topic_id"], state["partitions"], base)

    def _refuse_newcomers(
        self, target: Target, condition: Condition, marks: Mapping[TopicPartition, Watermarks]
    ) -> None:
        """Raise where the target is not as it was looked at: for the last of many topics that was hours ago.

        Raises:
            ConflictError: It holds messages now, or was made with fewer partitions.
        """
        held = sum(mark.high - mark.low for mark in marks.values())
        wanted = condition.partitions or target.partitions
        if (held > condition.held and not self._own.request.append) or len(marks) < wanted:
            raise ConflictError(
                f"Topic {target.topic} of source {self._own.target.name} was looked at, and changed since: it has "
                f"{counted(len(marks), 'partition')} and holds {counted(held, 'offset')}.",
                remedy="Nothing was written to it. End who writes there, and run the same command again.",
                topic=target.topic,
            )

    def _before(self, target: Target, needed: Sequence[str]) -> dict[str, str | None]:
        """What is to be put back afterwards: each setting that has to change, as the topic has it of its own."""
        if not needed:
            return {}
        own: Mapping[str, Setting] = self._own.target.settings([target.topic]).get(target.topic, {})
        return {name: own[name].value if name in own and own[name].own else None for name in needed}

    def _needed(self, target: Target, condition: Condition) -> dict[str, str]:
        now_ms = int(self._own.now().timestamp() * 1000)
        found = problems(target, replace(condition, held=0), self._own.request, now_ms)
        return dict(one.setting for one in found if one.setting is not None)

    def _put_back(self, target: Target, state: Mapping[str, Any]) -> None:
        before = state["settings_before"]
        if before and not self._own.request.keep_topic_config:
            log.info("Putting back %s on %s", before, target.topic)
            self._own.target.change_settings(target.topic, before)

    # --- writing

    def _written(self, target: Target, place: TargetTopic, before: int) -> Written:
        """Write; where something does not answer, or begins to refuse, wait, look how far it got, and go on."""
        waits = itertools.chain(_BACKOFF_S, itertools.repeat(_BACKOFF_S[-1]))
        failing_since: float | None = None
        best = -1
        for attempt in itertools.count():
            try:
                self._progress.counts["there"] = before
                return self._try(target, place, settle=attempt > 0 or self._found.begun is not None)
            except (UnavailableError, ForbiddenError) as error:
                if not (error.retryable or self._progress.counts["there"] > before):
                    raise  # refused from the start, not meanwhile
                now = self._control.monotonic()
                if self._progress.counts["there"] > best or failing_since is None:
                    best, failing_since = self._progress.counts["there"], now
                if now - failing_since > self._control.patience_s or self._control.stop():
                    raise
                log.warning("The restore waits and goes on: %s", error)
                self._control.sleep(next(waits))
        raise AssertionError("count() does not end")

    def _try(self, target: Target, place: TargetTopic, *, settle: bool) -> Written:
        shutil.rmtree(self._journal(target), ignore_errors=True)
        with Journal(self._journal(target)) as kept:
            own = self._own
            writer = Writer(self._found.selection, own.store, place, kept, self._control, self._progress)
            return writer.write(target, self._already(place, settle=settle))

    def _already(self, place: TargetTopic, *, settle: bool) -> dict[int, int]:
        """How much stands there; what a broken connection left on its way may yet arrive, so twice the same."""
        counts = already_there(place)
        while settle:
            self._control.sleep(_SETTLE_S)
            again = already_there(place)
            if again == counts:
                break
            counts = again
        return counts

    def _journal(self, target: Target) -> Path:
        return self._folder / target.topic

    # --- afterwards

    def _result(
        self, target: Target, place: TargetTopic, written: Written, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        compared = None
        if self._control.check:
            compared = compare(place, self._journal(target), self._control, self._progress)
        return {
            "source_topic": target.source,
            "messages": sum(written.counts.values()),
            "partitions": [
                {
                    "partition": number,
                    "messages": count,
                    "first_offset": place.base.get(number, 0),
                    "last_offset": place.base.get(number, 0) + count - 1,
                }
                for number in range(place.partitions)
                for count in [written.counts[number]]
            ],
            **_compared(compared),
            "left_out": [one._asdict() for one in written.left_out],
            "left_out_count": written.left_out_count,
            "tests_left_out": written.tests,
            "settings_changed": sorted(state["settings_before"]),
            "offset_map": self._kept_map(target),
            **self._moved(target, {n: place.base.get(n, 0) for n in state.get("empty", ())}),
        }

    def _kept_map(self, target: Target) -> list[str]:
        """Put the map from old to new offsets into the store; its keys."""
        return [
            self._put(f"offset-map/{target.topic}/{path.name}".removesuffix(".parquet"), ".parquet", path)
            for path in journal.files(self._journal(target))
        ]

    def _put(self, name: str, ending: str, content: Path | bytes) -> str:
        """Put something under the restore's folder in the store: beside what an earlier try left, if that is other."""
        folder = f"{OWN_FOLDER}restores/{self._record.number:06}-{self._own.fingerprint[:8]}"
        body = content if isinstance(content, bytes) else content.read_bytes()
        (key,) = create_free(self._own.store, [NewObject(f"{folder}/{name}{ending}", body)], ending)
        return key

    def _moved(self, target: Target, empty: Mapping[int, int]) -> dict[str, Any]:
        """Set the groups that were asked for: what each has then, as the cluster says, and what could not be set."""
        if self._move_groups is None:
            return {"groups": [], "groups_unset": []}
        unset: list[str] = []
        wanted = dict(self._groups_of(target, empty, unset))
        for name, commits in wanted.items():
            self._own.target.set_group_offsets(name, commits)
        found = self._own.target.groups() if wanted else {}
        for name, commits in wanted.items():
            unset += _refuse_other_offsets(name, commits, found.get(name, {}))
        told = [
            {
                "group": name,
                "offsets": [[at.topic, at.partition, one.offset] for at, one in sorted(commits.items())],
            }
            for name, commits in wanted.items()
        ]
        return {"groups": told, "groups_unset": unset}

    def _groups_of(
        self, target: Target, empty: Mapping[int, int], unset: list[str]
    ) -> Iterator[tuple[str, dict[TopicPartition, Committed]]]:
        """The groups that read the life of the topic that was restored, with what to commit in the target.

        A group that read only lives before it had no place in this one. What cannot be told is added to ``unset``.
        """
        lived = self._own.catalog.generations([target.source]).get(target.source, ())
        life = next((one for one in lived if one.number == target.generation), None)
        before = {one.topic_id for one in lived if life is not None and one.number < life.number}
        for one in self._own.catalog.snapshots("group", self._move_groups or None):
            if target.source not in one.content["topic_ids"]:
                continue
            commits = one.commits_in(target.source, life.topic_id) if life else {}
            if life is None or not commits:
                if one.content["topic_ids"][target.source] not in before:
                    unset.append(
                        f"Consumer group {one.name} was not set on {target.topic}: what is known of it is of another "
                        f"life of {target.source}, or of one that the catalog does not know."
                    )
                continue
            new = groups.moved(self._journal(target), life.number, commits, target.topic, empty)
            if left := sorted({at.partition for at in commits} - {at.partition for at in new}):
                unset.append(
                    f"Consumer group {one.name} was not set on partitions {', '.join(map(str, left))} of "
                    f"{target.topic}: nothing was restored there, and they held messages before."
                )
            if "metadata" not in one.content:
                unset.append(
                    f"The snapshot of consumer group {one.name} is of before metadata of commits were kept: none were set."
                )
            if new:
                yield one.name, new

    def _note(self, target: Target, state: Mapping[str, Any]) -> None:
        self._own.catalog.note_restore(self._record.number, progress={target.topic: state})

    def _ended(self, *, complete: bool) -> RestoreResult:
        results = dict(self._results)
        unset = [sentence for one in results.values() for sentence in one.get("groups_unset", ())]
        if self._move_groups is not None and not self._own.catalog.snapshots("group"):
            unset.append(
                "No consumer group was set: no snapshot has any. Either none read an archived topic, or the archive's "
                "credentials may not see groups (DESCRIBE), or none was taken: hop-archive snapshot take tells."
            )
        differences = sum(one.get("difference_count") or 0 for one in results.values())
        left_out = sum(one["left_out_count"] for one in results.values())
        report = {
            "restore": self._record.number,
            "fingerprint": self._own.fingerprint,
            "outcome": "done" if complete and not differences else ("failed" if complete else "stopped"),
            "target": self._own.target.name,
            "cluster_id": self._cluster,
            "request": as_object(self._own.request),
            "checked": self._control.check,
            "groups": None if self._move_groups is None else [*self._move_groups],
            "messages": sum(one["messages"] for one in results.values()),
            "left_out": left_out,
            "differences": differences,
            "topics": results,
            "notes": [*self._found.notes, *unset],
            "unrestored": [*self._found.unrestored, *unset],
        }
        if complete:
            report["report"] = self._kept_report(report)
            outcome = "failed" if differences else "done"
            self._own.catalog.note_restore(self._record.number, outcome=outcome, report=report)
        return RestoreResult(self._record.number, report, complete, differences, left_out)

    def _kept_report(self, report: Mapping[str, Any]) -> str:
        body = json.dumps(report, indent=2, ensure_ascii=False).encode()
        return self._put("report", ".json", body)


def _refuse_other_offsets(
    group: str, wanted: Mapping[TopicPartition, Committed], found: Mapping[TopicPartition, Committed]
) -> Iterator[str]:
    """Compare what a group has with what it was set to: what it wrote beside its offsets may be kept nowhere.

    Raises:
        ConflictError: An offset is another one.
    """
    wrong = {
        at: found.get(at) for at, one in wanted.items() if at not in found or found[at].offset != one.offset
    }
    if wrong:
        raise ConflictError(
            f"Consumer group {group} was set to {dict(wanted)}, and stands at {wrong}.",
            remedy="Stop the group's members, and run the same command again.",
            group=group,
        )
    if any(found[at].metadata != one.metadata for at, one in wanted.items()):
        yield f"The target does not keep the metadata of the commits of consumer group {group}."


def _compared(found: ReadBack | None) -> dict[str, Any]:
    if found is None:
        return {"compared": None, "differences": [], "difference_count": None, "append_times": None}
    return {
        "compared": found.messages,
        "differences": [one._asdict() for one in found.differences],
        "difference_count": found.difference_count,
        "append_times": found.append_times,
    }
