"""What a database server wrote down: which of its log files, and from which line on."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_UNASKED = 2
"""Files that are shown where no moment is asked for: the present one may have just been begun."""

# As Postgres begins a line where log_timezone is UTC, as RDS and the local stack have it.
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? (?:UTC|GMT)\b")


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a server's log.

    Attributes:
        name: Its name there.
        written_at: When its last line was written.
        size_bytes: How long it is.
    """

    name: str
    written_at: datetime.datetime
    size_bytes: int


class ServerLogs(Protocol):
    """The log of one server."""

    def files(self) -> Sequence[LogFile]:
        """Return the files that there are, in any order."""
        ...

    def lines(self, file: LogFile) -> Iterator[str]:
        """Yield a file's lines, without their ends, as they arrive."""
        ...


@dataclass(frozen=True, slots=True)
class FilesHere:
    """Log files on this machine.

    Attributes:
        paths: Where they may be; one that is not there is left out.
    """

    paths: tuple[Path, ...]

    def files(self) -> Sequence[LogFile]:
        """Return those that are there."""
        found: list[LogFile] = []
        for path in filter(Path.is_file, self.paths):
            facts = path.stat()
            written_at = datetime.datetime.fromtimestamp(facts.st_mtime, datetime.UTC)
            found.append(LogFile(str(path), written_at, facts.st_size))
        return found

    def lines(self, file: LogFile) -> Iterator[str]:
        """Yield a file's lines, without their ends; bytes that are not UTF-8 are shown as such."""
        with Path(file.name).open(encoding="utf-8", errors="backslashreplace") as text:
            for line in text:
                yield line.rstrip("\n")


def newest(files: Sequence[LogFile], since: datetime.datetime | None = None) -> list[LogFile]:
    """Return the files written to since then, or the newest two; the oldest first."""
    ordered = sorted(files, key=lambda file: (file.written_at, file.name))
    return ordered[-_UNASKED:] if since is None else [file for file in ordered if file.written_at >= since]


def later(lines: Iterator[str], since: datetime.datetime | None = None) -> Iterator[str]:
    """Yield the lines written since then; one without a moment in UTC at its begin belongs to the line before it."""
    is_later = True
    for line in lines:
        if since is not None and (stamp := _STAMP.match(line)):
            at = datetime.datetime.fromisoformat(stamp[1]).replace(tzinfo=datetime.UTC)
            is_later = at >= since.replace(microsecond=0)
        if is_later:
            yield line
