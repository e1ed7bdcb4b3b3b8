"""Log stanzas put into effect with Python's ``logging``: whole lines, UTC, one JSON object a line if asked."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import TextIO

from hop_archive.config.stanzas import FileLogStanza, LogStanza
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.wording import harmless

ROOT = "hop_archive"
LIBRDKAFKA = "hop_archive.librdkafka"

# The run that this process does, for lines in JSON; '' where there is none.
_run = ""

# Loggers that the latest configure() gave a level, for the next one to take it back.
_levelled: set[str] = set()


def configure(stanza: LogStanza, *, stream: TextIO | None = None) -> logging.Handler:
    """Send all log lines of this process where the stanza says.

    Calling it again replaces what the call before set up; handlers that others installed (Dagster's, pytest's)
    stay. The stanza's level is for hop_archive's own loggers; other packages are heard from warning on unless
    ``levels`` names them, because some write request headers, and so credentials, when they debug.

    Args:
        stanza: What to do, resolved.
        stream: Where a console's lines go; None: the error output as it is now.

    Returns:
        The handler in use, to flush or close.

    Raises:
        ConfigurationError: The file cannot be opened.
    """
    if isinstance(stanza, FileLogStanza):
        try:
            handler: logging.Handler = WatchedFileHandler(stanza.path, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"{stanza.label} path: {stanza.path} cannot be opened: {error.strerror}.",
                remedy="Make its directory, or name another file.",
                path=stanza.path,
            ) from error
    else:
        handler = logging.StreamHandler(stream or sys.stderr)
    handler.set_name(ROOT)
    handler.setFormatter(JsonFormatter() if stanza.format == "json" else PlainFormatter())
    # Not by logging.config.dictConfig, which closes the handlers of others, and takes them from the root logger.
    remove_former()
    logging.getLogger().addHandler(handler)
    for name, level in {"": "warning", ROOT: stanza.level, **stanza.levels}.items():
        logging.getLogger(name).setLevel(level.upper())
        _levelled.add(name)
    return handler


def note_run(run_id: str) -> None:
    """Let lines in JSON say from now on of which run they are; '' for none."""
    global _run
    _run = run_id


def remove_former() -> None:
    """Take back what the latest ``configure`` did; nothing where there was none."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if each.get_name() == ROOT]:
        root.removeHandler(handler)
        handler.close()
    for name in _levelled:
        logging.getLogger(name).setLevel(logging.NOTSET if name else logging.WARNING)
    _levelled.clear()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _about(record: logging.LogRecord) -> dict[str, object]:
    """Topic, partition and slice that a line is about, as far as its arguments tell."""
    found: dict[str, object] = {}
    if topic := getattr(record, "topic", None):
        found["topic"] = topic
    arguments = record.args if isinstance(record.args, tuple) else ()
    error = record.exc_info[1] if record.exc_info else None
    for about in (getattr(record, "slice", None), *arguments, error):
        if isinstance(about, Slice):
            told: dict[str, object] = {
                "topic": about.topic,
                "partition": about.partition,
                "slice": str(about),
            }
        elif isinstance(about, PartitionLog | TopicPartition):
            told = {"topic": about.topic, "partition": about.partition}
        elif isinstance(about, HopArchiveError):
            told = {
                key: about.facts[key] for key in ("topic", "partition") if about.facts.get(key) is not None
            }
        else:
            continue
        found = {**told, **found}
    return found


class PlainFormatter(logging.Formatter):
    """``2026-01-01T00:00:00.000Z INFO hop_archive.ingest.write: ...``, then the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines; what others said in them cannot act on a terminal."""
        return harmless(super().format(record), "\n\t")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Return the record's moment in UTC, to the millisecond."""
        return _time(record)


class JsonFormatter(logging.Formatter):
    """One JSON object on one line: time, level, logger, message; run, topic, slice, exception and facts where there are any.

    Facts are ``extra={"facts": {...}}`` of the call, or those of the hop_archive error that is logged. What a line is about is
    told by what it is made of: the first slice, log or error among its arguments. Where it has only text, the call says
    ``extra={"topic": ...}`` or ``extra={"slice": ...}``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Escapes everything beyond ASCII, so no reader's idea of a line end can split it."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **({"run": _run} if _run else {}),
            **_about(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        error = record.exc_info[1] if record.exc_info else None
        facts = getattr(record, "facts", None) or (
            error.facts if isinstance(error, HopArchiveError) else None
        )
        if facts:
            line["facts"] = facts
        return json.dumps(line, default=str)
