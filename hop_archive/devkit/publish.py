"""Publishing messages to a writable source: test data, sample alerts, files.

Sends nothing that nobody asked for: what may be sent where is checked first, from the stanza alone
(`refuse_unless_allowed`), and every message of the ``publish`` command bears the mark of a test (`marked`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hop_archive.devkit.samples import Sample
from hop_archive.errors import ConfigurationError, DataError, ForbiddenError, MissingSettingError
from hop_archive.model.message import Outgoing, Receipt
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.protocol import Source, TopicInfo
from hop_archive.upkeep.verify.sent import record_sent

_AT_ONCE = 500

TEST_HEADER = ("_test", b"true")
"""Marks a message as a test: hop-client writes this value, and takes the header's presence for the mark."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What somebody confirmed in so many words.

    Attributes:
        not_a_test_topic: The topic that may be written to though no test topic; '' for none.
        production: Whether that holds for a production source, too.
    """

    not_a_test_topic: str = ""
    production: bool = False


def refuse_unless_allowed(
    source: str, topic: str, policy: TopicPolicy, *, writable: bool, production: bool, consent: Consent
) -> None:
    """Check, before anything is connected, that the stanza ``source`` lets test data be sent to ``topic``.

    A source that is not writable never takes any. A test topic of a writable one does; any other topic has to
    be named twice, and on a production source that has to be confirmed as well.

    Raises:
        ForbiddenError: It is not allowed; the remedy says what would make it so.
    """
    if not writable:
        raise ForbiddenError(
            f"Source {source} is read-only: refused to publish to it.",
            remedy="Choose a source whose stanza says writable = true.",
            source=source,
        )
    if policy.test(topic):
        return
    if consent.not_a_test_topic != topic:
        raise ForbiddenError(
            f"Topic {topic} is not a test topic of source {source} (its test_topics: "
            f"{', '.join(policy.test_topics) or 'none'}): refused to publish test data to it.",
            remedy=f"Choose another topic, or repeat its name: --not-a-test-topic {topic}.",
            source=source,
            topic=topic,
        )
    if production and not consent.production:
        raise ForbiddenError(
            f"Source {source} is production, and topic {topic} is no test topic of it: people act on what "
            "appears there. Refused to publish test data to it.",
            remedy="If that is what you want, say --production, too.",
            source=source,
            topic=topic,
        )


def default_topic(policy: TopicPolicy) -> str:
    """The first of the test topics that is a name and no pattern; '' where there is none."""
    return next((name for name in policy.test_topics if not set(name) & set("*?[")), "")


def ready_topic(source: Source, topic: str, *, create: bool, partitions: int) -> TopicInfo:
    """The topic, made with so many partitions where it is not there and ``create`` says so.

    Raises:
        MissingSettingError: It is not there.
        UnavailableError: The source does not answer.
    """
    found = source.topics([topic]).get(topic)
    if found is None and create:
        source.create_topic(topic, partitions)
        found = source.topics([topic]).get(topic)
    if found is None:
        raise MissingSettingError(
            f"Source {source.name} has no topic {topic}.",
            remedy="--create makes it, with one partition or as many as --partitions says.",
            source=source.name,
            topic=topic,
        )
    return found


def marked(message: Sample) -> Sample:
    """The same message, marked as a test; one that is so marked already stays as it is."""
    if TEST_HEADER in message.headers:
        return message
    return replace(message, headers=(*message.headers, TEST_HEADER))


def publish(
    source: Source,
    messages: Iterable[Outgoing],
    *,
    rate: float = 0.0,
    sleep: Callable[[float], object],
    record: Path | None = None,
) -> Iterator[Sequence[Receipt]]:
    """Publish messages, which may be endless, some at a time, each portion acknowledged before the next.

    The source is writable, and its topics exist. The rate is about so many messages a second, 0 for as fast as it goes; to
    the file ``record`` is appended what was sent and where it stands (``record_sent``).

    Yields:
        Where each message of a portion stands.

    Raises:
        ForbiddenError: The source is not writable.
        UnavailableError: Not all of a portion were acknowledged; those before it were.
    """
    portion = _AT_ONCE if rate <= 0 else max(1, min(_AT_ONCE, round(rate / 5)))
    remaining = iter(messages)
    while batch := list(itertools.islice(remaining, portion)):
        receipts = source.publish(batch)
        if record is not None:
            record_sent(record, batch, receipts)
        yield receipts
        if rate > 0:
            sleep(len(batch) / rate)


def publish_singly(
    source: Source,
    messages: Iterable[Sample],
    *,
    rate: float = 0.0,
    sleep: Callable[[float], object],
    record: Path | None = None,
    refused: Callable[[Sample, ConfigurationError | DataError], None],
) -> Iterator[Sequence[Receipt]]:
    """Publish messages one at a time, so that one which the topic does not take is known, and left out.

    Each is acknowledged before the next is asked for. Slower than ``publish`` by far: for messages that are
    odd, or that somebody is asked about. Arguments, results and errors are otherwise the same; ``refused`` is told of each
    message that the topic does not take (too large, too old, too far ahead), or that cannot be sent, and why; what it raises
    ends the publishing.

    Raises:
        MissingSettingError: The topic is not there any more.
    """
    for message in messages:
        try:
            yield from publish(source, [message], rate=rate, sleep=sleep, record=record)
        except (ForbiddenError, MissingSettingError):
            raise
        except (ConfigurationError, DataError) as error:
            refused(message, error)
