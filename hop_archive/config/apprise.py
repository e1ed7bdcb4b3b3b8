"""Services by URL, through Apprise: mail, Slack, Matrix, PagerDuty, webhooks and a hundred more.

URLs of Apprise hold tokens and passwords in any part. So nothing of a URL but its scheme is shown, and what Apprise, and the
HTTP client that it uses, would log of it goes nowhere: an address may be the secret itself.
"""

from __future__ import annotations

import contextvars
import logging
import re
import urllib.request
from collections.abc import Sequence
from urllib.error import HTTPError

from pydantic import SecretStr

from hop_archive.errors import ConfigurationError, needing_extra
from hop_archive.model.notification import Notification

TIMEOUT_S = 10.0
"""How long one service may take. Apprise's own limits of a connection and an answer, 4 s each, are below that; mail's is 15 s.
A tick of Dagster's sensors may take a minute."""

_sending = contextvars.ContextVar("hop_archive_sending", default=False)
"""Whether what is logged in this context is of a message that is being sent; Apprise's threads have the context of their caller."""

_SPLIT_FROM = 1_000
"""A message that is too long for a service comes in several, where each takes so many characters; else, as a text message, it
is cut. Sent as it is, as Apprise does unless told, it would be refused, and tried again for ever."""

_OVERFLOW = re.compile(r"[?&]overflow=", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+]{1,20})://", re.IGNORECASE)
_STATUS = re.compile(r"\berror=(\d{3})\b")


def open_services(stanza: str, urls: Sequence[SecretStr], label: str = "") -> list[AppriseService]:
    """The services of a stanza's URLs, in their order. Nothing is connected.

    Args:
        stanza: Name of the stanza.
        urls: In Apprise's form.
        label: Where the stanza stands, for messages.

    Raises:
        MissingSettingError: The extra ``monitoring`` is not installed.
        ConfigurationError: Apprise does not know a URL, or lacks something in it.
    """
    return [AppriseService(stanza, number, url, label) for number, url in enumerate(urls, start=1)]


class AppriseService:
    """One URL of Apprise's."""

    def __init__(self, stanza: str, number: int, url: SecretStr, label: str = "") -> None:
        with needing_extra("monitoring"):
            import apprise
        _hush()
        found = _SCHEME.match(url.get_secret_value())
        scheme = found[1].lower() if found else ""
        self._name = f"{stanza} {number} ({scheme or '?'})"
        self._apprise = apprise.Apprise()
        if not scheme or not self._apprise.add(url.get_secret_value()):
            raise ConfigurationError(
                f"{label or f'[alert.{stanza}]'}: URL number {number} ({scheme or 'without a scheme'}://…) is none that Apprise "
                "takes.",
                remedy="Its form stands at https://appriseit.com/services/, a page for each service. (The rest is not shown: "
                "it may be a secret.)",
                stanza=stanza,
                number=number,
            )

        if not _OVERFLOW.search(url.get_secret_value()):
            modes = apprise.OverflowMode
            for target in self._apprise:
                target.overflow_mode = modes.SPLIT if target.body_maxlen >= _SPLIT_FROM else modes.TRUNCATE

    @property
    def name(self) -> str:
        """Stanza, number and scheme."""
        return self._name

    def send(self, message: Notification) -> str:
        """Hand a message on; '' where it was taken, else why not. Apprise tries once; whoever calls tries again."""
        import apprise

        token = _sending.set(True)
        kind = apprise.NotifyType.FAILURE if message.is_red else apprise.NotifyType.SUCCESS
        try:
            result = self._apprise.notify(
                body=message.body,
                title=message.title,
                notify_type=kind,
                body_format=apprise.NotifyFormat.TEXT,
                timeout=TIMEOUT_S,
            )
            if result:
                return ""
            told = [entry.message for each in result for entry in each.logs()]
            codes = [found[1] for text in told if (found := _STATUS.search(str(text)))]
            timed_out = result.status == apprise.AppriseResultStatus.TIMEOUT
        except Exception as error:  # noqa: BLE001 - whatever a plugin of Apprise's does: nobody's work is to stop for it
            return f"Apprise failed by itself ({type(error).__name__})"
        finally:
            _sending.reset(token)
        if timed_out:
            return f"no answer within {TIMEOUT_S:g} s"
        return f"it answered with HTTP {codes[-1]}" if codes else "it cannot be reached, or refuses"


def _hush() -> None:
    """Let Apprise's words reach its own results only, and those of its HTTP client nobody; again: changes nothing more."""
    own = logging.getLogger("apprise")
    own.setLevel(logging.WARNING)
    own.propagate = False
    if not own.handlers:
        own.addHandler(logging.NullHandler())
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(lambda _: not _sending.get())


def ping(url: SecretStr, timeout_s: float = 10.0) -> str:
    """Ask for a URL, as those who watch a dead man's switch want it; '' where it answered well, else why not, free of secrets."""
    try:
        # The stanza lets http and https through only.
        with urllib.request.urlopen(url.get_secret_value(), timeout=timeout_s) as answer:  # noqa: S310
            answer.read(1)
    except HTTPError as error:
        return f"it answered with HTTP {error.code}"
    except Exception as error:  # noqa: BLE001 - likewise
        return f"it cannot be reached ({type(error).__name__})"
    return ""
