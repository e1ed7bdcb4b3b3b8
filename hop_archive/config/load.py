"""What is configured: the stanzas of ``hop_archive.toml``, checked as a whole, and which of them a process uses.

``load`` reads files and nothing else: it connects to nothing and needs no environment, so a broken stanza is
found before the first message is read.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from hop_archive.config.stanzas import (
    TYPES,
    AlertStanza,
    AnyStanza,
    DatabaseStanza,
    LogStanza,
    SourceStanza,
    Stanza,
    StoreStanza,
)
from hop_archive.config.validation import Context, alternatives, made, shown, suggestion
from hop_archive.errors import ConfigurationError, MissingSettingError

USER_FILE = "hop_archive.toml"
SHIPPED_FILE = "stanzas.toml"

Kind = Literal["source", "database", "store", "log", "alert"]
Origin = Literal["option", "environment", "default"]


class Configuration(BaseModel):
    """All stanzas, by kind and name. Which of them are used is a ``StanzaSelection``'s matter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    sources: dict[str, SourceStanza] = Field(default_factory=dict)
    databases: dict[str, DatabaseStanza] = Field(default_factory=dict)
    stores: dict[str, StoreStanza] = Field(default_factory=dict)
    logs: dict[str, LogStanza] = Field(default_factory=dict)
    alerts: dict[str, AlertStanza] = Field(default_factory=dict)

    def source(self, name: str) -> SourceStanza:
        """Return the source stanza of that name; raise ``MissingSettingError`` where there is none."""
        return _named("source", self.sources, name)

    def database(self, name: str) -> DatabaseStanza:
        """Return the database stanza of that name; raise ``MissingSettingError`` where there is none."""
        return _named("database", self.databases, name)

    def store(self, name: str) -> StoreStanza:
        """Return the store stanza of that name; raise ``MissingSettingError`` where there is none."""
        return _named("store", self.stores, name)

    def log(self, name: str) -> LogStanza:
        """Return the log stanza of that name; raise ``MissingSettingError`` where there is none."""
        return _named("log", self.logs, name)

    def alert(self, name: str) -> AlertStanza:
        """Return the alert stanza of that name; raise ``MissingSettingError`` where there is none."""
        return _named("alert", self.alerts, name)

    def overlaid(self, other: Configuration) -> Configuration:
        """Return both, where a stanza of ``other`` replaces one of the same kind and name whole."""
        return Configuration(
            sources=self.sources | other.sources,
            databases=self.databases | other.databases,
            stores=self.stores | other.stores,
            logs=self.logs | other.logs,
            alerts=self.alerts | other.alerts,
        )


def _named(kind: Kind, stanzas: Mapping[str, AnyStanza], name: str) -> AnyStanza:
    if name in stanzas:
        return stanzas[name]
    nearest = difflib.get_close_matches(name, stanzas, n=3)
    hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
    raise MissingSettingError(
        f"There is no {kind} stanza named {shown(name)}.{hint} Known: {', '.join(sorted(stanzas)) or 'none'}.",
        remedy=f"Name one of these, or write a [{kind}.{name}] into {USER_FILE}.",
        kind=kind,
        wanted=name,
        nearest=nearest,
        known=sorted(stanzas),
    )


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read the shipped stanzas, overlaid by the user's file.

    A stanza of the user's file replaces the shipped one of the same kind and name *whole*: keys are not mixed,
    so what a stanza says is read in one place. The user's file is the first of ``path``, the variable
    ``HOP_ARCHIVE_TOML``, and ``hop_archive.toml`` in the working directory, of which only the last may be absent.

    Reads files and nothing else: nothing is connected, and no variable that a stanza names has to be set.

    Raises:
        MissingSettingError: The file that was named is not there.
        ConfigurationError: The file cannot be read, is not TOML, or says something wrong; all of it, one a line.
    """
    text = resources.files("hop_archive.config").joinpath(SHIPPED_FILE).read_text(encoding="utf-8")
    shipped = parse(text, f"{SHIPPED_FILE} (shipped)")
    user, whence = path, "that was given"
    if user is None and (named := environ.get("HOP_ARCHIVE_TOML")):
        user, whence = Path(named), "that HOP_ARCHIVE_TOML names"
    if user is None and not Path(USER_FILE).exists():
        return shipped
    if user is None:
        user = Path(USER_FILE)
    elif not user.exists():
        raise MissingSettingError(f"The configuration file {whence} is not there: {user}.", path=str(user))
    return shipped.overlaid(parse(read_text(user), str(user)))


def read_text(path: Path) -> str:
    """Read a file of settings.

    Raises:
        ConfigurationError: It cannot be read, or is not UTF-8; none of its text is in the error, which may be secret.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.", path=str(path)) from error
    except UnicodeDecodeError as error:
        byte = error.start  # the error itself holds the whole text: nothing is raised from it
    raise ConfigurationError(f"{path}: wanted UTF-8, found another encoding at byte {byte}.", path=str(path))


def parse(text: str, origin: str = USER_FILE) -> Configuration:
    """Check the text of one file. Pure.

    Args:
        text: TOML.
        origin: The file's name, for messages.

    Raises:
        ConfigurationError: The text is not TOML (with line and column), or says something wrong (all of it).
    """
    reader = _Reader(origin)
    try:
        tables: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, column {len(text.rpartition(chr(10))[2]) + 1}"
        message = str(error).replace("at end of document", end)
        raise ConfigurationError(f"{origin}: not TOML: {message}.", file=origin) from None
    stanzas = {kind: reader.stanzas(kind, tables.pop(kind, {})) for kind in TYPES}
    for name in tables:
        reader.report(f"[{name}]: unknown table{suggestion(name, list(TYPES))}")
    if reader.problems:
        raise ConfigurationError("\n".join(reader.problems), file=origin, problems=reader.problems)
    return Configuration.model_validate({f"{kind}s": found for kind, found in stanzas.items()})


@dataclass(slots=True)
class _Reader:
    """Makes stanzas of one file's tables, and gathers what is wrong with them."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def stanzas(self, kind: str, tables: object) -> dict[str, Stanza]:
        if not isinstance(tables, dict):
            self.report(f"{kind}: wanted tables [{kind}.NAME], found {shown(tables)}")
            return {}
        found: dict[str, Stanza] = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                self.report(f"[{kind}] {name}: wanted a table [{kind}.NAME], found {shown(table)}")
                continue
            if (model := self._model(kind, name, table)) is None:
                continue
            checked = made(model, table, Context(name, f"{self.origin}: [{kind}.{name}]"))
            if isinstance(checked, list):
                self.problems += checked
            else:
                found[name] = checked
        return found

    def _model(self, kind: str, name: str, table: Mapping[str, object]) -> type[Stanza] | None:
        # The key that says the stanza's type, or is meant to: a misspelt one is told like any other.
        nearest = [] if "type" in table else difflib.get_close_matches("type", table, n=1)
        type_name = table.get(nearest[0] if nearest else "type")
        if isinstance(type_name, str) and type_name in TYPES[kind]:
            return TYPES[kind][type_name]
        if nearest:
            self.report(f"[{kind}.{name}] {nearest[0]}: unknown key; nearest known: type")
            return None
        found = shown(type_name) if "type" in table else "nothing"
        self.report(f"[{kind}.{name}] type: wanted {alternatives(TYPES[kind])}, found {found}")
        return None

    def report(self, problem: str) -> None:
        self.problems.append(f"{self.origin}: {problem}")


@dataclass(frozen=True, slots=True)
class StanzaSelection:
    """Which stanzas a process uses, and who said so. Each is chosen independently of the others.

    Attributes:
        source: Name of the source stanza; likewise ``database``, ``store`` and ``log``.
        source_from: An option, the environment, or the default; likewise for the others.
    """

    source: str
    database: str
    store: str
    log: str
    source_from: Origin
    database_from: Origin
    store_from: Origin
    log_from: Origin

    @property
    def is_default(self) -> bool:
        """Whether nobody named a source, database or store, so that only mocks are used."""
        return self.source_from == self.database_from == self.store_from == "default"

    @property
    def asks_source(self) -> bool:
        """Whether commands that can do without a source ask it.

        Not where it is a mock that nobody named, which says nothing of a database that somebody did name.
        """
        return self.source_from != "default" or self.is_default

    def refuse_unnamed(self, *kinds: Kind) -> None:
        """Refuse a mock that nobody named beside a database or a store that somebody did name.

        A forgotten store would take objects into memory while a real catalog says that they are archived; a
        forgotten source would put sample alerts into a real archive. A source alone can be named: it is only read.

        Args:
            kinds: What is used together.

        Raises:
            MissingSettingError: The database or the store is named, and another one is not.
        """
        named = [kind for kind in kinds if getattr(self, f"{kind}_from") != "default"]
        for kind in kinds:
            if kind in named or not {"database", "store"} & {*named}:
                continue
            option, mock = _OPTIONS[kind], _DEFAULTS[kind]
            raise MissingSettingError(
                f"No {kind} is named, beside {' and '.join(f'{other} {getattr(self, other)}' for other in named)}.",
                remedy=f"Name it with {option} or HOP_ARCHIVE_{kind.upper()}; {option} {mock} if a mock is meant.",
                kind=kind,
            )


_OPTIONS: Mapping[Kind, str] = {
    "source": "-H",
    "database": "-D",
    "store": "-S",
    "log": "-l",
    "alert": "--alert",
}
_DEFAULTS: Mapping[Kind, str] = {
    "source": "mock-hop",
    "database": "mock-db",
    "store": "mock-store",
    "log": "default",
}


def select(
    configuration: Configuration,
    source: str | None = None,
    database: str | None = None,
    store: str | None = None,
    log: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> StanzaSelection:
    """Choose stanzas: an option beats ``HOP_ARCHIVE_SOURCE`` (``_DATABASE``, ``_STORE``, ``_LOG``), which beats mocks.

    A variable that is empty counts as not set.

    Raises:
        MissingSettingError: A stanza that was named is not there.
    """
    sources = _chosen("source", configuration, source, environ)
    databases = _chosen("database", configuration, database, environ)
    stores = _chosen("store", configuration, store, environ)
    logs = _chosen("log", configuration, log, environ)
    return StanzaSelection(
        source=sources[0],
        database=databases[0],
        store=stores[0],
        log=logs[0],
        source_from=sources[1],
        database_from=databases[1],
        store_from=stores[1],
        log_from=logs[1],
    )


def select_alerts(
    configuration: Configuration, given: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Choose the alert stanzas: those of options, else of ``HOP_ARCHIVE_ALERT``, with commas between; else none: nobody is told.

    Raises:
        MissingSettingError: A stanza that was named is not there.
    """
    named = environ.get("HOP_ARCHIVE_ALERT", "").split(",")
    names = tuple(dict.fromkeys(name.strip() for name in given or named if name.strip()))
    for name in names:
        configuration.alert(name)
    return names


def _chosen(
    kind: Kind, configuration: Configuration, option: str | None, environ: Mapping[str, str]
) -> tuple[str, Origin]:
    named = environ.get(f"HOP_ARCHIVE_{kind.upper()}")
    name = option if option is not None else named or _DEFAULTS[kind]
    origin: Origin = "option" if option is not None else "environment" if named else "default"
    stanza: Callable[[str], Stanza] = getattr(configuration, kind)
    try:
        stanza(name)
    except MissingSettingError as error:
        # What the wrong name most likely is: one of another kind, or what a variable holds.
        others = [
            other for other in get_args(Kind) if other != kind and name in getattr(configuration, f"{other}s")
        ]
        hints = [f"{name} is a {other} stanza ({_OPTIONS[other]})." for other in others]
        if origin == "environment":
            hints.append(f"HOP_ARCHIVE_{kind.upper()} names it.")
        message = " ".join([error.args[0], *hints])
        raise MissingSettingError(message, remedy=error.remedy, **error.facts) from None
    return name, origin
