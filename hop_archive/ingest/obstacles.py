"""What is in archiving's way and stays there: remembered as findings, and closed once it is seen no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.source.protocol import place_of

log = logging.getLogger(__name__)


def obstacle(topic: str, error: HopArchiveError, partition: int | None = None) -> Finding:
    """What an error says that kept a partition from being looked at, or read.

    A server that does not answer is ``no_leader``. All else is ``not_readable``: of the whole topic where a right is lacking,
    which somebody has to give; of the partition where a message is damaged, or another writer is in the way for now.
    """
    if isinstance(error, UnavailableError):
        return Finding(Kind.NO_LEADER, topic, str(error), partition=partition)
    return Finding(
        Kind.NOT_READABLE,
        topic,
        str(error),
        partition=None if isinstance(error, ForbiddenError) else partition,
    )


def note_obstacles(
    archive: Archive,
    topics: Collection[str] | None,
    kinds: Collection[Kind],
    findings: Sequence[Finding],
    still: Callable[[Finding], bool] = lambda _: False,
) -> None:
    """Make the open findings of ``kinds`` in ``topics`` those that a complete look has just seen.

    Since when each has been there is its finding's ``first_seen``. Where nothing was seen and nothing was open, nothing is
    written: the look of every few seconds costs one query. A role that may only read remembers nothing, and is told so in
    the log.

    The look saw ``findings``, and would have seen others of ``kinds`` in ``topics`` (None: all), but for those of which
    ``still`` says that they are in the way all the same, since it could not have seen them.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    at = archive.now()
    was_open = any(finding.kind in kinds for finding in archive.catalog.open_findings(topics))
    try:
        if findings:
            archive.catalog.note_findings(findings, at)
        if was_open:
            unseen = [
                finding.number
                for finding in archive.catalog.findings(topics, kinds)
                if finding.last_seen < at and not still(finding.finding)
            ]
            how = f"not in the way any more on {at:%Y-%m-%d %H:%M} UTC"
            archive.catalog.resolve_findings(unseen, how, at)
    except ForbiddenError as error:
        log.warning("What is in the way is not remembered: %s", error)


@dataclass(slots=True)
class GivenUp:
    """Notes each partition that was given up while others are read on, and why, as a finding of the offset that is in the way.

    Only reading meets these, so no survey closes them before that offset is dealt with. ``starts`` says from where each
    partition is read; ``errors`` are why, each with ``facts`` that tell topic and partition.
    """

    archive: Archive
    starts: Mapping[PartitionLog, int]
    errors: list[HopArchiveError] = field(default_factory=list)

    def __call__(self, error: HopArchiveError) -> None:
        """Take in that a partition was given up.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        self.errors.append(error)
        log.warning("Given up, and the others are read on: %s", error)
        at = place_of(error)
        for partition_log, start in self.starts.items():
            if (partition_log.topic, partition_log.partition) == at:
                offset = int(str(error.facts.get("offset", start)))
                finding = obstacle(partition_log.topic, error)._replace(
                    slice=Slice(*partition_log, offset, offset + 1)
                )
                note_obstacles(self.archive, [partition_log.topic], (), [finding])
