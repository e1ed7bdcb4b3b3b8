"""``hop-archive repair``: mends what verification found, after showing how."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import JsonList, print_lines, say
from hop_archive.cli.stopping import Stop
from hop_archive.cli.verify import as_object, line
from hop_archive.model.findings import kinds_of
from hop_archive.model.query import Query
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from hop_archive.upkeep.repair.plan import Repair
    from hop_archive.upkeep.repair.repair import RepairResult

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
  frozen_object    is left until it is restored from cold storage
  row_differs      the row from its document, where that proves itself
  orphan_object    catalogued where it proves itself and is missing, else moved
                   to hop_archive/quarantine/, and left while a run may name it, and
                   where it alone has a message: rebuild-catalog takes that in
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
@topic_option("Only of this topic; a name or a glob. May be given again.")
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
def repair(
    chosen: StanzaOptions,
    topics: tuple[str, ...],
    kinds: tuple[str, ...],
    *,
    first: bool,
    deep: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Mend what verification found: show what would be done, and with --yes do it.

    Nothing is overwritten, and nothing is deleted but what stands elsewhere byte for byte.
    """
    from hop_archive.upkeep.repair.plan import topics_meant
    from hop_archive.upkeep.repair.repair import RepairOutcome
    from hop_archive.upkeep.repair.repair import repair as repaired
    from hop_archive.upkeep.verify.recorder import FindingsRecorder
    from hop_archive.upkeep.verify.verification import Verification
    from hop_archive.upkeep.verify.verify import verify

    setup = chosen.setup("database", "store")
    stop = Stop()
    with _opened(setup) as asked, stop.on_signals():
        meant = topics_meant(asked.catalog, topics)
        if first or deep:
            verification = Verification(
                asked.catalog,
                asked.store,
                Query(topics),
                backup=asked.backup,
                backup_grace_s=asked.backup_grace_s,
            )
            recorder = FindingsRecorder(asked.catalog)
            found = sum(is_open for _, is_open in verify(verification, recorder, deep=deep))
            say(f"Verified: {counted(found, 'finding')} found.", err=True)
            recorder.refuse_to_forget(found)
        asked = replace(asked, topics=meant, kinds=kinds_of(kinds), stop=stop)
        if as_json:
            counts: Counter[str] = Counter()
            listed = JsonList("findings")
            try:
                for result in repaired(asked, dry_run=not yes):
                    counts[result.outcome.value] += 1
                    about = {"number": result.record.number, "fate": result.outcome.value, "how": result.how}
                    listed.add({**about, **as_object(result.record.finding)})
            finally:
                listed.end(counts=counts)
            left = counts[RepairOutcome.LEFT.value] + counts[RepairOutcome.PLANNED.value]
        else:
            left = _go(asked, yes=yes)
    if stop.requested:
        return 130
    return 1 if left else 0


@contextlib.contextmanager
def _opened(setup: Setup) -> Iterator[Repair]:
    from hop_archive.upkeep.repair.plan import Repair, Upstream

    with (
        setup.backup() as (backup, backup_grace_s),
        contextlib.closing(setup.open())
        if setup.selection.asks_source
        else contextlib.nullcontext() as archive,
        setup.catalog_and_store() as (catalog, store),
    ):
        yield Repair(catalog, store, backup, Upstream(archive), backup_grace_s=backup_grace_s)


def _go(asked: Repair, *, yes: bool) -> int:
    """Show the plan, and do it where that is asked; how many findings are left open."""
    from hop_archive.upkeep.repair.repair import RepairOutcome, repair

    if not yes:
        counts = _shown(repair(asked))
        to_do = counts[RepairOutcome.PLANNED] + counts[RepairOutcome.GONE]
        if not counts:
            say("Nothing is open.")
            return 0
        if not to_do:
            print_lines(
                [f"Nothing of it can be mended; {counted(counts[RepairOutcome.LEFT], 'finding')} left open."]
            )
            return counts[RepairOutcome.LEFT]
        if not (sys.stdin.isatty() and click.confirm(f"Mend {counted(to_do, 'finding')} now?")):
            say(f"Nothing was changed. Add --yes to mend {counted(to_do, 'finding')}.")
            return to_do + counts[RepairOutcome.LEFT]
    done = _shown(repair(asked, dry_run=False))
    if not done:
        say("Nothing is open.")
        return 0
    print_lines(
        [
            f"{counted(done[RepairOutcome.MENDED], 'finding')} mended, {done[RepairOutcome.GONE]} not there any more, {done[RepairOutcome.LEFT]} left open."
        ]
    )
    return done[RepairOutcome.LEFT]


def _shown(results: Iterator[RepairResult]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for result in results:
        counts[result.outcome] += 1
        print_lines([f"{result.outcome.value:8}{result.record.number}  {line(result.record.finding)}"])
        print_lines([f"        {harmless(result.how)}"])
    return counts
