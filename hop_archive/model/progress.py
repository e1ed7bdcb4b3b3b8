"""How far a long piece of work is: one value for all of them, so that one display shows any."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """How far it is: whoever does the work counts, and whoever shows it looks on.

    Attributes:
        total: Messages that there are to deal with, at most; 0 where nobody knows.
        counts: What was done so far, by what was counted. Each only grows, but for what has to be looked at anew.
    """

    topic: str = ""
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
