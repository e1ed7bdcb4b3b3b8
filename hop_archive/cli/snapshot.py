"""``hop-archive snapshot``: how the source's topics and consumer groups are set up, kept in the catalog, and shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import moment, print_json, print_lines, say, table
from hop_archive.errors import MissingSettingError
from hop_archive.model.wording import counted, harmless, listed

if TYPE_CHECKING:
    from hop_archive.catalog.records import Snapshot

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
def take(chosen: StanzaOptions, *, as_json: bool) -> None:
    """Ask the source, and keep its answer in the catalog.

    Of the topics that are archived, and of the consumer groups that read any of them. Again: the later answer
    stays. Topics and groups that are gone from the source keep their last.
    """
    from hop_archive.ingest.cluster_state import take_snapshot

    setup = chosen.setup("source", "database")
    with contextlib.closing(setup.open()) as archive:
        archive.catalog.check()
        taken = take_snapshot(archive)
    if not as_json:
        what = f"{counted(taken.topics, 'topic')} and {counted(taken.groups, 'consumer group')}"
        say(f"Kept how {what} of cluster {taken.cluster_id} are set up.")
        if taken.changed:
            say(f"Set up otherwise than before: {listed(taken.changed, _MOST_NAMED)}.")
        if taken.hidden:
            say(
                f"Settings may not be looked at (DESCRIBE_CONFIGS on the topic is wanted): {listed(taken.hidden, _MOST_NAMED)}."
            )
        if taken.no_groups:
            say(f"No consumer group was taken: {taken.no_groups}")
        if taken.untold:
            say(f"Not looked at, and kept as they were last: {listed(list(taken.untold), _MOST_NAMED)}.")
        for why in sorted(set(taken.untold.values()))[:_MOST_NAMED]:
            say(f"  {harmless(why)}")
        return
    print_json(
        {
            "cluster_id": taken.cluster_id,
            "topics": taken.topics,
            "groups": taken.groups,
            "changed": list(taken.changed),
            "settings_hidden": list(taken.hidden),
            "groups_hidden": taken.no_groups or None,
            "topics_untold": dict(taken.untold),
            "at": moment(taken.at),
        }
    )


@snapshot.command(epilog=_SHOW_EPILOG)
@stanza_options
@topic_option("Only topics of this name or pattern. May be given again.", "GLOB")
@click.option(
    "-G",
    "--group",
    "groups",
    metavar="GLOB",
    multiple=True,
    help="Only consumer groups of this name or pattern. May be given again.",
)
@json_option
def show(chosen: StanzaOptions, topics: tuple[str, ...], groups: tuple[str, ...], *, as_json: bool) -> None:
    """Show what is kept, all of it or what is named; asks the database alone."""
    setup = chosen.setup("database")
    with setup.catalog() as catalog:
        of_topics = _chosen(catalog.snapshots("topic"), topics, others=groups)
        of_groups = _chosen(catalog.snapshots("group"), groups, others=topics)
    if not as_json:
        print_lines(_lines(of_topics, of_groups, setup.selection.database))
        return
    print_json(
        {
            "topics": [
                {"cluster_id": s.cluster_id, "topic": s.name, **s.content, "taken_at": moment(s.taken_at)}
                for s in of_topics
            ],
            "groups": [
                {
                    "cluster_id": group.cluster_id,
                    "group": group.name,
                    "offsets": [
                        {
                            "topic": at.topic,
                            "partition": at.partition,
                            "offset": c.offset,
                            "metadata": c.metadata,
                        }
                        for at, c in group.commits.items()
                    ],
                    "topic_ids": group.content["topic_ids"],
                    "taken_at": moment(group.taken_at),
                }
                for group in of_groups
            ],
            "database": setup.selection.database,
        }
    )


def _chosen(found: Sequence[Snapshot], patterns: Sequence[str], others: Sequence[str]) -> list[Snapshot]:
    """Those that patterns name; all where nothing is named at all, and none where only others are.

    Raises:
        MissingSettingError: A pattern names none.
    """
    from hop_archive.model.topics import matches

    if not patterns:
        return [] if others else list(found)
    for pattern in patterns:
        if not any(matches(snapshot.name, (pattern,)) for snapshot in found):
            raise MissingSettingError(
                f"There is no snapshot of {pattern!r}.",
                remedy="Leave --topic and --group out to see all; hop-archive snapshot take asks the source.",
                pattern=pattern,
            )
    return [snapshot for snapshot in found if matches(snapshot.name, patterns)]


def _lines(topics: Sequence[Snapshot], groups: Sequence[Snapshot], database: str) -> Iterator[str]:
    if not topics and not groups:
        yield f"No snapshot yet: database {database}. Take one with hop-archive snapshot take."
        return
    if topics:
        yield f"{counted(len(topics), 'topic')}: database {database}"
        rows = []
        for topic in topics:
            settings = sorted(topic.content["settings"].items())
            shown = " ".join(f"{name}={harmless(value)}" for name, value in settings)
            shown = shown or ("-" if topic.content["settings_known"] else "?")
            taken = moment(topic.taken_at) or ""
            rows.append([topic.name, str(topic.content["partitions"]), shown, taken, topic.cluster_id])
        yield from table(["TOPIC", "PARTITIONS", "OWN SETTINGS", "TAKEN", "CLUSTER"], rows, right=(1,))
    if topics and groups:
        yield ""
    if groups:
        yield f"{counted(len(groups), 'consumer group')}: database {database}"
        rows = []
        for group in groups:
            for topic_name in sorted(group.content["topic_ids"]):
                at_topic = ((at, offset) for at, offset in group.offsets.items() if at.topic == topic_name)
                places = " ".join(f"{at.partition}:{offset}" for at, offset in at_topic)
                taken = moment(group.taken_at) or ""
                rows.append([harmless(group.name), topic_name, places, taken, group.cluster_id])
        yield from table(["GROUP", "TOPIC", "NEXT OFFSETS, BY PARTITION", "TAKEN", "CLUSTER"], rows)
