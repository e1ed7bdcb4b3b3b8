"""``hop-archive publish``: test data to a writable source."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.display import Display, bar
from hop_archive.cli.options import Explained, Setup, StanzaOptions, json_option, stanza_options
from hop_archive.cli.output import count, duration, print_json, print_lines, rate, say, size, table, timestamp
from hop_archive.cli.stopping import Stop
from hop_archive.errors import ConfigurationError, DataError
from hop_archive.model.message import Receipt, TopicPartition
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.config.stanzas import SourceStanza
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

_SHOWN = 100
_SHOWN_OF_ENDLESS = 20
_QUESTION = "  [s]end, s[k]ip, send [a]ll that follow, [q]uit"
_ANSWERS = {"s": "send", "k": "skip", "a": "all", "q": "quit"}
_CHOICE = click.Choice(list(_ANSWERS))


rate_option = click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Messages a second, about; 0 is as fast as it goes.",
)
record_option = click.option(
    "--record",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to append to what was sent, and where it came to stand, for hop-archive run --compare --sent.",
)


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
    default="",
    help="Where it goes.  [default: the first name in the stanza's test_topics]",
)
@click.option(
    "--known", is_flag=True, help="Send the known set. Does so, too, where nothing else is asked for."
)
@click.option("--count", type=click.IntRange(min=0), help="Send so many generated alerts; 0: without end.")
@rate_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=lambda: secrets.randbelow(2**31),
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
@record_option
@click.option("--ask", is_flag=True, help="Ask before each message: send, skip, all that follow, or quit.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and connect to nothing.")
@json_option
def publish(chosen: StanzaOptions, **given: Any) -> None:
    """Publish test data to a writable source: a known set, files, or generated alerts.

    The known set has a message for every odd header, key, value and time that publishers are known to send,
    each with its name in the header _known_test_data. Files and folders are sent as they are, a message a file.
    --count generates alerts of the kinds that Hopskotch carries, some of them odd.
    """
    options = PublishOptions(**given)
    if options.known + bool(options.paths) + (options.count is not None) > 1:
        raise click.UsageError("Wanted one of --known, files, and --count.")
    if options.size_bytes is not None and options.count is None:
        raise click.UsageError("--size is for --count.")
    if options.partitions is not None and not options.create:
        raise click.UsageError("--partitions is for --create.")
    setup = chosen.setup()
    options = replace(options, topic=allowed_topic(setup, options))
    content = content_of(options)
    if options.dry_run:
        show(options, content, setup.selection.source)
    else:
        _Publishing(setup, options, content).go()


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What the options of ``publish`` said."""

    topic: str
    paths: tuple[Path, ...]
    known: bool
    count: int | None
    rate: float
    seed: int
    size_bytes: int | None
    create: bool
    partitions: int | None
    not_a_test_topic: str
    production: bool
    skip_too_large: bool
    largest_bytes: int | None
    record: Path | None
    ask: bool
    dry_run: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class PublishContent:
    """What is to be sent.

    Attributes:
        what: In a few words.
        total: How many messages; None where there is no end.
        make: Makes them, for so many partitions.
        singly: Whether the topic may refuse some, so that each is sent by itself.
        about: What is odd about messages, by ``Sample.kind``, where that is known.
        left_out: What is not sent, and why.
        ends: Messages of ``total`` that go to every partition, so that more partitions make more messages.
    """

    what: str
    total: int | None
    make: Callable[[int], Iterator[Sample]]
    singly: bool = True
    about: dict[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    ends: int = 0

    def total_for(self, partitions: int) -> int | None:
        """How many messages there will be in a topic of so many partitions; None where there is no end."""
        return None if self.total is None else self.total + self.ends * (partitions - 1)


def allowed_topic(setup: Setup, options: PublishOptions) -> str:
    """Return the topic to publish to, having checked from the stanza alone that test data may be sent there.

    Raises:
        ForbiddenError: They may not.
        click.UsageError: No topic is named, and the stanza has none by default; or two different ones are.
    """
    from hop_archive.devkit.publish import Consent, default_topic, refuse_unless_allowed
    from hop_archive.model.topics import TopicPolicy

    name = setup.selection.source
    stanza = setup.configuration.source(name)
    # A read-only source is refused as such, whichever of its variables are not set.
    policy = stanza.resolved().policy() if stanza.writable else TopicPolicy()
    where = options.topic or default_topic(policy)
    if not where and stanza.writable:
        raise click.UsageError(f"Which topic? Say -T NAME: source {name} names no test topic in its stanza.")
    again = options.not_a_test_topic
    if again not in ("", where):
        raise click.UsageError(f"--not-a-test-topic {again} is not the topic, which is {where}.")
    consent = Consent(again, options.production)
    refuse_unless_allowed(
        name, where, policy, writable=stanza.writable, production=stanza.production, consent=consent
    )
    return where


def content_of(options: PublishOptions) -> PublishContent:
    """What the options mean; files are found and measured, and nothing is read yet.

    Raises:
        ConfigurationError: A path leads nowhere, or a file is too large.
    """
    from hop_archive.devkit import file_messages
    from hop_archive.devkit.known_set import END, known_cases, known_set
    from hop_archive.devkit.samples import filler
    from hop_archive.devkit.sampling import everything_in, sample_stream

    topic, seed, size_bytes = options.topic, options.seed, options.size_bytes
    if options.paths:
        largest = options.largest_bytes or file_messages.LARGEST_BYTES
        found, too_large = file_messages.without_large(file_messages.files(options.paths), largest)
        if not options.skip_too_large:
            file_messages.refuse_large(too_large, largest)
        why = f"larger than {largest:,} bytes"
        return PublishContent(
            what=counted(len(found), "file"),
            total=len(found),
            make=lambda _: file_messages.messages(found, topic, seed=seed),
            left_out=tuple((str(path), why) for path in too_large),
        )
    if options.count is None:
        now_ms = time.time_ns() // 1_000_000
        cases = known_cases(now_ms=now_ms, seed=seed)
        end = {END: "the end of the set, once in each partition"}
        return PublishContent(
            what="the known set",
            total=len(cases) + 1,
            ends=1,
            make=lambda partitions: known_set(topic, now_ms=now_ms, seed=seed, partitions=partitions),
            about={case.name: case.about for case in cases} | end,
        )
    number = options.count

    def make(partitions: int) -> Iterator[Sample]:
        if size_bytes is not None:
            return filler(number or sys.maxsize, size_bytes, topic=topic, seed=seed)
        return sample_stream(number, seed=seed, topics=[everything_in(topic, partitions)])

    what = counted(number, "generated alert") if number else "generated alerts without end"
    return PublishContent(what, number or None, make, singly=False)


def show(options: PublishOptions, content: PublishContent, source: str) -> None:
    """Print what would be sent, all or the first of it."""
    from hop_archive.devkit.publish import marked

    total = content.total_for(options.partitions or 1)
    most = _SHOWN if total is not None else _SHOWN_OF_ENDLESS
    some = [marked(sample) for sample in itertools.islice(content.make(options.partitions or 1), most)]
    if options.as_json:
        messages = [
            {
                "name": sample.kind,
                "about": content.about.get(sample.kind, ""),
                "key_bytes": None if sample.key is None else len(sample.key),
                "value_bytes": None if sample.value is None else len(sample.value),
                "headers": [name for name, _ in sample.headers],
                "timestamp": timestamp(sample.timestamp_ms),
            }
            for sample in some
        ]
        where = {"source": source, "topic": options.topic, "seed": options.seed}
        print_json({"dry_run": True, **where, "total": total, "messages": messages})
        return
    say(f"Would send {content.what} to topic {options.topic} of {source} (seed {options.seed}):\n")
    rows = [
        [
            sample.kind,
            "null" if sample.key is None else size(len(sample.key)),
            "null" if sample.value is None else size(len(sample.value)),
            count(len(sample.headers)),
            timestamp(sample.timestamp_ms) or "when sent",
            content.about.get(sample.kind) or _format_of(sample),
        ]
        for sample in some
    ]
    names = ["MESSAGE", "KEY", "VALUE", "HEADERS", "TIMESTAMP", "WHAT IT IS"]
    print_lines(table(names, rows, right=(1, 2, 3)))
    if total is None:
        say("… and so on, until it is stopped.")
    elif total > len(some):
        say(f"… and {total - len(some):,} more.")
    for name, why in content.left_out:
        say(f"Left out: {name}: {why}.")


def _format_of(sample: Sample) -> str:
    """What its ``_format`` header says, for people; '' where there is none."""
    formats = [value for name, value in sample.headers if name == "_format" and value]
    return f"_format {formats[-1].decode(errors='replace')}" if formats else ""


class _Publishing:
    """One call of ``publish``: what it sends, and what became of it."""

    def __init__(self, setup: Setup, options: PublishOptions, content: PublishContent) -> None:
        self.setup = setup
        self.options = options
        self.content = content
        self.stop = Stop()
        self.sending: Sending = Sending(content.total, silent=options.ask)
        self.skipped: list[tuple[str, str]] = list(content.left_out)
        self.quit = False
        self.ask = options.ask
        self.error = ""

    def go(self) -> None:
        """Send, and say what was sent, also where that was not all."""
        from hop_archive.config.open import open_source
        from hop_archive.devkit.publish import ready_topic

        options, name = self.options, self.setup.selection.source
        stanza = self.setup.configuration.source(name).resolved()
        if _is_in_memory(stanza):
            say(
                f"Note: {name} is a mock in memory: what is published there is gone when this command ends. Give its "
                "stanza a directory (of mock-hop: HOP_ARCHIVE_MOCK_DIR) to keep it.",
                err=True,
            )
        if not stanza.policy().archived(options.topic):
            say(
                f"Note: The stanza of {name} leaves {options.topic} out of the archive;"
                f" hop-archive run -T {options.topic} takes it.",
                err=True,
            )
        if options.record is not None:
            # Before anything is sent, rather than after it.
            try:
                options.record.open("ab").close()
            except OSError as error:
                raise ConfigurationError(
                    f"{options.record} cannot be written: {error.strerror}.", path=str(options.record)
                ) from error
        with contextlib.closing(open_source(name, stanza)) as source, self.stop.on_signals():
            create = options.create or _is_in_memory(stanza)
            ready = ready_topic(source, options.topic, create=create, partitions=options.partitions or 1)
            self.sending.total = self.content.total_for(ready.partitions)
            try:
                self.sending.run(self._portions(source, ready.partitions), self.stop)
            except BaseException as error:
                self.error = str(error)
                raise
            finally:
                if options.as_json:
                    print_json(self._object(stanza))
                else:
                    print_lines(self._lines(stanza))

    def _portions(self, source: Source, partitions: int) -> Iterator[Sequence[Receipt]]:
        from hop_archive.devkit.publish import marked, publish, publish_singly

        made = itertools.takewhile(lambda _: not self.stop.requested, self.content.make(partitions))
        messages = self._asked(map(marked, made))
        rate, sleep, record = self.options.rate, self.stop.sleep, self.options.record
        if not (self.content.singly or self.options.ask):
            return publish(source, messages, rate=rate, sleep=sleep, record=record)
        return publish_singly(source, messages, rate=rate, sleep=sleep, record=record, refused=self._refused)

    def _asked(self, messages: Iterator[Sample]) -> Iterator[Sample]:
        """Those to be sent; asks about each, if that is wanted. Ctrl-C, and the end of the input, mean quit."""
        for message in messages:
            answer = "send"
            if self.ask:
                value = "null" if message.value is None else size(len(message.value))
                about = self.content.about.get(message.kind) or _format_of(message)
                say(
                    f"{message.kind}: {about} (value {value}, {counted(len(message.headers), 'header')})",
                    err=True,
                )
                before = signal.signal(signal.SIGINT, signal.default_int_handler)
                try:
                    answer = _ANSWERS[
                        click.prompt(_QUESTION, type=_CHOICE, default="s", show_choices=False, err=True)
                    ]
                except click.Abort:
                    click.echo("", err=True)
                    answer = "quit"
                finally:
                    signal.signal(signal.SIGINT, before)
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
        if self.options.paths and not self.options.skip_too_large:
            raise ConfigurationError(
                f"{message.kind} was refused: {error}", remedy="--skip-too-large leaves out what is refused."
            ) from error
        self.skipped.append((message.kind, str(error)))

    def _lines(self, stanza: SourceStanza) -> Iterator[str]:
        for name, why in self.skipped:
            yield f"Left out: {name}: {why}{'' if why.endswith('.') else '.'}"
        yield (
            f"Published {counted(self.sending.messages, 'message')} to topic {self.options.topic} of "
            f"{self.setup.selection.source}, marked as tests (seed {self.options.seed})."
        )
        if self._ended:
            yield f"Ended by {self._ended}; the rest was not sent."
        if self.options.record and self.sending.messages:
            yield f"What was sent is recorded in {self.options.record}."
        if self.sending.messages and not _is_in_memory(stanza):
            yield "To archive it, and compare what was sent, received and stored:"
            yield f"  {self._next_command(stanza)}"

    def _object(self, stanza: SourceStanza) -> dict[str, Any]:
        return {
            "source": self.setup.selection.source,
            "topic": self.options.topic,
            "seed": self.options.seed,
            "published": self.sending.messages,
            "partitions": [
                {"partition": at.partition, "messages": sent.messages, "first": sent.first, "last": sent.last}
                for at, sent in sorted(self.sending.partitions.items())
            ],
            "left_out": [{"name": name, "why": why} for name, why in self.skipped],
            "ended_by": self._ended or None,
            "error": self.error or None,
            "record": str(self.options.record) if self.options.record else None,
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
        words += ["-T", self.options.topic, "--until-caught-up", "--compare"]
        return shlex.join([*words, *(["--sent", str(self.options.record)] if self.options.record else [])])


def _is_in_memory(stanza: SourceStanza) -> bool:
    from hop_archive.config.stanzas import MockSourceStanza

    return isinstance(stanza, MockSourceStanza) and not stanza.directory


@dataclass(slots=True)
class SentOffsets:
    """What came to stand in one partition: how many messages, and the first and the last offset of them."""

    messages: int
    first: int
    last: int


@dataclass(slots=True)
class Sending:
    """Publishes, and keeps account of what was acknowledged.

    Attributes:
        total: Messages that there will be; None where there is no end.
        silent: Whether to show nothing while it goes on.
        monotonic: A clock in seconds.
        partitions: What came to stand where.
    """

    total: int | None
    silent: bool = False
    monotonic: Callable[[], float] = time.monotonic
    partitions: dict[TopicPartition, SentOffsets] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """How many messages were acknowledged."""
        return sum(sent.messages for sent in self.partitions.values())

    def by_topic(self) -> dict[str, int]:
        """How many in each topic, sorted by name."""
        counts = Counter[str]()
        for at, sent in self.partitions.items():
            counts[at.topic] += sent.messages
        return dict(sorted(counts.items()))

    def run(self, portions: Iterator[Sequence[Receipt]], stop: Stop) -> None:
        """Publish portion by portion; asked to stop, end after the one in hand."""
        began = said_at = self.monotonic()
        said = 0

        def draw(_: Console) -> RenderableType:
            passed = duration(self.monotonic() - began)
            return bar("publishing", self.messages, self.total, passed, "Ctrl-C ends it cleanly")

        def line() -> str:
            nonlocal said, said_at
            now, messages = self.monotonic(), self.messages
            lately = rate((messages - said) / (now - said_at))
            said, said_at = messages, now
            return f"Published {counted(messages, 'message')}, {lately} lately."

        display = Display(draw, line, monotonic=self.monotonic)
        with contextlib.nullcontext() if self.silent else display.shown():
            for receipts in portions:
                self.add(receipts)
                if not self.silent:
                    display.tick()
                if stop.requested:
                    break

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Take in what was acknowledged."""
        for topic, partition, offset in receipts:
            at = TopicPartition(topic, partition)
            sent = self.partitions.setdefault(at, SentOffsets(0, offset, offset))
            sent.messages += 1
            sent.last = offset

    def lines(self) -> Iterator[str]:
        """What was published, for people."""
        for topic, number in self.by_topic().items():
            yield f"{topic}: {count(number)}"
        yield f"Published {counted(self.messages, 'message')}."
