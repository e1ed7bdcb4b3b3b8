"""``docs/configuration.md`` explains every key of every stanza, and what is shipped."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

import hop_archive
from hop_archive.config.load import load, parse
from hop_archive.config.stanzas import TYPES

PAGE = Path(hop_archive.__file__).parents[1] / "docs" / "configuration.md"
STANZAS = [(kind, name, model) for kind, types in TYPES.items() for name, model in types.items()]


def chapter(kind: str) -> str:
    """The part of the page about one kind of stanza."""
    found = re.search(rf"^## {kind.capitalize()}s\n(.*?)(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize(("kind", "name", "model"), STANZAS, ids=lambda given: str(given))
def test_each_key_is_explained(kind: str, name: str, model: type) -> None:
    fields = model.model_fields  # type: ignore[attr-defined]  # a table of several models, which mypy joins to type
    keys = [info.alias or key for key, info in fields.items()]
    assert [key for key in keys if key != "type" and f"`{key}`" not in chapter(kind)] == []
    assert f'`type = "{name}"`' in chapter(kind)


def test_each_shipped_stanza_is_named() -> None:
    shipped, page = load(environ={}), PAGE.read_text()
    names = [*shipped.sources, *shipped.databases, *shipped.stores, *shipped.logs]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_each_variable_of_the_shipped_stanzas_is_named() -> None:
    text = resources.files("hop_archive").joinpath("config/stanzas.toml").read_text()
    variables = {name.replace("_DEV_", "_PROD_") for name in re.findall(r"HOP_ARCHIVE_\w+[A-Z]", text)}
    variables = {name for name in variables if not name.startswith("HOP_ARCHIVE_LOCAL_")}
    assert [name for name in sorted(variables) if f"`{name}`" not in PAGE.read_text()] == []


@pytest.mark.parametrize(
    ("page", "databases"), [("configuration.md", {"my-db"}), ("adopting.md", {"their-db"})]
)
def test_the_example_is_a_configuration(page: str, databases: set[str]) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.with_name(page).read_text(), re.DOTALL)
    assert set(parse(example).databases) == databases
