"""Jobs: one topic, many quiet topics in one run, the checks, and the upkeep of the ledger."""

import datetime

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.orchestration.assets import archive as the_archive
from hop_archive.orchestration.assets import archived_messages
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.graphs import archiving_together
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import SHORT, upkeep_tags

# A run that died is done again whole: the ledger says what is left, and what the steps of the dead one handed
# over may be on a machine that is gone.
_AFRESH = {"dagster/retry_strategy": "ALL_STEPS"}

archive_topic = dg.define_asset_job(
    "archive_topic",
    selection=dg.AssetSelection.assets(archived_messages),
    executor_def=in_process,
    description="Archives one topic: a partition of archived_messages. The sensor runs it for busy topics.",
    tags=_AFRESH,
)

archive_quiet_topics = archiving_together.to_job(
    "archive_quiet_topics",
    executor_def=in_process,
    description="Archives the topics of its configuration in one run, and follows them if asked to. The sensor "
    "runs it: what many quiet topics cost is one run.",
    tags=_AFRESH,
)

check_archive = dg.define_asset_job(
    "check_archive",
    tags=upkeep_tags(SHORT),
    selection=dg.AssetSelection.checks_for_assets(the_archive.key),
    executor_def=in_process,
    description="Evaluates the checks of the archive, over all topics.",
)


class MergeConfig(dg.Config):
    """Which ledger rows to merge."""

    older_than_days: float = Field(
        default=7.0, ge=0, description="Only rows that were made longer ago than this."
    )


@dg.op
def merge_ledger_rows(
    context: dg.OpExecutionContext, config: MergeConfig, archive: dg.ResourceParam[Archive]
) -> None:
    """Merge neighbouring old rows of the ledger, so that it stays small; what it says stays the same."""
    with told():
        merged = archive.catalog.merge_ledger(archive.now() - datetime.timedelta(days=config.older_than_days))
    context.log.info(f"The ledger is shorter by {merged} rows")


@dg.job(executor_def=in_process, tags=upkeep_tags(SHORT), description="Keeps the ledger small.")
def merge_ledger() -> None:
    """One step."""
    merge_ledger_rows()
