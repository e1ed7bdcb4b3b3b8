"""The JSON schema of ``hop_archive.toml``, made of the stanzas: editors complete keys by it, and show what each means.

It has the keys, their types and choices, bounds and descriptions. What only a check of the whole stanza knows (which keys
go together, whether a pattern is one) is told when the file is read.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from hop_archive.config.stanzas import TYPES, Stanza

SCHEMA_URL = "https://raw.githubusercontent.com/scimma/hop-archive/main/docs/hop_archive.schema.json"
"""Where the schema of the newest version is: for a first line ``#:schema URL`` of a file."""

_ATTRIBUTE = re.compile(r"^(?P<key>\w+): (?P<meaning>.*(?:\n +.*)*)", re.MULTILINE)


class _Schema(GenerateJsonSchema):
    """As taplo and VS Code read it: draft 7."""

    schema_dialect = "http://json-schema.org/draft-07/schema#"


def schema() -> dict[str, Any]:
    """Return the schema of a file. Pure."""
    stanzas: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for kind, types in TYPES.items():
        for type_name, model in types.items():
            stanzas[f"{kind}-{type_name}"] = _of(model)
        ways = [{"$ref": f"#/definitions/{kind}-{type_name}"} for type_name in types]
        properties[kind] = {
            "description": f"Stanzas [{kind}.NAME], one a table.",
            "type": "object",
            "additionalProperties": ways[0] if len(ways) == 1 else {"oneOf": ways},
        }
    return {
        "$schema": _Schema.schema_dialect,
        "$id": SCHEMA_URL,
        "title": "hop_archive.toml",
        "description": "What hop_archive archives, from where to where. docs/configuration.md explains every key.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "definitions": stanzas,
    }


def _of(model: type[Stanza]) -> dict[str, Any]:
    """One type of stanza, with no definitions of its own."""
    found = model.model_json_schema(schema_generator=_Schema, ref_template="#/definitions/{model}")
    assert "$defs" not in found, "a stanza is flat"
    told = meanings(model)
    names = {info.alias or name: name for name, info in model.model_fields.items()}
    properties = {}
    for key, value in found["properties"].items():
        is_secret = value.get("format") == "password"
        hidden = {"title", "format", "writeOnly", *(("default",) if is_secret else ())}
        if "items" in value:
            value["items"] = {name: said for name, said in value["items"].items() if name not in hidden}
        kept = {name: said for name, said in value.items() if name not in hidden}
        properties[key] = {"description": told[names[key]], **kept} if names[key] in told else kept
    properties["type"] = {"description": "What it is.", "const": properties["type"]["const"]}
    required = ["type", *(key for key in found.get("required", ()) if key != "type")]
    return {
        "description": inspect.cleandoc(model.__doc__ or "")
        .partition("\n\nAttributes:")[0]
        .replace("``", "`"),
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": {"type": properties.pop("type"), **properties},
    }


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What each attribute means, as the docstrings of the class and of those that it is made of say."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if part is BaseModel or not issubclass(part, BaseModel):
            continue
        _, _, attributes = inspect.cleandoc(part.__doc__ or "").partition("Attributes:\n")
        for line in _ATTRIBUTE.finditer(inspect.cleandoc(attributes)):
            found[line["key"]] = re.sub(r"\s+", " ", line["meaning"]).replace("``", "`").strip()
    return found
