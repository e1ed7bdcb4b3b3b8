"""``hop-archive restore``: archived messages back on Kafka, or into files."""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.display import Display, bar
from hop_archive.cli.options import (
    StanzaOptions,
    json_option,
    moment,
    selection_options,
    stanza_options,
    without_limit,
)
from hop_archive.cli.output import count, duration, print_json, print_lines, rate, size, table
from hop_archive.cli.stopping import Stop
from hop_archive.errors import ConfigurationError, CorruptError, ForbiddenError
from hop_archive.model.message import TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetRange
from hop_archive.model.times import MOMENT_HELP, is_ago, milliseconds
from hop_archive.model.wording import counted, harmless

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.recover.restore.prepare import Preparation, Restoration
    from hop_archive.recover.restore.request import Request
    from hop_archive.recover.restore.run import RestoreResult

_EPILOG = """\b
Examples:
  hop-archive restore -D local-db -S local-store --to-source hop-local \\
      -T gcn.notices --to-topic gcn.notices.restored --dry-run
      what would be written, what stands in the way, how long it may take
  hop-archive restore -D aws-prod-db -S s3-prod --to-source hop-dev \\
      -T 'gcn.*' --to-topic-template '{topic}.replay' --since 2026-11-01 --rate 500
      a replay of some topics, slowly
  hop-archive restore -D aws-prod-db -S s3-prod --to-source hop-new --all-topics --groups
      everything after a disaster, with the consumer groups where they were
  hop-archive restore ... --all-topics --as-of 2026-11-20T06:00 --to-topic-template '{topic}.then'
      the archive as of a moment
  hop-archive restore ... --offsets gcn.notices:0:1200-1300 --append
      some offsets, added to the topic that they came from
  hop-archive restore ... -T gcn.notices --to-files notices --form payloads
      not to Kafka, but one file a message

\b
What is written:
  key, value, headers (order, repeats, nulls), create time and partition as they
  were archived, in order of offset in each partition. Nothing is added; the
  _id header that the archive made for messages without one is left out.
  Topics are created as they were, with what the messages need of retention and
  sizes. Restored to the topic that they came from, and archived there again,
  messages are recognised as copies; in a topic of another name they are its own.

\b
When it was interrupted, however that was, the same command goes on: the target
itself says how far it got. Nothing is written twice.

\b
Ends with 0 when everything selected is there and was compared; with 5 where
something is damaged, was left out because of that, or differs in the target;
with 1 where something else is not as it was, which the notes tell: settings
that no snapshot knows, a group that could not be set.
"""

_SAMPLE = 2_000
"""Messages that are read to see how long a restore may take."""
_MOST_SHOWN = 20
_OFFSETS = re.compile(r"(?P<topic>[^:]+):(?P<partition>\d+):(?P<start>\d+)-(?P<stop>\d*)")


class _Command(click.Command):
    """Remembers which moments were said as "how long ago": the same command, later, is the same request."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        said: dict[str, str] = {}
        for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
            name, equals, value = word.partition("=")
            value = value if equals else following
            if name in ("--since", "--until", "--as-of") and is_ago(value):
                said[name.lstrip("-").replace("-", "_")] = value
        ctx.meta[__name__] = said
        return super().parse_args(ctx, args)


def offsets_of(text: str) -> tuple[TopicPartition, OffsetRange]:
    """The type of an option that takes offsets of a partition: ``TOPIC:PARTITION:START-STOP``, or without STOP.

    Raises:
        click.BadParameter: The text means none.
    """
    found = _OFFSETS.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"wanted TOPIC:PARTITION:START-STOP, found {text!r}")
    start, stop = int(found["start"]), int(found["stop"]) if found["stop"] else 2**62
    if start >= stop:
        raise click.BadParameter(f"{text!r} holds no offset")
    return TopicPartition(found["topic"], int(found["partition"])), OffsetRange(start, stop)


def setting_of(text: str) -> tuple[str, str]:
    """The type of an option that takes a setting: ``NAME=VALUE``.

    Raises:
        click.BadParameter: The text is none.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"wanted NAME=VALUE, found {text!r}")
    return name, value


@click.command(cls=_Command, epilog=_EPILOG)
@stanza_options
@without_limit
@selection_options
@click.option("--all-topics", is_flag=True, help="Restore every topic that the catalog has.")
@click.option(
    "--offsets",
    type=offsets_of,
    metavar="TOPIC:PARTITION:START-STOP",
    multiple=True,
    help="Only these offsets, STOP not included, without it all from START on. May be given again.",
)
@click.option(
    "--uuid",
    "uuids",
    metavar="UUID",
    type=click.UUID,
    multiple=True,
    help="Only this message. May be given again.",
)
@click.option(
    "--generation",
    default="latest",
    show_default=True,
    metavar="WHICH",
    help="Which life of a topic that was made anew: latest (of which anything is archived), all, or a number.",
)
@click.option(
    "--as-of",
    type=moment,
    help=f"The archive as it was at a moment: messages before it, of the generation of then. {MOMENT_HELP}",
)
@click.option("--to-source", metavar="NAME", help="Source stanza to write to.  [default: that of --source]")
@click.option(
    "--to-topic", metavar="NAME", help="Topic to write to, where one is restored.  [default: the same name]"
)
@click.option(
    "--to-topic-template", metavar="TEMPLATE", help="Name of each topic to write to, as '{topic}.restored'."
)
@click.option(
    "--to-files", metavar="DIR", type=click.Path(path_type=Path), help="Write to a folder, and not to Kafka."
)
@click.option(
    "--form",
    type=click.Choice(["bson", "payloads"]),
    default="bson",
    show_default=True,
    help="With --to-files: documents as mongodump writes them, a file a topic; or a file for each payload.",
)
@click.option("--append", is_flag=True, help="Add to topics that hold messages already.")
@click.option(
    "--by-key", is_flag=True, help="Choose partitions by key, as a producer would, not as archived."
)
@click.option("--keep-archive-id", is_flag=True, help="Keep the _id headers that the archive made.")
@click.option(
    "--with-duplicates", is_flag=True, help="Put back what was recorded as a duplicate, too: an exact stream."
)
@click.option("--with-retracted", is_flag=True, help="Put back what its publisher took back, too.")
@click.option("--without-tests", is_flag=True, help="Leave out test topics and messages with a _test header.")
@click.option(
    "--skip-damaged", is_flag=True, help="Go on past what is missing or damaged; the report names it."
)
@click.option(
    "--skip-unsendable", is_flag=True, help="Leave out messages with the timestamp 0; the report names them."
)
@click.option(
    "--topic-config",
    metavar="NAME=VALUE",
    multiple=True,
    type=setting_of,
    help="Setting of topics that are created, over the archived ones. May be given again.",
)
@click.option(
    "--set-topic-config",
    is_flag=True,
    help="Where a setting of a target stands in the way, change it, and put it back at the end.",
)
@click.option("--keep-topic-config", is_flag=True, help="Do not put it back.")
@click.option(
    "--groups",
    "all_groups",
    is_flag=True,
    help="Set the consumer groups of the last snapshot on the target, too.",
)
@click.option(
    "--group",
    "named_groups",
    metavar="NAME",
    multiple=True,
    help="Set this consumer group. May be given again.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0,
    metavar="NUMBER",
    help="Most messages a second.  [default: no bound]",
)
@click.option(
    "--byte-rate",
    type=click.FloatRange(min=0),
    default=0,
    metavar="BYTES",
    help="Most bytes a second.  [default: no bound]",
)
@click.option(
    "--patience",
    "patience_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="How long to wait for a server that does not answer, before giving up.",
)
@click.option("--no-check", is_flag=True, help="Do not read the target back and compare; the report says so.")
@click.option("--restart", is_flag=True, help="Give up an earlier try of the same restore, and begin anew.")
@click.option(
    "--production",
    metavar="NAME",
    default="",
    help="Say the name of a production source again, to write to it.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would be written and what stands in the way; write nothing."
)
@json_option
@click.pass_context
def restore(
    ctx: click.Context, /, chosen: StanzaOptions, query: Query, timeout_s: float, **options: Any
) -> int:
    """Put archived messages back on Kafka: whole topics, or what options and conditions select.

    First everything that stands in the way is looked for, and told at once. Then messages are written, read back and
    compared. A report, and a map from old to new offsets (Parquet), go into the store.
    """
    from hop_archive.config.open import open_source
    from hop_archive.recover.restore.prepare import Restoration

    del timeout_s  # each page of a restore is small; what is counted beforehand has its own bound
    query = replace(
        query,
        uuids=tuple(dict.fromkeys(options["uuids"])) or None,
        retracted=None if options["with_retracted"] else False,
    )
    if not (query.topics or options["offsets"] or query.uuids or query.condition or options["all_topics"]):
        raise click.UsageError("Which messages? Say -T NAME, --offsets, --uuid, --where, or --all-topics.")
    if options["all_topics"] and query.topics:
        raise click.UsageError("Which messages? --all-topics means all; with -T NAME, leave it out.")
    if options["to_files"]:
        _to_files(chosen, query, options)
        return 0
    setup = chosen.setup("database", "store", *(() if options["to_source"] else ("source",)))
    name = options["to_source"] or setup.selection.source
    target_stanza = setup.configuration.source(name)
    if not target_stanza.writable:
        raise ForbiddenError(
            f"Source {name} is read-only: refused to restore to it.",
            remedy="Choose another with --to-source, whose stanza says writable = true.",
            source=name,
        )
    if target_stanza.production and options["production"] != name:
        raise ForbiddenError(
            f"Source {name} is production: people act on what appears there. Refused to restore to it.",
            remedy=f"If that is what you want, say its name again: --production {name}.",
            source=name,
        )
    request = _request(query, options)
    archived = setup.configuration.source(setup.selection.source).resolved()
    target = open_source(name, target_stanza)
    with contextlib.closing(target), setup.catalog_and_store() as (catalog, store):
        said = ctx.meta.get(__name__, {})
        in_turn = target_stanza.resolved().policy()
        restoration = Restoration(
            catalog, store, target, request, archived.policy(), said, target_policy=in_turn
        )
        if options["dry_run"]:
            return _show_plan(restoration, options)
        return _to_kafka(restoration, options, setup.start_log)


def _request(query: Query, options: dict[str, Any]) -> Request:
    from hop_archive.recover.restore.request import SAME_NAME, Request, generations_of

    if options["to_topic"] and options["to_topic_template"]:
        raise click.UsageError("--to-topic and --to-topic-template both say where to: choose one.")
    as_of: datetime | None = options["as_of"]
    return Request(
        query=query,
        offsets=options["offsets"],
        generations=generations_of(options["generation"]),
        as_of_ms=None if as_of is None else milliseconds(as_of),
        template=options["to_topic"] or options["to_topic_template"] or SAME_NAME,
        append=options["append"],
        by_key=options["by_key"],
        keep_archive_id=options["keep_archive_id"],
        duplicates=options["with_duplicates"],
        tests=not options["without_tests"],
        skip_damaged=options["skip_damaged"],
        skip_unsendable=options["skip_unsendable"],
        topic_settings=dict(options["topic_config"]),
        set_topic_config=options["set_topic_config"],
        keep_topic_config=options["keep_topic_config"],
    )


def _groups(options: dict[str, Any]) -> Sequence[str] | None:
    """The groups to set: by name; none named: all; None: none."""
    return options["named_groups"] or (() if options["all_groups"] else None)


def _show_plan(restoration: Restoration, options: dict[str, Any]) -> int:
    """Show the plan, or that it is done already; nothing is written. The exit code: 1 where something would not be as it was.

    Raises:
        ConfigurationError, CorruptError: Something stands in the way; the plan was shown all the same.
    """
    from hop_archive.read.bulk import fetch_bodies, proven
    from hop_archive.recover.restore.prepare import prepare
    from hop_archive.recover.restore.run import done_before

    found = prepare(restoration, anew=options["restart"])
    if not options["restart"]:
        done = done_before(found, _groups(options), check=not options["no_check"])
        if done is not None:
            return _show_done(done, as_json=options["as_json"])
    # How long reading and checking all of it would take, by the pace of the first messages; None for none.
    pages = (page for target in found.plan.targets for page in found.selection.pages(target))
    began = time.monotonic()
    sample = itertools.islice((stored for page in pages for stored in page.messages), _SAMPLE)
    read = itertools.chain.from_iterable(fetch_bodies(found.restoration.store, [*sample]))
    sampled_bytes = sum(
        stored.size_bytes for stored, body in read if isinstance(body, bytes) and proven(stored, body)
    )
    elapsed_s = time.monotonic() - began
    estimate_s = elapsed_s * found.plan.measure.size_bytes / sampled_bytes if sampled_bytes else None
    if options["as_json"]:
        plan = {
            "dry_run": True,
            "goes_on_with": None if found.begun is None else found.begun.number,
            "messages": found.plan.messages,
            "bytes": found.plan.measure.size_bytes,
            "estimate_s": None if estimate_s is None else round(estimate_s, 1),
            "topics": [
                {
                    "topic": target.source,
                    "target": target.topic,
                    "exists": found.conditions[target.topic].partitions is not None,
                    "partitions": target.partitions,
                    "messages": target.messages,
                    "bytes": target.measure.size_bytes,
                    "largest_bytes": target.measure.largest_bytes,
                }
                for target in found.plan.targets
            ],
            "problems": [problem._asdict() for problem in found.problems],
            "notes": list(found.notes),
            "unrestored": list(found.unrestored),
        }
        print_json(plan, ensure_ascii=False)
    else:
        print_lines(_plan_lines(found, estimate_s))
    found.refuse()
    return 1 if found.unrestored else 0


def _show_done(done: RestoreResult, *, as_json: bool) -> int:
    if as_json:
        print_json({"dry_run": True, "done": done.number, **done.report}, ensure_ascii=False)
    else:
        lines = [f"Note: {note}" for note in done.report["notes"]]
        messages = counted(done.report["messages"], "message stands", "messages stand")
        print_lines(
            [*lines, f"Restore {done.number} is this very one: {messages} there. Nothing would be written."]
        )
    return 1 if done.unrestored else 0


def _plan_lines(found: Preparation, estimate_s: float | None) -> Iterator[str]:
    rows = [
        [
            target.source,
            target.topic,
            count(target.partitions),
            count(target.messages),
            size(target.measure.size_bytes),
        ]
        for target in found.plan.targets
    ]
    yield from table(["TOPIC", "TO", "PARTITIONS", "MESSAGES", "SIZE"], rows, right=(2, 3, 4))
    for note in found.notes[:_MOST_SHOWN]:
        yield f"Note: {note}"
    for problem in found.problems[:_MOST_SHOWN] if found.restoration.request.set_topic_config else ():
        if problem.setting is not None:
            yield f"Will be set for the time of the restore: {problem.where} {'='.join(problem.setting)} ({problem.what})"
    if found.begun is not None:
        yield f"Goes on with restore {found.begun.number}, begun {found.begun.started_at:%Y-%m-%d %H:%M} UTC."
    about = "" if estimate_s is None else f"; to read them takes about {duration(estimate_s)}, by a sample"
    yield (
        f"{counted(found.plan.messages, 'message')} ({size(found.plan.measure.size_bytes)}) would be written to "
        f"source {found.restoration.target.name}{about}. Nothing was written."
    )


def _to_kafka(restoration: Restoration, options: dict[str, Any], start_log: Callable[[], None]) -> int:
    """Restore, and say what came of it; the exit code."""
    from hop_archive.recover.restore.control import Control
    from hop_archive.recover.restore.run import restore as run

    stop, progress, began = Stop(), Progress(), time.monotonic()
    counts = progress.counts

    def draw(_: Console) -> RenderableType:
        what, done = ("comparing", counts["checked"]) if counts["checked"] else ("writing", counts["there"])
        return bar(f"{what} {progress.topic[:40]}", done, progress.total, duration(time.monotonic() - began))

    def line() -> str:
        passed = time.monotonic() - began
        left_s = passed * (progress.total - counts["there"]) / max(counts["there"], 1)
        return (
            f"{progress.topic}: {count(counts['there'])} of {count(progress.total)} there, "
            f"{count(counts['checked'])} compared, {rate(counts['sent'] / max(passed, 1e-3))}, "
            f"about {duration(max(left_s, 0))} left."
        )

    with (
        tempfile.TemporaryDirectory(prefix="hop-archive-restore-") as folder,
        stop.on_signals(),
        Display(draw, line, start_log=start_log).shown() as display,
    ):
        control = Control(
            messages_per_s=options["rate"],
            bytes_per_s=options["byte_rate"],
            patience_s=options["patience_s"],
            check=not options["no_check"],
            stop=stop,
            notice=lambda _: display.tick(),
            sleep=stop.sleep,
        )
        outcome = run(
            restoration,
            control,
            Path(folder),
            move_groups=_groups(options),
            restart=options["restart"],
            progress=progress,
        )
    if options["as_json"]:
        print_json(outcome.report, ensure_ascii=False)
    else:
        print_lines(_outcome_lines(outcome, progress, time.monotonic() - began))
    if not outcome.complete:
        return 130
    _refuse_what_is_wrong(outcome)
    return 1 if outcome.unrestored else 0


def _outcome_lines(outcome: RestoreResult, progress: Progress, elapsed_s: float) -> Iterator[str]:
    report = outcome.report
    for note in report["notes"]:
        yield f"Note: {note}"
    for name, topic in sorted(report["topics"].items()):
        compared = "not compared" if topic["compared"] is None else f"{count(topic['compared'])} compared"
        left = f", {count(topic['left_out_count'])} left out" if topic["left_out_count"] else ""
        yield (
            f"{topic['source_topic']} -> {name}: {counted(topic['messages'], 'message')} in "
            f"{counted(len(topic['partitions']), 'partition')}, {compared}{left}"
        )
        for caveat, number in sorted(topic.get("caveats", {}).items()):
            yield f"  {counted(number, 'message')} of an older form: {harmless(caveat)}"
        for group in topic["groups"]:
            where = counted(len(group["offsets"]), "partition")
            yield f"  consumer group {group['group']} set in {where}"
    sent, size_bytes = progress.counts["sent"], progress.counts["size_bytes"]
    ended = "" if outcome.complete else " Stopped as asked: the same command goes on."
    yield (
        f"Restore {outcome.number} to source {report['target']}: {counted(report['messages'], 'message')} there, "
        f"{count(sent)} written now ({size(size_bytes)}, {rate(sent / max(elapsed_s, 1e-3))})"
        f" in {duration(elapsed_s)}.{ended}"
    )
    if outcome.complete:
        yield f"The report is in the store: {report['report']}"


def _refuse_what_is_wrong(outcome: RestoreResult) -> None:
    """Raise what is not as it should be at the end.

    Raises:
        CorruptError: The target differs from what was written, or messages were left out because of damage.
    """
    if outcome.differences:
        first = next(d for topic in outcome.report["topics"].values() for d in topic["differences"])
        raise CorruptError(
            f"{counted(outcome.differences, 'message')} of the target not as they should be; the first: "
            f"{first['topic']}[{first['partition']}] offset {first['offset']}: {first['what']}.",
            remedy="See the report for the others. Most often another writer, or retention, was at work there.",
        )
    if outcome.left_out:
        first = next(d for topic in outcome.report["topics"].values() for d in topic["left_out"])
        raise CorruptError(
            f"{counted(outcome.left_out, 'message')} left out; the first: {first['uuid']} of {first['topic']}: "
            f"{first['why']}.",
            remedy="Everything else is there. See the report for the others.",
        )


def _to_files(chosen: StanzaOptions, query: Query, options: dict[str, Any]) -> None:
    """What ``hop-archive export`` does, for those who look for it here."""
    kafka = (
        "to_topic",
        "to_topic_template",
        "append",
        "by_key",
        "set_topic_config",
        "with_duplicates",
        "without_tests",
        "keep_archive_id",
        "all_groups",
        "named_groups",
        "rate",
        "byte_rate",
        "restart",
    )
    if wrong := [name for name in kafka if options[name]]:
        raise click.UsageError(
            f"--{wrong[0].replace('_', '-')} is about Kafka: it does not go with --to-files."
        )
    if options["offsets"] or options["dry_run"] or options["as_of"] or options["generation"] != "latest":
        raise ConfigurationError(
            "--offsets, --as-of, --generation and --dry-run do not go with --to-files, which takes all generations.",
            remedy="Use --where and --until there.",
        )
    from hop_archive.cli.export import write_folder
    from hop_archive.read.export import ExportRequest

    request = ExportRequest(query, options["form"], options["skip_damaged"])
    write_folder(chosen, options["to_files"], request, as_json=options["as_json"])
