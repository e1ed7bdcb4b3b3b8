"""The graphs behind the asset and the shared job: plan → write objects → catalog → follow → report.

The shared job judges its topics afterwards; a run of one partition has that partition's checks for this.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from hop_archive.orchestration import ops


def _reported() -> Any:
    """The steps that both have, and what each hands to the next."""
    planned = ops.plan()
    written = planned.units.map(ops.write_objects)
    followed = ops.follow(written.map(ops.catalog).collect())
    return ops.report(followed, planned.lost)


@dg.graph(
    description="Plans, writes objects unit by unit, catalogues each, follows for a while if asked to, reports."
)
def archiving() -> None:
    """Ends with what makes the materialization."""
    return _reported()  # type: ignore[no-any-return]


@dg.graph(description="The same of several topics, and says again what is open of them.")
def archiving_together() -> None:
    """Ends with what needs the materializations to be there."""
    ops.judge(_reported())
