"""``hop-archive db-logs``: what the database's server wrote down."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from hop_archive.cli import output
from hop_archive.cli.options import Setup, StanzaOptions, moment, stanza_options
from hop_archive.cli.output import say, size
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.times import MOMENT_HELP

if TYPE_CHECKING:
    from hop_archive.config.server_logs import FilesHere, LogFile, ServerLogs

LOCAL_DIRECTORY = "HOP_ARCHIVE_LOCAL_DIR"

_EPILOG = """\b
Examples:
  hop-archive db-logs -D aws-prod-db                     the last two files
  hop-archive db-logs -D aws-prod-db --since 2h | grep ERROR
  hop-archive db-logs -D local-db --lines 50             the local stack's, after local env
  hop-archive db-logs --dir ~/hop-stack

\b
The log goes to the output, the files' names to the error output. RDS keeps files for three days unless told
otherwise; reading them takes rds:DescribeDBLogFiles and rds:DownloadDBLogFilePortion.
"""


@click.command("db-logs", epilog=_EPILOG)
@stanza_options
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where the local stack is, for its database's log.  [default: ${LOCAL_DIRECTORY}]",
)
@click.option("--since", type=moment, metavar="WHEN", help=f"Only what was written since: {MOMENT_HELP}.")
@click.option(
    "-n", "--lines", "last", type=click.IntRange(min=1), metavar="N", help="Only the last N lines of that."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of text.")
def db_logs(
    chosen: StanzaOptions,
    directory: Path | None,
    since: datetime.datetime | None,
    last: int | None,
    *,
    as_json: bool,
) -> None:
    """Show what the database's server wrote to its log: of an RDS instance, or of the local stack's Postgres.

    Without --since, the newest two files, whole. RDS begins a file each hour; the local server begins one whenever
    it starts. With --json, each object has file and line.
    """
    from hop_archive.config.server_logs import newest

    logs = _logs(chosen.setup(), directory)
    files = newest(logs.files(), since)
    if not files:
        say("Nothing was written since then." if since else "There is no log.", err=True)
    lines: Iterable[tuple[LogFile, str]] = _lines(logs, files, since)
    for file, line in lines if last is None else deque(lines, maxlen=last):
        click.echo(json.dumps({"file": file.name, "line": line}) if as_json else line)


def _lines(
    logs: ServerLogs, files: Iterable[LogFile], since: datetime.datetime | None
) -> Iterator[tuple[LogFile, str]]:
    from hop_archive.config.server_logs import later

    for file in files:
        say(f"{file.name}  ({size(file.size_bytes)}, to {output.moment(file.written_at)})", err=True)
        yield from ((file, line) for line in later(logs.lines(file), since))


def _logs(setup: Setup, directory: Path | None) -> ServerLogs:
    from hop_archive.config.aws.database_logs import InstanceLogs
    from hop_archive.config.stanzas import PostgresStanza
    from hop_archive.devkit.local.stack import LocalStack

    name = setup.selection.database
    stanza = setup.configuration.database(name)
    if isinstance(stanza, PostgresStanza) and stanza.instance_id:
        stanza = stanza.resolved()
        return InstanceLogs(stanza.instance_id, f"{stanza.label} instance_id", stanza.region, stanza.profile)
    if directory is not None:
        return _of_the_stack(directory)
    named = os.environ.get(LOCAL_DIRECTORY)
    if named and isinstance(stanza, PostgresStanza):
        of_stack = urlsplit(LocalStack(Path(named)).last_address().database_url)  # be it up or down
        with contextlib.suppress(
            ValueError
        ):  # libpq takes several hosts, as in h:1,i:2; the stack's url has one
            of_stanza = urlsplit(stanza.dsn().get_secret_value())
            if (of_stack.hostname, of_stack.port) == (of_stanza.hostname, of_stanza.port):
                return _of_the_stack(Path(named))
    raise MissingSettingError(
        f"Database {name} is {stanza.resolved().describe()}: only RDS instances and the local stack have logs to fetch.",
        remedy="Name a stanza with an instance_id (-D aws-prod-db), or the local stack's directory (--dir DIR); any "
        "other server keeps its log on its own machine.",
        database=name,
    )


def _of_the_stack(directory: Path) -> FilesHere:
    from hop_archive.config.server_logs import FilesHere
    from hop_archive.devkit.local.stack import LocalStack

    stack = LocalStack(directory)
    present = stack.log("postgres")
    try:
        is_down = present.exists() and not stack.runs("postgres")
    except ConfigurationError:
        is_down = False  # its state is not to be had, which is no reason to keep the log back
    if is_down:
        remedy = f"hop-archive local up --dir {shlex.quote(str(stack.directory))}"
        say(f"This server does not run now. Start it: {remedy}", err=True)
    return FilesHere((present.with_name(f"{present.name}.1"), present))
