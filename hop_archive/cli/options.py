"""Options that commands share, and what becomes of them: chosen stanzas opened, messages selected."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from hop_archive.cli.output import timestamp
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.times import MOMENT_HELP, milliseconds, moment_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hop_archive.archive import Archive
    from hop_archive.catalog.protocol import Catalog
    from hop_archive.config.load import Configuration, Kind, StanzaSelection
    from hop_archive.config.stanzas import PostgresStanza
    from hop_archive.model.limits import Limits
    from hop_archive.model.query import Query
    from hop_archive.source.protocol import Source
    from hop_archive.store.protocol import Store

Command = TypeVar("Command", bound=Callable[..., Any])

LONGEST_TIMEOUT_S = 300
"""A connection gives up a server that says nothing for longer: psql is for such questions."""

TOPICS_HELP = "Only of this topic; a name, or a glob such as 'gcn.*'. May be given again."

COLUMNS_HELP = """\b
Columns that a condition may use:
  topic, generation, partition, "offset" (in quotes), timestamp (milliseconds
  since 1970), timestamp_type (0 create, 1 append), uuid, is_client_uuid,
  size (bytes of the document), key, bucket, position, frame, frame_size,
  crc32, message_crc32, digest, media_type, title, sender, file_name,
  originator, public, direct_upload, retracted
"""

_WHERE = re.compile(r"\A\s*where\b", re.IGNORECASE)
"""Only at the beginning: any other ``where`` is the condition's own, of a subquery or of a text."""


class Explained(click.Argument):
    """An argument with a meaning, which ``--help`` and docs/commands.md tell beside those of the options."""

    def __init__(self, *names: Any, help: str, **attributes: Any) -> None:  # noqa: A002 (click's word for it)
        super().__init__(*names, **attributes)
        self.meaning = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The argument as the usage line has it, and what it is."""
        return self.make_metavar(ctx), self.meaning


def moment(value: str) -> datetime.datetime:
    """The type of an option that takes a moment; hand it to click as ``type=moment``.

    ``2026-11-24``, ``2026-11-24T06:00``, ``2026-11-24T06:00:00.5+01:00``, ``90s``, ``15m``, ``3h``, ``2d``, ``4w``.
    A date means its first moment. What names no offset is UTC, so that the same command means the same everywhere.

    Raises:
        click.BadParameter: The text means none.
    """
    try:
        return moment_of(value, datetime.datetime.now(datetime.UTC))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no moment: wanted {MOMENT_HELP}.") from error


def topic_option(
    help_text: str, metavar: str = "NAME", *, required: bool = False
) -> Callable[[Command], Command]:
    """``-T``, which a command receives as ``topics``, a tuple."""
    return click.option(
        "-T", "--topic", "topics", metavar=metavar, multiple=True, required=required, help=help_text
    )


def uuids_argument(help_text: str) -> Callable[[Command], Command]:
    """One UUID or more, in any usual spelling, which a command receives as ``uuids``."""
    return click.argument(
        "uuids", metavar="UUID...", nargs=-1, required=True, type=click.UUID, cls=Explained, help=help_text
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


_CHATTY = ("hop_archive.librdkafka", "psycopg.pool", "botocore.credentials")


def stanza_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stanzas that the option of this name may name: ``--source``, ``--database``, ``--store`` or ``--log``.

    Nothing where the configuration cannot be read: a TAB is no place for an error.
    """
    from click.shell_completion import CompletionItem

    from hop_archive.config.load import load

    try:
        stanzas = getattr(load(ctx.params.get("toml_file")), f"{parameter.name}s")
    except HopArchiveError:
        return []
    return [
        CompletionItem(name, help=stanza.describe())
        for name, stanza in sorted(stanzas.items())
        if name.startswith(incomplete)
    ]


def _stanza_option(short: str, long: str, help_text: str) -> Callable[[Command], Command]:
    return click.option(short, long, metavar="NAME", help=help_text, shell_complete=stanza_names)


_STANZA_OPTIONS = (
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
    selection: StanzaSelection

    def postgres(self, otherwise: str) -> PostgresStanza:
        """The database stanza, resolved.

        Args:
            otherwise: What is said of another one, after what it is.

        Raises:
            ConfigurationError: It is no Postgres database, or a variable that it names is not set.
        """
        from hop_archive.config.stanzas import PostgresStanza

        name = self.selection.database
        stanza = self.configuration.database(name).resolved()
        if isinstance(stanza, PostgresStanza):
            return stanza
        raise ConfigurationError(
            f"Database {name} is {stanza.describe()}, {otherwise}.",
            remedy="Name a Postgres database with -D NAME (hop-archive list shows them).",
            database=name,
        )

    def start_log(self, stream: TextIO | None = None) -> None:
        """Send log lines where the log stanza says; a console's to ``stream`` where one is given.

        Raises:
            ConfigurationError: A file cannot be opened, or a variable is not set.
        """
        from hop_archive.config import logs

        stanza = self.configuration.log(self.selection.log).resolved()
        logs.configure(stanza, stream=stream)
        hush(stanza.levels)

    def open(self, limits: Limits | None = None, run_id: str = "") -> Archive:
        """Open the archive that the selection means; nothing is connected yet.

        Raises:
            ConfigurationError: A variable that a stanza names is not set.
        """
        from hop_archive.config.open import open_archive

        return open_archive(self.configuration, self.selection, limits=limits, run_id=run_id)

    def open_source(self) -> Source:
        """The chosen source; nothing is connected yet.

        Raises:
            ConfigurationError: A variable that the stanza names is not set.
        """
        from hop_archive.config.open import open_source

        name = self.selection.source
        return open_source(name, self.configuration.source(name))

    def open_catalog(self) -> Catalog:
        """The catalog of the chosen database stanza, likewise. A source's variables need not be set."""
        from hop_archive.config.open import open_catalog

        name = self.selection.database
        return open_catalog(name, self.configuration.database(name))

    def open_store(self) -> Store:
        """The store of the chosen store stanza, likewise."""
        from hop_archive.config.open import open_store

        name = self.selection.store
        return open_store(name, self.configuration.store(name))

    @contextlib.contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog alone, while the block lasts; that it answers is known."""
        with contextlib.closing(self.open_catalog()) as catalog:
            catalog.check()
            yield catalog

    @contextlib.contextmanager
    def catalog_and_store(self) -> Iterator[tuple[Catalog, Store]]:
        """Both, likewise: what is fetched later is waited for with patience, what is not there is said at once."""
        with (
            contextlib.closing(self.open_catalog()) as catalog,
            contextlib.closing(self.open_store()) as store,
        ):
            catalog.check()
            store.check()
            yield catalog, store

    @contextlib.contextmanager
    def backup(self) -> Iterator[tuple[Store | None, float]]:
        """The store's backup bucket, None where it has none, and for how many seconds a copy may be on its way there."""
        from hop_archive.config.open import backup_grace_s, open_backup

        stanza = self.configuration.store(self.selection.store)
        backup = open_backup(self.selection.store, stanza)
        with contextlib.nullcontext() if backup is None else contextlib.closing(backup):
            yield backup, backup_grace_s(stanza)


@dataclass(frozen=True, slots=True)
class StanzaOptions:
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
    def collecting(*args: Any, **given: Any) -> Any:
        chosen = StanzaOptions(**{option.name: given.pop(option.name) for option in fields(StanzaOptions)})
        return command(*args, chosen=chosen, **given)

    return _with_options(collecting, _STANZA_OPTIONS)  # type: ignore[no-any-return]  # click's decorators return what they are given


def _with_options(command: Any, options: Sequence[Callable[[Command], Command]]) -> Any:
    """The command with options, which are shown in their order."""
    for option in reversed(options):
        command = option(command)
    return command


_SELECTION_OPTIONS = (
    topic_option(TOPICS_HELP),
    click.option("--since", type=moment, help=f"Only with a timestamp at or after {MOMENT_HELP}."),
    click.option("--until", type=moment, help="Only with a timestamp before that; forms as for --since."),
    click.option(
        "--sender", "senders", metavar="TEXT", multiple=True, help="Only of this sender. May be given again."
    ),
    click.option(
        "--media-type",
        "media_types",
        metavar="TYPE",
        multiple=True,
        help="Only of this media type, as inspect shows it. May be given again.",
    ),
    click.option(
        "--limit", metavar="NUMBER", type=click.IntRange(min=0), help="Only so many, the first ones."
    ),
    click.option(
        "--where",
        "condition",
        metavar="CONDITION",
        help="Only those that meet a condition in SQL. Nothing else can be run with it. Needs a Postgres database.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0, max=LONGEST_TIMEOUT_S, min_open=True),
        default=60,
        show_default=True,
        help="Longest that the database may look for the next messages.",
    ),
)


def selection_options(command: Command) -> Command:
    """Give a command the options that select; it receives ``query`` (a `Query`) and ``timeout_s``."""

    @functools.wraps(command)
    def collecting(
        *args: Any,
        topics: tuple[str, ...],
        since: datetime.datetime | None,
        until: datetime.datetime | None,
        senders: tuple[str, ...],
        media_types: tuple[str, ...],
        limit: int | None,
        condition: str | None,
        **others: Any,
    ) -> Any:
        from hop_archive.model.query import Query

        query = Query(
            topics=tuple(dict.fromkeys(topics)),
            since_ms=None if since is None else milliseconds(since),
            until_ms=None if until is None else milliseconds(until),
            senders=senders,
            media_types=media_types,
            condition=without_where(condition),
            limit=limit,
        )
        return command(*args, query=query, **others)

    return _with_options(collecting, _SELECTION_OPTIONS)  # type: ignore[no-any-return]  # likewise


def without_limit(command: Command) -> Command:
    """Leave ``--limit`` out of the help of a command with ``selection_options`` that takes it for files alone."""
    for option in command.__click_params__:  # type: ignore[attr-defined]  # where click keeps them
        if option.name == "limit":
            option.hidden = True
    return command


def without_where(condition: str | None) -> str:
    """The condition without the word ``where`` that it may begin with; '' for None.

    Raises:
        ConfigurationError: It is empty: everything would be selected where something was meant.
    """
    if condition is None:
        return ""
    bare = _WHERE.sub("", condition, count=1)
    if not bare.strip():
        raise ConfigurationError("The condition is empty.", remedy="Leave it out to select everything.")
    return bare


def described(query: Query) -> dict[str, Any]:
    """Return a query as JSON has it; only what it says."""
    said = {
        "topics": list(query.topics),
        "since": timestamp(query.since_ms),
        "until": timestamp(query.until_ms),
        "senders": list(query.senders),
        "media_types": list(query.media_types),
        "uuids": None if query.uuids is None else [str(own) for own in query.uuids],
        "where": query.condition,
        "limit": query.limit,
    }
    return {name: value for name, value in said.items() if value not in (None, "", [])}
