"""How those who archive at the same time divide the logs that they all want. Pure; the same in every catalog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hop_archive.catalog.records import Claim, Share
from hop_archive.model.slices import PartitionLog


def fair_share(holder: str, claims: Iterable[Claim]) -> frozenset[PartitionLog]:
    """Which logs ``holder`` should hold now, of those that it wants: never one that another holder has.

    Among holders that want the same logs, each may have an equal number, rounded up: who has more lets some go, who has fewer
    takes what is free. Logs that others want as well count by themselves for each set of holders, so nobody is held back by
    those who work elsewhere, and every log is in somebody's share.

    Args:
        holder: Who asks.
        claims: All claims of the logs that it wants, its own among them; only of holders that are there.
    """
    wanted_by: dict[PartitionLog, set[str]] = defaultdict(set)
    held_by: dict[PartitionLog, str] = {}
    for claim in claims:
        wanted_by[claim.partition_log].add(claim.holder)
        if claim.held:
            held_by[claim.partition_log] = claim.holder
    groups: dict[frozenset[str], list[PartitionLog]] = defaultdict(list)
    for at, holders in sorted(wanted_by.items()):
        if holder in holders:
            groups[frozenset(holders)].append(at)
    share: set[PartitionLog] = set()
    for sharers, logs in groups.items():
        quota = -(-len(logs) // len(sharers))
        own = [at for at in logs if held_by.get(at) == holder]
        free = [at for at in logs if at not in held_by]
        share.update([*own, *free][:quota])
    return frozenset(share)


def held_logs(holder: str, claims: Iterable[Claim]) -> frozenset[PartitionLog]:
    """The logs that ``holder`` holds."""
    return frozenset(claim.partition_log for claim in claims if claim.held and claim.holder == holder)


def share_of(holder: str, mine: frozenset[PartitionLog], claims: Iterable[Claim]) -> Share:
    """What ``holder`` holds now, and who else wants some of what it wants."""
    others = {claim.holder for claim in claims if claim.holder != holder}
    return Share(mine, tuple(sorted(others)))
