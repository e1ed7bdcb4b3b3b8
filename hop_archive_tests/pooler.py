"""PgBouncer in transaction mode in front of a test's database, with as few sessions of the server as are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.devkit.local.machine import LOOPBACK, choose_ports
from hop_archive_tests.conftest import unavailable

DEADLINE_S = 120.0

_SETTINGS = """
[databases]
* = host={host} port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = {loopback}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_db_connections = {sessions}
min_pool_size = 0
{account}
"""


@contextmanager
def pooled(url: str, directory: Path, sessions: int = 1) -> Iterator[str]:
    """The address of a pooler that shares this many sessions of the server among all who connect."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        unavailable("pgbouncer is not installed (apt install pgbouncer)")
    assert program is not None
    told = conninfo_to_dict(url)
    (port,) = choose_ports(1)
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(
            host=told["host"],
            server_port=told["port"],
            user=told["user"],
            password=told["password"],
            loopback=LOOPBACK,
            port=port,
            sessions=sessions,
            account="user = nobody" if os.geteuid() == 0 else "",  # it refuses to run as root
        )
    )
    with (directory / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, settings], stdout=log, stderr=log)
    address = make_conninfo(url, host=LOOPBACK, port=port, password="not asked for")
    try:
        _await(address, process, directory)
        yield address
    finally:
        process.terminate()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            psycopg.connect(address, connect_timeout=2).close()
        except psycopg.OperationalError:
            log = (directory / "pgbouncer.log").read_text()
            assert process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        else:
            return
