"""Tokens that a command of hop-client's file prints."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from hop_archive.config import hop_auth
from hop_archive.config.kafka import access
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import ConfigurationError, ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.credentials import Token

TEXT = "secret-of-nobody"  # no message may show it


def test_a_command_s_tokens_are_taken_with_their_end(tmp_path: Path) -> None:
    auth = tmp_path / "auth.toml"
    claims = base64.urlsafe_b64encode(b'{"sub": "me", "exp": 1700000000}').decode().rstrip("=")
    auth.write_text(f'[[auth]]\nusername = "me"\npassword = ""\ntoken_command = "echo a.{claims}.b"\n')
    auth.chmod(0o600)
    found = access(KafkaSourceStanza(bootstrap_servers="h:9092", hop_auth=str(auth)), {})
    assert found.settings == {"security.protocol": "sasl_ssl", "sasl.mechanisms": "OAUTHBEARER"}
    assert found.token is not None
    assert found.token() == Token(SecretStr(f"a.{claims}.b"), 1_700_000_000.0)


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        (f"echo {TEXT} >&2; exit 7", ForbiddenError, "token_command failed, with exit code 7"),
        (f"echo {TEXT}", ConfigurationError, "something else than a JSON web token"),
        (f"echo {TEXT}.e30.{TEXT}", ConfigurationError, "something else than a JSON web token"),
        ("true", ConfigurationError, "something else than a JSON web token"),
    ],
)
def test_a_command_that_makes_no_token_is_told_without_what_it_said(
    command: str, kind: type[HopArchiveError], said: str
) -> None:
    with pytest.raises(HopArchiveError) as caught:
        hop_auth.command_s_tokens(command, "[source.x] hop_auth")()
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert TEXT not in f"{caught.value} {caught.value.facts} {caught.value.__context__!r}"


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hop_auth, "_COMMAND_S", 0.5)
    file = tmp_path / "pid"
    with pytest.raises(UnavailableError, match="did not end") as caught:
        hop_auth.command_s_tokens(f"echo {TEXT}; sleep 600 & echo $! > {file}; wait", "[source.x] hop_auth")()
    assert TEXT not in f"{caught.value} {caught.value.__context__!r}"
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(file.read_text())).wait(20)
