"""What tests of compaction share: a world of many small objects, and what is to be true of it before and afterwards."""

from __future__ import annotations

import datetime

from hop_archive.devkit.faults import Faults
from hop_archive.upkeep.compact.compact import COMMAND, compact
from hop_archive.upkeep.compact.plan import Compaction
from hop_archive_tests.removals import Backed, archive_all, small_world
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, WorldLayout, layout_policy

MOMENT = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
"""When all of a small world was archived, by the clock of its catalog."""

GRACE = datetime.timedelta(days=1)


def trickled_world(layout: WorldLayout, each: int = 12) -> Backed:
    """The small world, archived, and then so many messages of two of its three logs that came, and were archived, one by one."""
    world = archive_all(small_world(layout))
    for number in range(each):
        for topic, partition in ((BUSY, 0), (QUIET, 0)):
            value = b"later %d of %s %d" % (number, topic.encode(), partition)
            world.cluster.append(topic, value, partition=partition, timestamp_ms=NOW_MS + 100 + number)
        archive_all(world)
    return world


def wanted(world: Backed, **changes: object) -> Compaction:
    """To compact what is a day old: all of a small world is, by the clock on the wall."""
    layouts = layout_policy("zstd" if world.layout == "zstd" else "segment")
    return Compaction(layouts, datetime.timedelta(days=1), **changes)  # type: ignore[arg-type] # as the caller has them


def compact_all(world: Backed, faults: Faults | None = None, **changes: object) -> Compaction:
    """One process that compacts; nothing is found to be damaged."""
    compaction = wanted(world, **changes)
    assert list(compact(world.removing(faults), compaction)) == []
    return compaction


def after_grace(world: Backed) -> None:
    """Two days pass, and what waited for its readers is deleted."""
    world.catalog._clock = lambda: MOMENT + 2 * GRACE
    world.removing().delete_pending(COMMAND)
