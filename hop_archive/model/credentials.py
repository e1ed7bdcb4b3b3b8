"""Who to be towards a server, and the proof of it: in values that show no secret. Pure."""

from __future__ import annotations

from dataclasses import dataclass

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
