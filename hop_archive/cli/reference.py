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
    contents = ["| command | what it does |", "|---|---|"]
    for name, command in _commands(cli, ctx):
        contents.append(f"| [`{name}`](#hop-archive-{name}) | {_escaped(command.get_short_help_str(200))} |")
    parts = [_INTRODUCTION, *contents, "", *_sections(cli, ctx, level=2)]
    return "\n".join(parts).rstrip() + "\n"


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
