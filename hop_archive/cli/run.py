"""``hop-archive run``: archives until caught up, or on and on, with no Dagster."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.alarms import StateFile, Telling, alert_option, open_alarms
from hop_archive.cli.metrics import served
from hop_archive.cli.options import Setup, StanzaOptions, stanza_options, topic_option
from hop_archive.cli.output import count, duration, print_json, print_lines, say, timestamp
from hop_archive.cli.stopping import Stop
from hop_archive.errors import ConfigurationError, HopArchiveError, MissingSettingError, UnavailableError
from hop_archive.model.limits import Limits
from hop_archive.model.wording import cut, harmless

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.archive import Archive
    from hop_archive.cli.comparison import Comparison
    from hop_archive.cli.progress import Activity
    from hop_archive.ingest.follow import Obstacle
    from hop_archive.ingest.totals import TopicTotals
    from hop_archive.ingest.write import Done
    from hop_archive.read.topic_facts import LeftOutTopics
    from hop_archive.source.protocol import Source
    from hop_archive.upkeep.monitoring.metrics import RunMetrics

log = logging.getLogger(__name__)

_EPILOG = """\b
Examples:
  hop-archive run
      sample alerts to mocks in memory: needs nothing
  hop-archive run -H hop-dev -D aws-dev-db -S s3-dev --until-caught-up
      what is there now; for a cron job, or a first load
  hop-archive run -H hop-local -D local-db -S local-store -T gcn.notices -T lvk.superevents
      two topics, on and on

\b
Ctrl-C (or SIGTERM, or a terminal that goes) ends it cleanly: the batch in hand is finished or left, nothing is
half done, exit 0 (2 where a server refused until then). Once more ends it at once, which does no harm either.
Running it again goes on where the ledger says.

\b
A partition without a leader, a topic that may not be read or described, and one whose next message is damaged stop nothing
else: each is named, is a finding until it is in the way no more (hop-archive findings), and is asked for again by the next
plan. Once all else is archived, --until-caught-up ends with 2 where something may not be read, with 3 where only leaders
are missing, with 5 where a message is damaged.

\b
A server that begins to refuse (a changed password, keys that ended, a wrong clock) is asked again, with the login that
the secret holds then, until it allows it; what is refused is shown and logged as an error. At the start it ends the run.

\b
As JSON: total, and topics, a list, with messages, bytes, duplicates, absent, lost and collisions of this run;
comparison, null without --compare, with compared, with_sent, differences, not_compared and holds; caught_up,
ended_by (a signal's name, or null), error (null where all went well), no_topic_for (names and globs of the source's
stanza that mean none of its topics: warned of, too), left_out (topics that the stanza does not want: topic, why, and the
offsets that Kafka holds of it, null where that is not known), elapsed_s, run_id, shared_with (the run ids of others that archived
of the same topics at the same time), left_to_others (slices that these had first), and the stanzas' names.
"""

_CHECK_EVERY_S = 5.0
_REFUSED_FOR_S = 60.0
"""A refusal that was not met for so long is over if all servers answer: only what is refused, a put it may be, can tell."""
_AGAIN_S = 600.0
"""What lasts is told again after so long."""
_MOST_SHOWN = 200
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the options of ``run`` said."""

    until_caught_up: bool
    topics: tuple[str, ...]
    memory_mebibytes: int | None
    batch_messages: int | None
    run_id: str | None
    compare: bool
    sent: Path | None
    alert: tuple[str, ...]
    metrics: str | None
    quiet: bool
    as_json: bool

    def limits(self) -> Limits:
        """How much may be held at once."""
        limits = Limits.within(self.memory_mebibytes * 1024 * 1024) if self.memory_mebibytes else Limits()
        return replace(limits, batch_messages=self.batch_messages) if self.batch_messages else limits


@click.command(epilog=_EPILOG)
@stanza_options
@click.option("--until-caught-up", is_flag=True, help="End when all is archived that was there at the start.")
@topic_option("Only this topic, even if its stanza leaves it out; a name, not a pattern. May be given again.")
@click.option(
    "--memory",
    "memory_mebibytes",
    metavar="MEBIBYTES",
    type=click.IntRange(min=1),
    help="Most memory for messages and documents in the making; batches become as small as that takes.  "
    "[default: about 500]",
)
@click.option(
    "--batch-messages",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="Most messages in one batch, which is one transaction and, in segments, one object.  [default: 10000]",
)
@click.option(
    "--run-id",
    metavar="TEXT",
    help="Noted in the ledger with each batch; one of its own for each run.  [default: host, process, chance]",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Fetch each message that is archived again and compare it as received with as stored; exit 1 if any "
    "differs, or nothing recorded with --sent was compared. On a production source: only messages of its test_topics.",
)
@click.option(
    "--sent",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --compare: what was sent, as recorded by hop-archive publish --record; compared too.",
)
@alert_option
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve metrics to Prometheus meanwhile: those of hop-archive metrics, and how long stages take and what fails. HOST is "
    "this machine alone unless it is said.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only differences, warnings and errors.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="At the end, print one JSON object instead of text; differences go to the error output.",
)
def run(chosen: StanzaOptions, **given: Any) -> int:
    """Archive messages: from the source to the store and the database.

    Goes on archiving what arrives until it is stopped, and, once started, through outages of any server; with --until-caught-up
    it ends when all is archived that was there at the start, and an outage is an error. Any number of these, and
    of Dagster's runs, may work at the same time: each message is archived once. Those of this command that want the same topics share
    them, partition by partition; what one that died had taken on is free after a quarter of a minute.

    How topics and consumer groups of the source are set up is kept, too, once an hour (see hop-archive snapshot): a
    restore needs it. Where that fails, a warning says so.

    With no stanza named it archives sample alerts from and to mocks in memory.
    """
    from hop_archive.config import logs

    options = RunOptions(**given)
    if options.sent is not None and not options.compare:
        raise click.UsageError("--sent is for --compare.")
    setup = chosen.setup("source", "database", "store")
    # An id that no other run has: by it a commit whose answer was lost is known again as one's own.
    run_id = options.run_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    logs.note_run(run_id)
    alarms = open_alarms(setup, options.alert)
    files = [StateFile("run", setup, alarm.name) for alarm in alarms]
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(contextlib.closing(setup.open(options.limits(), run_id)))
        source, meter = archive.source, None
        if options.metrics is not None:
            archive, meter = stack.enter_context(served(archive, options.metrics))
        stack.enter_context(Telling(archive, alarms, files).going_on())
        return _Run(setup, archive, options, source, meter).go()


class _Run:
    """One run: what it works with, and what it shows."""

    def __init__(
        self, setup: Setup, archive: Archive, options: RunOptions, source: Source, meter: RunMetrics | None
    ) -> None:
        from hop_archive.cli.comparison import Comparison, compared_topics
        from hop_archive.cli.progress import Activity
        from hop_archive.ingest.sharing import Sharing
        from hop_archive.upkeep.verify.sent import read_sent

        self.setup = setup
        self.archive = archive
        self.samples_to = source  # a mock takes samples; what is measured only passes on to it
        self.meter = meter
        self.options = options
        self.topics = sorted(set(options.topics)) or None
        self.stop = Stop()
        self.activity = Activity(under_way=lambda: (archive.source.delivered, archive.store.created))
        self.comparison: Comparison | None = None
        if options.compare:
            stanza = setup.configuration.source(setup.selection.source).resolved()
            sent = read_sent(options.sent) if options.sent else {}
            self.comparison = Comparison(archive.store, compared_topics(stanza), sent)
        self.unmet: tuple[str, ...] = ()
        self.left_out: Sequence[LeftOutTopics] = ()
        self.outage = Outage(archive, self.activity, meter.retried if meter else None)
        self.sharing = Sharing(archive, self.stop.sleep)

    def go(self) -> int:
        """Archive; the exit code."""
        from hop_archive.devkit.sampling import Arrivals, fill
        from hop_archive.model.topics import unmet_message
        from hop_archive.read.topic_facts import topics_left_out

        chosen, source = self.setup.selection, self.samples_to
        stanza = self.setup.configuration.source(chosen.source)
        if not self.options.quiet and chosen.database_from == chosen.store_from == "default":
            to = f"from {chosen.source} to {chosen.database} and {chosen.store}…"
            if chosen.is_default:
                say(f"No stanza named: archiving sample alerts {to}", err=True)
            else:
                mocks = "These are mocks: nothing lasts."
                say(f"No database and no store named: archiving {to} {mocks}", err=True)
        with self.stop.on_signals():
            fill(source, stanza)
            check(self.archive, self.topics)
            if self.topics is None:
                # A name or glob that is misspelt would archive nothing, and end well.
                there = source.topics()
                self.unmet = self.archive.topics.unmet({*there, *there.untold})
                if self.unmet:
                    log.warning("%s", unmet_message(self.unmet, source.name))
                self.left_out = topics_left_out(self.archive, there)
            with Arrivals(source, stanza):
                self._archive()
        if self.outage.refusal is not None:
            return self.outage.refusal.exit_code
        return 1 if self.comparison and not self.comparison.holds else 0

    def _archive(self) -> None:
        from hop_archive.ingest.cluster_state import HourlySnapshots
        from hop_archive.ingest.follow import archive_continuously, catch_up

        portions: Iterable[Sequence[Done]] = (
            ([done] for done in catch_up(self.archive, self.topics, self.stop, sharing=self.sharing))
            if self.options.until_caught_up
            else archive_continuously(
                self.archive, self.stop, self.stop.sleep, self.topics, self.outage.report, self.sharing
            )
        )
        try:
            with (
                contextlib.closing(self.sharing),
                self._display() as tick,
                HourlySnapshots(self.archive, self.topics or ()) as snapshots,
            ):
                for dones in portions:
                    self.outage.look(dones)
                    snapshots.take_if_due()
                    self.activity.add(dones)
                    for done in dones:
                        if self.meter:
                            self.meter.done(done)
                        if done.note:  # why it was left: to another archiver, or its topic is another one now
                            self.activity.conflicts += done.taken
                            log.info("%s", done.note, extra={"slice": done.slice})
                        if self.comparison:
                            self._compare(self.comparison, done)
                    tick()
        finally:
            self._summarize()

    def _compare(self, comparison: Comparison, done: Done) -> None:
        """Print what differs. A run that goes on and on survives a store that does not answer, and says so."""
        try:
            for difference in comparison.check(done):
                say(str(difference), err=self.options.as_json)
        except (UnavailableError, ConfigurationError) as error:
            if self.options.until_caught_up:
                raise
            comparison.give_up(done)
            log.warning("%s could not be compared: %s", done.slice, error)

    @contextlib.contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        from hop_archive.cli import progress
        from hop_archive.cli.display import Display
        from hop_archive.ingest.survey import look

        if self.options.quiet:
            logging.getLogger("hop_archive").setLevel(logging.WARNING)
            yield lambda: None
            return
        chosen = self.setup.selection
        title = f"{chosen.source} → {chosen.database}, {chosen.store}"
        hint = "until caught up" if self.options.until_caught_up else "Ctrl-C ends it cleanly"
        over = False

        def draw(console: Console) -> RenderableType:
            now = "ending: the batch in hand is being finished" if self.stop.requested else hint
            return progress.drawn(self.activity, title, "" if over else now, console)

        display = Display(
            draw,
            self.activity.news,
            say=functools.partial(progress.log.info, "%s"),
            stays=True,
            start_log=self.setup.start_log,
            monotonic=self.activity.monotonic,
        )
        pending: Callable[[], dict[str, int]] = lambda: look(self.archive, self.topics).pending()  # noqa: E731
        with progress.LagWatch(self.activity, pending), display.shown():
            try:
                yield display.tick
            finally:
                over = True

    def _summarize(self) -> None:
        if self.options.as_json:
            chosen, error = self.setup.selection, sys.exc_info()[1] or self.outage.refusal
            print_json(
                {
                    "source": chosen.source,
                    "database": chosen.database,
                    "store": chosen.store,
                    "run_id": self.archive.run_id,
                    "elapsed_s": round(self.activity.elapsed_s, 3),
                    "caught_up": self.options.until_caught_up and error is None and not self.stop.requested,
                    "ended_by": self.stop.signal.name if self.stop.signal else None,
                    "error": None if error is None else str(error),
                    "no_topic_for": list(self.unmet),
                    "left_out": [
                        {"topic": one.topic, "why": one.state.value, "offsets": one.held}
                        for one in self.left_out
                    ],
                    "left_to_others": self.activity.conflicts,
                    "shared_with": sorted(self.sharing.others),
                    "total": _tally_object(self.activity.total().tally),
                    "topics": [
                        {"topic": row.topic, **_tally_object(row.tally)} for row in self.activity.topics()
                    ],
                    "comparison": self.comparison.as_object() if self.comparison else None,
                }
            )
            return
        if self.options.quiet:
            return
        print_lines(self._told())
        if self.comparison:
            say(self.comparison.summary())
        if self.stop.signal:
            say(f"Ended by {self.stop.signal.name}; the next run goes on from here.")
            if self.outage.refusal:
                say(f"Refused until then: {self.outage.refusal}")
        elif self.options.until_caught_up and sys.exc_info()[0] is None:
            say("Caught up.")

    def _told(self) -> Iterator[str]:
        """What was done, what was not, and why."""
        from hop_archive.cli.progress import summary

        yield summary(self.activity)
        if self.activity.total().tally.collisions:
            yield (
                "In use by other content: a message came with the _id of another one, which a publisher repeated or a restore "
                "brought to another topic; both are archived, this one under a UUID that the archive made."
            )
        for why in sorted({one.state.value for one in self.left_out}):
            these = [one for one in self.left_out if one.state.value == why and one.held != 0]
            if these:
                known = sum(one.held for one in these if one.held is not None)
                names = ", ".join(one.topic for one in these[:_MOST_NAMED])
                more = f" and {len(these) - _MOST_NAMED:,} more" if len(these) > _MOST_NAMED else ""
                yield f"{known:,} left out: {why} ({names}{more})."
        if self.activity.conflicts:
            yield f"Left to another archiver, which had them first: {count(self.activity.conflicts)} slices."


def _tally_object(done: TopicTotals) -> dict[str, Any]:
    return {
        "messages": done.messages,
        "bytes": done.size_bytes,
        "duplicates": done.duplicates,
        "absent": done.absent,
        "lost": done.lost,
        "collisions": done.collisions,
        "last": timestamp(done.last_timestamp_ms),
    }


class Outage:
    """Says that a server does not answer, or refuses, again every ten minutes, and once that it is over.

    Attributes:
        refusal: What is refused at present; None where nothing is.
    """

    def __init__(
        self, archive: Archive, activity: Activity, retried: Callable[[], None] | None = None
    ) -> None:
        self._archive = archive
        self._retried = retried
        self._activity = activity
        self._since: float | None = None
        self._said: dict[str, float] = {}
        self._checked_at = 0.0
        self.refusal: ConfigurationError | None = None

    def report(self, error: Obstacle) -> None:
        """Take in that a call failed; what was said of this outage in the last ten minutes is not said again."""
        self._checked_at = self._activity.monotonic()
        if self._retried:
            self._retried()
        if self._since is None:
            self._since = self._checked_at
        text = str(error)
        self.refusal = error if isinstance(error, ConfigurationError) else self.refusal
        if self._checked_at - self._said.get(text, -_AGAIN_S) >= _AGAIN_S:
            level = logging.ERROR if isinstance(error, ConfigurationError) else logging.WARNING
            log.log(level, "Waiting, and trying again: %s", text)
            self._said[text] = self._checked_at
        self._activity.alarming = self.refusal is not None
        self._activity.note = (
            f"refused: {cut(harmless(str(self.refusal)), _MOST_SHOWN)}"
            if self.refusal
            else "waiting for a server that does not answer"
        )

    def look(self, dones: Sequence[Done]) -> None:
        """Find out whether it is over: something was committed, or every server answers when asked."""
        if self._since is None:
            return
        now = self._activity.monotonic()
        if not dones:
            if now - self._checked_at < (_REFUSED_FOR_S if self.refusal else _CHECK_EVERY_S):
                return
            self._checked_at = now
            try:
                check(self._archive, None)
            except HopArchiveError:
                return
        log.warning("All servers answer again, after %s.", duration(self._activity.monotonic() - self._since))
        self._since, self._activity.note, self.refusal = None, "", None
        self._activity.alarming = False
        self._said.clear()


def check(archive: Archive, topics: Sequence[str] | None) -> None:
    """Prove, before anything is read, that each part is there.

    Raises:
        UnavailableError: A server does not answer.
        MissingSettingError: A bucket, a migration or a named topic is not there.
        ForbiddenError: The credentials of one are wrong.
    """
    archive.catalog.check()
    archive.store.check()
    archive.source.cluster_id()
    if topics is None:
        return
    found = archive.source.topics(topics)
    missing = sorted(set(topics) - {*found, *found.untold})
    if missing:
        raise MissingSettingError(
            f"Source {archive.source.name} has no topic named {', '.join(missing)}.",
            remedy="-T takes exact names, upper and lower case as they are; no patterns.",
            topics=missing,
        )
