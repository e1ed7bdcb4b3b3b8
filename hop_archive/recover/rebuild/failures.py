"""What became of topics that could not be rebuilt: one of them never stops the others, and none is passed over in silence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from hop_archive.errors import DataError, HopArchiveError, UnavailableError
from hop_archive.model.wording import counted

log = logging.getLogger(__name__)

_MOST_NAMED = 5


class Failures:
    """Topics that failed, each with why; raised together once the others are done.

    Attributes:
        besides: What is wrong and is of no topic; raised at the end as well, and stops none.
        raised: What ``raise_any`` has raised: who goes on with other topics knows by it that nothing else ended the work.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, Exception] = {}
        self.besides: HopArchiveError | None = None
        self.raised: Exception | None = None

    def __contains__(self, topic: object) -> bool:
        return topic in self._by_topic

    def __bool__(self) -> bool:
        return bool(self._by_topic) or self.besides is not None

    @contextlib.contextmanager
    def of(self, topic: str, all_answer: Callable[[], None]) -> Iterator[None]:
        """Do one topic's work; what ends it is kept, and the next topic's turn comes.

        Args:
            topic: Whose.
            all_answer: Raises where a server does not answer. Asked after one did not: it may have been too much for it.

        Raises:
            UnavailableError: A server does not answer: no topic's work could go on.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever one topic's objects bring about, the others are done)
            if isinstance(error, UnavailableError):
                all_answer()
            self._by_topic[topic] = error
            log.error("Topic %s is left as it is: %s", topic, error, extra={"topic": topic})

    def raise_any(self) -> None:
        """Tell of all of them.

        Raises:
            HopArchiveError: Some failed: of the class that all of their errors have, else a ``DataError``.
            Exception: One failed by a fault of this program; its notes name the other topics, with theirs.
        """
        errors = list(self._by_topic.values())
        faults = [error for error in errors if not isinstance(error, HopArchiveError)]
        self.raised = self.besides
        if faults:  # of this program: with all that is known of it
            self.raised = faults[0]
            for topic, error in self._by_topic.items():
                note = f"{topic} could not be rebuilt: {error}"
                if note not in getattr(self.raised, "__notes__", ()):
                    self.raised.add_note(note)
        elif errors:
            kinds = {type(error) for error in errors if isinstance(error, HopArchiveError)}
            named = [f"{topic}: {error}" for topic, error in [*self._by_topic.items()][:_MOST_NAMED]]
            left = len(errors) - len(named)
            more = f" And {left} more." if left else ""
            self.raised = (kinds.pop() if len(kinds) == 1 else DataError)(
                f"{counted(len(errors), 'topic')} could not be rebuilt; the others are done. {' '.join(named)}{more}",
                topics=list(self._by_topic),
            )
            self.raised.__cause__ = errors[0]
        if self.raised is not None:
            raise self.raised
