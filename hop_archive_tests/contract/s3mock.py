"""Adobe's S3Mock: an S3 of another make, in Java, which Maven fetches (``pom.xml`` beside this module)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hop_archive.devkit.local import processes
from hop_archive.devkit.local.machine import LOOPBACK, choose_ports
from hop_archive.devkit.local.processes import Launch
from hop_archive.devkit.local.s3 import S3Address
from hop_archive_tests.java import QUICK_JVM, find_jars, find_java

POM = Path(__file__).with_name("pom.xml")
START_TIMEOUT_S = 240.0
_PROPERTIES = "com.adobe.testing.s3mock"


@contextmanager
def s3mock(directory: Path) -> Iterator[S3Address]:
    """Serve with all data below a directory, while the block runs. It asks for no credentials.

    Raises:
        MissingSettingError: There is no Java, or no Maven to fetch it by.
        UnavailableError: Maven failed, or it does not start; quotes the end of its log.
    """
    jars = find_jars(POM, "s3mock", os.environ)
    (port,) = choose_ports(1)
    root = directory / "objects"
    root.mkdir()
    settings = {
        f"{_PROPERTIES}.http-port": port,
        f"{_PROPERTIES}.store.root": root,
        "server.port": 0,  # of TLS, which nobody speaks to it
        "server.address": LOOPBACK,
    }
    java = (
        find_java(os.environ),
        "-Xmx512m",
        *QUICK_JVM,
        "-cp",
        f"{jars}/*",
        f"{_PROPERTIES}.S3MockApplication",
    )
    command = (*java, *(f"--{name}={value}" for name, value in settings.items()))
    log, address = directory / "s3mock.log", S3Address(f"http://{LOOPBACK}:{port}", "any", "any")
    mark = processes.start(Launch(command, directory), log)
    try:
        processes.await_answer("s3mock", lambda: _ask(address), mark, log, START_TIMEOUT_S)
        yield address
    finally:
        processes.stop(mark, signal.SIGTERM, processes.KILL_TIMEOUT_S)


def _ask(address: S3Address) -> None:
    address.expect("GET", "")
