"""Java programs that tests start: the ``java`` command, and jars, which Maven fetches once.

Jars are what a ``pom.xml`` names, with all that they need, in a folder of ``$HOP_ARCHIVE_CACHE`` or ``~/.cache/hop_archive``. Once they
are there, neither Maven nor a network is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from hop_archive.errors import MissingSettingError, UnavailableError

FETCH_TIMEOUT_S = 600.0
# No JIT beyond the first tier and no parallel collector: a test's server lives for seconds.
QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def find_java(environment: Mapping[str, str]) -> str:
    """Return the path of the ``java`` command, that of ``JAVA_HOME`` before that of ``PATH``.

    Raises:
        MissingSettingError: There is none.
    """
    home = environment.get("JAVA_HOME")
    in_home = Path(home) / "bin" if home else None
    java = (in_home and shutil.which("java", path=str(in_home))) or shutil.which(
        "java", path=environment.get("PATH", "")
    )
    if not java:
        raise MissingSettingError(
            "There is no java command in JAVA_HOME or on the PATH.",
            remedy="Install a Java runtime, version 17 or later (Debian: openjdk-17-jre-headless). Tests on Apache Kafka take"
            " HOP_ARCHIVE_TEST_KAFKA instead, the bootstrap servers of a running Kafka.",
        )
    return java


def cached_name(pom: Path, name: str) -> str:
    """Return the name of the folder for what ``pom`` names: another one for each change of it."""
    return f"{name}-{zlib.crc32(pom.read_bytes()):08x}"


def find_jars(pom: Path, name: str, environment: Mapping[str, str]) -> Path:
    """Return the folder of the jars that ``pom`` names, fetched where it is not in the cache.

    Two processes may fetch at the same time; one of the results stays. The folder appears whole or not at all.

    Raises:
        MissingSettingError: They must be fetched, and ``mvn`` is not there.
        UnavailableError: Maven failed.
    """
    cache = Path(environment.get("HOP_ARCHIVE_CACHE") or Path.home() / ".cache" / "hop_archive")
    folder = cache / cached_name(pom, name)
    if folder.is_dir():
        return folder
    mvn = _find_maven(name, environment)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{folder.name}-") as scratch:
        libs = Path(scratch) / "libs"
        _run_maven(mvn, pom, name, libs, environment)
        try:
            libs.rename(folder)
        except OSError:
            # Another process was first, and its folder is not empty.
            if not folder.is_dir():
                raise
    return folder


def _find_maven(name: str, environment: Mapping[str, str]) -> str:
    if mvn := shutil.which("mvn", path=environment.get("PATH", "")):
        return mvn
    raise MissingSettingError(
        f"{name} has to be fetched, once, and there is no mvn command on the PATH.",
        remedy="Install Maven (Debian: maven). Of Apache Kafka, set KAFKA_HOME to an installation instead, or"
        " HOP_ARCHIVE_TEST_KAFKA to the bootstrap servers of a running one.",
    )


def _run_maven(mvn: str, pom: Path, name: str, libs: Path, environment: Mapping[str, str]) -> None:
    command = [mvn, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={libs}"],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"Maven could not fetch {name}:\n{done.stdout}{done.stderr}")
