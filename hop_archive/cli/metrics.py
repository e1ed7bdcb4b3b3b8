"""``hop-archive metrics``: numbers of the archive for Prometheus."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import StanzaOptions, stanza_options
from hop_archive.cli.output import program_version, say
from hop_archive.cli.stopping import Stop

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.upkeep.monitoring.lags import Marks
    from hop_archive.upkeep.monitoring.metrics import RunMetrics
    from hop_archive.upkeep.monitoring.numbers import Numbers

log = logging.getLogger(__name__)

_EPILOG = """\b
Examples:
  hop-archive metrics -H hop-prod -D aws-prod-db
      serves http://127.0.0.1:9464/metrics until Ctrl-C
  hop-archive metrics -H hop-prod -D aws-prod-db --listen 0.0.0.0:9464
      for a Prometheus on another machine
  hop-archive metrics -D aws-prod-db --textfile /var/lib/node_exporter/hop_archive.prom
      one look, for cron

\b
docs/monitoring.md has each metric; deploy/monitoring/ has a dashboard for Grafana and rules for Prometheus. A part that does
not answer is hop_archive_up 0, and nothing is told of it: no number is older than the look that hop_archive_look_timestamp_seconds
tells. With --textfile only, how long messages wait is not known.
"""

_EVERY_S = 15.0


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Where to serve /metrics; HOST 0.0.0.0 for all to see.",
)
@click.option(
    "--textfile",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Look once and write a file for node-exporter instead, whole or not at all; its name ends in .prom.",
)
@click.option(
    "--every",
    "every_s",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=_EVERY_S,
    show_default=True,
    help="How often to look; more seldom where a look takes longer than a tenth of that.",
)
def metrics(chosen: StanzaOptions, listen: str, textfile: Path | None, every_s: float) -> None:
    """Serve numbers of the archive to Prometheus: messages, bytes, lags, losses, findings.

    Reads the database, and asks the source, where one is named, how far it is. Any number of these may run beside whatever
    archives.
    """
    from hop_archive.upkeep.monitoring.metrics import registry_of, serve, write_textfile
    from hop_archive.upkeep.monitoring.numbers import Looking, count

    setup, stop = chosen.setup(), Stop()
    unasked = not setup.selection.asks_source
    with contextlib.closing(setup.open()) as archive:

        def look(marks: Marks, has_looked: bool) -> Numbers:
            return count(archive, marks, unasked=unasked, has_looked=has_looked)

        if textfile is not None:
            found = look({}, False)
            write_textfile(registry_of(lambda: found, program_version()), textfile)
            return
        with Looking(look, every_s) as looking, contextlib.ExitStack() as stack, stop.on_signals():
            stack.callback(serve(registry_of(looking.numbers, program_version()), listen))
            say(f"Metrics at http://{_shown(listen)}/metrics; Ctrl-C ends it.", err=True)
            while not stop.requested:
                stop.sleep(3_600.0)


@contextlib.contextmanager
def served(archive: Archive, address: str) -> Iterator[tuple[Archive, RunMetrics]]:
    """The archive, measured, and what measures it, with its metrics served while the block lasts."""
    from hop_archive.upkeep.monitoring.measured import measured
    from hop_archive.upkeep.monitoring.metrics import RunMetrics, registry_of, serve
    from hop_archive.upkeep.monitoring.numbers import Looking, count

    def look(marks: Marks, has_looked: bool) -> Numbers:
        return count(archive, marks, has_looked=has_looked)

    with Looking(look, _EVERY_S) as looking, contextlib.ExitStack() as stack:
        registry = registry_of(looking.numbers, program_version())
        meter = RunMetrics(registry)
        stack.callback(serve(registry, address))
        log.info("Metrics at http://%s/metrics", _shown(address))
        yield measured(archive, meter), meter


def _shown(address: str) -> str:
    return address if ":" in address else f"127.0.0.1:{address}"
