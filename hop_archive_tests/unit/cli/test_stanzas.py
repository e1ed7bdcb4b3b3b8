"""``hop-archive list``, and what every command says of a configuration that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["place"]

KAFKA = """
[source.k]
type = "kafka"
bootstrap_servers = "${BROKERS_OF_K}"
security = "sasl-plain"
username_env = "USER_OF_K"
password_env = "PASSWORD_OF_K"
"""


def listed(*args: str) -> dict[tuple[str, str], dict[str, Any]]:
    stanzas = json.loads(invoke("list", "--json", *args).stdout)["stanzas"]
    return {(one["kind"], one["name"]): one for one in stanzas}


def test_every_kind_is_listed(place: Path) -> None:
    assert {kind for kind, _ in listed()} == {"source", "database", "store", "log"}


def test_what_nobody_chose_is_the_default(place: Path) -> None:
    chosen = {key: one["selected"] for key, one in listed().items() if one["selected"]}
    assert chosen == {
        ("source", "mock-hop"): "default",
        ("database", "mock-db"): "default",
        ("store", "mock-store"): "default",
        ("log", "default"): "default",
    }


def test_a_choice_says_who_made_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_STORE", "mock-segments")
    found = listed("-H", "hop-dev")
    assert found["source", "hop-dev"]["selected"] == "option"
    assert found["store", "mock-segments"]["selected"] == "environment"
    text = invoke("list", "-H", "hop-dev").stdout
    assert "source hop-dev: chosen by option" in text
    assert "store mock-segments: chosen by the environment" in text


def test_a_stanza_says_which_variables_it_lacks_all_of_them(place: Path) -> None:
    toml(place, KAFKA)
    assert listed()["source", "k"]["missing"] == ["BROKERS_OF_K", "USER_OF_K", "PASSWORD_OF_K"]
    assert "needs BROKERS_OF_K, USER_OF_K, PASSWORD_OF_K" in invoke("list").stdout


def test_a_stanza_says_where_it_leads_once_its_variables_are_set(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(place, KAFKA)
    for name, value in (("BROKERS_OF_K", "h:1"), ("USER_OF_K", "me"), ("PASSWORD_OF_K", "sesame-open")):
        monkeypatch.setenv(name, value)
    found = listed()["source", "k"]
    assert (found["address"], found["missing"]) == ("Kafka at h:1", [])
    assert "sesame" not in invoke("list").output


def test_a_variable_that_holds_nonsense_is_told_and_the_rest_is_listed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(place, KAFKA)
    monkeypatch.setenv("BROKERS_OF_K", "no port")
    found = listed()
    assert "bootstrap_servers" in found["source", "k"]["problem"]
    assert ("source", "mock-hop") in found


def test_a_stanza_says_which_file_it_came_from(place: Path) -> None:
    toml(place, KAFKA)
    found = listed()
    assert found["source", "k"]["file"] == "hop_archive.toml"
    assert found["source", "mock-hop"]["file"] == "stanzas.toml (shipped)"


@pytest.mark.parametrize("command", ["run", "status", "list", "migrate"])
def test_a_stanza_that_is_not_there_is_named_with_the_nearest(command: str, place: Path) -> None:
    result = invoke(command, "-D", "mock_db")
    assert result.exit_code == 2
    assert result.stderr.startswith('Error: There is no database stanza named "mock_db". Nearest: mock-db')


@pytest.mark.parametrize("command", ["run", "status", "list", "migrate"])
def test_every_mistake_of_a_file_is_told_at_once(command: str, place: Path) -> None:
    path = place / "mine.toml"
    path.write_text('[source.a]\ntype = "mock"\nsampels = 1\n[store.b]\ntype = "tape"\n')
    result = invoke(command, "-t", str(path))
    assert result.exit_code == 2
    assert "sampels" in result.stderr
    assert "tape" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_there_is_an_error(place: Path) -> None:
    result = invoke("list", "-t", "absent.toml")
    assert result.exit_code == 2
    assert "absent.toml" in result.stderr


def test_a_variable_that_is_missing_ends_a_command_that_needs_it(place: Path) -> None:
    result = invoke("run", "-H", "hop-local")
    assert result.exit_code == 2
    assert "HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS is not set" in result.stderr


def test_migrating_a_mock_is_refused_kindly(place: Path) -> None:
    result = invoke("migrate")
    assert result.exit_code == 2
    assert "mock-db" in result.stderr
    assert "needs no migration" in result.stderr


def test_migrating_wants_neither_source_nor_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_SOURCE", "not-written-yet")
    monkeypatch.setenv("HOP_ARCHIVE_STORE", "not-written-yet")
    result = invoke("migrate", "-D", "mock-db")
    assert "Database mock-db is a mock in memory, which needs no migration" in result.stderr
    assert "not-written-yet" in invoke("migrate", "-D", "mock-db", "-H", "not-written-yet").stderr
