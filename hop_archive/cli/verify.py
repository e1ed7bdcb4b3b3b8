"""``hop-archive verify``: whether the archive is as its catalog says."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.display import Display, one_line
from hop_archive.cli.options import Setup, StanzaOptions, json_option, selection_options, stanza_options
from hop_archive.cli.output import JsonList, count, moment, print_lines, size
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.findings import Finding
from hop_archive.model.query import Query
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.upkeep.verify.recorder import FindingsRecorder
    from hop_archive.upkeep.verify.verification import Verification

DIRECTIONS = ("objects", "backup", "ledger", "source")
_DEFAULT = ("objects", "ledger")

_EPILOG = """\b
Examples:
  hop-archive verify -D local-db -S local-store
      every object that the catalog names is there with its size, none is there
      that it does not name, and the ledger adds up
  hop-archive verify -D local-db -S local-store --deep -T gcn.notices --since 2d
      and fetches these messages, and compares each with its row
  hop-archive verify -D local-db -S local-store --days 7
      what is new, and a share of the rest: run every some hours, all within a week
  hop-archive verify -H hop-prod -D aws-prod-db -S s3-prod --direction source
      whatever Kafka still holds is archived
  hop-archive verify -H hop-prod -D aws-prod-db -S s3-prod --direction source --deep --sample 1000
      and of each partition about 1,000 messages are what was archived

\b
Directions:
  objects   catalog and store against each other, by listing, nothing fetched
  backup    the catalog against the backup bucket, likewise; an object younger
            than the stanza's backup_grace_minutes may still be on its way there
  ledger    no holes, sums right, numbers those of the rows
  source    what Kafka holds now is archived; what has just arrived counts too;
            with --deep, it is read again and compared with the rows

\b
What may be found:
  missing_object   a row names an object that is not there
  wrong_size       an object is shorter, or longer, than its rows say
  corrupt_object   a document's bytes are not those that were stored (--deep)
  frozen_object    an object is in cold storage, and cannot be read (--deep)
  row_differs      a row is not what its document says (--deep)
  orphan_object    no row names a document or segment
  foreign_object   no key of ours looks like this
  coverage_hole    offsets between dealt-with ones that no ledger row covers
  count_mismatch   a number is not that of the rows that it counts
  not_archived     Kafka holds it, and the ledger does not cover it
  lost             gone from Kafka before it was archived
  log_truncated    Kafka holds other messages than were archived: its log lost its end
What is found is remembered in the database, each finding once however often it
is seen, until it is mended, accepted, or a complete look does not see it any
more: hop-archive findings shows it, hop-archive repair mends what can be.

\b
Ends with 1 where anything is found that nobody accepted, and with 0 where not.
An interrupted run keeps what it found, and ends with 130.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@selection_options
@click.option(
    "--direction",
    "directions",
    type=click.Choice(DIRECTIONS),
    multiple=True,
    help="What to compare; may be given again.  [default: objects and ledger]",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Fetch every selected document, too, and compare it with its row; with --direction source, read what Kafka "
    "holds again, and compare that.",
)
@click.option(
    "--sample",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="With --direction source --deep: about so many messages of each partition.  [default: all]",
)
@click.option(
    "--days",
    metavar="DAYS",
    type=click.FloatRange(min=0, min_open=True),
    help="Look at what was added since the last such look, and at a share of the rest, so that all is looked at within so many "
    "days however often this runs. Where it ended it goes on.  [default: all, now]",
)
@click.option(
    "--sent",
    "sent_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare what is stored with what was sent, too, as recorded by hop-archive publish --record.",
)
@click.option(
    "--grace",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=3600,
    show_default=True,
    help="Objects younger than this may belong to a batch that is being archived: not told as orphans.",
)
@click.option(
    "--no-record",
    is_flag=True,
    help="Do not remember in the database what is found; nor that something is not found any more.",
)
@json_option
def verify(
    chosen: StanzaOptions,
    query: Query,
    timeout_s: float,  # noqa: ARG001 (comes with the options that select)
    directions: tuple[str, ...],
    *,
    deep: bool,
    sample: int | None,
    days: float | None,
    sent_file: Path | None,
    grace_s: float,
    no_record: bool,
    as_json: bool,
) -> int:
    """Check that the archive is as its catalog says: nothing missing, nothing damaged, nothing unaccounted for.

    Changes nothing but the list of findings; archiving may go on meanwhile. Objects are compared by listing both sides in the same
    order, not by a request for each; memory stays the same however many there are. Options other than --topic select
    what --deep fetches.
    """
    from hop_archive.upkeep.verify.recorder import FindingsRecorder
    from hop_archive.upkeep.verify.sent import read_sent
    from hop_archive.upkeep.verify.share import verify_share
    from hop_archive.upkeep.verify.verify import verify as verifying

    if not deep and replace(query, topics=()) != Query():
        # Else a narrow selection would seem to have been looked at, and was not.
        raise ConfigurationError(
            "Without --deep, messages are selected by --topic only.",
            remedy="Add --deep, or leave the other options out.",
        )
    if days is not None and (deep or directions or sent_file or no_record or query != Query()):
        raise ConfigurationError(
            "--days is of the whole archive, and remembers what was looked at: no other option that selects goes with it.",
            remedy="Leave --days out to look at a selection, now; hop-archive scrub reads a share of all documents.",
        )
    asks_source = "source" in directions
    setup = chosen.setup("database", "store", *(("source",) if asks_source else ()))
    with opened(setup, query, grace_s) as verification:
        verification = replace(
            verification,
            open_archive=lambda: contextlib.closing(setup.open()),
            sample=sample,
            sent=None if sent_file is None else read_sent(sent_file),
        )
        recorder = FindingsRecorder(verification.catalog, keeps=not no_record)
        if days is None:
            looks = verifying(verification, recorder, directions or _DEFAULT, deep=deep)
        else:
            looks = verify_share(verification, recorder, days)
        findings = (finding for finding, is_open in looks if is_open)
        found, error = 0, {}
        with display(verification).shown():
            first = list(itertools.islice(findings, 1))  # what cannot even begin prints nothing
            listed = JsonList("findings") if as_json else None
            try:
                for found, finding in enumerate(itertools.chain(first, findings), 1):  # noqa: B007
                    if listed:
                        listed.add(as_object(finding))
                    else:
                        print_lines([line(finding)])
            except HopArchiveError as failed:
                error = {"error": str(failed)}
                raise
            finally:
                if listed:
                    listed.end(checked=verification.checked.counts, **error)
        if not as_json:
            print_lines(
                [_summary(verification, recorder, found), *([] if days is None else [_age(verification)])]
            )
    return 1 if found else 0


@contextlib.contextmanager
def opened(setup: Setup, query: Query, grace_s: float) -> Iterator[Verification]:
    """Open and check what is to be verified; closed when the block ends.

    Raises:
        HopArchiveError: Catalog or store cannot be reached, or is not as it ought to be.
    """
    from hop_archive.upkeep.verify.verification import Verification

    with setup.backup() as (backup, backup_grace_s), setup.catalog_and_store() as (catalog, store):
        yield Verification(catalog, store, query, grace_s, backup=backup, backup_grace_s=backup_grace_s)


def _summary(verification: Verification, recorder: FindingsRecorder, found: int) -> str:
    """What was looked at, and what came of it."""
    counts, catalog = verification.checked.counts, verification.catalog
    numbers = {what: number for what, number in counts.items() if number and what != "bytes"}
    looked = ", ".join(f"{count(number)} {what}" for what, number in numbers.items())
    fetched = f", {size(counts['bytes'])} fetched" if counts["bytes"] else ""
    where = f"database {catalog.name} and store {verification.store.name}"
    if not looked:
        return f"There is nothing to verify in {where}."
    # Open findings that this look was not for, or did not see again without having looked at all.
    known = 0
    if recorder.keeps:
        with contextlib.suppress(HopArchiveError):
            known = sum(kind.number for kind in catalog.open_findings())
    more = max(0, known - found)
    fine = "Nothing new is wrong" if more else "Nothing is wrong"
    verdict = counted(found, "finding") + " found" if found else fine
    parts = [f"{verdict} in {where}: looked at {looked}{fetched}."]
    if recorder.accepted:
        parts.append(f"{counted(recorder.accepted, 'finding')} accepted before.")
    if more:
        is_open = counted(more, "finding is", "findings are")
        parts.append(f"{is_open} open from before: hop-archive findings.")
    return " ".join(parts)


def _age(verification: Verification) -> str:
    """When all was looked at, at last."""
    from hop_archive.upkeep.verify.share import freshness

    fresh = freshness(verification)
    if fresh.whole_since is not None:
        return f"All of it was looked at since {moment(fresh.whole_since)}."
    return (
        f"Of {count(fresh.never)} of {count(fresh.sections)} sections (a topic's objects, its segments, its ledger) "
        "some was never looked at so far."
    )


def line(finding: Finding) -> str:
    """A finding, for people."""
    message_uuid = str(finding.uuid or "")
    alone = "" if finding.partition is None else f"{finding.topic}[{finding.partition}]"
    place = alone if finding.slice is None else str(finding.slice)
    parts = [finding.object_key or place, "" if message_uuid in finding.object_key else message_uuid]
    where = " ".join(part for part in parts if part) or finding.topic
    # Keys and details may hold whatever anyone put into the bucket.
    return harmless(f"{finding.kind.value}  {where}: {finding.detail}")


def as_object(finding: Finding) -> dict[str, Any]:
    """A finding as JSON has it; null for what it is not about."""
    where = finding.slice
    return {
        "kind": finding.kind.value,
        "topic": finding.topic,
        "uuid": None if finding.uuid is None else str(finding.uuid),
        "bucket": finding.bucket or None,
        "object_key": finding.object_key or None,
        "generation": where and where.generation,
        "partition": where.partition if where else finding.partition,
        "start": where and where.start,
        "stop": where and where.stop,
        "detail": finding.detail,
    }


def display(verification: Verification) -> Display:
    """On a terminal, a line that counts what was looked at; nothing elsewhere."""
    began = time.monotonic()

    def draw(_: Console) -> RenderableType:
        looked = ", ".join(f"{count(n)} {what}" for what, n in list(verification.checked.counts.items()))
        return one_line(f"{time.monotonic() - began:.0f} s: {looked or 'looking…'}")

    return Display(draw)
