"""What matters most of an archive, in one line: how far behind it is, what is in its way, what was lost."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from hop_archive.model.wording import counted, duration

if TYPE_CHECKING:
    from hop_archive.read.topic_facts import Facts


def headline(found: Facts) -> str:
    """What matters most, in one line."""
    parts = []
    lags = [topic.lag for topic in found.topics if topic.lag]
    if found.source_error:
        parts.append("How far behind the archive is, is not known")
    elif lags:
        parts.append(f"{counted(sum(lags), 'offset')} behind, in {counted(len(lags), 'topic')}")
    elif found.topics:
        parts.append("All is archived that could be looked at" if found.obstacles else "All is archived")
    else:
        parts.append("There is nothing to archive so far")
    if found.obstacles:
        names = {finding.topic for finding in found.obstacles}
        parts.append(f"{counted(len(names), 'topic')} with something in the way")
    last = max((at for topic in found.topics if (at := topic.total.last_batch_at)), default=None)
    if last is None:
        if found.topics:
            parts.append("no batch so far")
    elif (age := found.at - last) > datetime.timedelta(hours=1):
        what = "nothing was archived" if lags or found.source_error else "nothing has arrived"
        parts.append(f"{what} for {duration(age.total_seconds())}")
    lately = sum(topic.windows["last_24_hours"].lost for topic in found.topics)
    unrecorded = sum(topic.unrecorded or 0 for topic in found.topics)
    held_back = sum(topic.held_back or 0 for topic in found.topics)
    if lately:
        parts.append(f"{counted(lately, 'offset')} recorded as lost in the last 24 hours")
    if unrecorded:
        parts.append(f"{counted(unrecorded, 'offset')} gone from Kafka, not recorded as lost yet")
    if held_back:
        parts.append(f"{counted(held_back, 'offset')} held back by open transactions")
    if named := [name for name in found.unmet if name != "*"]:  # that there is no topic at all was said
        parts.append(f"the source has no topic for {', '.join(named)}")
    if known := sum(kind.number for kind in found.findings):
        parts.append(f"{counted(known, 'finding')} open")
    return f"{'; '.join(parts)}."
