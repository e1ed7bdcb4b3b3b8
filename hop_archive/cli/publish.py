"""``hop-archive publish``: test data to a writable source."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Explained, Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import size
from hop_archive.cli.publish_content import Content, Wanted, content_of, format_of, show
from hop_archive.errors import ConfigurationError, DataError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.cli.sending import Sending
    from hop_archive.config.stanzas import SourceStanza
    from hop_archive.devkit.publish import Consent
    from hop_archive.devkit.samples import Sample
    from hop_archive.source.protocol import Source

_EPILOG = """\b
Examples:
  hop-archive publish -H hop-local --create --record sent.bson
      the known set: a message for every odd thing that publishers do
  hop-archive publish -H hop-local -T test.alerts --create alerts/ one-more.xml
      each file as a message, folders with all that is in them
  hop-archive publish -H hop-local --count 0 --rate 50
      generated alerts, 50 a second, until Ctrl-C
  hop-archive publish -H hop-dev -T my.topic --not-a-test-topic my.topic --ask
      somewhere else, which has to be said twice; one by one
  hop-archive publish --dry-run
      what would be sent; nothing is connected

\b
What may be sent where, checked before anything is connected:
  a source whose stanza does not say writable = true   never
  a topic that the stanza's test_topics mean           yes
  any other topic                                      with --not-a-test-topic and its name again
  ... on a source whose stanza says production = true  with --production as well

\b
Every message gets the header _test, by which clean-up knows it. With --record, what was sent is written to a
file, and hop-archive run --compare --sent FILE compares that with what it receives and stores; the summary
shows the whole command. -D and -S are of use for that line only.

\b
Ctrl-C (or SIGTERM) ends it cleanly after the message or portion in hand, exit 0. What is sent stays sent.
"""


@click.command(epilog=_EPILOG)
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(path_type=Path),
    metavar="[FILE OR FOLDER]...",
    cls=Explained,
    help="Sent as they are, a message a file; of a folder, all that is in it. None: the known set, or what --count generates.",
)
@stanza_options
@click.option(
    "-T",
    "--topic",
    metavar="NAME",
    help="Where it goes.  [default: the first name in the stanza's test_topics]",
)
@click.option(
    "--known", is_flag=True, help="Send the known set. Does so, too, where nothing else is asked for."
)
@click.option(
    "--count", "wanted", type=click.IntRange(min=0), help="Send so many generated alerts; 0: without end."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Messages a second, about; 0 is as fast as it goes.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Which messages. The same seed gives the known set and files the same _id headers again, so that the "
    "archive counts duplicates.  [default: one that was not used before]",
)
@click.option(
    "--size",
    "size_bytes",
    metavar="BYTES",
    type=click.IntRange(min=16),
    help="With --count: plain messages of that size instead of lifelike ones, for load.",
)
@click.option("--create", is_flag=True, help="Make the topic if it is not there.")
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    help="With --create: how many partitions a new topic gets.  [default: 1]",
)
@click.option(
    "--not-a-test-topic",
    metavar="NAME",
    default="",
    help="The topic's name again, where it is no test topic.",
)
@click.option("--production", is_flag=True, help="Confirm that this topic of a production source is meant.")
@click.option("--skip-too-large", is_flag=True, help="Leave out files that are too large, and say so.")
@click.option(
    "--largest",
    "largest_bytes",
    metavar="BYTES",
    type=click.IntRange(min=1),
    help="The largest file that the topic takes.  [default: 1040000, for Kafka's default of 1 MiB]",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to append to what was sent, and where it came to stand, for hop-archive run --compare --sent.",
)
@click.option("--ask", is_flag=True, help="Ask before each message: send, skip, all that follow, or quit.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and connect to nothing.")
@json_option
def publish(
    paths: tuple[Path, ...],
    chosen: StanzaOptions,
    topic: str | None,
    known: bool,
    wanted: int | None,
    rate: float,
    seed: int | None,
    size_bytes: int | None,
    create: bool,
    partitions: int | None,
    not_a_test_topic: str,
    production: bool,
    skip_too_large: bool,
    largest_bytes: int | None,
    record: Path | None,
    ask: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish test data to a writable source: a known set, files, or generated alerts.

    The known set has a message for every odd header, key, value and time that publishers are known to send,
    each with its name in the header _known_test_data. Files and folders are sent as they are, a message a file.
    --count generates alerts of the kinds that Hopskotch carries, some of them odd.
    """
    from hop_archive.devkit.file_messages import LARGEST_BYTES
    from hop_archive.devkit.publish import Consent

    _refuse_contradictions(known, paths, wanted, size_bytes, partitions, create)
    setup = chosen.setup()
    consent = Consent(not_a_test_topic, production)
    where = allowed_topic(setup, topic, consent)
    options = Wanted(
        topic=where,
        known=known,
        paths=paths,
        count=wanted,
        rate=rate,
        seed=_unused_seed() if seed is None else seed,
        size_bytes=size_bytes,
        create=create,
        partitions=partitions or 1,
        record=record,
        ask=ask,
        skip_too_large=skip_too_large,
        largest_bytes=largest_bytes or LARGEST_BYTES,
        as_json=as_json,
    )
    content = content_of(options)
    if dry_run:
        show(options, content, setup.selection.source)
        return
    _Publishing(setup, options, content).go()


def _refuse_contradictions(
    known: bool,
    paths: tuple[Path, ...],
    wanted: int | None,
    size_bytes: int | None,
    partitions: int | None,
    create: bool,
) -> None:
    if known + bool(paths) + (wanted is not None) > 1:
        raise click.UsageError("Wanted one of --known, files, and --count.")
    if size_bytes is not None and wanted is None:
        raise click.UsageError("--size is for --count.")
    if partitions is not None and not create:
        raise click.UsageError("--partitions is for --create.")


def allowed_topic(setup: Setup, topic: str | None, consent: Consent) -> str:
    """Return the topic to publish to, having checked from the stanza alone that test data may be sent there.

    Raises:
        ForbiddenError: They may not.
        click.UsageError: No topic is named, and the stanza has none by default; or two different ones are.
    """
    from hop_archive.devkit.publish import default_topic, refuse_unless_allowed
    from hop_archive.model.topics import TopicPolicy

    name = setup.selection.source
    stanza = setup.configuration.source(name)
    # A read-only source is refused as such, whichever of its variables are not set.
    policy = stanza.resolved().policy() if stanza.writable else TopicPolicy()
    where = topic or default_topic(policy)
    if not where and stanza.writable:
        raise click.UsageError(f"Which topic? Say -T NAME: source {name} names no test topic in its stanza.")
    if consent.not_a_test_topic not in ("", where):
        raise click.UsageError(
            f"--not-a-test-topic {consent.not_a_test_topic} is not the topic, which is {where}."
        )
    refuse_unless_allowed(
        name, where, policy, writable=stanza.writable, production=stanza.production, consent=consent
    )
    return where


def _unused_seed() -> int:
    import secrets

    return secrets.randbelow(2**31)


class _Publishing:
    """One call of ``publish``: what it sends, and what became of it."""

    def __init__(self, setup: Setup, wanted: Wanted, content: Content) -> None:
        from hop_archive.cli.sending import Sending
        from hop_archive.cli.stopping import Stop

        self.setup = setup
        self.wanted = wanted
        self.content = content
        self.stop = Stop()
        self.sending: Sending = Sending(content.total, silent=wanted.ask)
        self.skipped: list[tuple[str, str]] = list(content.left_out)
        self.quit = False
        self.ask = wanted.ask
        self.error = ""

    def go(self) -> None:
        """Send, and say what was sent, also where that was not all."""
        from hop_archive.config.open import open_source

        name = self.setup.selection.source
        stanza = self.setup.configuration.source(name).resolved()
        self._warn(stanza)
        _prove_writable(self.wanted.record)
        with contextlib.closing(open_source(name, stanza)) as source, self.stop.on_signals():
            partitions = self._partitions(source, stanza)
            self.sending.total = self.content.total_for(partitions)
            try:
                self.sending.run(self._portions(source, partitions), self.stop)
            except BaseException as error:
                self.error = str(error)
                raise
            finally:
                self._summarize(stanza)

    def _warn(self, stanza: SourceStanza) -> None:
        name, topic = self.setup.selection.source, self.wanted.topic
        if _is_in_memory(stanza):
            _note(
                f"{name} is a mock in memory: what is published there is gone when this command ends. Give its "
                "stanza a directory (of mock-hop: HOP_ARCHIVE_MOCK_DIR) to keep it."
            )
        if not stanza.policy().archived(topic):
            _note(
                f"The stanza of {name} leaves {topic} out of the archive; hop-archive run -T {topic} takes it."
            )

    def _partitions(self, source: Source, stanza: SourceStanza) -> int:
        from hop_archive.devkit.publish import ready_topic

        create = self.wanted.create or _is_in_memory(stanza)
        return ready_topic(
            source, self.wanted.topic, create=create, partitions=self.wanted.partitions
        ).partitions

    def _portions(self, source: Source, partitions: int) -> Iterator[Any]:
        from hop_archive.devkit.publish import marked, publish, publish_singly

        made = itertools.takewhile(lambda _: not self.stop.requested, self.content.make(partitions))
        messages = self._asked(map(marked, made))
        rate, sleep, record = self.wanted.rate, self.stop.sleep, self.wanted.record
        if not (self.content.singly or self.wanted.ask):
            return publish(source, messages, rate=rate, sleep=sleep, record=record)
        return publish_singly(source, messages, rate=rate, sleep=sleep, record=record, refused=self._refused)

    def _asked(self, messages: Iterator[Sample]) -> Iterator[Sample]:
        """Those to be sent; asks about each, if that is wanted."""
        for message in messages:
            answer = _answer(message, self.content) if self.ask else "send"
            if answer == "quit":
                self.quit = True
                return
            self.ask = self.ask and answer != "all"
            if answer == "skip":
                self.skipped.append((message.kind, "you said so"))
            else:
                yield message

    def _refused(self, message: Sample, error: ConfigurationError | DataError) -> None:
        """The topic does not take a message. That is for the record where it was to be expected."""
        if self.wanted.paths and not self.wanted.skip_too_large:
            raise ConfigurationError(
                f"{message.kind} was refused: {error}", remedy="--skip-too-large leaves out what is refused."
            ) from error
        self.skipped.append((message.kind, str(error)))

    def _summarize(self, stanza: SourceStanza) -> None:
        if self.wanted.as_json:
            click.echo(json.dumps(self._object(stanza), indent=2))
            return
        for line in self._lines(stanza):
            click.echo(line)

    def _lines(self, stanza: SourceStanza) -> Iterator[str]:
        for name, why in self.skipped:
            yield f"Left out: {name}: {why}{'' if why.endswith('.') else '.'}"
        yield (
            f"Published {counted(self.sending.messages, 'message')} to topic {self.wanted.topic} of "
            f"{self.setup.selection.source}, marked as tests (seed {self.wanted.seed})."
        )
        if self._ended:
            yield f"Ended by {self._ended}; the rest was not sent."
        if self.wanted.record and self.sending.messages:
            yield f"What was sent is recorded in {self.wanted.record}."
        if self.sending.messages and not _is_in_memory(stanza):
            yield "To archive it, and compare what was sent, received and stored:"
            yield f"  {self._next_command(stanza)}"

    def _object(self, stanza: SourceStanza) -> dict[str, Any]:
        return {
            "source": self.setup.selection.source,
            "topic": self.wanted.topic,
            "seed": self.wanted.seed,
            "published": self.sending.messages,
            "partitions": [
                {"partition": at.partition, "messages": one.messages, "first": one.first, "last": one.last}
                for at, one in sorted(self.sending.partitions.items())
            ],
            "left_out": [{"name": name, "why": why} for name, why in self.skipped],
            "ended_by": self._ended or None,
            "error": self.error or None,
            "record": str(self.wanted.record) if self.wanted.record else None,
            "next": None if _is_in_memory(stanza) else self._next_command(stanza),
        }

    @property
    def _ended(self) -> str:
        if self.stop.signal:
            return self.stop.signal.name
        return "your answer" if self.quit else ""

    def _next_command(self, stanza: SourceStanza) -> str:
        """The command line that archives what was sent, from the same source, and compares it.

        Where nobody named a database or store it has words to be replaced: a mock in memory, which is what stands
        there by default, would take a real source's messages and forget them. A mock's own go to mocks.
        """
        from hop_archive.config.stanzas import MockSourceStanza

        chosen = self.setup.selection
        open_to_choice = not isinstance(stanza, MockSourceStanza)
        database = "DATABASE" if open_to_choice and chosen.database_from == "default" else chosen.database
        store = "STORE" if open_to_choice and chosen.store_from == "default" else chosen.store
        words = ["hop-archive", "run", "-H", chosen.source, "-D", database, "-S", store]
        words += ["-T", self.wanted.topic, "--until-caught-up", "--compare"]
        return shlex.join([*words, *(["--sent", str(self.wanted.record)] if self.wanted.record else [])])


def _note(text: str) -> None:
    click.echo(f"Note: {text}", err=True)


def _is_in_memory(stanza: SourceStanza) -> bool:
    from hop_archive.config.stanzas import MockSourceStanza

    return isinstance(stanza, MockSourceStanza) and not stanza.directory


def _prove_writable(record: Path | None) -> None:
    """Fail before anything is sent, rather than after it, where the record cannot be written."""
    if record is None:
        return
    try:
        with record.open("ab"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{record} cannot be written: {error.strerror}.", path=str(record)
        ) from error


_ANSWERS = {"s": "send", "k": "skip", "a": "all", "q": "quit"}


def _answer(message: Sample, content: Content) -> str:
    """Ask what to do with a message. Ctrl-C, and the end of the input, mean quit."""
    value = "null" if message.value is None else size(len(message.value))
    about = content.about.get(message.kind) or format_of(message)
    click.echo(
        f"{message.kind}: {about} (value {value}, {counted(len(message.headers), 'header')})", err=True
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer: str = click.prompt(
            "  [s]end, s[k]ip, send [a]ll that follow, [q]uit",
            type=click.Choice(list(_ANSWERS)),
            default="s",
            show_choices=False,
            err=True,
        )
    except click.Abort:
        click.echo("", err=True)
        return "quit"
    finally:
        signal.signal(signal.SIGINT, before)
    return _ANSWERS[answer]
