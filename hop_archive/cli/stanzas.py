"""``hop-archive list``: which stanzas there are, and which of them a command would use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, get_args

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import print_json, print_lines, table
from hop_archive.errors import ConfigurationError, MissingSettingError

if TYPE_CHECKING:
    from hop_archive.config.stanzas import Stanza

_EPILOG = """\b
Examples:
  hop-archive list
  hop-archive list -t my.toml -H hop-prod --json

\b
A variable that is missing is no error here: only a stanza that is used needs its own.
"""

_WHY = {"option": "chosen by option", "environment": "chosen by the environment", "default": "the default"}

_COLUMNS = ("", "STANZA", "TYPE", "FROM", "LEADS TO")


@dataclass(frozen=True, slots=True)
class ListedStanza:
    """A stanza as it is listed.

    Attributes:
        kind: ``source``, ``database``, ``store``, ``log`` or ``alert``.
        name: NAME of ``[kind.NAME]``.
        type: What it says of its type.
        address: Where it leads; '' where that is not known for want of variables.
        missing: Variables that it names and that are not set.
        problem: What else is wrong with what the variables hold; '' where nothing is.
        selected: ``option``, ``environment`` or ``default``, by which it is chosen; None where it is not.
        file: Where it was read from.
    """

    kind: str
    name: str
    type: str
    address: str
    missing: tuple[str, ...]
    problem: str
    selected: str | None
    file: str


@click.command("list", epilog=_EPILOG)
@stanza_options
@json_option
def list_stanzas(chosen: StanzaOptions, *, as_json: bool) -> None:
    """List the stanzas that -H, -D, -S, -l and --alert can name.

    Of each: its type, where it leads (or which environment variables it lacks), which file it came from, and
    whether it is chosen, and by what. Nothing is connected.
    """
    listed = list(listing(chosen.setup(), os.environ))
    if as_json:
        print_json({"stanzas": [asdict(stanza) for stanza in listed]})
        return
    rows: list[list[str]] = []
    kind = listed[0].kind
    for stanza in listed:
        lacking = f"needs {', '.join(stanza.missing)}" if stanza.missing else stanza.problem
        leads_to = "; ".join(part for part in (stanza.address, lacking) if part)
        mark = "*" if stanza.selected else ""
        if stanza.kind != kind:
            rows.append([""] * len(_COLUMNS))
        kind = stanza.kind
        rows.append([mark, f"{stanza.kind} {stanza.name}", stanza.type, stanza.file, leads_to])
    print_lines(table(_COLUMNS, rows, optional=("FROM",)))
    click.echo()
    print_lines(f"* {s.kind} {s.name}: {_WHY[s.selected]}" for s in listed if s.selected)


def listing(setup: Setup, environ: Mapping[str, str]) -> Iterator[ListedStanza]:
    """Describe every stanza, by kind and name."""
    from hop_archive.config.load import Kind, select_alerts

    by_environment = select_alerts(setup.configuration, (), environ)
    for kind in get_args(Kind):
        stanzas: Mapping[str, Stanza] = getattr(setup.configuration, f"{kind}s")
        chosen, origin = by_environment, "environment"
        if kind != "alert":
            chosen, origin = (getattr(setup.selection, kind),), getattr(setup.selection, f"{kind}_from")
        for name, stanza in sorted(stanzas.items()):
            secrets = [secret for secret in stanza.secret_variables() if not environ.get(secret)]
            address, missing, problem = "", secrets, ""
            try:
                address = stanza.resolved(environ).describe()
            except MissingSettingError as error:
                variables = error.facts["variables"]
                assert isinstance(variables, list)
                missing = [*variables, *secrets]
            except ConfigurationError as error:
                problem = str(error)
            yield ListedStanza(
                kind=kind,
                name=stanza.stanza_name,
                type=str(getattr(stanza, "type", "")),
                address=address,
                missing=tuple(dict.fromkeys(missing)),
                problem=problem,
                selected=origin if name in chosen else None,
                file=stanza.label.rpartition(": [")[0],
            )
