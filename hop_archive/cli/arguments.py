"""Arguments that say what they are."""

from __future__ import annotations

from typing import Any

import click


class Explained(click.Argument):
    """An argument with a meaning, which ``--help`` and docs/commands.md tell beside those of the options."""

    def __init__(self, *names: Any, help: str, **attributes: Any) -> None:  # noqa: A002 (click's word for it)
        super().__init__(*names, **attributes)
        self.meaning = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The argument as the usage line has it, and what it is."""
        return self.make_metavar(ctx), self.meaning
