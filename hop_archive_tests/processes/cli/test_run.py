"""``hop-archive run`` where a server does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["place"]


@pytest.mark.timeout(90)  # and not for ever
def test_a_broker_that_is_not_there_is_told_within_ten_seconds(place: Path) -> None:
    with socket.socket() as nobody:  # bound and not listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"
        toml(place, f'[source.k]\ntype = "kafka"\nbootstrap_servers = "{servers}"\nsecurity = "plaintext"')
        result = invoke("run", "-H", "k")
    assert result.exit_code == 3
    assert servers in result.stderr
    assert [line.partition(":")[0] for line in result.stderr.splitlines()][1:] == ["Error"]


def test_a_database_that_is_not_there_is_told_in_one_message(place: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        toml(place, f'[database.p]\ntype = "postgres"\nurl = "postgresql://me@127.0.0.1:{port}/x"')
        result = invoke("run", "-H", "mock-hop", "-D", "p", "-S", "mock-store")
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr
    assert "psycopg.pool" not in result.stderr
    assert f"127.0.0.1:{port}" in result.stderr


@pytest.mark.timeout(90)  # and not for ever
def test_a_bucket_that_cannot_be_reached_is_told_in_one_message(place: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        toml(
            place,
            f'[store.s]\ntype = "s3"\nendpoint = "{endpoint}"\nregion = "r"\nbucket = "bbb"\n'
            'access_key_env = "AK"\nsecret_key_env = "SK"',
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AK", "a")
            patch.setenv("SK", "s")
            result = invoke("run", "-H", "mock-hop", "-D", "mock-db", "-S", "s")
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr
