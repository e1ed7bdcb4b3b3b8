"""Several processes with the same backlog share it: each takes some of the logs, and none does what another does already.

By claims in the catalog (``Catalog.claim_logs``), which only spare waste: what keeps a message from being archived twice is
the ledger. So a claim that ran out, was lost, or was taken from somebody who hung does no harm, and a catalog in which none may
be written works as well.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Mapping

from hop_archive.archive import Archive
from hop_archive.catalog.records import Share
from hop_archive.errors import ForbiddenError, HopArchiveError
from hop_archive.ingest.process_mark import is_gone, process_mark
from hop_archive.model.slices import PartitionLog
from hop_archive.model.wording import listed

log = logging.getLogger(__name__)

LEASE_S = 15.0
"""What a process that died held is free after so long, where nobody on its machine sees that it has."""
_RENEWALS = 5
"""In the time of a lease: some may fail."""
_POLL_S = 1.0
_MOST_POLLS = 5
_PATIENCE_S = 60.0
_MOST_NAMED = 3
_LONGEST_SILENCE_S = 600.0
"""Of a process in which nothing has moved for so long, what it holds is free: it may hang. A batch takes less, or is a rare one."""


class Alone:
    """Shares with nobody: all is its own."""

    def take(self, wanted: Collection[PartitionLog]) -> frozenset[PartitionLog]:
        """Say which logs are wanted, all of them; which of them are to be archived by this process now.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        return frozenset(wanted)

    def wait(self, wanted: Collection[PartitionLog], stop: Callable[[], bool]) -> None:
        """Wait until some of what is wanted may be taken, for some seconds at most: then what is wanted may be less.

        Raises:
            UnavailableError: The catalog does not answer.
        """

    def wait_for_end(self, starts: Mapping[PartitionLog, int], stop: Callable[[], bool]) -> bool:
        """``wait``, for what has an end: it is not waited for where whoever holds it does not get on.

        Args:
            starts: Where the work in each log begins that is wanted; all are held by others.
            stop: Whether to wait no longer.

        Returns:
            Whether to plan anew. False where nothing has moved for a minute: who holds them may not get on.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        return True

    def is_asked_to_give(self) -> bool:
        """Whether to finish what is in hand and ``take`` anew: others are waiting for some of it, or have died."""
        return False

    def close(self) -> None:
        """Let go of everything."""


ALONE = Alone()


class Sharing(Alone):
    """Shares with every other process that has one of these on the same catalog.

    What is taken stays taken while this process lives and something moves, by a thread that renews it, until ``close``.
    May be used from one thread.

    Attributes:
        others: With whom it was shared so far, by their runs' ids.
    """

    def __init__(self, archive: Archive, sleep: Callable[[float], None], lease_s: float = LEASE_S) -> None:
        self._archive = archive
        self._sleep = sleep
        self._lease_s = lease_s
        self._holder = new_holder(archive.run_id)
        self._is_allowed = True
        self._wanted: frozenset[PartitionLog] = frozenset()
        self._mine: frozenset[PartitionLog] = frozenset()
        self._others: tuple[str, ...] = ()
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._moved_at = archive.monotonic()
        self._renewing: threading.Thread | None = None
        self._told: set[bool] = set()
        self._waited_for: dict[PartitionLog, int] = {}
        self._waiting_since = 0.0
        self.others: set[str] = set()

    def take(self, wanted: Collection[PartitionLog]) -> frozenset[PartitionLog]:
        """Of what others want as well, a fair share: what nobody holds that lives, or this process holds already."""
        self._moved_at = self._archive.monotonic()
        wanted = frozenset(wanted)
        if not self._is_allowed or (wanted == self._wanted == self._mine and not self._asked.is_set()):
            return wanted  # nothing has changed since, and the thread renews what is held
        self._asked.clear()
        try:
            share = self._claim(wanted)
        except ForbiddenError as error:
            self._is_allowed = False
            log.info(
                "What others archive at the same time is not known, and may be done twice for nothing: %s",
                error,
            )
            return wanted
        self._wanted, self._mine, self._others = wanted, share.mine, share.others
        others = {*map(_run_of, share.others)}
        self.others |= others
        # Once: with each process that comes or goes it would be said again in other numbers.
        if others and bool(share.mine) not in self._told:
            self._told.add(bool(share.mine))
            what = (
                f"{len(share.mine)} of {len(wanted)} partitions are archived here"
                if share.mine
                else "all that is left is being archived there; waiting"
            )
            log.info("Shared with %s: %s.", listed(sorted(others), _MOST_NAMED), what)
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew, name="claims", daemon=True)
            self._renewing.start()
        return share.mine

    def wait(self, wanted: Collection[PartitionLog], stop: Callable[[], bool]) -> None:
        """Ask once a second whether something is free, for five seconds."""
        for _ in range(_MOST_POLLS):
            self._sleep(_POLL_S)
            if stop() or self.take(wanted):
                return

    def wait_for_end(self, starts: Mapping[PartitionLog, int], stop: Callable[[], bool]) -> bool:
        """False where all work has begun at the same offsets for a minute."""
        now = self._archive.monotonic()
        if starts != self._waited_for:
            self._waited_for, self._waiting_since = dict(starts), now
        if now - self._waiting_since > _PATIENCE_S:
            log.info(
                "Of what is being archived elsewhere nothing has moved for a minute: it is tried here, too."
            )
            return False
        self.wait(starts, stop)
        return True

    def is_asked_to_give(self) -> bool:
        """Whether this process holds more than its share by now, or less, or is thought to be gone. Costs nothing: a thread asks."""
        self._moved_at = self._archive.monotonic()
        return self._asked.is_set()

    def close(self) -> None:
        """Let go of everything; where the catalog does not answer, it is free when the lease is over."""
        self._closed.set()
        if self._renewing is None:
            return
        self._renewing.join()
        self._renewing = None
        try:
            self._archive.catalog.drop_claims(self._holder)
        except HopArchiveError as error:
            log.info("What this run held is free in %.0f seconds: %s", self._lease_s, error)

    def _claim(self, wanted: frozenset[PartitionLog]) -> Share:
        """Claim, without those who have died on this machine: they are not waited for."""
        catalog = self._archive.catalog
        share = catalog.claim_logs(self._holder, wanted, self._lease_s)
        gone = [holder for holder in share.others if _has_died(holder)]
        if not gone:
            return share
        for holder in gone:
            catalog.drop_claims(holder)
        log.info(
            "Of %s the process is gone: nothing of it is waited for.",
            listed(sorted({*map(_run_of, gone)}), _MOST_NAMED),
        )
        return catalog.claim_logs(self._holder, wanted, self._lease_s)

    def _renew(self) -> None:
        while not self._closed.wait(self._lease_s / _RENEWALS):
            if self._archive.monotonic() - self._moved_at > _LONGEST_SILENCE_S:
                continue
            try:
                is_to_claim = self._archive.catalog.renew_claims(self._holder, self._lease_s)
                if is_to_claim or any(map(_has_died, self._others)):
                    self._asked.set()
            except HopArchiveError as error:  # who archives meets it as well, and says so
                log.debug("What this run holds was not renewed: %s", error)


def new_holder(run_id: str) -> str:
    """A name for one that shares: its run, chance, as two runs may have been given one id, and the mark of its process."""
    return f"{run_id or 'a run'}#{secrets.token_hex(4)} {process_mark() or ''}".rstrip()


def _run_of(holder: str) -> str:
    return holder.rpartition("#")[0]


def _has_died(holder: str) -> bool:
    return is_gone(holder.rpartition("#")[2].partition(" ")[2])
