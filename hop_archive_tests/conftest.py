"""What all tests share: the local stack, made once, and archives on it that are each other's strangers."""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import External, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import HopArchiveError
from hop_archive.model.limits import Limits
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.store.s3.store import S3Store
from hop_archive_tests import roles, strategies  # noqa: F401 (it loads the profile of Hypothesis that all tests run with)
from hop_archive_tests.ending import pytest_configure as pytest_configure
from hop_archive_tests.ending import pytest_unconfigure as pytest_unconfigure
from hop_archive_tests.worlds import WorldLayout, layout_policy

OpenArchive = Callable[..., Archive]


def unavailable(reason: str) -> None:
    """Skip for a reason on a laptop; in CI, where everything must be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this must be there: {reason}")
    pytest.skip(reason)


_SLOW_S = 20
_LONG_S = {
    "test_real_dagster_pairs": 180,
    "test_production": 160,
    "test_real_dagster_outages": 145,
    "test_demo": 125,
    "test_real_outages": 105,
    "test_real_rivals": 105,
    "test_cli_run": 95,
    "test_restore": 90,
    "test_real_kills": 45,
    "test_light": 40,
    "test_many_topics": 40,
    "test_memory": 40,
}
"""What files take in all, in seconds, of those that are slow; others ``_SLOW_S``. Only their order is made by it."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process (``-n``) begin with its part of the files that are slow, the longest first: what is left is quick.

    Each is given a part of the list from its beginning on, all of one length, and takes over from the others what they
    have not begun when it has done its own (``--dist worksteal``). A file stays in its order.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    dealt: list[list[Path]] = [[] for _ in range(processes)]
    for path in sorted(slow, key=lambda path: (-_seconds(path), path)):
        min(dealt, key=lambda paths: sum(map(_seconds, paths))).append(path)
    quick = deque(item for item in items if item.path not in slow)
    ordered: list[pytest.Item] = []
    for number, paths in enumerate(dealt):
        part = [item for path in paths for item in items if item.path == path]
        length = (len(items) - len(ordered)) // (processes - number)
        ordered += part
        ordered += [quick.popleft() for _ in range(min(length - len(part), len(quick)))]
    items[:] = [*ordered, *quick]


def _seconds(path: Path) -> int:
    return _LONG_S.get(path.stem, _SLOW_S)


Measured = Callable[[str], None]
_MEASURED = "measured"


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Takes down what a test measured, for the summary at the end: pytest swallows what is printed."""
    return lambda line: record_property(_MEASURED, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured, by tests that passed and by such that did not; also with ``-n``."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    for report in reports:
        for name, line in getattr(report, "user_properties", ()):
            if name == _MEASURED and report.when == "call":
                terminalreporter.write_line(f"measured: {line}")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Take back what a test's command did to the levels of loggers: other tests read what is logged."""
    before = {logger: (logger.level, logger.disabled) for logger in _loggers()}
    yield
    for logger in _loggers():
        level, logger.disabled = before.get(logger, (logging.NOTSET, False))
        logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    made = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(each for each in made if isinstance(each, logging.Logger))]


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A real Kafka-protocol broker, Postgres and S3, for the whole session."""
    stack = LocalStack(
        tmp_path_factory.mktemp("stack") / "up", external=External.from_environment(os.environ)
    )
    with roles.users_of_s3():
        try:
            stack.up()
        except (HopArchiveError, ImportError) as error:
            unavailable(f"the local stack does not start: {error}")
        try:
            if roles.are_wanted():
                roles.make_logins(roles.administrator(stack))
                roles.prove_policies(stack.address())
            yield stack
        finally:
            stack.down(purge=True)


@pytest.fixture
def address(local_stack: LocalStack) -> StackAddress:
    """Where the local stack's servers are; one that an earlier test left dead is started again."""
    return local_stack.up()


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses: for a schema, topics and keys of one test's own."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def open_archive(
    request: pytest.FixtureRequest, address: StackAddress, namespace: str
) -> Iterator[OpenArchive]:
    """Opens archives on the local stack, all of one test on the same catalog schema, prefix and topics.

    Topics of the test are those whose name begins with ``namespace``.
    """
    roles.migrate_and_grant(address.database_url, namespace, "local-db")
    opened: list[Archive] = []
    user = roles.as_role(roles.role_of(request), address)

    def make(
        layout: WorldLayout = "message",
        limits: Limits | None = None,
        run_id: str = "",
        topics: TopicPolicy | None = None,
    ) -> Archive:
        archive = Archive(
            source=KafkaSource("hop-local", bootstrap_servers=address.bootstrap_servers, writable=True),
            catalog=roles.open_catalog(request, "local-db", address.database_url, schema=namespace),
            store=S3Store(
                "local-store",
                bucket=address.bucket,
                endpoint=address.s3_endpoint,
                region="us-east-1",
                prefix=namespace,
                access_key=user.s3_access_key,
                secret_key=user.s3_secret_key,
                deleting_allowed=True,
            ),
            topics=topics or TopicPolicy((f"{namespace}*",)),
            layouts=layout_policy(layout),
            limits=limits or Limits(),
            run_id=run_id,
        )
        opened.append(archive)
        return archive

    yield make
    for archive in opened:
        archive.close()


@pytest.fixture
def corpus() -> Path:
    """Real public alerts, where they are at hand beside the checkout."""
    found = Path(__file__).parents[2] / "shared" / "corpus"
    if not found.is_dir():
        pytest.skip("the corpus of real alerts is not beside this checkout")
    return found
