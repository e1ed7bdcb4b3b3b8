"""What ``hop-archive publish`` sends: made from its options, and shown by --dry-run."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.output import count, size, table, timestamp
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.devkit.samples import Sample

_SHOWN = 100
_SHOWN_OF_ENDLESS = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options of ``publish`` said."""

    topic: str
    known: bool
    paths: tuple[Path, ...]
    count: int | None
    rate: float
    seed: int
    size_bytes: int | None
    create: bool
    partitions: int
    record: Path | None
    ask: bool
    skip_too_large: bool
    largest_bytes: int
    as_json: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be sent.

    Attributes:
        what: In a few words.
        total: How many messages; None where there is no end.
        make: Makes them, for so many partitions.
        singly: Whether the topic may refuse some, so that each is sent by itself.
        about: What is odd about messages, by ``Sample.kind``, where that is known.
        left_out: What is not sent, and why.
        ends: Messages of ``total`` that go to every partition, so that more partitions make more messages.
    """

    what: str
    total: int | None
    make: Callable[[int], Iterator[Sample]]
    singly: bool = True
    about: dict[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    ends: int = 0

    def total_for(self, partitions: int) -> int | None:
        """How many messages there will be in a topic of so many partitions; None where there is no end."""
        return None if self.total is None else self.total + self.ends * (partitions - 1)


def content_of(wanted: Wanted) -> Content:
    """What the options mean; files are found and measured, and nothing is read yet.

    Raises:
        ConfigurationError: A path leads nowhere, or a file is too large.
    """
    if wanted.paths:
        return _files(wanted)
    return _generated(wanted) if wanted.count is not None else _known(wanted)


def _known(wanted: Wanted) -> Content:
    from hop_archive.devkit.known_set import END, known_cases, known_set

    now_ms = time.time_ns() // 1_000_000
    cases = known_cases(now_ms=now_ms, seed=wanted.seed)
    return Content(
        what="the known set",
        total=len(cases) + 1,
        ends=1,
        make=lambda partitions: known_set(
            wanted.topic, now_ms=now_ms, seed=wanted.seed, partitions=partitions
        ),
        about={
            **{case.name: case.about for case in cases},
            END: "the end of the set, once in each partition",
        },
    )


def _files(wanted: Wanted) -> Content:
    from hop_archive.devkit import file_messages

    found, too_large = file_messages.without_large(file_messages.files(wanted.paths), wanted.largest_bytes)
    if not wanted.skip_too_large:
        file_messages.refuse_large(too_large, wanted.largest_bytes)
    why = f"larger than {wanted.largest_bytes:,} bytes"
    return Content(
        what=counted(len(found), "file"),
        total=len(found),
        make=lambda _: file_messages.messages(found, wanted.topic, seed=wanted.seed),
        left_out=tuple((str(path), why) for path in too_large),
    )


def _generated(wanted: Wanted) -> Content:
    from hop_archive.devkit.samples import filler
    from hop_archive.devkit.sampling import everything_in, sample_stream

    number, size_bytes = wanted.count or 0, wanted.size_bytes

    def make(partitions: int) -> Iterator[Sample]:
        if size_bytes is not None:
            return filler(number or sys.maxsize, size_bytes, topic=wanted.topic, seed=wanted.seed)
        return sample_stream(number, seed=wanted.seed, topics=[everything_in(wanted.topic, partitions)])

    what = counted(number, "generated alert") if number else "generated alerts without end"
    return Content(what, number or None, make, singly=False)


def show(wanted: Wanted, content: Content, source: str) -> None:
    """Print what would be sent, all or the first of it."""
    from hop_archive.devkit.publish import marked

    most = _SHOWN if content.total is not None else _SHOWN_OF_ENDLESS
    some = [marked(one) for one in itertools.islice(content.make(wanted.partitions), most)]
    if wanted.as_json:
        told = {"dry_run": True, "source": source, "topic": wanted.topic, "seed": wanted.seed}
        shown = [_message_object(one, content) for one in some]
        click.echo(
            json.dumps({**told, "total": content.total_for(wanted.partitions), "messages": shown}, indent=2)
        )
        return
    click.echo(f"Would send {content.what} to topic {wanted.topic} of {source} (seed {wanted.seed}):")
    click.echo("")
    for line in _message_lines(some, content):
        click.echo(line)
    total = content.total_for(wanted.partitions)
    if total is None:
        click.echo("… and so on, until it is stopped.")
    elif total > len(some):
        click.echo(f"… and {total - len(some):,} more.")
    for name, why in content.left_out:
        click.echo(f"Left out: {name}: {why}.")


def _message_lines(some: list[Sample], content: Content) -> list[str]:
    rows = [
        [
            one.kind,
            "null" if one.key is None else size(len(one.key)),
            "null" if one.value is None else size(len(one.value)),
            count(len(one.headers)),
            timestamp(one.timestamp_ms) or "when sent",
            content.about.get(one.kind) or format_of(one),
        ]
        for one in some
    ]
    return table(["MESSAGE", "KEY", "VALUE", "HEADERS", "TIMESTAMP", "WHAT IT IS"], rows, right=(1, 2, 3))


def format_of(sample: Sample) -> str:
    """What its ``_format`` header says, for people; '' where there is none."""
    formats = [value for name, value in sample.headers if name == "_format" and value]
    return f"_format {formats[-1].decode(errors='replace')}" if formats else ""


def _message_object(one: Sample, content: Content) -> dict[str, Any]:
    return {
        "name": one.kind,
        "about": content.about.get(one.kind, ""),
        "key_bytes": None if one.key is None else len(one.key),
        "value_bytes": None if one.value is None else len(one.value),
        "headers": [name for name, _ in one.headers],
        "timestamp": timestamp(one.timestamp_ms),
    }
