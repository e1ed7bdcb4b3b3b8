"""What every catalog does alike: to split a ledger row, to put ranges together, to refuse. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hop_archive.catalog.records import Outcome, Snapshot, VerifiedRange
from hop_archive.errors import ConflictError, DataError, StaleDecisionError
from hop_archive.model.slices import OffsetRange, OffsetSet, Slice


class Numbers(NamedTuple):
    """What stands at some offsets.

    Attributes:
        archived: Messages.
        duplicates: Duplicates.
        absent: Offsets with neither.
        size_bytes: Bytes of the documents.
    """

    archived: int
    duplicates: int
    absent: int
    size_bytes: int

    def less(self, other: Numbers) -> Numbers:
        """What is left of these without ``other``; a number below 0 means that the ledger said too little."""
        return Numbers(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Parts(NamedTuple):
    """How a slice is cut.

    Attributes:
        taken: What is taken away of it.
        kept: What stays, in order.
    """

    taken: tuple[OffsetRange, ...]
    kept: tuple[OffsetRange, ...]


def cut(whole: Slice, places: Sequence[Slice]) -> Parts:
    """Parts out of ``whole`` what of it is among ``places``."""
    chosen = OffsetSet.of((p.start, p.stop) for p in places if p.partition_log == whole.partition_log)
    taken = whole.offsets & chosen
    return Parts(taken.ranges, (whole.offsets - taken).ranges)


def to_count(parts: Parts) -> tuple[OffsetRange, ...]:
    """The kept parts that have to be counted: the last one is what the others leave.

    So a number that was wrong before is wrong afterwards, in that last part, where verification goes on finding it.
    Counting all parts would make a lost row an absent offset, silently.
    """
    return parts.kept[:-1]


def with_verified(known: Iterable[VerifiedRange], new: VerifiedRange) -> list[VerifiedRange]:
    """The ranges of one log once ``new`` is noted. Pure, and the same for every catalog.

    Those that touch and are of one day (UTC) are one, as old as its oldest part.
    """
    parts: list[VerifiedRange] = [new]
    for done in known:
        if done.start < new.start:
            parts.append(done._replace(stop=min(done.stop, new.start)))
        if done.stop > new.stop:
            parts.append(done._replace(start=max(done.start, new.stop)))
    merged: list[VerifiedRange] = []
    for done in sorted(parts):
        last = merged[-1] if merged else None
        if last and last.stop == done.start and last.verified_at.date() == done.verified_at.date():
            merged[-1] = last._replace(stop=done.stop, verified_at=min(last.verified_at, done.verified_at))
        else:
            merged.append(done)
    return merged


def refuse_odd(cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
    """Check what is to be kept, for every catalog alike.

    Raises:
        ValueError: One is of another cluster, or two are of the same thing.
    """
    if others := sorted({snapshot.cluster_id for snapshot in snapshots} - {cluster_id}):
        raise ValueError(f"snapshots of {others} among those of cluster {cluster_id}")
    if len({(snapshot.kind, snapshot.name) for snapshot in snapshots}) < len(snapshots):
        raise ValueError(f"two snapshots of one thing of cluster {cluster_id}")


def refuse_too_little(database: object, whole: Slice, left: Numbers) -> None:
    """Raise where a ledger row would be left with numbers below 0.

    Raises:
        DataError: It says less than there is.
    """
    if min(left) < 0:
        raise DataError(
            f"{database}: the ledger says less of {whole} than there is.",
            remedy="Nothing was changed. Run hop-archive verify, and mend the ledger first.",
            slice=str(whole),
        )


def refuse_to_hide(where: Slice, outcome: Outcome, said: int, found: int) -> None:
    """Raise where counting anew would hide something.

    Raises:
        DataError: Less is there than the ledger row says, or more than its slice is long, or it was never archived.
    """
    if outcome is not Outcome.ARCHIVED:
        raise DataError(f"{where} is recorded as {outcome.value}, and {found} messages stand there.")
    if found < said:
        raise DataError(f"{where}: {said - found} messages that the ledger counts are not there.")
    if found > len(where):
        raise DataError(f"{where}: an offset of it stands there twice.")


def stale(about: str, why: str) -> StaleDecisionError:
    """The error of whoever would mend what is not any more as it was seen."""
    return StaleDecisionError(f"{about}: {why}.", remedy="Nothing was changed. Look again.", about=about)


def about_to_be_deleted(key: str, bucket: str) -> ConflictError:
    """The error of whoever would let rows name an object that somebody is about to delete."""
    return ConflictError(
        f"The object {key} in bucket {bucket} is about to be deleted by another process.",
        remedy="Nothing was changed. Run this again.",
        object_key=key,
        bucket=bucket,
    )
