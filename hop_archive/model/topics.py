"""Which topics a policy or a selection means: names and globs, never regular expressions. Pure.

A Kafka topic name holds ASCII letters, digits, ``.``, ``_`` and ``-``, and is case sensitive
(``org.apache.kafka.common.internals.Topic``). A pattern is such a name, or one with ``*`` (any text, dots and
none included), ``?`` (one character), ``[abc]`` or ``[!abc]``. A ``.`` is a dot and nothing else: archives have
vetoed ``sysXheartbeat`` by accident because a list of names was read as regular expressions.

A catalog may have topics that Kafka would not take: other archivers wrote ``NAME+oversized`` for what hop-client sent
around Kafka. Their names, too, mean them wherever one selects of the catalog.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from hop_archive.errors import ConfigurationError

Layout = Literal["message", "segment"]
Compression = Literal["none", "zstd"]

PATTERN_RULE = "a topic name or glob (letters, digits, '.', '_', '-', and '*', '?', '[abc]', '[!abc]')"

# Only what can match a legal name is let in, so a regular expression or an unclosed '[' is an error when the
# configuration is read, not a pattern that silently matches nothing.
_GLOB = re.compile(r"[*?\[]")
_PATTERN = re.compile(r"(?:[A-Za-z0-9._*?-]|\[!?[A-Za-z0-9._-]+\])+")


_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def is_topic_name(text: str) -> bool:
    """Tell whether Kafka takes this for a topic's name; some brokers that speak its protocol take more."""
    return _NAME.fullmatch(text) is not None and text not in (".", "..")


def is_glob(text: str) -> bool:
    """Tell whether ``text`` may mean topics of other names."""
    return _GLOB.search(text) is not None


def is_pattern(text: str) -> bool:
    """Tell whether ``text`` is a legal topic name or a glob over such names."""
    return _PATTERN.fullmatch(text) is not None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether any pattern is this topic's name or a glob that means it, in whole; upper and lower case differ."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def without_meaning(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that mean none of these topics: most likely they are misspelt, or the topic is not there yet."""
    there = set(names)
    return [
        pattern
        for pattern in patterns
        if pattern not in there and not (_GLOB.search(pattern) and any(matches(n, (pattern,)) for n in there))
    ]


def unmet_message(patterns: Collection[str], source: str) -> str:
    """What to say of names and globs of a source's stanza from which nothing comes; '' where there are none."""
    if not patterns:
        return ""
    return (
        f"Source {source} has no topic that is archived by {', '.join(patterns)}, as its stanza says: misspelt, not "
        "there yet, vetoed, or not to be seen with these credentials."
    )


def refuse_illegal(patterns: Iterable[str]) -> None:
    """Let pass only topic names and globs over such names.

    Raises:
        ConfigurationError: One is neither.
    """
    for pattern in patterns:
        if not is_pattern(pattern):
            raise ConfigurationError(f"Wanted {PATTERN_RULE}, found {pattern!r}.", pattern=pattern)


@dataclass(frozen=True, slots=True)
class TopicPolicy:
    """What a source stanza says about topics.

    Attributes:
        topics: What is archived, less ``veto``.
        veto: What is never archived, whatever ``topics`` says.
        private_topics: Archived, and annotated as not public.
        test_topics: Archived, and free to be cleaned up where cleaning is allowed.

    Raises:
        ConfigurationError: A pattern is neither a topic name nor a glob over topic names.
    """

    topics: tuple[str, ...] = ("*",)
    veto: tuple[str, ...] = ()
    private_topics: tuple[str, ...] = ()
    test_topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_illegal((*self.topics, *self.veto, *self.private_topics, *self.test_topics))

    def archived(self, name: str) -> bool:
        """Tell whether the topic is archived: wanted, and not vetoed."""
        return matches(name, self.topics) and not self.vetoed(name)

    def unmet(self, names: Iterable[str]) -> tuple[str, ...]:
        """Of ``topics``, the names and globs that mean none of these topics, or only vetoed ones: nothing comes of them."""
        return tuple(without_meaning(self.topics, (name for name in names if not self.vetoed(name))))

    def vetoed(self, name: str) -> bool:
        """Tell whether the topic is vetoed, which beats being wanted."""
        return matches(name, self.veto)

    def private(self, name: str) -> bool:
        """Tell whether the topic's messages are annotated as not public."""
        return matches(name, self.private_topics)

    def test(self, name: str) -> bool:
        """Tell whether the topic holds test messages only."""
        return matches(name, self.test_topics)


@dataclass(frozen=True, slots=True)
class LayoutPolicy:
    """What a store stanza says about the layout of objects.

    Attributes:
        default: The layout of a topic that no pattern means.
        by_topic: Pattern and layout; the first pattern that means the topic wins.
        compression: How the segments of a topic are compressed that no pattern means.
        compression_by_topic: Pattern and compression, likewise.
        segment_bytes: Size at which a segment is closed, before compression.
        compact_after_days: How long after messages were archived their objects become large segments; None: never.

    Raises:
        ConfigurationError: A pattern is neither a topic name nor a glob over topic names.
    """

    default: Layout = "message"
    by_topic: tuple[tuple[str, Layout], ...] = ()
    compression: Compression = "none"
    compression_by_topic: tuple[tuple[str, Compression], ...] = ()
    segment_bytes: int = 32 * 1024 * 1024
    compact_after_days: float | None = None

    def __post_init__(self) -> None:
        refuse_illegal(pattern for pattern, _ in (*self.by_topic, *self.compression_by_topic))

    def layout_for(self, topic: str) -> Layout:
        """Return the layout in which new objects of the topic are written."""
        return next((layout for pattern, layout in self.by_topic if matches(topic, (pattern,))), self.default)

    def compresses(self, topic: str) -> bool:
        """Whether new segments of the topic are compressed; an object of one document never is."""
        told = (how for pattern, how in self.compression_by_topic if matches(topic, (pattern,)))
        return next(told, self.compression) == "zstd"
