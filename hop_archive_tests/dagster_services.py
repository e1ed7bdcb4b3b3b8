"""Dagster's services as processes of their own, as a deployment has them: code server, daemon and webserver."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

import hop_archive
from hop_archive.devkit.local.machine import choose_ports
from hop_archive_tests.cli_helpers import command

CHECKOUT = Path(hop_archive.__file__).parents[1]
DEVELOPMENT = CHECKOUT / "dagster.yaml"
CODE, DAEMON, WEBSERVER = "code server", "daemon", "webserver"


@dataclass(slots=True)
class Deployment:
    """Dagster's services, with who starts them again."""

    home: Path
    environ: Mapping[str, str]
    commands: Mapping[str, list[str]]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_what_is_not_there(self) -> None:
        for name, words in self.commands.items():
            if name not in self.processes or self.processes[name].poll() is not None:
                with (self.home / f"{name}.log").open("ab") as log:
                    self.processes[name] = subprocess.Popen(
                        words, cwd=self.home, env=self.environ, stdout=log, stderr=log
                    )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()


@contextmanager
def deployment(
    home: Path,
    environ: Mapping[str, str],
    storage: str = "",
    services: Sequence[str] = (CODE, DAEMON, WEBSERVER),
    settings: Path = DEVELOPMENT,
) -> Iterator[Deployment]:
    """Start the services while the block runs, with the settings of ``make dev`` or others; ``storage`` is more of them."""
    home.mkdir()
    code_port, port = choose_ports(2)
    (home / "dagster.yaml").write_text(settings.read_text() + storage)
    (home / "workspace.yaml").write_text(
        f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code_port}, location_name: hop_archive}}}}]"
    )
    if not storage and settings == DEVELOPMENT:
        # Of two services that make it at once both may put their mark on it, and then none opens its files any more
        # ("Version table 'alembic_version' has more than one head present", 2026-11-30).
        dg.DagsterInstance.from_config(str(home)).dispose()
    program = str(Path(command()[0]).with_name("dagster"))
    workspace = ["-w", str(home / "workspace.yaml")]
    module = ["--module-name", "hop_archive.orchestration.definitions"]
    commands = {
        CODE: [program, "api", "grpc", "--host", "127.0.0.1", "--port", str(code_port), *module],
        DAEMON: [f"{program}-daemon", "run", *workspace],
        WEBSERVER: [f"{program}-webserver", "--host", "127.0.0.1", "--port", str(port), *workspace],
    }
    made = Deployment(
        home, {**environ, "DAGSTER_HOME": str(home)}, {name: commands[name] for name in services}
    )
    try:
        made.start_what_is_not_there()
        yield made
    finally:
        for name in reversed(services):
            made.kill(name)
