"""What a service is that tells people something."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Notification(NamedTuple):
    """What is to be told at once.

    Attributes:
        title: One line.
        body: Plain text, lines.
        is_red: Whether something in it is wrong now; False where all of it is over.
    """

    title: str
    body: str
    is_red: bool


class Service(Protocol):
    """Somewhere to tell people something: a mailbox, a channel, a pager. It holds secrets, and shows none."""

    @property
    def name(self) -> str:
        """Stanza, number and kind, as ``ops 1 (slack)``: for logs, and to remember what it was told."""

    def send(self, message: Notification) -> str:
        """Hand a message on, within some seconds.

        Returns:
            '' where the service took it; else why it did not, free of secrets. Never raises for what the service does.
        """
