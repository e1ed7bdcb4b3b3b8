"""Jobs that go over all rows of a mock once, and the text index that one of them fills."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

from hop_archive.catalog.mock.session import MockSession, Tables
from hop_archive.catalog.records import Row, RowJob, RowPortion, RowRange, TextBacklog, TextEntry
from hop_archive.model.annotations import REFINED

_YEAR_2100_MS = 4_102_444_800_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class MockRowJobs(MockSession):
    """The part of a mock catalog for jobs that go over all rows once."""

    def begin_row_job(self, job: RowJob) -> RowRange:
        """Whoever would add rows waits: none can come before those that are there."""
        with self._state.change() as tables:
            last = max(_numbered(tables), default=0)
            return RowRange(tables.row_progress.setdefault(job.value, 0), last, last)

    def rows_for(self, job: RowJob, topics: Collection[str], after: int, last: int, most: int) -> RowPortion:
        with self._state.change() as tables:
            found = [
                (number, row)
                for number, row in sorted(_numbered(tables).items())
                if after < number <= last and row.topic in topics and _is_wanted(tables, job, row)
            ][:most]
        return RowPortion([row for _, row in found], found[-1][0] if len(found) == most else last)

    def note_row_job(self, job: RowJob, done_to: int) -> None:
        with self._state.change() as tables:
            tables.row_progress[job.value] = max(done_to, tables.row_progress.get(job.value, 0))

    def add_texts(self, entries: Sequence[TextEntry]) -> int:
        with self._state.change() as tables:
            new = {
                entry.uuid: entry
                for entry in entries
                if entry.uuid in tables.rows and entry.uuid not in {*tables.texts, *tables.suppressions}
            }
            tables.texts.update(new)
        return len(new)

    def text_backlog(self, topics: Collection[str], most: int) -> TextBacklog:
        with self._state.change() as tables:
            done_to = tables.row_progress.get(RowJob.INDEX_TEXT.value, 0)
            looked = [row for number, row in sorted(_numbered(tables).items()) if number > done_to][:most]
            waiting = [
                row for row in looked if row.topic in topics and _is_wanted(tables, RowJob.INDEX_TEXT, row)
            ]
            since = None
            if waiting and (where := waiting[0].slice) is not None:
                since = next((entry.created_at for entry in tables.entries_in(where)), None)
            elif (
                waiting and 0 <= waiting[0].timestamp_ms <= _YEAR_2100_MS
            ):  # else it is none that anybody set
                since = _EPOCH + datetime.timedelta(milliseconds=waiting[0].timestamp_ms)
        return TextBacklog(len(waiting), len(looked) == most, since)


def _numbered(tables: Tables) -> dict[int, Row]:
    """The rows by a number that grows with each that is added, and stays with it."""
    for message_uuid in tables.rows:
        if message_uuid not in tables.row_numbers:
            tables.row_numbers[message_uuid] = tables.last_row_number = tables.last_row_number + 1
    for gone in tables.row_numbers.keys() - tables.rows.keys():
        del tables.row_numbers[gone]
        tables.texts.pop(gone, None)
    return {tables.row_numbers[message_uuid]: row for message_uuid, row in tables.rows.items()}


def _is_wanted(tables: Tables, job: RowJob, row: Row) -> bool:
    if job in (RowJob.CHECK_OBJECTS, RowJob.CHECK_COPIES):
        return True
    if row.uuid in tables.suppressions:
        return False
    if job is RowJob.INDEX_TEXT:
        return row.uuid not in tables.texts
    return row.digest is not None and row.annotations.media_type in REFINED
