"""The command line described as Markdown: ``docs/commands.md`` is made by it (``make docs``), and a test compares."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from hop_archive.cli import cli

_INTRODUCTION = """# The command line

Made from the commands' own help by `make docs`; change the help, not this page. Every command takes `-h`/`--help`
and `--debug` (show where in the program an error came from). Names may be written with `_` in the place of `-`.
"""


def reference() -> str:
    """Return the whole page."""
    ctx = click.Context(cli, info_name="hop-archive")
    parts = [_INTRODUCTION, _contents(ctx), *_sections(cli, ctx, level=2)]
    return "\n".join(parts).rstrip() + "\n"


def _contents(ctx: click.Context) -> str:
    lines = ["| command | what it does |", "|---|---|"]
    for name, command in _commands(cli, ctx):
        lines.append(f"| [`{name}`](#hop-archive-{name}) | {_escaped(command.get_short_help_str(200))} |")
    return "\n".join([*lines, ""])


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
    parts = [
        f"{'#' * min(level, 4)} {ctx.command_path}",
        "",
        f"    {ctx.command_path} {usage}",
        "",
        _prose(command.help or ""),
        "",
        *_options(command, ctx),
        *_epilog(command.epilog or ""),
    ]
    return "\n".join(parts)


def _prose(text: str) -> str:
    r"""The help's paragraphs; those that ``\b`` keeps click from filling are kept as they are here, too."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_paragraph(one) for one in paragraphs)


def _paragraph(text: str) -> str:
    if not text.startswith("\b"):
        return text
    return "\n".join(["```text", *text.splitlines()[1:], "```"])


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    records = [
        record
        for parameter in command.get_params(ctx)
        if not {"--debug", "--help"} & {*parameter.opts} and (record := parameter.get_help_record(ctx))
    ]
    if records:
        yield "| argument or option | meaning |"
        yield "|---|---|"
        for names, meaning in records:
            yield f"| `{_escaped(names)}` | {_escaped(meaning)} |"
        yield ""


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _epilog(text: str) -> Iterator[str]:
    if text:
        yield _prose(text)
        yield ""


if __name__ == "__main__":
    click.echo(reference(), nl=False)
