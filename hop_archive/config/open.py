"""From stanzas to an archive: the one place where a configuration becomes real or mock parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.config.apprise import open_services, ping
from hop_archive.config.aws import databases, secrets
from hop_archive.config.kafka import access
from hop_archive.config.load import Configuration, StanzaSelection
from hop_archive.config.stanzas import (
    AlertStanza,
    DatabaseStanza,
    KafkaSourceStanza,
    PostgresStanza,
    S3Stanza,
    SourceStanza,
    StoreStanza,
)
from hop_archive.errors import ForbiddenError, needing_extra
from hop_archive.model.limits import Limits
from hop_archive.model.notification import Service
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Source
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Store
from hop_archive.store.s3.store import S3Store

Found = TypeVar("Found")

Permission = Literal["look", "clean", "delete"]
"""What a removal may do: look only; take test messages away; take any away."""


def open_archive(
    configuration: Configuration,
    selection: StanzaSelection,
    environ: Mapping[str, str] = os.environ,
    limits: Limits | None = None,
    run_id: str = "",
) -> Archive:
    """The archive that a selection of stanzas means. Nothing is connected yet.

    Raises:
        ConfigurationError: A stanza is not there, or a variable that it names is not set.
    """
    source = configuration.source(selection.source).resolved(environ)
    store = configuration.store(selection.store).resolved(environ)
    database = configuration.database(selection.database).resolved(environ)
    bounds = limits or Limits()
    return Archive(
        source=open_source(selection.source, source, environ),
        catalog=open_catalog(selection.database, database, environ),
        store=open_store(selection.store, store, environ),
        topics=source.policy(),
        layouts=store.layout_policy(),
        text_topics=database.index_text,
        limits=replace(bounds, batch_bytes=min(bounds.batch_bytes, store.segment_mebibytes * 1024 * 1024)),
        run_id=run_id,
    )


def open_source(name: str, stanza: SourceStanza, environ: Mapping[str, str] = os.environ) -> Source:
    """The source that a stanza means.

    Raises:
        MissingSettingError: It is Kafka, and the extra ``kafka`` is not installed.
    """
    stanza = stanza.resolved(environ)
    if not isinstance(stanza, KafkaSourceStanza):
        return MockSource(name, writable=stanza.writable, directory=_directory(stanza.directory))
    with needing_extra("kafka"):
        from hop_archive.source.kafka.source import KafkaSource
    return KafkaSource(
        name,
        bootstrap_servers=stanza.bootstrap_servers,
        writable=stanza.writable,
        group_id=stanza.group_id,
        access=access(stanza, environ),
        fetch_bytes=stanza.fetch_mebibytes * 1024 * 1024,
        renew=_anew(lambda: access(stanza, environ)),
    )


def open_catalog(name: str, stanza: DatabaseStanza, environ: Mapping[str, str] = os.environ) -> Catalog:
    """The catalog that a stanza means."""
    stanza = stanza.resolved(environ)
    if not isinstance(stanza, PostgresStanza):
        return MockCatalog(name, directory=_directory(stanza.directory))
    return PostgresCatalog(
        name,
        stanza.dsn(environ).get_secret_value(),
        schema=stanza.schema_name,
        # Whoever reads a stream of rows may have to ask something else meanwhile.
        pool_size=max(2, stanza.pool_size),
        renew=_anew(lambda: stanza.dsn(environ).get_secret_value()),
    )


def _anew(ask: Callable[[], Found]) -> Callable[[], Found]:
    """``ask``, for a login that was refused: what is remembered of AWS is the one that was."""

    def asked() -> Found:
        secrets.forget()
        databases.forget()
        return ask()

    return asked


def open_store(name: str, stanza: StoreStanza, environ: Mapping[str, str] = os.environ) -> Store:
    """The store that a stanza means."""
    stanza = stanza.resolved(environ)
    if not isinstance(stanza, S3Stanza):
        directory = _directory(stanza.directory)
        return MockStore(name, directory=directory, deleting_allowed=stanza.deleting_allowed)
    keys = stanza.access_keys(environ)
    return S3Store(
        name,
        bucket=stanza.bucket,
        endpoint=stanza.endpoint,
        region=stanza.region,
        prefix=stanza.prefix,
        access_key=keys.access_key if keys else None,
        secret_key=keys.secret_key if keys else None,
        profile=stanza.profile,
        concurrency=stanza.put_concurrency,
        deleting_allowed=stanza.deleting_allowed,
    )


def open_alert(
    name: str, stanza: AlertStanza, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[Service, ...], Callable[[], str] | None]:
    """The services that an alert stanza tells, and what asks for its ``ping_url``, None without one. Nothing is connected, but AWS where a secret has the URLs.

    Raises:
        ConfigurationError: A URL is none that Apprise takes, or a variable, a secret or the extra ``monitoring`` is missing.
        UnavailableError: AWS does not answer.
    """
    stanza = stanza.resolved(environ)
    services = tuple(open_services(name, stanza.all_urls(environ), stanza.label))
    return services, partial(ping, stanza.ping_url) if stanza.ping_url.get_secret_value() else None


def open_for_removal(
    configuration: Configuration,
    selection: StanzaSelection,
    permission: Permission,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Catalog, Store, Store | None]:
    """Catalog, store and backup for a removal. The store deletes only where both stanzas permit what is to be done; the backup too.

    Raises:
        ForbiddenError: A stanza does not permit it; to clean, also where the source stanza is a production one.
        ConfigurationError: A stanza is not there, or a variable that it names is not set.
    """
    database, store = configuration.database(selection.database), configuration.store(selection.store)
    if permission != "look":
        _permit("database", selection.database, database, permission)
        _permit("store", selection.store, store, permission)
    if permission == "clean" and configuration.source(selection.source).production:
        raise ForbiddenError(
            f"Source {selection.source} is a production one: nothing of its archive is cleaned up.",
            remedy="Name another source; a production archive has no test topics to clean.",
            source=selection.source,
        )
    # What is deleted through these is a pending delete of the very command that asked for the permission.
    deleting = store.resolved(environ).model_copy(update={"deleting_allowed": permission != "look"})
    return (
        open_catalog(selection.database, database, environ),
        open_store(selection.store, deleting, environ),
        _open_backup(selection.store, deleting, environ),
    )


def _permit(kind: str, name: str, stanza: DatabaseStanza | StoreStanza, permission: Permission) -> None:
    key = "cleaning_allowed" if permission == "clean" else "deleting_allowed"
    if not getattr(stanza, key):
        raise ForbiddenError(
            f"The stanza of {kind} {name} does not say {key} = true.",
            remedy="Nothing was removed. Set it there if that is really wanted.",
            stanza=name,
        )


def open_backup(name: str, stanza: StoreStanza, environ: Mapping[str, str] = os.environ) -> Store | None:
    """The backup bucket of a store stanza, read-only to us; None where it has none."""
    stanza = stanza.resolved(environ)
    return _open_backup(name, stanza.model_copy(update={"deleting_allowed": False}), environ)


def backup_grace_s(stanza: StoreStanza, environ: Mapping[str, str] = os.environ) -> float:
    """How long a copy may take to get into the backup bucket of a store stanza before it counts as missing there."""
    stanza = stanza.resolved(environ)
    return stanza.backup_grace_minutes * 60 if isinstance(stanza, S3Stanza) else 0.0


def _open_backup(name: str, stanza: StoreStanza, environ: Mapping[str, str]) -> Store | None:
    if not isinstance(stanza, S3Stanza) or not stanza.backup_bucket:
        return None
    backup = {"bucket": stanza.backup_bucket, "backup_bucket": ""}
    return open_store(f"{name} (backup)", stanza.model_copy(update=backup), environ)


def _directory(text: str) -> Path | None:
    return Path(text) if text else None
