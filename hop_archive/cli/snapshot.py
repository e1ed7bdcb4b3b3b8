"""``hop-archive snapshot``: how the source's topics and consumer groups are set up, kept in the catalog, and shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Chosen, json_option, stanza_options
from hop_archive.cli.output import moment, table
from hop_archive.cli.parts import catalog_of
from hop_archive.errors import MissingSettingError
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from hop_archive.catalog.records import Snapshot
    from hop_archive.ingest.cluster_state import Taken

_MOST_NAMED = 10

_TAKE_EPILOG = """\b
Examples:
  hop-archive snapshot take -H hop-local -D local-db
  hop-archive snapshot take -H hop-prod -D aws-prod-db --json

\b
Needs, where the cluster has access rights: to describe topics and their
settings (DESCRIBE, DESCRIBE_CONFIGS) and consumer groups (DESCRIBE). What may
not be looked at is left as it was, and said; that is no error: exit 0.
"""

_SHOW_EPILOG = """\b
Examples:
  hop-archive snapshot show -D local-db
  hop-archive snapshot show -D local-db -T 'gcn.*'      topics alone
  hop-archive snapshot show -D local-db -G my-service   where a group had read to
  hop-archive snapshot show -D local-db --json

\b
Of each topic: its partitions, and the settings that it has of its own.
Of each consumer group and topic: the committed offset of each partition, that
is the next one to be read.
"""


@click.group()
def snapshot() -> None:
    """Keep how topics and consumer groups of the source are set up, and show what is kept.

    Messages alone do not bring a stream back: its topics have partitions and settings, and those who read it stood
    somewhere. With Dagster a schedule takes a snapshot every hour, and so does hop-archive run.
    """


@snapshot.command(epilog=_TAKE_EPILOG)
@stanza_options
@json_option
def take(chosen: Chosen, *, as_json: bool) -> None:
    """Ask the source, and keep its answer in the catalog.

    Of the topics that are archived, and of the consumer groups that read any of them. Again: the later answer
    stays. Topics and groups that are gone from the source keep their last.
    """
    from hop_archive.ingest.cluster_state import take_snapshot

    setup = chosen.setup("source", "database")
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        taken = take_snapshot(archive)
    if as_json:
        click.echo(json.dumps(_taken_object(taken), indent=2))
        return
    for line in _taken_lines(taken):
        click.echo(line)


@snapshot.command(epilog=_SHOW_EPILOG)
@stanza_options
@click.option(
    "-T",
    "--topic",
    "topics",
    metavar="GLOB",
    multiple=True,
    help="Only topics of this name or pattern. May be given again.",
)
@click.option(
    "-G",
    "--group",
    "groups",
    metavar="GLOB",
    multiple=True,
    help="Only consumer groups of this name or pattern. May be given again.",
)
@json_option
def show(chosen: Chosen, topics: tuple[str, ...], groups: tuple[str, ...], *, as_json: bool) -> None:
    """Show what is kept, all of it or what is named; asks the database alone."""
    setup = chosen.setup("database")
    with contextlib.closing(catalog_of(setup)) as catalog:
        catalog.check()
        of_topics = _chosen(catalog.snapshots("topic"), topics, others=groups)
        of_groups = _chosen(catalog.snapshots("group"), groups, others=topics)
    if as_json:
        told = {"topics": [_topic(one) for one in of_topics], "groups": [_group(one) for one in of_groups]}
        click.echo(json.dumps({**told, "database": setup.selection.database}, indent=2))
        return
    for line in _lines(of_topics, of_groups, setup.selection.database):
        click.echo(line)


def _chosen(found: Sequence[Snapshot], patterns: Sequence[str], others: Sequence[str]) -> list[Snapshot]:
    """Those that patterns name; all where nothing is named at all, and none where only others are.

    Raises:
        MissingSettingError: A pattern names none.
    """
    from hop_archive.model.topics import matches

    if not patterns:
        return [] if others else list(found)
    for pattern in patterns:
        if not any(matches(one.name, (pattern,)) for one in found):
            raise MissingSettingError(
                f"There is no snapshot of {pattern!r}.",
                remedy="Leave --topic and --group out to see all; hop-archive snapshot take asks the source.",
                pattern=pattern,
            )
    return [one for one in found if matches(one.name, patterns)]


def _taken_object(taken: Taken) -> dict[str, Any]:
    return {
        "cluster_id": taken.cluster_id,
        "topics": taken.topics,
        "groups": taken.groups,
        "changed": list(taken.changed),
        "settings_hidden": list(taken.hidden),
        "groups_hidden": taken.no_groups or None,
        "topics_untold": dict(taken.untold),
        "at": moment(taken.at),
    }


def _taken_lines(taken: Taken) -> Iterator[str]:
    what = f"{counted(taken.topics, 'topic')} and {counted(taken.groups, 'consumer group')}"
    yield f"Kept how {what} of cluster {taken.cluster_id} are set up."
    if taken.changed:
        yield f"Set up otherwise than before: {_named(taken.changed)}."
    if taken.hidden:
        yield f"Settings may not be looked at (DESCRIBE_CONFIGS on the topic is wanted): {_named(taken.hidden)}."
    if taken.no_groups:
        yield f"No consumer group was taken: {taken.no_groups}"
    if taken.untold:
        yield f"Not looked at, and kept as they were last: {_named(list(taken.untold))}."
    for why in sorted(set(taken.untold.values()))[:_MOST_NAMED]:
        yield f"  {harmless(why)}"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _topic(one: Snapshot) -> dict[str, Any]:
    return {"cluster_id": one.cluster_id, "topic": one.name, **one.content, "taken_at": moment(one.taken_at)}


def _group(one: Snapshot) -> dict[str, Any]:
    offsets = [
        {"topic": at.topic, "partition": at.partition, "offset": found.offset, "metadata": found.metadata}
        for at, found in one.commits.items()
    ]
    return {
        "cluster_id": one.cluster_id,
        "group": one.name,
        "offsets": offsets,
        "topic_ids": one.content["topic_ids"],
        "taken_at": moment(one.taken_at),
    }


def _lines(topics: Sequence[Snapshot], groups: Sequence[Snapshot], database: str) -> Iterator[str]:
    if not topics and not groups:
        yield f"No snapshot yet: database {database}. Take one with hop-archive snapshot take."
        return
    if topics:
        yield f"{counted(len(topics), 'topic')}: database {database}"
        rows = [_topic_cells(one) for one in topics]
        yield from table(["TOPIC", "PARTITIONS", "OWN SETTINGS", "TAKEN", "CLUSTER"], rows, right=(1,))
    if topics and groups:
        yield ""
    if groups:
        yield f"{counted(len(groups), 'consumer group')}: database {database}"
        rows = [cells for one in groups for cells in _group_cells(one)]
        yield from table(["GROUP", "TOPIC", "NEXT OFFSETS, BY PARTITION", "TAKEN", "CLUSTER"], rows)


def _topic_cells(one: Snapshot) -> list[str]:
    settings = " ".join(
        f"{name}={harmless(value)}" for name, value in sorted(one.content["settings"].items())
    )
    unknown = "-" if one.content["settings_known"] else "?"
    return [
        one.name,
        str(one.content["partitions"]),
        settings or unknown,
        moment(one.taken_at) or "",
        one.cluster_id,
    ]


def _group_cells(one: Snapshot) -> Iterator[list[str]]:
    for topic in sorted(one.content["topic_ids"]):
        places = " ".join(f"{at.partition}:{n}" for at, n in one.offsets.items() if at.topic == topic)
        yield [harmless(one.name), topic, places, moment(one.taken_at) or "", one.cluster_id]
