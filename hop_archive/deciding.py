"""Deciding, message by message, what is archived under which UUID and what is a duplicate.

The catalog says what it holds; everything else is pure. Messages are judged in the order given, so of two
copies that come together the first is archived and the second is its duplicate.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from hop_archive.catalog.protocol import Catalog
from hop_archive.document import crc32
from hop_archive.identity import Identity, Known, candidates, identify, same_message
from hop_archive.message import Message


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one message.

    Attributes:
        message: The message.
        identity: What it was judged by; its ``uuid`` is the one it is archived under.
        duplicate_of: The UUID that holds the same message already; None where it is archived.
        reason: Why it is a duplicate; '' where it is archived.
        collided_with: Its publisher's UUID, where other content holds that; None otherwise.
    """

    message: Message
    identity: Identity
    duplicate_of: uuid.UUID | None = None
    reason: str = ""
    collided_with: uuid.UUID | None = None


class Decided:
    """What the catalog holds, or will hold, that messages may be copies of.

    Also remembers what was decided but is not committed yet, so that copies in neighbouring batches are seen.
    """

    def __init__(self) -> None:
        # By number: a UUID's own hash and comparison are Python code.
        self._by_uuid: dict[int, Known | Identity] = {}
        self._adopted: dict[tuple[str, int, int], list[Known]] = {}

    def learn(self, known: Iterable[Known]) -> None:
        """Take in what the catalog said."""
        for one in known:
            self._by_uuid[one.uuid.int] = one
            if one.digest is None:
                self._adopted.setdefault((one.topic, one.timestamp_ms, one.message_crc32), []).append(one)

    def expect(self, identity: Identity) -> None:
        """Take in what will be archived."""
        self._by_uuid[identity.uuid.int] = identity

    def holder(self, own: uuid.UUID) -> Known | Identity | None:
        """What holds this UUID."""
        return self._by_uuid.get(own.int)

    def copy_of(self, identity: Identity) -> Known | Identity | None:
        """The message that one of this identity would be a copy of."""
        if identity.uuid.int not in self._by_uuid and not self._adopted:
            return None  # as for almost every message
        holder = self._by_uuid.get(identity.uuid.int)
        adopted = self._adopted.get((identity.topic, identity.timestamp_ms, identity.message_crc32), ())
        return next((k for k in (holder, *adopted) if k is not None and same_message(identity, k)), None)


def decide(
    messages: Sequence[Message], catalog: Catalog, expected: Iterable[Identity] = ()
) -> list[Decision]:
    """Decide what becomes of ``messages``, in their order.

    Args:
        messages: To be archived.
        catalog: Asked once; and, where UUIDs are in use by other content, once a round for all messages that need
            others, of which there are few rounds: for each it asks of twice as many UUIDs ahead as the time before.
        expected: What was decided earlier and may not be committed yet.
    """
    identities = [identify(m, crc32(m.value)) for m in messages]
    expected = list(expected)
    known = list(catalog.known(identities))
    asked: set[int] = set()
    for attempt in itertools.count():
        decided = Decided()
        decided.learn(known)
        for identity in expected:
            decided.expect(identity)
        judging = _Judging(decided, asked, ahead=2**attempt)
        decisions = [judging.decide(m, i) for m, i in zip(messages, identities, strict=True)]
        if not judging.unknown:
            return decisions
        known += catalog.known(judging.unknown)
        asked.update(identity.uuid.int for identity in judging.unknown)
    raise AssertionError("count() does not end")


class _Judging:
    """One look at all messages, in their order, with what is known by now.

    Of a UUID that was not asked of yet it is supposed that nothing holds it. Where that was needed, the decisions are
    no more than a guess, made to learn which others are needed: all have to be made again.

    Args:
        decided: What is known, and what will be archived.
        asked: UUIDs that the archive derived, of which the catalog was asked, by number.
        ahead: How many to ask of for a message at once.
    """

    def __init__(self, decided: Decided, asked: Set[int], ahead: int) -> None:
        self._decided = decided
        self._asked = asked
        self._ahead = ahead
        self.unknown: list[Identity] = []

    def decide(self, message: Message, identity: Identity) -> Decision:
        coming = candidates(identity)
        for own in coming:
            if own is not identity and own.uuid.int not in self._asked:
                self.unknown += (own, *itertools.islice(coming, self._ahead - 1))
                break
            if (copy := self._decided.copy_of(own)) is not None:
                reason = "same UUID and digest" if copy.digest is not None else "same timestamp and CRC-32"
                return Decision(message, own, duplicate_of=copy.uuid, reason=reason)
            if self._decided.holder(own.uuid) is None:
                break
        self._decided.expect(own)
        collided = identity.is_client_uuid and own is not identity
        return Decision(message, own, collided_with=identity.uuid if collided else None)
