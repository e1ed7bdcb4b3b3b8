"""Jobs that go once over the rows of the catalog, in the order in which they were added, in portions.

What is done is remembered portion by portion, so a job that is killed goes on where it was. It is remembered only of rows before
which no other one can come any more: a transaction that began earlier may still add some with smaller numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Row, RowJob
from hop_archive.model.progress import Progress

PORTION_ROWS = 500
"""Rows that are dealt with in one transaction."""


def portions(
    catalog: Catalog,
    job: RowJob,
    means: Callable[[str], bool],
    progress: Progress,
    *,
    everything: bool = False,
    limit: int | None = None,
) -> Generator[Sequence[Row]]:
    """The rows that a job has still to deal with, some at a time; the next are asked for once these were dealt with.

    Args:
        catalog: Where the rows are.
        job: Which.
        means: Which topics it is about.
        progress: Its count "rows" is the number up to which rows were looked at, and its total that of the last.
        everything: From the first row on, as where topics are meant that were not before.
        limit: So many rows at most.

    Raises:
        ConflictError: Another process does this job.
    """
    with catalog.hold(job.value):
        span = catalog.begin_row_job(job)
        topics = [topic for topic in catalog.topics() if means(topic)]
        reached = 0 if everything else span.done_to
        while topics and reached < span.last and limit != 0:
            most = PORTION_ROWS if limit is None else min(limit, PORTION_ROWS)
            portion = catalog.rows_for(job, topics, reached, span.last, most)
            if portion.rows:
                yield portion.rows
            reached = portion.reached
            limit = None if limit is None else limit - len(portion.rows)
            if span.done_to < (done_to := min(reached, span.settled_to)):
                catalog.note_row_job(job, done_to)
            progress.counts["rows"], progress.total = reached, span.last
