"""``pip install hop-archive`` and nothing else: a wheel in an environment that has neither Dagster nor Kafka's client.

The environment is one for all tests. What they do to archives is read, verified and shown with what the package itself brings.
"""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from hop_archive.devkit.local.stack import LocalStack
from hop_archive_tests.deployment.image import CHECKOUT, VERSION, install
from hop_archive_tests.installed import installed_with

pytestmark = pytest.mark.slow

TOML = """
[source.k]
type = "kafka"
bootstrap_servers = "127.0.0.1:1"
security = "plaintext"
writable = true

[source.m]
type = "mock"
directory = "source"

[database.m]
type = "mock"
directory = "catalog"

[store.m]
type = "mock"
directory = "store"
layout = "segment"
compression = "zstd"
"""
M = ("-D", "m", "-S", "m")


class Light:
    """The environment, and a folder to work in.

    Args:
        venv: The environment.
        directory: The folder.
    """

    def __init__(self, venv: Path, directory: Path) -> None:
        self.directory = directory
        self._programs = venv / "bin"

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with nothing of this one's variables."""
        program, *arguments = command
        return subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.directory,
            env={"PATH": f"{self._programs}{os.pathsep}/usr/bin{os.pathsep}/bin", **environ},
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def done(self, *command: str, **environ: str) -> str:
        """Run it, to success; what it printed."""
        ran = self.run(*command, **environ)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Light:
    directory = tmp_path_factory.mktemp("light")
    (directory / "hop_archive.toml").write_text(TOML)
    return Light(install(directory), directory)


def test_it_has_nothing_that_only_extras_bring(light: Light) -> None:
    every = installed_with("all", "analysis", "local") - installed_with()
    modules = [
        module
        for module, packages in packages_distributions().items()
        if {canonicalize_name(name) for name in packages} <= every and module.isidentifier()
    ]
    assert {"dagster", "dagster_webserver", "confluent_kafka", "kubernetes", "pandas", "psutil"} <= {*modules}
    ask = "import importlib.util, sys; print([m for m in sys.argv[1:] if importlib.util.find_spec(m)])"
    assert light.done("python", "-c", ask, *modules) == "[]\n"


def test_every_command_tells_of_itself(light: Light) -> None:
    assert light.done("hop-archive", "--version") == f"hop-archive {VERSION}\n"
    told = light.done("python", "-m", "hop_archive.cli.reference")
    assert told == (CHECKOUT / "docs" / "commands.md").read_text()


READING = """
import collections, hop_archive
with hop_archive.open("m", "m") as archive:
    counted = collections.Counter(found.topic for found in archive.messages())
    assert counted == {one.topic: one.messages for one in archive.topics()}
    assert archive.to_arrow(values=True).num_rows == len([*archive.rows()]) == archive.count()
    assert all(found.decode() is not None or found.value is None for found in archive.messages())
    try:
        archive.to_pandas()
    except hop_archive.errors.MissingSettingError as error:
        assert str(error).endswith("pip install 'hop_archive[analysis]'.")
        print(archive.count())
"""


def test_an_archive_is_made_of_samples_read_and_looked_after(light: Light) -> None:
    light.done("hop-archive", "run", "-H", "m", *M, "--until-caught-up")
    uuids = light.done("hop-archive", "uuids", "-D", "m").split()
    assert light.done("python", "-c", READING) == f"{len(uuids)}\n"
    for command in (
        ("status", "-H", "m", *M),
        ("inspect", *uuids[:20], *M),
        ("export", "night", *M),
        ("catalog-snapshot", "snapshot", "-D", "m"),
        ("verify", *M, "--deep"),
        ("report", "report.html", "-D", "m"),
        ("doctor", "-H", "m", *M),
    ):
        light.done("hop-archive", *command)


KAFKA = ("-H", "k", *M)


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("kafka", ("run", *KAFKA, "--until-caught-up")),
        ("kafka", ("status", *KAFKA)),
        ("kafka", ("publish", "-H", "k", "--count", "1", "--topic", "t", "--not-a-test-topic", "t")),
        ("kafka", ("snapshot", "take", "-H", "k", "-D", "m")),
        ("kafka", ("restore", *M, "--to-source", "k", "--all-topics")),
        ("local", ("local", "up", "--dir", "stack")),
        ("local", ("local", "publish", "--dir", "stack")),
        ("kubernetes", ("kube-logs",)),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given[:2]),
)
def test_a_command_that_needs_an_extra_says_which_in_one_line(
    light: Light, extra: str, command: tuple[str, ...]
) -> None:
    ran = light.run("hop-archive", *command)
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith(f"pip install 'hop_archive[{extra}]'.")


def test_doctor_says_it_of_the_source_and_looks_at_the_rest(light: Light) -> None:
    ran = light.run("hop-archive", "doctor", *KAFKA)
    assert ran.returncode == 1
    assert "pip install 'hop_archive[kafka]'" in ran.stdout
    assert "1 of 18 checks failed" in ran.stdout


@pytest.mark.local
def test_it_reads_real_servers(light: Light, local_stack: LocalStack) -> None:
    """The catalog's migrations, Postgres and S3 need no extra: an archive that others fill is read."""
    environ = local_stack.up().environment()
    light.done("hop-archive", "migrate", "-D", "local-db", **environ)
    light.done("hop-archive", "doctor", "-H", "m", "-D", "local-db", "-S", "local-store", **environ)
    made = json.loads(light.done("hop-archive", "status", "-D", "local-db", "--json", **environ))
    assert "topics" in made
