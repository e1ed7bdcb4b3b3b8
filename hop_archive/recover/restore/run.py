"""A restore from beginning to end, and on from wherever an earlier try got to."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hop_archive.catalog.records import Snapshot
from hop_archive.errors import ConflictError, ForbiddenError, UnavailableError
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.model.message import TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.wording import counted, listed
from hop_archive.recover.restore import groups
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.compare import ReadBack, compare
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Journal
from hop_archive.recover.restore.plan import Pin, Target, pin
from hop_archive.recover.restore.preflight import problems
from hop_archive.recover.restore.prepare import Preparation, Restoration, prepare
from hop_archive.recover.restore.request import as_object
from hop_archive.recover.restore.write import TargetTopic, Writer, already_there
from hop_archive.recover.restore.written import Written
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import NewObject

log = logging.getLogger(__name__)

_SETTLE_S = 0.5
_BACKOFF_S = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What came of a restore.

    Attributes:
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
        snapshots = groups.known(restoration, move_groups)
        found = prepare(restoration, anew=restart)
        if not restart and (done := done_before(found, move_groups, check=control.check)) is not None:
            return done
        found.refuse()
        if restart and (begun := restoration.running()) is not None:
            there = restoration.target.topics(begun.progress)
            for name, kept in begun.progress.items():
                is_changed = kept["settings_before"] and "result" not in kept
                if is_changed and name in there and there[name].topic_id == kept["topic_id"]:
                    restoration.target.change_settings(name, kept["settings_before"])
            restoration.catalog.note_restore(begun.number, outcome="abandoned")
        run = _RestoreRun(found, control, folder, move_groups, snapshots, progress or Progress())
        with fewer_collections():
            return run.all()


@dataclass(frozen=True, slots=True)
class TargetState:
    """What the catalog keeps of a target, so that going on finds it as it was when the restore began to write to it.

    Attributes:
        base: Where each partition ended.
        planned: How many messages were to be written, at most.
        empty: The partitions that held nothing; restores that were begun before this was kept have none.
        settings_before: Settings that are to be put back, as the topic had them of its own; None: it had none.
        result: What came of it, as reports tell it; None as long as it is not written and compared.
    """

    topic_id: str | None
    partitions: int
    base: Mapping[int, int]
    pin: Pin
    planned: int
    empty: Sequence[int] = ()
    settings_before: Mapping[str, str | None] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> TargetState:
        """The state that the catalog has, as ``as_object`` made it."""
        return _STATE.validate_python(kept)

    def as_object(self) -> dict[str, Any]:
        """The state as JSON has it."""
        return {name: value for name, value in asdict(self).items() if name != "result" or value is not None}


_STATE = TypeAdapter(TargetState)


def done_before(
    found: Preparation, move_groups: Sequence[str] | None, *, check: bool
) -> RestoreResult | None:
    """The same restore, where it is done: of the very same messages, and its targets are as it left them.

    Not where its moments depend on when they are said, nor where more is asked for than was done.
    """
    restoration = found.restoration
    before = restoration.catalog.restores(fingerprint=restoration.fingerprint)
    last = next((restore for restore in before if restore.outcome == "done"), None)
    if found.begun is not None or restoration.said or last is None:
        return None
    report = last.report
    if (check and not report["checked"]) or report["left_out"]:
        return None
    if move_groups is not None and report["groups"] != [*move_groups]:
        return None
    topics: Mapping[str, Any] = report["topics"]
    states = {name: TargetState.of(last.progress[name]) for name in topics}
    planned = {target.topic: (pin(target), target.messages) for target in found.plan.targets}
    if planned != {name: (state.pin, state.planned) for name, state in states.items()}:
        return None
    now = restoration.target.topics(topics)
    if any(name not in now or now[name].topic_id != state.topic_id for name, state in states.items()):
        return None
    ends = {
        TopicPartition(name, part["partition"]): part["last_offset"] + 1
        for name, result in topics.items()
        for part in result["partitions"]
    }
    marks = restoration.target.watermarks(ends)
    if not all(at in marks and marks[at].high == end for at, end in ends.items()):
        return None
    log.info("Restore %s is this very one, and was done at %s", last.number, last.updated_at)
    done_before = f"This was done before, at {last.updated_at:%Y-%m-%d %H:%M} UTC."
    report = {**report, "notes": [done_before, *report.get("unrestored", ())]}
    return RestoreResult(last.number, report, True, 0, int(report["left_out"]))


class _RestoreRun:
    """One try of a restore."""

    def __init__(
        self,
        found: Preparation,
        control: Control,
        folder: Path,
        move_groups: Sequence[str] | None,
        snapshots: Sequence[Snapshot],
        progress: Progress,
    ) -> None:
        self._found = found
        self._restoration = found.restoration
        self._catalog = found.restoration.catalog
        self._source = found.restoration.target
        self._control = control
        self._folder = folder
        self._move_groups = move_groups
        self._snapshots = snapshots
        self._progress = progress
        self._cluster = self._source.cluster_id()
        begun = found.begun
        if begun is None:
            names = [target.topic for target in found.plan.targets]
            where = f"{self._source.name} ({self._cluster}): {listed(names, 3)}"
            asked = as_object(self._restoration.request)
            begun = self._catalog.begin_restore(self._restoration.fingerprint, where, asked)
            if (
                found.not_told or found.fitted
            ):  # once topics are there, nobody sees any more how they were made
                kept = {"not_told": [*found.not_told], "fitted": [*found.fitted]}
                self._catalog.note_restore(begun.number, report=kept)
        self._record = begun

    def all(self) -> RestoreResult:
        """Write every target that is not done yet."""
        self._progress.total = self._found.plan.messages
        results: dict[str, Mapping[str, Any]] = {}
        complete = True
        for target in self._found.plan.targets:
            kept = self._record.progress.get(target.topic)
            state = TargetState.of(kept) if kept else None
            if state is None or (result := state.result) is None:
                self._progress.topic = target.topic
                with self._catalog.hold(f"the restore to topic {target.topic} of cluster {self._cluster}"):
                    state = self._ready(target, state)
                    topic = TargetTopic(
                        self._source, target.topic, state.topic_id, state.partitions, state.base
                    )
                    written = self._written(target, topic)
                    compared = None
                    if written.complete and self._control.check:
                        compared = compare(topic, self._journal(target), self._control, self._progress)
                    if not (written.complete and (compared is None or compared.complete)):
                        complete = False  # somebody asked to stop
                        break
                    result = self._result(target, topic, written, compared, state)
                    if state.settings_before and not self._restoration.request.keep_topic_config:
                        log.info("Putting back %s on %s", state.settings_before, target.topic)
                        self._source.change_settings(target.topic, state.settings_before)
                    self._note(target, replace(state, result=result))
                    shutil.rmtree(self._journal(target), ignore_errors=True)
            results[target.topic] = result
            there = sum(one["messages"] for one in results.values())
            self._progress.counts["there"] = max(self._progress.counts["there"], there)
        return self._ended(results, complete=complete)

    def _note(self, target: Target, state: TargetState) -> None:
        self._catalog.note_restore(self._record.number, progress={target.topic: state.as_object()})

    def _journal(self, target: Target) -> Path:
        return self._folder / target.topic

    def _ready(self, target: Target, state: TargetState | None) -> TargetState:
        """Create the target where it is not there, and change the settings that stand in the way, once its state is noted.

        Raises:
            ConflictError: It is not as it was looked at, which for the last of many topics was hours ago: it holds
                messages now, or was made with fewer partitions.
        """
        condition = self._found.conditions[target.topic]
        if state is None:
            self._source.create_topic(target.topic, target.partitions, condition.created_with)
            info = self._source.topics([target.topic])[target.topic]
            at = [TopicPartition(target.topic, number) for number in range(info.partitions)]
            marks = self._source.watermarks(at).whole()
            held = sum(mark.high - mark.low for mark in marks.values())
            is_filled = held > condition.held and not self._restoration.request.append
            if is_filled or len(marks) < (condition.partitions or target.partitions):
                raise ConflictError(
                    f"Topic {target.topic} of source {self._source.name} was looked at, and changed since: it has "
                    f"{counted(len(marks), 'partition')} and holds {counted(held, 'offset')}.",
                    remedy="Nothing was written to it. End who writes there, and run the same command again.",
                    topic=target.topic,
                )
            base = {at.partition: mark.high for at, mark in marks.items()}
            empty = sorted(at.partition for at, mark in marks.items() if mark.low == mark.high)
            state = TargetState(info.topic_id, info.partitions, base, pin(target), target.messages, empty)
        now_ms = int(self._restoration.now().timestamp() * 1000)
        found = problems(target, replace(condition, held=0), self._restoration.request, now_ms)
        needed = dict(problem.setting for problem in found if problem.setting is not None)
        if new := [name for name in needed if name not in state.settings_before]:
            settings = self._source.settings([target.topic]).get(target.topic, {})
            before = {n: settings[n].value if n in settings and settings[n].own else None for n in new}
            state = replace(state, settings_before={**state.settings_before, **before})
        self._note(target, state)
        if needed:
            log.info("Setting %s on %s for the time of the restore", needed, target.topic)
            self._source.change_settings(target.topic, needed)
        return state

    def _written(self, target: Target, topic: TargetTopic) -> Written:
        """Write; where something does not answer, or begins to refuse, wait, look how far it got, and go on."""
        waits = itertools.chain(_BACKOFF_S, itertools.repeat(_BACKOFF_S[-1]))
        counts, control = self._progress.counts, self._control
        before = counts["there"]
        failing_since: float | None = None
        best = -1
        for attempt in itertools.count():
            try:
                counts["there"] = before
                shutil.rmtree(self._journal(target), ignore_errors=True)
                with Journal(self._journal(target)) as kept:
                    already, settled = already_there(topic), attempt == 0 and self._found.begun is None
                    while (
                        not settled
                    ):  # what a broken connection left on its way may yet arrive: until twice the same
                        control.sleep(_SETTLE_S)
                        seen, already = already, already_there(topic)
                        settled = seen == already
                    store = self._restoration.store
                    writer = Writer(self._found.selection, store, topic, kept, control, self._progress)
                    return writer.write(target, already)
            except (UnavailableError, ForbiddenError) as error:
                if not (error.retryable or counts["there"] > before):
                    raise  # refused from the start, not meanwhile
                now = control.monotonic()
                if counts["there"] > best or failing_since is None:
                    best, failing_since = counts["there"], now
                if now - failing_since > control.patience_s or control.stop():
                    raise
                log.warning("The restore waits and goes on: %s", error)
                control.sleep(next(waits))
        raise AssertionError("count() does not end")

    def _result(
        self,
        target: Target,
        topic: TargetTopic,
        written: Written,
        compared: ReadBack | None,
        state: TargetState,
    ) -> dict[str, Any]:
        """Keep the map from old to new offsets in the store, move groups, and say all of it as JSON has it."""
        folder = self._journal(target)
        partitions = []
        for number in range(topic.partitions):
            first, count = topic.base.get(number, 0), written.counts[number]
            offsets = {"first_offset": first, "last_offset": first + count - 1}
            partitions.append({"partition": number, "messages": count, **offsets})
        offset_map = [
            self._put(f"offset-map/{target.topic}/{path.stem}", ".parquet", path.read_bytes())
            for path in journal.files(folder)
        ]
        moved: dict[str, Any] = {"groups": [], "groups_unset": []}
        if self._move_groups is not None:
            empty = {number: topic.base.get(number, 0) for number in state.empty}
            moved = groups.move(self._restoration, self._snapshots, target, folder, empty)
        return {
            "source_topic": target.source,
            "messages": sum(written.counts.values()),
            "partitions": partitions,
            "compared": compared and compared.messages,
            "differences": [one._asdict() for one in compared.differences] if compared else [],
            "difference_count": compared and compared.difference_count,
            "append_times": compared and compared.append_times,
            "left_out": [one._asdict() for one in written.left_out],
            "left_out_count": written.left_out_count,
            "tests_left_out": written.tests,
            "caveats": dict(written.caveats),
            "settings_changed": sorted(state.settings_before),
            "offset_map": offset_map,
            **moved,
        }

    def _put(self, name: str, ending: str, body: bytes) -> str:
        """Put something under the restore's folder in the store: beside what an earlier try left, if that is other."""
        folder = f"{OWN_FOLDER}restores/{self._record.number:06}-{self._restoration.fingerprint[:8]}"
        new = NewObject(f"{folder}/{name}{ending}", body)
        (key,) = create_free(self._restoration.store, [new], ending)
        return key

    def _ended(self, results: Mapping[str, Mapping[str, Any]], *, complete: bool) -> RestoreResult:
        unset = [sentence for result in results.values() for sentence in result.get("groups_unset", ())]
        if self._move_groups is not None and not self._snapshots:
            unset.append(
                "No consumer group was set: no snapshot has any. Either none read an archived topic, or the archive's "
                "credentials may not see groups (DESCRIBE), or none was taken: hop-archive snapshot take tells."
            )
        differences = sum(result.get("difference_count") or 0 for result in results.values())
        left_out = sum(result["left_out_count"] for result in results.values())
        outcome = "failed" if differences else "done"
        report = {
            "restore": self._record.number,
            "fingerprint": self._restoration.fingerprint,
            "outcome": outcome if complete else "stopped",
            "target": self._source.name,
            "cluster_id": self._cluster,
            "request": as_object(self._restoration.request),
            "checked": self._control.check,
            "groups": None if self._move_groups is None else [*self._move_groups],
            "messages": sum(result["messages"] for result in results.values()),
            "left_out": left_out,
            "differences": differences,
            "topics": dict(results),
            "notes": [*self._found.notes, *unset],
            "unrestored": [*self._found.unrestored, *unset],
        }
        if complete:
            body = json.dumps(report, indent=2, ensure_ascii=False).encode()
            report["report"] = self._put("report", ".json", body)
            self._catalog.note_restore(self._record.number, outcome=outcome, report=report)
        return RestoreResult(self._record.number, report, complete, differences, left_out)
