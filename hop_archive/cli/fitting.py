"""How lines and tables are made to fit a terminal: folded at words and at the joints of names, never cut.

What goes to a file or a pipe is as wide as it is: there is nothing that it would have to fit.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TextIO

_LEAST_WIDTH = 40
"""Columns of a terminal that says it has fewer, or none."""

_NAME_SHARE = 0.4
"""Which part of the width a column of texts may claim before columns are left out for it; more where there is room."""

_LEAST_COLUMN = 12
_INDENT = "  "
_NOTHING = frozenset({"", "0", "-", "0 B"})
_JOINT = re.compile(r"[^._/,:@=-]+[._/,:@=-]*|[._/,:@=-]+")
_FIELD_SHARE = 0.6
"""Which part of the width may stand before a field that goes on under itself."""

_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
_TWO_FIELDS = re.compile(r"(?P<first>\s*\S(?:.*?\S)?)(?P<gap> {2,})(?P<rest>\S.*)")


def terminal_width(stream: TextIO | None = None) -> int | None:
    """How many characters a line of the output, or of another stream, has; None where that is no terminal."""
    is_terminal = (sys.stdout if stream is None else stream).isatty()
    return max(_LEAST_WIDTH, shutil.get_terminal_size().columns) if is_terminal else None


def folded_cell(text: str, width: int) -> list[str]:
    """A text, a name or an address on as many lines as it takes, with all its characters but spaces where a line ends.

    Broken between words; a word that is longer than a line after a dot, slash, dash and the like, and where it has none
    of these, anywhere. Lines after the first are indented, so that none looks like a name of its own.
    """
    lines, line = [], ""
    for word in re.findall(r"\S+\s*|^\s+", text):
        # A word that fits a line of its own stays whole.
        for piece in [word] if len(word.rstrip()) + len(_INDENT) <= width else _JOINT.findall(word):
            left = piece
            while len(line) + len(left.rstrip()) > width:
                if line.strip():
                    lines.append(line.rstrip())
                else:
                    room = width - len(line)
                    lines.append(line + left[:room])
                    left = left[room:]
                line = _INDENT
            line += left
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def folded_line(line: str, width: int) -> list[str]:
    """A line of prose, of a list with two fields, or an example of a command, on as many lines as it takes.

    The second field goes on under itself; a command goes on after a backslash, so that it may be copied. A word that is
    longer than a line stays whole.
    """
    if len(line) <= width:
        return [line]
    indent = " " * _indent(line)
    if column := _last_field(line, width):
        return _words(line[:column], line[column:], " " * column, width)
    if fields := _TWO_FIELDS.match(line):
        further = f"{indent}    "
        return [*folded_line(fields["first"], width), *_words(further, fields["rest"], further, width)]
    if _is_command(line):
        whole = re.sub(" (?!-)", "\0", line.strip())  # no line begins with the value of an option
        lines = [part.replace("\0", " ") for part in _words(indent, whole, f"{indent}    ", width - 2)]
        return [*(f"{part} \\" for part in lines[:-1]), lines[-1]]
    return _words(indent, line.strip(), indent, width)


def _last_field(line: str, width: int) -> int:
    """Where the last field of a list begins that has room for some words beside those before it; 0 where none has."""
    begins = [gap.end() for gap in _GAP.finditer(line)]
    return max((column for column in begins if column <= width * _FIELD_SHARE), default=0)


def folded_text(lines: Sequence[str], width: int) -> list[str]:
    """Text that was laid out by hand. Where a line of prose is too long, those that it goes on in are filled, too."""
    whole: list[str] = []
    for line in lines:
        before = whole[-1] if whole else ""
        # Prose goes on under itself, and so does the second field of a list.
        under = _last_field(before, width) or _indent(before)
        is_further = (
            len(before) > width
            and line.strip()
            and _indent(line) == under
            and not _GAP.search(line.lstrip())
            and not any(map(_is_command, (before, line)))
            and not (before.endswith((".", ":")) and line.lstrip()[0].isupper())
        )
        if is_further:
            whole[-1] = f"{before} {line.strip()}"
        else:
            whole.append(line)
    return [part for line in whole for part in folded_line(line, width)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_command(line: str) -> bool:
    return line.lstrip().startswith(("hop-archive ", "... ")) and " -" in line


def _words(first: str, text: str, further: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fitted_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int],
    optional: Sequence[str],
    width: int | None,
) -> list[str]:
    """Lines of aligned columns of which none is longer than ``width``, as far as what has to stay allows.

    Columns that are ``optional``, the least important first, are left out until the rest fits: first those in which nothing
    stands, and a last line names them. Then texts are folded, the longest first. Numbers are never folded.
    """
    shown = list(range(len(header)))
    columns = list(zip(header, *rows, strict=True))
    longest = [max(map(len, column)) for column in columns]
    bare = {at for at, column in enumerate(columns) if {*column[1:]} <= _NOTHING}
    left_out: list[int] = []
    if width is not None:
        claim = max(2 * _LEAST_COLUMN, int(width * _NAME_SHARE))
        claims = [n if at in right else min(n, claim) for at, n in enumerate(longest)]
        places = [header.index(name) for name in optional]
        # Stable: of those that are as bare, the less important one goes first.
        for at in sorted(places, key=lambda at: at not in bare):
            if _total(claims[at] for at in shown) <= width:
                break
            shown.remove(at)
            left_out.append(at)
    widths = {at: longest[at] for at in shown}
    while width is not None and _total(widths.values()) > width:
        texts = [at for at in shown if at not in right and widths[at] > max(_LEAST_COLUMN, len(header[at]))]
        if not texts:
            break
        widths[max(texts, key=lambda at: widths[at])] -= 1
    lines = []
    for cells in (header, *rows):
        folded = [folded_cell(cells[at], widths[at]) for at in shown]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            aligned = (
                part.rjust(widths[at]) if at in right else part.ljust(widths[at])
                for at, part in zip(shown, parts, strict=True)
            )
            lines.append("  ".join(aligned).rstrip())
    if width is not None and left_out:
        empty = [header[at] for at in sorted(left_out) if at in bare]
        full = [header[at] for at in sorted(left_out) if at not in bare]
        told = (f"No room for: {', '.join(full)}", f"{'n' if full else 'N'}othing in: {', '.join(empty)}")
        lines += folded_line(f"{'; '.join(itertools.compress(told, (full, empty)))}.", width)
    return lines


def _total(widths: Iterable[int]) -> int:
    """How long a line of such columns is, with two spaces between."""
    every = list(widths)
    return sum(every) + 2 * (len(every) - 1)
