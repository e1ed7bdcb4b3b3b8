"""Manual pages of all commands (make man): click-man's pages, with the examples and arguments that it leaves out."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click_man.man import ManPage

from hop_archive.cli import COMMANDS, FittedContext, cli
from hop_archive.cli.fitting import folded_text
from hop_archive.cli.output import program_version

_WIDTH = 70
"""Of lines that are not filled: man indents them by seven, in a terminal of 80 columns."""


def main(folder: Path) -> None:
    """Write a page a command into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for ctx in contexts(FittedContext(cli, info_name="hop-archive")):
        (folder / f"{ctx.command_path.replace(' ', '-')}.1").write_text(page(ctx), encoding="utf-8")


def contexts(ctx: click.Context) -> Iterator[click.Context]:
    """The command's own context, then those of all below it."""
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            assert command is not None
            yield from contexts(FittedContext(command, info_name=name, parent=ctx))


def page(ctx: click.Context) -> str:
    """One manual page."""
    command = ctx.command
    made = ManPage(ctx.command_path)
    made.date = ""  # the same bytes from the same commands
    made.version = program_version()
    listed = COMMANDS.get(ctx.info_name or "") if ctx.parent and not ctx.parent.parent else None
    made.short_help = roff(listed[1] if listed else command.get_short_help_str(200))
    made.synopsis = " ".join(command.collect_usage_pieces(ctx))
    made.description = f"{prose(command.help or '')}\n\n{prose(command.epilog or '')}".rstrip()
    records = (parameter.get_help_record(ctx) for parameter in command.get_params(ctx))
    made.options = [(names, roff(meaning)) for names, meaning in filter(None, records)]
    if isinstance(command, click.Group):
        below = ((name, command.get_command(ctx, name)) for name in command.list_commands(ctx))
        made.commands = [
            (name, roff(COMMANDS[name][1] if command is cli else found.get_short_help_str(200)))
            for name, found in below
            if found is not None
        ]
    return str(made)


def prose(text: str) -> str:
    r"""Paragraphs; those that ``\b`` keeps click from filling are not filled here, either."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.startswith("\b")
        text = paragraph.removeprefix("\b").strip("\n")
        if kept:
            text = "\n".join(folded_text(text.split("\n"), _WIDTH))
        paragraphs.append(f".nf\n{roff(text)}\n.fi" if kept else roff(text))
    return "\n\n".join(paragraphs)


def roff(text: str) -> str:
    """Text in which nothing is taken for roff's own."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
