"""The asset: every message of a topic, archived. One partition a topic."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration.graphs import archiving
from hop_archive.orchestration.materializing import ASSET_KEY
from hop_archive.orchestration.partitions import topics

archived_messages = dg.AssetsDefinition.from_graph(
    archiving,
    keys_by_output_name={"result": ASSET_KEY},
    partitions_def=topics,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    group_name="archive",
    descriptions_by_output_name={
        "result": (
            "Every message of a public Kafka topic: an object in S3 and a row in the catalog. To archive what "
            "is new, or to fill any hole, materialize a partition: no configuration is needed, the ledger says "
            "what is to be done, and nothing is archived twice."
        )
    },
)
