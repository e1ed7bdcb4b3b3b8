"""``hop-archive alert``: whether those who are to be told hear anything."""

from __future__ import annotations

import click

from hop_archive.cli.alarms import open_alarms
from hop_archive.cli.options import Explained, StanzaOptions, stanza_options
from hop_archive.cli.output import print_lines
from hop_archive.errors import MissingSettingError, UnavailableError

_EPILOG = """\b
Examples:
  hop-archive alert test
  hop-archive alert test ops -t production.toml

\b
The exit code is 0 where all took it, 3 where one did not. Who tells for good: the sensor alerts of Dagster where
HOP_ARCHIVE_ALERT names a stanza, hop-archive run --alert NAME, and hop-archive watch.
"""


@click.group()
def alert() -> None:
    """Try out who is told what is wrong (stanzas [alert.NAME])."""


@alert.command("test", epilog=_EPILOG)
@stanza_options
@click.argument(
    "names",
    metavar="[NAME]...",
    nargs=-1,
    cls=Explained,
    help="Alert stanzas.  [default: those that HOP_ARCHIVE_ALERT names, else all]",
)
def test(chosen: StanzaOptions, names: tuple[str, ...]) -> None:
    """Send a test message to each service of alert stanzas, and say which took it.

    Nothing of a URL is printed but its scheme: the rest may be a secret.
    """
    from hop_archive.config.load import select_alerts
    from hop_archive.model.notification import Notification

    setup = chosen.setup()
    wanted = select_alerts(setup.configuration, names) or tuple(setup.configuration.alerts)
    if not wanted:
        raise MissingSettingError(
            "There is no alert stanza.",
            remedy="Write an [alert.NAME] into hop_archive.toml: docs/configuration.md has its keys.",
        )
    refused = []
    for alarm in open_alarms(setup, wanted):
        body = f"This is a test of [alert.{alarm.name}]: nothing is wrong, and nothing is to be done."
        message = Notification(
            "hop_archive: a test",
            "\n\n".join([body, *([f"Dagster: {alarm.ui}"] if alarm.ui else [])]),
            is_red=False,
        )
        for service in alarm.services:
            why = service.send(message)
            print_lines([f"{service.name}: {f'not told: {why}' if why else 'told'}"])
            refused += [service.name] if why else []
    if refused:
        raise UnavailableError(
            f"Not told: {', '.join(refused)}.",
            remedy="See whether its URL is right, and whether it can be reached from here.",
        )
