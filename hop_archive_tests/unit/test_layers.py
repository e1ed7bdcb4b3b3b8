"""The rooms of the package, and which may import from which: arrows point one way.

Every import counts, wherever in a file it stands: one that is put off, or is for type checkers only, is an arrow too.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import PackageNotFoundError, packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import hop_archive
from hop_archive_tests.installed import installed_with

ROOT = Path(hop_archive.__file__).parent
BASIS = {"errors", "model"}
ADAPTERS = {"source", "catalog", "store"}
USE_CASES = {"ingest", "read", "upkeep", "recover"}
TARGETS = {
    "hop_archive": {"config", "read"},  # hop_archive.open
    "errors": set[str](),
    "model": {"errors"},
    "shared_state": {"errors"},
    "source": BASIS | {"shared_state"},
    "catalog": BASIS | {"shared_state"},
    "store": BASIS | {"shared_state"},
    "archive": BASIS | ADAPTERS,
    "config": BASIS | ADAPTERS | {"archive"},
    "ingest": BASIS | ADAPTERS | {"archive", "read"},
    "read": BASIS | ADAPTERS | {"archive", "ingest"},
    "upkeep": BASIS | ADAPTERS | {"archive", "ingest", "read"},
    "recover": BASIS | ADAPTERS | {"archive", "ingest", "read", "upkeep"},
    "orchestration": BASIS | ADAPTERS | USE_CASES | {"archive", "config", "shared_state", "devkit"},
    "cli": BASIS | ADAPTERS | USE_CASES | {"archive", "config", "devkit"},
    "devkit": BASIS | ADAPTERS | USE_CASES | {"archive", "config", "orchestration", "cli"},
}
"""What each room may import from, beside itself. Whoever adds a room draws its arrows here, and in docs/architecture.md."""
PROTOCOLS = {
    "hop_archive.source.protocol",
    "hop_archive.catalog.checked",
    "hop_archive.catalog.compaction",
    "hop_archive.catalog.protocol",
    "hop_archive.catalog.records",
    "hop_archive.catalog.stored",
    "hop_archive.store.protocol",
    "hop_archive.store.free_keys",
}
"""What use cases know of sources, catalogs and stores."""
DOOR = {"hop_archive.orchestration.resources": {"hop_archive.devkit.sampling"}}
"""Through it production gets sample alerts, for its mock source."""
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
ZSTD = {"backports", "compression"}
"""Packages one of which, by Python's version, brings zstd: the standard library has it from 3.14 on."""
OF_EXTRAS = {
    "hop_archive.cli.kube_logs": ("kubernetes",),
    "hop_archive.config.apprise": ("monitoring",),
    "hop_archive.config.aws.msk": ("msk",),
    "hop_archive.devkit": ("dagster", "kafka", "local"),
    "hop_archive.orchestration": ("dagster",),
    "hop_archive.read.browse": ("analysis",),
    "hop_archive.source.kafka": ("kafka",),
    "hop_archive.upkeep.monitoring.metrics": ("monitoring",),
}
"""What needs more than the package itself brings: modules, those below them included, and the extras whose packages they import."""


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


def room(module: str) -> str:
    """The room of a module of ours: the first name below the package."""
    return module.split(".")[1] if "." in module else module


def top(module: str) -> str:
    return module.partition(".")[0]


def arrows(*rooms: str) -> Iterator[tuple[str, str]]:
    """What the modules of these rooms import, those of all rooms where none is named."""
    for origin in FILES:
        if not rooms or room(origin) in rooms:
            yield from ((origin, target) for target in sorted(IMPORTS[origin]))


def named(wrong: Iterator[tuple[str, str]]) -> list[str]:
    return [f"{origin} imports {target}" for origin, target in wrong]


def test_every_room_has_its_arrows() -> None:
    assert {room(name) for name in FILES} == TARGETS.keys()


def test_every_module_that_a_rule_names_is_there() -> None:
    assert FILES.keys() >= PROTOCOLS | DOOR.keys() | set().union(*DOOR.values())


@pytest.mark.parametrize("origin", sorted(TARGETS))
def test_a_room_imports_from_the_rooms_that_it_may(origin: str) -> None:
    ours = (a for a in arrows(origin) if a[1] in FILES and a[1] != "hop_archive")
    assert named(a for a in ours if room(a[1]) not in TARGETS[origin] | {origin}) == []


def test_use_cases_know_of_source_catalog_and_store_what_their_protocols_say() -> None:
    wrong = (a for a in arrows(*USE_CASES, "archive") if room(a[1]) in ADAPTERS and a[1] in FILES)
    assert named(a for a in wrong if a[1] not in PROTOCOLS) == []


def test_protocols_import_each_other_and_the_model_only() -> None:
    for name in sorted(PROTOCOLS):
        ours = {target for target in IMPORTS[name] if target in FILES and room(target) not in BASIS}
        assert ours <= PROTOCOLS, name
        assert {top(t) for t in IMPORTS[name]} <= sys.stdlib_module_names | {"hop_archive"}, name


def test_the_model_is_pure() -> None:
    foreign = (a for a in arrows("model") if top(a[1]) not in sys.stdlib_module_names | {"hop_archive"})
    assert named(a for a in foreign if top(a[1]) not in ZSTD | {"bson", "pydantic", "zlib_ng"}) == []


def test_only_orchestration_and_the_demo_import_dagster() -> None:
    wrong = (a for a in arrows() if top(a[1]).startswith("dagster") and room(a[0]) != "orchestration")
    assert named(a for a in wrong if a[0] != "hop_archive.devkit.demo") == []


def test_production_opens_the_devkit_through_one_door() -> None:
    wrong = (a for a in arrows("orchestration") if room(a[1]) == "devkit")
    assert named(a for a in wrong if a[1] not in DOOR.get(a[0], set())) == []


def test_use_cases_import_no_client_of_a_server() -> None:
    assert named(a for a in arrows(*USE_CASES) if top(a[1]) in CLIENTS) == []


def test_only_migrations_speak_sqlalchemy_and_alembic() -> None:
    wrong = (a for a in arrows() if top(a[1]) in {"alembic", "sqlalchemy"})
    assert named(a for a in wrong if ".postgres.migrat" not in a[0]) == []


def test_what_is_imported_is_installed_with_the_package_or_with_the_extra_that_the_module_is_of() -> None:
    names = packages_distributions()
    try:
        for extras in OF_EXTRAS.values():
            installed_with(*extras)
    except PackageNotFoundError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{missing.name} is not installed: make setup")

    def is_brought(origin: str, target: str) -> bool:
        extras = next((of for prefix, of in OF_EXTRAS.items() if f"{origin}.".startswith(f"{prefix}.")), ())
        return not installed_with(*extras).isdisjoint(map(canonicalize_name, names.get(top(target), ())))

    ours = sys.stdlib_module_names | {
        "hop_archive",
        "backports" if sys.version_info >= (3, 14) else "compression",
    }
    assert named(a for a in arrows() if top(a[1]) not in ours and not is_brought(*a)) == []


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {name: {t for t in targets if t in FILES} for name, targets in IMPORTS.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)
