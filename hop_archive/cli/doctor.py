"""``hop-archive doctor``: whether each part answers and lets the archive do its work, and what to do where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import print_json, print_lines, say
from hop_archive.errors import HopArchiveError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
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
_PARTS = ("source", "database", "store", "backup", "archive", "clocks")
_COLOURS = {"warning": "yellow", "failed": "red"}


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "--probe/--no-probe", default=True, show_default=True, help="Try whether the store takes an object."
)
@json_option
def doctor(chosen: StanzaOptions, *, probe: bool, as_json: bool) -> int:
    """Check that everything the archive needs is there and lets it do its work.

    Of the chosen stanzas: whether the source answers, its topics can be read, and it lets nothing be written or
    deleted that the archive is not to; whether the database is migrated, writable and encoded in UTF8, numbers new
    rows beyond the old ones, and what archive-core left to its readers stays readable; whether the bucket takes objects, never replaces one, and keeps versions and copies; whether
    clocks agree. Each failure comes with what to do about it. Messages, rows and objects of the archive are left alone.
    """
    setup = chosen.setup("source", "database", "store")
    checks = list(examined(setup, probe=probe))
    verdicts = [check.verdict.value for check in checks]
    failures, warnings = verdicts.count("failed"), verdicts.count("warning")
    if as_json:
        print_json(as_object(checks, setup))
    else:
        names = setup.selection
        print_lines([f"Source {names.source}, database {names.database}, store {names.store}."])
        click.echo()
        cells = [(_SIGNS[check.verdict.value], check.part, check.what) for check in checks]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for check, row in zip(checks, cells, strict=True):
            sign, part, what = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            colour = _COLOURS.get(check.verdict.value)
            sign = click.style(sign, fg=colour) if colour else sign
            print_lines([f"{sign}  {part}  {what}  {check.detail}".rstrip()])
            if check.remedy:
                print_lines([f"{'':{widths[0]}}  {'':{widths[1]}}  → {check.remedy}"])
        click.echo()
        if failures:
            say(f"{failures} of {len(verdicts)} checks failed.")
        else:
            say(f"All is well, with {counted(warnings, 'warning')}." if warnings else "All is well.")
    return 1 if failures else 0


def examined(setup: Setup, *, probe: bool) -> Iterator[Check]:
    """Look at all parts, each in a thread of its own, so that those that are down are waited for together."""
    from hop_archive.upkeep.doctor import failed

    def look(part: str) -> list[Check]:
        found: list[Check] = []
        try:
            found.extend(_examined(setup, part, probe=probe))
        except HopArchiveError as error:
            found.append(failed(part, "configuration", error))
        return found

    with ThreadPoolExecutor(len(_PARTS)) as pool:
        for found in pool.map(look, _PARTS):
            yield from found


def _examined(setup: Setup, part: str, *, probe: bool) -> Iterator[Check]:
    """Examine one part: what answers, and lets the archive do its work."""
    from hop_archive.archive import utc_now
    from hop_archive.config.open import open_backup
    from hop_archive.upkeep.doctor import (
        examine_catalog,
        examine_clocks,
        examine_source,
        examine_store,
        examine_together,
    )

    chosen, stanzas = setup.selection, setup.configuration
    match part:
        case "source":
            stanza = stanzas.source(chosen.source).resolved()
            with closing(setup.open_source()) as source:
                writable, production = stanza.writable, stanza.production
                yield from examine_source(source, stanza.policy(), writable=writable, production=production)
        case "database":
            database = stanzas.database(chosen.database).resolved()
            with closing(setup.open_catalog()) as catalog:
                may = database.deleting_allowed or database.cleaning_allowed
                yield from examine_catalog(
                    catalog,
                    deleting_allowed=may,
                    indexes_text=bool(database.index_text),
                    layouts=stanzas.store(chosen.store).layout_policy(),
                )
        case "store":
            bucket = stanzas.store(chosen.store).resolved()
            is_copied = bool(getattr(bucket, "backup_bucket", ""))
            with closing(setup.open_store()) as store:
                yield from examine_store(
                    store,
                    probe=probe,
                    keeps_versions=is_copied or getattr(bucket, "endpoint", "-") == "",
                    is_copied=is_copied,
                    deleting_allowed=bucket.deleting_allowed,
                )
        case "backup":
            backup = None
            with suppress(HopArchiveError):  # said already, of the store
                backup = open_backup(chosen.store, stanzas.store(chosen.store))
            if backup is not None:
                with closing(backup):
                    # Never probed: replication writes there, not the archive.
                    yield from examine_store(backup, part="backup", probe=False, keeps_versions=True)
        case "archive":
            with suppress(HopArchiveError), setup.catalog_and_store() as (catalog, store):
                yield from examine_together(catalog, store)
        case "clocks":
            # What cannot be opened was said already, of the part that it is.
            with suppress(HopArchiveError), closing(setup.open_catalog()) as catalog:
                yield from examine_clocks(utc_now, {"database": lambda: catalog.condition().at})
            with suppress(HopArchiveError), closing(setup.open_store()) as store:
                yield from examine_clocks(utc_now, {"store": lambda: store.condition().at})


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
