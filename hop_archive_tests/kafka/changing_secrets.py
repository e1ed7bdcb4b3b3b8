"""Kafka's password, the database's and the keys of S3, as they are enforced and as the archive finds them; and what archives by them.

Who asks for them enforces each: Apache Kafka (SCRAM over TLS), Postgres (the archiver's role), and moto's S3 and IAM. The two
passwords are in Secrets Manager, as in production, and the keys in a profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from psycopg import sql

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.source.kafka.client import LOGGER
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.store.s3.store import S3Store
from hop_archive_tests.cli_helpers import environment
from hop_archive_tests.deployment.test_least_privilege import BUCKET, REGION, Buckets, buckets, shipped
from hop_archive_tests.deployment.test_roles import Server, server
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.listeners import Listeners

__all__ = ["buckets", "server"]

STANZAS = """
[source.here]
type = "kafka"
bootstrap_servers = "{bootstrap_servers}"
security = "sasl-scram-sha-512"
ssl_ca = "{ca}"
secret_name = "kafka-secret"
region = "{region}"
topics = ["{topic}"]

[database.here]
type = "postgres"
host = "{database.hostname}"
port = {database.port}
name = "{name}"
user = "{name}_archiver"
secret_name = "database-secret"
region = "{region}"

[store.here]
type = "s3"
endpoint = "{aws}"
region = "{region}"
bucket = "{bucket}"
profile = "store"
"""
REFUSALS = {
    "kafka": "Source here, .*Authentication failed.* Check the stanza's user name, password",
    "database": "database 'here' .*refuses the credentials.* Check the user and the password",
    "store": "Store here .*InvalidAccessKeyId.* Check the keys",
}
"""What tells of each that the old one is refused, and what to do. What stands behind another one is refused once that one lets in again."""


@dataclass(slots=True)
class Secrets:
    """The three of them, where they are enforced and where the archive finds them.

    Attributes:
        made: All that there ever were.
    """

    kafka: AdminClient
    database: Server
    buckets: Buckets
    directory: Path
    made: list[str] = field(default_factory=list)
    _held: dict[str, str] = field(default_factory=dict)
    _keys: tuple[str, str] = ("", "")

    @property
    def user(self) -> str:
        """As whom the archive logs in to Kafka."""
        return f"{self.database.name}-archiver"

    def change(self, life: str) -> None:
        """Change all three, and let nobody stay who came by the old ones; the archive is not given the new ones yet."""
        kafka, database = f"kafka-password-{life}", f"database-password-{life}"
        login = UserScramCredentialUpsertion(
            self.user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), kafka.encode()
        )
        self.kafka.alter_user_scram_credentials([login])[self.user].result(60)
        role = f"{self.database.name}_archiver"
        alter = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(database))
        with psycopg.connect(self.database.administrator, autocommit=True) as connection:
            connection.execute(alter)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
            )
        iam = self.buckets.client("iam")
        if self._keys[0]:
            iam.delete_access_key(UserName=self.user, AccessKeyId=self._keys[0])
            made = iam.create_access_key(UserName=self.user)["AccessKey"]
            self._keys = made["AccessKeyId"], made["SecretAccessKey"]
        else:
            self._keys = self.buckets.grant(self.user, {"archiver": shipped("archiver")})
        self._held = {
            "kafka": json.dumps({"username": self.user, "password": kafka}),
            "database": json.dumps({"username": role, "password": database}),
        }
        self.made += [kafka, database, self._keys[1]]

    def hand_over(self, what: str) -> None:
        """Put the present one where the archive finds it."""
        if what != "store":
            self.buckets.client("secretsmanager").put_secret_value(
                SecretId=f"{what}-secret", SecretString=self._held[what]
            )
            return
        sections = {"default": self.buckets.administrator, "store": self._keys}
        new = self.directory / "credentials.new"
        new.write_text(
            "".join(
                f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
                for name, (key, secret) in sections.items()
            )
        )
        new.replace(self.directory / "credentials")

    def store(self) -> S3Store:
        """The store, by the present keys."""
        key, secret = self._keys
        return S3Store(
            "here",
            bucket=BUCKET,
            endpoint=self.buckets.endpoint,
            region=REGION,
            access_key=key,
            secret_key=secret,
        )


@pytest.fixture
def secrets(
    broker: ApacheKafka, listeners: Listeners, server: Server, buckets: Buckets, tmp_path: Path
) -> Iterator[Secrets]:
    kafka = AdminClient({"bootstrap.servers": broker.bootstrap_servers}, logger=LOGGER)
    made = Secrets(kafka, server, buckets, tmp_path)
    for what in ("kafka", "database"):
        buckets.client("secretsmanager").create_secret(Name=f"{what}-secret", SecretString="none yet")
    made.change("old")
    for what in REFUSALS:
        made.hand_over(what)
    yield made
    gone = UserScramCredentialDeletion(made.user, ScramMechanism.SCRAM_SHA_512)
    kafka.alter_user_scram_credentials([gone])[made.user].result(60)


@pytest.fixture
def environ(secrets: Secrets, listeners: Listeners, topic: str, tmp_path: Path) -> Mapping[str, str]:
    """The environment of what archives ``topic`` by the stanzas ``here``, with these in the file that it names."""
    stanzas = tmp_path / "hop_archive.toml"
    stanzas.write_text(
        STANZAS.format(
            bootstrap_servers=listeners.server("LOGIN"),
            ca=listeners.ca,
            topic=topic,
            database=urlsplit(secrets.database.administrator),
            name=secrets.database.name,
            aws=secrets.buckets.endpoint,
            bucket=BUCKET,
            region=REGION,
        )
    )
    here = dict.fromkeys(("HOP_ARCHIVE_SOURCE", "HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"), "here")
    given = {
        "HOP_ARCHIVE_TOML": str(stanzas),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_ENDPOINT_URL": secrets.buckets.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    kept = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
    return {**kept, **here, **given}


@pytest.fixture
def source(broker: ApacheKafka) -> Iterator[KafkaSource]:
    """Where messages are published, which wants no login."""
    made = KafkaSource("plain", bootstrap_servers=broker.bootstrap_servers, writable=True)
    with closing(made):
        yield made


@pytest.fixture
def topic(source: KafkaSource, namespace: str) -> str:
    source.create_topic(namespace, 2)
    return namespace


@pytest.fixture
def catalog(server: Server) -> Iterator[PostgresCatalog]:
    """The catalog, as a reader has it."""
    with closing(PostgresCatalog("here", server.url("reader"))) as made:
        yield made
