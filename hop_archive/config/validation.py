"""What is wrong with a stanza's table, in the words of the file's writer. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

AnyModel = TypeVar("AnyModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Context:
    """What a stanza cannot know from its own table."""

    name: str = ""
    label: str = ""
    hidden: frozenset[str] = frozenset()  # keys whose values came from the environment: never shown
    resolved: bool = False


def made(model: type[AnyModel], table: dict[str, object], context: Context) -> AnyModel | list[str]:
    """Return the stanza, or what is wrong with its table, one text a problem."""
    try:
        return model.model_validate(table, context=context)
    except ValidationError as error:
        reporter = _Reporter(model, context)
        return [reporter.problem(details) for details in error.errors(include_url=False)]


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "finite_number": "a finite number",
}

# What people call secrets. Their own error, because the remedy is not another spelling.
_SECRET_KEY = re.compile(r"passw|passphrase|secret|token|credential|(access|api|private)_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Says what pydantic found in the words of the file's writer."""

    model: type[BaseModel]
    context: Context

    NEVER_SHOWN: ClassVar[frozenset[str]] = frozenset({"url", "urls", "ping_url", "token_endpoint"})

    def problem(self, details: ErrorDetails) -> str:
        if not details["loc"]:
            return f"{self.context.label}: {self._wanted(details)}"
        first, *rest = (part for part in details["loc"] if part != "[key]")
        key = str(first) + "".join(f"[{part if isinstance(part, int) else shown(part)}]" for part in rest)
        return f"{self.context.label} {key}: {self._about_key(details)}"

    def _about_key(self, details: ErrorDetails) -> str:
        key = str(details["loc"][0])
        if details["type"] == "missing":
            return "wanted, and not there"
        if details["type"] == "extra_forbidden":
            if not _SECRET_KEY.search(key) or key.endswith("_env"):
                return f"unknown key{suggestion(key, self._known())}"
            names = [known for known in self._known() if known.endswith("_env") and known != "username_env"]
            remedy = "this type of stanza uses none, so remove the key"
            if names:
                nearest = difflib.get_close_matches(f"{key}_env", names, n=1) or names
                remedy = f"name the environment variable that holds it with {' or '.join(nearest)}"
            return f"secrets are not kept in TOML; {remedy}"
        wanted, found = self._wanted(details), ""
        if wanted.startswith("wanted") and key in self.context.hidden:
            found = ", found something else in the environment (not shown)"
        elif wanted.startswith("wanted") and (key in self.NEVER_SHOWN or key.endswith("_env")):
            found = ", found something else (not shown: it may be a secret)"
        elif wanted.startswith("wanted"):
            found = f", found {shown(details['input'])}"
        # An unquoted ``a.b = ...`` makes a table where a value was wanted.
        inside = len(details["loc"]) > 1 and isinstance(details["input"], dict)
        return f"{wanted}{found}{' (a key that holds a dot has to be quoted)' if inside else ''}"

    def _known(self) -> list[str]:
        return [info.alias or name for name, info in self.model.model_fields.items()]

    def _wanted(self, details: ErrorDetails) -> str:
        """Name what was wanted; ``ctx`` holds bounds, alternatives, and the errors that our own checks raise."""
        facts = details.get("ctx", {})
        match details["type"]:
            case "value_error":
                return str(facts["error"])
            case "literal_error":
                return f"wanted {facts['expected']}"
            case "greater_than_equal":
                return f"wanted at least {facts['ge']:.15g}"
            case "greater_than":
                return f"wanted more than {facts['gt']:.15g}"
            case "less_than_equal":
                return f"wanted at most {facts['le']:.15g}"
        return f"wanted {_WANTED[details['type']]}" if details["type"] in _WANTED else details["msg"]


def shown(value: object) -> str:
    """Write a value as its file does, short."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def suggestion(name: str, known: list[str]) -> str:
    """Name the nearest known one, or all of them; to be added to a complaint."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; nearest known: {nearest[0]}" if nearest else f"; known: {', '.join(known)}"


def alternatives(names: Iterable[str]) -> str:
    """Write names as choices."""
    return " or ".join(shown(name) for name in names)
