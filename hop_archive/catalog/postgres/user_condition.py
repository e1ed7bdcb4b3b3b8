"""A condition that a user wrote in SQL: what must be so before a database sees it, and how to show what is wrong. Pure.

The condition stands in parentheses in a statement of ours. That it stays there, Postgres itself judges (see
``postgres/select.py``). Here it is cut into tokens for what Postgres would let pass: calls of functions that do
something. So the cutting must agree with Postgres' own (PostgreSQL 14, 4.1 "Lexical Structure"), and what is hard to
agree on, and not needed in a condition, is refused: comments, dollar quotes, and strings with escapes.
"""

from __future__ import annotations

import re

from hop_archive.errors import ConfigurationError

MARGIN = "  "
_SHOWN = 76
"""Columns of a line that are shown: with the margin it fits a terminal of 80."""

# Spaces are Postgres' own: any other, such as a no-break space, is part of a name to it.
_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f\v]+)
      | (?P<comment>--|/\*)
      | (?P<escaped>[uU]&["'])
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<word>[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*)
      | (?P<number>[0-9]+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST_NAME = 63
"""Bytes of a name in Postgres, which silently cuts longer ones: a function could hide behind that."""

RESERVED = ("offset",)
"""Columns whose names are words of SQL's own, and no columns without quotes (PostgreSQL 14, appendix C)."""

HARMLESS = frozenset({"random", "clock_timestamp", "timeofday", "gen_random_uuid"})
"""Functions that Postgres calls volatile because of what they return, not for anything that they do."""


def refusal(condition: str, reason: str, at: int | None = None, remedy: str = "") -> ConfigurationError:
    """What to tell whoever wrote the condition.

    Args:
        condition: As it was written.
        reason: What is wrong.
        at: Which character of it that is about, from 0; None where that is not known.
        remedy: What to do instead.
    """
    said = f"The condition cannot be used: {reason}."
    if at is None:
        return ConfigurationError(said, remedy=remedy, condition=condition)
    lines = (said, marked(condition, at), remedy)
    return ConfigurationError("\n".join(filter(None, lines)), condition=condition, position=at)


def marked(text: str, at: int) -> str:
    """The line of ``text`` in which character ``at`` stands, and below it a caret under that character."""
    at = min(max(at, 0), len(text))
    start = text.rfind("\n", 0, at) + 1
    stop = text.find("\n", at)
    line = text[start : len(text) if stop < 0 else stop]
    line = "".join(c if c.isprintable() else " " for c in line)
    column = at - start
    first = max(0, min(column - _SHOWN * 2 // 3, len(line) - _SHOWN))
    return f"{MARGIN}{line[first : first + _SHOWN]}\n{MARGIN}{' ' * (column - first)}^"


def called(condition: str) -> dict[str, int]:
    """The names that stand before a parenthesis, as Postgres folds them, and where: functions, for one thing.

    Raises:
        ConfigurationError: The condition is empty, or holds what a condition needs not hold: comments, statements
            after a semicolon, dollar quotes, strings with escapes, parameters, parentheses that do not match.
    """
    found: dict[str, int] = {}
    brackets: list[tuple[str, int]] = []
    before: tuple[str, int] | None = None
    for token in _TOKEN.finditer(condition):
        kind, text, at = str(token.lastgroup), token[0], token.start()
        if kind == "space":
            continue
        _refuse_odd(condition, token)
        if text == "(" and before is not None:
            found.setdefault(*before)
        if text in ("(", "["):
            brackets.append((text, at))
        elif text in (")", "]") and (not brackets or brackets.pop()[0] + text not in ("()", "[]")):
            raise refusal(condition, f"this {text} closes nothing", at)
        before = _name(condition, token) if kind in ("word", "quoted") else None
    if brackets:
        raise refusal(condition, f"this {brackets[-1][0]} is never closed", brackets[-1][1])
    if not condition.strip():
        raise refusal(condition, "it is empty")
    return found


def unquoted_columns(condition: str) -> list[str]:
    """Those of ``RESERVED`` that stand in the condition without quotes, each once."""
    tokens = {token[0].lower() for token in _TOKEN.finditer(condition)}  # with their quotes
    return [name for name in RESERVED if name in tokens]


def _refuse_odd(condition: str, token: re.Match[str]) -> None:
    kind, text, at = token.lastgroup, token[0], token.start()
    following = condition[token.end() : token.end() + 1]
    if kind == "comment":
        raise refusal(condition, "comments are not allowed", at)
    if kind == "escaped" or (text in ("e", "E") and following == "'"):
        raise refusal(
            condition, "strings with escapes (E'…', U&'…') are not allowed", at, "Write a plain '…'."
        )
    if text in ("'", '"'):
        raise refusal(condition, f"this {text} is never closed", at)
    if text == ";":
        raise refusal(condition, "only a condition is allowed, not a statement", at)
    if text == "$":
        raise refusal(
            condition, "dollar quotes and parameters ($1) are not allowed", at, "Write a plain '…'."
        )


def _name(condition: str, token: re.Match[str]) -> tuple[str, int]:
    """A name as the database's own catalog has it. Only ASCII letters are folded, as in a UTF-8 database."""
    text, at = token[0], token.start()
    if token.lastgroup == "quoted":
        name = text[1:-1].replace('""', '"')
    else:
        name = "".join(c.lower() if c.isascii() else c for c in text)
    if len(name.encode()) > _LONGEST_NAME:
        raise refusal(condition, f"this name is longer than {_LONGEST_NAME} bytes", at)
    return name, at
