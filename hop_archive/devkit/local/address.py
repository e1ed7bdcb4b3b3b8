"""Where the three servers are: what the stack hands out, and what it may be handed instead of starting one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from hop_archive.devkit.local.s3 import PRIMARY_BUCKET
from hop_archive.errors import MissingSettingError

ServerName: TypeAlias = Literal["kafka", "postgres", "s3"]

VARIABLE_OF: Mapping[ServerName, str] = {
    "kafka": "HOP_ARCHIVE_TEST_KAFKA",
    "postgres": "HOP_ARCHIVE_TEST_DATABASE_URL",
    "s3": "HOP_ARCHIVE_TEST_S3_ENDPOINT",
}
_S3_ACCESS_KEY = "HOP_ARCHIVE_TEST_S3_ACCESS_KEY"
_S3_SECRET_KEY = "HOP_ARCHIVE_TEST_S3_SECRET_KEY"  # noqa: S105 - a variable's name
_S3_BUCKET = "HOP_ARCHIVE_TEST_S3_BUCKET"


@dataclass(frozen=True, slots=True)
class StackAddress:
    """What a program needs in order to use the stack. Holds credentials, which its repr leaves out."""

    bootstrap_servers: str
    database_url: str = field(repr=False)
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    bucket: str

    def environment(self) -> dict[str, str]:
        """Return it as environment variables: ``HOP_ARCHIVE_LOCAL_`` and the field's name in capitals."""
        return {f"HOP_ARCHIVE_LOCAL_{name.upper()}": value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class External:
    """Servers that are there already, to be used instead of started ones; None where there is none.

    The three S3 fields after the endpoint are set where the endpoint is.
    """

    bootstrap_servers: str | None = None
    database_url: str | None = field(default=None, repr=False)
    s3_endpoint: str | None = None
    s3_access_key: str = ""
    s3_secret_key: str = field(default="", repr=False)
    bucket: str = PRIMARY_BUCKET

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> External:
        """Read ``HOP_ARCHIVE_TEST_…``; a variable that is empty counts as missing.

        Raises:
            MissingSettingError: An S3 endpoint is given without its keys.
        """
        endpoint = environment.get(VARIABLE_OF["s3"]) or None
        return cls(
            bootstrap_servers=environment.get(VARIABLE_OF["kafka"]) or None,
            database_url=environment.get(VARIABLE_OF["postgres"]) or None,
            s3_endpoint=endpoint,
            s3_access_key=_key(environment, _S3_ACCESS_KEY) if endpoint else "",
            s3_secret_key=_key(environment, _S3_SECRET_KEY) if endpoint else "",
            bucket=environment.get(_S3_BUCKET) or PRIMARY_BUCKET,
        )

    def gives(self, name: ServerName) -> bool:
        """Tell whether this server is given, so that none is started."""
        given = {"kafka": self.bootstrap_servers, "postgres": self.database_url, "s3": self.s3_endpoint}
        return given[name] is not None


def _key(environment: Mapping[str, str], variable: str) -> str:
    if not (value := environment.get(variable)):
        raise MissingSettingError(
            f"{VARIABLE_OF['s3']} is set but {variable} is not.",
            remedy=f"Set {variable} too, or neither to have an S3 server started.",
        )
    return value
