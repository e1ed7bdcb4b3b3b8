"""Real servers that stop in mid-run: the error says which, and once it is back the work is completed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psycopg.sql
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.devkit.local.address import ServerName, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest.follow import Obstacle, catch_up
from hop_archive.ingest.survey import survey
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import Deadline
from hop_archive.source.kafka.watermarks import describes_itself
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.verify.sent import Place, Sent
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.contract.catalog_helpers import backends, connect, terminate
from hop_archive_tests.contract.store_fixtures import RefusingProxy
from hop_archive_tests.faults.real import (
    SEGMENTS,
    archiving_on_and_on,
    assert_all_archived,
    plain,
    publish,
    restartable,
)
from hop_archive_tests.roles import as_role
from hop_archive_tests.stopping import stop_process
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.local, pytest.mark.slow]

SERVERS: tuple[ServerName, ...] = ("postgres", "s3", "kafka")
STANZA: dict[ServerName, str] = {"postgres": "local-db", "s3": "local-store", "kafka": "hop-local"}
SMALL = Limits(batch_messages=50)
COUNT = 600
RETRY_S = 2.0
"""For how long the store is tried again; half a minute otherwise."""


@contextmanager
def without(stack: LocalStack, name: ServerName) -> Iterator[None]:
    """A server is killed while the block runs. The broker, which keeps nothing, is stopped in its tracks instead."""
    if name == "kafka":
        pid = stack.pid(name)
        stop_process(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
        return
    stack.kill(name)
    try:
        yield
    finally:
        stack.start(name)


def address_of(address: StackAddress, name: ServerName) -> str:
    """Host and port, as a message should name them."""
    return {
        "postgres": address.database_url.partition("@")[2].partition("/")[0],
        "s3": address.s3_endpoint,
        "kafka": address.bootstrap_servers,
    }[name]


@pytest.fixture
def impatient(open_archive: OpenArchive, address: StackAddress, namespace: str) -> Callable[[], Archive]:
    """Opens archives in small batches that do not wait long for the store."""

    user = as_role("archiver", address)

    def make() -> Archive:
        store = S3Store(
            "local-store",
            bucket=address.bucket,
            endpoint=address.s3_endpoint,
            region="us-east-1",
            prefix=namespace,
            access_key=user.s3_access_key,
            secret_key=user.s3_secret_key,
            retry_s=RETRY_S,
        )
        return replace(open_archive(limits=SMALL), store=store)

    return make


def two_topics(archive: Archive, namespace: str) -> list[str]:
    topics = [f"{namespace}.message", f"{namespace}.{SEGMENTS}"]
    for topic in topics:
        archive.source.create_topic(topic, 2)
    return topics


def fill(archive: Archive, topics: list[str], seed: int = 0) -> dict[Place, Sent]:
    return publish(
        archive.source, [a for topic in topics for a in plain(topic, COUNT // 2, seed=seed, partitions=2)]
    )


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_stops_in_mid_run_is_named_and_the_next_run_completes_the_work(
    impatient: Callable[[], Archive],
    address: StackAddress,
    namespace: str,
    local_stack: LocalStack,
    name: ServerName,
) -> None:
    stack = restartable(local_stack, name)
    archive = impatient()
    topics = two_topics(archive, namespace)
    sent = fill(archive, topics)
    steps = catch_up(archive)
    next(steps)
    with without(stack, name), pytest.raises(UnavailableError) as raised:
        exhausted(steps)
    assert STANZA[name] in str(raised.value)
    assert address_of(address, name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert survey(archive, topics).pending(), "it stopped too late to matter"
    exhausted(catch_up(archive))
    assert_all_archived(impatient(), topics, sent)


def is_missed(name: ServerName, errors: list[Obstacle]) -> bool:
    return any(STANZA[name] in str(error) for error in errors)


@pytest.mark.timeout(600)
def test_a_run_on_and_on_survives_the_loss_of_each_server_and_completes_the_work_by_itself(
    impatient: Callable[[], Archive], namespace: str, local_stack: LocalStack
) -> None:
    stack = restartable(local_stack, *SERVERS)
    archive, watching = impatient(), impatient()
    topics = two_topics(archive, namespace)
    sent = fill(archive, topics)
    with archiving_on_and_on(archive, topics) as errors:
        for seed, name in enumerate(SERVERS, start=1):
            with without(stack, name):
                sent |= fill(watching, topics, seed) if name != "kafka" else {}
                wait_for(partial(is_missed, name, errors), f"{name} is missed")
            sent |= fill(watching, topics, seed + len(SERVERS))
            wait_for(lambda: not survey(watching, topics).pending(), f"all is archived after {name}")
    assert_all_archived(watching, topics, sent)


@contextmanager
def password_changed(url: str) -> Iterator[str]:
    """The password of the URL's role is another one while the block runs, and nobody is connected when it begins."""
    changed = make_conninfo(url, password="changed-meanwhile")
    told = conninfo_to_dict(url)
    alter = psycopg.sql.SQL("ALTER ROLE {} PASSWORD {}")
    role = psycopg.sql.Identifier(str(told["user"]))
    with connect(url) as connection:
        connection.execute(alter.format(role, psycopg.sql.Literal("changed-meanwhile")))
        try:
            terminate(changed, backends(changed))
            yield changed
        finally:
            connection.execute(alter.format(role, psycopg.sql.Literal(str(told["password"]))))


@pytest.mark.parametrize("known", ["the secret has the new one", "nobody knows the new one"])
def test_a_run_on_and_on_survives_a_changed_password(
    impatient: Callable[[], Archive],
    open_archive: OpenArchive,
    address: StackAddress,
    namespace: str,
    known: str,
) -> None:
    password = [address.database_url]
    catalog = PostgresCatalog(
        "local-db", address.database_url, schema=namespace, timeout_s=1.0, renew=lambda: password[-1]
    )
    archive = replace(impatient(), catalog=catalog)
    topics = two_topics(archive, namespace)
    sent = fill(archive, topics)
    with archiving_on_and_on(archive, topics) as errors:
        wait_for(lambda: not survey(archive, topics).pending(), "all is archived")
        with password_changed(address.database_url) as changed:
            if known == "the secret has the new one":
                password.append(changed)
                sent |= fill(archive, topics, 1)
                watching = replace(archive, catalog=PostgresCatalog("local-db", changed, schema=namespace))
                wait_for(lambda: not survey(watching, topics).pending(), "all is archived with the new one")
                watching.catalog.close()
                assert not [error for error in errors if isinstance(error, ForbiddenError)]
                password.append(address.database_url)
            else:
                sent |= fill(archive, topics, 1)
                wait_for(
                    lambda: [error for error in errors if isinstance(error, ForbiddenError)], "it is refused"
                )
        wait_for(lambda: not survey(impatient(), topics).pending(), "all is archived in the end")
    assert_all_archived(impatient(), topics, sent)
    catalog.close()


@pytest.mark.parametrize("code", ["AccessDenied", "RequestTimeTooSkewed"])
def test_a_run_on_and_on_waits_until_puts_are_allowed_again(
    open_archive: OpenArchive, address: StackAddress, namespace: str, code: str
) -> None:
    refusing, user = RefusingProxy(address.s3_endpoint, code), as_role("archiver", address)
    with refusing.run() as endpoint:
        store = S3Store(
            "local-store",
            bucket=address.bucket,
            endpoint=endpoint,
            prefix=namespace,
            access_key=user.s3_access_key,
            secret_key=user.s3_secret_key,
            retry_s=RETRY_S,
        )
        archive = replace(open_archive(limits=SMALL), store=store)
        topics = two_topics(archive, namespace)
        with archiving_on_and_on(archive, topics) as errors:
            sent = fill(archive, topics)
            wait_for(lambda: not survey(archive, topics).pending(), "all is archived")
            refusing.refuses = True
            sent |= fill(archive, topics, 1)
            wait_for(lambda: len(errors) > 1, "it is refused, again and again")
            assert all(isinstance(error, ForbiddenError) and code in str(error) for error in errors)
            refusing.refuses = False
            wait_for(lambda: not survey(archive, topics).pending(), "all is archived in the end")
        assert_all_archived(open_archive(), topics, sent)
        store.close()


def test_a_broker_that_stops_while_it_is_asked_for_watermarks_is_an_outage(
    open_archive: OpenArchive, address: StackAddress, namespace: str, local_stack: LocalStack
) -> None:
    # librdkafka 2.16 gives offset -1001 then, and calls it an answer.
    stack = restartable(local_stack, "kafka")
    source = open_archive().source
    source.create_topic(namespace, 2)
    places = [TopicPartition(namespace, number) for number in range(2)]
    assert source.watermarks(places) == dict.fromkeys(places, Watermarks(0, 0, 0))
    with without(stack, "kafka"), pytest.raises(UnavailableError) as raised:
        source.watermarks(places)
    assert STANZA["kafka"] in str(raised.value)
    assert address_of(address, "kafka") in str(raised.value)
    assert source.watermarks(places) == dict.fromkeys(places, Watermarks(0, 0, 0))


def test_a_broker_that_does_not_say_what_it_is_is_asked_again(
    open_archive: OpenArchive, namespace: str, local_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Taken for Apache Kafka once and for all, Tansu would be believed where its log ends: before its last batch does.
    stack = restartable(local_stack, "kafka")
    writer, reader = open_archive().source, open_archive().source
    writer.create_topic(namespace, 1)
    place = TopicPartition(namespace, 0)
    writer.publish(plain(namespace, 5))

    def stopped_meanwhile(admin: Admin, deadline: Deadline) -> bool:
        with without(stack, "kafka"):
            return describes_itself(admin, deadline)

    with monkeypatch.context() as patched:
        patched.setattr("hop_archive.source.kafka.watermarks.describes_itself", stopped_meanwhile)
        with pytest.raises(UnavailableError, match=STANZA["kafka"]):
            reader.watermarks([place])
    assert reader.watermarks([place]) == {place: Watermarks(0, 5, 5)}
