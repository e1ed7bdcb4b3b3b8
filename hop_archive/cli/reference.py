"""The command line described as Markdown: ``docs/commands.md`` is made by it (``make docs``), and a test compares."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from hop_archive.cli import GROUPS, cli

_INTRODUCTION = """# The command line

Made from the commands' own help by `make docs`; change the help, not this page. Every command takes `-h`/`--help`
and `--debug` (show where in the program an error came from). Names may be written with `_` in the place of `-`.
"""


def reference() -> str:
    """Return the whole page."""
    ctx = click.Context(cli, info_name="hop-archive")
    parts = [_INTRODUCTION, *contents("#hop-archive-{}"), "", *_sections(cli, ctx, level=2)]
    return "\n".join(parts).rstrip() + "\n"


def contents(link: str) -> list[str]:
    """Return what there is, a table a group; ``link`` leads to a command, with ``{}`` in the place of its name."""
    lines: list[str] = []
    for group, commands in GROUPS.items():
        lines += ["", f"| {group} | |", "|---|---|"]
        lines += [f"| [`{name}`]({link.format(name)}) | {told} |" for name, (_, told) in commands.items()]
    return lines[1:]


def pages() -> dict[str, str]:
    """Return a page for each command by its name: what the whole page says of it and of those below it."""
    ctx = click.Context(cli, info_name="hop-archive")
    found = {}
    for name, command in _commands(cli, ctx):
        below = click.Context(command, info_name=name, parent=ctx)
        sections = (
            _sections(command, below, level=1)
            if isinstance(command, click.Group)
            else [_section(command, below, level=1)]
        )
        found[name] = "\n".join(sections).rstrip() + "\n"
    return found


def _commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            yield name, command


def _sections(group: click.Group, ctx: click.Context, level: int) -> Iterator[str]:
    yield _section(group, ctx, level)
    for name, command in _commands(group, ctx):
        below = click.Context(command, info_name=name, parent=ctx)
        if isinstance(command, click.Group):
            yield from _sections(command, below, level + 1)
        else:
            yield _section(command, below, level + 1)


def _section(command: click.Command, ctx: click.Context, level: int) -> str:
    usage = " ".join(command.collect_usage_pieces(ctx))
    records = [
        record
        for parameter in command.get_params(ctx)
        if not {"--debug", "--help"} & {*parameter.opts} and (record := parameter.get_help_record(ctx))
    ]
    options = [f"| `{_escaped(names)}` | {_escaped(meaning)} |" for names, meaning in records]
    parts = [
        f"{'#' * min(level, 4)} {ctx.command_path}",
        "",
        f"    {ctx.command_path} {usage}",
        "",
        _prose(command.help or ""),
        "",
        *(["| argument or option | meaning |", "|---|---|", *options, ""] if options else []),
    ]
    if command.epilog:
        parts += [_prose(command.epilog), ""]
    return "\n".join(parts)


def _prose(text: str) -> str:
    r"""The help's paragraphs; those that ``\b`` keeps click from filling are kept as they are here, too."""
    return "\n\n".join(
        "\n".join(["```text", *paragraph.splitlines()[1:], "```"])
        if paragraph.startswith("\b")
        else paragraph
        for paragraph in inspect.cleandoc(text).split("\n\n")
    )


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(reference(), nl=False)
