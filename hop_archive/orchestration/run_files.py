"""How rows get from the step that wrote the objects to the step that catalogues them: by file, then gone.

Not in memory, so that a step tried again finds its input and a long run does not fill up; not in Dagster's own
storage, which would keep every row for good. A run whose files are gone is simply planned anew.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg

from hop_archive.catalog.records import Batch
from hop_archive.errors import ConfigurationError
from hop_archive.ingest.totals import TopicTotals
from hop_archive.model.slices import Slice
from hop_archive.orchestration.resources import as_failures
from hop_archive.shared_state import Plain, own_folder

_HANDED: Plain[Any] = Plain(list[Slice] | list[Batch] | dict[str, TopicTotals] | str)
"""What steps hand on."""

_KEPT_S = 24 * 3600
"""Left-overs of runs that were killed are swept after a day without a sign of life."""


class RunFilesIOManager(dg.ConfigurableIOManager):
    """Passes values from step to step of one run, on one machine."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value until its run is over."""
        path = _own_root().joinpath(*_parts(context))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_HANDED.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        """The value that an earlier step of this run, or of the one that it goes on with, kept."""
        assert context.upstream_output is not None
        path = _own_root().joinpath(*_parts(context.upstream_output))
        try:
            return _HANDED.loads(path.read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise dg.Failure(
                f"What the step before handed over is gone, or not whole: {path}.",
                metadata={"path": str(path)},
                allow_retries=False,
            ) from error


def keep(run_id: str) -> None:
    """Say that a run is not over: what it handed over is no left-over, however long ago that was."""
    with suppress(FileNotFoundError):  # a run that has handed nothing over yet
        os.utime(root() / run_id)


def discard(instance: dg.DagsterInstance, run_id: str, earlier: Iterable[str] = ()) -> None:
    """Let go of what a run handed over, and of what killed runs left behind.

    Nothing goes of another run that is not over, in this instance of Dagster or, as long as it shows signs of life
    (``keep``), in another one of this machine: not even after days. ``earlier`` runs are those that this one goes on with.
    """
    folder = _own_root()
    shutil.rmtree(folder / run_id, ignore_errors=True)
    for before in {*earlier} - {run_id}:
        if _is_over(instance, before):
            shutil.rmtree(folder / before, ignore_errors=True)
    for left in folder.glob("*"):
        with suppress(FileNotFoundError):  # another run sweeps, too
            if time.time() - left.stat().st_mtime > _KEPT_S and _is_over(instance, left.name):
                shutil.rmtree(left, ignore_errors=True)


def _is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def root() -> Path:
    """Where the files of all runs of this user are."""
    return Path(tempfile.gettempdir()) / f"hop_archive-runs-{os.getuid()}"


def _own_root() -> Path:
    """The same, there, and nobody else's: what is in it is believed, and swept."""
    with as_failures():
        try:
            return own_folder(root())
        except OSError as error:
            raise ConfigurationError(
                f"The folder {root()}, in which runs hand on what they do, cannot be used: {error.strerror}.",
                remedy="See what is there, and whether this user may write there; or name another place: TMPDIR.",
                path=str(root()),
            ) from error


def _parts(context: dg.OutputContext) -> list[str]:
    return [str(part) for part in context.get_identifier()]
