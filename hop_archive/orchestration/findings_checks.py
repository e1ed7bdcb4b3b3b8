"""Checks of what verification found: of the whole archive, and of each topic on its partition of ``archived_messages``.

Dagster takes a check of a partition to be of the materialization that it was evaluated after, and shows one that is
of an older materialization as not evaluated. So green says of a topic that nothing was open when verification last
looked, and that nothing was archived since; red and yellow are said again after each run that archives.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

# Its field in the public AssetCheckEvaluation is public; the type itself is not exported (1.13).
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Catalog
from hop_archive.model.findings import Kind, OpenCount
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.materializing import ASSET_KEY
from hop_archive.orchestration.partitions import topics as topic_partitions

_MOST_SHOWN = 100
_AT_ONCE = 500
_OF_OBJECTS = frozenset({Kind.MISSING_OBJECT, Kind.WRONG_SIZE, Kind.CORRUPT_OBJECT})
_HARMLESS = frozenset({Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT, Kind.NOT_ARCHIVED})


@dataclass(frozen=True, slots=True)
class FindingsCheck:
    """What open findings of some kinds say.

    Attributes:
        name: The check's name.
        description: What holds while it is green.
        kinds: The findings that it is about.
    """

    name: str
    description: str
    kinds: frozenset[Kind]

    def judge(self, found: Iterable[OpenCount]) -> dg.AssetCheckResult:
        """Red while findings of its kinds are open; yellow where all is archived and only something too much is there."""
        own = [one for one in found if one.kind in self.kinds]
        rows = [
            dg.TableRecord(
                {
                    "topic": one.topic,
                    "kind": one.kind.value,
                    "open": one.number,
                    "since": f"{one.since:%Y-%m-%d %H:%M} UTC",
                }
            )
            for one in own[:_MOST_SHOWN]
        ]
        number = sum(one.number for one in own)
        harmless = all(one.kind in _HARMLESS for one in own)
        return dg.AssetCheckResult(
            passed=not own,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.WARN if harmless else dg.AssetCheckSeverity.ERROR,
            description=f"Open findings: {number:,}, by topic below." if own else None,
            metadata={"open": number, **({"by_topic": dg.MetadataValue.table(rows)} if rows else {})},
        )


OBJECTS_PRESENT = FindingsCheck(
    "objects_present",
    "No object is missing, cut short or damaged, as far as the jobs verify and scrub have looked.",
    _OF_OBJECTS,
)
NO_OPEN_FINDINGS = FindingsCheck(
    "no_open_findings",
    "Nothing else that verification found is open: the jobs verify and scrub look, repair mends.",
    frozenset(Kind) - _OF_OBJECTS,
)
_BOTH = (OBJECTS_PRESENT, NO_OPEN_FINDINGS)

with warnings.catch_warnings():
    # Checks by partition are called a preview (1.13): what is used of them is in this module alone.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    _specs = [
        dg.AssetCheckSpec(
            one.name, asset=ASSET_KEY, description=one.description, partitions_def=topic_partitions
        )
        for one in _BOTH
    ]


@dg.multi_asset_check(specs=_specs)
def topic_findings(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.AssetCheckResult]:
    """Judge one topic, the run's partition, by what is open of it."""
    with told():
        found = archive.catalog.open_findings([context.partition_key])
    for one in _BOTH:
        yield one.judge(found)


def evaluations(
    instance: dg.DagsterInstance, catalog: Catalog, topics: Collection[str], *, only_open: bool = False
) -> Iterator[dg.AssetCheckEvaluation]:
    """Both checks of each of these topics that has a partition, as of now, for a run of several topics to log.

    Args:
        instance: Where the partitions and their materializations are.
        catalog: What is open.
        topics: The topics to judge.
        only_open: Only those of which something is open.
    """
    partitions = set(instance.get_dynamic_partitions(str(topic_partitions.name)))
    found: dict[str, list[OpenCount]] = {}
    for one in catalog.open_findings(sorted(topics)):
        found.setdefault(one.topic, []).append(one)
    wanted = sorted(partitions.intersection(found if only_open else topics))
    targets = _newest_materializations(instance, wanted)
    for topic in wanted:
        for check in _BOTH:
            result = check.judge(found.get(topic, ()))
            if result.passed and only_open:
                continue
            yield dg.AssetCheckEvaluation(
                ASSET_KEY,
                check.name,
                passed=result.passed,
                metadata=result.metadata,
                target_materialization_data=targets.get(topic),
                severity=result.severity,
                description=result.description,
                partition=topic,
            )


def _newest_materializations(
    instance: dg.DagsterInstance, partitions: Sequence[str]
) -> Mapping[str, AssetCheckEvaluationTargetMaterializationData]:
    """The newest materialization of each of these partitions that has one."""
    if not partitions:
        return {}
    numbers = instance.get_latest_storage_id_by_partition(
        ASSET_KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, set(partitions)
    )
    wanted = sorted(numbers.values())
    found = {}
    for start in range(0, len(wanted), _AT_ONCE):
        filters = dg.AssetRecordsFilter(ASSET_KEY, storage_ids=wanted[start : start + _AT_ONCE])
        for record in instance.fetch_materializations(filters, limit=_AT_ONCE).records:
            found[str(record.partition_key)] = AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
    return found
