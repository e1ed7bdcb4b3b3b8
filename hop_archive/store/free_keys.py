"""Objects under the first key that is free: whatever stands under a key already, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Sequence

from hop_archive.errors import CorruptError
from hop_archive.model.keys import alternative_key
from hop_archive.store.protocol import Created, NewObject, Store

MOST_ALTERNATIVES = 100
"""So many other-bytes objects under one name mean that something is wrong, not that runs crashed."""


def create_free(store: Store, objects: Sequence[NewObject], ending: str | None = None) -> list[str]:
    """Create each object under its key, or the first alternative to it that is free or holds the same bytes; many at a time.

    Args:
        store: Where.
        objects: With keys that differ.
        ending: What stays at the end of an alternative key (``….2.bson``); that of documents and segments unless given.

    Returns:
        The keys that were taken, in the order given; each object is durable under its own.

    Raises:
        CorruptError: A hundred objects with other bytes stand there.
        UnavailableError: As ``Store.create``.
    """
    taken = [new.key for new in objects]
    pending = list(range(len(objects)))
    for attempt in range(MOST_ALTERNATIVES):
        tried = [
            NewObject(alternative_key(objects[n].key, attempt, ending), objects[n].body) for n in pending
        ]
        others: list[int] = []
        for n, new, created in zip(pending, tried, store.create(tried), strict=True):
            taken[n] = new.key
            if created is Created.OTHER:
                others.append(n)
        if not (pending := others):
            return taken
    key = objects[pending[0]].key
    raise CorruptError(
        f"{MOST_ALTERNATIVES} objects with other bytes stand under the name {key!r} in bucket {store.bucket}.",
        remedy="Find out who writes there; nothing was overwritten.",
        object_key=key,
        bucket=store.bucket,
    )
