"""A unit test starts no process and speaks to no server: one that does fails, and belongs in ``hop_archive_tests/processes``."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.bind",
        "socket.connect",
        "subprocess.Popen",
    }
)


class _Deeds:
    """What the unit test that is running did of what is forbidden; nothing is noted between unit tests."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if self.watching and event in FORBIDDEN:
            self.seen.append(f"{event}{args}")


_deeds = _Deeds()
sys.addaudithook(
    _deeds
)  # there is no way to take a hook back: it stays, and watches only while it is told to


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Watch from the setting up of the fixtures on."""
    _deeds.watching, _deeds.seen = True, []
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Fail a test that did what is forbidden, also where its own code survived it."""
    yield
    if _deeds.seen:
        pytest.fail(f"no unit test, but one for hop_archive_tests/processes: {'; '.join(_deeds.seen)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Watch no more once the fixtures are down."""
    try:
        yield
    finally:
        _deeds.watching = False
