"""What is to be restored, and where to. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from hop_archive.errors import ConfigurationError
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetRange
from hop_archive.model.topics import is_topic_name

Generations: TypeAlias = Literal["latest", "all"] | int
"""Which generations of a topic: the latest, all one after another, or the one of this number."""

SAME_NAME = "{topic}"


def generations_of(text: str) -> Generations:
    """Which generations ``latest``, ``all`` or a number means.

    Raises:
        ConfigurationError: It is none of these.
    """
    if text == "latest":
        return "latest"
    if text == "all":
        return "all"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigurationError(f"Wanted latest, all or a number for the generation, found {text!r}.")


@dataclass(frozen=True, slots=True)
class Request:
    """One restore, as it was asked for.

    Attributes:
        query: Which messages. Those that were taken back are left out where its ``retracted`` is False.
        offsets: Only these offsets, any of which, of the generations that are meant; empty: all.
        as_of_ms: The archive as of this moment: messages before it, of the generation that was alive then; None: now.
        template: Name of the target topic; ``{topic}`` in it stands for the archived name.
        append: Whether a target may hold messages already.
        by_key: Whether the target's number of partitions decides by key where a message goes, as Kafka's own
            partitioner would; messages without a key keep their partition, modulo that number.
        keep_archive_id: Whether to send the ``_id`` headers that the archive made, too.
        duplicates: Whether to put back what was recorded as a duplicate, too.
        tests: Whether to put back test messages: those of ``test_topics``, and those with a ``_test`` header.
        skip_damaged: Whether to go on past what is missing or damaged, which is recorded.
        skip_unsendable: Whether to go on past what no client can send (a timestamp of 0), which is recorded.
        topic_settings: Settings of topics that have to be created, over the archived ones.
        set_topic_config: Whether to change settings of the target for the time of the restore.
        keep_topic_config: Whether to leave them changed.

    Raises:
        ConfigurationError: The query has a limit, or the template makes no topic name.
    """

    query: Query = field(default_factory=Query)
    offsets: tuple[tuple[TopicPartition, OffsetRange], ...] = ()
    generations: Generations = "latest"
    as_of_ms: int | None = None
    template: str = SAME_NAME
    append: bool = False
    by_key: bool = False
    keep_archive_id: bool = False
    duplicates: bool = False
    tests: bool = True
    skip_damaged: bool = False
    skip_unsendable: bool = False
    topic_settings: Mapping[str, str] = field(default_factory=dict)
    set_topic_config: bool = False
    keep_topic_config: bool = False

    def __post_init__(self) -> None:
        if self.query.limit is not None:
            raise ConfigurationError(
                "A restore is of all that is selected: it takes no limit.",
                remedy="Narrow it down by topic, time or offsets.",
            )
        if not is_topic_name(self.template.replace(SAME_NAME, "x")):
            raise ConfigurationError(
                f"{self.template!r} makes no name of a Kafka topic.",
                remedy="Wanted letters, digits, '.', '_', '-', and {topic} for the archived name.",
            )

    def target_of(self, topic: str) -> str:
        """The topic to which messages of ``topic`` go, which may be no name that Kafka takes."""
        return self.template.replace(SAME_NAME, topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """Names and globs of the topics that are meant; empty: all."""
        return self.query.topics or tuple(sorted({at.topic for at, _ in self.offsets}))

    @property
    def is_whole(self) -> bool:
        """Whether whole topics are meant, so that one without messages comes back, too, and not a part of their messages."""
        query = self.query
        bounds = (query.since_ms, query.until_ms, query.uuids, query.adopted)
        chosen = (
            self.offsets,
            query.senders,
            query.media_types,
            query.places,
            query.condition,
            query.retracted,
        )
        return all(bound is None for bound in bounds) and not any(chosen)

    @property
    def until_ms(self) -> int | None:
        """The first timestamp that is too late, whichever option said so; None: none is."""
        bounds = [bound for bound in (self.query.until_ms, self.as_of_ms) if bound is not None]
        return min(bounds, default=None)


def as_object(request: Request) -> dict[str, Any]:
    """A request as JSON has it: what was asked for, and what going on with it has to be the same."""
    return json.loads(json.dumps(asdict(request), default=str))  # type: ignore[no-any-return]  # of a dict


def fingerprint(request: Request, target: str, said: Mapping[str, str]) -> str:
    """What tells one request from another: the same command, later, has the same.

    Args:
        request: What was asked for.
        target: The target's stanza.
        said: Moments as they were said, where what they mean depends on when they are said: ``since``, ``until``, ``as_of``.
    """
    about = as_object(request)
    for name, text in said.items():
        (about if name == "as_of" else about["query"])[f"{name}_ms"] = text
    # How it is gone about may change from one try to the next.
    for manner in ("skip_damaged", "skip_unsendable", "append", "set_topic_config", "keep_topic_config"):
        about.pop(manner)
    text = json.dumps([about, target], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
