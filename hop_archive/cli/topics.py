"""``hop-archive topics``: every topic of the source and of the catalog, and what is archived of each."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.output import count, moment, table
from hop_archive.errors import MissingSettingError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.read.topics import Gap, TopicReport, TopicsReport

_EPILOG = """\b
Examples:
  hop-archive topics -H hop-local -D local-db
  hop-archive topics -H hop-prod -D aws-prod-db -T 'gcn.*' --holes
  hop-archive topics -H hop-prod -D aws-prod-db --json

\b
Of each topic:
  state     archived; vetoed or left out by the source's stanza; or gone: archived once, no more on the source;
            with private and test where the stanza says so
  gen       how many lives of the topic there were: deleted and made anew, it starts its offsets again
  id        how Kafka's id of this life begins
  held      offsets that Kafka has for readers
  messages  archived
  covered   offsets dealt with: archived, duplicate, absent, lost, skipped or pruned
  lag       offsets held and not dealt with yet
  holes     offsets not dealt with, between offsets that are: the next run fills them
  lost      gone from Kafka before they were archived
?, or null, is what the source would have to tell and does not answer, which is no error: exit 0. A database
that does not answer is one: exit 3.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "-T",
    "--topic",
    "patterns",
    metavar="GLOB",
    multiple=True,
    help="Only topics of this name or pattern. May be given again.",
)
@click.option(
    "--holes", is_flag=True, help="List each hole, and each slice lost, skipped or pruned, with the reason."
)
@click.option(
    "--all", "internal", is_flag=True, help="Show Kafka's own topics, too: those that begin with __."
)
@json_option
def topics(chosen: Chosen, patterns: tuple[str, ...], holes: bool, internal: bool, as_json: bool) -> None:
    """Show the topics of the source and of the catalog: which are archived, how far, and what is missing.

    Asks the source and the database; changes nothing.
    """
    from hop_archive.read.topics import report_topics

    setup = chosen.setup("source", "database")
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        found = report_topics(archive, patterns, internal=internal, with_gaps=holes)
    _refuse_unmatched(found, patterns)
    if as_json:
        click.echo(json.dumps(as_object(found, setup, with_gaps=holes), indent=2))
        return
    for line in _lines(found, setup, with_gaps=holes):
        click.echo(line)


def _refuse_unmatched(found: TopicsReport, patterns: Sequence[str]) -> None:
    """Say that a name or glob means nothing, unless the source, which was not heard, might know it."""
    from hop_archive.model.topics import matches

    unmatched = [one for one in patterns if not any(matches(each.topic, (one,)) for each in found.topics)]
    if unmatched and not found.source_error:
        raise MissingSettingError(
            f"Neither the source nor the catalog has a topic {', '.join(unmatched)}.",
            remedy="Leave --topic out to see all; --all shows Kafka's own, too.",
            topics=unmatched,
        )


def as_object(found: TopicsReport, setup: Setup, *, with_gaps: bool) -> dict[str, Any]:
    """Return the report as JSON has it; null for what is not known."""
    return {
        "topics": [_topic_object(one, with_gaps) for one in found.topics],
        "source": {"name": setup.selection.source, "error": found.source_error or None},
        "database": setup.selection.database,
        "at": moment(found.at),
    }


def _topic_object(one: TopicReport, with_gaps: bool) -> dict[str, Any]:
    told = {
        "topic": one.topic,
        "state": one.state.value,
        "private": one.private,
        "test": one.test,
        "partitions": one.partitions,
        "topic_id": one.topic_id,
        "generation": one.generation,
        "held": one.held,
        "held_back": one.held_back,
        "lag": one.lag,
        "messages": one.messages,
        "covered": one.covered,
        "holes": one.holes,
        "unrecorded": one.unrecorded,
        "lost": one.lost,
        "skipped": one.skipped,
        "pruned": one.pruned,
    }
    return {**told, "gaps": [_gap_object(gap) for gap in one.gaps]} if with_gaps else told


def _gap_object(gap: Gap) -> dict[str, Any]:
    return {
        "kind": gap.kind.value,
        "generation": gap.slice.generation,
        "partition": gap.slice.partition,
        "start": gap.slice.start,
        "stop": gap.slice.stop,
        "reason": gap.reason,
    }


def _lines(found: TopicsReport, setup: Setup, *, with_gaps: bool) -> Iterator[str]:
    yield _headline(found, setup)
    if found.source_error:
        yield f"The source's part is not known: {found.source_error}"
    if found.topics:
        yield ""
        yield from _table(found)
        yield from _remarks(found)
    if with_gaps:
        yield ""
        yield from _gaps(found)


def _headline(found: TopicsReport, setup: Setup) -> str:
    chosen = setup.selection
    where = f"source {chosen.source}, database {chosen.database}"
    if not found.topics:
        return f"No topic is known: {where}."
    states = Counter(one.state.value for one in found.topics)
    told = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    return f"{counted(len(found.topics), 'topic')} ({told}): {where}"


def _table(found: TopicsReport) -> list[str]:
    header = [
        "TOPIC",
        "STATE",
        "PARTITIONS",
        "GEN",
        "ID",
        "HELD",
        "MESSAGES",
        "COVERED",
        "LAG",
        "HOLES",
        "LOST",
    ]
    unknown = "?" if found.source_error else "-"
    rows = [_cells(one, unknown) for one in found.topics]
    return table(header, rows, right=(2, 3, *range(5, 11)))


def _cells(one: TopicReport, unknown: str) -> list[str]:
    flags = [one.state.value, *(["private"] if one.private else []), *(["test"] if one.test else [])]
    return [
        one.topic,
        ", ".join(flags),
        _known(one.partitions, unknown),
        "-" if one.generation is None else str(one.generation),
        one.topic_id[:8] if one.topic_id else unknown,
        _known(one.held, unknown),
        count(one.messages),
        count(one.covered),
        _known(one.lag, unknown),
        count(one.holes),
        count(one.lost),
    ]


def _known(number: int | None, unknown: str) -> str:
    return unknown if number is None else count(number)


def _remarks(found: TopicsReport) -> Iterator[str]:
    for one in found.topics:
        if one.unrecorded:
            yield f"{one.topic}: {counted(one.unrecorded, 'offset')} gone from Kafka, not recorded as lost yet."
        if one.held_back:
            yield f"{one.topic}: {counted(one.held_back, 'offset')} held back by an open transaction."
        if one.skipped:
            yield f"{one.topic}: {counted(one.skipped, 'offset')} skipped."
        if one.pruned:
            yield f"{one.topic}: {counted(one.pruned, 'offset')} pruned."


def _gaps(found: TopicsReport) -> Iterator[str]:
    gaps = [gap for one in found.topics for gap in one.gaps]
    if not gaps:
        yield "No holes, and nothing lost, skipped or pruned."
        return
    rows = [[str(gap.slice), count(len(gap.slice)), gap.kind.value, gap.reason] for gap in gaps]
    yield from table(["SLICE", "OFFSETS", "WHAT", "WHY"], rows, right=(1,))
