"""Files as messages: which files, their bytes untouched, and headers that say what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hop_archive.devkit.alert_values import alert_value
from hop_archive.devkit.file_messages import (
    files,
    guessed_format,
    message,
    messages,
    refuse_large,
    without_large,
)
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.annotations import annotate

NOW_MS = 1_790_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("b.json", "a.xml", "deep/er/c.avro", ".hidden", ".git/config"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_folder_means_all_files_below_it_in_order_but_for_hidden_ones(folder: Path) -> None:
    assert [str(one.relative_to(folder)) for one in files([folder])] == ["a.xml", "b.json", "deep/er/c.avro"]


def test_a_file_that_is_named_is_taken_hidden_or_not(folder: Path) -> None:
    assert files([folder / ".hidden", folder / "b.json"]) == [folder / ".hidden", folder / "b.json"]


def test_what_is_no_regular_file_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "deep" / "pipe")
    assert len(files([folder / "deep"])) == 1


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_file_at_all_is_an_error_that_names_the_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingSettingError, match=name):
        files([tmp_path / name])


def test_large_files_are_told_apart_and_named(folder: Path) -> None:
    (folder / "big.bin").write_bytes(bytes(101))
    (folder / "fits.bin").write_bytes(bytes(100))
    fitting, large = without_large(files([folder]), 100)
    assert large == [folder / "big.bin"]
    assert folder / "fits.bin" in fitting
    refuse_large([], 100)
    with pytest.raises(ConfigurationError, match=r"big\.bin \(101 bytes\)\. Nothing was sent\."):
        refuse_large(large, 100)


def test_of_many_large_files_some_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.bin").write_bytes(b"xx")
    with pytest.raises(ConfigurationError, match="and 7 more"):
        refuse_large(files([tmp_path]), 1)


def test_the_bytes_are_the_value(tmp_path: Path) -> None:
    value = bytes(range(256)) * 3
    (tmp_path / "any.bin").write_bytes(value)
    made = message(tmp_path / "any.bin", "t", seed=0)
    assert (made.topic, made.value, made.key, made.timestamp_ms) == ("t", value, None, None)


def test_headers_say_title_name_and_format(tmp_path: Path) -> None:
    path = tmp_path / "Größe 7.xml"
    path.write_bytes(alert_value("voevent", seed="1", timestamp_ms=NOW_MS))
    made = message(path, "t", seed=0)
    found = annotate(made.headers, made.value)
    assert (found.title, found.file_name, found.media_type) == (
        "Größe 7",
        "Größe 7.xml",
        "application/x.voevent",
    )
    assert found.sender


def test_an_id_is_of_the_seed_the_path_and_the_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")

    def own(name: str, seed: int) -> bytes | None:
        return dict(message(tmp_path / name, "t", seed=seed).headers)["_id"]

    first = own("a", 0)
    assert first is not None
    assert len(first) == 16
    assert own("a", 0) == first
    others = {own("b", 0), own("a", 1)}
    (tmp_path / "a").write_bytes(b"emas")
    assert len({first, *others, own("a", 0)}) == 4


def test_a_file_is_read_when_its_turn_comes_and_named_when_that_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    made = messages([tmp_path / "a", tmp_path / "b"], "t", seed=0)
    assert next(made).value == b"x"
    with pytest.raises(ConfigurationError, match="/b cannot be read: No such file"):
        next(made)


FORMATS = {
    "voevent": b"voevent",
    "gcn-text": b"gcntextnotice",
    "circular": b"circular",
    "gcn-json": b"json",
    "avro": b"avro",
    "external": b"external",
    "gcn-binary": b"blob",
    "blob": b"blob",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_format_of_ordinary_alerts_is_told_from_their_content(kind: str) -> None:
    assert guessed_format(alert_value(kind, seed="1", timestamp_ms=NOW_MS)) == FORMATS[kind]


@pytest.mark.parametrize(
    "value",
    [b"", b"<html/>", b'{"a": ', b"[" * 100_000, '{"a": 1}'.encode("utf-16"), b"plain text", b"\xff\xfe"],
    ids=["empty", "other XML", "broken JSON", "deep JSON", "UTF-16", "text", "bytes"],
)
def test_what_fits_no_format_is_a_blob(value: bytes) -> None:
    assert guessed_format(value) == b"blob"


def test_json_is_what_python_reads() -> None:
    assert guessed_format(b' {"x": NaN}') == b"json"
    assert guessed_format(b"[]") == b"json"
    assert guessed_format(json.dumps({"header": {}, "body": "", "more": 1}).encode()) == b"json"
