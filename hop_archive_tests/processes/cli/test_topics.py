"""``hop-archive topics``, where the database does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["place"]


def test_a_database_that_does_not_answer_is_an_error(place: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        toml(place, f'[database.p]\ntype = "postgres"\nurl = "postgresql://me@127.0.0.1:{port}/x"')
        result = invoke("topics", "-H", "mock-hop", "-D", "p")
    assert result.exit_code == 3
    assert f"127.0.0.1:{port}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
