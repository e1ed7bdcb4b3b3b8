"""Run tags: how a topic's runs are found, in the UI and by the sensor.

Every run that archives a topic has a tag ``topic/NAME``, whose value says whether the topic has the run to
itself (``own``) or shares it with quiet ones (``shared``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

_PREFIX = "topic/"
_LONGEST = 63
"""Dagster takes tag names of up to 63 characters after the slash; Kafka topic names may have 249."""


def tag_key(topic: str) -> str:
    """The tag key of a topic; long names are cut and told apart by a hash."""
    if len(topic) <= _LONGEST:
        return f"{_PREFIX}{topic}"
    return f"{_PREFIX}{topic[: _LONGEST - 9]}-{hashlib.blake2b(topic.encode(), digest_size=4).hexdigest()}"


def topic_tags(topics: Iterable[str], *, shared: bool) -> dict[str, str]:
    """The tags of a run that archives ``topics``."""
    return {tag_key(topic): "shared" if shared else "own" for topic in topics}


def has_topic(tags: Mapping[str, str], topic: str) -> bool:
    """Whether a run with these tags archives ``topic``."""
    return tag_key(topic) in tags
