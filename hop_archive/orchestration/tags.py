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

UPKEEP = "hop_archive/upkeep"
"""Tag of each job that does not archive; the queue limits each of its values, so that none of them takes all slots."""

SHORT, LONG, ASKED = "short", "long", "asked"
"""Values of ``UPKEEP``: done in minutes, and wanted often; for hours, by schedule; when a person wants it."""

PATIENCE = "hop_archive/sign_of_life_s"
"""Tag that a run gives itself when it begins to show signs of life: after so many seconds without one it is dead."""

PROCESS = "hop_archive/process"
"""Tag that a run gives itself, where it has a process to itself: what finds that again (``run_process``)."""

_PRIORITY = "dagster/priority"
_MAX_RUNTIME = "dagster/max_runtime"
_PRIORITIES = {SHORT: 5, LONG: -10, ASKED: 0}
"""Below those of live runs. What people and backfills start from an asset's page has 0."""

_LONGEST_S = {SHORT: 6 * 3600, LONG: 3 * 24 * 3600}
_LIVE_LONGEST_S = 12 * 3600
"""After so long a run hangs, though it shows signs of life: its slot is worth more. What a person starts may take longer."""

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


def upkeep_tags(kind: str) -> dict[str, str]:
    """The tags of a job that does not archive: ``SHORT``, ``LONG`` or ``ASKED``."""
    return {UPKEEP: kind, _PRIORITY: str(_PRIORITIES[kind])}


def scheduled_tags(kind: str) -> dict[str, str]:
    """What a schedule adds to the tags of such a job: after how long its run is ended. A person's takes as long as it does."""
    return {_MAX_RUNTIME: str(_LONGEST_S[kind])}


def live_tags(source: str, topics: Iterable[str], *, shared: bool, follow_s: float = 0.0) -> dict[str, str]:
    """The tags of a run by which the sensor archives ``topics`` of ``source``: it comes before all others.

    A shared one comes first: it is small, or stays for as long as it follows, and a queue of busy topics is not
    to hold up the quiet ones.
    """
    return {
        SOURCE: source,
        _PRIORITY: "20" if shared else "10",
        _MAX_RUNTIME: str(int(follow_s) + _LIVE_LONGEST_S),
        **({FOLLOWING: f"{follow_s:g} s"} if follow_s else {}),
        **topic_tags(topics, shared=shared),
    }


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
