"""One admin client of a Kafka cluster: made at first use, and its answers waited for in our words."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hop_archive.source.kafka_client import LOGGER, Connection, Deadline, Troubles, kafka_error

Key = TypeVar("Key")
Value = TypeVar("Value")

_POLL_S = 0.1
_LOGIN_S = 2.0  # long enough to see a login refused, where a call blocks and can't be told to stop


class Admin:
    """The admin client of a cluster. Thread-safe.

    Args:
        connection: The cluster.

    Attributes:
        connection: The cluster.
        troubles: What the client reported since it last reached the cluster.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.troubles = Troubles()
        self._lock = threading.Lock()
        self._client: AdminClient | None = None

    def client(self) -> AdminClient:
        """The client itself.

        Raises:
            ConfigurationError: A setting is none that librdkafka takes.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def forget_client(self) -> None:
        """Connect anew from the next call on: librdkafka 2.16 asks a coordinator that is gone, again and again.

        Not closed: another thread may be using it; it goes with the last reference.
        """
        with self._lock:
            self._client = None

    def deadline(self) -> Deadline:
        """By when a call that begins now has to be done."""
        return Deadline.after(self.connection.timeout_s)

    def settle(
        self,
        futures: Mapping[Key, Future[Value]],
        doing: str,
        deadline: Deadline,
        absent: Collection[int] = (),
    ) -> dict[Key, Value]:
        """The results of ``futures``, less those that failed with a code in ``absent``.

        Raises:
            HopArchiveError: One of them failed otherwise, or did not end in time; see `Connection.failure`.
        """
        self._wait(futures.values(), doing, deadline)
        results: dict[Key, Value] = {}
        for key, future in futures.items():
            try:
                results[key] = future.result()
            except KafkaException as error:
                cause = kafka_error(error)
                if cause.code() not in absent:
                    raise self.connection.failure(doing, cause, self.troubles) from error
        self.troubles.forget()
        return results

    def all_names(self, deadline: Deadline) -> list[str]:
        """The names of all topics, in order.

        Raises:
            UnavailableError: The cluster does not answer.
        """
        client, timeout_s = self.client(), min(_LOGIN_S, deadline.left_s)
        while True:
            try:
                names = sorted(client.list_topics(timeout=timeout_s).topics)
            except KafkaException as error:
                client.poll(0)
                if self.troubles.refused or deadline.passed:
                    raise self.connection.failure(
                        "listing topics", kafka_error(error), self.troubles
                    ) from error
                timeout_s = deadline.left_s
            else:
                self.troubles.forget()
                return names

    def close(self) -> None:
        """Let go of the connection and its threads; a later call connects anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _connect(self) -> AdminClient:
        configuration = self.connection.configuration(self.troubles, {"allow.auto.create.topics": False})
        try:
            return AdminClient(configuration, logger=LOGGER)
        except KafkaException as error:
            raise self.connection.failure(
                "configuring a client", kafka_error(error), self.troubles
            ) from error

    def _wait(self, futures: Collection[Future[Any]], doing: str, deadline: Deadline) -> None:
        """Wait for all; a refused login ends that at once, for librdkafka would try it until the timeout."""
        client = self.client()
        while concurrent.futures.wait(futures, timeout=_POLL_S).not_done:
            client.poll(0)
            if self.troubles.refused or (deadline.passed and _is_late(futures)):
                raise self.connection.failure(doing, None, self.troubles)
        client.poll(0)  # takes in what error_cb is to be told, and the log


def _is_late(futures: Collection[Future[Any]]) -> bool:
    """Whether librdkafka, given a second to time out by itself, with a better reason, did not."""
    return bool(concurrent.futures.wait(futures, timeout=1.0).not_done)
