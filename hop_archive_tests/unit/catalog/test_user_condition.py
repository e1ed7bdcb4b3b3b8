"""A condition in SQL before a database sees it: what is refused, what is called, and how a fault is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.postgres.user_condition import called, marked, unquoted_columns
from hop_archive.errors import ConfigurationError


@pytest.mark.parametrize(
    "condition",
    [
        "size > 100",
        "title LIKE '%;-- not a comment /* nor this%' AND sender = 'O''Neill'",
        "(topic, partition) IN (('a', 1), ('b', 2))",
        "uuid = ANY(ARRAY['…']::uuid[])",
        '"offset" > 5 AND "a;b" = \'$1\'',
        "a$b = 1",
        "EXISTS (SELECT FROM duplicates d WHERE d.uuid = messages.uuid)",
    ],
)
def test_conditions_are_let_pass(condition: str) -> None:
    called(condition)


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ("1=1; DROP TABLE messages", "not a statement"),
        ("1=1) OR (1=1", "closes nothing"),
        ("(1=1", "never closed"),
        ("a[1) = 2", "closes nothing"),
        ("1=1 --", "comments"),
        ("1=1 /* ", "comments"),
        ("title = E'\\'' OR true", "escapes"),
        ("title = 1e'\\''", "escapes"),
        ("title = U&'\\0041'", "escapes"),
        ('u&"\\0070g_sleep"(1)', "escapes"),
        ("title = $$x$$", "dollar"),
        ("title = $1", "dollar"),
        ("title = 'x", "this ' is never closed"),
        ('"title = 1', 'this " is never closed'),
        ("", "empty"),
        (" \n", "empty"),
        (f"{'f' * 64}(1)", "longer than 63"),
    ],
)
def test_what_a_condition_needs_not_hold_is_refused(condition: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        called(condition)


def test_what_is_called_is_told_by_the_name_that_the_database_knows() -> None:
    condition = (
        'Lower(title) = \'pg_sleep(1)\' OR "Odd ""name""" (1) OR pg_catalog.PG_Sleep\n(5) OR É(1) AND nothing'
    )
    assert set(called(condition)) == {"lower", 'Odd "name"', "pg_sleep", "or", "É"} - {"or"}


def test_a_no_break_space_is_part_of_a_name_as_it_is_to_postgres() -> None:
    assert set(called("\u00a0pg_sleep(1)")) == {"\u00a0pg_sleep"}


def test_the_place_is_marked_below_its_line() -> None:
    assert marked("size > 1\n\tAND tpoic = 2\nOR x", 14) == "   AND tpoic = 2\n       ^"


@given(st.text(max_size=300), st.integers(-5, 400))
def test_the_mark_fits_a_terminal_and_stands_below_the_character_that_is_meant(text: str, at: int) -> None:
    line, caret = marked(text, at).splitlines()
    assert len(line) <= 78
    assert len(caret) <= 79
    if 0 <= at < len(text) and text[at].isprintable():
        assert line[len(caret) - 1] == text[at]


@given(st.text())
def test_any_text_is_a_condition_or_an_error_that_says_why(text: str) -> None:
    try:
        called(text)
    except ConfigurationError as error:
        assert "The condition cannot be used: " in str(error)  # noqa: PT017 - either way is right


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("offset = 3", ["offset"]),
        ("size > OFFSET and offset < 2", ["offset"]),
        ('"offset" = 3', []),
        ("title = 'offset'", []),
        ("offsets = 3 OR my_offset = 2", []),
    ],
)
def test_a_column_that_needs_quotes_and_has_none_is_found(condition: str, found: list[str]) -> None:
    assert unquoted_columns(condition) == found
