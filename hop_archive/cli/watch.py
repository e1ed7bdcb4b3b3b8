"""``hop-archive watch``: a look from outside, for cron or systemd. What has stopped cannot say so itself."""

from __future__ import annotations

import contextlib
import datetime
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hop_archive.cli.alarms import StateFile, alert_option, open_alarms
from hop_archive.cli.options import StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import duration, moment, print_json, print_lines
from hop_archive.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.upkeep.monitoring.telling import Known, Seen

_WEB_ADDRESS = re.compile(r"https?://[^\s@#]+")

_EPILOG = """\b
Examples:
  hop-archive watch -H hop-prod -D aws-prod-db
      one look at the database and at how far behind Kafka it is
  hop-archive watch -H hop-prod -D aws-prod-db --dagster https://dagster.example.org --alert ops
      whether Dagster's daemons and sensors are alive, too; tells what is new
  */5 * * * * hop-archive watch -D aws-prod-db --silent-minutes 60 --alert ops
      a line for cron, on another machine than the archive's

\b
Exit codes: 0 all is well; 1 something is wrong, a line each; 3 the database cannot be asked.

\b
With --alert, what is new is told, once, and what is over, too; a service that is down is told next time. What was told is kept
in a file (see HOP_ARCHIVE_STATE_DIR in docs/configuration.md), by which it is also known since when messages wait. The
ping_url of the stanza is asked for when all is well: whoever misses that (healthchecks.io and others) raises the alarm also
when this machine is gone.

\b
As JSON: well, problems (a list with sort, place, what, remedy, since), and at.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@click.option(
    "--dagster",
    metavar="URL",
    help="Address of Dagster's web page: are its code, daemons and sensors alive?",
)
@click.option(
    "--silent-minutes",
    metavar="NUMBER",
    type=click.FloatRange(min=0, min_open=True),
    help="It is wrong if no batch was archived for so long: for where the source cannot be asked, and always something comes.",
)
@alert_option
@json_option
def watch(
    chosen: StanzaOptions,
    dagster: str | None,
    silent_minutes: float | None,
    alert: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    """Look from outside whether the archive is alive and well; say what is not, and tell it.

    A dead man's switch: it needs the database, and asks the source, where one is named, how far behind the archive is. It looks
    once and changes nothing in the archive: cron or a systemd timer repeats it.
    """
    from hop_archive.upkeep.monitoring.alarm import Alarm, look_and_tell
    from hop_archive.upkeep.monitoring.dagster_health import dagster_health
    from hop_archive.upkeep.monitoring.problems import DATABASE

    if dagster is not None and not _WEB_ADDRESS.fullmatch(dagster):
        # Not shown: a password in it would stand in what is told.
        raise ConfigurationError(
            "--dagster wants https://host/path, without a name or a password.",
            remedy="Ask the page from where it asks for none.",
        )
    setup = chosen.setup()
    alarms = open_alarms(setup, alert) or [Alarm("", ())]
    known: dict[str, Known] = {}
    with contextlib.closing(setup.open()) as archive:
        now_s = archive.now().timestamp()
        others = [dagster_health(dagster, now_s)] if dagster else []
        if silent_minutes is not None:
            others.append(_silence(archive, silent_minutes * 60))
        for alarm in alarms:
            file = StateFile("watch", setup, alarm.name)
            before = file.read()
            if not file.write(before):
                # What has to last until it is told would never be: each look is the first.
                alarm = replace(alarm, rules=replace(alarm.rules, is_patient=False))
            state = look_and_tell(archive, alarm, before, others, unasked=not setup.selection.asks_source)
            file.write(state)
            known |= {key: k for key, k in state.told.known.items() if k.absent_since_s is None}
        wrong = sorted(known.values())
    if as_json:
        problems = [
            {
                "sort": k.problem.sort,
                "place": k.problem.place,
                "what": k.problem.what,
                "remedy": k.problem.remedy,
                "since": moment(datetime.datetime.fromtimestamp(k.since_s, datetime.UTC)),
            }
            for k in wrong
        ]
        print_json({"well": not wrong, "problems": problems, "at": moment(archive.now())})
    elif not wrong:
        print_lines(["All is well."])
    else:
        print_lines([f"{k.problem.key}: {k.problem.what} {k.problem.remedy}" for k in wrong])
    if any(k.problem.sort == DATABASE for k in wrong):
        return UnavailableError.exit_code
    return 1 if wrong else 0


def _silence(archive: Archive, most_s: float) -> Seen:
    """Whether a batch was committed lately; not known where the database does not answer, which is told anyway."""
    from hop_archive.errors import HopArchiveError
    from hop_archive.upkeep.monitoring.telling import Problem, Seen

    sort = "silence"
    try:
        last = max((s.last_batch_at for s in archive.catalog.summaries() if s.last_batch_at), default=None)
    except HopArchiveError:
        return Seen((), frozenset())
    age_s = (archive.now() - last).total_seconds() if last else None
    if age_s is not None and age_s <= most_s:
        return Seen((), frozenset({sort}))
    what = (
        f"Nothing was archived for {duration(age_s)}." if age_s is not None else "Nothing was ever archived."
    )
    return Seen(
        (Problem(sort, "", what, "See whether archiving runs, and whether anything was published."),),
        frozenset({sort}),
    )
