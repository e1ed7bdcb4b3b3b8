"""Moments as people say them: dates and times, or how long ago. Pure."""

from __future__ import annotations

import datetime
import re

_AGO = re.compile(r"([0-9]+)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
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
