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

        def described(rds: Any) -> list[Any]:
            pages = rds.get_paginator("describe_db_log_files").paginate(DBInstanceIdentifier=self.instance_id)
            return [file for page in pages for file in page.get("DescribeDBLogFiles", [])]

        return [
            LogFile(
                file["LogFileName"],
                datetime.datetime.fromtimestamp(file.get("LastWritten", 0) / 1000, datetime.UTC),
                file.get("Size", 0),
            )
            for file in ask(subject, "rds", described)
        ]

    def lines(self, file: LogFile) -> Iterator[str]:
        """Yield a file's lines, without their ends, as they arrive; holds a portion of it in memory."""
        subject = self._subject("rds:DownloadDBLogFilePortion")
        rds = explained(subject, lambda: client(subject, "rds", _PORTION_S))
        begun, marker, more = "", _FROM_THE_BEGIN, True
        asked = {"DBInstanceIdentifier": self.instance_id, "LogFileName": file.name}
        while more:
            ask_portion = partial(rds.download_db_log_file_portion, **asked, Marker=marker)
            answer = explained(subject, ask_portion)
            *whole, begun = (begun + (answer.get("LogFileData") or "")).split("\n")
            yield from whole
            more = answer.get("AdditionalDataPending", False) and answer["Marker"] != marker
            marker = answer.get("Marker", marker)
        if begun:
            yield begun

    def _subject(self, action: str) -> Subject:
        what = f'the log of RDS instance "{self.instance_id}"'
        return Subject(self.where, what, action, self.region, self.profile)
