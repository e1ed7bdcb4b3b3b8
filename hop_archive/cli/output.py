"""How the command line writes numbers, moments, tables and JSON. Free of rich: most commands need no more."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import click

from hop_archive.cli.fitting import fitted_table, folded_line, terminal_width
from hop_archive.model.wording import duration as duration
from hop_archive.model.wording import size as size

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def count(number: int | None, unknown: str = "?") -> str:
    """``12,345``; ``unknown`` for None."""
    return unknown if number is None else f"{number:,}"


def rate(a_second: float) -> str:
    """Messages a second: whole from ten on."""
    return f"{a_second:,.0f}/s" if a_second >= 9.95 or a_second == 0 else f"{a_second:.1f}/s"


def moment(at: datetime.datetime | None) -> str | None:
    """ISO 8601 in UTC, to the second; None stays None."""
    return None if at is None else at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(timestamp_ms: int | None) -> str | None:
    """A message's timestamp as ISO 8601 in UTC, to the millisecond; None stays None.

    Kafka takes any int64. What no calendar of ours reaches is written as the number that it is.
    """
    if timestamp_ms is None:
        return None
    try:
        at = _EPOCH + datetime.timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms"
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int] = (),
    *,
    optional: Sequence[str] = (),
) -> list[str]:
    """Lines of aligned columns, two spaces between, that fit the terminal where they go to one.

    Args:
        header: Names of the columns.
        rows: As many texts each.
        right: Numbers of the columns that are aligned to the right, and never folded.
        optional: Names of the columns that a narrow terminal may lack, the least important first.
    """
    return fitted_table(header, rows, right, optional, terminal_width())


def fitted(lines: Iterable[str]) -> Iterator[str]:
    """The lines, folded at words where they go to a terminal that is narrower."""
    width = terminal_width()
    for line in lines:
        yield from [line] if width is None else folded_line(line, width)


def print_lines(lines: Iterable[str]) -> None:
    """Each line as it is made, as `fitted`."""
    for line in fitted(lines):
        click.echo(line)


def say(text: str, *, err: bool = False) -> None:
    """Print what people read, on the output or the error output: folded at words where that is a terminal that is narrower."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    for line in text.split("\n"):
        for part in [line] if width is None else folded_line(line, width):
            click.echo(part, err=err)


class JsonList:
    """One JSON object that begins with a list, written while that is found: it may be longer than memory should hold."""

    def __init__(self, name: str) -> None:
        self._empty = True
        click.echo(f'{{"{name}": [', nl=False)

    def add(self, entry: Any) -> None:
        """Write one entry of the list."""
        click.echo(f"{'' if self._empty else ','}\n{json.dumps(entry)}", nl=False)
        self._empty = False

    def end(self, **members: Any) -> None:
        """Write the members that come after the list."""
        click.echo(f"], {json.dumps(members)[1:]}")


def program_version() -> str:
    """Which version this is; '' where it is not installed, but run from its source."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hop_archive")
    except PackageNotFoundError:
        return ""


def print_json(value: Any, *, ensure_ascii: bool = True) -> None:
    """One JSON object, laid out."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=ensure_ascii))
