"""``hop-archive restore``: archived messages back on Kafka, or into files."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import (
    Setup,
    StanzaOptions,
    json_option,
    moment,
    selection_options,
    stanza_options,
)
from hop_archive.cli.restore_plan import show_plan
from hop_archive.cli.restore_shown import refuse_what_is_wrong, shown, tell
from hop_archive.errors import ConfigurationError, ForbiddenError
from hop_archive.model.times import MOMENT_HELP, is_ago, milliseconds

if TYPE_CHECKING:
    from hop_archive.model.message import TopicPartition
    from hop_archive.model.query import Query
    from hop_archive.model.slices import OffsetRange
    from hop_archive.recover.restore.prepare import Restoration
    from hop_archive.recover.restore.request import Request

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
  Restored to the topic that they came from, messages are recognised as copies.

\b
When it was interrupted, however that was, the same command goes on: the target
itself says how far it got. Nothing is written twice.

\b
Ends with 0 when everything selected is there and was compared; with 5 where
something is damaged, was left out because of that, or differs in the target;
with 1 where something else is not as it was, which the notes tell: settings
that no snapshot knows, a group that could not be set.
"""

_OFFSETS = re.compile(r"(?P<topic>[A-Za-z0-9._-]+):(?P<partition>\d+):(?P<start>\d+)-(?P<stop>\d*)")


class _Command(click.Command):
    """Remembers which moments were said as "how long ago": the same command, later, is the same request."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[__name__] = _said_ago(args)
        return super().parse_args(ctx, args)


def _said_ago(args: Sequence[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for number, word in enumerate(args):
        name, equals, value = word.partition("=")
        value = value if equals else (args[number + 1] if number + 1 < len(args) else "")
        if name in ("--since", "--until", "--as-of") and is_ago(value):
            said[name.lstrip("-").replace("-", "_")] = value
    return said


def _settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    wrong = [value for value, pair in zip(values, pairs, strict=True) if not (pair[0] and pair[1])]
    if wrong:
        raise click.BadParameter(f"wanted NAME=VALUE, found {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


@click.command(cls=_Command, epilog=_EPILOG)
@stanza_options
@selection_options
@click.option("--all-topics", is_flag=True, help="Restore every topic that the catalog has.")
@click.option(
    "--offsets",
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
    callback=_settings,
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
) -> None:
    """Put archived messages back on Kafka: whole topics, or what options and conditions select.

    First everything that stands in the way is looked for, and told at once. Then messages are written, read back and
    compared. A report, and a map from old to new offsets (Parquet), go into the store.
    """
    del timeout_s  # each page of a restore is small; what is counted beforehand has its own bound
    query = _query(query, options)
    if not (query.topics or options["offsets"] or query.uuids or query.condition or options["all_topics"]):
        raise click.UsageError("Which messages? Say -T NAME, --offsets, --uuid, --where, or --all-topics.")
    if options["all_topics"] and query.topics:
        raise click.UsageError("Which messages? --all-topics means all; with -T NAME, leave it out.")
    if options["to_files"]:
        _to_files(ctx, chosen, query, options)
        return
    setup = chosen.setup("database", "store", *(() if options["to_source"] else ("source",)))
    name = options["to_source"] or setup.selection.source
    _refuse_unless_writable(setup, name, options["production"])
    with _opened(ctx, setup, name, _request(query, options)) as restoration:
        if options["dry_run"]:
            ctx.exit(show_plan(restoration, as_json=options["as_json"], anew=options["restart"]))
        else:
            _restore(ctx, restoration, options)


def _query(query: Query, options: dict[str, Any]) -> Query:
    return replace(
        query,
        uuids=tuple(dict.fromkeys(options["uuids"])) or None,
        retracted=None if options["with_retracted"] else False,
    )


def _offsets(text: str) -> tuple[TopicPartition, OffsetRange]:
    from hop_archive.model.message import TopicPartition
    from hop_archive.model.slices import OffsetRange

    found = _OFFSETS.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"wanted TOPIC:PARTITION:START-STOP, found {text!r}", param_hint="--offsets")
    start, stop = int(found["start"]), int(found["stop"]) if found["stop"] else 2**62
    if start >= stop:
        raise click.BadParameter(f"{text!r} holds no offset", param_hint="--offsets")
    return TopicPartition(found["topic"], int(found["partition"])), OffsetRange(start, stop)


def _request(query: Query, options: dict[str, Any]) -> Request:
    from hop_archive.recover.restore.request import SAME_NAME, Request, generations_of

    if options["to_topic"] and options["to_topic_template"]:
        raise click.UsageError("--to-topic and --to-topic-template both say where to: choose one.")
    as_of: datetime | None = options["as_of"]
    return Request(
        query=query,
        offsets=tuple(_offsets(text) for text in options["offsets"]),
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
        topic_settings=options["topic_config"],
        set_topic_config=options["set_topic_config"],
        keep_topic_config=options["keep_topic_config"],
    )


def _refuse_unless_writable(setup: Setup, name: str, said_again: str) -> None:
    stanza = setup.configuration.source(name)
    if not stanza.writable:
        raise ForbiddenError(
            f"Source {name} is read-only: refused to restore to it.",
            remedy="Choose another with --to-source, whose stanza says writable = true.",
            source=name,
        )
    if stanza.production and said_again != name:
        raise ForbiddenError(
            f"Source {name} is production: people act on what appears there. Refused to restore to it.",
            remedy=f"If that is what you want, say its name again: --production {name}.",
            source=name,
        )


@contextlib.contextmanager
def _opened(ctx: click.Context, setup: Setup, name: str, request: Request) -> Iterator[Restoration]:
    from hop_archive.config.open import open_source
    from hop_archive.recover.restore.prepare import Restoration

    archived = setup.configuration.source(setup.selection.source).resolved()
    target = open_source(name, setup.configuration.source(name))
    with contextlib.closing(target), setup.catalog_and_store() as (catalog, store):
        yield Restoration(catalog, store, target, request, archived.policy(), ctx.meta.get(__name__, {}))


# --- to Kafka


def _restore(ctx: click.Context, restoration: Restoration, options: dict[str, Any]) -> None:
    from hop_archive.cli.stopping import Stop
    from hop_archive.model.progress import Progress
    from hop_archive.recover.restore.control import Control
    from hop_archive.recover.restore.run import restore as run

    stop, progress, began = Stop(), Progress(), time.monotonic()
    groups = options["named_groups"] or (() if options["all_groups"] else None)
    with (
        tempfile.TemporaryDirectory(prefix="hop-archive-restore-") as folder,
        stop.on_signals(),
        shown(began) as show,
    ):
        control = Control(
            messages_per_s=options["rate"],
            bytes_per_s=options["byte_rate"],
            patience_s=options["patience_s"],
            check=not options["no_check"],
            stop=stop,
            notice=show,
            sleep=stop.sleep,
        )
        outcome = run(
            restoration,
            control,
            Path(folder),
            move_groups=groups,
            restart=options["restart"],
            progress=progress,
        )
    tell(outcome, progress, time.monotonic() - began, as_json=options["as_json"])
    if not outcome.complete:
        ctx.exit(130)
    ctx.exit(refuse_what_is_wrong(outcome))


# --- to files


def _to_files(ctx: click.Context, chosen: StanzaOptions, query: Query, options: dict[str, Any]) -> None:
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

    write_folder(
        chosen,
        query,
        options["to_files"],
        options["form"],
        skip_damaged=options["skip_damaged"],
        as_json=options["as_json"],
    )
