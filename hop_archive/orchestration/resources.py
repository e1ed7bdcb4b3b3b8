"""Resources: the archive of the selected stanzas, and how eager the sensor is."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.config.load import Configuration, Selection, load, select
from hop_archive.config.open import Permission, backup_grace_s, open_archive, open_backup, open_for_removal
from hop_archive.devkit.sampling import fill
from hop_archive.model.limits import Limits
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.pacing import Pacing
from hop_archive.orchestration.restoring import Targets
from hop_archive.orchestration.truth import Backup
from hop_archive.upkeep.remove.remove import Removing

_MOCK_DIRECTORY = "HOP_ARCHIVE_MOCK_DIR"


class SelectedStanzas(NamedTuple):
    """What stanzas mean: the configuration, those that are selected, and the environment that they are resolved in."""

    configuration: Configuration
    selection: Selection
    environ: Mapping[str, str]


class StanzasResource(dg.ConfigurableResource["StanzasResource"]):
    """Which stanzas are meant, by all resources: what is archived to a store is verified against that store's backup.

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

    def chosen(self) -> SelectedStanzas:
        """What they mean now.

        Raises:
            ConfigurationError: One is not there, or a mock is mixed with what lasts and was not named.
        """
        environ = _with_mock_directory(os.environ)
        configuration = load(Path(self.toml_file) if self.toml_file else None, environ)
        selection = select(
            configuration, self.source or None, self.database or None, self.store or None, environ=environ
        )
        selection.refuse_unnamed("source", "database", "store")
        return SelectedStanzas(configuration, selection, environ)


class ArchiveResource(dg.ConfigurableResource[Archive]):
    """The archive that the selected stanzas mean. Nothing is connected before it is used."""

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
        with told():
            archive = self._opened(context.run.run_id if context.run else "")
        try:
            yield archive
        finally:
            archive.close()

    def _opened(self, run_id: str) -> Archive:
        configuration, selection, environ = self.stanzas.chosen()
        limits = replace(
            Limits.within(self.memory_mebibytes * 1024 * 1024),
            run_messages=self.run_messages,
            batch_messages=self.batch_messages,
        )
        archive = open_archive(configuration, selection, environ, limits, run_id)
        # A mock's first use: so that whoever tries this with no configuration at all sees alerts archived.
        fill(archive.source, configuration.source(selection.source).resolved(environ))
        return archive


class BackupResource(dg.ConfigurableResource[Backup]):
    """The backup bucket of the selected store; none where its stanza names none."""

    stanzas: StanzasResource

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Backup]:
        """The backup, closed when the run is over. Nothing is connected before it is used."""
        with told():
            configuration, selection, environ = self.stanzas.chosen()
            stanza = configuration.store(selection.store)
            store = open_backup(selection.store, stanza, environ)
        try:
            yield Backup(store, backup_grace_s(stanza, environ))
        finally:
            if store is not None:
                store.close()


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
        configuration, selection, environ = self.stanzas.chosen()
        parts = open_for_removal(configuration, selection, permission, environ)
        with closing(Removing(*parts, run_id=run_id)) as removing:
            yield removing


class TargetsResource(dg.ConfigurableResource[Targets]):
    """The sources that restores may write to: those of the configuration."""

    stanzas: StanzasResource

    def create_resource(self, context: dg.InitResourceContext) -> Targets:
        """What opens them. Nothing is read yet."""
        return Targets(self.stanzas.toml_file)


class PacingResource(dg.ConfigurableResource[Pacing]):
    """When the offsets sensor asks for a run: what the environment says, else the defaults."""

    def create_resource(self, context: dg.InitResourceContext) -> Pacing:
        """The rules, as the environment of the code server has them now."""
        with told():
            return Pacing.from_environment(os.environ)


def _with_mock_directory(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Sensors and runs are processes of their own: mocks that they are to share must be in a directory."""
    directory = Path(tempfile.gettempdir()) / f"hop_archive-mock-{os.getuid()}"
    return {_MOCK_DIRECTORY: str(directory), **environ}
