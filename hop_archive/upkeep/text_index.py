"""Fills the text index: what archive-core's readers search by, of messages that this archive stored."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import RowJob, TextBacklog, TextEntry
from hop_archive.model.progress import Progress
from hop_archive.model.topics import matches
from hop_archive.read.fetch import OR_FROZEN, fetch_documents
from hop_archive.read.indexable_text import indexable_text
from hop_archive.store.protocol import Store
from hop_archive.upkeep.row_jobs import portions

NOT_SET = 'Nothing is indexed: the database\'s stanza does not say index_text = ["*"], or the topics whose text is to be found.'

_OFFLOADED = "+oversized"
"""What hop-client adds to a topic's name for large messages that it sends another way."""

_MOST_LOOKED_AT = 100_000
"""Rows that are looked at to tell how far the index is behind."""


def is_indexed(topic: str, patterns: Collection[str]) -> bool:
    """Whether messages of a topic are to be found by text; as its others those that hop-client sent another way."""
    return matches(topic, patterns) or matches(topic.removesuffix(_OFFLOADED), patterns)


def index_text(
    catalog: Catalog,
    store: Store,
    patterns: Collection[str],
    progress: Progress,
    *,
    everything: bool = False,
    limit: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Index the messages of these topics that are not, in portions that are committed one by one. Again: goes on.

    A document that cannot be read is left out, and the others are not: once it is repaired, ``everything`` finds it.

    Args:
        catalog: Where the rows and the index are.
        store: Where the documents are.
        patterns: Names and globs of topics.
        progress: Counts the messages that are ``indexed`` now, those of them of which ``headers`` alone are (the payload is too large,
            of a kind without text, or damaged), and the ``unreadable`` ones, whose documents are missing or not what their rows say;
            and rows, as ``row_jobs.portions`` does.
        everything: Look from the first row on, not only where it was left: for topics that were not indexed before.
        limit: So many messages at most.
        stop: Asked between portions.

    Raises:
        ConflictError: Another process indexes.
        UnavailableError: A server does not answer. What was committed stays.
    """
    rows = portions(
        catalog,
        RowJob.INDEX_TEXT,
        lambda topic: is_indexed(topic, patterns),
        progress,
        everything=everything,
        limit=limit,
    )
    with closing(rows):
        for portion in rows:
            entries: list[TextEntry] = []
            for found in fetch_documents(store, portion, of_one=OR_FROZEN):
                if found.document is None or found.problems:
                    progress.counts["unreadable"] += 1
                elif not found.document.suppressed:
                    entries.append(TextEntry(found.row.uuid, *indexable_text(found.document)))
            progress.counts["indexed"] += catalog.add_texts(entries)
            progress.counts["headers"] += sum(not entry.is_full for entry in entries)
            if stop():
                return


def backlog(catalog: Catalog, patterns: Collection[str]) -> TextBacklog:
    """How far the index is behind for these topics; costs as much however large the archive is."""
    topics = [topic for topic in catalog.topics() if is_indexed(topic, patterns)]
    return catalog.text_backlog(topics, _MOST_LOOKED_AT)
