"""Why a broker and this client do not trust each other: a handshake of our own tells by code what librdkafka does not.

To librdkafka an unknown authority, an expired certificate and a wrong host name are one error (``_SSL``), a client's certificate
that the broker refuses is a broken connection, a port that speaks TLS to a client that does not is silence, and one that does not
to a client that does is a connection that was closed.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path

from hop_archive.model.credentials import KafkaAccess

_HANDSHAKE_S = 1.5
_ALERT_S = 0.7  # with TLS 1.3 a broker refuses the client's certificate after the handshake
# X.509 verification results of OpenSSL (x509_vfy.h).
_EXPIRED, _NOT_YET, _NAMES = 10, 9, (62, 63, 64)
# ApiVersions, version 0, of a client without a name: what every client of Kafka asks first, before any login.
_REQUEST = 0x686F70
_API_VERSIONS = struct.pack(">hhih", 18, 0, _REQUEST, -1)
_ANSWER = struct.Struct(">ii")  # its length, and the number of the request


@dataclass(frozen=True, slots=True)
class Distrust:
    """Who distrusts whom, and what to do."""

    what: str
    remedy: str


def distrust(server: str, access: KafkaAccess) -> Distrust | None:
    """Why a connection to ``server``, as ``host:port``, gets nowhere; None where TLS is not the reason, or cannot be asked.

    Takes three seconds or so at most. Sends the handshake, or asks a port without TLS for its versions; no login, no secret.
    """
    wants_tls = access.settings.get("security.protocol", "plaintext").lower().endswith("ssl")
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        context = _context(access, wants_tls)
        with socket.create_connection((host, int(port)), _HANDSHAKE_S) as connection:
            try:
                with context.wrap_socket(connection, server_hostname=host) as secured:
                    if not wants_tls:
                        return _speaks_tls(server)
                    secured.settimeout(_ALERT_S)
                    secured.recv(1)
            except ssl.SSLCertVerificationError as error:
                return _of_the_broker(server, error, access)
            except (ssl.SSLError, ConnectionError) as error:
                reason = getattr(error, "reason", None) or ""
                if "ALERT" in reason:
                    return _of_the_client(server, reason, access) if wants_tls else _speaks_tls(server)
                if wants_tls and _answers_in_the_clear(host, int(port)):
                    return Distrust(
                        f"The broker {server} speaks no TLS on this port, and this client does",
                        "Name a port with TLS in bootstrap_servers; or, in a network that you trust, set security to "
                        '"plaintext", or tls = false.',
                    )
    except (OSError, ValueError):
        return None
    return None


def _context(access: KafkaAccess, wants_tls: bool) -> ssl.SSLContext:
    settings, password = access.settings, access.secrets.get("ssl.key.password")
    context = ssl.create_default_context()
    if believed := settings.get("ssl.ca.location"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(**{"capath" if Path(believed).is_dir() else "cafile": believed})
    if not wants_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate := settings.get("ssl.certificate.location"):
        # Never None: OpenSSL would ask for it on the terminal.
        text = password.get_secret_value() if password else ""
        context.load_cert_chain(certificate, settings.get("ssl.key.location"), text)
    return context


def _speaks_tls(server: str) -> Distrust:
    return Distrust(
        f"The broker {server} speaks TLS on this port, and this client does not",
        'Set security to "tls", or to a "sasl-..." one without tls = false, or name a port without TLS in bootstrap_servers.',
    )


def _answers_in_the_clear(host: str, port: int) -> bool:
    """Whether a broker of Kafka says its versions there without TLS."""
    with socket.create_connection((host, port), _HANDSHAKE_S) as connection:
        connection.sendall(struct.pack(">i", len(_API_VERSIONS)) + _API_VERSIONS)
        answer = connection.recv(_ANSWER.size, socket.MSG_WAITALL)
    return len(answer) == _ANSWER.size and _ANSWER.unpack(answer)[1] == _REQUEST


def _of_the_broker(server: str, error: ssl.SSLCertVerificationError, access: KafkaAccess) -> Distrust:
    believed = access.settings.get("ssl.ca.location")
    why = f"no authority in {believed or 'this system'} signed its certificate"
    remedy = "Set ssl_ca to a file with the certificate of the authority that did, in PEM; whoever runs the broker has it."
    if error.verify_code in (_EXPIRED, _NOT_YET):
        why = f"its certificate {'has expired' if error.verify_code == _EXPIRED else 'is not valid yet'}"
        remedy = "Whoever runs the broker has to renew it; or set this machine's clock (date -u), if that is wrong."
    elif error.verify_code in _NAMES:
        why = "its certificate is for another name"
        remedy = (
            "Name the broker in bootstrap_servers (and in its own advertised.listeners) as its certificate does, or have it "
            "signed with this name."
        )
    return Distrust(
        f"This client does not trust the broker {server}: {why} ({error.verify_message.rstrip('.')})", remedy
    )


def _of_the_client(server: str, reason: str, access: KafkaAccess) -> Distrust:
    alert = reason.lower().replace("_", " ")
    if "ssl.certificate.location" in access.settings:
        return Distrust(
            f"The broker {server} does not trust this client: it refused the certificate of ssl_certificate ({alert})",
            "Renew the certificate, if it has expired; else have its authority added to those that the broker trusts.",
        )
    return Distrust(
        f"The broker {server} does not trust this client: it wants a certificate, and the stanza names none ({alert})",
        "Set ssl_certificate and ssl_key to the files of one that an authority signed which the broker trusts.",
    )
