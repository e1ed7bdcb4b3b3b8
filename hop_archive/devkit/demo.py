"""``make demo``: sample alerts through a real Kafka, Dagster, S3 and Postgres, and every one compared.

Publishes alerts of all kinds to the local stack, lets Dagster's daemon find and archive them by its sensors,
then reads every message back from S3 and compares it with what was sent and with what Kafka delivers. At last it
verifies the archive, and restores a topic to another one.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import dagster as dg
from rich.console import Console
from rich.table import Table

from hop_archive.archive import Archive
from hop_archive.devkit.patience import Patience
from hop_archive.devkit.prove import TopicProof, prove
from hop_archive.devkit.publish import publish
from hop_archive.devkit.samples import samples
from hop_archive.devkit.sampling import create_sample_topics
from hop_archive.devkit.workbench import INSTANCE_FILE, Workbench, interrupted_by_signals, set_up, still_up
from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.ingest.survey import survey
from hop_archive.model.query import Query
from hop_archive.model.wording import size
from hop_archive.orchestration.runs import LIVE
from hop_archive.read.topic_facts import status
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import restore
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.sent import Place, Sent, sent_by_place
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify

_STILL_S = 180.0
"""Nothing may move for so long. On a busy machine of two cores Dagster takes a minute to its first run."""

_LONGEST_S = 1_800.0
_LOOK_EVERY_S = 1.0
_SAY_EVERY_S = 20.0
_REPORTING_S = 30.0
"""For so long runs may go on that have archived all: those that follow do for minutes."""

_MOST_FAILED = 2
"""A run that fails is tried again; that more fail is no chance."""

_INTERRUPTED = 130
RESTORED = "gcn.notices"
"""The topic that is put back, under another name."""

_HASTE = {"HOP_ARCHIVE_LONGEST_WAIT_S": "2", "HOP_ARCHIVE_FOLLOW_S": "0"}
"""So that a few alerts that wait for more to come do not hold up who watches; the environment may say otherwise."""


_WHERE_TO_LOOK = """
Where to look (the servers are still up; `make down` stops them, data stay):
  the UI          make dev          then http://127.0.0.1:3000
  this shell      eval "$(.venv/bin/hop-archive local env --dir {directory})"
  status          .venv/bin/hop-archive status -H hop-local -D local-db -S local-store
  the catalog     psql "$HOP_ARCHIVE_LOCAL_DATABASE_URL" -c 'table topics'
  the objects     s3://$HOP_ARCHIVE_LOCAL_BUCKET at $HOP_ARCHIVE_LOCAL_S3_ENDPOINT
  Dagster's log   {directory}/dagster-daemon.log"""


@click.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=Path(".local-stack"), show_default=True
)
@click.option("--count", default=2_000, show_default=True, help="How many sample alerts to publish.")
def main(directory: Path, count: int) -> None:
    """Show the archive at work, from Kafka to S3 and back: in about a minute, on a slow machine as long as it takes."""
    console, code = Console(), 1
    try:
        with interrupted_by_signals():
            code = 0 if _demonstrate(console, directory, count) else 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        code = _INTERRUPTED
    except HopArchiveError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        code = error.exit_code
    if code and (told := still_up(directory)):
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code)


def _demonstrate(console: Console, directory: Path, count: int) -> bool:
    """Whether every alert went all the way, and came back as it was sent."""
    console.print("[bold]1.[/bold] Starting Kafka, Postgres and S3 on this machine …")
    bench = set_up(directory, Path(INSTANCE_FILE))
    archive = bench.archive()
    began_ms = int(time.time() * 1000) - count
    try:
        sent = _publish(console, archive, count, began_ms)
        _archive(console, bench, archive)
        proofs = _prove(console, archive, sent)
        well = _verify(console, archive) and _restore(console, archive, began_ms)
    finally:
        archive.close()
    well = well and bool(proofs) and all(proof.holds for proof in proofs)
    console.print(
        "[green]Every alert is archived and came back as it was sent.[/green]"
        if well
        else "[red]Not all is as it was sent: see what is red above.[/red]"
    )
    where = _WHERE_TO_LOOK.format(directory=bench.directory)
    console.print(where, markup=False, highlight=False, soft_wrap=True)
    return well


def _publish(console: Console, archive: Archive, count: int, began_ms: int) -> dict[Place, Sent]:
    create_sample_topics(archive.source)
    # A seed of its own for each run, so that a second demo publishes new alerts; timestamps end at about now.
    seed = random.SystemRandom().randrange(1 << 30)
    alerts = list(samples(count, seed=seed, now_ms=began_ms))
    receipts = [r for portion in publish(archive.source, alerts, sleep=time.sleep) for r in portion]
    console.print(
        f"[bold]2.[/bold] Published {len(receipts)} sample alerts to {len({r.topic for r in receipts})} topics"
    )
    vetoed = [r.topic for r in receipts if not archive.topics.archived(r.topic)]
    where = ", ".join(sorted(set(vetoed)))
    console.print(f"   {len(vetoed)} of them to {where}, which is vetoed: not archived")
    return sent_by_place(alerts, receipts)


def _archive(console: Console, bench: Workbench, archive: Archive) -> None:
    """Let the daemon archive all that there is, for as long as it gets on.

    Raises:
        UnavailableError: It ended, its runs fail, or nothing moves any more.
    """
    log = bench.directory / "dagster-daemon.log"
    bench = replace(bench, environ={**_HASTE, **bench.environ})
    command = bench.command("dagster-daemon", "run", *bench.code)
    console.print("[bold]3.[/bold] Dagster's daemon is started; its sensors find the topics and start runs …")
    patience, said_s = Patience(_STILL_S, _LONGEST_S), 0.0
    with (
        dg.DagsterInstance.from_config(str(bench.dagster_home)) as instance,
        bench.running(*command, log=log) as daemon,
    ):
        failed_before = _runs(instance)[dg.DagsterRunStatus.FAILURE]
        reporting = Patience(_REPORTING_S, _REPORTING_S)
        while True:
            left, runs = sum(survey(archive).pending().values()), _runs(instance)
            live = sum(runs[status] for status in LIVE)
            if left:
                reporting = Patience(_REPORTING_S, _REPORTING_S)
            elif not live or reporting.is_over(live):
                break  # rows are there a moment before their run has reported
            failed = runs.pop(dg.DagsterRunStatus.FAILURE) - failed_before
            why = patience.is_over((left, runs, frozenset(instance.get_daemon_heartbeats())))
            if daemon.poll() is not None:
                why = f"Dagster's daemon ended with {daemon.returncode}"
            elif failed > _MOST_FAILED:
                why = f"{failed} of Dagster's runs failed"
            if why:
                raise UnavailableError(f"{left:,} messages are not archived: {why}.", remedy=f"See {log}.")
            if patience.waited_s - said_s >= _SAY_EVERY_S:
                said_s = patience.waited_s
                console.print(f"   {left:,} messages to go, {live} runs under way, after {said_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        console.print(f"   caught up after {patience.waited_s:.0f} s")


def _runs(instance: dg.DagsterInstance) -> dict[dg.DagsterRunStatus, int]:
    """How many runs there are, by status."""
    return {
        status: instance.get_runs_count(dg.RunsFilter(statuses=[status])) for status in dg.DagsterRunStatus
    }


def _prove(console: Console, archive: Archive, sent: dict[Place, Sent]) -> list[TopicProof]:
    console.print(
        "[bold]4.[/bold] Reading every message back from S3; comparing with Kafka and with what was sent …"
    )
    proofs = prove(archive, sorted(t for t in archive.source.topics() if archive.topics.archived(t)), sent)
    for difference in [d for proof in proofs for d in proof.differences][:20]:
        console.print(f"   {difference}", style="red", markup=False)
    table = Table(title="What is archived", title_justify="left")
    table.add_column("topic", overflow="fold")
    for name in ("messages", "duplicates", "size", "compared"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result")
    by_topic = {proof.topic: proof for proof in proofs}
    for row in status(archive).topics:
        delivered = verdict = ""
        if proof := by_topic.get(row.topic):
            delivered = str(proof.delivered)
            verdict = "[green]all the same[/green]" if proof.holds else "[red]differs[/red]"
        total = row.total
        table.add_row(
            row.topic, str(total.messages), str(total.duplicates), size(total.size_bytes), delivered, verdict
        )
    console.print(table)
    return proofs


def _verify(console: Console, archive: Archive) -> bool:
    """Whether nothing is wrong."""
    console.print(
        "[bold]5.[/bold] Verifying objects, ledger and every document, as hop-archive verify --deep does …"
    )
    verification = Verification(archive.catalog, archive.store)
    recorder = FindingsRecorder(archive.catalog, keeps=False)
    findings = [finding for finding, _ in verify(verification, recorder, deep=True)]
    for finding in findings[:20]:
        console.print(f"   {finding.kind.value} {finding.topic}: {finding.detail}", style="red", markup=False)
    if not findings:
        counts = verification.checked.counts
        console.print(f"   nothing is wrong: {counts['objects']} objects, {counts['messages']} documents")
    return not findings


def _restore(console: Console, archive: Archive, since_ms: int) -> bool:
    console.print(
        f"[bold]6.[/bold] Restoring {RESTORED} to {RESTORED}.restored, as hop-archive restore does …"
    )
    query = Query(topics=(RESTORED,), since_ms=since_ms)
    request = Request(query=query, template="{topic}.restored", append=True)
    restoration = Restoration(archive.catalog, archive.store, archive.source, request, archive.topics)
    with tempfile.TemporaryDirectory() as folder:
        outcome = restore(restoration, Control(), Path(folder))
    console.print(
        f"   {outcome.report['messages']} messages written, read back and compared: "
        f"{outcome.differences or 'no'} differences"
    )
    console.print("   (the stanza hop-local vetoes *.restored: what is put back is not archived in turn)")
    return not outcome.differences


if __name__ == "__main__":
    main()
