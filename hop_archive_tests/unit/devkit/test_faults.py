from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import UnavailableError


class Shelf:
    """Something to wrap: keeps what is put on it."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.closed = False
        self.label = "shelf"

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *details: object) -> None:
        self.closed = True

    def put(self, thing: str, *, times: int = 1) -> int:
        self.kept += [thing] * times
        return len(self.kept)

    def put_all(self, things: list[str]) -> int:
        self.kept += things
        return len(things)

    def things(self) -> Iterator[str]:
        yield from self.kept

    def reader(self) -> Shelf:
        return Shelf()


def wrapped(*script: Fault) -> tuple[Shelf, Shelf, Faults]:
    """What stands behind, the same with faults around it, and the faults."""
    shelf, faults = Shelf(), Faults(script)
    return shelf, faults.wrap(shelf, "shelf"), faults


def test_without_a_script_everything_passes_and_is_counted() -> None:
    behind, shelf, faults = wrapped()
    assert shelf.put("a", times=2) == 2
    assert shelf.label == "shelf"
    assert behind.kept == ["a", "a"]
    assert faults.calls == ["shelf.put"]


def test_a_fault_before_a_call_keeps_it_from_taking_effect() -> None:
    behind, shelf, _ = wrapped(Fault(2, When.BEFORE, fail))
    shelf.put("a")
    with pytest.raises(UnavailableError, match=r"shelf\.put \(call 2, before\)"):
        shelf.put("b")
    shelf.put("c")
    assert behind.kept == ["a", "c"]


def test_a_fault_at_calls_of_a_name_passes_over_others() -> None:
    behind, shelf, _ = wrapped(Fault(2, When.BEFORE, fail, name="shelf.put"))
    shelf.put_all(["a", "b"])
    shelf.put("c")
    shelf.put_all(["d", "e"])
    with pytest.raises(UnavailableError, match=r"shelf\.put \(call 4, before\)"):
        shelf.put("f")
    shelf.put("g")
    assert behind.kept == ["a", "b", "c", "d", "e", "g"]


def test_a_fault_after_a_call_lets_it_take_effect_and_loses_the_answer() -> None:
    behind, shelf, _ = wrapped(Fault(1, When.AFTER, fail))
    with pytest.raises(UnavailableError, match=r"shelf\.put \(call 1, after\)"):
        shelf.put("a")
    assert behind.kept == ["a"]


@pytest.mark.parametrize("act", [fail, crash])
def test_a_fault_in_the_middle_of_many_lets_the_first_of_them_take_effect(act: Callable[[str], None]) -> None:
    behind, shelf, faults = wrapped(Fault(2, When.AFTER, act, items=2))
    assert shelf.put_all(["a"]) == 1
    with pytest.raises((UnavailableError, CrashError), match=r"shelf\.put_all \(call 2, after\)"):
        shelf.put_all(["b", "c", "d"])
    assert shelf.put_all(["e", "f", "g"]) == 3
    assert behind.kept == ["a", "b", "c", "e", "f", "g"]
    assert faults.sizes == [1, 3, 3]


def test_a_fault_in_the_middle_of_few_lets_all_of_them_take_effect() -> None:
    behind, shelf, faults = wrapped(Fault(1, When.AFTER, fail, items=2))
    with pytest.raises(UnavailableError):
        shelf.put("abc")
    assert behind.kept == ["abc"]
    assert faults.sizes == [0]


def test_no_handler_of_exceptions_catches_a_crash() -> None:
    _, shelf, _ = wrapped(Fault(1, When.BEFORE, crash))
    with pytest.raises(CrashError), contextlib.suppress(Exception):
        shelf.put("a")


def test_calls_are_counted_over_all_that_share_the_faults() -> None:
    faults = Faults((Fault(2, When.BEFORE, fail),))
    one, other = faults.wrap(Shelf(), "one"), faults.wrap(Shelf(), "other")
    one.put("a")
    with pytest.raises(UnavailableError, match=r"other\.put"):
        other.put("a")
    assert faults.calls == ["one.put", "other.put"]


def test_two_faults_can_strike_one_run() -> None:
    behind, shelf, _ = wrapped(Fault(1, When.AFTER, fail), Fault(2, When.BEFORE, fail))
    for thing in "ab":
        with pytest.raises(UnavailableError):
            shelf.put(thing)
    assert behind.kept == ["a"]


def test_a_reader_is_wrapped_too() -> None:
    _, shelf, faults = wrapped(Fault(2, When.BEFORE, fail))
    with shelf.reader() as reader, pytest.raises(UnavailableError, match=r"reader\.put"):
        reader.put("a")
    assert faults.calls == ["shelf.reader", "reader.put"]


def test_what_is_iterated_can_fail_at_each_item() -> None:
    behind, shelf, faults = wrapped(Fault(3, When.BEFORE, fail))
    behind.kept = ["a", "b", "c"]
    things = shelf.things()
    assert next(things) == "a"
    with pytest.raises(UnavailableError, match="things item"):
        next(things)
    assert faults.calls == ["shelf.things", "shelf.things item", "shelf.things item"]


def test_an_item_can_be_lost_after_it_was_given() -> None:
    behind, shelf, _ = wrapped(Fault(2, When.AFTER, fail))
    behind.kept = ["a", "b"]
    things = shelf.things()
    assert next(things) == "a"
    with pytest.raises(UnavailableError, match=r"things item \(call 2, after\)"):
        next(things)


def test_a_fault_may_just_delay() -> None:
    waited: list[str] = []
    behind, shelf, _ = wrapped(Fault(1, When.BEFORE, waited.append))
    assert shelf.put("a") == 1
    assert waited == ["shelf.put (call 1, before)"]
    assert behind.kept == ["a"]


def test_leaving_the_context_leaves_what_is_behind() -> None:
    behind, shelf, _ = wrapped()
    with shelf as entered:
        entered.put("a")
    assert behind.closed
    assert behind.kept == ["a"]


@pytest.mark.parametrize("when", When)
def test_every_call_of_a_run_can_be_struck_by_counting_first(when: When) -> None:
    def run(shelf: Shelf) -> None:
        shelf.put("a")
        for thing in shelf.things():
            shelf.put(thing)
            break
        shelf.reader().put("b")

    _, shelf, counted = wrapped()
    run(shelf)
    struck = []
    for number in range(1, len(counted.calls) + 1):
        _, shelf, faults = wrapped(Fault(number, when, crash))
        try:
            run(shelf)
        except CrashError:
            struck.append(faults.calls[number - 1])
    # An item that nobody asks past has no other side.
    sides = [c for c in counted.calls if when is When.BEFORE or not c.endswith("item")]
    assert struck == sides
