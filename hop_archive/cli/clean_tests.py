"""``hop-archive clean-tests``: test messages go."""

from __future__ import annotations

import contextlib

import click

from hop_archive.cli.options import StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, print_lines, say, size, table
from hop_archive.cli.removal import agreed, opened, print_removed, yes_option
from hop_archive.model.query import Query
from hop_archive.model.wording import counted

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
@topic_option("Only this test topic; a name or a glob. May be given again.  [default: all test topics]")
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
    chosen: StanzaOptions,
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
    from hop_archive.upkeep.remove import clean_tests as cleaning

    setup = chosen.setup("source", "database", "store")
    with opened(setup, "clean") as removing, contextlib.closing(setup.open()) as archive:
        names = cleaning.topics_to_clean(archive, topics)
        plan = cleaning.plan_cleaning(archive, removing, names)
        marked = None
        if test_header and not yes:
            marked = sum(1 for _ in cleaning.marked(removing, Query()))
        if not as_json:
            if plan:
                rows = [
                    [t.topic, count(t.messages), size(t.size_bytes), count(t.unread, "not known")]
                    for t in plan
                ]
                print_lines(table(["test topic", "messages", "bytes", "unread"], rows, right={1, 2, 3}))
            else:
                say("There is no test topic.")
            if marked is not None:
                say(f"{counted(marked, 'message')} of any topic with a header _test.")
        plan_object = {
            "topics": [
                {"topic": t.topic, "messages": t.messages, "bytes": t.size_bytes, "unread": t.unread}
                for t in plan
            ],
            "marked": marked,
        }
        if not agreed("Remove these?", plan_object, yes=yes, as_json=as_json):
            return
        failures = cleaning.FAILURES()
        cleaned = cleaning.clean_topics(
            archive, removing, names, delete_records=delete_records, failures=failures
        )
        if test_header:
            cleaning.clean_marked(removing, Query(), failures=failures)
        print_removed(
            removing.tally,
            plan_object,
            as_json=as_json,
            skipped=cleaned.skipped,
            deleted_below={str(at): offset for at, offset in cleaned.deleted_below.items()},
            why_not_deleted=cleaned.why_not_deleted,
        )
        failures.raise_any()
        if as_json:
            return
        say(f"Skipped {counted(cleaned.skipped, 'offset')} unread.")
        if cleaned.deleted_below:
            say(f"Kafka's records are deleted in {counted(len(cleaned.deleted_below), 'partition')}.")
        for topic, why in cleaned.why_not_deleted.items():
            say(f"Kafka's records of {topic} stay: {why}")
