"""Further listeners of an Apache Kafka for tests: TLS, client certificates and logins, each as right or wrong as asked."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hop_archive_tests.kafka.broker import ApacheKafka, free_ports

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
PASSWORD = "right-password"
REAUTHENTICATE_MS = 3_000
"""After how long a client that logged in by SCRAM-SHA-512 has to do so again: by then a changed password is noticed."""
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
_PROTOCOLS = {
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "EXPIRED": "SSL",
    "OTHERNAME": "SSL",
    "LOGIN": "SASL_SSL",
    "CLEAR": "SASL_PLAINTEXT",
}


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where the listeners are, and what a client needs to be let in by them.

    Each is at ``127.0.0.1`` and has a certificate of one private authority, for that address, unless its name says otherwise:
    ``TLS``, ``MUTUAL`` (wants a client's certificate), ``EXPIRED``, ``OTHERNAME``, ``LOGIN`` (SASL over TLS), ``CLEAR`` (SASL
    without). The logins are PLAIN, SCRAM and OAUTHBEARER, which believes JSON web tokens that nobody signed.

    Attributes:
        directory: Where the files are.
        ports: By name.
        authority: Who signed the brokers' certificates, and those of clients that are let in.
    """

    directory: Path
    ports: dict[str, int]
    authority: trustme.CA = field(default_factory=trustme.CA)

    def server(self, name: str) -> str:
        """The address of a listener."""
        return f"127.0.0.1:{self.ports[name]}"

    @property
    def ca(self) -> Path:
        """The file of the authority."""
        file = self.directory / "ca.pem"
        self.authority.cert_pem.write_to_path(file)
        return file

    def client(
        self,
        by: trustme.CA | None = None,
        not_after: datetime.datetime | None = None,
        key_password: str = "",
    ) -> tuple[Path, Path]:
        """Files of a client's certificate and its key, signed by ``by`` or by the authority that is believed."""
        made = (by or self.authority).issue_cert("client@example.org", not_after=not_after)
        certificate, key = self.directory / "client.pem", self.directory / "client.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(_pkcs8(made, key_password))
        return certificate, key


def add_listeners(
    kafka: ApacheKafka,
    directory: Path,
    names: Collection[str] = _PROTOCOLS.keys(),
    authority: trustme.CA | None = None,
) -> Listeners:
    """Give these listeners to a broker that has not been started yet, beside the one without any protection.

    Brokers of one cluster have one ``authority``, and a ``directory`` each.
    """
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    found = Listeners(directory, ports, authority or trustme.CA())
    places = kafka._places()
    listeners = ",".join([places["listeners"], *(f"{name}://{found.server(name)}" for name in names)])
    used = {name: _PROTOCOLS[name] for name in names}
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **used}
    kafka._properties.update(
        {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(
                f"{name}:{value}" for name, value in protocols.items()
            ),
            "listener.name.mutual.ssl.client.auth": "required",
            # Or else a client may stay for as long as its connection does, whatever becomes of its token.
            "listener.name.login.oauthbearer.connections.max.reauth.ms": "60000",
            "listener.name.login.scram-sha-512.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        }
    )
    validator = "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    for name in {"login", "clear"} & {name.lower() for name in names}:
        jaas = {
            "plain": f'{_PLAIN} required user_alice="{PASSWORD}";',
            "scram-sha-256": f"{_SCRAM} required;",
            "scram-sha-512": f"{_SCRAM} required;",
            "oauthbearer": f"{_OAUTH} required;",
        }
        for mechanism, text in jaas.items():
            kafka._properties[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = text
        kafka._properties[f"listener.name.{name}.oauthbearer.sasl.server.callback.handler.class"] = validator
    _give_certificates(kafka, found, used)
    return found


def _give_certificates(kafka: ApacheKafka, found: Listeners, protocols: Mapping[str, str]) -> None:
    for name, protocol in protocols.items():
        if protocol.endswith("SSL"):
            made = found.authority.issue_cert(
                "another.example.org" if name == "OTHERNAME" else "127.0.0.1",
                not_after=LONG_AGO if name == "EXPIRED" else None,
            )
            store = found.directory / f"{name}.pem"
            store.write_bytes(_pkcs8(made) + b"".join(blob.bytes() for blob in made.cert_chain_pems))
            prefix = f"listener.name.{name.lower()}.ssl"
            kafka._properties |= {
                f"{prefix}.keystore.type": "PEM",
                f"{prefix}.keystore.location": str(store),
                f"{prefix}.truststore.type": "PEM",
                f"{prefix}.truststore.location": str(found.ca),
            }


def _pkcs8(made: trustme.LeafCert, password: str = "") -> bytes:
    """The key in the one form that Java takes."""
    key = load_pem_private_key(made.private_key_pem.bytes(), None)
    hidden = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


def add_scram_login(kafka: ApacheKafka) -> None:
    """Have alice log in by SCRAM, too, with the same password."""
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        login = UserScramCredentialUpsertion("alice", ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        client.alter_user_scram_credentials([login])["alice"].result(20)
