"""The log files of an RDS instance, through the API of RDS."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hop_archive.config.aws.account import ask, client, explained
from hop_archive.config.aws.refusals import Subject
from hop_archive.config.server_logs import LogFile

_PORTION_S = 20.0
"""For how long to wait for a portion, which is up to a megabyte that the instance reads from its disk."""

_FROM_THE_BEGIN = "0"


@dataclass(frozen=True, slots=True)
class InstanceLogs:
    """The log of one instance. Each call may raise what ``aws.account.ask`` raises.

    Attributes:
        instance_id: Its identifier.
        where: The stanza and key that name it, for messages.
        region: Where it is.
        profile: Whose credentials to ask with; empty: those of the default chain.
    """

    instance_id: str
    where: str
    region: str
    profile: str = ""

    def files(self) -> Sequence[LogFile]:
        """Return all that RDS keeps: those of three days, unless it was told otherwise."""
        subject = self._subject("rds:DescribeDBLogFiles")
        pages: list[Any] = ask(subject, "rds", lambda rds: list(self._pages(rds)))
        return [_file(one) for page in pages for one in page.get("DescribeDBLogFiles", [])]

    def _pages(self, rds: Any) -> Iterator[Any]:
        paginator = rds.get_paginator("describe_db_log_files")
        yield from paginator.paginate(DBInstanceIdentifier=self.instance_id)

    def lines(self, file: LogFile) -> Iterator[str]:
        """Yield a file's lines, without their ends, as they arrive; holds a portion of it in memory."""
        begun = ""
        for portion in self._portions(file):
            *whole, begun = (begun + portion).split("\n")
            yield from whole
        if begun:
            yield begun

    def _portions(self, file: LogFile) -> Iterator[str]:
        subject = self._subject("rds:DownloadDBLogFilePortion")
        rds = explained(subject, lambda: client(subject, "rds", _PORTION_S))
        marker, more = _FROM_THE_BEGIN, True
        while more:
            answer = explained(subject, partial(self._portion, rds, file, marker))
            yield answer.get("LogFileData") or ""
            more = answer.get("AdditionalDataPending", False) and answer["Marker"] != marker
            marker = answer.get("Marker", marker)

    def _portion(self, rds: Any, file: LogFile, marker: str) -> Any:
        return rds.download_db_log_file_portion(
            DBInstanceIdentifier=self.instance_id, LogFileName=file.name, Marker=marker
        )

    def _subject(self, action: str) -> Subject:
        what = f'the log of RDS instance "{self.instance_id}"'
        return Subject(self.where, what, action, self.region, self.profile)


def _file(described: Any) -> LogFile:
    at = datetime.datetime.fromtimestamp(described.get("LastWritten", 0) / 1000, datetime.UTC)
    return LogFile(described["LogFileName"], at, described.get("Size", 0))
