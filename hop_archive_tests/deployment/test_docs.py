"""The documentation as a site, and manual pages: whole, of every command, and loading nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hop_archive.cli import COMMANDS

CHECKOUT = Path(__file__).parents[2]
ROFF = {"TH", "SH", "PP", "TP", "B", "nf", "fi"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=CHECKOUT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_a_page_that_the_page_of_all_leads_to(site: Path, name: str) -> None:
    assert f"hop-archive {name}" in (site / "commands" / name / "index.html").read_text()
    assert f'href="{name}/"' in (site / "commands" / "index.html").read_text()


def test_it_can_be_searched(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text()
    assert '"location":"first-hour/"' in index
    assert '"location":"commands/repair/"' in index


def test_it_has_the_schema_and_not_what_makes_it(site: Path) -> None:
    assert (site / "hop_archive.schema.json").exists()
    assert [*site.glob("*.py")] == []


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text()
    loaded = re.findall(r"""<(?:script|img)[^>]*\bsrc=["']?([^"' >]+)""", text)
    loaded += re.findall(r"""<link[^>]*rel=["']?stylesheet[^>]*href=["']?([^"' >]+)""", text)
    assert loaded
    assert [address for address in loaded if "//" in address] == []


def test_each_command_has_a_manual_page_with_its_examples(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/man.py", str(tmp_path)], cwd=CHECKOUT, check=True)
    for name in COMMANDS:
        text = (tmp_path / f"hop-archive-{name}.1").read_text()
        assert COMMANDS[name][1].replace("-", r"\-") in text
        assert {line[1:].split()[0] for line in text.splitlines() if line.startswith(".")} <= ROFF
    assert r"hop\-archive status \-H hop\-local" in (tmp_path / "hop-archive-status.1").read_text()
    assert (tmp_path / "hop-archive-local-up.1").exists()


@pytest.mark.parametrize(
    ("text", "written"), [(".so file", r"\&.so file"), ("a\n'b", "a\n\\&'b"), (r"C:\n -x", r"C:\en \-x")]
)
def test_nothing_of_a_help_is_taken_for_a_command_of_roff(text: str, written: str) -> None:
    assert runpy.run_path(str(CHECKOUT / "docs" / "man.py"))["roff"](text) == written
