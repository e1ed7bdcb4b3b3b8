"""Which keys a store takes. Pure."""

from __future__ import annotations

_NOT_SEGMENTS = frozenset({"", ".", ".."})


def is_legal(key: str) -> bool:
    """Tell whether no part of the key between slashes is empty, ``.`` or ``..``.

    S3 itself would take such keys; file systems and many S3 clients and servers silently rewrite them. Kafka
    allows no topic of those names, so no key of the archive needs them.
    """
    return _NOT_SEGMENTS.isdisjoint(key.split("/"))


def legal(key: str) -> str:
    """Return the key.

    Raises:
        ValueError: It is not legal.
    """
    if not is_legal(key):
        raise ValueError(f"{key!r} is no object key: a part of it is empty, '.' or '..'.")
    return key
