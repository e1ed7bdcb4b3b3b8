"""The graphs behind the asset and the shared job: plan → write objects → catalog → follow → report.

The shared job judges its topics afterwards; a run of one partition has that partition's checks for this.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from hop_archive.orchestration import ops


def _reported() -> tuple[Any, Any]:
    """The steps that both have, and what each hands to the next; what was reported, and what is left undone."""
    planned = ops.plan()
    written = planned.units.map(ops.write_objects)
    followed = ops.follow(written.map(ops.catalog).collect(), planned.slices)
    return ops.report(followed.total, planned.lost, followed.left), followed.left


@dg.graph(
    description="Plans, writes objects unit by unit, catalogues each, does again what was left, follows for a while if "
    "asked to, reports."
)
def archiving() -> None:
    """Ends with what makes the materialization."""
    return _reported()[0]  # type: ignore[no-any-return]


@dg.graph(description="The same of several topics, and says again what is open of them.")
def archiving_together() -> None:
    """Ends with what needs the materializations to be there."""
    reported, left = _reported()
    ops.judge(reported=reported, left=left)
