"""What open findings say, as checks: of the archive as a whole, of each topic, and of the assets that look for them.

A red check says what is wrong, names the first of it, says what to do next, and links to the job that does it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import dagster as dg

from hop_archive.catalog.checked import VerifiedShare
from hop_archive.catalog.protocol import Catalog
from hop_archive.model.findings import OBSTACLES, FindingRecord, Kind, OpenCount
from hop_archive.model.wording import counted
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES, unless_zero
from hop_archive.orchestration.runs import Home, job_link, newest_materializations, table

_OF_OBJECTS = frozenset({Kind.MISSING_OBJECT, Kind.WRONG_SIZE, Kind.CORRUPT_OBJECT, Kind.FROZEN_OBJECT})
_HARMLESS = frozenset({Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT, Kind.NOT_ARCHIVED})

_REPAIR = (
    "Launch the job repair: it shows what would mend each, and from where; with dry_run: false it is done."
)
_NEXT: Mapping[Kind, str] = {
    Kind.NO_LEADER: "Bring back the broker of a partition that has no leader.",
    Kind.NOT_READABLE: "Give the archive's Kafka user READ and DESCRIBE on the topic, or mend what the detail names.",
    Kind.NOT_SHOWN: "See whether the topic is gone, or hidden from the archive's Kafka user.",
    Kind.LEFT_UNDONE: "Mend what the reason names: archiving is tried again every ten minutes, and closes this.",
    Kind.LOG_TRUNCATED: "What the log held is archived: see why it lost its end, then accept it (hop-archive findings).",
}
"""What to do, where a repair cannot do it."""

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class FindingsCheck:
    """A check of what open findings of some kinds say; its description is what holds while it is green."""

    name: str
    description: str
    kinds: frozenset[Kind]

    def look(
        self, catalog: Catalog, home: Home | None, topics: Collection[str] | None = None
    ) -> dg.AssetCheckResult:
        """Judge what is open now, of these topics or of all."""
        return self.judge(catalog.open_findings(topics), catalog, home, topics, _verified(catalog, topics))

    def judge(
        self,
        found: Iterable[OpenCount],
        catalog: Catalog,
        home: Home | None,
        topics: Collection[str] | None = None,
        verified: str = "",
    ) -> dg.AssetCheckResult:
        """Red while findings of its kinds are open; yellow where all is archived and only something too much is there.

        Green says how much of what is archived was read again: what nobody looked at is not known to be well.
        """
        opened = list(found)
        counts = [count for count in opened if count.kind in self.kinds]
        number = sum(count.number for count in counts)
        if not counts:
            others = sum(count.number for count in opened)
            nothing = (
                f"Nothing of this is open; {counted(others, 'finding')} of other kinds: see hop-archive findings."
                if others
                else "Nothing is open."
            )
            return dg.AssetCheckResult(
                passed=True,
                check_name=self.name,
                description=f"{nothing} {verified}".strip(),
                metadata={"open": unless_zero(number)},
            )
        first = list(catalog.findings(topics, self.kinds, limit=_MOST_NAMED))
        harmless = all(count.kind in _HARMLESS for count in counts)
        rows = (
            {
                "topic": count.topic,
                "kind": count.kind.value,
                "open": count.number,
                "since": f"{count.since:%Y-%m-%d %H:%M} UTC",
            }
            for count in counts
        )
        mends = any(count.kind not in _NEXT for count in counts)
        return dg.AssetCheckResult(
            passed=False,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.WARN if harmless else dg.AssetCheckSeverity.ERROR,
            description=_said(counts, first),
            metadata={
                "open": number,
                **(job_link(home, "repair") if mends else {}),
                **table("first", (_row(record) for record in first)),
                **table("by_topic", rows),
            },
        )


def _verified(catalog: Catalog, topics: Collection[str] | None) -> str:
    return _of_shares(catalog.verified_shares(topics))


def _of_shares(shares: Sequence[VerifiedShare]) -> str:
    """How much was read again and compared; by listing, verification looks at all of it."""
    offsets = sum(share.offsets for share in shares)
    if not offsets:
        return ""
    part = 1 - sum(share.never for share in shares) / offsets
    oldest = min((share.oldest for share in shares if share.oldest is not None), default=None)
    since = f", the longest ago on {oldest:%Y-%m-%d}" if oldest is not None else ""
    return f"Of what is archived {part:.1%} was read again and compared{since}; the rest is new, or its turn is to come."


def _said(counts: Sequence[OpenCount], first: Sequence[FindingRecord]) -> str:
    """What is wrong, where it begins, and what to do next."""
    kinds = {kind: sum(c.number for c in counts if c.kind is kind) for kind in {c.kind for c in counts}}
    number = sum(kinds.values())
    said = [
        f"{counted(number, 'finding is', 'findings are')} open: "
        + ", ".join(f"{kinds[kind]:,} {kind.value}" for kind in Kind if kind in kinds)
        + "."
    ]
    if first:
        said.append(f"The first: {place_of(first[0])}: {first[0].finding.detail}".rstrip(".") + ".")
    if any(kind not in _NEXT for kind in kinds):
        said.append(_REPAIR)
    said += [_NEXT[kind] for kind in Kind if kind in kinds and kind in _NEXT]
    return " ".join(said)


def place_of(record: FindingRecord) -> str:
    """Where it is: the key of an object, offsets, a message's UUID, or the topic and its partition."""
    finding = record.finding
    if finding.object_key:
        return finding.object_key
    if finding.slice is not None:
        return str(finding.slice)
    if finding.uuid is not None:
        return str(finding.uuid)
    return finding.topic + ("" if finding.partition is None else f"[{finding.partition}]")


def _row(record: FindingRecord) -> Mapping[str, str]:
    """A row of the table; what is long comes last, where a narrow window cuts it off. The key of a message's object names it."""
    finding, where = record.finding, place_of(record)
    message = str(finding.uuid or "")
    return {
        "number": str(record.number),
        "kind": finding.kind.value,
        "where": where,
        "message": "" if message in where else message,
        "detail": finding.detail,
    }


OBJECTS_PRESENT = FindingsCheck(
    "objects_present",
    "No object is missing, cut short or damaged, as far as the jobs verify and scrub have looked.",
    _OF_OBJECTS,
)
NO_OPEN_FINDINGS = FindingsCheck(
    "no_open_findings",
    "Nothing else that verification or archiving found is open: the jobs verify and scrub look, repair mends.",
    frozenset(Kind) - _OF_OBJECTS,
)
OF_TOPICS = (OBJECTS_PRESENT, NO_OPEN_FINDINGS)
"""The checks that the archive has as a whole, and each topic by itself."""

NOTHING_FOUND = FindingsCheck(
    "nothing_found",
    "What verification found, at its last look or before, is mended or settled.",
    frozenset(Kind) - OBSTACLES - {Kind.LOG_TRUNCATED},
)
"""The check of those assets that look: red for as long as something is open that a look found."""


# The type of a public field of AssetCheckEvaluation; by itself it is not exported (1.13).
_Materialization, _ = get_args(get_type_hints(dg.AssetCheckEvaluation)["target_materialization_data"])


def with_news(instance: dg.DagsterInstance, catalog: Catalog, topics: Collection[str]) -> set[str]:
    """Those of these topics that have a partition, and findings open or checks that are not shown as green.

    A look at 1,000 topics with which all is well is no news.
    """
    there = {*instance.get_dynamic_partitions("topics")}.intersection(topics)
    if not there:
        return there
    found = {count.topic for count in catalog.open_findings(sorted(there))}
    green = _shown_green(instance)
    return {topic for topic in there if topic in found or topic not in green}


def evaluations(
    instance: dg.DagsterInstance, catalog: Catalog, topics: Collection[str], home: Home | None
) -> Iterator[dg.AssetCheckEvaluation]:
    """Both checks of each of these topics that has a partition, as of now, for a run of several topics to log.

    After each materialization: Dagster shows a check as not evaluated that was evaluated before it.
    """
    judged = sorted({*instance.get_dynamic_partitions("topics")}.intersection(topics))
    if not judged:
        return
    found: dict[str, list[OpenCount]] = {}
    for count in catalog.open_findings(judged):
        found.setdefault(count.topic, []).append(count)
    shares = {share.topic: share for share in catalog.verified_shares(judged)}
    newest = {
        record.partition_key: _of(record)
        for record in newest_materializations(instance, ARCHIVED_MESSAGES, judged)
    }
    for topic in judged:
        verified = _of_shares([shares[topic]]) if topic in shares else ""
        for check in OF_TOPICS:
            result = check.judge(found.get(topic, ()), catalog, home, [topic], verified)
            yield _evaluation(ARCHIVED_MESSAGES, result, newest.get(topic), topic)


def _shown_green(instance: dg.DagsterInstance) -> set[str]:
    """The topics of which Dagster shows both checks as passed, of their newest materialization."""
    keys = [dg.AssetCheckKey(ARCHIVED_MESSAGES, check.name) for check in OF_TOPICS]
    shown = Counter(
        info.partition_key
        for info in instance.event_log_storage.get_asset_check_partition_info(keys)
        if info.is_current and info.latest_execution_status.value == "SUCCEEDED"
    )
    return {topic for topic, number in shown.items() if topic is not None and number == len(OF_TOPICS)}


def whole_evaluations(
    instance: dg.DagsterInstance,
    catalog: Catalog,
    home: Home | None,
    checks: Mapping[dg.AssetKey, Sequence[FindingsCheck]],
) -> Iterator[dg.AssetCheckEvaluation]:
    """Checks of assets without partitions, as of now: for whoever changed what they judge."""
    found, verified = catalog.open_findings(), _verified(catalog, None)
    for key, of_asset in checks.items():
        newest = [_of(record) for record in instance.fetch_materializations(key, limit=1).records]
        for check in of_asset:
            result = check.judge(found, catalog, home, verified=verified)
            yield _evaluation(key, result, next(iter(newest), None))


def _of(record: dg.EventLogRecord) -> Any:
    return _Materialization(storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp)


def _evaluation(
    key: dg.AssetKey, result: dg.AssetCheckResult, newest: Any, partition: str | None = None
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        key,
        result.check_name or "",
        passed=result.passed,
        metadata=result.metadata,
        target_materialization_data=newest,
        severity=result.severity,
        description=result.description,
        partition=partition,
    )
