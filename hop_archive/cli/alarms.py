"""Alerts of the command line: which stanzas are meant, where it is kept what was told, and telling beside a run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import Command, Setup, stanza_names
from hop_archive.errors import HopArchiveError

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.upkeep.monitoring.alarm import Alarm, State
    from hop_archive.upkeep.monitoring.telling import Seen

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""How often a run looks what is wrong."""


def alert_option(command: Command) -> Command:
    """Give a command ``--alert``, which it receives as ``alert``, a tuple."""
    return click.option(
        "--alert",
        "alert",
        metavar="NAME",
        multiple=True,
        shell_complete=stanza_names,
        help="Tell those whom this alert stanza names what is wrong. May be given again.  "
        "[default: $HOP_ARCHIVE_ALERT, or nobody]",
    )(command)


def open_alarms(setup: Setup, given: Sequence[str]) -> list[Alarm]:
    """The alarms of the stanzas that are chosen. Nothing is connected, but AWS where a secret has the URLs.

    Raises:
        ConfigurationError: A stanza is not there or of no use, or the extra ``monitoring`` is not installed.
    """
    from hop_archive.config.load import select_alerts
    from hop_archive.config.open import open_alert
    from hop_archive.upkeep.monitoring.alarm import Alarm

    names = select_alerts(setup.configuration, given)
    found = []
    for name in names:
        stanza = setup.configuration.alert(name).resolved()
        found.append(Alarm.of(name, stanza, *open_alert(name, stanza)))
    return found


class StateFile:
    """Where one program keeps what an alarm was told, so that a restart does not tell it again.

    In ``HOP_ARCHIVE_STATE_DIR``, else ``hop_archive`` in ``XDG_STATE_HOME`` or ``~/.local/state``. Where it cannot be written,
    a warning says so once, and memory has to do.
    """

    def __init__(self, program: str, setup: Setup, alert: str) -> None:
        chosen = setup.selection
        named = os.environ.get("HOP_ARCHIVE_STATE_DIR")
        base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        folder = Path(named) if named else Path(base) / "hop_archive"
        parts = (program, alert, chosen.source, chosen.database)
        self.path = (
            folder / f"{'-'.join(re.sub(r'[^A-Za-z0-9_.]', '_', part) for part in parts if part)}.json"
        )
        self._is_told = False

    def read(self) -> State:
        """What was kept; nothing where there is no file, or none that can be read."""
        from hop_archive.upkeep.monitoring.alarm import State

        try:
            return State.from_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except (OSError, UnicodeDecodeError) as error:
            self._tell(error)
            return State()

    def write(self, state: State) -> bool:
        """Keep it: the file is as it was, or new as a whole; whether that was so."""
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(state.to_json(), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            self._tell(error)
            return False
        return True

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            log.warning(
                "What was told is not kept, and is told again after a restart: %s: %s. HOP_ARCHIVE_STATE_DIR names another folder.",
                self.path,
                getattr(error, "strerror", None) or error,
            )
        self._is_told = True


class Telling:
    """Tells, in a thread of its own, what is wrong while a run goes on: a service that is down holds up nothing.

    Used as a context: at its end there is a last look, with what ended the run where it failed.
    """

    def __init__(
        self, archive: Archive, alarms: Sequence[Alarm], files: Sequence[StateFile], every_s: float = EVERY_S
    ) -> None:
        self._archive = archive
        self._alarms = list(zip(alarms, files, strict=True))
        self._states = [file.read() for _, file in self._alarms]
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="alerts", daemon=True)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Tell while the block lasts."""
        if self._alarms:
            self._thread.start()
        failure: BaseException | None = None
        try:
            yield
        except HopArchiveError as error:
            failure = error
            raise
        except Exception as error:
            failure = error
            raise
        finally:
            self._over.set()
            if self._alarms:
                self._thread.join(timeout=30.0)
                self._round(failure)

    def _watch(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            self._round(None)
            pause_s = self._every_s

    def _round(self, failure: BaseException | None) -> None:
        from hop_archive.upkeep.monitoring.alarm import look_and_tell

        for number, (alarm, file) in enumerate(self._alarms):
            try:
                seen = [_of_run(failure)]
                self._states[number] = look_and_tell(self._archive, alarm, self._states[number], seen)
                file.write(self._states[number])
            except Exception as error:
                log.warning(
                    "What is wrong could not be told: %s",
                    error,
                    exc_info=not isinstance(error, HopArchiveError),
                )


def _of_run(failure: BaseException | None) -> Seen:
    from hop_archive.upkeep.monitoring.telling import Problem, Seen

    sort = "hop-archive run"
    if failure is None:
        return Seen((), frozenset({sort}))
    what = f"it ended with an error: {failure if isinstance(failure, HopArchiveError) else type(failure).__name__}"
    return Seen(
        (
            Problem(
                sort,
                socket.gethostname(),
                what,
                "Mend that, and start it again: it goes on where the ledger says.",
            ),
        ),
        frozenset({sort}),
    )
