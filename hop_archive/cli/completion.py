"""``hop-archive completion``: the TAB key knows commands, options and stanzas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hop_archive.cli.arguments import Explained
from hop_archive.errors import ConfigurationError, HopArchiveError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\b
Examples:
  eval "$(hop-archive completion)"                           for this shell
  hop-archive completion bash >> ~/.bashrc                   for every one
  hop-archive completion zsh >> ~/.zshrc
  hop-archive completion fish > ~/.config/fish/completions/hop-archive.fish
"""


@click.command(epilog=_EPILOG)
@click.argument(
    "shell",
    type=click.Choice(_SHELLS),
    required=False,
    cls=Explained,
    help="For which shell.  [default: the one that $SHELL names]",
)
def completion(shell: str | None) -> None:
    """Print what makes the TAB key complete commands, options and names of stanzas in SHELL.

    Without SHELL it is the one that the variable SHELL names.
    """
    from click.shell_completion import get_completion_class

    from hop_archive.cli import cli

    maker = get_completion_class(shell or _own_shell())
    assert maker is not None
    click.echo(maker(cli, {}, "hop-archive", "_HOP_ARCHIVE_COMPLETE").source())


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name in _SHELLS:
        return name
    raise ConfigurationError(
        f"Which shell this is, is not known: the variable SHELL is {os.environ.get('SHELL', '')!r}.",
        remedy=f"Name it: hop-archive completion {'|'.join(_SHELLS)}.",
    )


def stanza_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stanzas that the option of this name may name: ``--source``, ``--database``, ``--store`` or ``--log``.

    Nothing where the configuration cannot be read: a TAB is no place for an error.
    """
    from click.shell_completion import CompletionItem

    from hop_archive.config.load import load

    try:
        stanzas = getattr(load(ctx.params.get("toml_file")), f"{parameter.name}s")
    except HopArchiveError:
        return []
    return [
        CompletionItem(name, help=stanza.describe())
        for name, stanza in sorted(stanzas.items())
        if name.startswith(incomplete)
    ]
