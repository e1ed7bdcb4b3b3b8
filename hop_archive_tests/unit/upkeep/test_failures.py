"""What becomes of topics, messages or partitions with which something failed."""

from __future__ import annotations

import pytest

from hop_archive.errors import CorruptError, ForbiddenError
from hop_archive.upkeep.failures import Failures


def test_a_fault_of_this_program_does_not_hide_the_other_topics_that_failed() -> None:
    failures = Failures()
    for topic, error in {
        "first": CorruptError("It is damaged."),
        "second": ZeroDivisionError("of ours"),
    }.items():
        with failures.of(topic, lambda: None):
            raise error
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as found:
            failures.raise_any()
    assert found.value.__notes__ == [
        "first could not be rebuilt: It is damaged.",
        "second could not be rebuilt: of ours",
    ]


def test_a_fault_of_this_program_does_not_hide_what_could_not_be_deleted() -> None:
    failures = Failures()
    failures.take("first", ZeroDivisionError("of ours"))
    failures.besides = ForbiddenError("1 object could not be deleted.")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as found:
            failures.raise_any()
    assert found.value.__notes__ == [
        "first could not be rebuilt: of ours",
        "1 object could not be deleted.",
    ]


def test_what_failed_is_known_from_what_else_ended_the_work() -> None:
    failures = Failures()
    for topic in ("first", "second"):
        with failures.of(topic, lambda: None):
            raise CorruptError("It is damaged.")
    assert failures.raised is None
    with pytest.raises(CorruptError) as found:
        failures.raise_any()
    assert failures.raised is found.value
