"""``hop-archive local publish``: sample alerts into the local stack."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
    from hop_archive.cli.sending import Sending
    from hop_archive.cli.stopping import Stop
    from hop_archive.devkit.publish import publish as publish_messages
    from hop_archive.devkit.sampling import create_sample_topics, sample_stream

    hush()
    stop, sending = Stop(), Sending(wanted or None)
    with contextlib.closing(_source(directory)) as source, stop.on_signals():
        create_sample_topics(source)
        stream = sample_stream(wanted, seed=seed)
        try:
            sending.run(publish_messages(source, stream, rate=rate, sleep=stop.sleep, record=record), stop)
        finally:
            for line in sending.lines():
                click.echo(line)


def _source(directory: Path) -> Source:
    from hop_archive.devkit.local.stack import LocalStack
    from hop_archive.source.kafka.source import KafkaSource

    servers = LocalStack(directory).address().bootstrap_servers
    return KafkaSource("hop-local", bootstrap_servers=servers, writable=True)
