"""Made-up messages of the kinds that travel over Hopskotch, for the demo, mocks and tests.

What belongs here: values in the shape of real alerts, and envelopes (keys, headers, timestamps) that are odd
in each way publishers have been seen to make them odd. Nothing here sends anything: a source does that.
Every value is invented; the observatories, people and events do not exist.

A *kind* names what a sample is: an ordinary kind says what its value is, an odd kind says what is odd about
its envelope, and an echo kind repeats an earlier sample, wholly or in part.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from hop_archive.devkit.alert_values import ORDINARY, UUID_BYTES, dice, uuid4
from hop_archive.errors import ConfigurationError

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]
_Twist: TypeAlias = Callable[["Sample", random.Random, random.Random], "Sample"]

ODD_SHARE = 0.04
"""Chance that a sample after the first cycle is of an odd or echo kind."""

_V4_VARIANT = 1 << 63


@dataclass(frozen=True, slots=True)
class Sample:
    """One message to publish.

    Attributes:
        topic: Topic name.
        key: Message key; ``None`` is no key, which differs from an empty one.
        value: Message value; ``None`` is a tombstone, which differs from an empty value.
        headers: Pairs in order; names may repeat, values may be ``None``, empty or no text.
        timestamp_ms: Create time, or ``None`` to leave it to producer or broker.
        partition: Kafka partition, or ``None`` to leave it to the producer's partitioner.
        kind: One of ``KINDS``, or ``filler``.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    partition: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class SampleTopic:
    """A topic and the kinds of samples that occur in it.

    Raises:
        ConfigurationError: No partition, no kind, an unknown kind, or an echo kind with nothing to echo.
    """

    name: str
    partitions: int
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(KINDS))
        if self.partitions < 1 or not self.kinds or unknown:
            raise ConfigurationError(
                f"Sample topic {self.name}: wanted at least one partition and kinds out of {', '.join(KINDS)}; "
                f"found {self.partitions} partitions and kinds {', '.join(self.kinds) or '(none)'}.",
                remedy=f"Remove the unknown {', '.join(unknown)}." if unknown else "Add what is missing.",
            )
        for kind in ECHO_KINDS:
            if kind in self.kinds and kind != "cross-posted" and not _has_originals(self, kind):
                raise ConfigurationError(
                    f"Sample topic {self.name} has the kind {kind} but no kind that {kind} could repeat.",
                    remedy=f"Add one of {', '.join(sorted(_echoed_kinds(kind)))}.",
                )


def samples(
    count: int, *, seed: int = 0, now_ms: int, topics: Sequence[SampleTopic] | None = None
) -> Iterator[Sample]:
    """Yield ``count`` samples: each kind of each topic once, then mostly ordinary ones without end.

    The same arguments give the same samples, and a larger ``count`` only adds to the end. ``seed`` alone decides which kinds,
    topics, keys and partitions follow each other: what is counted of samples does not depend on the clock. Another ``seed`` or
    ``now_ms`` gives other ``_id`` headers, so two streams do not collide. No two samples are equal
    except for those of a duplicate kind. Samples of one call are generated as they are asked for.

    The first sample has the create time ``now_ms``, each next one is a millisecond later. Samples lie in the future unless it
    is ``count`` ms ago; Kafka may refuse those more than an hour ahead. They go to ``SAMPLE_TOPICS`` unless others are given.

    Raises:
        ConfigurationError: No topic, or a cross-posted kind with no other topic to post from.
    """
    chosen = SAMPLE_TOPICS if topics is None else tuple(topics)
    if not chosen:
        raise ConfigurationError("Samples: wanted at least one topic, found none.", remedy="Give topics.")
    for topic in chosen:
        others = (other for other in chosen if other.name != topic.name)
        if "cross-posted" in topic.kinds and not any(_has_originals(o, "cross-posted") for o in others):
            raise ConfigurationError(
                f"Sample topic {topic.name} has the kind cross-posted, but no other topic has samples to post there.",
                remedy="Add another topic, or leave the kind out.",
            )
    return _stream(count, dice(str(seed)), dice(f"{seed}:{now_ms}"), now_ms, chosen)


def filler(count: int, size_bytes: int, *, topic: str, seed: int = 0) -> Iterator[Sample]:
    """Yield ``count`` plain messages of ``size_bytes`` each, for load tests; cheap rather than lifelike.

    Each has a value of its own and a well-formed ``_id`` of its own; they differ between topics and seeds.
    The same arguments give the same samples: publishing them again publishes duplicates but for the
    timestamp. Values differ in their first 16 bytes only, so they compress well in a batch.

    Raises:
        ConfigurationError: ``size_bytes`` is below 16, too few to tell values apart.
    """
    if size_bytes < UUID_BYTES:
        raise ConfigurationError(
            f"Filler for {topic}: wanted a size of at least {UUID_BYTES} bytes, found {size_bytes}.",
            remedy="Ask for larger messages.",
        )
    rng = dice(f"{seed}:{topic}")
    prefix, body = uuid4(rng)[: UUID_BYTES // 2], rng.randbytes(size_bytes - UUID_BYTES)
    ids = (prefix + number.to_bytes(8, "big") for number in range(_V4_VARIANT, _V4_VARIANT + count))
    blob = ("_format", b"blob")
    return (Sample(topic, None, own + body, (("_id", own), blob), None, None, "filler") for own in ids)


def _ordinary(
    topic: SampleTopic, kind: str, rng: random.Random, ids: random.Random, timestamp_ms: int
) -> Sample:
    recipe = ORDINARY[kind]
    key = f"{kind}-{rng.randrange(1000)}".encode() if recipe.keyed else None
    value = recipe.make(rng, timestamp_ms)
    headers: Headers = ()
    if recipe.format is not None:
        sender = rng.choice((b"sample-monitor", b"sample-survey", b"sample-observatory"))
        # In the order in which hop-client appends them.
        headers = (("_id", uuid4(ids)), ("_sender", sender), ("_format", recipe.format))
    partition = None if recipe.keyed else rng.randrange(topic.partitions)
    return Sample(topic.name, key, value, headers, timestamp_ms, partition, kind)


# What odd samples carry: ordinary values of a few kilobytes.
_PLAIN_KINDS = ("voevent", "gcn-json", "gcn-text", "gcn-binary", "snews")
# Heartbeats are vetoed as a rule: what repeats one would then repeat nothing that is archived.
_REPEATED_KINDS = frozenset(ORDINARY) - {"heartbeat"}


def _set_id(sample: Sample, *identities: bytes | None) -> Sample:
    others = tuple(header for header in sample.headers if header[0] != "_id")
    return replace(sample, headers=tuple(("_id", identity) for identity in identities) + others)


def _add_headers(sample: Sample, *headers: tuple[str, bytes | None]) -> Sample:
    return replace(sample, headers=headers + sample.headers)


def _text_id(ids: random.Random) -> bytes:
    return str(uuid.UUID(bytes=uuid4(ids))).encode()


# Each makes an ordinary sample odd in one way, given the dice of what it holds and those of its ids.
_ODDITIES: dict[str, _Twist] = {
    "tombstone": lambda sample, rng, _: replace(
        sample, key=b"withdrawn-%d" % rng.getrandbits(30), value=None
    ),
    "empty-value": lambda sample, *_: replace(sample, value=b""),
    "empty-key": lambda sample, *_: replace(sample, key=b"", partition=None),
    "no-timestamp": lambda sample, *_: replace(sample, timestamp_ms=None),
    "no-headers": lambda sample, *_: replace(sample, headers=()),
    "no-id": lambda sample, *_: _set_id(sample),
    "text-id": lambda sample, _, ids: _set_id(sample, _text_id(ids)),
    "empty-id": lambda sample, *_: _set_id(sample, b""),
    "null-id": lambda sample, *_: _set_id(sample, None),
    "long-id": lambda sample, _, ids: _set_id(sample, ids.randbytes(ids.randrange(17, 40))),
    "several-ids": lambda sample, _, ids: _set_id(sample, _text_id(ids), uuid4(ids), uuid4(ids)),
    "repeated-names": lambda sample, *_: _add_headers(
        sample, ("title", b"first"), ("tag", b"b"), ("tag", b"a"), ("tag", b"b"), ("title", b"second")
    ),
    "null-header": lambda sample, *_: _add_headers(sample, ("title", None), ("note", None)),
    "empty-header": lambda sample, *_: _add_headers(sample, ("title", b""), ("note", b"")),
    "not-utf8-header": lambda sample, *_: _add_headers(
        sample, ("_sender", b"\xff\xfe\x80"), ("title", "größer".encode("latin-1")), ("größe", b"\x00\xc3")
    ),
    "odd-format": lambda sample, *_: _add_headers(
        replace(sample, headers=sample.headers[:-1]),
        ("_format", b"json"),
        ("_format", None),
        ("_format", b"hologram"),
    ),
    # With ``title`` after the reserved headers, as one web publisher has it.
    "described": lambda sample, rng, _: _add_headers(
        replace(sample, headers=(*sample.headers, ("title", "Möglicher Gegenstück-Kandidat".encode()))),
        ("file_name", f"alert-{rng.getrandbits(20)}.txt".encode()),
        ("originator", b"https://observatory.example.org/"),
    ),
    "test": lambda sample, *_: _add_headers(sample, ("_test", b"true")),
}


def _echoed_kinds(kind: str) -> frozenset[str]:
    return frozenset({"no-id"}) if kind == "duplicate-without-id" else _REPEATED_KINDS


def _has_originals(topic: SampleTopic, kind: str) -> bool:
    return not _echoed_kinds(kind).isdisjoint(topic.kinds)


# Each repeats an earlier sample, wholly or in part; given the original, the topic, the dice, those of ids, the time.
_ECHOES: dict[str, Callable[[Sample, SampleTopic, random.Random, random.Random, int], Sample]] = {
    "duplicate": lambda original, *_: original,
    "duplicate-without-id": lambda original, *_: original,
    "colliding-id": lambda original, topic, rng, ids, timestamp_ms: replace(
        _ordinary(topic, original.kind, rng, ids, timestamp_ms), headers=original.headers
    ),
    "cross-posted": lambda original, topic, rng, *_: replace(
        original, topic=topic.name, partition=rng.randrange(topic.partitions)
    ),
}

ORDINARY_KINDS: tuple[str, ...] = tuple(ORDINARY)
"""Kinds that say what the value is; their envelopes are well formed."""

ODD_KINDS: tuple[str, ...] = tuple(_ODDITIES)
"""Kinds that say what is odd about the envelope; each is archived as a message of its own."""

ECHO_KINDS: tuple[str, ...] = tuple(_ECHOES)
"""Kinds that repeat an earlier sample.

``duplicate`` and ``duplicate-without-id`` equal an earlier sample of their topic in all but ``kind``.
``colliding-id`` has the headers, ``_id`` included, of an earlier sample of its topic, and another value.
``cross-posted`` equals an earlier sample of another topic in all but topic, partition and ``kind``.
"""

KINDS: tuple[str, ...] = ORDINARY_KINDS + ODD_KINDS + ECHO_KINDS
"""All kinds, in the order in which the first cycle shows them."""

SAMPLE_TOPICS: tuple[SampleTopic, ...] = (
    SampleTopic(
        "gcn.notices", 2, ("voevent", "gcn-json", "gcn-text", "gcn-binary", "duplicate", "colliding-id")
    ),
    SampleTopic("lvk.superevents", 1, ("lvk", "external")),
    SampleTopic("ztf.alerts", 4, ("avro", "duplicate")),
    SampleTopic("igwn.circulars", 1, ("circular",)),
    SampleTopic("icecube.tracks", 1, ("icecube",)),
    SampleTopic("snews.alerts", 1, ("snews", "blob")),
    SampleTopic("hop.odd-headers", 2, (*ODD_KINDS, "duplicate-without-id", "cross-posted")),
    SampleTopic("sys.heartbeat", 1, ("heartbeat",)),
)
"""The demo's topics. ``sys.heartbeat`` is there to be vetoed; it holds nothing that another topic repeats."""


def _stream(
    count: int, rng: random.Random, ids: random.Random, now_ms: int, topics: Sequence[SampleTopic]
) -> Iterator[Sample]:
    # Every kind of every topic once, echoes last so that there is something to echo; then without end.
    everything = [(topic, kind) for kind in KINDS for topic in topics if kind in topic.kinds]
    odd = [(topic, kind) for topic, kind in everything if kind not in ORDINARY]
    by_topic = [[choice for choice in everything if choice[0] == topic] for topic in topics]
    ordinary = [
        kept for listed in by_topic if (kept := [choice for choice in listed if choice[1] in ORDINARY])
    ]
    latest: dict[tuple[str, str], Sample] = {}
    for position in range(count):
        if position < len(everything):
            topic, kind = everything[position]
        elif bool(odd) and (not ordinary or rng.random() < ODD_SHARE):
            topic, kind = rng.choice(odd)
        else:
            # Topic first, kind second: a topic with many kinds is no busier than one with few.
            topic, kind = rng.choice(rng.choice(ordinary))
        timestamp_ms = now_ms + position
        if kind in ORDINARY:
            sample = _ordinary(topic, kind, rng, ids, timestamp_ms)
        elif kind in _ODDITIES:
            plain = _ordinary(topic, rng.choice(_PLAIN_KINDS), rng, ids, timestamp_ms)
            sample = replace(_ODDITIES[kind](plain, rng, ids), kind=kind)
        else:
            elsewhere = kind == "cross-posted"
            originals = [
                sample
                for (name, original_kind), sample in latest.items()
                if (name != topic.name) == elsewhere and original_kind in _echoed_kinds(kind)
            ]
            echo = _ECHOES[kind](rng.choice(originals), topic, rng, ids, timestamp_ms)
            sample = replace(echo, kind=kind)
        if kind in _REPEATED_KINDS or kind == "no-id":
            latest[topic.name, kind] = sample
        yield sample
