"""``hop-archive doctor``: whether each part answers and lets the archive do its work, and what to do where not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.parts import catalog_of, store_of
from hop_archive.errors import HopArchiveError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    import datetime

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
def doctor(ctx: click.Context, chosen: Chosen, *, probe: bool, as_json: bool) -> None:
    """Check that everything the archive needs is there and lets it do its work.

    Of the chosen stanzas: whether the source answers, its topics can be read, and it lets nothing be written or
    deleted that the archive is not to; whether the database is migrated, writable and encoded in UTF8, and numbers new
    rows beyond the old ones; whether the bucket takes objects, never replaces one, and keeps versions and copies; whether
    clocks agree. Each failure comes with what to do about it. Messages, rows and objects of the archive are left alone.
    """
    setup = chosen.setup("source", "database", "store")
    checks = list(examined(setup, probe=probe))
    if as_json:
        click.echo(json.dumps(as_object(checks, setup), indent=2))
    else:
        for line in _lines(checks, setup):
            click.echo(line)
    if any(check.verdict.value == "failed" for check in checks):
        ctx.exit(1)


def examined(setup: Setup, *, probe: bool) -> Iterator[Check]:
    """Look at all parts, each in a thread of its own, so that those that are down are waited for together."""
    looks = (_source, _database, functools.partial(_store, probe=probe), _backup, _clocks)
    with ThreadPoolExecutor(len(looks)) as pool:
        for found in pool.map(lambda look: list(look(setup)), looks):
            yield from found


def _source(setup: Setup) -> Iterator[Check]:
    from hop_archive.config.open import open_source
    from hop_archive.upkeep.doctor import examine_source, failed

    name = setup.selection.source
    try:
        stanza = setup.configuration.source(name).resolved()
        with closing(open_source(name, stanza)) as source:
            yield from examine_source(
                source, stanza.policy(), writable=stanza.writable, production=stanza.production
            )
    except HopArchiveError as error:
        yield failed("source", "configuration", error)


def _database(setup: Setup) -> Iterator[Check]:
    from hop_archive.config.open import open_catalog
    from hop_archive.upkeep.doctor import examine_catalog, failed

    name = setup.selection.database
    try:
        stanza = setup.configuration.database(name).resolved()
        with closing(open_catalog(name, stanza)) as catalog:
            may = stanza.deleting_allowed or stanza.cleaning_allowed
            yield from examine_catalog(catalog, deleting_allowed=may)
    except HopArchiveError as error:
        yield failed("database", "configuration", error)


def _store(setup: Setup, *, probe: bool) -> Iterator[Check]:
    from hop_archive.config.open import open_store
    from hop_archive.upkeep.doctor import examine_store, failed

    name = setup.selection.store
    try:
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
    except HopArchiveError as error:
        yield failed("store", "configuration", error)


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

    openers: Mapping[str, Callable[[Setup], Catalog | Store]] = {"database": catalog_of, "store": store_of}
    for name, opened in openers.items():
        try:
            with closing(opened(setup)) as part:
                yield from examine_clocks(utc_now, {name: functools.partial(_clock_of, part)})
        except HopArchiveError:
            continue  # said already, of the part that it is about


def _clock_of(part: Catalog | Store) -> datetime.datetime | None:
    return part.condition().at


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


def _lines(checks: Sequence[Check], setup: Setup) -> Iterator[str]:
    chosen = setup.selection
    yield f"Source {chosen.source}, database {chosen.database}, store {chosen.store}."
    yield ""
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, checks), strict=True)]
    for check in checks:
        yield _line(check, widths)
        if check.remedy:
            yield f"{'':{widths[0]}}  {'':{widths[1]}}  → {check.remedy}"
    yield ""
    yield _verdict([check.verdict.value for check in checks])


def _cells(check: Check) -> tuple[str, str, str]:
    return _SIGNS[check.verdict.value], check.part, check.what


def _line(check: Check, widths: Sequence[int]) -> str:
    sign, part, what = (cell.ljust(width) for cell, width in zip(_cells(check), widths, strict=True))
    colour = _COLOURS.get(check.verdict.value)
    return f"{click.style(sign, fg=colour) if colour else sign}  {part}  {what}  {check.detail}".rstrip()


def _verdict(verdicts: Sequence[str]) -> str:
    if (failures := verdicts.count("failed")) > 0:
        return f"{failures} of {len(verdicts)} checks failed."
    warnings = verdicts.count("warning")
    return f"All is well, with {counted(warnings, 'warning')}." if warnings else "All is well."
