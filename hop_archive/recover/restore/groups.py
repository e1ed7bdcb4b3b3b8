"""Consumer groups moved to a restored topic: each committed offset through the map from old to new offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Snapshot
from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.plan import Target
from hop_archive.recover.restore.prepare import Restoration


def new_offset(folder: Path, partition_log: PartitionLog, committed: int, partition: int) -> int | None:
    """Where a group goes on that was to go on from ``committed``: at the first restored message from there on.

    Offsets for which nothing was restored (markers, compacted, left out) are passed over. Behind the last message it is
    the offset after it. ``partition`` is the target's to which that log went, ``folder`` the target's journal.

    Returns:
        The target offset; None where nothing of the log was restored.
    """
    last: int | None = None
    for path in sorted(folder.glob(f"{partition:06}-*.parquet")):
        place = [("generation", "=", partition_log.generation), ("partition", "=", partition_log.partition)]
        in_log = pq.read_table(path, columns=["offset", "target_offset"], filters=place)
        from_there = in_log.filter(pc.field("offset") >= committed)
        if from_there.num_rows:
            return int(pc.min(from_there["target_offset"]).as_py())
        if in_log.num_rows:
            last = int(pc.max(in_log["target_offset"]).as_py())
    return None if last is None else last + 1


def moved(
    folder: Path,
    generation: int,
    committed: Mapping[TopicPartition, Committed],
    target: str,
    empty: Mapping[int, int],
) -> dict[TopicPartition, Committed]:
    """A group's offsets of one archived topic as those of the target that its messages went to, same partitions.

    Partitions of which nothing is known are left out. ``empty`` tells of those of the target that held nothing before where
    each begins: of one to which nothing was restored, the group goes on there, at whatever comes first.
    """
    found: dict[TopicPartition, Committed] = {}
    for at, commit in sorted(committed.items()):
        partition_log = PartitionLog(at.topic, generation, at.partition)
        new = new_offset(folder, partition_log, commit.offset, at.partition)
        if new is None and not journal.count(folder, at.partition):
            new = empty.get(at.partition)
        if new is not None:
            found[TopicPartition(target, at.partition)] = commit._replace(offset=new)
    return found


def known(restoration: Restoration, names: Sequence[str] | None) -> Sequence[Snapshot]:
    """What is known of these groups; none named: of all that are; None: of no group.

    Raises:
        ConfigurationError: A group is in no snapshot; or messages go by key, so that no partition goes on as another.
    """
    if names is None:
        return ()
    if restoration.request.by_key:
        raise ConfigurationError(
            "Consumer groups cannot be moved where messages go to partitions by key: no partition goes on as another.",
            remedy="Leave --by-key out, or the groups.",
        )
    found = restoration.catalog.snapshots("group", names or None)
    if missing := sorted({*names} - {snapshot.name for snapshot in found}):
        raise ConfigurationError(
            f"No snapshot has a consumer group {missing[0]}.",
            remedy="See hop-archive snapshot show for those that there are.",
            group=missing[0],
        )
    return found


def move(
    restoration: Restoration,
    snapshots: Sequence[Snapshot],
    target: Target,
    folder: Path,
    empty: Mapping[int, int],
) -> dict[str, Any]:
    """Set groups on a restored target, as far as they read what was restored; setting them again is harmless.

    Returns:
        For the report: ``groups`` with what each has now, as the cluster says, and ``groups_unset``, sentences on what
        could not be set.

    Raises:
        ConflictError: A group stands elsewhere than it was set to.
    """
    commits, unset = _commits(restoration.catalog, snapshots, target, folder, empty)
    for name, wanted in commits.items():
        restoration.target.set_group_offsets(name, wanted)
    found = restoration.target.groups(commits) if commits else {}
    for name, wanted in commits.items():
        stands = found.get(name, {})
        if wrong := {
            at: stands.get(at)
            for at, commit in wanted.items()
            if at not in stands or stands[at].offset != commit.offset
        }:
            raise ConflictError(
                f"Consumer group {name} was set to {dict(wanted)}, and stands at {wrong}.",
                remedy="Stop the group's members, and run the same command again.",
                group=name,
            )
        if any(stands[at].metadata != commit.metadata for at, commit in wanted.items()):
            unset.append(f"The target does not keep the metadata of the commits of consumer group {name}.")
    reached = [
        {"group": name, "offsets": [[*at, commit.offset] for at, commit in sorted(wanted.items())]}
        for name, wanted in commits.items()
    ]
    return {"groups": reached, "groups_unset": unset}


def _commits(
    catalog: Catalog,
    snapshots: Sequence[Snapshot],
    target: Target,
    folder: Path,
    empty: Mapping[int, int],
) -> tuple[dict[str, dict[TopicPartition, Committed]], list[str]]:
    """What the groups that read the restored generation are to commit in the target; and what cannot be told.

    A group that read only generations before it had no place in this one.
    """
    generations = catalog.generations([target.source]).get(target.source, ())
    generation = next((g for g in generations if g.number == target.generation), None)
    before = {g.topic_id for g in generations if generation is not None and g.number < generation.number}
    found: dict[str, dict[TopicPartition, Committed]] = {}
    unset: list[str] = []
    for snapshot in snapshots:
        name, topic_ids = snapshot.name, snapshot.content["topic_ids"]
        if target.source not in topic_ids:
            continue
        commits = snapshot.commits_in(target.source, generation.topic_id) if generation else {}
        if generation is None or not commits:
            if topic_ids[target.source] not in before:
                unset.append(
                    f"Consumer group {name} was not set on {target.topic}: what is known of it is of another "
                    f"generation of {target.source}, or of one that the catalog does not know."
                )
            continue
        new = moved(folder, generation.number, commits, target.topic, empty)
        if left := sorted({at.partition for at in commits} - {at.partition for at in new}):
            unset.append(
                f"Consumer group {name} was not set on partitions {', '.join(map(str, left))} of "
                f"{target.topic}: nothing was restored there, and they held messages before."
            )
        if "metadata" not in snapshot.content:
            unset.append(
                f"The snapshot of consumer group {name} is of before metadata of commits were kept: none were set."
            )
        if new:
            found[name] = new
    return found, unset
