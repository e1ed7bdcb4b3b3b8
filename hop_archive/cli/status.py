"""``hop-archive status``: where the archive stands, topic by topic."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.output import count, counted, moment, size, table, timestamp

if TYPE_CHECKING:
    from hop_archive.catalog.protocol import TopicSummary
    from hop_archive.reporting import Status, TopicStatus

_EPILOG = """\b
Examples:
  hop-archive status -H hop-local -D local-db
  hop-archive status -H hop-prod -D aws-prod-db -T gcn.notices --json

\b
Of each topic:
  lag         offsets that Kafka holds, committed and not dealt with yet
  messages    archived
  duplicates  not stored again
  absent      offsets for which Kafka delivers nothing: markers, aborted, compacted away
  lost        gone from Kafka before they were archived
  skipped     left out on purpose, with a reason
Where the source does not answer, lags are not known (?, null) and the rest is shown all the same.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "-T",
    "--topic",
    "topics",
    metavar="NAME",
    multiple=True,
    help="Only this topic. May be given again.",
)
@json_option
def status(chosen: Chosen, topics: tuple[str, ...], *, as_json: bool) -> None:
    """Show where the archive stands: by topic, since its start, in the last 24 hours and the last hour.

    Reads the database, and asks the source how far it is; changes nothing.
    """
    from hop_archive import reporting

    setup = chosen.setup()
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        found = reporting.status(archive, sorted(set(topics)) or None)
    if as_json:
        click.echo(json.dumps(as_object(found, setup), indent=2))
        return
    for line in _lines(found, setup):
        click.echo(line)


def as_object(found: Status, setup: Setup) -> dict[str, Any]:
    """Return a status as JSON has it: sizes in bytes, moments as ISO 8601 in UTC, null for what is not known."""
    return {
        "topics": [_topic_object(one) for one in found.topics],
        "source": {"name": setup.selection.source, "error": found.source_error or None},
        "database": setup.selection.database,
        "at": moment(found.at),
    }


def _topic_object(one: TopicStatus) -> dict[str, Any]:
    return {
        "topic": one.topic,
        **_summary_object(one.total),
        "lag": one.lag,
        "unrecorded": one.unrecorded,
        "generations": one.generations,
        **{name: _summary_object(window) for name, window in one.windows.items()},
    }


def _summary_object(summary: TopicSummary) -> dict[str, Any]:
    return {
        "messages": summary.messages,
        "duplicates": summary.duplicates,
        "absent": summary.absent,
        "lost": summary.lost,
        "skipped": summary.skipped,
        "bytes": summary.size_bytes,
        "first": timestamp(summary.first_timestamp_ms),
        "last": timestamp(summary.last_timestamp_ms),
        "last_batch": moment(summary.last_batch_at),
    }


def _lines(found: Status, setup: Setup) -> Iterator[str]:
    chosen, stanzas = setup.selection, setup.configuration
    source = stanzas.source(chosen.source).resolved().describe()
    database = stanzas.database(chosen.database).resolved().describe()
    yield f"Source {chosen.source} ({source}), database {chosen.database} ({database}), {moment(found.at)}"
    if found.source_error:
        yield f"The lag is not known: {found.source_error}"
    if not found.topics:
        yield "No topic has been archived, and the source has none that would be."
        return
    yield ""
    yield from _counts(found.topics)
    yield ""
    yield from _times(found.topics)
    yield from _unrecorded(found.topics)


def _counts(topics: tuple[TopicStatus, ...]) -> list[str]:
    header = ["TOPIC", "LAG", "MESSAGES", "24 H", "1 H", "DUPLICATES", "ABSENT", "LOST", "SKIPPED", "SIZE"]
    rows = [_count_cells(one) for one in topics]
    return table(header, [*rows, _sum_cells(topics)] if len(rows) > 1 else rows, right=range(1, 10))


def _count_cells(one: TopicStatus) -> list[str]:
    day, hour = one.windows["last_24_hours"], one.windows["last_hour"]
    whole = one.total
    numbers = (one.lag, whole.messages, day.messages, hour.messages, *_oddities(whole))
    return [one.topic, *map(count, numbers), size(whole.size_bytes)]


def _oddities(whole: TopicSummary) -> tuple[int, int, int, int]:
    return whole.duplicates, whole.absent, whole.lost, whole.skipped


def _sum_cells(topics: tuple[TopicStatus, ...]) -> list[str]:
    lags = [one.lag for one in topics if one.lag is not None]
    numbers = (
        sum(lags) if lags else None,
        sum(one.total.messages for one in topics),
        sum(one.windows["last_24_hours"].messages for one in topics),
        sum(one.windows["last_hour"].messages for one in topics),
        *map(sum, zip(*(_oddities(one.total) for one in topics), strict=True)),
    )
    return ["total", *map(count, numbers), size(sum(one.total.size_bytes for one in topics))]


def _times(topics: tuple[TopicStatus, ...]) -> list[str]:
    rows = [
        [
            one.topic,
            timestamp(one.total.first_timestamp_ms) or "-",
            timestamp(one.total.last_timestamp_ms) or "-",
            moment(one.total.last_batch_at) or "-",
        ]
        for one in topics
    ]
    return table(["TOPIC", "FIRST MESSAGE", "LAST MESSAGE", "LAST BATCH"], rows)


def _unrecorded(topics: tuple[TopicStatus, ...]) -> Iterator[str]:
    """What is gone and not in the ledger yet, which counts as lost when the next run looks."""
    for one in topics:
        if one.unrecorded:
            yield f"{one.topic}: {counted(one.unrecorded, 'offset')} gone from Kafka, not recorded as lost yet."
