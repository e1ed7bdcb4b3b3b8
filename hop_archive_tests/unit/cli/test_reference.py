"""``docs/commands.md`` says all that the commands' own help says, and TAB knows what there is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

import hop_archive
from hop_archive.cli import COMMANDS, cli
from hop_archive.cli.reference import reference
from hop_archive_tests.cli_helpers import invoke, place

__all__ = ["place"]

PAGE = Path(hop_archive.__file__).parents[1] / "docs" / "commands.md"


def every_command(group: click.Group, path: str, ctx: click.Context) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        found.append((f"{path} {name}", command))
        if isinstance(command, click.Group):
            found += every_command(command, f"{path} {name}", ctx)
    return found


EVERY = every_command(cli, "hop-archive", click.Context(cli))


def test_the_page_is_the_help_of_today() -> None:
    invoke("status", "--help")  # click remembers what it showed, which must not change the page
    assert PAGE.read_text() == reference(), "run: make docs"


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[path for path, _ in EVERY])
def test_every_command_option_and_argument_is_on_the_page(path: str, command: click.Command) -> None:
    page = PAGE.read_text()
    heading = f" {path}\n"
    assert heading in page
    section = page[page.index(heading) :].split("\n##", 1)[0]
    ctx = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "debug" and not parameter.hidden:
            assert parameter.opts[-1] in section
        elif isinstance(parameter, click.Argument):
            assert f"| `{_cell(parameter.make_metavar(ctx))}` | " in section


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[path for path, _ in EVERY])
def test_every_command_option_and_argument_has_help(path: str, command: click.Command) -> None:
    assert command.help, path
    for parameter in command.params:
        meaning = "help" if isinstance(parameter, click.Option) else "meaning"
        assert getattr(parameter, meaning, ""), f"{path} {parameter.name}: an argument takes cls=Explained"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_underscores_may_stand_for_hyphens(name: str) -> None:
    assert invoke(name.replace("-", "_"), "--help").exit_code == 0


# TAB


def test_the_shell_in_use_is_the_default_and_an_unknown_one_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert invoke("completion").output == invoke("completion", "fish").output
    monkeypatch.setenv("SHELL", "/bin/dash")
    ran = invoke("completion")
    assert ran.exit_code == 2
    assert "hop-archive completion bash" in ran.output
