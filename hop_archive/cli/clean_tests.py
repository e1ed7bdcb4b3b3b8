"""``hop-archive clean-tests``: test messages go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Chosen, Setup, json_option, stanza_options
from hop_archive.cli.output import count, size, table
from hop_archive.cli.removal import agreed, opened, print_json, print_tally, yes_option
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.upkeep.remove.clean_tests import Cleaned, TopicTests
    from hop_archive.upkeep.remove.remove import Removing

_EPILOG = """\b
Examples:
  hop-archive clean-tests -H hop-local -D local-db -S local-store
      what would go of the test topics that the source's stanza names
  hop-archive clean-tests -H hop-dev -D aws-dev-db -S s3-dev -T sys.hop-archive-test --yes
      cleans that one
  hop-archive clean-tests -H hop-local -D local-db -S local-store --test-header --yes
      and messages of other topics that have a header _test

\b
What is done to a test topic:
  what Kafka still holds of it is skipped, unread, and the consumer group's
  offsets go to the end; its rows go, then its objects, then their copies in
  the backup bucket. The ledger says "skipped" of all its offsets, with the
  reason, so that nothing is archived again.

\b
What is refused:
  a source stanza that says production = true; a database or store stanza that
  does not say cleaning_allowed = true; a topic that test_topics of the source
  does not mean.
"""


@click.command("clean-tests", epilog=_EPILOG)
@stanza_options
@click.option(
    "-T",
    "--topic",
    "topics",
    metavar="NAME",
    multiple=True,
    help="Only this test topic; a name or a glob. May be given again.  [default: all test topics]",
)
@click.option(
    "--test-header",
    is_flag=True,
    help="Remove messages with a header _test as well, of whatever topic. Every document is read to know.",
)
@click.option(
    "--delete-records",
    is_flag=True,
    help="Delete the test topics' records in Kafka, too, where the source is writable and the broker can.",
)
@yes_option
@json_option
def clean_tests(
    chosen: Chosen,
    topics: tuple[str, ...],
    *,
    test_header: bool,
    delete_records: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove the messages of test topics from the archive, and skip those that are not read yet.

    Shows first what would go. Interrupted, it is completed by running it again; archiving may go on meanwhile.
    """
    setup = chosen.setup("source", "database", "store")
    with _parts(setup) as (archive, removing):
        from hop_archive.model.query import Query
        from hop_archive.upkeep.remove.clean_tests import (
            clean_marked,
            clean_topics,
            plan_cleaning,
            topics_to_clean,
        )

        names = topics_to_clean(archive, topics)
        plan = plan_cleaning(archive, removing, names)
        marked = _count_marked(removing) if test_header and not yes else None
        if not as_json:
            _print_plan(plan, marked)
        if not agreed("Remove these?", yes=yes, as_json=as_json):
            if as_json:
                print_json(_plan_object(plan, marked), done=False)
            return
        cleaned = clean_topics(archive, removing, names, delete_records=delete_records)
        if test_header:
            clean_marked(removing, Query())
        if as_json:
            more = _cleaned_object(cleaned)
            print_json(_plan_object(plan, marked), done=True, tally=removing.tally, **more)
        else:
            print_tally(removing.tally)
            _print_cleaned(cleaned)


@contextlib.contextmanager
def _parts(setup: Setup) -> Iterator[tuple[Archive, Removing]]:
    with opened(setup, "clean") as removing, contextlib.closing(setup.open()) as archive:
        yield archive, removing


def _count_marked(removing: Removing) -> int:
    from hop_archive.model.query import Query
    from hop_archive.upkeep.remove.clean_tests import marked

    return sum(1 for _ in marked(removing, Query()))


def _print_plan(plan: Sequence[TopicTests], marked: int | None) -> None:
    if not plan:
        click.echo("There is no test topic.")
    else:
        rows = [[one.topic, count(one.messages), size(one.size_bytes), count(one.unread)] for one in plan]
        for line in table(["test topic", "messages", "bytes", "unread"], rows, right={1, 2, 3}):
            click.echo(line)
    if marked is not None:
        click.echo(f"{counted(marked, 'message')} of any topic with a header _test.")


def _plan_object(plan: Sequence[TopicTests], marked: int | None) -> dict[str, Any]:
    topics = [
        {"topic": one.topic, "messages": one.messages, "bytes": one.size_bytes, "unread": one.unread}
        for one in plan
    ]
    return {"topics": topics, "marked": marked}


def _cleaned_object(cleaned: Cleaned) -> dict[str, Any]:
    return {
        "skipped": cleaned.skipped,
        "deleted_below": {str(at): offset for at, offset in cleaned.deleted_below.items()},
        "why_not_deleted": cleaned.why_not_deleted,
    }


def _print_cleaned(cleaned: Cleaned) -> None:
    click.echo(f"Skipped {counted(cleaned.skipped, 'offset')} unread.")
    if cleaned.deleted_below:
        click.echo(f"Kafka's records are deleted in {counted(len(cleaned.deleted_below), 'partition')}.")
    for topic, why in cleaned.why_not_deleted.items():
        click.echo(f"Kafka's records of {topic} stay: {why}")
