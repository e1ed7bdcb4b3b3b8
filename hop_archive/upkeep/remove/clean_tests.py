"""Test messages go: rows and objects of test topics, what is left of those to read, and single messages marked as tests.

What was a test is *skipped* in the ledger, so that nothing archives it again. Running it again finds nothing to do;
crashed anywhere, it goes on. Archiving may go on meanwhile: what it adds to a test topic goes in the next round.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch, Outcome, Row
from hop_archive.errors import ConfigurationError, ConflictError, ForbiddenError, SliceTakenError
from hop_archive.ingest.plan import work
from hop_archive.ingest.survey import Survey, plan_work, survey
from hop_archive.model.keys import slice_of, topic_of
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY
from hop_archive.model.topics import matches
from hop_archive.read.fetch import fetch_documents
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.remove import Removing, portions

log = logging.getLogger(__name__)

COMMAND = "clean-tests"
FAILURES = partial(Failures, "topic", "could not be cleaned")
CLEANED = "test messages, cleaned up"
MARKED = "a message marked as a test, cleaned up"

TEST_HEADER = "_test"
"""Header by which Hopskotch's clients mark a message as a test, whatever its value (hop-client)."""

GRACE_S = 3600.0
"""Objects younger than this may belong to a batch that is about to be committed."""

_ALL_AT_ONCE = Limits(run_messages=2**62)
"""Nothing is read, so a plan may be of any size: a slice is one row of the ledger."""

_MOST_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class TopicTests:
    """What a test topic holds that would go: messages and bytes in the catalog, and offsets that would be skipped, unread.

    Attributes:
        unread: None where not all of the topic could be looked at, or nobody looked.
    """

    topic: str
    messages: int
    size_bytes: int
    unread: int | None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was done with test topics beyond the rows and objects that the tally counts.

    Attributes:
        skipped: Offsets that are skipped now, unread.
        ends: Up to where each partition is dealt with.
        deleted_below: The offsets below which Kafka's own records are deleted; empty where they are not.
        why_not_deleted: Why they are not, of each topic where that was wanted and refused.
    """

    skipped: int = 0
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    deleted_below: dict[TopicPartition, int] = field(default_factory=dict)
    why_not_deleted: dict[str, str] = field(default_factory=dict)


def topics_to_clean(archive: Archive, wanted: Collection[str] = ()) -> list[str]:
    """The test topics that the catalog or the source knows, sorted: all, or those that names or globs mean.

    Raises:
        ConfigurationError: A name or glob means a topic that is no test topic, or none at all.
        UnavailableError: The catalog or the source does not answer.
    """
    known = {*archive.catalog.known_topics()} | archive.source.topics().keys()
    for pattern in wanted:
        meant = [name for name in known if matches(name, (pattern,))]
        if others := sorted(name for name in meant if not archive.topics.test(name)):
            raise ConfigurationError(
                f"{', '.join(others)} is no test topic of source {archive.source.name}: it is not cleaned.",
                remedy="See test_topics in the source's stanza.",
                topics=others,
            )
        if not meant:
            raise ConfigurationError(f"There is no test topic {pattern}.", topic=pattern)
    return sorted(n for n in known if archive.topics.test(n) and (not wanted or matches(n, wanted)))


def plan_cleaning(archive: Archive, removing: Removing, topics: Sequence[str]) -> list[TopicTests]:
    """What would go of these test topics; changes nothing.

    Raises:
        ConfigurationError: The store is not the one whose bucket the rows name.
        UnavailableError: The catalog or the source does not answer.
    """
    seen = survey(_at(archive, removing), topics) if topics else None
    return [_tests_of(removing, topic, seen) for topic in topics]


def clean_topics(
    archive: Archive,
    removing: Removing,
    topics: Sequence[str],
    *,
    delete_records: bool = False,
    grace_s: float = GRACE_S,
    failures: Failures | None = None,
) -> Cleaned:
    """Take away all that is archived of test topics, skip what is not read yet, and move the group's offsets to the end.

    Objects of theirs that no row names go, too: what crashed runs left, and those that came second; a document of its own
    only once it is ``grace_s`` old, for it may be about to be catalogued. With ``delete_records`` Kafka's own records are
    deleted where that can be done. A topic that cannot be cleaned stops no other one; it is told once those are done, or is in
    ``failures`` for the caller to raise.

    Raises:
        ForbiddenError: A topic is no test topic; or the store, or the role, does not let anything be deleted.
        ConfigurationError: The store is not the one whose bucket the rows name.
        ConflictError: Somebody goes on archiving all the time.
    """
    if others := [topic for topic in topics if not archive.topics.test(topic)]:
        raise ForbiddenError(
            f"{', '.join(others)} is no test topic of source {archive.source.name}: it is not cleaned.",
            remedy="See test_topics in the source's stanza.",
            topics=others,
        )
    archive = _at(archive, removing)
    cleaned = Cleaned()

    def all_answer() -> None:
        removing.all_answer()
        archive.source.cluster_id()

    with removing.command(COMMAND, failures, FAILURES) as failed:
        for topic in topics:
            with failed.of(topic, all_answer):
                _tests_of(removing, topic, None)
                cleaned = _clean_topic(archive, removing, topic, cleaned)
                # Then what no row names, noted as pending first.
                young_ms = int((removing.now().timestamp() - grace_s) * 1000)
                covered = removing.catalog.coverage([topic])
                listed = chain(
                    removing.store.listing(f"segments/{topic}/"), removing.store.listing(f"{topic}/")
                )
                unnamed = (
                    info.key
                    for info in listed
                    if topic_of(info.key) == topic
                    and (
                        info.modified_ms <= young_ms
                        # A segment of offsets that are dealt with comes too late for ever.
                        or ((at := slice_of(info.key)) and at.offsets & covered.get(at.partition_log, EMPTY))
                    )
                )
                for keys in portions(unnamed):
                    pending = [(removing.store.bucket, key) for key in keys]
                    removing.catalog.note_pending_deletes(pending, topic, removing.removal(COMMAND, CLEANED))
                    removing.delete_pending(COMMAND)
                ends = {at: end for at, end in cleaned.ends.items() if at.topic == topic}
                if not delete_records or not ends:
                    continue
                try:
                    deleted = {**cleaned.deleted_below, **archive.source.delete_records(ends)}
                    cleaned = replace(cleaned, deleted_below=deleted)
                except ConfigurationError as refused:
                    # The ledger says that they are dealt with; that Kafka keeps them until its own time does no harm.
                    log.info("Records of %s stay in Kafka: %s", topic, refused, extra={"topic": topic})
                    why = {**cleaned.why_not_deleted, topic: str(refused)}
                    cleaned = replace(cleaned, why_not_deleted=why)
    return cleaned


def marked(removing: Removing, query: Query) -> Iterator[Row]:
    """The selected messages that are marked as tests by a header; each document is read to know.

    A document that is missing or damaged is left to verification.

    Raises:
        ConfigurationError: The store is not the one whose bucket the rows name.
    """
    rows = removing.catalog.select(query)
    for found in fetch_documents(removing.store, map(removing.at_hand, rows)):
        headers = found.document.message.headers if found.document is not None else ()
        if any(name == TEST_HEADER for name, _ in headers):
            yield found.row


def clean_marked(removing: Removing, query: Query, *, failures: Failures | None = None) -> None:
    """Take away the selected messages that are marked as tests, with the duplicates that refer to them. Again: goes on.

    ``failures`` takes in what could not be deleted, for the caller to raise; None: it is raised here.
    """
    removal = removing.removal(COMMAND, MARKED)
    with removing.command(COMMAND, failures, FAILURES):
        for rows in portions(marked(removing, query)):
            removing.count(removing.catalog.remove_messages([row.uuid for row in rows], "skipped", removal))
            removing.delete_pending(COMMAND)


def _at(archive: Archive, removing: Removing) -> Archive:
    """The archive over the catalog and store that the removal works on."""
    return replace(archive, catalog=removing.catalog, store=removing.store)


def _tests_of(removing: Removing, topic: str, seen: Survey | None) -> TopicTests:
    catalog = removing.catalog
    extents = [*(catalog.extent([span]) for span in catalog.spans(topic)), catalog.adopted_extent(topic)]
    removing.refuse_other_buckets({bucket for extent in extents for bucket in extent.buckets})
    unread = None
    if seen is not None and topic not in seen.not_whole:
        unread = sum(work(known).size for log, known in seen.knowledge.items() if log.topic == topic)
    return TopicTests(
        topic,
        messages=sum(extent.messages for extent in extents),
        size_bytes=sum(extent.size_bytes for extent in extents),
        unread=unread,
    )


def _clean_topic(archive: Archive, removing: Removing, topic: str, so_far: Cleaned) -> Cleaned:
    """Round by round: what somebody committed between a look and the skipping is seen in the next.

    Planning commits the group's offsets: those of the last plan, which found nothing left, are the ends.
    """
    removal = removing.removal(COMMAND, CLEANED)
    for _ in range(_MOST_ROUNDS):
        skipped, ends = 0, dict[TopicPartition, int]()
        # What is left to read is skipped; of other topics nothing would archive it.
        is_read = archive.topics.archived(topic) and topic in archive.source.topics([topic])
        for _ in range(_MOST_ROUNDS if is_read else 0):
            found = plan_work(replace(archive, limits=_ALL_AT_ONCE), [topic])
            found.survey.refuse_unseen()
            ends = found.survey.progress()
            if not found.plan.slices:
                break
            for left in found.plan.slices:
                # Where somebody has dealt with a part of it, the next plan sees what is left.
                with suppress(SliceTakenError):
                    archive.catalog.commit(Batch(left, Outcome.SKIPPED, CLEANED, run_id=archive.run_id))
                    skipped += len(left)
        so_far = replace(so_far, skipped=so_far.skipped + skipped, ends={**so_far.ends, **ends})
        ledger = removing.catalog.ledger([topic])
        places = [entry.slice for entry in ledger if entry.outcome is Outcome.ARCHIVED]
        removing.remove_places(places, "skipped", removal)
        removing.remove_adopted(topic, removal)
        if not places and not skipped:
            return so_far
    raise ConflictError(
        f"Somebody archives {topic} faster than it is cleaned.",
        remedy="Stop who publishes tests, or run this again.",
        topic=topic,
    )
