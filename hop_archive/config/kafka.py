"""How a Kafka stanza lets its source in: what its keys, its login or hop-client's file mean to librdkafka."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hop_archive.config import hop_auth
from hop_archive.config.aws import msk
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import ForbiddenError, MissingSettingError
from hop_archive.model.credentials import KafkaAccess

_OAUTH = "OAUTHBEARER"


def access(stanza: KafkaSourceStanza, environ: Mapping[str, str] = os.environ) -> KafkaAccess:
    """Return what the stanza says of it by now: its files are read, and whoever keeps its secrets is asked.

    Raises:
        MissingSettingError: A variable, a secret, a file or an extra is not there.
        ForbiddenError: A file may not be read; or one with passwords may be read by others; or a login would leave
            this machine unencrypted.
        ConfigurationError: hop-client's file has another form.
        UnavailableError: See ``stanza.login``.
    """
    stanza = stanza.resolved(environ)
    is_msk = stanza.security == "sasl-msk-iam"
    mechanism = (
        stanza.security.removeprefix("sasl-").upper() if stanza.has_login else _OAUTH if is_msk else ""
    )
    tls = stanza.tls and stanza.security != "plaintext"
    login, ssl_ca, token_endpoint = stanza.login(environ), stanza.ssl_ca, stanza.token_endpoint
    token_ca = stanza.token_ca
    tokens = msk.tokens(f"{stanza.label} security", stanza.region, stanza.profile) if is_msk else None
    named_by = {key: f"{stanza.label} {key}" for key in _PLACES}
    if stanza.hop_auth:
        where, file = f"{stanza.label} hop_auth", Path(stanza.hop_auth).expanduser()
        server = stanza.bootstrap_servers.partition(",")[0]
        entry = hop_auth.credential(file, server, stanza.username, where=where)
        login, mechanism, tls, token_endpoint = entry.login, entry.mechanism, entry.tls, entry.token_endpoint
        if mechanism == _OAUTH and not token_endpoint:
            tokens = hop_auth.command_s_tokens(entry.token_command, where)
        for key, said in (("ssl_ca", ssl_ca), ("token_ca", token_ca)):
            if not said:
                named_by[key] = f"{where}: {file}: ssl_ca_location of {entry}"
        ssl_ca = ssl_ca or entry.ssl_ca
        token_ca = token_ca or entry.ssl_ca  # hop-client takes its file for both
        if wrong := stanza.clear_text(tls=tls, token_endpoint=token_endpoint if mechanism == _OAUTH else ""):
            raise ForbiddenError(
                f"{where}: {wrong}, as {file} says.",
                remedy="Set cleartext_allowed = true in the stanza if that is really wanted; else correct the credential.",
            )
    protocol = ("sasl_" if mechanism else "") + ("ssl" if tls else "plaintext")
    files = (ssl_ca, stanza.ssl_certificate, stanza.ssl_key, token_ca)
    places = {key: Path(file).expanduser() for key, file in zip(_PLACES, files, strict=True) if file}
    settings = {"security.protocol": protocol, "sasl.mechanisms": mechanism}
    settings |= {_PLACES[key]: str(path) for key, path in places.items()}
    secrets = {}
    if password := stanza.key_password(environ):
        secrets["ssl.key.password"] = password
    if login and mechanism == _OAUTH and not tokens:
        settings |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": login.username,
            "sasl.oauthbearer.token.endpoint.url": token_endpoint,
            "sasl.oauthbearer.scope": stanza.token_scope,
        }
        secrets["sasl.oauthbearer.client.secret"] = login.password
        if not token_ca and urlsplit(token_endpoint).scheme.lower() == "https":
            settings[_PLACES["token_ca"]] = system_authorities()
    elif login and not tokens:
        settings["sasl.username"] = login.username
        secrets["sasl.password"] = login.password
    return KafkaAccess(
        {name: value for name, value in settings.items() if value},
        secrets,
        "".join(_digest(path, named_by[key]) for key, path in places.items()),
        tokens,
    )


def system_authorities() -> str:
    """Return the file, or else the directory, of the authorities that this system believes; empty where neither is there.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` win, as for all that uses OpenSSL. librdkafka cannot be left to find them for
    HTTPS: the libcurl of its wheels looks for RHEL's file alone, also where it is told to probe (2.16.0, 2026-11-29).
    """
    paths = ssl.get_default_verify_paths()
    # RHEL has such a directory without the names by which OpenSSL looks for an authority in it.
    hashed = paths.capath and any(Path(paths.capath).glob("*.[0-9]"))
    return paths.cafile or (paths.capath if hashed else None) or ""


_PLACES = {
    "ssl_ca": "ssl.ca.location",
    "ssl_certificate": "ssl.certificate.location",
    "ssl_key": "ssl.key.location",
    "token_ca": "https.ca.location",
}


def _digest(path: Path, where: str) -> str:
    """Tell a file's content from another one; a directory is its name."""
    try:
        return str(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingSettingError(
            f"{where}: there is no file {path}.",
            remedy="Correct its name, or put the file there.",
            path=str(path),
        ) from None
    except OSError as error:
        raise ForbiddenError(
            f"{where}: {path} cannot be read: {error.strerror}.",
            remedy="Have it readable by the user that runs this.",
            path=str(path),
        ) from None
