"""``hop-archive schema``: the JSON schema of ``hop_archive.toml``, for editors."""

from __future__ import annotations

import click

from hop_archive.cli.output import print_json

_EPILOG = """\b
Examples:
  hop-archive schema > hop_archive.schema.json

\b
An editor that knows TOML's schemas (VS Code and others with Even Better TOML, or taplo) completes keys and shows what
they mean where the first line of the file names the schema:
  #:schema ./hop_archive.schema.json
or, of the newest version:
  #:schema https://raw.githubusercontent.com/scimma/hop-archive/main/docs/hop_archive.schema.json
"""


@click.command(epilog=_EPILOG)
def schema() -> None:
    """Print the JSON schema of hop_archive.toml: keys, types, choices, and what each means.

    An editor completes the file by it. What goes together in a stanza is checked when the file is read.
    """
    from hop_archive.config.schema import schema as made

    print_json(made(), ensure_ascii=False)
