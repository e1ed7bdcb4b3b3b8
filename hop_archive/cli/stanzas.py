"""``hop-archive list``: which stanzas there are, and which of them a command would use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.output import table
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


@dataclass(frozen=True, slots=True)
class Listed:
    """A stanza as it is listed.

    Attributes:
        kind: ``source``, ``database``, ``store`` or ``log``.
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
def list_stanzas(chosen: Chosen, *, as_json: bool) -> None:
    """List the stanzas that -H, -D, -S and -l can name.

    Of each: its type, where it leads (or which environment variables it lacks), which file it came from, and
    whether it is chosen, and by what. Nothing is connected.
    """
    listed = list(listing(chosen.setup(), os.environ))
    if as_json:
        click.echo(json.dumps({"stanzas": [asdict(one) for one in listed]}, indent=2))
        return
    for line in _lines(listed):
        click.echo(line)


def listing(setup: Setup, environ: Mapping[str, str]) -> Iterator[Listed]:
    """Describe every stanza, by kind and name."""
    for kind in ("source", "database", "store", "log"):
        stanzas: Mapping[str, Stanza] = getattr(setup.configuration, f"{kind}s")
        chosen, origin = getattr(setup.selection, kind), getattr(setup.selection, f"{kind}_from")
        for name in sorted(stanzas):
            yield _listed(kind, stanzas[name], origin if name == chosen else None, environ)


def _listed(kind: str, stanza: Stanza, selected: str | None, environ: Mapping[str, str]) -> Listed:
    address, missing, problem = _address(stanza, environ)
    return Listed(
        kind=kind,
        name=stanza.stanza_name,
        type=str(getattr(stanza, "type", "")),
        address=address,
        missing=missing,
        problem=problem,
        selected=selected,
        file=stanza.label.rpartition(": [")[0],
    )


def _address(stanza: Stanza, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...], str]:
    """Where a stanza leads, the variables that it lacks, and what else is wrong."""
    secrets = [name for name in stanza.secret_variables() if not environ.get(name)]
    try:
        return stanza.resolved(environ).describe(), tuple(secrets), ""
    except MissingSettingError as error:
        variables = error.facts["variables"]
        assert isinstance(variables, list)
        return "", tuple(dict.fromkeys([*variables, *secrets])), ""
    except ConfigurationError as error:
        return "", tuple(secrets), str(error)


def _lines(listed: list[Listed]) -> Iterator[str]:
    rows = [[_mark(one), f"{one.kind} {one.name}", one.type, one.file, _remark(one)] for one in listed]
    header, *body = table(["", "STANZA", "TYPE", "FROM", "LEADS TO"], rows)
    yield header
    for one, before, line in zip(listed, [listed[0], *listed], body, strict=False):
        if one.kind != before.kind:
            yield ""
        yield line
    yield ""
    yield from (f"* {one.kind} {one.name}: {_WHY[one.selected]}" for one in listed if one.selected)


def _mark(one: Listed) -> str:
    return "*" if one.selected else " "


def _remark(one: Listed) -> str:
    lacking = f"needs {', '.join(one.missing)}" if one.missing else one.problem
    return "; ".join(part for part in (one.address, lacking) if part)
