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
from typing import Any, NoReturn

import click

from hop_archive.cli.streams import Outlet, occupy, text
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.wording import cut, harmless, said

COMMANDS: dict[str, str] = {
    "run": "hop_archive.cli.run:run",
    "status": "hop_archive.cli.status:status",
    "uuids": "hop_archive.cli.uuids:uuids",
    "inspect": "hop_archive.cli.inspect:inspect",
    "export": "hop_archive.cli.export:export",
    "restore": "hop_archive.cli.restore:restore",
    "connect": "hop_archive.cli.connect:connect",
    "topics": "hop_archive.cli.topics:topics",
    "publish": "hop_archive.cli.publish:publish",
    "snapshot": "hop_archive.cli.snapshot:snapshot",
    "verify": "hop_archive.cli.verify:verify",
    "clean-tests": "hop_archive.cli.clean_tests:clean_tests",
    "clean-duplicates": "hop_archive.cli.clean_duplicates:clean_duplicates",
    "prune": "hop_archive.cli.prune:prune",
    "retract": "hop_archive.cli.retract:retract",
    "suppress": "hop_archive.cli.suppress:suppress",
    "rebuild-catalog": "hop_archive.cli.rebuild_catalog:rebuild_catalog",
    "catalog-snapshot": "hop_archive.cli.catalog_snapshot:catalog_snapshot",
    "findings": "hop_archive.cli.findings:findings",
    "repair": "hop_archive.cli.repair:repair",
    "scrub": "hop_archive.cli.scrub:scrub",
    "report": "hop_archive.cli.report:report",
    "doctor": "hop_archive.cli.doctor:doctor",
    "list": "hop_archive.cli.stanzas:list_stanzas",
    "migrate": "hop_archive.cli.migrate:migrate",
    "db-logs": "hop_archive.cli.db_logs:db_logs",
    "kube-logs": "hop_archive.cli.kube_logs:kube_logs",
    "completion": "hop_archive.cli.completion:completion",
    "local": "hop_archive.cli.local:local",
}
"""Name of each command, and where it is."""

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
        "snapshot",
        "status",
        "topics",
        "uuids",
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


class Commands(click.Group):
    """The commands of the table, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order, which is that of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name; ``_`` may stand for ``-``. None where there is none."""
        name = cmd_name.replace("_", "-")
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        _give_debug(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of ``args``, or say which name is nearest to it."""
        nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if nearest and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {nearest[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors raised on purpose become one message and their exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a disk that is full is told here, not by the interpreter at its end
            return result
        except HopArchiveError as error:
            _report(ctx, error)
        except click.ClickException as error:
            vars(error)["message"] = _fit(error.message)
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise  # a closed pipe is click's to handle; what a network did was to be translated
            _report(ctx, _unusable(error))


def _report(ctx: click.Context, error: HopArchiveError) -> NoReturn:
    if ctx.meta.get(_DEBUG):
        click.echo(harmless("".join(traceback.format_exception(error)), "\n\t"), err=True)
    click.echo(f"Error: {_fit(str(error))}", err=True)
    ctx.exit(error.exit_code)


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


def _note_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    from importlib.metadata import PackageNotFoundError, version

    if value and not ctx.resilient_parsing:
        try:
            found = version("hop_archive")
        except PackageNotFoundError:
            found = "(not installed: run from its source)"
        click.echo(f"hop-archive {found}")
        ctx.exit()


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_note_debug,
        help="Show where in the program an error came from.",
    )


def _give_debug(command: click.Command) -> None:
    """Let ``--debug`` stand after any command's name, too."""
    if not any(option.name == "debug" for option in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _give_debug(below)


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
        click.echo(f"What was printed could not be written: {output.failure.strerror}.", err=True)
        sys.exit((ConfigurationError.exit_code if "--json" in sys.argv else 0) or end.code)
    except BaseException as error:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            click.echo(f"Error: {_fit(str(_unusable(error)))}", err=True)  # of --help, before any command
            sys.exit(ConfigurationError.exit_code)
        # Said where it can be seen, whatever is logged elsewhere, and last what it was: that is read first.
        what = (
            "This is a bug in hop-archive, or in a library that it uses; please report it with what is above."
        )
        trace = harmless("".join(traceback.format_exception(error)), "\n\t")
        click.echo(f"{trace}Error: {what} {type(error).__name__}: {said(error)}", err=True)
        if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
            logging.getLogger(__name__).error(what, exc_info=error)
        sys.exit(A_BUG)
