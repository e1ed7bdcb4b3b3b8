"""Words that every part uses when it tells people something. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MOST_SAID = 400
"""Characters of what another program said that are passed on: its first sentence or two."""


_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(size_bytes: int) -> str:
    """``12.3 MB``: three digits, decimal units."""
    amount, unit = float(size_bytes), _UNITS[0]
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``5 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    return f"{hours} h {rest_minutes} min" if hours else f"{minutes} min {rest_s} s"


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 message``, ``1,200 messages``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """``a, b, c``, or the first ``most`` and how many there are more: ``a, b and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def harmless(text: str, keep: str = "") -> str:
    r"""The text with all that could act on a terminal, or mislead on it, written out, as in ``\x1b`` or ``\u202e``.

    Args:
        text: Any text.
        keep: Control characters that may stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in keep or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in text
    )


def cut(text: str, most: int) -> str:
    """The text, or its first ``most`` characters and how many there are more."""
    return text if len(text) <= most else f"{text[:most]}… ({counted(len(text) - most, 'character')} more)"


def said(text: object, most: int = MOST_SAID) -> str:
    """What another program said, as it may stand in a message of ours: its first line, cut, harmless, no stop at its end."""
    lines = str(text).strip().splitlines() or [""]
    return cut(harmless(lines[0]), most).strip().rstrip(".: ")
