"""``hop-archive connect``: what it says where it cannot, or does not, start psql."""

from __future__ import annotations

from pathlib import Path

import pytest

from hop_archive.cli import connect
from hop_archive.config.stanzas import PostgresStanza
from hop_archive.errors import ConfigurationError
from hop_archive_tests.cli_helpers import invoke, place

__all__ = ["place"]


def test_what_no_variable_can_say_is_refused() -> None:
    stanza = PostgresStanza(url="postgresql://h/d?sslpassword=x")  # type: ignore[arg-type] # pydantic converts it
    with pytest.raises(ConfigurationError, match="sslpassword"):
        connect.child_environment(stanza, read_only=False)


def test_a_mock_is_refused(place: Path) -> None:
    result = invoke("connect", "-D", "mock-db")
    assert result.exit_code == 2
    assert "Error: Database mock-db is a mock in memory" in result.stderr


@pytest.mark.parametrize("option", ["-c", "--csv"])
def test_an_option_of_psqls_is_told_where_to_stand(place: Path, option: str) -> None:
    result = invoke("connect", "-D", "local-db", option, "SELECT 1")
    assert result.exit_code == 2
    assert f"No such option '{option}'. What is for psql stands after --: " in result.stderr
    assert f"hop-archive connect -D NAME -- {option} ..." in result.stderr
