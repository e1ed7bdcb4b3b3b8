"""The file ``.env``: what it adds to the environment of a command, and what is said of one that is broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hop_archive.cli.env_file import read_env_file
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive_tests.cli_helpers import invoke, place

__all__ = ["place"]


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """A command adds to the environment of its process, which here is ours."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def read(path: Path, text: str, **environ: str) -> dict[str, str]:
    path.write_text(text)
    read_env_file(environ)
    return environ


def test_a_file_in_the_working_directory_chooses_stanzas(place: Path) -> None:
    (place / ".env").write_text(
        "HOP_ARCHIVE_STORE=mock-segments\nexport HOP_ARCHIVE_SOURCE='hop-dev' # mine\n"
    )
    listed = json.loads(invoke("list", "--json").stdout)["stanzas"]
    chosen = {one["name"] for one in listed if one["selected"] == "environment"}
    assert chosen == {"mock-segments", "hop-dev"}


def test_what_is_set_already_stays_be_it_empty(place: Path) -> None:
    found = read(place / ".env", "A=file\nB=file\nC=file\n", A="shell", B="")
    assert found == {"A": "shell", "B": "", "C": "file"}


def test_values_with_spaces_quotes_and_hashes(place: Path) -> None:
    text = '# a comment\n\nA=\'p w#"d\'\nB="x\\ny"\nC=plain # why\nD=\nE=${C}/e\n'
    assert read(place / ".env", text) == {"A": 'p w#"d', "B": "x\ny", "C": "plain", "D": "", "E": "plain/e"}


def test_another_file_may_be_named(place: Path) -> None:
    (place / ".env").write_text("A=here\n")
    named = place / "other"
    assert read(named, "A=other\n", HOP_ARCHIVE_ENV_FILE=str(named))["A"] == "other"
    with pytest.raises(MissingSettingError, match="HOP_ARCHIVE_ENV_FILE names is not there: absent"):
        read_env_file({"HOP_ARCHIVE_ENV_FILE": "absent"})


def test_no_file_is_no_error(place: Path) -> None:
    environ: dict[str, str] = {}
    read_env_file(environ)
    (place / ".env").mkdir()  # some keep a virtual environment there
    read_env_file(environ)
    assert environ == {}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A=1\nPW='hunter2\n", "line 2:"),
        ("A=1\n\n\nhunter2\n", "line 4:"),
        ("hunter2\nB=1\n'hunter2'\n", "lines 1, 3:"),
        ('A="x" hunter2\n', "line 1:"),
    ],
)
def test_a_broken_file_is_one_message_with_its_lines_and_none_of_its_text(
    place: Path, text: str, lines: str
) -> None:
    (place / ".env").write_text(text)
    result = invoke("list")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: .env: {lines} wanted NAME=value")
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.output


def test_a_file_in_another_encoding_is_told_without_its_text(place: Path) -> None:
    (place / ".env").write_bytes(b"A=hunter2\xff\n")
    with pytest.raises(
        ConfigurationError, match=r"\.env: wanted UTF-8, found another encoding at byte 9"
    ) as caught:
        read_env_file({})
    assert caught.value.__context__ is None


def test_a_file_that_may_not_be_read_is_told(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_env_file({"HOP_ARCHIVE_ENV_FILE": str(place)})
