"""All that a soak runs: servers behind proxies, Dagster, a rival, upkeep; how each is killed, frozen, filled up, and put right again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import psutil
import psycopg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local import processes
from hop_archive.devkit.local.address import External, StackAddress
from hop_archive.devkit.local.kafka import Kafka
from hop_archive.devkit.local.machine import LOOPBACK, choose_ports
from hop_archive.devkit.local.processes import RUN_VARIABLE, ProcessMark
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.local.state import read_state
from hop_archive.devkit.proxy import Proxy
from hop_archive.devkit.samples import KINDS, SampleTopic
from hop_archive.errors import HopArchiveError
from hop_archive_tests.cli_helpers import command, environment
from hop_archive_tests.dagster_services import CHECKOUT, CODE, DAEMON, Deployment, deployment
from hop_archive_tests.soak.schedule import Deed, Kind

PREFIX = "soak"
TOPICS = (
    SampleTopic("soak.both.message", 2, KINDS),
    SampleTopic("soak.both.segment", 2, KINDS),
    SampleTopic("soak.dagster.message", 1, KINDS),
    SampleTopic("soak.dagster.frames", 2, KINDS),
    SampleTopic("soak.rival.segment", 1, KINDS),
    SampleTopic("soak.rival.frames", 1, KINDS),
)
"""Some are archived by Dagster alone, some by the rival alone, some by both; one document an object, in segments, in zstd frames."""
UPKEEP = (
    ("verify", "--grace", "5"),
    ("verify", "--deep"),
    ("verify", "--direction", "source", "-H", "rival"),
    ("compact", "--grace", "0.002", "--yes"),
    ("repair", "-H", "rival", "--verify", "--yes"),
    ("repair", "-H", "rival"),
    ("compact", "--yes"),
    ("doctor", "-H", "rival"),
)
_DISK_MEBIBYTES = 1024
_PER_MINUTE_MEBIBYTES = 32
_FILLED_AT_ONCE = 4 * 2**20
_CLOCK_LIBRARY = "clock.so"
_SECONDS = struct.Struct("<q")
_STANZAS = """
[source.dagster]
type = "kafka"
bootstrap_servers = "${HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}"
security = "plaintext"
topics = ["soak.both.*", "soak.dagster.*"]
veto = []
[source.rival]
type = "kafka"
bootstrap_servers = "${HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}"
security = "plaintext"
topics = ["soak.both.*", "soak.rival.*"]
veto = []
[database.here]
type = "postgres"
url = "${HOP_ARCHIVE_LOCAL_DATABASE_URL}"
cleaning_allowed = true
deleting_allowed = true
[store.here]
type = "s3"
endpoint = "${HOP_ARCHIVE_LOCAL_S3_ENDPOINT}"
region = "us-east-1"
bucket = "${HOP_ARCHIVE_LOCAL_BUCKET}"
prefix = "soak"
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
cleaning_allowed = true
deleting_allowed = true
layouts = {"*.segment" = "segment", "*.frames" = "segment"}
compressions = {"*.frames" = "zstd"}
compact_after_days = 0
"""


@dataclass(frozen=True)
class Servers:
    """Kafka, Postgres and S3 behind proxies.

    Attributes:
        address: Where they are themselves; ``proxied``: where their clients find them.
        disks: The data of those whose disk can be filled up.
    """

    stack: LocalStack
    broker: ProcessMark
    proxies: Mapping[str, Proxy]
    address: StackAddress
    proxied: StackAddress
    disks: Mapping[str, Path]


@dataclass
class World:
    """What runs, and what is done to it.

    Attributes:
        clock: The file that says by how much clocks are wrong; None: they cannot be.
        done: What was done, by kind and target.
        came_back: What ended by itself and was started again.
        left_out: What could not be had here, and why.
        down: What is not to be started now.
    """

    directory: Path
    servers: Servers
    services: Deployment
    environ: Mapping[str, str]
    dice: random.Random
    clock: Path | None
    left_out: Mapping[str, str]
    done: Counter[str] = field(default_factory=Counter)
    came_back: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    upkeep_runs: Counter[str] = field(default_factory=Counter)
    upkeep: str = ""
    has_ticks_ahead: bool = False

    def supervise(self) -> None:
        """Start again what has ended, as a supervisor does; of servers what their faults ended, too."""
        if self.has_ticks_ahead:
            self._forget_ticks()
        for name in ("postgres", "s3"):
            if not self.down[name] and not self.servers.stack.runs(name):
                self.came_back[name] += 1
                self._start_server(name)
        for name, process in self.services.processes.items():
            if process.poll() is not None and not self.down[name]:
                self.came_back[name] += 1
                self.services.start_what_is_not_there()
        for name in ("rival", "upkeep"):
            ended = self.programs.get(name)
            if self.down[name] or (ended and ended.poll() is None):
                continue
            if name == "rival":
                self.came_back[name] += ended is not None
                self.programs[name] = self._program(name, "run", "-H", "rival")
            elif self.dice.random() < 0.3:
                if ended:
                    self.upkeep_runs[f"{self.upkeep}: exit code {ended.returncode}"] += 1
                chosen = self.dice.choice(UPKEEP)
                self.upkeep, self.programs[name] = chosen[0], self._program(name, *chosen)

    def begin(self, deed: Deed) -> Callable[[], None]:
        """Do a deed; what is to be called when its time is over. It counts as done where there was somebody to do it to."""
        what = deed.trouble.value if deed.trouble else deed.kind.value
        undo: Callable[[], None] | None
        match deed.kind:
            case Kind.NETWORK:
                assert deed.trouble
                self.servers.proxies[deed.target].begin(deed.trouble, deed.chance)
                undo = self.servers.proxies[deed.target].calm
            case Kind.KILL:
                undo = self._kill(deed.target)
            case Kind.FREEZE:
                undo = self._freeze(deed.target)
            case Kind.FILL:
                undo = self._fill(deed.target)
            case Kind.CLOCK:
                undo = self._jump(deed.offset_s)
        self.done[f"{what}: {deed.target}"] += undo is not None
        return undo or (lambda: None)

    def end_archiving(self) -> None:
        """End Dagster, the rival, upkeep, and all that they started: servers and proxies stay."""
        for process in self.programs.values():
            process.kill()
            process.wait()
        for name in (DAEMON, CODE):
            self.services.kill(name)
        for worker in self.workers():
            with suppress(psutil.Error):
                worker.kill()

    def archived(self) -> dict[tuple[str, int], int]:
        """How many offsets of each partition the ledger covers."""
        with psycopg.connect(self.servers.address.database_url, connect_timeout=10) as connection:
            rows = connection.execute(
                "SELECT topic, partition, sum(upper(offsets) - lower(offsets)) FROM batches GROUP BY 1, 2"
            ).fetchall()
        return {(topic, partition): int(count) for topic, partition, count in rows}

    @property
    def _dagster_url(self) -> str:
        return urlsplit(self.servers.address.database_url)._replace(path="/dagster").geturl()

    def runs(self) -> dict[str, int]:
        """Dagster's runs so far, by job and what became of them."""
        with psycopg.connect(self._dagster_url) as connection:
            rows = connection.execute(
                "SELECT pipeline_name, status, count(*) FROM runs GROUP BY 1, 2"
            ).fetchall()
        return {f"{job}: {status.lower()}": count for job, status, count in sorted(rows)}

    def final_look(self) -> int:
        """Exit code of a last deep ``verify`` with nobody at work."""
        return self._program("last verify", "verify", "--deep", "--grace", "0").wait()

    def workers(self) -> list[psutil.Process]:
        """Processes of Dagster's runs, whoever is their parent now."""
        run, found = os.environ[RUN_VARIABLE], []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if "spawn_main" in " ".join(words) and process.environ().get(RUN_VARIABLE) == run:
                    found.append(process)
        return found

    def _program(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            log.write(f"--- {' '.join(args)}\n".encode())
            log.flush()
            words = command(args[0], "-D", "here", "-S", "here", *args[1:])
            return subprocess.Popen(words, cwd=self.directory, env=self.environ, stdout=log, stderr=log)

    def _start_server(self, name: str) -> None:
        with suppress(HopArchiveError):  # then once more, with the next look
            self.servers.stack.start(name)  # type: ignore[arg-type]

    def _forget_ticks(self) -> None:
        """Do what ``watch --dagster`` says where the clock was set back: Dagster stands still until it shows again what it had shown.

        The rival, too, is started again: librdkafka's threads may wait as long, and ``close`` of a client for them (seed 13).
        """
        self.services.kill(DAEMON)
        if "rival" in self.programs:
            self.programs["rival"].kill()
        with suppress(psycopg.Error), psycopg.connect(self._dagster_url, connect_timeout=10) as connection:
            connection.execute("TRUNCATE jobs, instigators, job_ticks")  # dagster schedule wipe
            self.has_ticks_ahead = False

    def _kill(self, target: str) -> Callable[[], None] | None:
        victims = self._processes(target)[:1]
        if not victims:
            return None
        self.down[target] += 1

        def again() -> None:
            self.down[target] -= 1
            if target in ("postgres", "s3"):
                self._start_server(target)
            elif target in (CODE, DAEMON):
                self.services.start_what_is_not_there()

        if target in ("postgres", "s3"):
            self.servers.stack.kill(target)  # type: ignore[arg-type]
        elif target in (CODE, DAEMON):
            self.services.kill(target)
        else:
            with suppress(psutil.Error):
                victims[0].kill()
        return again

    def _freeze(self, target: str) -> Callable[[], None] | None:
        frozen = self._processes(target)
        if target == "worker":
            frozen = frozen[:1]
        for process in frozen:
            with suppress(psutil.Error):
                process.suspend()

        def thaw() -> None:
            for process in reversed(frozen):
                with suppress(psutil.Error):
                    process.resume()

        return thaw if frozen else None

    def _processes(self, target: str) -> list[psutil.Process]:
        """Those of a target, in an order by chance where one is to be chosen."""
        with suppress(psutil.Error, HopArchiveError):
            if target == "worker":
                return self.dice.sample(found := self.workers(), len(found))
            if target in ("rival", "upkeep"):
                return [psutil.Process(self.programs[target].pid)] if target in self.programs else []
            if target in (CODE, DAEMON):
                return [psutil.Process(self.services.processes[target].pid)]
            if target == "kafka":
                return [psutil.Process(self.servers.broker.pid)]
            server = psutil.Process(self.servers.stack.pid("s3" if target == "s3" else "postgres"))
            sessions = server.children()
            return self.dice.sample(sessions, len(sessions)) if target == "session" else [server, *sessions]
        return []

    def _fill(self, target: str) -> Callable[[], None] | None:
        if target not in self.servers.disks:
            return None
        self.down[target] += 1  # nothing starts on a full disk
        filler = self.servers.disks[target] / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(_FILLED_AT_ONCE)) == _FILLED_AT_ONCE:
                pass

        def empty() -> None:
            filler.unlink()
            if target == "s3":
                # SeaweedFS keeps the first failure to write its index, and refuses every put until it is started again: as who
                # runs it would (seed 13, 2026-11-30).
                with suppress(HopArchiveError):
                    self.servers.stack.kill("s3")
            self.down[target] -= 1

        return empty

    def _jump(self, offset_s: int) -> Callable[[], None] | None:
        if self.clock is None:
            return None
        _set(self.clock, offset_s)

        def back() -> None:
            assert self.clock
            _set(self.clock, 0)
            self.has_ticks_ahead = True

        return back


@contextmanager
def built(directory: Path, seed: int, minutes: float) -> Iterator[World]:
    """Start everything in a directory that is empty; end everything, and leave the directory."""
    left_out: dict[str, str] = {}
    with ExitStack() as ending:
        servers = _started(directory, seed, minutes, ending, left_out)
        (directory / "hop_archive.toml").write_text(_STANZAS)
        clock = _clock(directory, left_out)
        environ = {
            **environment(),
            **servers.proxied.environment(),
            "HOP_ARCHIVE_TOML": str(directory / "hop_archive.toml"),
            **(_preloaded(clock) if clock else {}),
        }
        of_dagster = {**environ, **_of_dagster(servers.proxied)}
        settings = _dagster_settings(directory, of_dagster)
        services = ending.enter_context(
            deployment(directory / "dagster", of_dagster, services=(CODE, DAEMON), settings=settings)
        )
        dice = random.Random(f"world:{seed}")
        world = World(directory, servers, services, environ, dice, clock, left_out)
        try:
            yield world
        finally:
            for process in psutil.process_iter():  # what was frozen when this was interrupted
                with suppress(psutil.Error):
                    if process.environ().get(RUN_VARIABLE) == os.environ[RUN_VARIABLE]:
                        process.resume()
            world.end_archiving()


def _started(
    directory: Path, seed: int, minutes: float, ending: ExitStack, left_out: dict[str, str]
) -> Servers:
    """Servers with topics, a catalog, and a database for Dagster; they end with ``ending``."""
    broker_port = choose_ports(1)[0]
    proxies = {"kafka": ending.enter_context(Proxy(broker_port, seed=seed))}
    bootstrap = f"{LOOPBACK}:{proxies['kafka'].port}"
    broker = _start_broker(directory / "kafka", broker_port, proxies["kafka"].port)
    ending.callback(processes.stop, broker, signal.SIGKILL, 1.0)
    stack = LocalStack(directory / "stack", external=External(bootstrap_servers=bootstrap))
    address = stack.up()
    ending.callback(stack.down)
    disks = _on_small_disks(stack, minutes, ending, left_out)
    ending.callback(stack.down)  # before its disks are taken away
    database, s3 = urlsplit(address.database_url), urlsplit(address.s3_endpoint)
    for name, url in (("postgres", database), ("s3", s3)):
        assert url.port
        proxies[name] = ending.enter_context(Proxy(url.port, seed=seed))
    proxied = replace(
        address,
        database_url=_at(database, proxies["postgres"].port),
        s3_endpoint=_at(s3, proxies["s3"].port),
    )
    migrate(address.database_url, name="here")
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE dagster")
    _create_topics(bootstrap)
    return Servers(stack, broker, proxies, address, proxied, disks)


def _start_broker(home: Path, port: int, advertised: int) -> ProcessMark:
    """A broker that tells its clients to come by way of the proxy."""
    home.mkdir()
    server = Kafka(home, "soak", advertised_port=advertised)
    server.prepare()
    mark = processes.start(server.launch((port,)), home / "kafka.log")
    processes.await_answer("kafka", partial(server.probe, (port,)), mark, home / "kafka.log")
    return mark


def _create_topics(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    made = admin.create_topics([NewTopic(topic.name, topic.partitions, 1) for topic in TOPICS])
    for result in made.values():
        result.result(60)


def _at(url: SplitResult, port: int) -> str:
    login, _, _ = url.netloc.rpartition("@")
    return url._replace(netloc=f"{login}{'@' if login else ''}{LOOPBACK}:{port}").geturl()


def _on_small_disks(
    stack: LocalStack, minutes: float, ending: ExitStack, left_out: dict[str, str]
) -> dict[str, Path]:
    """Put the data of Postgres and S3 on file systems in memory, small enough to be filled; root alone can."""
    state = read_state(stack.directory)
    assert state
    homes = {"postgres": Path(state.postgres_home), "s3": stack.directory / "s3"}
    found: dict[str, Path] = {}
    for name, home in homes.items():
        data, aside = home / "data", home / "data.before"
        size = _DISK_MEBIBYTES + int(minutes * _PER_MINUTE_MEBIBYTES)
        stack.stop(name)  # type: ignore[arg-type]
        data.rename(aside)
        data.mkdir()
        owner = aside.stat()
        mounted = subprocess.run(
            [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={size}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}",
                "soak",
                str(data),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            left_out[f"full disk of {name}"] = f"no file system could be mounted: {mounted.stderr.strip()}"
            data.rmdir()
            aside.rename(data)
        else:
            ending.callback(_unmount, data, aside)
            subprocess.run(["cp", "-a", f"{aside}/.", str(data)], check=True)
            found[name] = data
        stack.start(name)  # type: ignore[arg-type]
    return found


def _unmount(data: Path, aside: Path) -> None:
    """Put what is in memory on the disk, for whoever wants to look at it."""
    (data / "filler").unlink(missing_ok=True)
    shutil.rmtree(aside)
    subprocess.run(["cp", "-a", str(data), str(aside)], check=True)
    subprocess.run(["umount", str(data)], check=True)
    data.rmdir()
    aside.rename(data)


def _clock(directory: Path, left_out: dict[str, str]) -> Path | None:
    """The file that says by how much clocks are wrong; None where there is no compiler for what reads it."""
    source, library = Path(__file__).with_name("clock.c"), directory / _CLOCK_LIBRARY
    words = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        left_out["clocks that jump"] = f"what lets them jump could not be compiled: {error}"
        return None
    clock = directory / "clock"
    clock.write_bytes(_SECONDS.pack(0))
    return clock


def _set(clock: Path, offset_s: int) -> None:
    with clock.open("r+b") as file:  # in place: programs have it mapped
        file.write(_SECONDS.pack(offset_s))


def _preloaded(clock: Path) -> dict[str, str]:
    return {"LD_PRELOAD": str(clock.with_name(_CLOCK_LIBRARY)), "CLOCK_IS_WRONG_BY": str(clock)}


def _dagster_settings(directory: Path, environ: Mapping[str, str]) -> Path:
    """Production's dagster.yaml; its storage is made, as the service dagster-storage does it, before two processes would at once.

    It is left as patient as it is: where a run takes longer to start than it may, none ever archives anything.
    """
    home = directory / "storage"
    home.mkdir()
    shutil.copy(CHECKOUT / "docker" / "dagster.yaml", home)
    program = str(Path(command()[0]).with_name("dagster"))
    subprocess.run(
        [program, "instance", "migrate"],
        env={**environ, "DAGSTER_HOME": str(home)},
        cwd=home,
        check=True,
        capture_output=True,
    )
    return home / "dagster.yaml"


def _of_dagster(address: StackAddress) -> dict[str, str]:
    database = urlsplit(address.database_url)
    return {
        "HOP_ARCHIVE_SOURCE": "dagster",
        "HOP_ARCHIVE_DATABASE": "here",
        "HOP_ARCHIVE_STORE": "here",
        "HOP_ARCHIVE_LONGEST_WAIT_S": "2",
        "HOP_ARCHIVE_FOLLOW_S": "20",
        "HOP_ARCHIVE_SIGN_OF_LIFE_S": "120",
        "DAGSTER_POSTGRES_HOST": str(database.hostname),
        "DAGSTER_POSTGRES_PORT": str(database.port),
        "DAGSTER_POSTGRES_USER": str(database.username),
        "DAGSTER_POSTGRES_PASSWORD": str(database.password),
        "DAGSTER_POSTGRES_DB": "dagster",
        "DAGSTER_LOGS_BUCKET": address.bucket,
        "AWS_ENDPOINT_URL_S3": address.s3_endpoint,
        "AWS_ACCESS_KEY_ID": address.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": address.s3_secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
