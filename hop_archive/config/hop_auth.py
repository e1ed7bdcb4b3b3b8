"""hop-client's own file of credentials, ``auth.toml``: which of its entries is meant, and what that says. Never written.

As hop-client 0.13 has it, and each since 0.1: ``[[auth]]`` tables, or a single ``[auth]``, in ``auth.toml`` or in
``config.toml`` beside it, with ``username``, ``password`` and, it may be, ``hostname``, ``mechanism``, ``protocol``,
``ssl_ca_location``, ``token_endpoint`` and ``token_command``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from hop_archive.config.validation import alternatives
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError
from hop_archive.model.credentials import Login, Token

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_KEYS = (
    *("username", "password", "hostname", "mechanism", "protocol"),
    *("ssl_ca_location", "token_endpoint", "token_command"),
)
_COMMAND_S = 8.0
_DEFAULT_PORT = "9092"
_OTHERS_MAY = 0o7077  # what hop-client takes for unsafe
_ADDRESS = re.compile(r"(?P<host>[^\[:][^:]*|\[[^\]]+\])(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class Credential:
    """One entry.

    Attributes:
        login: Name and password; with OAUTHBEARER the client's id and secret.
        hostname: ``host`` or ``host:port`` that it is for; empty: any.
        mechanism: One of ``MECHANISMS``.
        tls: Whether the connection is to be secured.
        ssl_ca: File or directory of the authorities to believe; empty: this system's.
        token_endpoint: Where OAUTHBEARER gets its tokens, or empty.
        token_command: Command of the shell that prints one, where there is no endpoint.
    """

    login: Login
    hostname: str
    mechanism: str
    tls: bool
    ssl_ca: str
    token_endpoint: str
    token_command: str

    def __str__(self) -> str:
        return f"{self.login.username} for {self.hostname or 'any host'}"


def credential(file: Path, server: str, username: str = "", *, where: str) -> Credential:
    """Return the entry that hop-client would take for a server.

    One for that host beats one for any; a port that is not said is 9092.

    Args:
        file: ``auth.toml``.
        server: ``host:port``.
        username: Which user's; empty: there has to be only one that fits.
        where: The stanza and key that name the file, for messages.

    Raises:
        MissingSettingError: There is no such file, or no such entry in it.
        ForbiddenError: Others than its owner may read or write the file.
        ConfigurationError: It is not TOML, or has another form, or several entries fit. No message shows a password.
    """
    found = _credentials(file, where)
    named = [entry for entry in found if username in ("", entry.login.username)]
    exact = [entry for entry in named if entry.hostname and _is_for(entry.hostname, server)]
    fitting = exact or [entry for entry in named if not entry.hostname]
    whom = f"{username} at {server}" if username else server
    if not fitting:
        raise MissingSettingError(
            f"{where}: {file} has no credential of {whom}; it has {'; '.join(map(str, found)) or 'none'}.",
            remedy="Add one (hop auth add), or correct the stanza's bootstrap_servers or username.",
        )
    if len(fitting) > 1:
        raise ConfigurationError(
            f"{where}: {file} has several credentials of {whom}: {'; '.join(map(str, fitting))}.",
            remedy="Choose one: username = ... in the stanza; or remove what is too much (hop auth remove).",
        )
    (entry,) = fitting
    if entry.mechanism not in MECHANISMS:
        raise _wrong(file, where, f"{entry}: wanted a mechanism {alternatives(MECHANISMS)}")
    if entry.mechanism == "OAUTHBEARER" and not (entry.token_endpoint or entry.token_command):
        raise _wrong(file, where, f"{entry}: OAUTHBEARER wants a token_endpoint or a token_command")
    if not entry.login.password.get_secret_value() and (
        entry.mechanism != "OAUTHBEARER" or entry.token_endpoint
    ):
        raise _wrong(file, where, f"{entry}: there is no password")
    return entry


def command_s_tokens(command: str, where: str) -> Callable[[], Token]:
    """Return what makes tokens by a command of the shell, each a JSON web token on its output, as hop-client does.

    Raises:
        UnavailableError: Making a token: the command does not end.
        ForbiddenError: Making a token: it fails.
        ConfigurationError: Making a token: what it prints is none. No message shows any of its output.
    """

    def token() -> Token:
        printed = None
        with subprocess.Popen(  # noqa: S602 (hop-client's own file says what)
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as running:
            try:
                printed, _ = running.communicate(timeout=_COMMAND_S)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)  # what the shell started, too
        if printed is None:  # not in the handler: that error holds what was printed
            raise UnavailableError(
                f"{where}: token_command did not end within {_COMMAND_S:.0f} s.", remedy="Try it by hand."
            )
        if running.returncode:
            raise ForbiddenError(
                f"{where}: token_command failed, with exit code {running.returncode}.",
                remedy="Try it by hand: it may say why.",
            )
        with suppress(ValueError, KeyError, TypeError):  # of which none holds more than a part of a token
            text = printed.decode("ascii").strip()
            _, claims, _ = text.split(".")
            ends_at_s = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
            return Token(SecretStr(text), ends_at_s)
        raise ConfigurationError(
            f"{where}: token_command printed something else than a JSON web token with the moment that it ends (exp).",
            remedy="Try it by hand, and correct it in hop-client's file.",
        )

    return token


def _is_for(hostname: str, server: str) -> bool:
    entry, wanted = _ADDRESS.fullmatch(hostname), _ADDRESS.fullmatch(server)
    if entry is None or wanted is None:
        return hostname == server
    ports = {entry["port"] or _DEFAULT_PORT, wanted["port"] or _DEFAULT_PORT}
    return entry["host"] == wanted["host"] and len(ports) == 1


def _credentials(file: Path, where: str) -> list[Credential]:
    older = file.with_name("config.toml")  # where hop-client kept it before 0.4
    if not file.exists() and _table(older, where):
        file = older
    table = _table(file, where)
    if table is None:
        raise MissingSettingError(
            f"{where}: there is no file {file}.",
            remedy="Make it with hop-client (hop auth add), or name another one: hop auth locate tells where it is.",
        )
    entries = [table] if isinstance(table, dict) else table
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(file, where, "wanted tables [[auth]]")
    return [_entry(file, where, number, entry) for number, entry in enumerate(entries, 1)]


def _table(file: Path, where: str) -> object:
    """What the file says under ``auth``; None where there is no file, or nothing of that name in a ``config.toml``."""
    tables: dict[str, object] | None = None
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode & 0o7777
            # These hold the text, so none of ours may be raised while they are handled.
            with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError):
                tables = tomllib.load(opened)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise ConfigurationError(
            f"{where}: {file} is a directory.", remedy=f"Name the file in it: {file / 'auth.toml'}."
        ) from None
    except OSError as error:
        raise ForbiddenError(
            f"{where}: {file} cannot be read: {error.strerror}.",
            remedy="Have it belong to the user that runs this, or name another one.",
        ) from None
    if tables is None:
        raise _wrong(file, where, "it is not TOML")
    if "auth" not in tables and file.name == "config.toml":
        return None
    if mode & _OTHERS_MAY:
        raise ForbiddenError(
            f"{where}: others than its owner may read or write {file} (mode {mode:o}), and it holds passwords.",
            remedy=f"Run chmod 600 {file}; and change the passwords, if others had access to it.",
        )
    if "auth" not in tables:
        raise _wrong(file, where, "it has no table [[auth]]")
    return tables["auth"]


def _entry(file: Path, where: str, number: int, entry: Mapping[str, object]) -> Credential:
    text = {key: entry.get(key, "") for key in _KEYS}
    if wrong := [key for key, value in text.items() if not isinstance(value, str)]:
        raise _wrong(file, where, f"credential {number}: wanted text in {', '.join(wrong)}")
    said = {key: str(value) for key, value in text.items()}
    if not said["username"]:
        raise _wrong(file, where, f"credential {number} has no username")
    mechanism = said["mechanism"].replace("_", "-")
    if not mechanism:
        mechanism = "OAUTHBEARER" if said["token_endpoint"] or said["token_command"] else "SCRAM-SHA-512"
    tls = said["protocol"] != "SASL_PLAINTEXT"
    return Credential(
        Login(said["username"], SecretStr(said["password"])),
        said["hostname"],
        mechanism,
        tls,
        said["ssl_ca_location"] if tls else "",
        said["token_endpoint"],
        said["token_command"],
    )


def _wrong(file: Path, where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: {file}: {what}.", remedy="Have hop-client write it anew (hop auth add), or correct it."
    )
