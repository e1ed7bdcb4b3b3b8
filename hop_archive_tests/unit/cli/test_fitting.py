"""Lines and tables that fit: nothing is cut, and no two names look alike."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hop_archive.cli import COMMANDS, GROUPS, output
from hop_archive.cli.fitting import fitted_table, folded_cell, folded_line, folded_text

WIDTHS = st.integers(min_value=12, max_value=120)
NAMES = st.text("abz.-_", min_size=1, max_size=200) | st.text("ab", min_size=1, max_size=200)
LONG_A = "gcn.classic.voevent.FERMI_GBM_SUBTHRESHOLD_AND_MUCH_MORE_OF_IT.of.the.first.kind"
LONG_B = "gcn.classic.voevent.FERMI_GBM_SUBTHRESHOLD_AND_MUCH_MORE_OF_IT.of.the.second.kind"
HEADER = ("TOPIC", "LAG", "MESSAGES", "LOST", "LAST BATCH")


@given(NAMES, WIDTHS)
@example("a" * 100, 12)
def test_a_folded_name_has_all_its_characters_and_no_line_is_too_long(name: str, width: int) -> None:
    lines = folded_cell(name, width)
    assert lines[0] + "".join(line.removeprefix("  ") for line in lines[1:]) == name
    assert all(len(line) <= width for line in lines)


@given(st.text("ab -.,", max_size=200), WIDTHS)
def test_a_folded_text_has_all_its_words(text: str, width: int) -> None:
    lines = folded_cell(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= width for line in lines)


def test_a_name_is_broken_at_its_joints_and_a_sentence_between_its_words() -> None:
    assert folded_cell("gcn.classic.voevent.FERMI_GBM", 14) == ["gcn.classic.", "  voevent.", "  FERMI_GBM"]
    assert folded_cell("the broker said no", 11) == ["the broker", "  said no"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_a_table_fits_and_names_that_differ_at_their_end_only_are_told_apart(width: int) -> None:
    rows = [[name, "0", "12,345", "0", "2026-11-29T12:00:00Z"] for name in (LONG_A, LONG_B, "a.b")]
    lines = fitted_table(HEADER, rows, (1, 2, 3), ("LAST BATCH", "LOST"), width)
    assert max(map(len, lines)) <= width
    told = "".join(line.split()[0] for line in lines)
    assert LONG_A in told
    assert LONG_B in told


def test_what_is_left_out_is_named_bare_columns_first() -> None:
    rows = [["a" * 20, "1", "2", "0", "2026-11-29T12:00:00Z"]]
    optional = ("LAST BATCH", "LOST")
    whole = fitted_table(HEADER, rows, (1, 2, 3), optional, 63)
    assert whole == fitted_table(HEADER, rows, (1, 2, 3), optional, None)
    assert fitted_table(HEADER, rows, (1, 2, 3), optional, 62)[-1] == "Nothing in: LOST."
    assert (
        fitted_table(HEADER, rows, (1, 2, 3), optional, 50)[-1]
        == "No room for: LAST BATCH; nothing in: LOST."
    )
    lost = [[*rows[0][:3], "7", rows[0][4]]]
    assert fitted_table(HEADER, lost, (1, 2, 3), optional, 62)[-1] == "No room for: LAST BATCH."


def test_a_sentence_is_folded_at_words_on_a_narrow_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Nothing was changed, for this was a plan.\n  Add --yes to mend what was found of all topics."
    monkeypatch.setattr(output, "terminal_width", lambda stream: 30 if stream is sys.stderr else None)
    output.say(text)
    output.say(text, err=True)
    told = capsys.readouterr()
    assert told.out == f"{text}\n"
    assert max(map(len, told.err.splitlines())) <= 30
    assert told.err.split() == text.split()


def test_a_command_that_is_folded_can_be_copied() -> None:
    line = "  hop-archive run -H hop-local -D local-db -S local-store -T gcn.notices --memory 200"
    assert folded_line(line, 60) == [
        "  hop-archive run -H hop-local -D local-db -S local-store \\",
        "      -T gcn.notices --memory 200",
    ]


def test_the_second_field_of_a_list_goes_on_under_itself() -> None:
    assert folded_line("  lag   offsets that Kafka holds and nobody dealt with", 40) == [
        "  lag   offsets that Kafka holds and",
        "        nobody dealt with",
    ]


def test_of_several_fields_the_last_one_goes_on_under_itself() -> None:
    assert folded_line("ok  source  topic ids  given: a topic made anew is noticed", 40) == [
        "ok  source  topic ids  given: a topic",
        "                       made anew is",
        "                       noticed",
    ]


def test_what_a_field_was_broken_off_from_is_filled_with_it() -> None:
    lines = ["  kind   a topic that may be seen and not read; or", "         one that is gone"]
    assert folded_text(lines, 40) == [
        "  kind   a topic that may be seen and",
        "         not read; or one that is gone",
    ]


def test_a_sentence_that_begins_with_a_command_is_prose() -> None:
    assert folded_line("hop-archive verify finds them and hop-archive repair mends them", 40) == [
        "hop-archive verify finds them and",
        "hop-archive repair mends them",
    ]


def test_prose_that_does_not_fit_is_filled_and_lists_below_it_stay() -> None:
    lines = ["one two three four five six", "seven eight:", "  a  first", "  b  second"]
    assert folded_text(lines, 20) == [
        "one two three four",
        "five six seven",
        "eight:",
        "  a  first",
        "  b  second",
    ]
    assert folded_text(lines, 80) == lines


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_command_does_is_said_on_one_line_of_eighty(name: str) -> None:
    told = COMMANDS[name][1]
    assert told.endswith(".")
    assert 2 + max(map(len, COMMANDS)) + 2 + len(told) <= 78


def test_every_command_is_in_one_group() -> None:
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(COMMANDS)
