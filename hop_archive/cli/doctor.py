"""``hop-archive doctor``: whether each part answers and lets the archive do its work, and what to do where not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import print_json
from hop_archive.errors import HopArchiveError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.catalog.protocol import Catalog
    from hop_archive.store.protocol import Store
    from hop_archive.upkeep.doctor import Check

_EPILOG = """\b
Examples:
  hop-archive doctor -H hop-prod -D aws-prod-db -S s3-prod
  hop-archive doctor -H hop-local -D local-db -S local-store --json

\b
Ends with 1 where a check failed. A warning is something to know; ? is what can't be told with these credentials.
One small object, hop_archive/probe, is made in the store, once, to learn whether it takes objects, leaves alone what
stands there and gives it back; where the stanza allows deleting, it is deleted again. --no-probe leaves that out.
"""

_SIGNS = {"ok": "ok", "warning": "WARNING", "unknown": "?", "failed": "FAILED"}
_COLOURS = {"warning": "yellow", "failed": "red"}


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "--probe/--no-probe", default=True, show_default=True, help="Try whether the store takes an object."
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, chosen: StanzaOptions, *, probe: bool, as_json: bool) -> None:
    """Check that everything the archive needs is there and lets it do its work.

    Of the chosen stanzas: whether the source answers, its topics can be read, and it lets nothing be written or
    deleted that the archive is not to; whether the database is migrated, writable and encoded in UTF8, and numbers new
    rows beyond the old ones; whether the bucket takes objects, never replaces one, and keeps versions and copies; whether
    clocks agree. Each failure comes with what to do about it. Messages, rows and objects of the archive are left alone.
    """
    setup = chosen.setup("source", "database", "store")
    checks = list(examined(setup, probe=probe))
    if as_json:
        print_json(as_object(checks, setup))
    else:
        names = setup.selection
        click.echo(f"Source {names.source}, database {names.database}, store {names.store}.")
        click.echo()
        cells = [(_SIGNS[check.verdict.value], check.part, check.what) for check in checks]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for check, row in zip(checks, cells, strict=True):
            sign, part, what = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            colour = _COLOURS.get(check.verdict.value)
            sign = click.style(sign, fg=colour) if colour else sign
            click.echo(f"{sign}  {part}  {what}  {check.detail}".rstrip())
            if check.remedy:
                click.echo(f"{'':{widths[0]}}  {'':{widths[1]}}  → {check.remedy}")
        click.echo()
        verdicts = [check.verdict.value for check in checks]
        failures, warnings = verdicts.count("failed"), verdicts.count("warning")
        if failures:
            click.echo(f"{failures} of {len(verdicts)} checks failed.")
        else:
            click.echo(f"All is well, with {counted(warnings, 'warning')}." if warnings else "All is well.")
    if any(check.verdict.value == "failed" for check in checks):
        ctx.exit(1)


def examined(setup: Setup, *, probe: bool) -> Iterator[Check]:
    """Look at all parts, each in a thread of its own, so that those that are down are waited for together."""
    looks: dict[str, Callable[[Setup], Iterator[Check]]] = {
        "source": _source,
        "database": _database,
        "store": functools.partial(_store, probe=probe),
        "backup": _backup,
        "clocks": _clocks,
    }
    with ThreadPoolExecutor(len(looks)) as pool:
        for found in pool.map(lambda part: _found(setup, part, looks[part]), looks):
            yield from found


def _found(setup: Setup, part: str, look: Callable[[Setup], Iterator[Check]]) -> list[Check]:
    """What a look found before it failed, and that it failed."""
    from hop_archive.upkeep.doctor import failed

    found: list[Check] = []
    try:
        found.extend(look(setup))
    except HopArchiveError as error:
        found.append(failed(part, "configuration", error))
    return found


def _source(setup: Setup) -> Iterator[Check]:
    from hop_archive.config.open import open_source
    from hop_archive.upkeep.doctor import examine_source

    name = setup.selection.source
    stanza = setup.configuration.source(name).resolved()
    with closing(open_source(name, stanza)) as source:
        yield from examine_source(
            source, stanza.policy(), writable=stanza.writable, production=stanza.production
        )


def _database(setup: Setup) -> Iterator[Check]:
    from hop_archive.config.open import open_catalog
    from hop_archive.upkeep.doctor import examine_catalog

    name = setup.selection.database
    stanza = setup.configuration.database(name).resolved()
    with closing(open_catalog(name, stanza)) as catalog:
        may = stanza.deleting_allowed or stanza.cleaning_allowed
        yield from examine_catalog(catalog, deleting_allowed=may)


def _store(setup: Setup, *, probe: bool) -> Iterator[Check]:
    from hop_archive.config.open import open_store
    from hop_archive.upkeep.doctor import examine_store

    name = setup.selection.store
    stanza = setup.configuration.store(name).resolved()
    with closing(open_store(name, stanza)) as store:
        is_copied = bool(getattr(stanza, "backup_bucket", ""))
        yield from examine_store(
            store,
            probe=probe,
            keeps_versions=is_copied or getattr(stanza, "endpoint", "-") == "",
            is_copied=is_copied,
            deleting_allowed=stanza.deleting_allowed,
        )


def _backup(setup: Setup) -> Iterator[Check]:
    from hop_archive.config.open import open_backup
    from hop_archive.upkeep.doctor import examine_store

    name = setup.selection.store
    try:
        backup = open_backup(name, setup.configuration.store(name))
    except HopArchiveError:
        return  # said already, of the store
    if backup is not None:
        with closing(backup):
            # Never probed: replication writes there, not the archive.
            yield from examine_store(backup, part="backup", probe=False, keeps_versions=True)


def _clocks(setup: Setup) -> Iterator[Check]:
    from hop_archive.archive import utc_now
    from hop_archive.upkeep.doctor import examine_clocks

    openers: Mapping[str, Callable[[], Catalog | Store]] = {
        "database": setup.open_catalog,
        "store": setup.open_store,
    }
    for name, opened in openers.items():
        try:
            with closing(opened()) as part:
                yield from examine_clocks(utc_now, {name: lambda: part.condition().at})
        except HopArchiveError:
            continue  # said already, of the part that it is about


def as_object(checks: Sequence[Check], setup: Setup) -> dict[str, Any]:
    """What ``--json`` prints."""
    chosen = setup.selection
    return {
        "source": chosen.source,
        "database": chosen.database,
        "store": chosen.store,
        "ok": all(check.verdict.value != "failed" for check in checks),
        "checks": [{**asdict(check), "verdict": check.verdict.value} for check in checks],
    }
