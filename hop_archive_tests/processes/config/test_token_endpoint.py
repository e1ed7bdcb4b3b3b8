"""Whether librdkafka believes a token endpoint over TLS: where this system, or the stanza, knows who signed its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from hop_archive.config.open import open_source
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import HopArchiveError
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.contract.source_fixtures import until
from hop_archive_tests.kafka.tokens import CLIENT, TokenServer, serving

NO_BROKER = "127.0.0.1:9"  # a client asks for its token before it has reached one


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return tmp_path / "authority.pem"


@pytest.fixture
def token_server(authority: trustme.CA) -> Iterator[TokenServer]:
    with serving(authority) as server:
        yield server


@contextmanager
def source_of(endpoint: str, token_ca: str = "") -> Iterator[KafkaSource]:
    stanza = KafkaSourceStanza(
        bootstrap_servers=NO_BROKER,
        security="sasl-oauthbearer",
        token_endpoint=endpoint,
        token_scope="kafka",
        token_ca=token_ca,
        username_env="U",
        password_env="P",
    )
    source = open_source("mine", stanza, CLIENT)
    assert isinstance(source, KafkaSource)
    source._connection.timeout_s = 1.0
    with closing(source):
        yield source


def error_of(source: KafkaSource) -> str:
    with pytest.raises(HopArchiveError) as caught:
        source.cluster_id()
    return str(caught.value)


def test_an_endpoint_is_believed_whose_authority_this_system_knows(
    monkeypatch: pytest.MonkeyPatch, token_server: TokenServer, file: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with source_of(token_server.endpoint) as source:
        until(lambda: "token" not in error_of(source) and token_server.given, "a token was had")


def test_an_endpoint_is_believed_whose_authority_the_stanza_names(
    token_server: TokenServer, file: Path
) -> None:
    with source_of(token_server.endpoint, str(file)) as source:
        until(lambda: "token" not in error_of(source) and token_server.given, "a token was had")


@pytest.mark.parametrize("named", [False, True], ids=["by the system", "by the stanza"])
def test_an_endpoint_of_an_unknown_authority_gets_no_secret_and_the_error_says_which_key_to_set(
    monkeypatch: pytest.MonkeyPatch, token_server: TokenServer, tmp_path: Path, named: bool
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with source_of(token_server.endpoint, str(other) if named else "") as source:
        until(lambda: "unable to get local issuer" in error_of(source), "why there is no token")
        assert "token_ca (who signed its certificate" in error_of(source)
        assert CLIENT["P"] not in error_of(source)
    assert (token_server.given, token_server.refused) == (0, 0)
