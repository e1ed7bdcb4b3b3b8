"""Moments as people say them, and as keys and files are divided by them. Pure."""

from __future__ import annotations

import datetime
import re

_AGO = re.compile(r"([0-9]+)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CYCLE_YEARS = 400
_CYCLE_MS = 146_097 * 86_400_000
"""The Gregorian calendar repeats every 400 years, of 146,097 days each time."""
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

MOMENT_HELP = "a date or time (ISO 8601, UTC unless it says otherwise), or how long ago: 90s, 15m, 3h, 2d, 4w"


def is_ago(text: str) -> bool:
    """Tell whether it says how long ago: what that means depends on when it is said."""
    return _AGO.fullmatch(text.strip()) is not None


def moment_of(text: str, now: datetime.datetime) -> datetime.datetime:
    """The moment that ``text`` means, in UTC.

    Raises:
        ValueError: It means none.
        OverflowError: It lies before the year 1 or after the year 9999.
    """
    text = text.strip()
    if found := _AGO.fullmatch(text):
        return now - datetime.timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    at = datetime.datetime.fromisoformat(text)
    return at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at.astimezone(datetime.UTC)


def milliseconds(at: datetime.datetime) -> int:
    """Milliseconds since 1970, as messages' timestamps count them; parts of one are cut off."""
    return (at - _EPOCH) // datetime.timedelta(milliseconds=1)


def utc_hour(timestamp_ms: int) -> tuple[int, int, int, int]:
    """Year, month, day, hour of any int64 timestamp: datetime alone ends at the year 9999."""
    cycles, rest_ms = divmod(timestamp_ms, _CYCLE_MS)
    moment = datetime.datetime.fromtimestamp(rest_ms // 1000, tz=datetime.UTC)
    return moment.year + cycles * _CYCLE_YEARS, moment.month, moment.day, moment.hour


def utc_month(timestamp_ms: int) -> str:
    """Year and month of any int64 timestamp, UTC: ``2026-11``."""
    year, month, _, _ = utc_hour(timestamp_ms)
    return f"{year:04}-{month:02}"
