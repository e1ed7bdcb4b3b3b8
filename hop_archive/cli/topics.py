"""``hop-archive topics``: every topic of the source and of the catalog, and what is archived of each."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import count, moment, print_json, print_lines, table
from hop_archive.errors import MissingSettingError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.read.topic_facts import Facts

_EPILOG = """\b
Examples:
  hop-archive topics -H hop-local -D local-db
  hop-archive topics -H hop-prod -D aws-prod-db -T 'gcn.*' --holes
  hop-archive topics -H hop-prod -D aws-prod-db --json

\b
Of each topic:
  state     archived; vetoed or left out by the source's stanza; or gone: archived once, no more on the source;
            with private and test where the stanza says so
  gen       how many generations of the topic there were: deleted and made anew, it starts its offsets again
  id        how Kafka's id of this generation begins
  held      offsets that Kafka has for readers
  messages  archived
  covered   offsets dealt with: archived, duplicate, absent, lost, skipped or pruned
  lag       offsets held and not dealt with yet
  holes     offsets not dealt with, between offsets that are: the next run fills them
  lost      gone from Kafka before they were archived
?, or null, is what the source would have to tell and does not answer, which is no error: exit 0. A database
that does not answer is one: exit 3.
"""


_OPTIONAL = ("ID", "COVERED", "GEN", "PARTITIONS", "HOLES", "LOST", "HELD")
"""What a narrow terminal lacks, first to last."""


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
def topics(
    chosen: StanzaOptions, patterns: tuple[str, ...], holes: bool, internal: bool, as_json: bool
) -> None:
    """Show the topics of the source and of the catalog: which are archived, how far, and what is missing.

    Asks the source and the database; changes nothing.
    """
    from hop_archive.model.topics import matches
    from hop_archive.read.topic_facts import report_topics

    setup = chosen.setup("source", "database")
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        found = report_topics(archive, patterns, internal=internal, with_gaps=holes)
    unmatched = [
        pattern for pattern in patterns if not any(matches(topic.topic, (pattern,)) for topic in found.topics)
    ]
    if unmatched and not found.source_error:  # a source that was not heard might know it
        raise MissingSettingError(
            f"Neither the source nor the catalog has a topic {', '.join(unmatched)}.",
            remedy="Leave --topic out to see all; --all shows Kafka's own, too.",
            topics=unmatched,
        )
    if as_json:
        print_json(as_object(found, setup, with_gaps=holes))
    else:
        print_lines(_lines(found, setup, with_gaps=holes))


def as_object(found: Facts, setup: Setup, *, with_gaps: bool) -> dict[str, Any]:
    """Return the report as JSON has it; null for what is not known."""
    topics: list[dict[str, Any]] = [
        {
            "topic": topic.topic,
            "state": topic.state.value,
            "private": topic.private,
            "test": topic.test,
            "partitions": topic.partitions,
            "topic_id": topic.topic_id,
            "generation": topic.generation,
            "held": topic.held,
            "held_back": topic.held_back,
            "lag": topic.lag,
            "messages": topic.total.messages,
            "covered": topic.covered,
            "holes": topic.holes,
            "unrecorded": topic.unrecorded,
            "lost": topic.total.lost,
            "skipped": topic.total.skipped,
            "pruned": topic.total.pruned,
        }
        for topic in found.topics
    ]
    for topic, shown in zip(found.topics, topics, strict=True) if with_gaps else ():
        shown["gaps"] = [
            {
                "kind": gap.kind.value,
                "generation": gap.slice.generation,
                "partition": gap.slice.partition,
                "start": gap.slice.start,
                "stop": gap.slice.stop,
                "reason": gap.reason,
            }
            for gap in topic.gaps
        ]
    return {
        "topics": topics,
        "source": {"name": setup.selection.source, "error": found.source_error or None},
        "database": setup.selection.database,
        "at": moment(found.at),
    }


def _lines(found: Facts, setup: Setup, *, with_gaps: bool) -> Iterator[str]:
    where = f"source {setup.selection.source}, database {setup.selection.database}"
    states = Counter(topic.state.value for topic in found.topics)
    by_state = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    if found.topics:
        yield f"{counted(len(found.topics), 'topic')} ({by_state}): {where}"
    else:
        yield f"No topic is known: {where}."
    if found.source_error:
        yield f"The source's part is not known: {found.source_error}"
    if found.topics:
        yield ""
        yield from _table(found)
    for topic in found.topics:
        if topic.unrecorded:
            yield f"{topic.topic}: {counted(topic.unrecorded, 'offset')} gone from Kafka, not recorded as lost yet."
        if topic.held_back:
            yield f"{topic.topic}: {counted(topic.held_back, 'offset')} held back by an open transaction."
        if topic.total.skipped:
            yield f"{topic.topic}: {counted(topic.total.skipped, 'offset')} skipped."
        if topic.total.pruned:
            yield f"{topic.topic}: {counted(topic.total.pruned, 'offset')} pruned."
    if not with_gaps:
        return
    yield ""
    gaps = [gap for topic in found.topics for gap in topic.gaps]
    if not gaps:
        yield "No holes, and nothing lost, skipped or pruned."
        return
    rows = [[str(gap.slice), count(len(gap.slice)), gap.kind.value, gap.reason] for gap in gaps]
    yield from table(["SLICE", "OFFSETS", "WHAT", "WHY"], rows, right=(1,))


def _table(found: Facts) -> list[str]:
    unknown = "?" if found.source_error else "-"
    rows = []
    for topic in found.topics:
        flags = ["private"] * bool(topic.private) + ["test"] * bool(topic.test)
        cells = {
            "TOPIC": topic.topic,
            "STATE": ", ".join([topic.state.value, *flags]),
            "PARTITIONS": count(topic.partitions, unknown),
            "GEN": "-" if topic.generation is None else str(topic.generation),
            "ID": topic.topic_id[:8] if topic.topic_id else unknown,
            "HELD": count(topic.held, unknown),
            "MESSAGES": count(topic.total.messages),
            "COVERED": count(topic.covered),
            "LAG": count(topic.lag, unknown),
            "HOLES": count(topic.holes),
            "LOST": count(topic.total.lost),
        }
        rows.append(cells)
    return table(
        [*rows[0]], [[*cells.values()] for cells in rows], right=(2, 3, *range(5, 11)), optional=_OPTIONAL
    )
