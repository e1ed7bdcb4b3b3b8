"""How rows get from the step that wrote the objects to the step that catalogues them: by file, then gone.

Not in memory, so that a step tried again finds its input and a long run does not fill up; not in Dagster's own
storage, which would keep every row for good. A run whose files are gone is simply planned anew.
"""

import pickle
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg

_KEPT_S = 24 * 3600
"""Left-overs of runs that were killed are swept after a day."""


class HandOver(dg.ConfigurableIOManager):
    """Passes values from step to step of one run, on one machine."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value until its run is over."""
        path = _path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        """The value that an earlier step of this run kept."""
        assert context.upstream_output is not None
        return pickle.loads(_path(context.upstream_output).read_bytes())  # noqa: S301 (this run's own file)


def discard(run_id: str) -> None:
    """Let go of what this run handed over, and of what killed runs left behind."""
    shutil.rmtree(_root() / run_id, ignore_errors=True)
    for left in _root().glob("*"):
        if time.time() - left.stat().st_mtime > _KEPT_S:
            shutil.rmtree(left, ignore_errors=True)


def _root() -> Path:
    return Path(tempfile.gettempdir()) / "hop_archive-runs"


def _path(context: dg.OutputContext) -> Path:
    return _root().joinpath(*(str(part) for part in context.get_identifier()))
