"""One admin client of a Kafka cluster: made at first use, and its answers waited for in our words."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    ClusterMetadata,
)

from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.source.kafka.client import ClientErrors, Connection, Deadline, kafka_error, let_go

Key = TypeVar("Key")
Value = TypeVar("Value")
Call: TypeAlias = Callable[[AdminClient, float], Mapping[Key, Future[Value]]]
"""Asks a client, given how many seconds it may take."""

SILENCE_S = 2.0
"""How long a broker may leave a request for metadata unanswered before another one is asked.

librdkafka 2.16 asks the broker that it asked last, as long as the connection to it stands: one that is silent (paused, or
cut off without a word) is asked again and again, for a minute by default, while the others would answer.
"""

_POLL_S = 0.1
# A connection on which a request was not answered is closed within a second of that. Also long enough to see a login
# refused, where a call blocks and can't be told to stop.
_TRIES_S = (SILENCE_S, 1.1)
_CONTROLLER_S = 0.5
_CONTROLLER_AGAIN_S = 0.25

_NEVER_DESTROYED: list[AdminClient] = []
"""Clients with calls that librdkafka did not end in the time they were given: to destroy one may end the process."""


class Admin:
    """The admin client of a cluster. Thread-safe.

    Attributes:
        client_errors: What the client reported since it last reached the cluster.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client_errors = ClientErrors()
        self._lock = threading.Condition()
        self._client: AdminClient | None = None
        self._users = Counter[AdminClient]()
        self._calls: dict[Future[Any], AdminClient] = {}

    def deadline(self) -> Deadline:
        """By when a call that begins now has to be done."""
        return Deadline.after(self.connection.timeout_s)

    def ask(
        self,
        call: Call[Key, Value],
        doing: str,
        deadline: Deadline,
        absent: Collection[int] = (),
        *,
        of_controller: bool = False,
    ) -> dict[Key, Value]:
        """What is answered, less what failed with a code in ``absent``.

        Args:
            call: Asks a client, given how long it may take in seconds, and returns futures.
            doing: For messages.
            deadline: By when.
            absent: Codes that say that there is no such thing.
            of_controller: Whether the call goes to what the client takes for the controller. Apache Kafka calls another
                broker so each time it is asked (KRaft), also one that is silent; so it is asked until one answers.

        Raises:
            HopArchiveError: One of them failed otherwise, or did not end in time; see `Connection.failure`.
        """
        results, errors = self.ask_each(call, doing, deadline, absent, of_controller=of_controller)
        for error in errors.values():
            raise self.failure(doing, error) from error
        return results

    def ask_each(
        self,
        call: Call[Key, Value],
        doing: str,
        deadline: Deadline,
        absent: Collection[int] = (),
        *,
        of_controller: bool = False,
    ) -> tuple[dict[Key, Value], dict[Key, KafkaException]]:
        """The same, with what failed beside it.

        Raises:
            HopArchiveError: The login is refused, or librdkafka did not end the call in time.
        """
        with self._calling() as client:
            futures = call(client, deadline.left_s)
            with self._lock:
                self._calls.update(dict.fromkeys(futures.values(), client))
            other_controller = Deadline.after(_CONTROLLER_S)
            while _is_waiting(futures, _POLL_S):
                client.poll(0)
                # librdkafka is given a second to time out by itself, with a better reason; a refused login ends it at
                # once, which librdkafka would try until the timeout.
                if self.connection.is_refused(self.client_errors) or (
                    deadline.passed and _is_waiting(futures, 1.0)
                ):
                    raise self.failure(doing)
                if of_controller and other_controller.passed and not deadline.passed:
                    with suppress(KafkaException):
                        client.list_topics(timeout=min(_CONTROLLER_S, deadline.left_s))
                    other_controller = Deadline.after(_CONTROLLER_AGAIN_S)
            client.poll(0)  # takes in what error_cb is to be told, and the log
        results: dict[Key, Value] = {}
        errors: dict[Key, KafkaException] = {}
        for key, future in futures.items():
            try:
                results[key] = future.result()
            except KafkaException as error:
                if kafka_error(error).code() not in absent:
                    errors[key] = error
        if not errors:
            self.client_errors.forget()
        return results, errors

    def failure(self, doing: str, error: KafkaException | None = None) -> HopArchiveError:
        """The error to raise when ``doing`` something failed; see `Connection.failure`."""
        return self.connection.failure(doing, kafka_error(error) if error else None, self.client_errors)

    def metadata(self, deadline: Deadline, topic: str | None = None) -> ClusterMetadata:
        """Brokers, topics, partitions and their leaders, of one topic or of all: one request.

        Not `AdminClient.describe_cluster`: librdkafka 2.16 aborts the process where a broker answers it with no broker,
        as one does that paused for so long that its cluster took it for dead (docs/decisions/0006).

        Raises:
            UnavailableError: The cluster does not answer, or has no broker for now.
        """
        tries_s = iter(_TRIES_S)
        with self._calling() as client:
            while True:
                timeout_s = min(next(tries_s, deadline.left_s), deadline.left_s)
                try:
                    found = client.list_topics(**({"topic": topic} if topic else {}), timeout=timeout_s)
                except KafkaException as error:
                    client.poll(0)
                    if self.connection.is_refused(self.client_errors) or deadline.passed:
                        raise self.failure("asking for metadata", error) from error
                else:
                    if found.brokers:
                        self.client_errors.forget()
                        return found
                    if deadline.passed:
                        raise UnavailableError(
                            f"{self.connection}: asking for metadata failed. The cluster says that none of "
                            "its brokers is alive.",
                            remedy="One that paused registers again by itself within seconds; else look at the brokers' "
                            "logs.",
                            source=self.connection.stanza,
                            bootstrap_servers=self.connection.bootstrap_servers,
                        )
                    threading.Event().wait(_POLL_S)

    def close(self) -> None:
        """Let go of the connection and its threads; a later call connects anew.

        Waits for calls that another thread, or one that was interrupted, has left in flight: librdkafka 2.16 dies by
        SIGSEGV where the answer of `describe_topics` comes to a client that is being destroyed (docs/decisions/0006). For those of
        one whose login is refused a thread waits.
        """
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            (self._let_go_meanwhile if self.client_errors.refused else self._let_go)(client)

    def _let_go_meanwhile(self, client: AdminClient) -> None:
        """Let go of one that is refused: neither left to whoever drops it last, nor kept: it would log in as before again and again."""
        threading.Thread(target=self._let_go, args=(client,), name="kafka-refused", daemon=True).start()

    def _let_go(self, client: AdminClient) -> None:
        wait_s = self.connection.timeout_s + 1
        with self._lock:
            idle = self._lock.wait_for(lambda: not self._users[client], wait_s)
            left = [future for future, other in self._calls.items() if other is client]
        if idle and not concurrent.futures.wait(left, wait_s).not_done:
            let_go(lambda: client.__exit__(None, None, None))
        else:
            _NEVER_DESTROYED.append(client)

    @contextmanager
    def _calling(self) -> Iterator[AdminClient]:
        """The client, which is not destroyed while the block lasts, nor while a call made in it is in flight."""
        refused = None
        with self._lock:
            if self._client is None or self.client_errors.login != self.connection.renewals:
                self.client_errors.forget()
                settings = {"allow.auto.create.topics": False, "socket.timeout.ms": int(SILENCE_S * 1000)}
                made = self.connection.client(AdminClient, "client", self.client_errors, settings)
                refused, self._client = self._client, made
            client = self._client
            self._users[client] += 1
        try:
            if refused is not None:
                self._let_go_meanwhile(refused)
            yield client
        finally:
            with self._lock:
                self._users[client] -= 1
                self._users += Counter()  # forgets those that nobody uses
                self._lock.notify_all()
                self._calls = {future: client for future, client in self._calls.items() if not future.done()}


def _is_waiting(futures: Mapping[Any, Future[Any]], timeout_s: float) -> bool:
    """Whether one of them is not done, after a wait for the first such.

    They are answered together, or nearly: to wait for all of a thousand at once takes a lock of each, several times.
    """
    until = time.monotonic() + timeout_s
    for future in futures.values():
        while not future.done():
            if (left_s := until - time.monotonic()) <= 0:
                return True
            concurrent.futures.wait([future], left_s)
    return False
