"""TAB in a shell: the completion that each shell gets, and what it offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hop_archive_tests.cli_helpers import environment, invoke, place, toml

__all__ = ["place"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_is_printed_for_each_shell(place: Path, shell: str) -> None:
    ran = invoke("completion", shell)
    assert ran.exit_code == 0
    assert "_HOP_ARCHIVE_COMPLETE" in ran.output


def completed(place: Path, words: str) -> list[str]:
    """What bash would offer for the last of ``words``."""
    asked = {
        "_HOP_ARCHIVE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    program = "from hop_archive.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment(), **asked},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line.partition(",")[2] for line in ran.stdout.splitlines() if line]


def test_commands_options_and_stanzas_complete(place: Path) -> None:
    toml(place, '[source.hop-mine]\ntype = "mock"\n')
    assert completed(place, "hop-archive sta") == ["status"]
    assert completed(place, "hop-archive status --js") == ["--json"]
    assert completed(place, "hop-archive status -H hop-") == [
        "hop-dev",
        "hop-local",
        "hop-mine",
        "hop-prod",
        "hop-user",
    ]


def test_a_broken_file_completes_to_nothing_and_says_nothing(place: Path) -> None:
    toml(place, "broken")
    assert completed(place, "hop-archive status -H hop-") == []
