"""``hop-archive rebuild-catalog``: a catalog from what the store holds."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.display import Display, one_line
from hop_archive.cli.options import (
    TOPICS_HELP,
    Setup,
    StanzaOptions,
    json_option,
    stanza_options,
    topic_option,
)
from hop_archive.cli.output import count, duration, print_json, print_lines, say, size, table
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.catalog.protocol import Catalog
    from hop_archive.model.findings import Finding
    from hop_archive.recover.rebuild.rebuild import Rebuild
    from hop_archive.store.protocol import Store

_EPILOG = """\b
Examples:
  hop-archive migrate -D aws-prod-db
  hop-archive rebuild-catalog -H hop-prod -D aws-prod-db -S s3-prod
      what would be read; changes nothing
  hop-archive rebuild-catalog -H hop-prod -D aws-prod-db -S s3-prod --yes
      into an empty database, or one that lacks something: only what is missing
      is added
  hop-archive rebuild-catalog -D local-db -S local-store --work-dir ~/rebuild --yes
      killed, and called again, it does not read again what it has read

\b
What documents and their keys do not say, and is therefore not rebuilt:
  retracted, batch, id      messages: not retracted; as ids come
  duplicates                which copies were not stored: their offsets are
                            absent where a segment covers them, else unknown
  lost, skipped, pruned     what the ledger said of offsets with no document
  run_id, created_at        of ledger rows: those of the rebuild
  generations               cluster and topic id, unless -H is given and Kafka
                            still holds what is archived. Without, the topic is
                            read once more, and found to be copies
A snapshot (hop-archive catalog-snapshot) says all of these: --from-snapshot.

\b
Ends with 1 where something in the store could not be believed or stands there twice. A topic that cannot be rebuilt
does not stop the others: it is named at the end, with its reason and the exit code of that.
"""

IN_STORE = "store"
"""Said in the place of a folder: the snapshot in the store itself."""

_COUNTS = ("topics", "objects", "read", "read_bytes", "added", "covered")


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option(TOPICS_HELP)
@click.option(
    "--from-snapshot",
    "snapshot",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="First take what a catalog snapshot says, then what the store has beyond it; 'store': the one in the store.",
)
@click.option(
    "--work-dir",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep what was read of a topic until it is done.  [default: a temporary folder]",
)
@click.option("--yes", is_flag=True, help="Do it. Without, what would be done is shown.")
@json_option
def rebuild_catalog(
    chosen: StanzaOptions,
    topics: tuple[str, ...],
    snapshot: Path | None,
    work_dir: Path | None,
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Make the catalog from what the store holds: all of it, or what it lacks.

    Reads every document whose row may be missing, proves it by its digest, UUID and checksum, and adds rows and ledger.
    What the catalog has stays. Killed at any moment, the same command goes on. Offsets between documents of which the
    store says nothing are left to the next archive run where -H is given and the topic is still the same.
    """
    from hop_archive.recover.rebuild.plan import plan, stored_topics

    setup = chosen.setup("database", "store")
    with setup.catalog_and_store() as (catalog, store):
        if not yes:
            plans = list(plan(catalog, store, stored_topics(store, topics)))
            if as_json:
                print_json({"plan": [asdict(topic) for topic in plans], "done": False})
                return 0
            rows = [
                (harmless(topic.topic), count(topic.objects), count(topic.to_read), size(topic.bytes_to_read))
                for topic in plans
                if topic.to_read
            ]
            if rows:
                print_lines(table(("topic", "objects", "to read", "bytes"), rows, right=(1, 2, 3)))
            to_read = sum(topic.to_read for topic in plans)
            say(f"{counted(to_read, 'object')} of {counted(len(plans), 'topic')} to read.")
            if snapshot is not None:
                say(f"First the snapshot in {snapshot} would be taken in.")
            if not (sys.stdin.isatty() and sys.stdout.isatty()):
                say("Nothing was changed. --yes does it.")
                return 0
            if not click.confirm("Do it?"):
                return 0
        findings = _rebuild(setup, catalog, store, topics, snapshot, work_dir, as_json=as_json)
    return 1 if findings else 0


def _rebuild(
    setup: Setup,
    catalog: Catalog,
    store: Store,
    topics: tuple[str, ...],
    snapshot: Path | None,
    work_dir: Path | None,
    *,
    as_json: bool,
) -> int:
    """Rebuild, and say what came of it; how much was found that cannot be believed."""
    from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild

    run_id = f"rebuild-{uuid.uuid4().hex[:12]}"
    found: list[dict[str, Any]] = []
    failed: Exception | None = None
    began = time.monotonic()
    with _source(setup) as source:
        rebuilding = Rebuild(catalog, store, source, topics, work_dir, run_id)
        progress, counts = rebuilding.progress, rebuilding.progress.counts

        def draw(_: Console) -> RenderableType:
            done = f"{count(counts['objects'])} objects, {count(counts['added'])} messages"
            return one_line(f"{done}   {harmless(progress.topic)}")

        with Display(draw, start_log=setup.start_log).shown():
            try:
                for finding in itertools.chain(_from_snapshot(rebuilding, snapshot), rebuild(rebuilding)):
                    found.append(
                        {
                            "kind": finding.kind.value,
                            "topic": finding.topic,
                            "uuid": None if finding.uuid is None else str(finding.uuid),
                            "bucket": finding.bucket,
                            "object_key": finding.object_key,
                            "detail": finding.detail,
                        }
                    )
                    if not as_json:
                        where, why = harmless(finding.object_key), harmless(finding.detail)
                        say(f"{finding.kind.value}  {where}: {why}")
            except Exception as error:
                if not rebuilding.failures:
                    raise
                failed = error
    if as_json:
        print_json(
            {
                "done": failed is None,
                "error": None if failed is None else str(failed),
                **{name: counts[name] for name in _COUNTS},
                "recognised": counts["claimed"],
                "findings": found,
            }
        )
    else:
        say(
            f"{counted(counts['added'], 'message')} added, of {counted(counts['topics'], 'topic')};"
            f" {counted(counts['read'], 'object')} of {count(counts['objects'])} read ({size(counts['read_bytes'])})"
            f" in {duration(time.monotonic() - began)}."
        )
    if failed is not None:
        raise failed
    return len(found)


@contextlib.contextmanager
def _source(setup: Setup) -> Any:
    """The source, where one was named."""
    if setup.selection.source_from == "default":
        yield None
        return
    with contextlib.closing(setup.open_source()) as source:
        yield source


def _from_snapshot(rebuilding: Rebuild, snapshot: Path | None) -> Iterator[Finding]:
    from hop_archive.read.snapshot_locations import FolderLocation, StoreLocation
    from hop_archive.recover.rebuild.from_snapshot import take_in

    if snapshot is not None:
        location = StoreLocation(rebuilding.store) if str(snapshot) == IN_STORE else FolderLocation(snapshot)
        try:
            yield from take_in(rebuilding, location)
        except Exception as error:
            if error is not rebuilding.failures.raised:
                raise  # else rebuilding goes on with the other topics, and tells of these, too
