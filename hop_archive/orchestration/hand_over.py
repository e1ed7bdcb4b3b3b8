"""How rows get from the step that wrote the objects to the step that catalogues them: by file, then gone.

Not in memory, so that a step tried again finds its input and a long run does not fill up; not in Dagster's own
storage, which would keep every row for good. A run whose files are gone is simply planned anew.
"""

import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg

_KEPT_S = 24 * 3600
"""Left-overs of runs that were killed are swept after a day."""


class HandOver(dg.ConfigurableIOManager):
    """Passes values from step to step of one run, on one machine."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value until its run is over."""
        path = _own_root().joinpath(*_parts(context))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        """The value that an earlier step of this run, or of the one that it goes on with, kept."""
        assert context.upstream_output is not None
        path = _own_root().joinpath(*_parts(context.upstream_output))
        try:
            return pickle.loads(path.read_bytes())  # noqa: S301 (a file of ours, in a folder of ours)
        except FileNotFoundError as error:
            raise dg.Failure(
                f"What the step before handed over is gone: {path}.",
                metadata={"path": str(path)},
                allow_retries=False,
            ) from error


def discard(run_ids: Iterable[str]) -> None:
    """Let go of what these runs handed over, and of what killed runs left behind."""
    for run_id in run_ids:
        shutil.rmtree(root() / run_id, ignore_errors=True)
    for left in root().glob("*"):
        if time.time() - left.stat().st_mtime > _KEPT_S:
            shutil.rmtree(left, ignore_errors=True)


def root() -> Path:
    """Where the files of all runs of this user are."""
    return Path(tempfile.gettempdir()) / f"hop_archive-runs-{os.getuid()}"


def _own_root() -> Path:
    """The same, there, and nobody else's: what is in it is unpickled."""
    path = root()
    path.mkdir(mode=0o700, exist_ok=True)
    owned = path.lstat()
    if owned.st_uid != os.getuid() or owned.st_mode & 0o022 or path.is_symlink():
        raise dg.Failure(f"{path} can be written by others; remove it.", allow_retries=False)
    return path


def _parts(context: dg.OutputContext) -> list[str]:
    return [str(part) for part in context.get_identifier()]
