"""The job that makes the catalog from what the store holds. Started by people; nothing runs it by itself."""

from collections.abc import Iterable, Iterator

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.model.findings import Finding
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import ASKED, upkeep_tags
from hop_archive.recover.rebuild.plan import plan, stored_topics
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild

_MOST_SHOWN = 100


class RebuildConfig(dg.Config):
    """What of the catalog to rebuild."""

    topics: list[str] = Field(
        default=[],
        description="Only these topics: names, or globs such as gcn.*; empty: all that are stored.",
    )
    dry_run: bool = Field(default=True, description="Only say what would be read; nothing is changed.")
    ask_source: bool = Field(
        default=True,
        description="Ask Kafka whether a topic is still the archived one. Else it is read once more, as copies.",
    )


@dg.asset(
    group_name="upkeep",
    kinds={"s3", "postgres"},
    owners=["team:hop-archive"],
    description="The catalog, completed from the documents in the store: what is missing is added, what is there stays. "
    "For a database that was lost or damaged. Running it again does what is left.",
)
def rebuilt_catalog(
    context: dg.AssetExecutionContext, config: RebuildConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Plan, or do it; topic by topic. A run that was killed is done again, and goes on."""
    with told():
        if config.dry_run:
            return dg.MaterializeResult(metadata=_planned(archive, config.topics))
        source = archive.source if config.ask_source else None
        wanted = Rebuild(archive.catalog, archive.store, source, tuple(config.topics), run_id=archive.run_id)
        findings = list(_logged(context, rebuild(wanted)))
    done = wanted.progress.counts
    numbers = {"messages_added": done["added"], "objects_read": done["read"], "topics": done["topics"]}
    return dg.MaterializeResult(
        metadata={**numbers, "recognised": done["claimed"], "findings": _table(findings)}
    )


def _planned(archive: Archive, topics: list[str]) -> dict[str, dg.MetadataValue]:
    plans = list(plan(archive.catalog, archive.store, stored_topics(archive.store, topics)))
    rows = [dg.TableRecord(dict(one._asdict())) for one in plans if one.to_read]
    found: dict[str, dg.MetadataValue] = {
        "objects_to_read": dg.MetadataValue.int(sum(one.to_read for one in plans))
    }
    return {**found, "plan": dg.MetadataValue.table(rows[:_MOST_SHOWN])} if rows else found


def _logged(context: dg.AssetExecutionContext, findings: Iterable[Finding]) -> Iterator[Finding]:
    for one in findings:
        context.log.warning(f"{one.kind.value} {one.object_key}: {one.detail}")
        yield one


def _table(findings: list[Finding]) -> dg.MetadataValue:
    rows = [
        dg.TableRecord({"kind": one.kind.value, "object": one.object_key, "detail": one.detail})
        for one in findings[:_MOST_SHOWN]
    ]
    return dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("none")


rebuild_catalog = dg.define_asset_job(
    "rebuild_catalog",
    tags=upkeep_tags(ASKED),
    selection=dg.AssetSelection.assets(rebuilt_catalog),
    executor_def=in_process,
    description="Makes the catalog from the store: first as a plan (dry_run), then for real. Started by people.",
)
