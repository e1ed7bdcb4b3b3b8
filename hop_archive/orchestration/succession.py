"""How one following run takes over from another: neither ends, nor begins, before the other is ready.

    the run before                 the sensor                  its successor
    follows for its time
    says LEAVING, and follows on   asks for a successor
                                                               starts, connects, says READY
    commits what it has read
    says LEFT, reports, ends                                   plans by the ledger, and follows

So what arrives while a process starts (8 to 11 s, 2026-11-28) is archived by the run that is there. Nothing rests on it:
a run that never sees the other's word goes on after a while, and the ledger refuses what both would commit.

A word is a key ``RUN_ID/WORD`` of a dynamic partition that no asset has, as a sign of life is (``runs``): the run id is
always that of the run before.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

import dagster as dg

log = logging.getLogger(__name__)

SUCCESSIONS = "hop_archive/successions"
"""Name of the dynamic partitions that are no partitions but words between two runs."""

TAKES_OVER = "hop_archive/takes_over_from"
"""Tag of a following run: the ids of the runs that it takes over from, with commas between."""

LEAVING, READY, LEFT = "leaving", "ready", "left"

STAYS_S = 3600.0
"""How long a run stays for a successor that does not come: longer than a daemon is away that is upgraded, or slots are taken."""

TAKES_S = 20.0
"""How long a successor waits for the run before to commit what it has read: one that takes longer hangs."""

_ASKS_EVERY_S = 0.2
_LOOKS_EVERY_S = 0.05


class Stay:
    """When a following run may end: once a successor is ready, after its time.

    A storage that does not answer stops nothing: the run stays, and asks again.

    Args:
        instance: Where the words are.
        run_id: Of the run.
        follow_s: Its time.
        monotonic: The clock by which it is counted, from now on.
    """

    def __init__(
        self, instance: dg.DagsterInstance, run_id: str, follow_s: float, monotonic: Callable[[], float]
    ) -> None:
        self._instance, self._run_id, self._monotonic = instance, run_id, monotonic
        self._until = self._asks_at = monotonic() + follow_s
        self._is_over = False

    def is_over(self) -> bool:
        """Whether to end now. Costs nothing before its time, and a query five times a second then."""
        now = self._monotonic()
        if now < self._asks_at or self._is_over:
            return self._is_over
        self._asks_at = now + _ASKS_EVERY_S
        self._is_over = now >= self._until + STAYS_S
        try:
            _say(self._instance, self._run_id, LEAVING)
            self._is_over |= _has_said(self._instance, self._run_id, READY)
        except Exception:  # whatever a storage raises
            log.warning("Run %s could not ask for its successor", self._run_id, exc_info=True)
        return self._is_over

    def left(self) -> None:
        """Say that all that was read is committed, and nothing more is read."""
        try:
            _say(self._instance, self._run_id, LEFT)
        except Exception:  # its successor waits a while, then
            log.warning("Run %s could not say that it left", self._run_id, exc_info=True)


def take_over(
    instance: dg.DagsterInstance,
    before: Iterable[str],
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Say that a successor is ready; returns once the runs before have left, are over, or have had ``TAKES_S`` to.

    Again, as after a crash: the same, at once if they are over.
    """
    end = monotonic() + TAKES_S
    staying = {run_id for run_id in before if not _is_over(instance, run_id)}
    for run_id in staying:
        _say(instance, run_id, READY)
    while staying and monotonic() < end:
        sleep(_LOOKS_EVERY_S)
        staying = {
            run_id
            for run_id in staying
            if not _has_said(instance, run_id, LEFT) and not _is_over(instance, run_id)
        }


def predecessors(tags: Mapping[str, str]) -> list[str]:
    """The runs that a run with these tags takes over from."""
    return [run_id for run_id in tags.get(TAKES_OVER, "").split(",") if run_id]


def leaving(instance: dg.DagsterInstance, live: Collection[str]) -> frozenset[str]:
    """Those of the ``live`` runs that want a successor; the words of all others are forgotten."""
    said = [key.rpartition("/") for key in instance.get_dynamic_partitions(SUCCESSIONS)]
    for run_id, _, word in said:
        if run_id not in live:
            instance.delete_dynamic_partition(SUCCESSIONS, f"{run_id}/{word}")
    return frozenset(run_id for run_id, _, word in said if word == LEAVING and run_id in live)


def release(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> None:
    """Let these runs end without a successor: nobody is to follow any more."""
    for run_id in run_ids:
        _say(instance, run_id, READY)


def _say(instance: dg.DagsterInstance, run_id: str, word: str) -> None:
    instance.add_dynamic_partitions(SUCCESSIONS, [f"{run_id}/{word}"])


def _has_said(instance: dg.DagsterInstance, run_id: str, word: str) -> bool:
    return instance.has_dynamic_partition(SUCCESSIONS, f"{run_id}/{word}")


def _is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished
