"""The errors of who asks a catalog for what it does not do: the same of every catalog. Pure.

What they say of nothing being changed holds: each is raised before a change, or within a transaction that it ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

from hop_archive.catalog.records import Batch, Snapshot
from hop_archive.errors import ConflictError, ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model.slices import Slice


def refuse_odd(cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
    """Raise ValueError where a snapshot is of another cluster, or two are of the same thing."""
    if others := sorted({snapshot.cluster_id for snapshot in snapshots} - {cluster_id}):
        raise ValueError(f"snapshots of {others} among those of cluster {cluster_id}")
    if len({(snapshot.kind, snapshot.name) for snapshot in snapshots}) < len(snapshots):
        raise ValueError(f"two snapshots of one thing of cluster {cluster_id}")


def proof_changed(database: object, where: Slice) -> ProofChangedError:
    """The error of whoever commits what was read under another leader epoch than the proven one."""
    return ProofChangedError(
        f"{database}: {where} was read of a log that is not the one which is proven now.",
        remedy="Nothing was changed. Plan again: that proves the log first.",
        slice=str(where),
    )


def slice_taken(
    database: object, where: Slice, holders: Sequence[Mapping[str, object]], by: str = ""
) -> SliceTakenError:
    """The error of whoever commits what the ledger has; ``holders`` and ``by`` tell whose rows those are."""
    return SliceTakenError(
        f"{database}: {where} is in the ledger already, all or in part{by}.",
        remedy="Nothing was changed. Plan again from the coverage.",
        slice=str(where),
        holders=holders,
    )


def decided_too_early(
    database: object, where: Slice, what: str, uuids: Iterable[uuid.UUID]
) -> StaleDecisionError:
    """The error of whoever asked which messages are known before others changed that; ten of them are named."""
    first = sorted(map(str, uuids))[:10]
    return StaleDecisionError(
        f"{database}: {what}: {', '.join(first)}.",
        remedy="Nothing was changed. Ask again which messages are known.",
        slice=str(where),
        uuids=first,
    )


def refuse_unlike(database: object, batch: Batch, held: Mapping[uuid.UUID, tuple[str, bytes | None]]) -> None:
    """Refuse a batch whose duplicates repeat what is not there, or is something else by now.

    A duplicate with a digest repeats what has that digest, or none, as another archiver's, in its topic; one without, anything.

    Args:
        database: For messages.
        batch: What is to be committed.
        held: Topic and digest of what is there of that to which it refers beyond its own rows, by UUID.

    Raises:
        StaleDecisionError: So it is.
    """
    referred = batch.referred()
    gone = set()
    for copy in batch.duplicates:
        topic, digest = held.get(copy.uuid, ("", None))
        is_same = copy.digest is None or (topic == batch.slice.topic and digest in (None, copy.digest))
        if copy.uuid in referred and not (topic and is_same):
            gone.add(copy.uuid)
    if gone:
        what = (
            f"what messages of {batch.slice} repeat was taken away meanwhile, or its UUID has other content"
        )
        raise decided_too_early(database, batch.slice, what, gone)


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


def moved_meanwhile(database: object, topic: str) -> ConflictError:
    """The error of whoever would move documents that are not any more where they were seen to be."""
    return ConflictError(
        f"{database}: messages of {topic} were moved, taken away or suppressed by another process meanwhile.",
        remedy="Nothing was changed. Run this again.",
        topic=topic,
    )


def held_by_another(database: object, name: str) -> ConflictError:
    """The error of whoever asks for a name that somebody else holds."""
    return ConflictError(
        f"{database}: another process is at work on {name}.",
        remedy="Wait until it is done, or end it; nothing was changed.",
        held=name,
    )
