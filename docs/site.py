"""What mkdocs adds to the pages of this folder: one of each command, and every decision (see mkdocs.yml).

A hook rather than files: nothing is generated into the repository but docs/commands.md, for those who read it there.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from hop_archive.cli import GROUPS
from hop_archive.cli.fitting import folded_text
from hop_archive.cli.reference import contents, pages

_WIDTH = 80
"""Of code, which would be scrolled to see the rest."""

DOCS = Path(__file__).parent


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    commands = [{group: [f"commands/{name}.md" for name in names]} for group, names in GROUPS.items()]
    decisions = sorted(f"decisions/{path.name}" for path in (DOCS / "decisions").glob("*.md"))
    assert config.nav is not None
    for entry in config.nav:
        if "Commands" in entry:
            entry["Commands"] = ["commands.md", *commands]
        if "How it works" in entry:
            entry["How it works"] = ["architecture.md", {"Why it is so": decisions}]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page a command."""
    for name, text in pages().items():
        files.append(File.generated(config, f"commands/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the page of all commands lead to those of each, and a command's title in the navigation be its name."""
    if page.file.src_uri == "commands.md":
        introduction = markdown.partition("\n| ")[0]
        return introduction + "\n\n" + "\n".join(contents("commands/{}.md")) + "\n"
    if page.file.src_uri.startswith("commands/"):
        page.title = Path(page.file.src_uri).stem
        markdown = re.sub(r"(?<=```text\n).*?(?=\n```)", _folded, markdown, flags=re.DOTALL)
        return re.sub(r"^    (hop-archive .*)$", r"```text\n\1\n```", markdown, count=1, flags=re.MULTILINE)
    return markdown


def _folded(block: re.Match[str]) -> str:
    return "\n".join(folded_text(block[0].split("\n"), _WIDTH))
