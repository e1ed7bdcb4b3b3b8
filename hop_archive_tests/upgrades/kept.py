"""What older versions left behind: the files that ``make.py`` wrote, a folder a version, and how they are opened again."""

from __future__ import annotations

import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

HERE = Path(__file__).parent
BUCKET = "hop-archive-kept"
"""What the bucket is called in what is kept; who opens it calls it as is wanted there."""
COMMIT = "commit"
STANZAS = """
[source.kept]
type = "mock"
directory = "{directory}/source"
samples = 45
veto = ["lvk.*", "sys.*"]
writable = true

[database.kept]
type = "postgres"
url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
cleaning_allowed = true
deleting_allowed = true

[store.kept]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
backup_bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}-backup"
backup_grace_minutes = 0
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
layouts = {{"gcn.*" = "segment", "ztf.*" = "segment"}}
{compressions}
cleaning_allowed = true
deleting_allowed = true
"""
"""The configuration that the archive was made with, and is opened with."""

DAGSTER_YAML = """
telemetry: {enabled: false}
storage:
  postgres:
    postgres_db:
      scheme: postgresql+psycopg2
      hostname: {env: DAGSTER_POSTGRES_HOST}
      port: {env: DAGSTER_POSTGRES_PORT}
      username: {env: DAGSTER_POSTGRES_USER}
      password: {env: DAGSTER_POSTGRES_PASSWORD}
      db_name: {env: DAGSTER_POSTGRES_DB}
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
"""


def dagster_environment(url: str) -> dict[str, str]:
    """Where Dagster's storage is, as ``DAGSTER_YAML`` asks for it."""
    told = conninfo_to_dict(url)
    named = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "db"}
    return {f"DAGSTER_POSTGRES_{ours.upper()}": str(told[theirs]) for theirs, ours in named.items()}


def export(commit: str, folder: Path) -> bool:
    """Write the code of a commit into a folder; false where git does not have it."""
    packed = subprocess.run(["git", "archive", commit], cwd=HERE.parents[1], capture_output=True, check=False)
    if packed.returncode == 0:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
            tar.extractall(folder, filter="data")
    return packed.returncode == 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What one version left behind.

    Attributes:
        version: Its name: a release's.
    """

    version: str

    def __str__(self) -> str:
        return self.version

    @property
    def folder(self) -> Path:
        """Where it is."""
        return HERE / self.version

    @property
    def commit(self) -> str:
        """The version's code, as git names it."""
        return (self.folder / COMMIT).read_text().strip()

    def write(self, name: str, content: bytes) -> None:
        """Keep a file, compressed."""
        (self.folder / f"{name}.xz").write_bytes(lzma.compress(content, preset=9))

    def read(self, name: str) -> bytes:
        """A file that was kept."""
        return lzma.decompress((self.folder / f"{name}.xz").read_bytes())

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Key and bytes of every object, in the order in which they were stored."""
        with tarfile.open(fileobj=BytesIO(self.read("store.tar"))) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                assert file is not None
                yield entry.name, file.read()

    def export(self, folder: Path) -> bool:
        """Write the version's code into a folder; false where git's history does not reach back to it."""
        return export(self.commit, folder)

    def fill(self, url: str, database: str, bucket: str = BUCKET) -> None:
        """Bring a database, ``catalog`` or ``dagster``, into an empty one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(self.read(f"{database}.sql").decode().replace(BUCKET, bucket).encode())


def all_kept() -> list[Kept]:
    """Of each version."""
    return [Kept(path.parent.name) for path in sorted(HERE.glob(f"*/{COMMIT}"))]
