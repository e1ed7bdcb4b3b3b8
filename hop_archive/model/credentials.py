"""Who to be towards a server, and the proof of it: in values that show no secret. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Login:
    """Who to be, and the proof of it."""

    username: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """A pair of keys for an S3 API."""

    access_key: str
    secret_key: SecretStr


@dataclass(frozen=True, slots=True)
class Token:
    """What stands for a login until it ends, in seconds since the epoch."""

    text: SecretStr
    ends_at_s: float


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """How a Kafka cluster is to be trusted, and be told who comes. Equal ones let in alike.

    Attributes:
        settings: librdkafka's, as ``security.protocol``.
        secrets: Those that no log or message may show, as ``sasl.password``.
        digest: Differs where the files that settings name have other contents.
        token: Makes a new token each time, for OAUTHBEARER; None where librdkafka needs none of ours.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    digest: str = ""
    token: Callable[[], Token] | None = field(default=None, compare=False)
