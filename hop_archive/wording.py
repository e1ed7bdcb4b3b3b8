"""Words that every part uses when it tells people something. Pure."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 message``, ``1,200 messages``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
