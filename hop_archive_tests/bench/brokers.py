"""The Kafka of a bench: Apache Kafka where it can be had; the local stack's own slows down the more it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from hop_archive.devkit.local.address import External
from hop_archive.errors import MissingSettingError, UnavailableError
from hop_archive_tests.kafka.broker import ApacheKafka


@dataclass(frozen=True, slots=True)
class Given:
    """What a local stack is given instead of what it would start.

    Attributes:
        external: Servers that are there.
        pids: Of those servers that were started here.
    """

    external: External
    pids: tuple[int, ...] = ()


@contextmanager
def apache_kafka(directory: Path, *, wanted: bool) -> Iterator[Given]:
    """Apache Kafka while the block runs, if it is ``wanted`` and no other is given; where it can't be had, that is told.

    Half an hour at 700 messages a second is nothing to it. Of the local stack's Kafka, which keeps all in memory, each fetch
    took longer than the one before: followers were 0.5 s behind in the first minutes, and half a minute after ten (2026-11-30).
    """
    external = External.from_environment(os.environ)
    if external.gives("kafka") or not wanted:
        yield Given(external)
        return
    try:
        broker = ApacheKafka(directory).start()
    except (MissingSettingError, UnavailableError) as error:
        click.echo(f"Measured on the local stack's own Kafka, which is not Apache's: {error}", err=True)
        yield Given(external)
        return
    with broker:
        pids = () if broker.pid is None else (broker.pid,)
        yield Given(replace(external, bootstrap_servers=broker.bootstrap_servers), pids)
