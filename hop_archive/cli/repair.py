"""``hop-archive repair``: mends what verification found, after showing how."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.findings import chosen_kinds
from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.parts import catalog_of, store_of
from hop_archive.cli.verify import as_object, line
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from hop_archive.upkeep.repair.objects import Means
    from hop_archive.upkeep.repair.repair import Mending, Repair

_EPILOG = """\b
Examples:
  hop-archive repair -H hop-local -D local-db -S local-store
      the plan: of each open finding, what would be done; nothing is changed
  hop-archive repair -H hop-local -D local-db -S local-store --yes
      and does it
  hop-archive repair -H hop-prod -D aws-prod-db -S s3-prod --verify --deep -T gcn.notices
      looks first, into every document, and plans what it then finds

\b
How findings are mended:
  missing_object, wrong_size, corrupt_object
      the document from where it ought to stand, the backup bucket, or Kafka,
      where its bytes are those that the row knows; damaged bytes are never
      overwritten: good ones go under another key, the rows name that, and the
      damaged object is moved to hop_archive/quarantine/
  row_differs      the row from its document, where that proves itself
  orphan_object    catalogued where it proves itself and is missing, else moved
                   to hop_archive/quarantine/, and left while a run may name it
  coverage_hole    a ledger row from the rows, and from what Kafka still holds
  count_mismatch   what is missing is put back; what is too much is counted anew
  not_archived     a copy that the ledger calls absent is recorded as one, as
                   after a rebuild; what Kafka holds, the next run archives
  lost, foreign_object, log_truncated
                   are left, with what to do about them
  no_leader, not_readable, not_shown, left_undone
                   are left: what archives past them closes them
The source is asked only where it is named (-H). To move objects aside, the
store's stanza has to allow deleting; the role needs the rights of
hop_archive_repairer (deploy/postgres/roles.sql).

\b
Ends with 0 where nothing is left open, and with 1 where something is. Ctrl-C
ends it between two findings; run it again to go on.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "-T", "--topic", "topics", metavar="NAME", multiple=True, help="Only of this topic. May be given again."
)
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only of this kind. May be given again.")
@click.option(
    "--verify", "first", is_flag=True, help="Verify first, objects and ledger, as hop-archive verify does."
)
@click.option("--deep", is_flag=True, help="With --verify: fetch and compare every document, too.")
@click.option(
    "--yes",
    "-y",
    is_flag=True,
    help="Do it, and tell of each finding what was done; without this, the plan is shown.",
)
@json_option
@click.pass_context
def repair(
    ctx: click.Context,
    chosen: Chosen,
    topics: tuple[str, ...],
    kinds: tuple[str, ...],
    *,
    first: bool,
    deep: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Mend what verification found: show what would be done, and with --yes do it.

    Nothing is overwritten, and nothing is deleted but what stands elsewhere byte for byte.
    """
    from hop_archive.cli.stopping import Stop
    from hop_archive.upkeep.repair.repair import Repair

    setup = chosen.setup("database", "store")
    stop = Stop()
    with _means(setup) as means, stop.on_signals():
        if first or deep:
            _verify(means, topics, deep=deep)
        wanted = Repair(means, topics or None, chosen_kinds(kinds), stop=stop)
        left = _go(wanted, yes=yes, as_json=as_json)
    if stop.requested:
        ctx.exit(130)
    if left:
        ctx.exit(1)


@contextlib.contextmanager
def _means(setup: Setup) -> Iterator[Means]:
    from hop_archive.config.open import backup_grace_s, open_backup
    from hop_archive.upkeep.repair.objects import Means
    from hop_archive.upkeep.repair.upstream import Upstream

    chosen = setup.selection
    with contextlib.ExitStack() as ending:
        catalog = ending.enter_context(contextlib.closing(catalog_of(setup)))
        store = ending.enter_context(contextlib.closing(store_of(setup)))
        stanza = setup.configuration.store(chosen.store)
        backup = open_backup(chosen.store, stanza)
        if backup is not None:
            ending.enter_context(contextlib.closing(backup))
        archive = ending.enter_context(contextlib.closing(setup.open())) if chosen.asks_source else None
        catalog.check()
        store.check()
        yield Means(catalog, store, backup, Upstream(archive), backup_grace_s=backup_grace_s(stanza))


def _verify(means: Means, topics: tuple[str, ...], *, deep: bool) -> None:
    from hop_archive.model.query import Query
    from hop_archive.upkeep.verify.notebook import Notebook
    from hop_archive.upkeep.verify.verification import Verification
    from hop_archive.upkeep.verify.verify import verify

    verification = Verification(
        means.catalog, means.store, Query(topics), backup=means.backup, backup_grace_s=means.backup_grace_s
    )
    found = sum(is_open for _, is_open in verify(verification, Notebook(means.catalog), deep=deep))
    click.echo(f"Verified: {counted(found, 'finding')} found.", err=True)


def _go(wanted: Repair, *, yes: bool, as_json: bool) -> int:
    """Show the plan, and do it where that is wanted; how many findings are left open."""
    from hop_archive.upkeep.repair.repair import Fate, repair

    if as_json:
        return _shown_json(repair(wanted, dry_run=not yes))
    if yes:
        return _do(wanted)
    counts = _shown(repair(wanted))
    if not counts:
        click.echo("Nothing is open.")
        return 0
    to_do = counts[Fate.PLANNED] + counts[Fate.GONE]
    if not to_do:
        click.echo(f"Nothing of it can be mended; {counted(counts[Fate.LEFT], 'finding')} left open.")
        return counts[Fate.LEFT]
    if not (sys.stdin.isatty() and click.confirm(f"Mend {counted(to_do, 'finding')} now?")):
        click.echo(f"Nothing was changed. Add --yes to mend {counted(to_do, 'finding')}.")
        return counts[Fate.PLANNED] + counts[Fate.LEFT] + counts[Fate.GONE]
    return _do(wanted)


def _do(wanted: Repair) -> int:
    from hop_archive.upkeep.repair.repair import Fate, repair

    done = _shown(repair(wanted, dry_run=False))
    if not done:
        click.echo("Nothing is open.")
        return 0
    click.echo(
        f"{counted(done[Fate.MENDED], 'finding')} mended, {done[Fate.GONE]} not there any more, {done[Fate.LEFT]} left open."
    )
    return done[Fate.LEFT]


def _shown(mendings: Iterator[Mending]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for one in mendings:
        counts[one.fate] += 1
        what = f"{one.fate.value:8}{one.record.number}  {line(one.record.finding)}"
        click.echo(f"{what}\n        {harmless(one.how)}")
    return counts


def _shown_json(mendings: Iterator[Mending]) -> int:
    from hop_archive.upkeep.repair.repair import Fate

    counts: Counter[str] = Counter()
    click.echo('{"findings": [', nl=False)
    try:
        for number, one in enumerate(mendings):
            counts[one.fate.value] += 1
            told = {"number": one.record.number, "fate": one.fate.value, "how": one.how}
            click.echo(
                f"{',' if number else ''}\n{json.dumps({**told, **as_object(one.record.finding)})}", nl=False
            )
    finally:
        click.echo(f'], "counts": {json.dumps(dict(counts))}}}')
    return counts[Fate.LEFT.value] + counts[Fate.PLANNED.value]
