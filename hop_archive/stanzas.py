"""The stanzas: what each kind of table says. Text gets its value when the stanza is used (``resolved``).

So production's variables need not exist on a laptop. Only text may hold a variable: a number or a choice is
written out, which keeps the types of the attributes true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from hop_archive import credentials
from hop_archive.complaints import Context, made
from hop_archive.credentials import AccessKeys, Login
from hop_archive.errors import ConfigurationError
from hop_archive.stanza_fields import (
    URL,
    Bucket,
    Count,
    Endpoint,
    EnvName,
    Filled,
    Layouts,
    Level,
    OptionalBucket,
    Patterns,
    Prefix,
    Security,
    Servers,
    Text,
    Url,
)
from hop_archive.topics import Layout, LayoutPolicy, TopicPolicy


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
        known = context if isinstance(context, Context) else Context()
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
        return self._checked_again(table, Context(self._name, self._label, hidden, resolved=True))

    def _checked_again(self, table: dict[str, object], context: Context) -> Self:
        checked = made(type(self), table, context)
        if isinstance(checked, list):
            raise ConfigurationError("\n".join(checked), problems=checked)
        return checked

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
        if found := URL.fullmatch(here.url.get_secret_value()):
            return SecretStr(_url_with_password(found, password))
        login = f"{quote(here.user, safe='')}{_after(':', password)}"
        host = f"[{here.host}]" if ":" in here.host else quote(here.host, safe="")
        return SecretStr(f"postgresql://{login}@{host}:{here.port}/{quote(here.name, safe='')}")

    def describe(self) -> str:
        """Return the address for messages and events; free of secrets."""
        if not self.url.get_secret_value():
            return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"
        if found := URL.fullmatch(self.url.get_secret_value()):
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

TYPES: Mapping[str, Mapping[str, type[Stanza]]] = {
    "source": {"kafka": KafkaSourceStanza, "mock": MockSourceStanza},
    "database": {"postgres": PostgresStanza, "mock": MockDatabaseStanza},
    "store": {"s3": S3Stanza, "mock": MockStoreStanza},
    "log": {"console": ConsoleLogStanza, "file": FileLogStanza},
}

AnyStanza = TypeVar("AnyStanza", bound=Stanza)
