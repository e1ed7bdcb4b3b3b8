"""Corrects the media types of rows that an earlier rule told; documents stay as they are (see ``model.annotations``)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Correction, RowJob
from hop_archive.errors import StaleDecisionError
from hop_archive.model.progress import Progress
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.protocol import Store
from hop_archive.upkeep.row_jobs import portions


def correct_media_types(
    catalog: Catalog,
    store: Store,
    progress: Progress,
    *,
    limit: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Let rows have the media types that they would be given today, in portions. Again: goes on with what is left.

    Only rows change that stand as they were seen, and whose documents are what the rows say.

    ``progress`` counts those that were ``corrected``, and rows as ``row_jobs.portions`` does.

    Raises:
        ConflictError: Another process does this.
        UnavailableError: A server does not answer. What was corrected stays.
    """
    rows = portions(catalog, RowJob.MEDIA_TYPES, lambda _: True, progress, limit=limit)
    with closing(rows):
        for portion in rows:
            wrong = [
                Correction(found.row, found.row._replace(annotations=found.document.described))
                for found in fetch_documents(store, portion)
                if found.document is not None
                and not (found.problems or found.document.suppressed)
                and found.row.annotations != found.document.described
            ]
            try:
                catalog.correct_rows(wrong)
                progress.counts["corrected"] += len(wrong)
            except StaleDecisionError:
                progress.counts["corrected"] += sum(_corrected_alone(catalog, one) for one in wrong)
            if stop():
                return


def _corrected_alone(catalog: Catalog, correction: Correction) -> bool:
    """One of some of which another changed, or went, meanwhile."""
    try:
        catalog.correct_rows([correction])
    except StaleDecisionError:
        return False
    return True
