"""Run tags: how a topic's runs are found, in the UI and by the sensor.

Every run that archives messages of a topic has a tag ``topic/NAME``, whose value says whether the topic has
the run to itself (``own``) or shares it with quiet ones (``shared``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

FOLLOWING = "hop_archive/following"
"""Tag of a run that stays to archive what arrives; its value says for how long."""

SOURCE = "hop_archive/source"
"""Tag of each of the sensor's runs: the source stanza. The queue limits how many read from one source at once."""

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


def topics_of_run(
    tags: Mapping[str, str], run_config: Mapping[str, Any], known: Collection[str]
) -> frozenset[str]:
    """Those of the ``known`` topics that a run archives, whoever started it.

    The sensor's runs have tags. Runs that people and backfills start name their topic by the partition, or by
    the configuration that was typed in.
    """
    ops = run_config.get("ops") or {}
    typed = ((ops.get(op) or {}).get("config") or {} for op in ("plan", "follow"))
    named = {
        tags.get("dagster/partition"),
        *(topic for config in typed for topic in config.get("topics", ())),
    }
    return frozenset(topic for topic in known if topic in named or tag_key(topic) in tags)
