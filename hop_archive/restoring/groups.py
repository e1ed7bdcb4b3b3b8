"""Consumer groups moved to a restored topic: each committed offset through the map from old to new offsets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from hop_archive.message import TopicPartition
from hop_archive.restoring import journal
from hop_archive.slices import Lineage


def new_offset(folder: Path, lineage: Lineage, committed: int, partition: int) -> int | None:
    """Where a group goes on that was to go on from ``committed``: at the first restored message from there on.

    Offsets for which nothing was restored (markers, compacted, left out) are passed over. Behind the last message it is
    the offset after it.

    Args:
        folder: The target's journal.
        lineage: Where the group had got to.
        committed: The offset that it was to read next there.
        partition: The target partition to which that lineage went.

    Returns:
        The target offset; None where nothing of the lineage was restored.
    """
    last: int | None = None
    for path in sorted(folder.glob(f"{partition:06}-*.parquet")):
        table = pq.read_table(path, columns=["generation", "partition", "offset", "target_offset"])
        of_lineage = pc.and_(
            pc.equal(table["generation"], lineage.generation), pc.equal(table["partition"], lineage.partition)
        )
        of_it = table.filter(of_lineage)
        from_there = of_it.filter(pc.greater_equal(of_it["offset"], committed))
        if from_there.num_rows:
            return int(pc.min(from_there["target_offset"]).as_py())
        if of_it.num_rows:
            last = int(pc.max(of_it["target_offset"]).as_py())
    return None if last is None else last + 1


def moved(
    folder: Path, topic: str, generation: int, committed: Mapping[TopicPartition, int], target: str
) -> dict[TopicPartition, int]:
    """A group's offsets of one archived topic as those of the target that its messages went to, same partitions."""
    found: dict[TopicPartition, int] = {}
    for at, offset in sorted(committed.items()):
        if at.topic != topic or at.partition not in journal.partitions(folder):
            continue
        new = new_offset(folder, Lineage(topic, generation, at.partition), offset, at.partition)
        if new is not None:
            found[TopicPartition(target, at.partition)] = new
    return found
