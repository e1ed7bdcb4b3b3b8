"""What is configured: the stanzas of ``hop_archive.toml``, checked as a whole, and which of them a process uses.

``load`` reads files and nothing else: it connects to nothing and needs no environment, so a broken stanza is
found before the first message is read. Text may hold ``${NAME}`` or ``${NAME:-default}``; it gets its value when
the stanza is used (``resolved``), so production's variables need not exist on a laptop. Only text may: a number
or a choice is written out, which keeps the types of the attributes true.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from hop_archive import credentials
from hop_archive.credentials import AccessKeys, Login
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.topics import PATTERN_RULE, Layout, LayoutPolicy, TopicPolicy, is_pattern

USER_FILE = "hop_archive.toml"
SHIPPED_FILE = "stanzas.toml"

Kind = Literal["source", "database", "store", "log"]
Origin = Literal["option", "environment", "default"]
Security = Literal["plaintext", "tls", "sasl-plain", "sasl-scram-sha-256", "sasl-scram-sha-512"]
Level = Literal["debug", "info", "warning", "error", "critical"]


@dataclass(frozen=True, slots=True)
class _Context:
    """What a stanza cannot know from its own table."""

    name: str = ""
    label: str = ""
    hidden: frozenset[str] = frozenset()  # keys whose values came from the environment: never shown
    resolved: bool = False


def _is_resolved(info: ValidationInfo) -> bool:
    return isinstance(info.context, _Context) and info.context.resolved


def _well_formed(text: str, info: ValidationInfo) -> str:
    if not _is_resolved(info) and not credentials.is_well_formed(text):
        raise ValueError("wanted each '${' to begin ${NAME} or ${NAME:-default}")
    return text


def _wanted(accepts: Callable[[str], object], rule: str) -> AfterValidator:
    """Check text, once it has no variable left in it. The reporter adds what was found instead."""

    def check(text: str, info: ValidationInfo) -> str:
        pending = credentials.has_variable(text) and not _is_resolved(info)
        if not pending and not accepts(text):
            raise ValueError(f"wanted {rule}")
        return text

    return AfterValidator(check)


def _wanted_at_once(accepts: Callable[[str], object], rule: str) -> AfterValidator:
    """Check text that may hold no variable: a key of a table, or a name that stands for a value already."""

    def check(text: str) -> str:
        if not accepts(text):
            raise ValueError(f"wanted {rule}")
        return text

    return AfterValidator(check)


_SERVER = r"(?:[^\s,:@/\[\]]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"
_SERVERS = re.compile(f"{_SERVER}(,{_SERVER})*")
_ENDPOINT = re.compile(r"(https?://[^\s/@?#]+/?)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([^/\s]+(/[^/\s]+)*)?")
# Upper case only: a secret pasted where a variable's name belongs is then refused, and its text never shown.
_ENV_NAME = re.compile(r"([A-Z_][A-Z0-9_]*)?")
_URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?(?P<hosts>[^@/?#\s]*)"
    r"(?:/(?P<name>[^@/?#\s]*))?(?:\?(?P<options>(?!\S*\bpassword=)[^@#\s]*))?"
)
_URL_RULE = "postgresql://user@host:port/name, with special characters percent-encoded"
_INLINE_PASSWORD = re.compile(r"://[^:@/\s]*:[^@/\s]+@|\bpassword=[^&]")


def _url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    text = url.get_secret_value()
    if not _is_resolved(info):
        _well_formed(text, info)
        if _INLINE_PASSWORD.search(credentials.written_out(text)):
            raise ValueError("secrets are not kept in TOML; name the variable that holds it in password_env")
        if credentials.has_variable(text):
            return url
    if text and not _URL.fullmatch(text):
        raise ValueError(f"wanted {_URL_RULE}")
    return url


Text = Annotated[str, AfterValidator(_well_formed)]
Pattern = Annotated[Text, _wanted(is_pattern, PATTERN_RULE)]
# TOML has lists, Python has tuples that stay as they are.
Patterns = Annotated[tuple[Pattern, ...], Field(strict=False)]
Layouts = dict[Annotated[str, _wanted_at_once(is_pattern, PATTERN_RULE)], Layout]
Count = Annotated[int, Field(ge=1)]
EnvName = Annotated[
    str, _wanted_at_once(_ENV_NAME.fullmatch, "the name of an environment variable, in capitals")
]
Servers = Annotated[Text, _wanted(_SERVERS.fullmatch, "host:port[,host:port...]")]
Endpoint = Annotated[Text, _wanted(_ENDPOINT.fullmatch, "http://host:port or https://host:port")]
Bucket = Annotated[Text, _wanted(_BUCKET.fullmatch, "a bucket's name")]
OptionalBucket = Annotated[Text, _wanted(lambda text: not text or _BUCKET.fullmatch(text), "a bucket's name")]
Prefix = Annotated[Text, _wanted(_PREFIX.fullmatch, "a prefix with no '/' at either end")]
Filled = Annotated[Text, _wanted(bool, "text that is not empty")]
Url = Annotated[SecretStr, AfterValidator(_url)]


class Stanza(BaseModel):
    """One table of a file. Frozen; an unknown key or a wrong type is an error; ``repr`` shows no secret."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    _name: str = PrivateAttr(default="")
    _label: str = PrivateAttr(default="")
    _resolved: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any, /) -> None:
        """Keep what messages and ``resolved`` need to know."""
        known = context if isinstance(context, _Context) else _Context()
        self._name = known.name
        self._label = known.label or f"[{type(self).__name__}]"
        self._resolved = known.resolved

    @property
    def stanza_name(self) -> str:
        """NAME of ``[kind.NAME]``; empty for a stanza made in code."""
        return self._name

    @property
    def label(self) -> str:
        """Where the stanza stands, for messages: ``hop_archive.toml: [store.x]``."""
        return self._label

    def resolved(self, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the stanza with variables replaced and everything checked again; a resolved one is itself.

        ``${NAME}`` has to be set and not empty: an empty endpoint, say, would mean AWS. ``${NAME:-default}``
        takes the default, which may be empty, for a variable that is not set or is empty.

        Raises:
            MissingSettingError: Variables are not set or empty; all of the stanza's are named.
            ConfigurationError: A value that came from the environment is not what the key wants.
        """
        if self._resolved:
            return self
        values = self._table()
        missing = [
            (f"{self.label} {key}", variable)
            for key, value in values.items()
            for variable in _unset(value, environ)
        ]
        if missing:
            raise credentials.missing_variables(missing, environ)
        hidden = frozenset(key for key, value in values.items() if _holds_variable(value))
        table = {key: _expanded(value, environ) for key, value in values.items()}
        return self._checked_again(table, _Context(self._name, self._label, hidden, resolved=True))

    def _checked_again(self, table: dict[str, object], context: _Context) -> Self:
        made = _made(type(self), table, context)
        if isinstance(made, list):
            raise ConfigurationError("\n".join(made), problems=made)
        return made

    def _table(self) -> dict[str, object]:
        given = self.model_fields_set  # a set: the order of messages comes from the fields instead
        fields = type(self).model_fields.items()
        return {info.alias or name: getattr(self, name) for name, info in fields if name in given}

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        raise NotImplementedError


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, tuple):
        yield from (text for item in value for text in _texts(item))
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))


def _unset(value: object, environ: Mapping[str, str]) -> Iterator[str]:
    return (variable for text in _texts(value) for variable in credentials.unset_variables(text, environ))


def _holds_variable(value: object) -> bool:
    return any(credentials.has_variable(text) for text in _texts(value))


def _expanded(value: object, environ: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return credentials.expand(value, environ)
    if isinstance(value, SecretStr):
        return SecretStr(credentials.expand(value.get_secret_value(), environ))
    if isinstance(value, tuple):
        return tuple(_expanded(item, environ) for item in value)
    if isinstance(value, dict):
        return {key: _expanded(item, environ) for key, item in value.items()}
    return value


def _directory_or_memory(directory: str) -> str:
    return f"a mock in the directory {directory}" if directory else "a mock in memory"


class _Source(Stanza):
    """What every source says.

    Attributes:
        topics: Names and globs of the topics that are archived.
        veto: Names and globs of those that are not, whatever ``topics`` says.
        private: Names and globs of topics whose messages are annotated as not public.
        test_topics: Names and globs of topics that hold test messages only.
        writable: Whether publish and restore may write to it.
        production: Whether it is the service's own cluster: tools ask once more before they load it.
    """

    topics: Patterns = ("*",)
    veto: Patterns = ("sys.heartbeat*", "*heartbeat*", "__*")
    private: Patterns = ()
    test_topics: Patterns = ()
    writable: bool = False
    production: bool = False

    def policy(self) -> TopicPolicy:
        """Return what the stanza says about topics; resolve the stanza first if its patterns hold variables."""
        return TopicPolicy(self.topics, self.veto, self.private, self.test_topics)


class KafkaSourceStanza(_Source):
    """A Kafka cluster.

    Attributes:
        bootstrap_servers: ``host:port``, comma-separated.
        security: The protocol. Each ``sasl-...`` is over TLS; passwords never travel in the clear.
        username_env: Variable that holds the user's name; needed with ``sasl-...``.
        password_env: Variable that holds the password; needed with ``sasl-...``.
        group_id: Consumer group whose offsets are committed for outside monitoring, and never read back.
        fetch_mebibytes: Bound on messages prefetched by one reader.
    """

    type: Literal["kafka"] = "kafka"
    bootstrap_servers: Servers
    security: Security = "tls"
    username_env: EnvName = ""
    password_env: EnvName = ""
    group_id: Filled = "hop_archive"
    fetch_mebibytes: Count = 32

    @model_validator(mode="after")
    def _credentials_fit_security(self) -> Self:
        sasl = self.security.startswith("sasl-")
        if sasl and not (self.username_env and self.password_env):
            raise ValueError(f'security "{self.security}" wants username_env and password_env')
        if not sasl and (self.username_env or self.password_env):
            raise ValueError(
                f'security "{self.security}" sends no username or password; wanted a "sasl-..." one'
            )
        return self

    def login(self, environ: Mapping[str, str] = os.environ) -> Login | None:
        """Return the user and password, or None where ``security`` wants none.

        Raises:
            MissingSettingError: A variable is not set or empty.
        """
        if not self.security.startswith("sasl-"):
            return None
        user = credentials.secret_from_environment(
            self.username_env, environ, where=f"{self.label} username_env"
        )
        password = credentials.secret_from_environment(
            self.password_env, environ, where=f"{self.label} password_env"
        )
        return Login(user.get_secret_value(), password)

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return f"Kafka at {self.bootstrap_servers}"


class MockSourceStanza(_Source):
    """A cluster that is not there.

    Attributes:
        samples: How many sample alerts it holds at the start.
        rate: Alerts a second that go on arriving.
        directory: Where it keeps them; empty: in memory, gone with the process.
    """

    type: Literal["mock"] = "mock"
    samples: int = Field(default=100, ge=0)
    rate: float = Field(default=0.0, ge=0)
    directory: Text = ""

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return _directory_or_memory(self.directory)


class _Permissions(Stanza):
    """What may be taken away; nothing, unless the stanza says so.

    Attributes:
        cleaning_allowed: Whether messages of test topics may be removed.
        deleting_allowed: Whether any other may.
    """

    cleaning_allowed: bool = False
    deleting_allowed: bool = False


class PostgresStanza(_Permissions):
    """A Postgres database: a ``url``, or its parts.

    Attributes:
        url: ``postgresql://user@host:port/name``. Its password, if any, comes from a variable.
        host: Name, address, or directory of a Unix socket; with ``port``, ``name`` and ``user`` in the place of ``url``.
        port: TCP port, used with ``host``.
        name: The database.
        user: Its role.
        password_env: Variable that holds the password; beats one in the url. Empty: ``~/.pgpass`` or none.
        schema_name: TOML's ``schema``: where the tables are. (pydantic has taken the plain word.)
        pool_size: Bound on connections of one process.
    """

    type: Literal["postgres"] = "postgres"
    url: Url = SecretStr("")
    host: Text = ""
    port: int = Field(default=5432, ge=1, le=65535)
    name: Text = ""
    user: Text = ""
    password_env: EnvName = ""
    schema_name: Filled = Field(default="public", alias="schema")
    pool_size: Count = 4

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        parts = self.model_fields_set & {"host", "port", "name", "user"}
        if self.url.get_secret_value() and parts:
            raise ValueError(f"wanted url or its parts, found url and {', '.join(sorted(parts))}")
        if not self.url.get_secret_value() and not (self.host and self.name and self.user):
            raise ValueError("wanted url, or host, name and user")
        return self

    def dsn(self, environ: Mapping[str, str] = os.environ) -> SecretStr:
        """Return the whole connection URL, password and all, that libpq and SQLAlchemy take.

        Raises:
            MissingSettingError: A variable is not set or empty.
            ConfigurationError: The url that a variable holds is not a Postgres url.
        """
        here = self.resolved(environ)
        password = _password(here, environ)
        if found := _URL.fullmatch(here.url.get_secret_value()):
            return SecretStr(_url_with_password(found, password))
        login = f"{quote(here.user, safe='')}{_after(':', password)}"
        host = f"[{here.host}]" if ":" in here.host else quote(here.host, safe="")
        return SecretStr(f"postgresql://{login}@{host}:{here.port}/{quote(here.name, safe='')}")

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        if not self.url.get_secret_value():
            return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"
        if found := _URL.fullmatch(self.url.get_secret_value()):
            login = f"{found['user']}@" if found["user"] else ""
            return f"postgresql://{login}{found['hosts']}/{found['name'] or ''}"
        return f"Postgres at the url of {self.label}"


def _after(mark: str, text: str | None) -> str:
    return f"{mark}{text}" if text else ""


def _password(stanza: PostgresStanza, environ: Mapping[str, str]) -> str:
    if not stanza.password_env:
        return ""
    where = f"{stanza.label} password_env"
    secret = credentials.secret_from_environment(stanza.password_env, environ, where=where)
    return quote(secret.get_secret_value(), safe="")


def _url_with_password(found: re.Match[str], password: str) -> str:
    login = f"{found['user'] or ''}{_after(':', password or found['password'])}"
    tail = f"/{found['name'] or ''}{_after('?', found['options'])}"
    return f"postgresql://{login}{'@' if login else ''}{found['hosts']}{tail}"


class MockDatabaseStanza(_Permissions):
    """A database that is not there.

    Attributes:
        directory: Where it keeps its rows; empty: in memory, gone with the process.
    """

    type: Literal["mock"] = "mock"
    directory: Text = ""

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return _directory_or_memory(self.directory)


class _Store(_Permissions):
    """What every store says.

    Attributes:
        layout: How new objects are laid out.
        layouts: Topic name or glob to layout; the first that means the topic wins, in the file's order.
        segment_mebibytes: Size at which a segment is closed and the next begun.
    """

    layout: Layout = "message"
    layouts: Layouts = Field(default_factory=dict)
    segment_mebibytes: Count = 32

    def layout_policy(self) -> LayoutPolicy:
        """Return what the stanza says about layouts."""
        return LayoutPolicy(self.layout, tuple(self.layouts.items()))


class S3Stanza(_Store):
    """Buckets behind an S3 API.

    Attributes:
        endpoint: ``http(s)://host:port``; empty: AWS.
        region: AWS region, or what the server wants in its place.
        bucket: Where objects go.
        backup_bucket: Where a second copy of each goes; empty: nowhere.
        prefix: What stands before each object key, with a ``/`` between; empty: nothing.
        access_key_env: Variable that holds the access key. Empty, like the next: the default AWS chain.
        secret_key_env: Variable that holds the secret key.
        put_concurrency: Bound on requests in flight.
    """

    type: Literal["s3"] = "s3"
    endpoint: Endpoint = ""
    region: Text = ""
    bucket: Bucket
    backup_bucket: OptionalBucket = ""
    prefix: Prefix = ""
    access_key_env: EnvName = ""
    secret_key_env: EnvName = ""
    put_concurrency: Count = 64

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if bool(self.access_key_env) != bool(self.secret_key_env):
            raise ValueError("wanted access_key_env and secret_key_env, or neither")
        return self

    @model_validator(mode="after")
    def _a_backup_is_elsewhere(self) -> Self:
        if self.bucket == self.backup_bucket:
            raise ValueError("wanted a backup_bucket that is not the bucket itself")
        return self

    def access_keys(self, environ: Mapping[str, str] = os.environ) -> AccessKeys | None:
        """Return the keys, or None where the default AWS chain supplies them.

        Raises:
            MissingSettingError: A variable is not set or empty.
        """
        if not self.access_key_env:
            return None
        access = credentials.secret_from_environment(
            self.access_key_env, environ, where=f"{self.label} access_key_env"
        )
        secret = credentials.secret_from_environment(
            self.secret_key_env, environ, where=f"{self.label} secret_key_env"
        )
        return AccessKeys(access.get_secret_value(), secret)

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return f"s3://{self.bucket}{_after('/', self.prefix)} at {self.endpoint or 'AWS'}"


class MockStoreStanza(_Store):
    """A store that is not there.

    Attributes:
        directory: Where it keeps its objects; empty: in memory, gone with the process.
    """

    type: Literal["mock"] = "mock"
    directory: Text = ""

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return _directory_or_memory(self.directory)


class _Log(Stanza):
    """What every log says.

    Attributes:
        level: From which level on hop_archive's own lines are written. Other packages': from warning on,
            unless ``levels`` names them, because some write request headers when they debug.
        format: One line of text, or one JSON object a line.
        levels: Logger to level. ``hop_archive.librdkafka`` has the Kafka client's own lines.
    """

    level: Level = "info"
    format: Literal["plain", "json"] = "plain"
    levels: dict[str, Level] = Field(default_factory=dict)


class ConsoleLogStanza(_Log):
    """Lines go to the error output, which leaves the output to data."""

    type: Literal["console"] = "console"

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return "the console"


class FileLogStanza(_Log):
    """Lines are added to a file, which another program may move away at any time.

    Attributes:
        path: The file; its directory has to exist.
    """

    type: Literal["file"] = "file"
    path: Filled

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        return f"the file {self.path}"


SourceStanza = Annotated[KafkaSourceStanza | MockSourceStanza, Field(discriminator="type")]
DatabaseStanza = Annotated[PostgresStanza | MockDatabaseStanza, Field(discriminator="type")]
StoreStanza = Annotated[S3Stanza | MockStoreStanza, Field(discriminator="type")]
LogStanza = Annotated[ConsoleLogStanza | FileLogStanza, Field(discriminator="type")]

_TYPES: Mapping[str, Mapping[str, type[Stanza]]] = {
    "source": {"kafka": KafkaSourceStanza, "mock": MockSourceStanza},
    "database": {"postgres": PostgresStanza, "mock": MockDatabaseStanza},
    "store": {"s3": S3Stanza, "mock": MockStoreStanza},
    "log": {"console": ConsoleLogStanza, "file": FileLogStanza},
}

AnyStanza = TypeVar("AnyStanza", bound=Stanza)


class Configuration(BaseModel):
    """All stanzas, by kind and name. Which of them are used is a ``Selection``'s matter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    sources: dict[str, SourceStanza] = Field(default_factory=dict)
    databases: dict[str, DatabaseStanza] = Field(default_factory=dict)
    stores: dict[str, StoreStanza] = Field(default_factory=dict)
    logs: dict[str, LogStanza] = Field(default_factory=dict)

    def source(self, name: str) -> SourceStanza:
        """Return the source stanza of that name.

        Raises:
            MissingSettingError: There is none.
        """
        return _named("source", self.sources, name)

    def database(self, name: str) -> DatabaseStanza:
        """Return the database stanza of that name.

        Raises:
            MissingSettingError: There is none.
        """
        return _named("database", self.databases, name)

    def store(self, name: str) -> StoreStanza:
        """Return the store stanza of that name.

        Raises:
            MissingSettingError: There is none.
        """
        return _named("store", self.stores, name)

    def log(self, name: str) -> LogStanza:
        """Return the log stanza of that name.

        Raises:
            MissingSettingError: There is none.
        """
        return _named("log", self.logs, name)

    def overlaid(self, other: Configuration) -> Configuration:
        """Return both, where a stanza of ``other`` replaces one of the same kind and name whole."""
        return Configuration(
            sources=self.sources | other.sources,
            databases=self.databases | other.databases,
            stores=self.stores | other.stores,
            logs=self.logs | other.logs,
        )


def _named(kind: Kind, stanzas: Mapping[str, AnyStanza], name: str) -> AnyStanza:
    if name in stanzas:
        return stanzas[name]
    nearest = difflib.get_close_matches(name, stanzas, n=3)
    hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
    raise MissingSettingError(
        f"There is no {kind} stanza named {_shown(name)}.{hint} Known: {', '.join(sorted(stanzas))}.",
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
    shipped = parse(_shipped_text(), f"{SHIPPED_FILE} (shipped)")
    user = _user_file(path, environ)
    return shipped.overlaid(parse(_read(user), str(user))) if user else shipped


def _shipped_text() -> str:
    return resources.files("hop_archive").joinpath(SHIPPED_FILE).read_text(encoding="utf-8")


def _user_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return _existing(path, "that was given")
    if named := environ.get("HOP_ARCHIVE_TOML"):
        return _existing(Path(named), "that HOP_ARCHIVE_TOML names")
    return Path(USER_FILE) if Path(USER_FILE).exists() else None


def _existing(path: Path, whence: str) -> Path:
    if path.exists():
        return path
    raise MissingSettingError(f"The configuration file {whence} is not there: {path}.", path=str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}."
        raise ConfigurationError(message, path=str(path)) from error
    except UnicodeDecodeError as error:
        message = f"{path}: wanted UTF-8, found another encoding at byte {error.start}."
        raise ConfigurationError(message, path=str(path)) from None


def parse(text: str, origin: str = USER_FILE) -> Configuration:
    """Check the text of one file. Pure.

    Args:
        text: TOML.
        origin: The file's name, for messages.

    Raises:
        ConfigurationError: The text is not TOML (with line and column), or says something wrong (all of it).
    """
    reader = _Reader(origin)
    tables = _toml(text, origin)
    stanzas = {kind: reader.stanzas(kind, tables.pop(kind, {})) for kind in _TYPES}
    reader.unknown_tables(tables)
    if reader.problems:
        raise ConfigurationError("\n".join(reader.problems), file=origin, problems=reader.problems)
    return Configuration.model_validate({f"{kind}s": found for kind, found in stanzas.items()})


def _toml(text: str, origin: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, column {len(text.rpartition(chr(10))[2]) + 1}"
        message = str(error).replace("at end of document", end)
        raise ConfigurationError(f"{origin}: not TOML: {message}.", file=origin) from None


@dataclass(slots=True)
class _Reader:
    """Makes stanzas of one file's tables, and gathers what is wrong with them."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def stanzas(self, kind: str, tables: object) -> dict[str, Stanza]:
        if not isinstance(tables, dict):
            self._report(f"{kind}: wanted tables [{kind}.NAME], found {_shown(tables)}")
            return {}
        made = {name: self._stanza(kind, name, table) for name, table in tables.items()}
        return {name: stanza for name, stanza in made.items() if stanza is not None}

    def _stanza(self, kind: str, name: str, table: object) -> Stanza | None:
        if not isinstance(table, dict):
            self._report(f"[{kind}] {name}: wanted a table [{kind}.NAME], found {_shown(table)}")
            return None
        model = self._model(kind, name, table)
        if model is None:
            return None
        made = _made(model, table, _Context(name, f"{self.origin}: [{kind}.{name}]"))
        if isinstance(made, list):
            self.problems += made
            return None
        return made

    def _model(self, kind: str, name: str, table: Mapping[str, object]) -> type[Stanza] | None:
        wanted = table.get("type")
        if isinstance(wanted, str) and wanted in _TYPES[kind]:
            return _TYPES[kind][wanted]
        found = _shown(wanted) if "type" in table else "nothing"
        self._report(f"[{kind}.{name}] type: wanted {_alternatives(_TYPES[kind])}, found {found}")
        return None

    def unknown_tables(self, tables: Iterable[str]) -> None:
        for name in tables:
            self._report(f"[{name}]: unknown table{_suggestion(name, list(_TYPES))}")

    def _report(self, problem: str) -> None:
        self.problems.append(f"{self.origin}: {problem}")


def _made(model: type[AnyStanza], table: dict[str, object], context: _Context) -> AnyStanza | list[str]:
    """Return the stanza, or what is wrong with its table, one text a problem."""
    try:
        return model.model_validate(table, context=context)
    except ValidationError as error:
        reporter = _Reporter(model, context)
        return [reporter.problem(details) for details in error.errors(include_url=False)]


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "finite_number": "a finite number",
}

# What people call secrets. Their own error, because the remedy is not another spelling.
_SECRET_KEY = re.compile(r"passw|passphrase|secret|token|credential|(access|api|private)_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Says what pydantic found in the words of the file's writer."""

    model: type[Stanza]
    context: _Context

    NEVER_SHOWN: ClassVar[frozenset[str]] = frozenset({"url"})

    def problem(self, details: ErrorDetails) -> str:
        if not details["loc"]:
            return f"{self.context.label}: {self._wanted(details)}"
        return f"{self.context.label} {_key(details['loc'])}: {self._about_key(details)}"

    def _about_key(self, details: ErrorDetails) -> str:
        key = str(details["loc"][0])
        if details["type"] == "extra_forbidden":
            return self._unknown(key)
        if details["type"] == "missing":
            return "wanted, and not there"
        wanted = self._wanted(details)
        found = self._found(key, details["input"]) if wanted.startswith("wanted") else ""
        return f"{wanted}{found}{_quoting_hint(details)}"

    def _unknown(self, key: str) -> str:
        if _SECRET_KEY.search(key) and not key.endswith("_env"):
            return f"secrets are not kept in TOML; {self._secret_remedy(key)}"
        return f"unknown key{_suggestion(key, self._known())}"

    def _secret_remedy(self, key: str) -> str:
        names = [known for known in self._known() if known.endswith("_env") and known != "username_env"]
        if not names:
            return "this type of stanza uses none, so remove the key"
        nearest = difflib.get_close_matches(f"{key}_env", names, n=1) or names
        return f"name the environment variable that holds it with {' or '.join(nearest)}"

    def _known(self) -> list[str]:
        return [info.alias or name for name, info in self.model.model_fields.items()]

    def _wanted(self, details: ErrorDetails) -> str:
        """Name what was wanted; ``ctx`` holds bounds, alternatives, and the errors that our own checks raise."""
        facts = details.get("ctx", {})
        match details["type"]:
            case "value_error":
                return str(facts["error"])
            case "literal_error":
                return f"wanted {facts['expected']}"
            case "greater_than_equal":
                return f"wanted at least {facts['ge']:g}"
            case "less_than_equal":
                return f"wanted at most {facts['le']:g}"
        return f"wanted {_WANTED[details['type']]}" if details["type"] in _WANTED else details["msg"]

    def _found(self, key: str, value: object) -> str:
        if key in self.context.hidden:
            return ", found something else in the environment (not shown)"
        if key in self.NEVER_SHOWN or key.endswith("_env"):
            return ", found something else (not shown: it may be a secret)"
        return f", found {_shown(value)}"


def _key(location: tuple[int | str, ...]) -> str:
    first, *rest = (part for part in location if part != "[key]")
    return str(first) + "".join(f"[{part if isinstance(part, int) else _shown(part)}]" for part in rest)


def _quoting_hint(details: ErrorDetails) -> str:
    """Explain the table that an unquoted ``a.b = ...`` makes where a value was wanted."""
    inside = len(details["loc"]) > 1 and isinstance(details["input"], dict)
    return " (a key that holds a dot has to be quoted)" if inside else ""


def _shown(value: object) -> str:
    """Write a value as its file does, short."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _suggestion(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; nearest known: {nearest[0]}" if nearest else f"; known: {', '.join(known)}"


def _alternatives(names: Iterable[str]) -> str:
    return " or ".join(_shown(name) for name in names)


@dataclass(frozen=True, slots=True)
class Selection:
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
) -> Selection:
    """Choose stanzas: an option beats ``HOP_ARCHIVE_SOURCE`` (``_DATABASE``, ``_STORE``, ``_LOG``), which beats mocks.

    A variable that is empty counts as not set.

    Raises:
        MissingSettingError: A stanza that was named is not there.
    """
    sources = _chosen("source", configuration.source, source, environ)
    databases = _chosen("database", configuration.database, database, environ)
    stores = _chosen("store", configuration.store, store, environ)
    logs = _chosen("log", configuration.log, log, environ)
    return Selection(
        source=sources[0],
        database=databases[0],
        store=stores[0],
        log=logs[0],
        source_from=sources[1],
        database_from=databases[1],
        store_from=stores[1],
        log_from=logs[1],
    )


def _chosen(
    kind: Kind, stanza: Callable[[str], Stanza], option: str | None, environ: Mapping[str, str]
) -> tuple[str, Origin]:
    name, origin = _name_and_origin(kind, option, environ)
    stanza(name)
    return name, origin


def _name_and_origin(kind: Kind, option: str | None, environ: Mapping[str, str]) -> tuple[str, Origin]:
    if option is not None:
        return option, "option"
    if named := environ.get(f"HOP_ARCHIVE_{kind.upper()}"):
        return named, "environment"
    return _DEFAULTS[kind], "default"
