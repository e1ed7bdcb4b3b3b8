"""The stanzas: what each kind of table says. Text gets its value when the stanza is used (``resolved``).

So production's variables need not exist on a laptop. Only text may hold a variable: a number or a choice is
written out, which keeps the types of the attributes true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from hop_archive.config import environment
from hop_archive.config.aws import databases, secrets
from hop_archive.config.aws.databases import Instance
from hop_archive.config.aws.secrets import Secret
from hop_archive.config.fields import (
    URL,
    AlertUrl,
    Bucket,
    Compressions,
    Endpoint,
    EnvName,
    Filled,
    Layouts,
    Level,
    OptionalBucket,
    Patterns,
    PingUrl,
    Prefix,
    Security,
    Servers,
    SslMode,
    Text,
    TokenEndpoint,
    Url,
    WebAddress,
    leaves_this_machine,
)
from hop_archive.config.validation import Context, made
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.credentials import AccessKeys, Login
from hop_archive.model.topics import Compression, Layout, LayoutPolicy, TopicPolicy

_YEAR_MINUTES = 525_600


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
        given = self.model_fields_set  # a set: the order of messages comes from the fields instead
        fields = type(self).model_fields.items()
        values = {info.alias or name: getattr(self, name) for name, info in fields if name in given}
        missing = [
            (f"{self.label} {key}", variable)
            for key, value in values.items()
            for text in _texts(value)
            for variable in environment.unset_variables(text, environ)
        ]
        if missing:
            raise environment.missing_variables(missing, environ)
        hidden = frozenset(
            key for key, value in values.items() if any(map(environment.has_variable, _texts(value)))
        )
        table = {key: _expanded(value, environ) for key, value in values.items()}
        checked = made(type(self), table, Context(self._name, self._label, hidden, resolved=True))
        if isinstance(checked, list):
            raise ConfigurationError("\n".join(checked), problems=checked)
        return checked

    def secret_variables(self) -> tuple[str, ...]:
        """Return the variables that keys ending in ``_env`` name, without which the stanza is of no use."""
        keys = (key for key in type(self).model_fields if key.endswith("_env"))
        return tuple(name for key in keys if (name := getattr(self, key)))

    def _from_environment(self, key: str, environ: Mapping[str, str]) -> SecretStr:
        variable = getattr(self, key)
        return environment.secret_from_environment(variable, environ, where=f"{self.label} {key}")

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


def _expanded(value: object, environ: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return environment.expand(value, environ)
    if isinstance(value, SecretStr):
        return SecretStr(environment.expand(value.get_secret_value(), environ))
    if isinstance(value, tuple):
        return tuple(_expanded(item, environ) for item in value)
    if isinstance(value, dict):
        return {key: _expanded(item, environ) for key, item in value.items()}
    return value


class _Mock(Stanza):
    """What is not there.

    Attributes:
        directory: Where it keeps what it is given; empty: in memory, gone with the process.
    """

    directory: Text = ""

    def describe(self) -> str:
        return f"a mock in the directory {self.directory}" if self.directory else "a mock in memory"


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


class _OfAws(Stanza):
    """What a stanza says whose secret is kept by AWS Secrets Manager.

    Attributes:
        secret_name: Name or ARN of the secret. Beside it, variables that ``..._env`` keys name beat it when they are set.
        region: AWS region of the secret, and of the RDS instance.
        profile: AWS profile to ask with; empty: what ``AWS_PROFILE`` names, or the default chain.
    """

    secret_name: Text = ""
    region: Text = ""
    profile: Text = ""

    def _check_region(self, wanting: Mapping[str, str]) -> None:
        """Refuse a region that is missing, or of no use; ``wanting`` has what needs one, by key."""
        needing = [key for key, value in wanting.items() if value]
        if needing and not self.region:
            raise ValueError(f"{needing[0]} wants a region beside it")
        if not needing and (self.region or self.profile):
            raise ValueError(f"region and profile are of use only beside {' or '.join(wanting)}")

    def _secret(self, name: str, key: str = "secret_name") -> Secret:
        variables = super().secret_variables()
        instead = f"Or set {' and '.join(variables)} in the environment." if variables else ""
        where = f"{self.label} {key}"
        return secrets.secret(name, where=where, region=self.region, profile=self.profile, instead=instead)


class KafkaSourceStanza(_Source, _OfAws):
    """A Kafka cluster.

    With ``sasl-...`` it needs a login: a secret, or two variables, or both, where the variables win if either is set. But
    ``sasl-msk-iam`` takes AWS credentials, and ``hop_auth`` says all of ``security`` and the login by itself.

    Attributes:
        bootstrap_servers: ``host:port``, comma-separated.
        security: The protocol, and the mechanism of the login. Each ``sasl-...`` is over TLS, unless ``tls`` says otherwise.
        username: Which user of the secret or of ``hop_auth``; empty: its own, or its only one.
        username_env: Variable that holds the user's name, or the client's id with ``sasl-oauthbearer``.
        password_env: Variable that holds the password, or the client's secret.
        hop_auth: hop-client's file of credentials, ``auth.toml``.
        tls: False: ``sasl-...`` without TLS. What is not on this machine wants ``cleartext_allowed``, too.
        cleartext_allowed: Whether logins and secrets may travel unencrypted to other machines.
        ssl_ca: File or directory of the authorities whose certificates are believed, in PEM; empty: this system's.
        ssl_certificate: File of the client's own certificate, in PEM, with those between it and its authority.
        ssl_key: File of that one's key, in PEM.
        ssl_key_password_env: Variable that holds the password of ``ssl_key``; empty: it has none.
        token_endpoint: Where ``sasl-oauthbearer`` gets its tokens (OIDC, client credentials).
        token_scope: What it asks for there.
        token_ca: As ``ssl_ca``, for ``token_endpoint``.
        group_id: Consumer group whose offsets are committed for outside monitoring, and never read back.
        fetch_mebibytes: Bound on messages prefetched by one reader, 1 to 2048; librdkafka refuses some 3,815 and more.
    """

    type: Literal["kafka"] = "kafka"
    bootstrap_servers: Servers
    security: Security = "tls"
    username: Text = ""
    username_env: EnvName = ""
    password_env: EnvName = ""
    hop_auth: Text = ""
    tls: bool = True
    cleartext_allowed: bool = False
    ssl_ca: Text = ""
    ssl_certificate: Text = ""
    ssl_key: Text = ""
    ssl_key_password_env: EnvName = ""
    token_endpoint: TokenEndpoint = ""
    token_scope: Text = ""
    token_ca: Text = ""
    group_id: Filled = "hop_archive"
    fetch_mebibytes: int = Field(default=32, ge=1, le=2048)

    @model_validator(mode="after")
    def _credentials_fit_security(self) -> Self:
        if bool(self.username_env) != bool(self.password_env):
            raise ValueError("wanted username_env and password_env, or neither")
        said = [
            key for key in ("security", "secret_name", "username_env", "tls") if key in self.model_fields_set
        ]
        if self.hop_auth and said:
            raise ValueError(
                f"hop_auth says how to log in, and as whom; wanted no {' and no '.join(said)} beside it"
            )
        is_msk = self.security == "sasl-msk-iam"
        if self.has_login and not (self.username_env or self.secret_name):
            raise ValueError(
                f'security "{self.security}" wants secret_name, or username_env and password_env'
            )
        if not self.has_login and (self.username_env or self.secret_name):
            raise ValueError(
                f'security "{self.security}" sends no username or password; wanted a "sasl-..." one'
                + (" that does" if is_msk else "")
            )
        if self.username and not (self.secret_name or self.hop_auth):
            raise ValueError(
                "username chooses among a secret's users; wanted secret_name or hop_auth beside it"
            )
        self._check_region({"secret_name": self.secret_name, "sasl-msk-iam": self.security if is_msk else ""})
        return self

    @model_validator(mode="after")
    def _is_secured(self) -> Self:
        if bool(self.ssl_certificate) != bool(self.ssl_key) or (
            self.ssl_key_password_env and not self.ssl_key
        ):
            raise ValueError("wanted ssl_certificate and ssl_key, or neither (they may be one file)")
        if not self.tls and not self.security.startswith("sasl-"):
            raise ValueError('tls = false is for "sasl-..."; wanted security = "plaintext"')
        tls = self.tls and self.security != "plaintext"
        if not tls and (self.ssl_ca or self.ssl_certificate):
            raise ValueError("ssl_ca and ssl_certificate are of use only with TLS")
        is_oauth = self.security == "sasl-oauthbearer"
        if is_oauth != bool(self.token_endpoint):
            raise ValueError('wanted security = "sasl-oauthbearer" and a token_endpoint, or neither')
        if (self.token_scope or self.token_ca) and not (is_oauth or self.hop_auth):
            raise ValueError("token_scope and token_ca are of use only beside token_endpoint")
        if wrong := self.clear_text(
            tls=tls or not self.security.startswith("sasl-"), token_endpoint=self.token_endpoint
        ):
            raise ValueError(f"{wrong}; wanted TLS, or cleartext_allowed = true")
        return self

    def clear_text(self, *, tls: bool, token_endpoint: str) -> str:
        """Say which secret would leave this machine unencrypted though the stanza does not allow that; empty: none."""
        if self.cleartext_allowed:
            return ""
        servers = self.bootstrap_servers
        if not tls and not environment.has_variable(servers) and leaves_this_machine(servers):
            return f"the login would travel unencrypted to {servers}"
        endpoint = urlsplit("" if environment.has_variable(token_endpoint) else token_endpoint)
        if endpoint.scheme == "http" and leaves_this_machine(f"{endpoint.hostname}:80"):
            return f"the client's secret would travel unencrypted to {token_endpoint}"
        return ""

    @property
    def has_login(self) -> bool:
        """Whether the stanza itself says a name and a password."""
        return self.security.startswith("sasl-") and self.security != "sasl-msk-iam"

    def login(self, environ: Mapping[str, str] = os.environ) -> Login | None:
        """Return the user and password, or the client's id and secret; None where the stanza itself names none.

        Raises:
            MissingSettingError: A variable is not set or empty, or there is no such secret.
            ForbiddenError, ConfigurationError, UnavailableError: See ``aws.secrets.secret``.
        """
        if not self.has_login:
            return None
        if not self._resolved:
            return self.resolved(environ).login(environ)
        if self.secret_name and not any(environ.get(name) for name in (self.username_env, self.password_env)):
            return secrets.kafka_login(self._secret(self.secret_name), self.username)
        user = self._from_environment("username_env", environ)
        return Login(user.get_secret_value(), self._from_environment("password_env", environ))

    def key_password(self, environ: Mapping[str, str] = os.environ) -> SecretStr | None:
        """Return the password of ``ssl_key``; None: it has none."""
        return self._from_environment("ssl_key_password_env", environ) if self.ssl_key_password_env else None

    def secret_variables(self) -> tuple[str, ...]:
        named = {self.username_env, self.password_env} if self.secret_name else set()
        return tuple(name for name in super().secret_variables() if name not in named)

    def describe(self) -> str:
        return f"Kafka at {self.bootstrap_servers}"


class MockSourceStanza(_Mock, _Source):
    """A cluster that is not there.

    Attributes:
        samples: How many sample alerts it holds at the start.
        rate: Alerts a second that go on arriving.
    """

    type: Literal["mock"] = "mock"
    samples: int = Field(default=100, ge=0, le=10_000_000)
    rate: float = Field(default=0.0, ge=0, le=1_000_000)


class _Permissions(Stanza):
    """What may be taken away; nothing, unless the stanza says so.

    Attributes:
        cleaning_allowed: Whether messages of test topics may be removed.
        deleting_allowed: Whether any other may.
    """

    cleaning_allowed: bool = False
    deleting_allowed: bool = False


class _Database(_Permissions):
    """What every database says.

    Attributes:
        index_text: Topics whose messages are to be found by text, as archive-core's readers search; names and globs.
    """

    index_text: Patterns = ()


class PostgresStanza(_Database, _OfAws):
    """A Postgres database: a ``url``, or its parts, or the id of an RDS instance, which AWS tells the parts of.

    The password is, in this order, that of ``password_env`` if that variable is set, of ``secret_name``, or the one
    that RDS keeps for an instance's master user.

    Attributes:
        url: ``postgresql://user@host:port/name``. Its password, if any, comes from a variable.
        host: Name, address, or directory of a Unix socket; with ``port``, ``name`` and ``user`` in the place of ``url``.
        port: TCP port, used with ``host``.
        name: The database.
        user: Its role.
        password_env: Variable that holds the password; beats one in the url. Empty: ``~/.pgpass`` or none.
        instance_id: RDS instance, with ``region``; what ``host``, ``port``, ``name`` and ``user`` say beats what it says.
        sslmode: libpq's; empty: ``require`` for an RDS instance, else libpq's own default. Not beside ``url``.
        sslrootcert: File of certificates that ``verify-ca`` and ``verify-full`` trust. Not beside ``url``.
        schema_name: TOML's ``schema``: where the tables are. (pydantic has taken the plain word.)
        pool_size: Bound on connections of one process.
        kube_context: Where on Kubernetes what archives into it runs: context of the kubeconfig file, for ``kube-logs``;
            empty, like the next two: its default.
        kube_namespace: Namespace of that deployment.
        kube_selector: Labels of its pods.
    """

    type: Literal["postgres"] = "postgres"
    url: Url = SecretStr("")
    host: Text = ""
    port: int = Field(default=5432, ge=1, le=65535)
    name: Text = ""
    user: Text = ""
    password_env: EnvName = ""
    instance_id: Text = ""
    sslmode: SslMode = ""
    sslrootcert: Text = ""
    schema_name: Filled = Field(default="public", alias="schema")
    pool_size: int = Field(default=4, ge=1, le=1_000)
    kube_context: Text = ""
    kube_namespace: Text = ""
    kube_selector: Text = ""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        others = {"host", "port", "name", "user", "instance_id", "sslmode", "sslrootcert"}
        parts = self.model_fields_set & others
        if self.url.get_secret_value() and parts:
            raise ValueError(f"wanted url or its parts, found url and {', '.join(sorted(parts))}")
        if not (self.url.get_secret_value() or self.instance_id or (self.host and self.name and self.user)):
            raise ValueError("wanted url, or host, name and user, or instance_id")
        self._check_region({"secret_name": self.secret_name, "instance_id": self.instance_id})
        return self

    def dsn(self, environ: Mapping[str, str] = os.environ) -> SecretStr:
        """Return the whole connection URL, password and all, that libpq and SQLAlchemy take.

        Asks AWS for what the stanza leaves to it, which is remembered for a minute.

        Raises:
            MissingSettingError: A variable is not set or empty, or AWS has no such instance or secret.
            ConfigurationError: The url that a variable holds is not a Postgres url, or a secret has another form.
            ForbiddenError, UnavailableError: AWS refused, or does not answer.
        """
        if not self._resolved:
            return self.resolved(environ).dsn(environ)
        if found := URL.fullmatch(self.url.get_secret_value()):
            login = self._login(unquote(found["user"] or ""), None, environ)
            # The url's own name and password are percent-encoded already.
            user, password = found["user"] or quote(login.username, safe=""), _quoted(login.password)
            both = f"{user}{_after(':', password or found['password'])}"
            tail = f"/{found['name'] or ''}{_after('?', found['options'])}"
            return SecretStr(f"postgresql://{both}{'@' if both else ''}{found['hosts']}{tail}")
        return self._dsn_of_parts(environ)

    def _dsn_of_parts(self, environ: Mapping[str, str]) -> SecretStr:
        known: Instance | None = None
        password_known = bool(self.secret_name or environ.get(self.password_env))
        # AWS is asked about the instance unless the stanza and the environment say all.
        if self.instance_id and not (self.host and self.name and self.user and password_known):
            where = f"{self.label} instance_id"
            known = databases.instance(
                self.instance_id, where=where, region=self.region, profile=self.profile
            )
        login = self._login(self.user, known, environ)
        host = self.host or (known.host if known else "")
        host = f"[{host}]" if ":" in host else quote(host, safe="")
        port = known.port if known and "port" not in self.model_fields_set else self.port
        name = self.name or (known.name if known else "")
        if not name:
            raise MissingSettingError(
                f"{self.label}: RDS instance {self.instance_id} names no database.",
                remedy="Say which with name in the stanza.",
                instance_id=self.instance_id,
            )
        user = quote(login.username or (known.user if known else ""), safe="")
        # What runs in RDS has TLS, and the way there is not ours.
        mode = self.sslmode or ("require" if self.instance_id else "")
        ssl = {"sslmode": mode, "sslrootcert": self.sslrootcert}
        options = "&".join(f"{option}={quote(value, safe='')}" for option, value in ssl.items() if value)
        return SecretStr(
            f"postgresql://{user}{_after(':', _quoted(login.password))}@{host}:{port}"
            f"/{quote(name, safe='')}{_after('?', options)}"
        )

    def _login(self, user: str, known: Instance | None, environ: Mapping[str, str]) -> Login:
        has_secret = bool(self.secret_name or (known and known.secret_arn))
        if self.password_env and (environ.get(self.password_env) or not has_secret):
            return Login(user, self._from_environment("password_env", environ))
        if self.secret_name:
            return secrets.database_login(self._secret(self.secret_name), user)
        if known is None:
            return Login(user, SecretStr(""))
        if not known.secret_arn:
            raise MissingSettingError(
                f"{self.label}: there is no password. The stanza names no secret, and RDS keeps none for "
                f"{self.instance_id}.",
                remedy="Name the secret with secret_name, or the variable that holds the password with password_env.",
                instance_id=self.instance_id,
            )
        return secrets.database_login(self._secret(known.secret_arn, "instance_id"), user)

    def secret_variables(self) -> tuple[str, ...]:
        return () if self.secret_name or self.instance_id else super().secret_variables()

    def describe(self) -> str:
        if found := URL.fullmatch(self.url.get_secret_value()):
            login = f"{found['user']}@" if found["user"] else ""
            return f"postgresql://{login}{found['hosts']}/{found['name'] or ''}"
        if self.url.get_secret_value():
            return f"Postgres at the url of {self.label}"
        if self.instance_id:
            return f"RDS instance {self.instance_id} in {self.region}{_after(' by way of ', self.host)}"
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"


def _after(mark: str, text: str | None) -> str:
    return f"{mark}{text}" if text else ""


def _quoted(secret: SecretStr) -> str:
    return quote(secret.get_secret_value(), safe="")


class MockDatabaseStanza(_Mock, _Database):
    """A database that is not there."""

    type: Literal["mock"] = "mock"


class _Store(_Permissions):
    """What every store says.

    Attributes:
        layout: How new objects are laid out.
        layouts: Topic name or glob to layout; the first that means the topic wins, in the file's order.
        compression: How new segments are compressed; a stanza that does not say so means what it meant before there was a choice.
        compressions: Topic name or glob to compression, likewise.
        segment_mebibytes: Size at which a segment is closed and the next begun, before compression. S3 would take 5 GiB by one PUT; but
            a segment is held whole, some times over, where it is made, and has to get through within the 30 s of a request.
        compact_after_days: How long after messages were archived a schedule puts their objects together, where they are small;
            None: never. Readers that take an object for one document, as archive-core's do, cannot read them then.
    """

    layout: Layout = "message"
    layouts: Layouts = Field(default_factory=dict)
    compression: Compression = "none"
    compressions: Compressions = Field(default_factory=dict)
    segment_mebibytes: int = Field(default=32, ge=1, le=512)
    compact_after_days: float | None = Field(default=None, ge=0, le=36_500, allow_inf_nan=False)

    def layout_policy(self) -> LayoutPolicy:
        """Return what the stanza says about layouts."""
        return LayoutPolicy(
            self.layout,
            tuple(self.layouts.items()),
            self.compression,
            tuple(self.compressions.items()),
            self.segment_mebibytes * 1024 * 1024,
            self.compact_after_days,
        )


class S3Stanza(_Store):
    """Buckets behind an S3 API.

    Attributes:
        endpoint: ``http(s)://host:port``; empty: AWS.
        region: AWS region, or what the server wants in its place.
        bucket: Where objects go.
        backup_bucket: Where a second copy of each goes; empty: nowhere.
        backup_grace_minutes: How long a copy may take to get there before verification calls it missing.
        prefix: What stands before each object key, with a ``/`` between; empty: nothing.
        access_key_env: Variable that holds the access key. Empty, like the next: the default AWS chain.
        secret_key_env: Variable that holds the secret key.
        profile: AWS profile that supplies the keys; empty: what ``AWS_PROFILE`` names, or the default chain.
        put_concurrency: Bound on requests in flight.
    """

    type: Literal["s3"] = "s3"
    endpoint: Endpoint = ""
    region: Text = ""
    bucket: Bucket
    backup_bucket: OptionalBucket = ""
    backup_grace_minutes: float = Field(default=15.0, ge=0, le=_YEAR_MINUTES, allow_inf_nan=False)
    prefix: Prefix = ""
    access_key_env: EnvName = ""
    secret_key_env: EnvName = ""
    profile: Text = ""
    put_concurrency: int = Field(default=64, ge=1, le=1_024)

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if bool(self.access_key_env) != bool(self.secret_key_env):
            raise ValueError("wanted access_key_env and secret_key_env, or neither")
        if self.access_key_env and self.profile:
            raise ValueError("wanted a profile, or access_key_env and secret_key_env")
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
        access, secret = (
            self._from_environment(key, environ) for key in ("access_key_env", "secret_key_env")
        )
        return AccessKeys(access.get_secret_value(), secret)

    def describe(self) -> str:
        return f"s3://{self.bucket}{_after('/', self.prefix)} at {self.endpoint or 'AWS'}"


class MockStoreStanza(_Mock, _Store):
    """A store that is not there."""

    type: Literal["mock"] = "mock"


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
        return "the console"


class FileLogStanza(_Log):
    """Lines are added to a file, which another program may move away at any time.

    Attributes:
        path: The file; its directory has to exist.
    """

    type: Literal["file"] = "file"
    path: Filled

    def describe(self) -> str:
        return f"the file {self.path}"


class AlertStanza(_OfAws):
    """Who is told what is wrong, through Apprise. Its URLs hold secrets: they come from the environment or AWS Secrets Manager.

    Attributes:
        urls: URLs as Apprise documents them, with ``${NAME}`` in the place of each token or password.
        urls_env: Variable that holds whole URLs, with blanks or line ends between.
        secret_name: Name or ARN of a secret that does.
        ping_url: Asked for whenever all is well, as healthchecks.io and others want it.
        ui: Address of Dagster's web page, for links.
        most_messages: Most messages of one topic that may wait.
        most_lag_minutes: Longest that one may wait.
        patience_minutes: For how long a server may not answer, or something be in a topic's way, before that is told.
        settle_minutes: For how long a problem has to be gone before it counts as over.
        remind_hours: After how long what is still wrong is told again; 0: never.
    """

    type: Literal["apprise"] = "apprise"
    urls: Annotated[tuple[AlertUrl, ...], Field(strict=False)] = ()
    urls_env: EnvName = ""
    ping_url: PingUrl = SecretStr("")
    ui: WebAddress = ""
    most_messages: int = Field(default=100_000, ge=0)
    most_lag_minutes: float = Field(default=15.0, gt=0, le=_YEAR_MINUTES)
    patience_minutes: float = Field(default=5.0, ge=0, le=_YEAR_MINUTES)
    settle_minutes: float = Field(default=15.0, ge=0, le=_YEAR_MINUTES)
    remind_hours: float = Field(default=0.0, ge=0, le=_YEAR_MINUTES / 60)

    @model_validator(mode="after")
    def _tells_somebody(self) -> Self:
        if not (self.urls or self.urls_env or self.secret_name):
            raise ValueError("wanted urls, urls_env or secret_name: whom to tell")
        self._check_region({"secret_name": self.secret_name})
        return self

    def all_urls(self, environ: Mapping[str, str] = os.environ) -> tuple[SecretStr, ...]:
        """Return the URLs, of the stanza itself first; ``urls_env``, where it is set, beats the secret.

        Raises:
            MissingSettingError: A variable is not set or empty, or there is no such secret.
            ForbiddenError, ConfigurationError, UnavailableError: See ``aws.secrets.secret``.
        """
        if not self._resolved:
            return self.resolved(environ).all_urls(environ)
        more = ""
        if self.urls_env and (environ.get(self.urls_env) or not self.secret_name):
            more = self._from_environment("urls_env", environ).get_secret_value()
        elif self.secret_name:
            more = self._secret(self.secret_name).text.get_secret_value()
        found = (*self.urls, *map(SecretStr, more.split()))
        return tuple(url for url in found if url.get_secret_value())

    def secret_variables(self) -> tuple[str, ...]:
        return () if self.secret_name else super().secret_variables()

    def describe(self) -> str:
        schemes = [url.get_secret_value().partition("://")[0] for url in self.urls]
        elsewhere = [f"${self.urls_env}"] if self.urls_env else []
        elsewhere += [f'the secret "{self.secret_name}"'] if self.secret_name else []
        return ", ".join(
            [*(scheme for scheme in schemes if not environment.has_variable(scheme)), *elsewhere]
        )


SourceStanza = Annotated[KafkaSourceStanza | MockSourceStanza, Field(discriminator="type")]
DatabaseStanza = Annotated[PostgresStanza | MockDatabaseStanza, Field(discriminator="type")]
StoreStanza = Annotated[S3Stanza | MockStoreStanza, Field(discriminator="type")]
LogStanza = Annotated[ConsoleLogStanza | FileLogStanza, Field(discriminator="type")]

TYPES: Mapping[str, Mapping[str, type[Stanza]]] = {
    "source": {"kafka": KafkaSourceStanza, "mock": MockSourceStanza},
    "database": {"postgres": PostgresStanza, "mock": MockDatabaseStanza},
    "store": {"s3": S3Stanza, "mock": MockStoreStanza},
    "log": {"console": ConsoleLogStanza, "file": FileLogStanza},
    "alert": {"apprise": AlertStanza},
}

AnyStanza = TypeVar("AnyStanza", bound=Stanza)
