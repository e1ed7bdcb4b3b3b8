"""What every client of one Kafka cluster shares: its configuration, what it reports, and errors in our words."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
    UnsupportedError,
)
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import TopicPartition
from hop_archive.model.wording import said
from hop_archive.source.kafka.handshake import Distrust, distrust

Client = TypeVar("Client")
Parameters = ParamSpec("Parameters")
Owner = TypeVar("Owner")
Result = TypeVar("Result")

LOGGER = logging.getLogger("hop_archive.librdkafka")
"""Where librdkafka's own log goes, so that none of it reaches the terminal unasked."""

LOGGER.addHandler(logging.NullHandler())  # or else Python prints warnings where no logging is set up

_GAPLESS = ("enable.gapless.guarantee is experimental", "Gap-less ordering would not be guaranteed")
# That it is asked for was decided (`publisher`), and what comes of it is told by an error of ours.
LOGGER.addFilter(lambda record: not any(part in record.getMessage() for part in _GAPLESS))

log = logging.getLogger(__name__)

CLOSES_S = 10.0
"""How long it is waited for a client that is closed, in seconds: it takes some hundredths."""

MESSAGE_BYTES_MAX = 100 * 1024 * 1024
"""The largest message that can be read or published."""

UNKNOWN_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.TOPIC_EXCEPTION,  # a name that no topic can have
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 (librdkafka's local codes begin with an underscore)
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
AUTHENTICATION = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})  # noqa: SLF001
"""A login that is refused: that is about no topic."""

NO_ANSWER = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
    }
)
"""No broker answered, which says nothing of what was asked."""

_CONNECTING = frozenset({KafkaError._RESOLVE, KafkaError._TRANSPORT, KafkaError._SSL})  # noqa: SLF001
# A connection that breaks during the handshake can look like a refused login, so one refusal is not believed.
_REFUSALS = 2
_LOOK_AGAIN_S = 10.0
_BROKER = re.compile(r"\w+://(?P<server>[^/\s]+:\d+)/")  # how librdkafka begins what it tells of a broker
_OAUTH_REMEDY = (
    "Check the client's id and secret, token_endpoint, token_ca (who signed its certificate, where this system does not know "
    "them), token_scope, and which issuer and audience the broker wants; with "
    '"sasl-msk-iam" the region, and that IAM allows kafka-cluster:Connect.'
)


@dataclass(slots=True)
class Deadline:
    """A moment by which a call has to be done."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds until then; never below a tenth, for librdkafka refuses a timeout of 0."""
        return max(0.1, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.at


@dataclass(slots=True)
class ClientErrors:
    """What a client's ``error_cb`` reported since it last reached the cluster.

    Attributes:
        counts: How often each code was reported.
        last: The last error of each code.
        latest: The last error; None where there was none.
        connecting: The last one that tells why a broker cannot be reached: its name, its port, or its certificate.
        login: Which login the client has; see ``Connection.renewals``.
        tokenless: Why the client got no new token, the last time that it asked for one.
    """

    counts: dict[int, int] = field(default_factory=dict)
    last: dict[int, KafkaError] = field(default_factory=dict)
    latest: KafkaError | None = None
    connecting: KafkaError | None = None
    login: int = 0
    tokenless: HopArchiveError | None = None

    def note(self, error: KafkaError) -> None:
        """Take down an error; librdkafka calls this from within poll, consume and flush."""
        LOGGER.debug("%s: %s", error.name(), error.str())
        self.counts[error.code()] = self.counts.get(error.code(), 0) + 1
        self.last[error.code()] = self.latest = error
        if error.code() in _CONNECTING:
            self.connecting = error

    def forget(self, *, refusals: bool = True) -> None:
        """The cluster answered; with ``refusals`` false, another client than the one whose errors these are."""
        for code in [code for code in self.counts if refusals or code not in AUTHENTICATION]:
            self.counts.pop(code, None)  # another thread may forget them at the same time
        self.latest = self.connecting = None

    @property
    def refused(self) -> bool:
        """Whether the login was refused, beyond doubt: waiting longer won't help."""
        return sum(self.counts.get(code, 0) for code in AUTHENTICATION) >= _REFUSALS


class NewLoginError(UnavailableError):
    """The login was refused, and there is another one by now: the next call takes it."""


@dataclass(slots=True)
class Connection:
    """A cluster: how to reach it, and how to talk of it in messages.

    Attributes:
        stanza: The source stanza's name.
        bootstrap_servers: As Kafka clients take it.
        access: Settings, secrets and tokens; our own settings win over them.
        timeout_s: How long to wait for an answer.
        renew: Asks for the access anew: a password or a certificate may have been changed; None where nobody can tell.
        renewals: How often it was another one. A client that has an older login is not to be used any more.
    """

    stanza: str
    bootstrap_servers: str
    access: KafkaAccess
    timeout_s: float
    renew: Callable[[], KafkaAccess] | None = None
    renewals: int = 0
    _looked: Deadline = field(default_factory=lambda: Deadline(0.0))
    _distrust: Distrust | None = None

    def __str__(self) -> str:
        return f"Source {self.stanza}, Kafka at {self.bootstrap_servers}"

    def client(
        self,
        make: Callable[..., Client],
        what: str,
        errors: ClientErrors,
        settings: Mapping[str, str | int | bool],
    ) -> Client:
        """A client of librdkafka: the stanza's settings and secrets with those given on top.

        Raises:
            ConfigurationError: librdkafka does not take the settings.
            HopArchiveError: There is no token to be had.
        """
        errors.login = self.renewals
        configuration: dict[str, Any] = {
            "socket.connection.setup.timeout.ms": max(1000, int(self.timeout_s * 1000)),
            "reconnect.backoff.max.ms": 1000,
            "client.id": "hop_archive",
            **self.access.settings,
            **{name: secret.get_secret_value() for name, secret in self.access.secrets.items()},
            "bootstrap.servers": self.bootstrap_servers,
            "error_cb": errors.note,
            **settings,
        }
        if tokens := self.access.token:
            first = [tokens()]  # here, where what it raises is heard

            def next_token(_config: str) -> tuple[str, float]:
                """Called by a thread of librdkafka's when four fifths of a token's time are over."""
                try:
                    token = first.pop() if first else tokens()
                except HopArchiveError as error:
                    errors.tokenless = error
                    LOGGER.error("Source %s: no new token. %s", self.stanza, error)
                    raise
                errors.tokenless = None
                return token.text.get_secret_value(), token.ends_at_s

            configuration["oauth_cb"] = next_token
        try:
            return make(configuration, logger=LOGGER)
        except KafkaException as error:
            raise self.failure(f"configuring a {what}", kafka_error(error), errors) from error

    def failure(self, doing: str, error: KafkaError | None, errors: ClientErrors) -> HopArchiveError:
        """The error to raise when ``doing`` something failed with ``error``; sorted by code.

        What the client noted before decides too: a refused login shows as nothing but a timeout otherwise.
        """
        cause = error
        if error is None or error.code() not in _KINDS:
            noted = list(errors.last.items())  # another thread may note more at the same time
            reported = (met for code, met in noted if code in _KINDS and code in errors.counts)
            cause = next(reported, None) or error or errors.latest
        code = cause.code() if cause else None
        kind, remedy = _KINDS.get(code, _UNAVAILABLE) if code is not None else _UNAVAILABLE
        # A certificate that is not trusted looks like no answer, or like any other trouble of TLS.
        distrusted = self._look(errors) if kind is UnavailableError or code == KafkaError._SSL else None  # noqa: SLF001
        if (code in AUTHENTICATION or distrusted) and (errors.login != self.renewals or self._renewed()):
            return NewLoginError(
                f"{self}: {doing} failed, for the login was refused; its secret or certificate is another one now.",
                remedy="Try again.",
                source=self.stanza,
            )
        reason = said(self._censored(f"{cause.name()}: {cause.str()}")) if cause else "no answer"
        if distrusted:
            kind, reason, remedy = ConfigurationError, distrusted.what, distrusted.remedy
        elif kind is UnavailableError and (met := errors.connecting) and met is not cause:
            # A timeout says nothing; that a host has no address, or refuses, does.
            reason += f"; {said(self._censored(met.str()))}"
        elif code in AUTHENTICATION and self.access.settings.get("sasl.mechanisms") == "OAUTHBEARER":
            remedy = errors.tokenless.remedy if errors.tokenless else _OAUTH_REMEDY
            reason += f"; {errors.tokenless.args[0].rstrip('.')}" if errors.tokenless else ""
        return kind(
            f"{self}: {doing} failed. {reason}.",
            remedy=remedy,
            source=self.stanza,
            bootstrap_servers=self.bootstrap_servers,
            kafka_error=cause.name() if cause else None,
        )

    def is_refused(self, errors: ClientErrors) -> bool:
        """Whether waiting longer won't help: the login is refused beyond doubt, or no broker is left that this client trusts."""
        lost = KafkaError._ALL_BROKERS_DOWN in errors.counts  # noqa: SLF001
        return errors.refused or (lost and self._look(errors) is not None)

    def _look(self, errors: ClientErrors) -> Distrust | None:
        """Why the broker that was last told of and this client do not come together; asked of it at most every ten seconds."""
        if not errors.connecting and KafkaError._ALL_BROKERS_DOWN not in errors.counts:  # noqa: SLF001
            return None
        if self._looked.passed:
            at = _BROKER.match(errors.connecting.str()) if errors.connecting else None
            server = at["server"] if at else self.bootstrap_servers.partition(",")[0]
            self._distrust = distrust(server, self.access)
            self._looked = Deadline.after(_LOOK_AGAIN_S)
        return self._distrust

    def _renewed(self) -> bool:
        """Take over the access that there is now; whether it differs from the one that was refused."""
        if self.renew is None:
            return False
        before, self.access = self.access, self.renew()
        if before == self.access:
            return False
        self.renewals += 1
        self._looked = Deadline(0.0)
        return True

    def missing(self, what: str, **facts: object) -> MissingSettingError:
        """The error to raise when a topic or partition that is named is not there."""
        return MissingSettingError(
            f"{self}: {what}.",
            remedy="Create the topic with as many partitions as needed, or correct its name.",
            source=self.stanza,
            **facts,
        )

    def _censored(self, text: str) -> str:
        for secret in self.access.secrets.values():
            text = text.replace(secret.get_secret_value(), "***") if secret.get_secret_value() else text
        return text


def let_go(close: Callable[[], object]) -> None:
    """Close a client, as ``close`` does; one that is not closed after ``CLOSES_S`` is left to itself.

    librdkafka waits for its threads, and these wait by the clock of the wall: where that was ahead and is set back, they wait until
    it shows again what it had shown. A follower did nothing more for two hours, and its run looked alive (2026-11-30).

    Raises:
        KafkaException: What ``close`` raises, if it does so in time.
    """
    failed: list[BaseException] = []

    def closing() -> None:
        try:
            close()
        except BaseException as error:  # noqa: BLE001 (raised by who waits)
            failed.append(error)

    thread = threading.Thread(target=closing, name="kafka-closing", daemon=True)
    thread.start()
    thread.join(CLOSES_S)
    if thread.is_alive():
        log.warning(
            "A Kafka client is not closed after %g s, as where the clock was set back; it is left to itself.",
            CLOSES_S,
        )
    if failed:
        raise failed[0]


_UNAVAILABLE: tuple[type[HopArchiveError], str] = (
    UnavailableError,
    "Check that the broker runs, that bootstrap_servers is right, that this host can reach it, and that security is what it "
    "speaks there (who wants a login closes the connections of clients without); then try again.",
)
_KINDS: dict[int, tuple[type[HopArchiveError], str]] = {
    **dict.fromkeys(UNKNOWN_TOPIC, (MissingSettingError, "Create the topic, or correct its name.")),
    KafkaError._SSL: (  # noqa: SLF001
        ConfigurationError,
        "Check the stanza's ssl_ca, ssl_certificate and ssl_key, and what the broker itself is set to.",
    ),
    **dict.fromkeys(
        (
            KafkaError._INVALID_ARG,  # noqa: SLF001
            KafkaError.INVALID_CONFIG,
            KafkaError.INVALID_GROUP_ID,
            KafkaError.INVALID_PARTITIONS,
            KafkaError.INVALID_REPLICATION_FACTOR,
            KafkaError.INVALID_TIMESTAMP,
            KafkaError.MSG_SIZE_TOO_LARGE,
            KafkaError.POLICY_VIOLATION,
        ),
        (ConfigurationError, "Change the settings that it names."),
    ),
    **dict.fromkeys(
        (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION),  # noqa: SLF001
        (UnsupportedError, "Use a broker that can: Apache Kafka of a release that is maintained does."),
    ),
    **dict.fromkeys(
        (  # what a commit from outside meets in a group that has members
            KafkaError.UNKNOWN_MEMBER_ID,
            KafkaError.NON_EMPTY_GROUP,
            KafkaError.REBALANCE_IN_PROGRESS,
            KafkaError.ILLEGAL_GENERATION,
        ),
        (ConflictError, "Stop the group's consumers, wait until it has no members, and try again."),
    ),
    **dict.fromkeys(
        (
            *AUTHENTICATION,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            KafkaError.UNSUPPORTED_SASL_MECHANISM,
        ),
        (
            ForbiddenError,
            "Check the stanza's user name, password, security (its mechanism), and the user's ACLs.",
        ),
    ),
}


def with_a_new_login(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """A method that is called once more where the login was refused and is another one by now."""

    @wraps(method)
    def called(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return method(self, *args, **kwargs)
        except NewLoginError:
            return method(self, *args, **kwargs)

    return called


def kafka_error(exception: KafkaException) -> KafkaError:
    """The error inside a KafkaException."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def native(
    tp: TopicPartition, offset: int = confluent_kafka.OFFSET_INVALID, metadata: str = ""
) -> confluent_kafka.TopicPartition:
    """A partition, and an offset in it with its metadata, as the client wants it."""
    return confluent_kafka.TopicPartition(tp.topic, tp.partition, offset, metadata)
