"""Old messages go, by a policy: the oldest of each partition, without a gap, rows before objects.

The ledger says *pruned* of their offsets, which explains why nothing is there, and nothing archives them again. What
counts is a message's timestamp. A partition is pruned up to the first message that is not old: one that is younger than
the policy says, one whose timestamp tells nothing (below 0), or one that a young duplicate refers to, since that one was
not stored. Running it again goes on.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hop_archive.catalog.records import Outcome, RemovalExtent
from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.ingest.plan import units
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.times import milliseconds
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.remove import Removing

COMMAND = "prune"
FAILURES = partial(Failures, "partition", "could not be pruned", "partition_log")

QUIET_S = 120.0
"""A topic counts as being archived when a batch of it was committed within this time."""

_COUNTED_OFFSETS = 1_000_000
"""Offsets that one statement counts the messages of."""


@dataclass(frozen=True, slots=True)
class Policy:
    """From which age on messages go, of topics that names or globs say; never without any: what goes is named.

    Raises:
        ConfigurationError: Made without topics, or with an age below a day.
    """

    topics: tuple[str, ...]
    older_than: datetime.timedelta

    def __post_init__(self) -> None:
        if not self.topics:
            raise ConfigurationError(
                "A pruning policy names no topic.", remedy="Name the topics that may be pruned."
            )
        if self.older_than < datetime.timedelta(days=1):
            raise ConfigurationError(
                f"Wanted an age of a day or more, found {self.older_than}.",
                remedy="Say after how many days messages may go.",
            )

    @property
    def reason(self) -> str:
        """What the ledger says of the offsets."""
        days = self.older_than / datetime.timedelta(days=1)
        return f"older than {days:g} days, by policy"

    def before_ms(self, now: datetime.datetime) -> int:
        """Timestamps below this are old; they go on before the first year that a datetime knows."""
        return milliseconds(now) - self.older_than // datetime.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Old:
    """What is old of one partition, or of the rows of a topic that another archiver wrote.

    Attributes:
        partition_log: The partition; None for adopted rows.
        places: The archived slices that go, in order.
        kept_from: The first offset that stays; None where nothing was found that does.
    """

    topic: str
    partition_log: PartitionLog | None
    places: tuple[Slice, ...]
    extent: RemovalExtent
    kept_from: int | None = None


def plan_pruning(removing: Removing, policy: Policy) -> list[Old]:
    """What the policy would take away; changes nothing.

    Raises:
        ConfigurationError: A topic is none; or the store is not the one whose bucket the rows name.
    """
    catalog, before_ms = removing.catalog, policy.before_ms(removing.now())
    found: list[Old] = []
    for topic in _topics(removing, policy):
        entries = [e for e in catalog.ledger([topic]) if e.outcome is Outcome.ARCHIVED]
        archived = [e.slice for e in entries]
        # From the first message or duplicate of each log to its last: duplicates go with what they are copies of.
        spans = {span.partition_log: span for span in catalog.spans(topic)}
        for at in (e.slice for e in entries if e.duplicates):
            span = spans.get(at.partition_log, at)
            spans[at.partition_log] = at.within(min(at.start, span.start), max(at.stop, span.stop))
        keepers = dict(catalog.keepers([span.within(0, span.stop) for span in spans.values()], before_ms))
        # What a duplicate that stays is a copy of, stays: which may let more duplicates stay.
        while more := {
            log: first
            for log, first in catalog.referred_to(topic, keepers).items()
            if first < keepers.get(log, first + 1)
        }:
            keepers |= more
        for span in spans.values():
            kept_from = keepers.get(span.partition_log)
            stop = span.stop if kept_from is None else kept_from
            places = tuple(
                at.within(at.start, min(at.stop, stop))
                for at in archived
                if at.partition_log == span.partition_log and at.start < stop and span.start < stop
            )
            if places:
                parts = [part for unit in units(places, _COUNTED_OFFSETS) for part in unit]
                found.append(Old(topic, span.partition_log, places, catalog.extent(parts), kept_from))
        adopted = catalog.adopted_extent(topic, before_ms)
        if adopted.messages:
            found.append(Old(topic, None, (), adopted))
    removing.refuse_other_buckets({bucket for old in found for bucket in old.extent.buckets})
    return found


def prune(
    removing: Removing, policy: Policy, *, quiet_s: float = QUIET_S, failures: Failures | None = None
) -> list[Old]:
    """Take away what the policy says, partition by partition, the oldest first; what went.

    A partition that cannot be pruned stops no other one; it is told once those are done, or is in ``failures`` for the caller to
    raise.

    Raises:
        ConflictError: A topic is being archived. Nothing was changed.
        ForbiddenError: The store, or the role, does not let anything be deleted.
        ConfigurationError: As for ``plan_pruning``.
    """
    refuse_while_live(removing, _topics(removing, policy), quiet_s)
    removal = removing.removal(COMMAND, policy.reason)
    with removing.command(COMMAND, failures, FAILURES) as failed:
        done: list[Old] = []
        before_ms = policy.before_ms(removing.now())
        for old in plan_pruning(removing, policy):
            with failed.of("/".join(map(str, old.partition_log or (old.topic,))), removing.all_answer):
                if old.partition_log is None:
                    removing.remove_adopted(old.topic, removal, before_ms)
                else:
                    removing.remove_places(old.places, "pruned", removal)
                done.append(old)
    return done


def refuse_while_live(removing: Removing, topics: Sequence[str], quiet_s: float = QUIET_S) -> None:
    """Refuse to prune topics that runs are archiving: what is found to be old might be what they compare with.

    Raises:
        ConflictError: A batch of one of the topics was committed a moment ago.
    """
    since = removing.now() - datetime.timedelta(seconds=quiet_s)
    lately = removing.catalog.summaries(topics, since=since) if topics else ()
    live = [s.topic for s in lately if s.messages or s.duplicates or s.absent or s.lost]
    if live:
        raise ConflictError(
            f"{', '.join(live[:5])} {'is' if len(live) == 1 else 'are'} being archived: a batch was committed within "
            f"the last {quiet_s:g} s.",
            remedy="Stop the runs that archive these topics, and prune then.",
            topics=live,
        )


def _topics(removing: Removing, policy: Policy) -> Sequence[str]:
    return Query(topics=policy.topics).chosen_topics(removing.catalog.known_topics())
