"""``hop-archive``, the command line: a module a command, each a thin layer over a use case.

Here are the table of commands, the group that finds them, and the way from an error to an exit code. A command's
module imports little when it is loaded and the rest when it runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
import traceback
from typing import NoReturn

import click

from hop_archive.cli.fitting import folded_text
from hop_archive.cli.output import program_version, say
from hop_archive.cli.streams import Outlet, occupy, text
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.wording import cut, harmless, said

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Archive": {
        "run": ("hop_archive.cli.run:run", "Archive messages: what is there, and what arrives."),
        "snapshot": ("hop_archive.cli.snapshot:snapshot", "Keep how topics and consumer groups are set up."),
        "catalog-snapshot": (
            "hop_archive.cli.catalog_snapshot:catalog_snapshot",
            "Write the catalog as Parquet.",
        ),
        "compact": ("hop_archive.cli.compact:compact", "Put small objects together into large ones."),
        "publish": ("hop_archive.cli.publish:publish", "Publish test data to a writable source."),
    },
    "Look": {
        "status": ("hop_archive.cli.status:status", "Show where the archive stands, topic by topic."),
        "topics": ("hop_archive.cli.topics:topics", "Show every topic: what is archived, what is missing."),
        "report": ("hop_archive.cli.report:report", "Write a page of the archive by topic and day."),
        "uuids": ("hop_archive.cli.uuids:uuids", "Print the UUIDs of messages: of all, or a selection."),
        "inspect": ("hop_archive.cli.inspect:inspect", "Show all that is known of a message."),
        "export": ("hop_archive.cli.export:export", "Copy messages into a folder: Parquet, BSON or files."),
        "connect": ("hop_archive.cli.connect:connect", "Open psql on the catalog."),
        "db-logs": ("hop_archive.cli.db_logs:db_logs", "Show what the database's server logged."),
        "kube-logs": ("hop_archive.cli.kube_logs:kube_logs", "Show what the pods on Kubernetes logged."),
    },
    "Be told": {
        "watch": ("hop_archive.cli.watch:watch", "Look from outside whether all is well; for cron."),
        "metrics": ("hop_archive.cli.metrics:metrics", "Serve numbers of the archive to Prometheus."),
        "alert": ("hop_archive.cli.alert:alert", "Try out who is told what is wrong."),
    },
    "Verify and mend": {
        "doctor": ("hop_archive.cli.doctor:doctor", "Check that all is there and allowed."),
        "verify": ("hop_archive.cli.verify:verify", "Check that nothing is missing or damaged."),
        "scrub": ("hop_archive.cli.scrub:scrub", "Read and compare a share of all documents."),
        "findings": ("hop_archive.cli.findings:findings", "Show what was found and nobody has settled."),
        "repair": ("hop_archive.cli.repair:repair", "Mend what was found."),
        "rebuild-catalog": (
            "hop_archive.cli.rebuild_catalog:rebuild_catalog",
            "Make the catalog from what the store holds.",
        ),
        "index-text": ("hop_archive.cli.row_jobs:index_text", "Let messages be found by words."),
        "correct-media-types": (
            "hop_archive.cli.row_jobs:correct_media_types",
            "Correct media types that an older version wrote.",
        ),
    },
    "Remove": {
        "clean-tests": ("hop_archive.cli.clean_tests:clean_tests", "Remove the messages of test topics."),
        "clean-duplicates": (
            "hop_archive.cli.clean_duplicates:clean_duplicates",
            "Move what is archived twice to the duplicates.",
        ),
        "prune": ("hop_archive.cli.prune:prune", "Remove messages that are older than a policy says."),
        "retract": ("hop_archive.cli.retract:retract", "Mark messages as retracted: readers leave them out."),
        "suppress": ("hop_archive.cli.suppress:suppress", "Remove the content of messages for good."),
    },
    "Restore": {
        "restore": ("hop_archive.cli.restore:restore", "Put archived messages back on Kafka."),
    },
    "Set up": {
        "list": ("hop_archive.cli.stanzas:list_stanzas", "List the stanzas that there are to choose from."),
        "migrate": (
            "hop_archive.cli.migrate:migrate",
            "Make the catalog's tables, or bring them up to date.",
        ),
        "schema": (
            "hop_archive.cli.schema:schema",
            "Print the JSON schema of hop_archive.toml, for editors.",
        ),
        "completion": ("hop_archive.cli.completion:completion", "Print what makes the TAB key complete."),
        "local": ("hop_archive.cli.local:local", "Run Kafka, Postgres and S3 on this machine."),
    },
}
"""Commands by what they are for, in the order of their use: where each is, and what it does, in a line of 80 columns."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
"""The same by name."""

SHOWING = frozenset(
    {
        "completion",
        "connect",
        "db-logs",
        "doctor",
        "findings",
        "inspect",
        "kube-logs",
        "list",
        "schema",
        "snapshot",
        "status",
        "topics",
        "uuids",
        "watch",
    }
)
"""Commands whose work is what they print. The others go on where nothing can be printed, and say so at the end."""

MOST_TOLD = 4_000
"""Characters of an error that are printed: what another program said is cut where it is taken in, but not everywhere."""

INTERRUPTED = 130
"""What shells report of a process that Ctrl-C ended: 128 and the signal's number."""

A_BUG = 70
"""``EX_SOFTWARE`` of sysexits.h: not to be taken for a finding, which is 1."""

_DEBUG = "hop_archive.debug"

_EPILOG = """\b
Examples:
  hop-archive run                                  sample alerts, all in memory: nothing needed
  hop-archive list                                 what there is to choose from
  hop-archive run -H hop-local -D local-db -S local-segments

\b
Exit codes:
  0    done
  1    done, and there are differences or findings
  2    the command line or the configuration is wrong, or something that it names is missing
  3    a server does not answer
  4    another writer, or a topic that changes, was in the way each time; nothing is lost
  5    data are lost or corrupt
  70   a bug
  130  interrupted

\b
Output that is closed, full or gone is an error (2) where it is what was asked for; what archives, verifies, repairs or
removes goes on, and says so at the end.
"""


class FittedHelp(click.HelpFormatter):
    """Help in which what is laid out by hand fits a narrow terminal, too."""

    def write_text(self, text: str) -> None:
        """Write paragraphs; of those that are kept as they are, what is too long is folded at words."""
        begin = len(self.buffer)
        super().write_text(text)
        lines = "".join(self.buffer[begin:]).split("\n")
        self.buffer[begin:] = ["\n".join(folded_text(lines, self.width))]


class FittedContext(click.Context):
    """A command's context whose help is such."""

    formatter_class = FittedHelp


class Commands(click.Group):
    """The commands of the table, each loaded when it is asked for."""

    context_class = FittedContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order, which is that of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name; ``_`` may stand for ``-``. None where there is none."""
        name = cmd_name.replace("_", "-")
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        _adapt(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by group, with what each does. Loads none of them."""
        longest = max(map(len, COMMANDS))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(longest), told) for name, (_, told) in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of ``args``, or say which name is nearest to it."""
        nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if nearest and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {nearest[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> NoReturn:
        """Run the command, which returns its exit code, or None for 0; errors raised on purpose become one message and theirs."""
        try:
            exit_code = super().invoke(ctx)
            sys.stdout.flush()  # a disk that is full is told here, not by the interpreter at its end
            ctx.exit(exit_code or 0)
        except HopArchiveError as error:
            _report(ctx, error)
        except click.ClickException as error:
            vars(error)["message"] = _fit(error.message)
            raise
        except KeyboardInterrupt:
            say("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise  # a closed pipe is click's to handle; what a network did was to be translated
            _report(ctx, _unusable(error))


def _report(ctx: click.Context, error: HopArchiveError) -> NoReturn:
    if ctx.meta.get(_DEBUG):
        click.echo(_trace(error), err=True)
    say(f"Error: {_fit(str(error))}", err=True)
    ctx.exit(error.exit_code)


def _trace(error: BaseException) -> str:
    return harmless("".join(traceback.format_exception(error)), "\n\t")


def _fit(message: str) -> str:
    """An error as it is printed: here, and nowhere else, it is made harmless for terminals and cut."""
    return cut(harmless(message, "\n"), MOST_TOLD)


def _unusable(error: OSError) -> ConfigurationError:
    """A disk that is full, a folder that may not be written: the operator's to mend, wherever it is met."""
    where = error.filename or "What the output goes to"
    unusable = ConfigurationError(
        f"{where} cannot be used: {error.strerror or error}.",
        remedy="See whether it is there, may be used by this user, and has room.",
    )
    unusable.__cause__ = error
    return unusable


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"hop-archive {program_version() or '(not installed: run from its source)'}")
        ctx.exit()


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, _, value: ctx.meta.update({_DEBUG: True} if value else {}),
        help="Show where in the program an error came from.",
    )


def _adapt(command: click.Command) -> None:
    """Let ``--debug`` stand after any command's name, too, and let its help fit the terminal."""
    command.context_class = FittedContext
    if not any(option.name == "debug" for option in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _adapt(below)


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version.",
        ),
        _debug_option(),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def cli() -> None:
    """Archive every message of Hopskotch's public topics, bit for bit, in S3 and Postgres.

    A source, a database and a store are chosen independently, each by the name of a stanza of hop_archive.toml:
    with options, or with HOP_ARCHIVE_SOURCE, HOP_ARCHIVE_DATABASE and HOP_ARCHIVE_STORE. What nobody chose is a
    mock in memory, so that every command can be tried out at once.
    """


def main() -> None:
    """Be the ``hop-archive`` program; never returns."""
    occupy()
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    output = Outlet(1, is_work=command.replace("_", "-") in {*SHOWING, ""})
    sys.stdout, sys.stderr = text(output, sys.stdout), text(Outlet(2, is_work=False), sys.stderr)
    try:
        cli(prog_name="hop-archive")
    except SystemExit as end:
        sys.stdout.flush()
        if output.is_work or output.failure is None:
            sys.exit(end.code)
        # The work is done, and nobody could see what was printed of it.
        say(f"What was printed could not be written: {output.failure.strerror}.", err=True)
        sys.exit((ConfigurationError.exit_code if "--json" in sys.argv else 0) or end.code)
    except BaseException as error:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            say(f"Error: {_fit(str(_unusable(error)))}", err=True)  # of --help, before any command
            sys.exit(ConfigurationError.exit_code)
        # Said where it can be seen, whatever is logged elsewhere, and last what it was: that is read first.
        what = (
            "This is a bug in hop-archive, or in a library that it uses; please report it with what is above."
        )
        click.echo(f"{_trace(error)}Error: {what} {type(error).__name__}: {said(error)}", err=True)
        if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
            logging.getLogger(__name__).error(what, exc_info=error)
        sys.exit(A_BUG)
