"""How a stanza gets in, over TLS and with each kind of login, and who distrusts whom where it does not."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from hop_archive.config.open import open_source
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import ConfigurationError, ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.credentials import KafkaAccess, Token
from hop_archive.model.message import TopicPartition
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.contract.source_fixtures import Sent
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.listeners import LONG_AGO, PASSWORD, Listeners
from hop_archive_tests.kafka.tokens import TokenServer, serving, unsigned

pytestmark = pytest.mark.kafka

LOGIN = {"username_env": "U", "password_env": "P"}
ENVIRON = {"U": "alice", "P": PASSWORD}
TIMEOUT_S = 2.0


def source_of(server: str, env: dict[str, str] = ENVIRON, /, **keys: Any) -> KafkaSource:
    stanza = KafkaSourceStanza(bootstrap_servers=server, writable=True, **keys)
    source = open_source("mine", stanza, env)
    assert isinstance(source, KafkaSource)
    return source


def round_trip(source: KafkaSource) -> None:
    """Each kind of client gets in: to ask, to publish and to read."""
    topic = f"t-{uuid.uuid4()}"
    source.create_topic(topic)
    source.publish([Sent(topic, b"value")])
    with source.reader({TopicPartition(topic, 0): 0}) as reader:
        deadline = time.monotonic() + 20
        while not (found := reader.poll(1, 0.5)) and time.monotonic() < deadline:
            pass
    assert [message.value for message in found] == [b"value"]


@pytest.mark.parametrize(
    ("listener", "keys"),
    [
        ("TLS", {}),
        ("LOGIN", {"security": "sasl-plain", **LOGIN}),
        ("LOGIN", {"security": "sasl-scram-sha-256", **LOGIN}),
        ("LOGIN", {"security": "sasl-scram-sha-512", **LOGIN}),
        ("CLEAR", {"security": "sasl-plain", "tls": False, **LOGIN}),
        ("CLEAR", {"security": "sasl-scram-sha-512", "tls": False, **LOGIN}),
    ],
)
def test_a_stanza_gets_in_over_tls_and_with_each_kind_of_login(
    listeners: Listeners, listener: str, keys: dict[str, Any]
) -> None:
    authority = {"ssl_ca": str(listeners.ca)} if keys.get("tls", True) else {}
    with closing(source_of(listeners.server(listener), **keys, **authority)) as source:
        round_trip(source)


def test_a_client_is_let_in_by_its_certificate(listeners: Listeners) -> None:
    certificate, key = listeners.client()
    keys = {"ssl_certificate": str(certificate), "ssl_key": str(key), "ssl_ca": str(listeners.ca)}
    with closing(source_of(listeners.server("MUTUAL"), **keys)) as source:
        round_trip(source)


def test_a_client_s_key_may_have_a_password(listeners: Listeners) -> None:
    certificate, key = listeners.client(key_password="pass phrase")
    keys = {"ssl_certificate": str(certificate), "ssl_key": str(key), "ssl_ca": str(listeners.ca)}
    server = listeners.server("MUTUAL")
    with closing(source_of(server, {"K": "pass phrase"}, ssl_key_password_env="K", **keys)) as source:
        assert source.cluster_id()
    with closing(source_of(server, {"K": "hunter2"}, ssl_key_password_env="K", **keys)) as source:
        with pytest.raises(ConfigurationError, match=r"ssl\.key\.location") as caught:
            source.cluster_id()
        assert "hunter2" not in f"{caught.value} {caught.value.facts} {source._connection!r}"


def refusal(source: KafkaSource) -> HopArchiveError:
    source._connection.timeout_s = TIMEOUT_S
    with closing(source), pytest.raises(HopArchiveError) as caught:
        source.cluster_id()
    return caught.value


def closes_all(server: socket.socket) -> None:
    """As a load balancer does whose brokers are all down."""
    with suppress(OSError):
        while True:
            server.accept()[0].close()


@pytest.mark.parametrize(
    ("listener", "believed", "client", "wanted"),
    [
        (
            "TLS",
            False,
            None,
            ["This client does not trust the broker {}", "no authority in this system", "Set ssl_ca"],
        ),
        (
            "EXPIRED",
            True,
            None,
            ["This client does not trust the broker {}", "has expired", "runs the broker has to renew"],
        ),
        (
            "OTHERNAME",
            True,
            None,
            ["This client does not trust the broker {}", "for another name", "advertised.listeners"],
        ),
        (
            "MUTUAL",
            True,
            None,
            ["The broker {} does not trust this client", "wants a certificate", "Set ssl_certificate"],
        ),
        (
            "MUTUAL",
            True,
            "stranger",
            ["The broker {} does not trust this client", "refused the certificate", "authority"],
        ),
        (
            "MUTUAL",
            True,
            "expired",
            ["The broker {} does not trust this client", "refused the certificate", "Renew"],
        ),
    ],
)
def test_a_refusal_says_who_distrusts_whom_and_what_to_set(
    listeners: Listeners, listener: str, believed: bool, client: str | None, wanted: list[str]
) -> None:
    server = listeners.server(listener)
    keys: dict[str, Any] = {"ssl_ca": str(listeners.ca)} if believed else {}
    if client:
        signed: dict[str, Any] = {"by": trustme.CA()} if client == "stranger" else {"not_after": LONG_AGO}
        certificate, key = listeners.client(**signed)
        keys |= {"ssl_certificate": str(certificate), "ssl_key": str(key)}
    error = refusal(source_of(server, **keys))
    assert isinstance(error, ConfigurationError)
    assert [part for part in wanted if part.format(server) not in str(error)] == [], str(error)


def test_another_authority_than_that_of_the_file_is_said_to_be_none_of_its(
    listeners: Listeners, tmp_path: Path
) -> None:
    file = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(file)
    error = refusal(source_of(listeners.server("TLS"), ssl_ca=str(file)))
    assert f"no authority in {file} signed its certificate" in str(error)


@pytest.mark.parametrize(
    "keys", [{"security": "plaintext"}, {"security": "sasl-plain", "tls": False, **LOGIN}]
)
def test_a_port_that_speaks_tls_is_told_to_a_client_that_does_not(
    listeners: Listeners, keys: dict[str, Any]
) -> None:
    error = refusal(source_of(listeners.server("LOGIN"), **keys))
    assert isinstance(error, ConfigurationError)
    assert f"The broker {listeners.server('LOGIN')} speaks TLS on this port" in str(error)


@pytest.mark.parametrize("keys", [{"security": "tls"}, {"security": "sasl-plain", **LOGIN}])
def test_a_port_without_tls_is_told_to_a_client_that_wants_it(
    broker: ApacheKafka, listeners: Listeners, keys: dict[str, Any]
) -> None:
    error = refusal(source_of(broker.bootstrap_servers, ssl_ca=str(listeners.ca), **keys))
    assert isinstance(error, ConfigurationError)
    assert f"The broker {broker.bootstrap_servers} speaks no TLS on this port" in str(error)


def test_a_port_that_wants_a_login_is_guessed(listeners: Listeners) -> None:
    error = refusal(source_of(listeners.server("LOGIN"), security="tls", ssl_ca=str(listeners.ca)))
    assert isinstance(error, UnavailableError)
    assert "who wants a login closes the connections of clients without" in str(error)


def test_a_broker_that_closes_connections_in_the_handshake_is_not_said_to_speak_no_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=closes_all, args=(server,), daemon=True).start()
        host, port = server.getsockname()
        error = refusal(source_of(f"{host}:{port}", security="tls"))
    assert isinstance(error, UnavailableError)
    assert "speaks no TLS" not in str(error)


@pytest.mark.parametrize("security", ["sasl-plain", "sasl-scram-sha-256"])
def test_a_login_that_is_refused_is_told_with_the_broker_s_reason_and_without_the_password(
    listeners: Listeners, security: str
) -> None:
    environ = {"U": "alice", "P": "hunter2"}
    keys = {"security": security, "ssl_ca": str(listeners.ca), **LOGIN}
    source = source_of(listeners.server("LOGIN"), environ, **keys)
    error = refusal(source)
    assert isinstance(error, ForbiddenError)
    assert "Authentication failed" in str(error)
    assert "Check the stanza's user name, password" in str(error)
    assert "hunter2" not in f"{error} {error.facts} {source._connection!r}"


def test_a_certificate_that_is_renewed_in_its_place_is_taken_at_the_next_refusal(
    listeners: Listeners,
) -> None:
    certificate, key = listeners.client(not_after=LONG_AGO)
    keys = {"ssl_certificate": str(certificate), "ssl_key": str(key), "ssl_ca": str(listeners.ca)}
    with closing(source_of(listeners.server("MUTUAL"), **keys)) as source:
        source._connection.timeout_s = TIMEOUT_S
        with pytest.raises(ConfigurationError, match="refused the certificate"):
            source.cluster_id()
        assert listeners.client() == (certificate, key)
        assert source.cluster_id()


# --- hop-client's file


def auth_toml(directory: Path, *entries: dict[str, str]) -> Path:
    text = "".join(
        "[[auth]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in e.items()) for e in entries
    )
    file = directory / "auth.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_hop_client_s_file_says_as_whom_and_how(listeners: Listeners, tmp_path: Path) -> None:
    me = {"username": "alice", "password": PASSWORD}
    file = auth_toml(
        tmp_path,
        {"username": "eve", "password": "hunter2", "hostname": "kafka.scimma.org"},
        {**me, "hostname": listeners.server("LOGIN"), "ssl_ca_location": str(listeners.ca)},
        {
            **me,
            "hostname": listeners.server("CLEAR"),
            "mechanism": "SCRAM_SHA_256",
            "protocol": "SASL_PLAINTEXT",
        },
    )
    before = file.read_bytes(), file.stat().st_mtime_ns
    for listener in ("LOGIN", "CLEAR"):
        with closing(source_of(listeners.server(listener), hop_auth=str(file))) as source:
            round_trip(source)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_password_that_hop_client_changes_is_taken_at_the_next_refusal(
    listeners: Listeners, tmp_path: Path
) -> None:
    me = {"username": "alice", "ssl_ca_location": str(listeners.ca), "mechanism": "PLAIN"}
    file = auth_toml(tmp_path, {**me, "password": "the-old-one"})
    with closing(source_of(listeners.server("LOGIN"), hop_auth=str(file))) as source:
        with pytest.raises(ForbiddenError):
            source.cluster_id()
        auth_toml(tmp_path, {**me, "password": PASSWORD})
        assert source.cluster_id()


# --- tokens


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    with serving() as server:
        yield server


def oauth(listeners: Listeners, endpoint: str, secret: str = "right-secret") -> KafkaSource:
    environ = {"U": "client-1", "P": secret}
    keys = {"security": "sasl-oauthbearer", "token_endpoint": endpoint, "token_scope": "kafka", **LOGIN}
    return source_of(listeners.server("LOGIN"), environ, ssl_ca=str(listeners.ca), **keys)


@contextmanager
def reading(source: KafkaSource) -> Iterator[Callable[[], bytes | None]]:
    """Publishes a message, and reads it."""
    topic = f"t-{uuid.uuid4()}"
    source.create_topic(topic)
    with source.reader({TopicPartition(topic, 0): 0}) as reader:

        def one() -> bytes | None:
            source.publish([Sent(topic, b"value")])
            deadline = time.monotonic() + 20
            while not (found := reader.poll(1, 0.2)) and time.monotonic() < deadline:
                pass
            return found[0].value if found else None

        yield one


def test_tokens_of_both_kinds_are_renewed_while_a_run_lasts(
    listeners: Listeners, token_server: TokenServer
) -> None:
    # Renewed when a fifth is left, which has to be more than a second: a broker lets none renew its login more often.
    token_server.lifetime_s = 8.0
    signed: list[Token] = []

    def sign() -> Token:
        signed.append(unsigned(8.0))
        return signed[-1]

    with (
        closing(oauth(listeners, token_server.endpoint)) as had,
        closing(of_tokens(listeners, sign)) as made,
        reading(had) as one,
        reading(made) as other,
    ):
        assert (one(), other()) == (b"value", b"value")
        clients = token_server.given, len(signed)
        ends = max(token.ends_at_s for token in signed) + 1
        while time.time() < ends:  # none of the first tokens is believed any more
            assert (one(), other()) == (b"value", b"value")
    assert token_server.given > clients[0]
    assert len(signed) > clients[1]
    assert token_server.refused == 0


def test_tokens_are_had_over_tls_from_whom_this_system_believes(
    monkeypatch: pytest.MonkeyPatch, listeners: Listeners
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(listeners.ca))
    with serving(listeners.authority) as server, closing(oauth(listeners, server.endpoint)) as source:
        round_trip(source)


def test_a_token_endpoint_that_refuses_or_is_not_there_is_told_and_shows_no_secret(
    listeners: Listeners, token_server: TokenServer
) -> None:
    for endpoint, said in (
        (token_server.endpoint, "invalid_client"),
        ("http://127.0.0.1:9/token", "127.0.0.1:9"),
    ):
        source = oauth(listeners, endpoint, "hunter2")
        error = refusal(source)
        assert isinstance(error, ForbiddenError)
        assert said in str(error)
        assert "Check the client's id and secret, token_endpoint" in str(error)
        assert "hunter2" not in f"{error} {error.facts} {source._connection!r}"


def of_tokens(listeners: Listeners, tokens: Callable[[], Token]) -> KafkaSource:
    settings = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "OAUTHBEARER",
        "ssl.ca.location": str(listeners.ca),
    }
    access = KafkaAccess(settings, token=tokens)
    return KafkaSource("signed", bootstrap_servers=listeners.server("LOGIN"), writable=True, access=access)


def test_credentials_that_end_in_mid_run_are_told_with_their_reason(listeners: Listeners) -> None:
    left = [unsigned(3.0)]

    def token() -> Token:
        if left:
            return left.pop()
        raise ForbiddenError("The single sign-on has ended.", remedy="Renew it.")

    with closing(of_tokens(listeners, token)) as source:
        assert source.cluster_id()
        with pytest.raises(ForbiddenError, match=r"The single sign-on has ended.* Renew it"):
            until_refused(source)


def until_refused(source: KafkaSource) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        source.topics()
        time.sleep(0.1)


def test_where_there_is_no_token_to_begin_with_nothing_is_waited_for(listeners: Listeners) -> None:
    def token() -> Token:
        raise ForbiddenError("No AWS credentials were found.", remedy="Log in.")

    with (
        closing(of_tokens(listeners, token)) as source,
        pytest.raises(ForbiddenError, match="No AWS credentials"),
    ):
        source.cluster_id()
