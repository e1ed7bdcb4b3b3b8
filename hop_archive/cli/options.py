"""Options that commands share: which stanzas, from which file. And what becomes of them: an archive."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from hop_archive.cli.completion import stanza_names

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.config.load import Configuration, Kind, Selection
    from hop_archive.config.stanzas import LogStanza
    from hop_archive.model.limits import Limits

Command = TypeVar("Command", bound=Callable[..., Any])

_CHATTY = ("hop_archive.librdkafka", "psycopg.pool", "botocore.credentials")


def _stanza_option(short: str, long: str, help_text: str) -> Callable[[Command], Command]:
    return click.option(short, long, metavar="NAME", help=help_text, shell_complete=stanza_names)


_OPTIONS = (
    click.option(
        "-t",
        "--toml-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with stanzas of your own.  [default: $HOP_ARCHIVE_TOML, or hop_archive.toml here if there is one]",
    ),
    _stanza_option("-H", "--source", "Source stanza.  [default: $HOP_ARCHIVE_SOURCE, or mock-hop]"),
    _stanza_option("-D", "--database", "Database stanza.  [default: $HOP_ARCHIVE_DATABASE, or mock-db]"),
    _stanza_option("-S", "--store", "Store stanza.  [default: $HOP_ARCHIVE_STORE, or mock-store]"),
    _stanza_option("-l", "--log", "Log stanza.  [default: $HOP_ARCHIVE_LOG, or default]"),
)


def hush(levels: Collection[str] = ()) -> None:
    """Keep clients' own accounts of every broken connection from the terminal.

    What went wrong reaches the user once, as an error or a warning of ours. Who wants to hear the clients, too,
    names them in the ``levels`` of a log stanza.
    """
    for name in _CHATTY:
        if name not in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Setup:
    """A checked configuration, and which of its stanzas a command uses."""

    configuration: Configuration
    selection: Selection

    @property
    def log_stanza(self) -> LogStanza:
        """The log stanza, resolved.

        Raises:
            ConfigurationError: A variable that it names is not set.
        """
        return self.configuration.log(self.selection.log).resolved()

    def start_log(self, stream: TextIO | None = None) -> None:
        """Send log lines where the log stanza says; a console's to ``stream`` where one is given.

        Raises:
            ConfigurationError: A file cannot be opened, or a variable is not set.
        """
        from hop_archive.config import logs

        stanza = self.log_stanza
        logs.configure(stanza, stream=stream)
        hush(stanza.levels)

    def open(self, limits: Limits | None = None, run_id: str = "") -> Archive:
        """Open the archive that the selection means; nothing is connected yet.

        Raises:
            ConfigurationError: A variable that a stanza names is not set.
        """
        from hop_archive.config.open import open_archive

        return open_archive(self.configuration, self.selection, limits=limits, run_id=run_id)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the shared options said; None for what they did not."""

    toml_file: Path | None
    source: str | None
    database: str | None
    store: str | None
    log: str | None

    def setup(self, *uses: Kind) -> Setup:
        """Read ``.env``, read and check the configuration, choose stanzas, and start the log.

        Args:
            uses: What the command uses together: all of these are to be named, or none.

        Raises:
            ConfigurationError: Something is wrong with a file, a stanza that was named is not there, or one that
                ought to be named is not.
        """
        from hop_archive.cli.env_file import read_env_file
        from hop_archive.config.load import load, select

        read_env_file(os.environ)
        configuration = load(self.toml_file)
        setup = Setup(configuration, select(configuration, self.source, self.database, self.store, self.log))
        setup.selection.refuse_unnamed(*uses)
        setup.start_log()
        return setup


def stanza_options(command: Command) -> Command:
    """Give a command ``-t``, ``-H``, ``-D``, ``-S`` and ``-l``; it receives them as one argument, ``chosen``."""

    @functools.wraps(command)
    def collecting(
        *args: Any,
        toml_file: Path | None,
        source: str | None,
        database: str | None,
        store: str | None,
        log: str | None,
        **others: Any,
    ) -> Any:
        return command(*args, chosen=Chosen(toml_file, source, database, store, log), **others)

    wrapped: Any = collecting
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # what click's decorators return is the function given


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
