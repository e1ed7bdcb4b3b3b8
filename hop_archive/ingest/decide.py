"""Deciding, message by message, what is archived under which UUID and what is a duplicate.

The catalog says what it holds; where that proves nothing, of empty messages that another archiver stored, the stored
documents do. Everything else is pure. Messages are judged in the order given, so of two copies that come together the
first is archived and the second is its duplicate.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from hop_archive.catalog.protocol import Catalog
from hop_archive.model.identity import (
    Identity,
    Known,
    candidates,
    digest,
    identify,
    only_content_tells,
    same_message,
)
from hop_archive.model.message import Message
from hop_archive.model.query import Query
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.protocol import Store


class Decision(NamedTuple):
    """What becomes of one message.

    Attributes:
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
        for held in known:
            self._by_uuid[held.uuid.int] = held
            if held.digest is None:
                self._adopted.setdefault((held.topic, held.timestamp_ms, held.message_crc32), []).append(held)

    def expect(self, identity: Identity) -> None:
        """Take in what will be archived."""
        self._by_uuid[identity.uuid.int] = identity

    def take(self, identity: Identity) -> bool:
        """Take in what will be archived, unless it may be a copy of something, or its UUID is in use; whether it was taken in."""
        number = identity.uuid.int
        if number in self._by_uuid or self._adopted:
            return False
        self._by_uuid[number] = identity
        return True

    def holder(self, message_uuid: uuid.UUID) -> Known | Identity | None:
        """What holds this UUID."""
        return self._by_uuid.get(message_uuid.int)

    def copy_under(self, identity: Identity) -> Known | Identity | None:
        """What holds this identity's UUID, where one of this identity would be a copy of it."""
        holder = self.holder(identity.uuid)
        return holder if holder is not None and same_message(identity, holder) else None

    def copy_of(self, identity: Identity) -> Known | Identity | None:
        """The message that one of this identity would be a copy of."""
        holder = self.copy_under(identity)
        adopted = self._adopted.get((identity.topic, identity.timestamp_ms, identity.message_crc32), ())
        return holder or next((held for held in adopted if same_message(identity, held)), None)


def decide(
    messages: Sequence[Message],
    catalog: Catalog,
    store: Store,
    expected: Iterable[Identity] = (),
    identities: Sequence[Identity] | None = None,
) -> list[Decision]:
    """Decide what becomes of ``messages``, in their order; what is ``expected`` was decided earlier, perhaps not committed.

    ``identities`` are those of the messages, where they are known.

    The catalog is asked once; and, where UUIDs are in use by other content, once a round for all messages that need others,
    of which there are few rounds: for each it asks of twice as many UUIDs ahead as the time before. The store is asked for
    the documents of adopted rows that only their content tells from a message. One that is missing or damaged is taken for
    another message: it is better archived twice than not at all.

    Raises:
        UnavailableError: The catalog or the store does not answer.
    """
    if identities is None:
        identities = [identify(m) for m in messages]
    expected = list(expected)
    known = _with_content(identities, catalog.known(identities), catalog, store)
    asked: set[int] = set()
    for attempt in itertools.count():
        decided = Decided()
        decided.learn(known)
        for identity in expected:
            decided.expect(identity)
        judging = _Judging(decided, asked, ahead=2**attempt)
        decisions = [
            # The first, of almost every message: as ``Decision(m, i)`` does it.
            tuple.__new__(Decision, (m, i, None, "", None)) if decided.take(i) else judging.decide(m, i)
            for m, i in zip(messages, identities, strict=True)
        ]
        if not judging.unknown:
            return decisions
        known += catalog.known(judging.unknown)
        asked.update(identity.uuid.int for identity in judging.unknown)
    raise AssertionError("count() does not end")


def _with_content(
    identities: Sequence[Identity], known: Sequence[Known], catalog: Catalog, store: Store
) -> list[Known]:
    """The known messages; those that nothing else tells from one of ``identities`` with what their documents hold."""
    blank: dict[tuple[str, int], list[Known]] = {}
    for held in known:
        if held.digest is None and held.message_crc32 == 0:
            blank.setdefault((held.topic, held.timestamp_ms), []).append(held)
    uuids = {
        held.uuid
        for identity in identities
        for held in blank.get((identity.topic, identity.timestamp_ms), ())
        if only_content_tells(identity, held)
    }
    if not uuids:
        return list(known)  # as for almost every group
    rows = catalog.select(Query(uuids=tuple(uuids)))
    content: dict[uuid.UUID, bytes] = {}
    for found in fetch_documents(store, rows):
        if found.document is not None and not found.problems and not found.document.suppressed:
            message = found.document.message
            content[found.row.uuid] = digest(message.key, message.headers, message.value)
    return [held._replace(content=content.get(held.uuid)) for held in known]


class _Judging:
    """One look at all messages, in their order, with what is known by now.

    Of a UUID that was not asked of yet it is supposed that nothing holds it. Where that was needed, the decisions are
    no more than a guess, made to learn which others are needed: all have to be made again. The catalog was ``asked`` of UUIDs
    that the archive derived (by number); of so many ``ahead`` it will be asked for a message at once.
    """

    def __init__(self, decided: Decided, asked: Set[int], ahead: int) -> None:
        self._decided = decided
        self._asked = asked
        self._ahead = ahead
        self.unknown: list[Identity] = []

    def decide(self, message: Message, identity: Identity) -> Decision:
        coming = candidates(identity)
        for candidate in coming:
            if candidate is not identity and candidate.uuid.int not in self._asked:
                self.unknown += (candidate, *itertools.islice(coming, self._ahead - 1))
                break
            # What another archiver stored is compared with the message as it came, not with UUIDs of our making.
            is_received = candidate is identity
            copy = self._decided.copy_of(candidate) if is_received else self._decided.copy_under(candidate)
            if copy is not None:
                if copy.digest is not None:
                    reason = "same UUID and digest"
                elif isinstance(copy, Known) and only_content_tells(candidate, copy):
                    reason = "same timestamp, key, headers and value"
                else:
                    reason = "same timestamp and CRC-32"
                return Decision(message, candidate, duplicate_of=copy.uuid, reason=reason)
            if self._decided.holder(candidate.uuid) is None:
                break
        self._decided.expect(candidate)
        collided = identity.is_client_uuid and candidate is not identity
        return Decision(message, candidate, collided_with=identity.uuid if collided else None)
