"""Imports point one way: orchestration and cli → use cases → protocols and pure modules.

Every import counts, wherever in a file it stands: one that is put off, or is for type checkers only, is an
arrow too. A module that is named nowhere here is a use case, which may import least of what is not pure.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hop_archive

ROOT = Path(hop_archive.__file__).parent
ERRORS = "hop_archive.errors"
PURE = {
    f"hop_archive.{name}"
    for name in (
        "annotations",
        "checking",
        "conditions",
        "document",
        "errors",
        "faults",
        "findings",
        "generations",
        "identity",
        "message",
        "moments",
        "objects",
        "planning",
        "reading",
        "selecting",
        "slices",
        "topics",
        "wording",
    )
} | {"hop_archive.catalog.records"}
ADAPTERS = ("hop_archive.catalog", "hop_archive.source", "hop_archive.store")
# Parts of a protocol stand in files of their own.
PROTOCOLS = {
    f"{adapter}.{path.stem}"
    for adapter in ADAPTERS
    for path in (ROOT.parent / adapter.replace(".", "/")).glob("*protocol.py")
}
# What makes sources, catalogs, stores and logs of stanzas; no use case may ask for these by itself.
OPENERS = {f"hop_archive.{name}" for name in ("configuration", "logs", "opening", "sampling")}
# What those and the adapters stand on.
FITTINGS = OPENERS | {"hop_archive.credentials", "hop_archive.plain_files", "hop_archive.shared_state"}
OUTER = ("hop_archive.cli", "hop_archive.orchestration")
LOCAL = "hop_archive.local"
AWS = "hop_archive.aws"  # a fitting too, and the only one that is a package
CLIENTS = {
    "alembic",
    "boto3",
    "botocore",
    "confluent_kafka",
    "obstore",
    "psycopg",
    "psycopg_pool",
    "sqlalchemy",
}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports; of our own, those that a ``from`` import means, not their package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            source = node.module or ""
            named = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else source for name in named)


IMPORTS = {name: set(imported(path)) for name, path in FILES.items()}
USE_CASES = {
    name
    for name in FILES
    if name != "hop_archive"
    and name not in PURE | FITTINGS
    and not within(name, *ADAPTERS, *OUTER, LOCAL, AWS)
}


def arrows(origins: set[str]) -> Iterator[tuple[str, str]]:
    yield from ((origin, target) for origin in sorted(origins) for target in sorted(IMPORTS[origin]))


def ours(*packages: str) -> set[str]:
    return {name for name in FILES if within(name, *packages)}


def top(module: str) -> str:
    return module.partition(".")[0]


def named(wrong: Iterator[tuple[str, str]]) -> list[str]:
    return [f"{origin} imports {target}" for origin, target in wrong]


def test_every_module_that_a_rule_names_is_there() -> None:
    assert FILES.keys() >= PURE | PROTOCOLS | {*ADAPTERS}


def test_the_use_cases_are_found() -> None:
    assert {"hop_archive.archiving", "hop_archive.surveying", "hop_archive.following"} <= USE_CASES


def test_only_orchestration_imports_dagster() -> None:
    inner = FILES.keys() - ours("hop_archive.orchestration")
    assert named(a for a in arrows(inner) if top(a[1]).startswith("dagster")) == []


@pytest.mark.parametrize("outer", OUTER)
def test_nothing_imports_the_outermost_layers_but_themselves(outer: str) -> None:
    inner = FILES.keys() - ours(outer)
    assert named(a for a in arrows(inner) if within(a[1], outer)) == []


def test_pure_modules_import_pure_modules_protocols_and_bson_only() -> None:
    allowed = PURE | PROTOCOLS
    foreign = (a for a in arrows(PURE) if top(a[1]) not in sys.stdlib_module_names | {"bson"})
    assert named(a for a in foreign if a[1] not in allowed) == []


def test_protocols_import_pure_modules_and_parts_of_protocols_only() -> None:
    foreign = (a for a in arrows(PROTOCOLS) if top(a[1]) not in sys.stdlib_module_names)
    assert named(a for a in foreign if a[1] not in PURE | PROTOCOLS) == []


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_source_catalog_and_store_import_no_use_case_and_not_each_other(adapter: str) -> None:
    others = [other for other in ADAPTERS if other != adapter]
    inward = arrows(ours(adapter))
    wrong = (
        a for a in inward if a[1] in USE_CASES or within(a[1], *others, *OUTER, LOCAL, "hop_archive.opening")
    )
    assert named(wrong) == []


def test_use_cases_are_given_their_source_catalog_and_store() -> None:
    wrong = (a for a in arrows(USE_CASES) if within(a[1], *ADAPTERS) and a[1] not in PROTOCOLS)
    assert named(wrong) == []


def test_use_cases_open_nothing_from_stanzas() -> None:
    assert named(a for a in arrows(USE_CASES) if a[1] in OPENERS) == []


def test_use_cases_import_no_client_of_a_server() -> None:
    assert named(a for a in arrows(USE_CASES) if top(a[1]) in CLIENTS) == []


def test_only_migrations_speak_sqlalchemy_and_alembic() -> None:
    others = FILES.keys() - ours("hop_archive.catalog.migrations", "hop_archive.catalog.migrate")
    assert named(a for a in arrows(others) if top(a[1]) in {"alembic", "sqlalchemy"}) == []


def test_the_local_stack_imports_no_use_case() -> None:
    assert named(a for a in arrows(ours(LOCAL)) if a[1] in USE_CASES) == []


def test_errors_depend_on_nothing_of_ours() -> None:
    assert named(a for a in arrows({ERRORS}) if within(a[1], "hop_archive")) == []


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {name: {t for t in targets if t in FILES} for name, targets in IMPORTS.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)
