"""``hop-archive completion``: the TAB key knows commands, options and stanzas."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hop_archive.cli.options import Explained
from hop_archive.errors import ConfigurationError

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

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise ConfigurationError(
            f"Which shell this is, is not known: the variable SHELL is {os.environ.get('SHELL', '')!r}.",
            remedy=f"Name it: hop-archive completion {'|'.join(_SHELLS)}.",
        )
    maker = get_completion_class(name)
    assert maker is not None
    click.echo(maker(cli, {}, "hop-archive", "_HOP_ARCHIVE_COMPLETE").source())
