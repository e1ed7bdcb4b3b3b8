"""The graph behind the asset and the shared job: plan → write objects → catalog → follow → report."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration import ops


@dg.graph(
    description="Plans, writes objects unit by unit, catalogues each, follows for a while if asked to, reports."
)
def archiving() -> None:
    """The steps, and what each hands to the next."""
    planned = ops.plan()
    written = planned.units.map(ops.write_objects)
    followed = ops.follow(written.map(ops.catalog).collect())
    return ops.report(followed, planned.lost)  # type: ignore[no-any-return]
