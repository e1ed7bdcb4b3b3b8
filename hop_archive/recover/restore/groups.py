"""Consumer groups moved to a restored topic: each committed offset through the map from old to new offsets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore import offset_map as journal


def new_offset(folder: Path, partition_log: PartitionLog, committed: int, partition: int) -> int | None:
    """Where a group goes on that was to go on from ``committed``: at the first restored message from there on.

    Offsets for which nothing was restored (markers, compacted, left out) are passed over. Behind the last message it is
    the offset after it.

    Args:
        folder: The target's journal.
        partition_log: Where the group had got to.
        committed: The offset that it was to read next there.
        partition: The target partition to which that log went.

    Returns:
        The target offset; None where nothing of the log was restored.
    """
    last: int | None = None
    for path in sorted(folder.glob(f"{partition:06}-*.parquet")):
        table = pq.read_table(path, columns=["generation", "partition", "offset", "target_offset"])
        _, generation, archived_partition = partition_log
        in_log = table.filter(
            pc.and_(
                pc.equal(table["generation"], generation), pc.equal(table["partition"], archived_partition)
            )
        )
        from_there = in_log.filter(pc.greater_equal(in_log["offset"], committed))
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

    Args:
        folder: The target's journal.
        generation: Of which generation of the topic the offsets are.
        committed: What the group had committed of it.
        target: The target topic.
        empty: Of the target's partitions that held nothing before, where each begins: of one to which nothing was
            restored, the group goes on there, at whatever comes first.

    Returns:
        What to commit; partitions of which nothing is known are left out.
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
