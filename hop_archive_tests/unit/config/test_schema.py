"""The schema that editors complete ``hop_archive.toml`` by: it takes what is taken, and knows every key."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

import hop_archive
from hop_archive.config.schema import SCHEMA_URL, schema
from hop_archive.config.stanzas import TYPES
from hop_archive_tests.cli_helpers import invoke

DOCS = Path(hop_archive.__file__).parents[1] / "docs"
SHIPPED = resources.files("hop_archive.config").joinpath("stanzas.toml").read_text()
EXAMPLES = [
    example
    for page in ("configuration.md", "adopting.md")
    for example in re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
]
STANZAS = [(f"{kind}-{name}", model) for kind, types in TYPES.items() for name, model in types.items()]


def complaints(text: str) -> list[str]:
    """What the schema has against a file."""
    return [error.message for error in Draft7Validator(schema()).iter_errors(tomllib.loads(text))]


def test_the_published_schema_is_that_of_today() -> None:
    published = DOCS / SCHEMA_URL.rpartition("/")[2]
    assert published.read_text() == invoke("schema").stdout, "run: make docs"
    Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("text", [SHIPPED, *EXAMPLES])
def test_what_is_taken_is_right_by_the_schema(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[sources.a]\ntype = 'mock'",
        "[source.a]\ntype = 'mok'",
        "[source.a]\nsamples = 3",
        "[source.a]\ntype = 'mock'\nsample = 3",
        "[source.a]\ntype = 'mock'\nsamples = -1",
        "[source.a]\ntype = 'mock'\nsamples = 'many'",
        "[store.a]\ntype = 's3'\nbucket = 'b'\nlayout = 'heap'",
    ],
)
def test_what_is_refused_for_its_keys_types_or_choices_is_wrong_by_the_schema(text: str) -> None:
    assert complaints(text)


@pytest.mark.parametrize(("name", "model"), STANZAS, ids=[name for name, _ in STANZAS])
def test_each_key_is_there_and_says_what_it_means(name: str, model: Any) -> None:
    properties = schema()["definitions"][name]["properties"]
    assert properties.keys() == {info.alias or key for key, info in model.model_fields.items()}
    assert [key for key, value in properties.items() if not value.get("description")] == []


def test_no_secret_is_in_it() -> None:
    assert "**" not in json.dumps(schema())
