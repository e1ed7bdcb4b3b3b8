"""What the catalog records and what a store lists, joined by key. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hop_archive.catalog.records import Recorded
from hop_archive.store.protocol import ObjectInfo


def join_by_key(
    recorded: Iterable[Recorded], listed: Iterable[ObjectInfo]
) -> Iterator[tuple[Recorded | None, ObjectInfo | None]]:
    """Join two streams, both in byte order of keys: what has the same key comes together, the rest alone.

    Two records of one key (in two buckets, say) each come with the object. Holds one of each.

    Raises:
        ValueError: A stream is not in byte order: what is missed in such a join would be called lost.
    """
    left, right = iter(recorded), iter(listed)
    record, info = next(left, None), next(right, None)
    last_record = last_info = ""
    named = False
    # One loop, and no generator below it for each side: over millions of objects each costs a fifth of the time.
    while record is not None or info is not None:
        if record is not None and record.key < last_record:
            raise _disordered(record.key, last_record)
        if info is not None and info.key < last_info:
            raise _disordered(info.key, last_info)
        if record is not None and info is not None and record.key == info.key:
            last_record = record.key
            yield record, info
            record, named = next(left, None), True
        elif info is None or (record is not None and record.key < info.key):
            assert record is not None
            last_record = record.key
            yield record, None
            record = next(left, None)
        else:
            last_info = info.key
            if not named:
                yield None, info
            info, named = next(right, None), False


def _disordered(key: str, last: str) -> ValueError:
    return ValueError(f"not in byte order of keys: {key!r} after {last!r}")
