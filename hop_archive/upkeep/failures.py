"""What became of topics, messages or partitions with which something failed: one never stops the others, and none is passed over in silence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator

from hop_archive.errors import DataError, ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.wording import counted

log = logging.getLogger(__name__)

_MOST_NAMED = 5


class Failures:
    """Topics, or other things of one kind, that failed, each with why; raised together once the others are done.

    Args:
        noun: What they are, in the singular.
        undone: What was not done with them, as a predicate.
        fact: What a fact that names one is called.

    Attributes:
        besides: What is wrong and is of none of them; raised at the end as well, and stops none.
        raised: What ``raise_any`` has raised: who goes on with other topics knows by it that nothing else ended the work.
    """

    def __init__(
        self, noun: str = "topic", undone: str = "could not be rebuilt", fact: str = "topic"
    ) -> None:
        self._noun, self._undone, self._fact = noun, undone, fact
        self._by_name: dict[str, Exception] = {}
        self.besides: HopArchiveError | None = None
        self.raised: Exception | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[tuple[str, Exception]]:
        """Each that failed, by name, and why."""
        return iter(self._by_name.items())

    def __bool__(self) -> bool:
        return bool(self._by_name) or self.besides is not None

    @contextlib.contextmanager
    def of(self, name: str | Collection[str], all_answer: Callable[[], None]) -> Iterator[None]:
        """Do the work of one; what ends it is kept, the first of several, and the next one's turn comes.

        Args:
            name: Whose; of several, where it is the work of them all.
            all_answer: Raises where a server does not answer, or refuses. Asked after one did: it may have been so of this alone.

        Raises:
            HopArchiveError: Raised by ``all_answer``: no work could go on.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever one brings about, the others are done)
            if isinstance(error, UnavailableError | ForbiddenError):
                all_answer()
            for each in (name,) if isinstance(name, str) else name:
                self.take(each, error)

    def take(self, name: str, error: Exception) -> None:
        """Take in why one failed, unless that is known."""
        self._by_name.setdefault(name, error)
        log.error(
            "%s %s %s: %s", self._noun.capitalize(), name, self._undone, error, extra={self._fact: name}
        )

    def raise_any(self) -> None:
        """Tell of all of them.

        Raises:
            HopArchiveError: Some failed: of the class that all of their errors have, else a ``DataError``.
            Exception: One failed by a fault of this program; its notes name the others, with theirs, and what is wrong besides.
        """
        errors = list(self._by_name.values())
        faults = [error for error in errors if not isinstance(error, HopArchiveError)]
        self.raised = self.besides
        if faults:  # of this program: with all that is known of it
            self.raised = faults[0]
            notes = [f"{name} {self._undone}: {error}" for name, error in self]
            for note in [*notes, str(self.besides)] if self.besides is not None else notes:
                if note not in getattr(self.raised, "__notes__", ()):
                    self.raised.add_note(note)
        elif errors:
            kinds = {type(error) for error in errors if isinstance(error, HopArchiveError)}
            named = [f"{name}: {error}" for name, error in [*self][:_MOST_NAMED]]
            left = len(errors) - len(named)
            more = f" And {left} more." if left else ""
            more += f" {self.besides}" if self.besides is not None else ""
            self.raised = (kinds.pop() if len(kinds) == 1 else DataError)(
                f"{counted(len(errors), self._noun)} {self._undone}; the others are done. {' '.join(named)}{more}"
            )
            self.raised.facts[f"{self._fact}s"] = list(self._by_name)
            self.raised.__cause__ = errors[0]
        if self.raised is not None:
            raise self.raised
