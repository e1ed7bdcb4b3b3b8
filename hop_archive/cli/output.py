"""How the command line writes numbers, moments, tables and JSON. Free of rich: most commands need no more."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import click

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNITS = ("B", "kB", "MB", "GB", "TB")


def count(number: int | None, unknown: str = "?") -> str:
    """``12,345``; ``unknown`` for None."""
    return unknown if number is None else f"{number:,}"


def size(size_bytes: int) -> str:
    """``12.3 MB``: three digits, decimal units."""
    amount, unit = float(size_bytes), _UNITS[0]
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"


def rate(a_second: float) -> str:
    """Messages a second: whole from ten on."""
    return f"{a_second:,.0f}/s" if a_second >= 9.95 or a_second == 0 else f"{a_second:.1f}/s"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``5 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    return f"{hours} h {rest_minutes} min" if hours else f"{minutes} min {rest_s} s"


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


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines of aligned columns, two spaces between.

    Args:
        header: Names of the columns.
        rows: As many texts each.
        right: Numbers of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        aligned = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    return lines


def print_lines(lines: Iterable[str]) -> None:
    """Each line as it is made."""
    for line in lines:
        click.echo(line)


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


def print_json(value: Any, *, ensure_ascii: bool = True) -> None:
    """One JSON object, laid out."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=ensure_ascii))
