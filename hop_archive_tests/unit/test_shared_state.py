from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hop_archive.errors import ConfigurationError
from hop_archive.shared_state import SharedState, own_folder
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject


def half_done() -> Iterator[tuple[str, int]]:
    """Sets one key, then fails, when a dict is updated with it."""
    yield "half", 1
    raise LookupError


@pytest.fixture(params=["memory", "directory"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> SharedState[dict[str, int]]:
    return SharedState(dict, tmp_path if request.param == "directory" else None)


def test_the_value_begins_as_initially_made(state: SharedState[dict[str, int]]) -> None:
    with state.read() as value:
        assert value == {}


def test_what_was_changed_is_read_afterwards(state: SharedState[dict[str, int]]) -> None:
    with state.change() as value:
        value["a"] = 1
    with state.change() as value:
        value["b"] = 2
    with state.read() as value:
        assert value == {"a": 1, "b": 2}


def test_a_block_that_checks_first_and_raises_leaves_the_value(state: SharedState[dict[str, int]]) -> None:
    with pytest.raises(ZeroDivisionError), state.change():
        _ = 1 / 0
    with state.change() as value:
        value["a"] = 1
    with state.read() as value:
        assert value == {"a": 1}


def test_threads_change_one_after_another(state: SharedState[dict[str, int]]) -> None:
    def count_up() -> None:
        for _ in range(25):
            with state.change() as value:
                before = value.get("count", 0)
                time.sleep(0)  # offers the others a turn, which the lock must refuse
                value["count"] = before + 1

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with state.read() as value:
        assert value == {"count": 100}


def test_states_in_memory_are_apart() -> None:
    one, other = SharedState[dict[str, int]](dict), SharedState[dict[str, int]](dict)
    with one.change() as value:
        value["a"] = 1
    with other.read() as value:
        assert value == {}


def test_states_of_one_directory_and_name_are_one_and_of_another_name_apart(tmp_path: Path) -> None:
    with SharedState[dict[str, int]](dict, tmp_path, "store").change() as value:
        value["a"] = 1
    with SharedState[dict[str, int]](dict, tmp_path, "store").read() as value:
        assert value == {"a": 1}
    with SharedState[dict[str, int]](dict, tmp_path, "catalog").read() as value:
        assert value == {}


def test_a_directory_that_is_not_there_is_made(tmp_path: Path) -> None:
    with SharedState[dict[str, int]](dict, tmp_path / "a" / "b").change() as value:
        value["a"] = 1
    with SharedState[dict[str, int]](dict, tmp_path / "a" / "b").read() as value:
        assert value == {"a": 1}


def test_in_a_directory_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    state = SharedState[dict[str, int]](dict, tmp_path)
    with pytest.raises(LookupError), state.change() as value:
        value.update(half_done())
    with state.read() as value:
        assert value == {}


def test_a_value_half_written_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SharedState[dict[str, int]](dict, tmp_path)
    with state.change() as value:
        value["a"] = 1

    def die_while_writing(path: Path, data: bytes) -> int:
        with path.open("wb") as half:
            half.write(data[:5])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", die_while_writing)
        with pytest.raises(KeyboardInterrupt), state.change() as value:
            value["b"] = 2
    with state.change() as value:
        assert value == {"a": 1}


@pytest.mark.parametrize("place", ["/proc/mock", "file", "file/below"])
def test_a_directory_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / place
    state = SharedState[dict[str, int]](dict, directory)
    for opening in (state.read, state.change):
        with pytest.raises(ConfigurationError) as caught, opening():
            pass
        assert f"directory {directory} cannot be used: " in str(caught.value)
        assert "HOP_ARCHIVE_MOCK_DIR" in str(caught.value)


def a_file(path: Path) -> None:
    path.write_text("")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize("put", [a_file, a_link_to_nothing])
def test_what_stands_in_the_place_of_a_folder_is_named(tmp_path: Path, put: Callable[[Path], None]) -> None:
    taken = tmp_path / "mocks"
    put(taken)
    for wanted in (taken, taken / "below"):
        with pytest.raises(OSError, match="stands where a folder is wanted") as caught:
            own_folder(wanted)
        assert caught.value.filename == str(taken)
    with (
        pytest.raises(ConfigurationError, match=r"stands where a folder is wanted.*HOP_ARCHIVE_MOCK_DIR"),
        SharedState[dict[str, int]](dict, taken).read(),
    ):
        pass


def test_what_the_block_itself_cannot_read_is_not_blamed_on_the_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), SharedState[dict[str, int]](dict, tmp_path).change():
        (tmp_path / "nothing").read_bytes()


def test_a_value_that_cannot_be_kept_is_told_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SharedState[dict[str, int]](dict, tmp_path)
    (tmp_path / "state.new").mkdir()
    with pytest.raises(ConfigurationError, match=r"Is a directory \(.*state\.new\)"), state.change() as value:
        value["a"] = 1
    with state.read() as value:
        assert value == {}


def test_a_mock_store_whose_directory_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = MockStore("m", directory=tmp_path / "file", deleting_allowed=True)
    for asked in (
        lambda: store.create([NewObject("a/b", b"")]),
        lambda: list(store.fetch([Extent("a/b")])),
        lambda: store.delete(["a/b"]),
    ):
        with pytest.raises(ConfigurationError, match="HOP_ARCHIVE_MOCK_DIR"):
            asked()


class Ran:
    """Says, when it is made of a pickle, that what it says was run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise AssertionError('a foreign file was run')",)


def test_a_pickle_that_somebody_put_there_is_not_run(tmp_path: Path) -> None:
    state = SharedState[dict[str, int]](dict, tmp_path)
    with state.change() as value:
        value["a"] = 1
    for path in tmp_path.iterdir():
        path.write_bytes(pickle.dumps(Ran()))
        path.with_suffix(".pickle").write_bytes(pickle.dumps(Ran()))
    with pytest.raises(ConfigurationError, match="Remove the directory"), state.read():
        pass


def beside(path: Path) -> None:
    path.with_name("other").mkdir()
    path.symlink_to(path.with_name("other"))


def for_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("planted", [beside, for_all])
def test_a_folder_that_others_can_change_is_refused_with_what_to_do(
    tmp_path: Path, planted: Callable[[Path], None]
) -> None:
    folder = tmp_path / "mocks"
    planted(folder)
    store = MockStore("m", directory=folder, deleting_allowed=True)
    for asked in (
        lambda: SharedState[dict[str, int]](dict, folder).read().__enter__(),
        lambda: store.create([NewObject("a/b", b"")]),
        lambda: list(store.fetch([Extent("a/b")])),
        lambda: list(store.listing()),
        lambda: own_folder(folder),
    ):
        with pytest.raises(ConfigurationError, match="not this user's alone") as caught:
            asked()
        assert str(folder) in str(caught.value)
        assert "chmod 700" in str(caught.value)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder(tmp_path / "mocks")
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="not this user's alone"):
        own_folder(folder)


def test_a_folder_that_is_made_is_for_this_user_only(tmp_path: Path) -> None:
    assert own_folder(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert own_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
