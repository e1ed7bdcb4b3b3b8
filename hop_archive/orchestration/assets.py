"""The asset: every message of a topic, archived. One partition a topic."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration import ops
from hop_archive.orchestration.partitions import topics


@dg.graph_asset(
    partitions_def=topics,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    kinds={"kafka", "s3", "postgres"},
    group_name="archive",
    description=(
        "Every message of a public Kafka topic: an object in S3 and a row in the catalog. To archive what is "
        "new, or to fill any hole, materialize a partition: no configuration is needed, the ledger says what "
        "is to be done, and nothing is archived twice."
    ),
)
def archived_messages() -> None:
    """Archive what the plan says, then report."""
    written = ops.plan().map(ops.write_objects)
    return ops.report(ops.follow(written.map(ops.catalog).collect()))  # type: ignore[no-any-return]
