"""The types of stanzas' values, with what each wants. Pure.

Text may hold ``${NAME}`` or ``${NAME:-default}``; such text is checked when it has its value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from hop_archive.config import environment
from hop_archive.config.validation import Context
from hop_archive.model.topics import PATTERN_RULE, Compression, Layout, is_pattern

Security = Literal[
    "plaintext",
    "tls",
    "sasl-plain",
    "sasl-scram-sha-256",
    "sasl-scram-sha-512",
    "sasl-oauthbearer",
    "sasl-msk-iam",
]
SslMode = Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
Level = Literal["debug", "info", "warning", "error", "critical"]


def _is_resolved(info: ValidationInfo) -> bool:
    return isinstance(info.context, Context) and info.context.resolved


def _well_formed(text: str, info: ValidationInfo) -> str:
    if not _is_resolved(info) and not environment.is_well_formed(text):
        raise ValueError("wanted each '${' to begin ${NAME} or ${NAME:-default}")
    return text


def _wanted(accepts: Callable[[str], object], rule: str) -> AfterValidator:
    """Check text, once it has no variable left in it. The reporter adds what was found instead."""

    def check(text: str, info: ValidationInfo) -> str:
        pending = environment.has_variable(text) and not _is_resolved(info)
        if not pending and not accepts(text):
            raise ValueError(f"wanted {rule}")
        return text

    return AfterValidator(check)


def _wanted_at_once(accepts: Callable[[str], object], rule: str) -> AfterValidator:
    """Check text that may hold no variable: a key of a table, or a name that stands for a value already."""

    def check(text: str) -> str:
        if not accepts(text):
            raise ValueError(f"wanted {rule}")
        return text

    return AfterValidator(check)


_SERVER = r"(?:[^\s,:@/\[\]]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"
_SERVERS = re.compile(f"{_SERVER}(,{_SERVER})*")
_ENDPOINT = re.compile(r"(https?://[^\s/@?#]+/?)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([^/\s]+(/[^/\s]+)*)?")
# Upper case only: a secret pasted where a variable's name belongs is then refused, and its text never shown.
_ENV_NAME = re.compile(r"([A-Z_][A-Z0-9_]*)?")
URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?(?P<hosts>[^@/?#\s]*)"
    r"(?:/(?P<name>[^@/?#\s]*))?(?:\?(?P<options>(?!\S*\bpassword=)[^@#\s]*))?"
)
_URL_RULE = "postgresql://user@host:port/name, with special characters percent-encoded"
_INLINE_PASSWORD = re.compile(r"://[^:@/\s]*:[^@/\s]+@|\bpassword=[^&]")


def leaves_this_machine(servers: str) -> bool:
    """Whether a host among ``host:port,host:port`` is another one than this, as far as its name or address says."""

    def is_here(host: str) -> bool:
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() == "localhost"

    return not all(is_here(server.rpartition(":")[0].strip("[]")) for server in servers.split(","))


def _url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    return _without_secret(url, info, URL, _URL_RULE, "name the variable that holds it in password_env")


def _without_secret(
    url: SecretStr,
    info: ValidationInfo,
    accepts: re.Pattern[str],
    rule: str,
    instead: str = "name the variable that holds it, as ${NAME}",
) -> SecretStr:
    text = url.get_secret_value()
    if not _is_resolved(info):
        _well_formed(text, info)
        if _INLINE_PASSWORD.search(environment.written_out(text)):
            raise ValueError(f"secrets are not kept in TOML; {instead}")
        if environment.has_variable(text):
            return url
    if text and not accepts.fullmatch(text):
        raise ValueError(f"wanted {rule}")
    return url


def _alert_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    return _without_secret(
        url, info, re.compile(r"[A-Za-z][A-Za-z0-9+]*://\S+"), "a URL as Apprise has them: scheme://…"
    )


def _ping_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    return _without_secret(url, info, re.compile(r"https?://\S+"), "https://host/path")


Text = Annotated[str, AfterValidator(_well_formed)]
Pattern = Annotated[Text, _wanted(is_pattern, PATTERN_RULE)]
# TOML has lists, Python has tuples that stay as they are.
Patterns = Annotated[tuple[Pattern, ...], Field(strict=False)]
Layouts = dict[Annotated[str, _wanted_at_once(is_pattern, PATTERN_RULE)], Layout]
Compressions = dict[Annotated[str, _wanted_at_once(is_pattern, PATTERN_RULE)], Compression]
EnvName = Annotated[
    str, _wanted_at_once(_ENV_NAME.fullmatch, "the name of an environment variable, in capitals")
]
Servers = Annotated[Text, _wanted(_SERVERS.fullmatch, "host:port[,host:port...]")]
WebAddress = Annotated[
    Text,
    _wanted(re.compile(r"(https?://[^\s@#]+)?").fullmatch, "https://host/path, without a name or a password"),
]
TokenEndpoint = WebAddress
AlertUrl = Annotated[SecretStr, AfterValidator(_alert_url)]
PingUrl = Annotated[SecretStr, AfterValidator(_ping_url)]
Endpoint = Annotated[Text, _wanted(_ENDPOINT.fullmatch, "http://host:port or https://host:port")]
Bucket = Annotated[Text, _wanted(_BUCKET.fullmatch, "a bucket's name")]
OptionalBucket = Annotated[Text, _wanted(lambda text: not text or _BUCKET.fullmatch(text), "a bucket's name")]
Prefix = Annotated[Text, _wanted(_PREFIX.fullmatch, "a prefix with no '/' at either end")]
Filled = Annotated[Text, _wanted(bool, "text that is not empty")]
Url = Annotated[SecretStr, AfterValidator(_url)]
