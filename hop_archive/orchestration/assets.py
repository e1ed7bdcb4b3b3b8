"""The assets: every message of a topic, archived, one partition a topic; and the archive as a whole."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration.graphs import archiving
from hop_archive.orchestration.materializing import ASSET_KEY
from hop_archive.orchestration.partitions import topics

archived_messages = dg.AssetsDefinition.from_graph(
    archiving,
    keys_by_output_name={"result": ASSET_KEY},
    # With no backfill policy, a backfill starts a run for each partition, named by its key. With one, its runs
    # are of key ranges: the sensor, the queue's limit for each topic, and plots by partition rest on keys.
    partitions_def=topics,
    group_name="archive",
    owners_by_output_name={"result": ["team:hop-archive"]},
    tags_by_output_name={"result": {f"dagster/kind/{kind}": "" for kind in ("kafka", "s3", "postgres")}},
    descriptions_by_output_name={
        "result": (
            "Every message of a public Kafka topic: an object in S3 and a row in the catalog. To archive what "
            "is new, or to fill any hole, materialize a partition: no configuration is needed, the ledger says "
            "what is to be done, and nothing is archived twice."
        )
    },
)

archive = dg.AssetSpec(
    "archive",
    deps=[archived_messages],
    group_name="archive",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    description=(
        "The archive as a whole, which archived_messages adds to. Nothing materializes it: it is here for its "
        "checks. (Dagster shows a check as not evaluated once its asset was materialized after it, and "
        "archived_messages is, every few seconds: what is red of the whole would soon be seen no more.)"
    ),
)
