"""The command line as a whole: its help, its names, and how an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import pytest

import hop_archive.cli
from hop_archive import errors
from hop_archive.cli import COMMANDS, Commands, cli, main
from hop_archive_tests.cli_helpers import invoke, place

__all__ = ["place"]


def walk(name: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from walk(f"{name} {below}", found, context)


ALL = dict(walk("hop-archive", cli, click.Context(cli)))
LEAVES = {name: one for name, one in ALL.items() if not isinstance(one, click.Group)}


@pytest.mark.parametrize("name", ALL)
def test_every_command_says_what_it_does(name: str) -> None:
    assert ALL[name].help
    assert ALL[name].get_short_help_str()


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_does(name: str) -> None:
    options = [one for one in ALL[name].params if isinstance(one, click.Option)]
    assert [one.opts for one in options if not one.help] == []


@pytest.mark.parametrize("name", [name for name in LEAVES if " local " not in name or "publish" in name])
def test_every_command_shows_an_example_of_itself(name: str) -> None:
    assert f"  {name}" in str(LEAVES[name].epilog)


@pytest.mark.parametrize("name", LEAVES)
def test_debug_may_stand_after_any_command(name: str) -> None:
    assert "--debug" in [opt for one in LEAVES[name].params for opt in one.opts]


def test_help_names_every_exit_code_that_an_error_has() -> None:
    shown = invoke("--help").stdout
    for kind in error_kinds():
        assert f"\n    {kind.exit_code} " in shown


def test_an_underscore_stands_for_a_hyphen_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "two-words", ("hop_archive_tests.unit.cli.test_cli:two_words", ""))
    assert invoke("two_words").stdout == invoke("two-words").stdout == "both\n"


@click.command()
def two_words() -> None:
    click.echo("both")


def test_a_misspelt_command_names_the_nearest() -> None:
    result = invoke("stauts")
    assert result.exit_code == 2
    assert "'status'" in result.stderr


def test_an_unknown_option_is_a_usage_error() -> None:
    assert invoke("list", "--nonsense").exit_code == 2


def error_kinds(
    kind: type[errors.HopArchiveError] = errors.HopArchiveError,
) -> list[type[errors.HopArchiveError]]:
    below = [found for sub in kind.__subclasses__() for found in error_kinds(sub)]
    return [kind, *below] if kind is not errors.HopArchiveError else below


raised: BaseException = Exception()


@click.command()
def failing() -> None:
    raise raised


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    monkeypatch.setitem(COMMANDS, "failing", ("hop_archive_tests.unit.cli.test_cli:failing", ""))
    Failing.patch = monkeypatch
    return Failing


class Failing:
    patch: pytest.MonkeyPatch

    def __init__(self, error: BaseException) -> None:
        self.patch.setattr(sys.modules[__name__], "raised", error)


@pytest.mark.parametrize("kind", error_kinds(), ids=lambda kind: kind.__name__)
def test_an_error_is_one_message_and_its_exit_code(
    kind: type[errors.HopArchiveError], fails_with: type[Failing]
) -> None:
    fails_with(kind("The bucket x is not there.", remedy="Make it."))
    result = invoke("failing")
    assert result.exit_code == kind.exit_code
    assert result.stderr == "Error: The bucket x is not there. Make it.\n"
    assert result.stdout == ""


@pytest.mark.parametrize("args", [("--debug", "failing"), ("failing", "--debug")])
def test_debug_shows_where_an_error_came_from(args: tuple[str, ...], fails_with: type[Failing]) -> None:
    fails_with(errors.UnavailableError("No answer."))
    result = invoke(*args)
    assert result.exit_code == 3
    assert "in failing" in result.stderr
    assert result.stderr.endswith("Error: No answer.\n")


def test_an_interruption_is_no_traceback(fails_with: type[Failing]) -> None:
    fails_with(KeyboardInterrupt())
    result = invoke("failing")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_a_bug_is_not_taken_for_a_finding(
    fails_with: type[Failing], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(ZeroDivisionError("oh"))
    monkeypatch.setattr(sys, "argv", ["hop-archive", "failing"])
    for stream in ("stdout", "stderr"):  # which the program replaces
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 70
    assert capfd.readouterr().err.endswith("ZeroDivisionError: oh\n")


def test_the_version_is_shown_whether_installed_or_not() -> None:
    assert invoke("--version").stdout.startswith("hop-archive ")


def test_commands_are_listed_in_the_order_of_their_use() -> None:
    assert isinstance(cli, Commands)
    assert cli.list_commands(click.Context(cli)) == list(hop_archive.cli.COMMANDS)
