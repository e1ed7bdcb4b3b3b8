"""Resources, all over the same selected stanzas; and how errors of the core become failures of Dagster's."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.config import logs
from hop_archive.config.load import Configuration, StanzaSelection, load, select
from hop_archive.config.open import (
    Permission,
    backup_grace_s,
    open_archive,
    open_backup,
    open_for_removal,
    open_source,
)
from hop_archive.config.stanzas import MockSourceStanza
from hop_archive.errors import ForbiddenError, HopArchiveError
from hop_archive.model.limits import Limits
from hop_archive.model.topics import TopicPolicy
from hop_archive.orchestration.pacing import Pacing
from hop_archive.source.protocol import Source
from hop_archive.store.protocol import Store
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S

log = logging.getLogger(__name__)

_MOCK_DIRECTORY = "HOP_ARCHIVE_MOCK_DIR"


@contextmanager
def as_failures() -> Iterator[None]:
    """Turn a ``HopArchiveError`` into a ``Failure`` with its facts, to be retried only where that can help.

    What stands behind it goes to the log, at DEBUG, as the command line shows it with ``--debug`` alone. Dagster would keep and show
    that with each tick of an outage, every five seconds, and its daemon prints it twice: 12 KB a tick, 7 without (2026-11-30).
    """
    try:
        yield
    except HopArchiveError as error:
        log.debug("%s", error, exc_info=True)
        raise dg.Failure(
            description=str(error),
            metadata={name: str(value) for name, value in error.facts.items()},
            allow_retries=error.retryable,
        ) from None


class SelectedStanzas(NamedTuple):
    """The configuration, the stanzas of it that are selected, and the environment that they are resolved in."""

    configuration: Configuration
    selection: StanzaSelection
    environ: Mapping[str, str]


class StanzasResource(dg.ConfigurableResource["StanzasResource"]):
    """Which stanzas all resources work on: what is archived to a store is verified against that store's backup.

    Each field that is left empty is taken from the environment (HOP_ARCHIVE_TOML, _SOURCE, _DATABASE, _STORE)
    when a resource is made, else from the defaults, which are mocks. Others are said at launch, or by
    ``build_definitions(stanzas=StanzasResource.configure_at_launch(store=...))``.
    """

    toml_file: str = Field(
        default="", description="Configuration file; empty: HOP_ARCHIVE_TOML, else ./hop_archive.toml."
    )
    source: str = Field(default="", description="Source stanza; empty: HOP_ARCHIVE_SOURCE, else a mock.")
    database: str = Field(
        default="", description="Database stanza; empty: HOP_ARCHIVE_DATABASE, else a mock."
    )
    store: str = Field(default="", description="Store stanza; empty: HOP_ARCHIVE_STORE, else a mock.")

    def configuration(self, environ: Mapping[str, str]) -> Configuration:
        """All stanzas, as the file has them now.

        Raises:
            ConfigurationError: Something is wrong with the file.
        """
        return load(Path(self.toml_file) if self.toml_file else None, environ)

    def selected(self) -> SelectedStanzas:
        """The stanzas that are selected now.

        Raises:
            ConfigurationError: One is not there, or a mock is mixed with what lasts and was not named.
        """
        # Sensors and runs are processes of their own: mocks that they are to share must be in a directory.
        mocks = Path(tempfile.gettempdir()) / f"hop_archive-mock-{os.getuid()}"
        environ = {_MOCK_DIRECTORY: str(mocks), **os.environ}
        configuration = self.configuration(environ)
        selection = select(
            configuration, self.source or None, self.database or None, self.store or None, environ=environ
        )
        selection.refuse_unnamed("source", "database", "store")
        return SelectedStanzas(configuration, selection, environ)


_started_logs: set[str] = set()
"""The log stanzas by which hop_archive's own lines are sent: once a process, which has several ticks at once."""


class ArchiveResource(dg.ConfigurableResource[Archive]):
    """The archive of the selected stanzas. Nothing is connected before it is used."""

    stanzas: StanzasResource
    memory_mebibytes: int = Field(
        default=512, ge=64, description="Bound on the messages and documents that a run holds, in MiB."
    )
    run_messages: int = Field(default=200_000, ge=1, description="Most messages that one run takes on.")
    batch_messages: int = Field(
        default=10_000, ge=1, description="Most messages in one segment and one catalog transaction."
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Archive]:
        """The archive, closed when the run or tick is over."""
        with as_failures():
            configuration, selection, environ = self.stanzas.selected()
            limits = replace(
                Limits.within(self.memory_mebibytes * 1024 * 1024),
                run_messages=self.run_messages,
                batch_messages=self.batch_messages,
            )
            run_id = context.run.run_id if context.run else ""
            if selection.log_from != "default":
                if selection.log not in _started_logs:
                    _started_logs.add(selection.log)
                    logs.configure(configuration.log(selection.log).resolved())
                logs.note_run(run_id)
            archive = open_archive(configuration, selection, environ, limits, run_id)
            stanza = configuration.source(selection.source).resolved(environ)
            if isinstance(stanza, MockSourceStanza):
                # Its first use: so that whoever tries this with no configuration at all sees alerts archived. Imported
                # here, since no run of a real source is to wait for what makes samples.
                from hop_archive.devkit.sampling import fill

                fill(archive.source, stanza)
        with closing(archive):
            yield archive


@dataclass(frozen=True, slots=True)
class Backup:
    """The backup of the archive's store, None where there is none; how long a copy may take to get there before it is missing."""

    store: Store | None = None
    grace_s: float = BACKUP_GRACE_S


class BackupResource(dg.ConfigurableResource[Backup]):
    """The backup bucket of the selected store; none where its stanza names none."""

    stanzas: StanzasResource

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Backup]:
        """The backup, closed when the run is over. Nothing is connected before it is used."""
        with as_failures():
            configuration, selection, environ = self.stanzas.selected()
            stanza = configuration.store(selection.store)
            store = open_backup(selection.store, stanza, environ)
        with closing(store) if store is not None else nullcontext():
            yield Backup(store, backup_grace_s(stanza, environ))


OpenRemoving: TypeAlias = Callable[[Permission, str], AbstractContextManager[Removing]]
"""Opens what a removal works on, for a permission and a run id, and closes it."""


class RemovingResource(dg.ConfigurableResource[OpenRemoving]):
    """How to open what a removal works on: the selected stanzas, as for the archive; each removal says what it may do."""

    stanzas: StanzasResource

    def create_resource(self, context: dg.InitResourceContext) -> OpenRemoving:
        """The opener; nothing is read or connected before it is called."""
        return self._opened

    @contextmanager
    def _opened(self, permission: Permission, run_id: str) -> Iterator[Removing]:
        configuration, selection, environ = self.stanzas.selected()
        parts = open_for_removal(configuration, selection, permission, environ)
        with closing(Removing(*parts, run_id=run_id)) as removing:
            yield removing


class Targets(dg.ConfigurableResource["Targets"]):
    """The sources that restores may write to: those of the configuration. Nothing is read before one is opened."""

    stanzas: StanzasResource

    def open(self, name: str, production: str) -> Source:
        """The source of that name.

        Raises:
            ForbiddenError: It is read-only; or it is production, and was not named twice.
            ConfigurationError: There is no such stanza, or a variable that it names is not set.
        """
        stanza = self.stanzas.configuration(os.environ).source(name)
        if not stanza.writable or (stanza.production and production != name):
            raise ForbiddenError(
                f"Source {name} is {'production' if stanza.writable else 'read-only'}: refused to restore to it.",
                remedy="Choose another, or name a production source in the field production, too.",
                source=name,
            )
        return open_source(name, stanza, os.environ)

    def policy(self, name: str) -> TopicPolicy:
        """What that source says about topics."""
        return self.stanzas.configuration(os.environ).source(name).resolved(os.environ).policy()


class PacingResource(dg.ConfigurableResource[Pacing]):
    """When the offsets sensor asks for a run: what the environment says, else the defaults."""

    def create_resource(self, context: dg.InitResourceContext) -> Pacing:
        """The rules, as the environment of the code server has them now."""
        with as_failures():
            return Pacing.from_environment(os.environ)
