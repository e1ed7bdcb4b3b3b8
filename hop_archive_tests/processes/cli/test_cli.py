"""The command line as a whole, in a process of its own: that it runs, and what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hop_archive_tests.cli_helpers import environment, place, program

__all__ = ["place"]


HEAVY = (
    "confluent_kafka",
    "psycopg",
    "obstore",
    "dagster",
    "rich",
    "alembic",
    "sqlalchemy",
    "boto3",
    "pyarrow",
)


def test_help_loads_none_of_what_commands_need() -> None:
    assert loaded_by("--help").isdisjoint({*HEAVY, "pydantic", "bson"})


def test_listing_stanzas_loads_no_client_of_a_server() -> None:
    assert loaded_by("list").isdisjoint(HEAVY)


def loaded_by(*args: str) -> set[str]:
    code = f"""
import json, sys
from hop_archive.cli import cli
cli({args!r}, standalone_mode=False)
print("\\n" + json.dumps(list(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_the_program_runs_as_a_module(place: Path) -> None:
    ran = program("list", cwd=place)
    assert ran.returncode == 0
    assert "mock-hop" in ran.stdout
