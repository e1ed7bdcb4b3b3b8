"""Whether each part of an archive answers, and lets the archive do its work: what ``hop-archive doctor`` shows.

Nothing of the archive is changed. One small object (``PROBE_KEY``) is created in the store, once, to learn whether
objects may be created there and whether what stands is left alone.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from hop_archive.catalog.protocol import Catalog
from hop_archive.errors import HopArchiveError
from hop_archive.model.conditions import ENCODING, CatalogCondition, StoreCondition
from hop_archive.model.message import TopicPartition
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.protocol import Source, TopicInfo
from hop_archive.store.protocol import Created, Extent, NewObject, Store

PROBE_KEY = "hop_archive/probe"
"""An object of no topic: topics' keys have more parts."""

_PROBE = b"hop-archive doctor made this object to learn whether it may make any. It may be deleted.\n"
_OTHER_PROBE = b"This was put where another object stands, and must not have replaced it.\n"

CLOCK_WARNING = datetime.timedelta(seconds=5)
CLOCK_FAILURE = datetime.timedelta(minutes=5)
"""Beyond it, AWS refuses requests (RequestTimeTooSkewed is answered from 15 minutes on), and lags mean nothing."""

_READ_S = 5.0
_NAMED = 5


class Verdict(enum.Enum):
    """How a check came out. Only a failure keeps the archive from its work."""

    OK = "ok"
    WARNING = "warning"
    UNKNOWN = "unknown"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """What one look at one part found.

    Attributes:
        part: ``source``, ``database``, ``store``, ``backup`` or ``clock``.
        what: What was looked at.
        verdict: How it came out.
        detail: What was found.
        remedy: What to do next; '' where there is nothing to do.
    """

    part: str
    what: str
    verdict: Verdict
    detail: str = ""
    remedy: str = ""


def failed(part: str, what: str, error: HopArchiveError) -> Check:
    """The check that an error stands for."""
    text = str(error).removesuffix(error.remedy).rstrip() if error.remedy else str(error)
    return Check(part, what, Verdict.FAILED, text, error.remedy)


# --- the source


def examine_source(
    source: Source, topics: TopicPolicy, *, writable: bool, production: bool = False
) -> Iterator[Check]:
    """Look at a source: whether it answers, which topics it has, and what may be done with them.

    Args:
        source: An open one.
        topics: Which of its topics are archived, and which are for tests.
        writable: Whether its stanza says that it may be written to.
        production: Whether it is the service's own cluster, on which the archive writes and deletes nothing.
    """
    looking_at = "answers"
    try:
        yield Check("source", looking_at, Verdict.OK, f"cluster {source.cluster_id()}")
        looking_at = "topics"
        infos = source.topics()
        wanted = {name: info for name, info in infos.items() if topics.archived(name)}
        yield _topics(infos, wanted, topics.unmet({*infos, *infos.untold}))
        for error in infos.untold.values():
            yield failed("source", "describes", error)
        if wanted:
            yield _ids(wanted)
        looking_at = "may read"
        tests = {name for name in infos if topics.test(name)}
        access = source.access({*wanted, *tests})
        if wanted:
            yield _may_read({name: access[name] for name in wanted if name in access})
            looking_at = "reads"
            yield _reads(source, wanted)
        if access:
            allowed = writable and not production
            yield _may("write", access, tests, allowed=allowed, wanted=writable)
            yield _may("delete", access, tests, allowed=allowed, wanted=False)
        looking_at = "group"
        yield _group(source.group_access())
    except HopArchiveError as error:
        yield failed("source", looking_at, error)  # what was well before it stays so


def _topics(infos: Collection[str], wanted: Collection[str], unmet: Collection[str]) -> Check:
    told = f"{len(wanted)} of {len(infos)} topics are archived"
    if unmet and infos:
        told = f"{told}; none by {_some(unmet)}"
    elif wanted:
        return Check("source", "topics", Verdict.OK, told)
    hidden = "what the credentials may see: Kafka hides other topics."
    remedy = f"Look at topics and veto of the stanza, and at {hidden}" if infos else f"Look at {hidden}"
    return Check("source", "topics", Verdict.WARNING, told, remedy)


def _ids(wanted: Mapping[str, TopicInfo]) -> Check:
    if all(info.topic_id for info in wanted.values()):
        return Check("source", "topic ids", Verdict.OK, "given: a topic made anew is always noticed")
    return Check(
        "source",
        "topic ids",
        Verdict.WARNING,
        "not given: a topic made anew is noticed only by offsets that went backwards",
        "Use brokers of Kafka 2.8 or newer.",
    )


def _may_read(access: Mapping[str, frozenset[str] | None]) -> Check:
    refused = [name for name, may in access.items() if may is not None and "read" not in may]
    if refused:
        return Check(
            "source",
            "may read",
            Verdict.FAILED,
            f"no right to read {_some(refused)}",
            "Grant READ and DESCRIBE on these topics, or veto them in the stanza.",
        )
    if any(may is None for may in access.values()):
        return Check("source", "may read", Verdict.UNKNOWN, "the cluster does not tell rights")
    return Check("source", "may read", Verdict.OK, f"all {len(access)} topics")


def _reads(source: Source, wanted: Mapping[str, TopicInfo]) -> Check:
    """Read one message for real: rights alone do not make a network let large answers through."""
    partitions = [TopicPartition(name, n) for name, info in wanted.items() for n in range(info.partitions)]
    found = source.watermarks(partitions)
    if found.untold:
        return Check(
            "source",
            "reads",
            Verdict.FAILED,
            f"nothing is told of {_some(sorted(map(str, found.untold)))}: {next(iter(found.untold.values()))}",
            "What the other partitions hold is archived meanwhile.",
        )
    held = {at: marks for at, marks in found.items() if marks.low < marks.stable}
    if not held:
        return Check("source", "reads", Verdict.UNKNOWN, "no topic holds a message to try it with")
    at, marks = max(held.items(), key=lambda item: item[1].stable)
    with source.reader({at: marks.stable - 1}) as reader:
        if reader.poll(1, _READ_S) or reader.position(at) >= marks.stable:
            return Check("source", "reads", Verdict.OK, f"{at} at offset {marks.stable - 1}")
    return Check(
        "source",
        "reads",
        Verdict.FAILED,
        f"nothing came of {at} at offset {marks.stable - 1} within {_READ_S:g} s",
        "See that the broker that leads this partition can be reached from here under its advertised name.",
    )


def _may(
    deed: str,
    access: Mapping[str, frozenset[str] | None],
    tests: Collection[str],
    *,
    allowed: bool,
    wanted: bool,
) -> Check:
    """Whether the credentials may ``write`` or ``delete`` where, against what the stanza says of it."""
    what = f"may {deed}"
    told = {name: rights for name, rights in access.items() if rights is not None}
    may = {name for name, rights in told.items() if deed in rights}
    if not told:
        return Check("source", what, Verdict.UNKNOWN, "the cluster does not tell rights")
    if may and not allowed:
        return Check(
            "source",
            what,
            Verdict.WARNING,
            f"the archive is not to, and the credentials could {deed}: {_split(may, tests)}",
            "Give the archive credentials that can only read.",
        )
    if wanted and not may:
        return Check(
            "source",
            what,
            Verdict.WARNING,
            "the stanza says writable, and the credentials may write to no topic that is archived, and no test topic",
            "Grant WRITE, or leave writable out of the stanza.",
        )
    if not may:
        return Check("source", what, Verdict.OK, "no" if allowed else "no, as it should be")
    return Check("source", what, Verdict.OK, f"yes: {_split(may, tests)}")


def _split(names: Collection[str], tests: Collection[str]) -> str:
    """Test topics apart from the others, with which nothing should be tried."""
    own, others = {*names} & {*tests}, {*names} - {*tests}
    parts = [f"archived topics {_some(others)}"] if others else []
    return ", and ".join([*parts, *([f"test topics {_some(own)}"] if own else [])])


def _group(rights: frozenset[str] | None) -> Check:
    """Committing takes it. Archiving goes on without: offsets of groups are never read back."""
    if rights is None:
        return Check("source", "group", Verdict.UNKNOWN, "the cluster does not tell rights to the group")
    if "read" in rights:
        return Check("source", "group", Verdict.OK, "progress can be committed for monitoring")
    return Check(
        "source",
        "group",
        Verdict.WARNING,
        "no right to READ the group: progress is archived, and not shown to monitoring",
        "Grant READ on the group that the stanza's group_id names.",
    )


def _some(names: Collection[str]) -> str:
    listed = ", ".join(sorted(names)[:_NAMED])
    return listed if len(names) <= _NAMED else f"{listed} and {len(names) - _NAMED} more"


# --- the database


def examine_catalog(catalog: Catalog, *, deleting_allowed: bool) -> Iterator[Check]:
    """Look at a database: whether it answers, is migrated, and lets the role write.

    Args:
        catalog: An open one.
        deleting_allowed: Whether its stanza lets anything be deleted, or test messages cleaned away.
    """
    try:
        catalog.check()
        found = catalog.condition()
    except HopArchiveError as error:
        yield failed("database", "answers, migrated", error)
        return
    yield Check("database", "answers, migrated", Verdict.OK, found.version and f"Postgres {found.version}")
    if found.is_old:
        yield Check(
            "database", "version", Verdict.FAILED, f"Postgres {found.version}", "Use Postgres 14 or newer."
        )
    yield _encoding(found)
    yield _sequences(found)
    if found.read_only:
        yield Check(
            "database",
            "may write",
            Verdict.FAILED,
            "the server or the role is read-only",
            "Connect to the primary, with a role whose default_transaction_read_only is off.",
        )
        return
    yield _may_insert(found.lacking_to_archive(), found.role)
    lacking = found.lacking("DELETE", tables=("messages", "duplicates", "batches", "condemned"))
    yield _may_delete(lacking, deleting_allowed=deleting_allowed)
    yield _may_also("may restore and rebuild", found.lacking_to_restore(), found.role)
    yield _may_also("may verify and take snapshots", found.lacking_to_look_after(), found.role)


def _encoding(found: CatalogCondition) -> Check:
    if found.encoding in ("", ENCODING):
        return Check("database", "encoding", Verdict.OK, found.encoding)
    return Check(
        "database",
        "encoding",
        Verdict.FAILED,
        f"{found.encoding}: topics and headers hold characters that it lacks, or that it takes unchecked",
        f"Make a database with ENCODING '{ENCODING}', and move the catalog there by dump and restore.",
    )


def _sequences(found: CatalogCondition) -> Check:
    behind = [one for one in found.sequences if one.is_behind]
    if behind:
        return Check(
            "database",
            "sequences",
            Verdict.FAILED,
            "; ".join(f"{one.name} is at {one.last}, and {one.table} has {one.greatest}" for one in behind),
            f"Let the owner of the tables run hop-archive migrate, or: {' '.join(f'{one.remedy};' for one in behind)}",
        )
    if hidden := [one.name for one in found.sequences if one.last is None]:
        return Check(
            "database", "sequences", Verdict.UNKNOWN, f"role {found.role} may not read {_some(hidden)}"
        )
    return Check("database", "sequences", Verdict.OK, "none behind its table")


_GRANT = (
    "Let the owner of the tables run deploy/postgres/roles.sql, again after each upgrade that has migrations: it grants"
    " what is lacking on new tables (docs/deployment.md)."
)


def _may_insert(lacking: list[str], role: str) -> Check:
    if not lacking:
        return Check("database", "may write", Verdict.OK, f"as {role}" if role else "")
    return Check(
        "database",
        "may write",
        Verdict.FAILED,
        f"role {role} lacks {_some(lacking)}",
        _GRANT,
    )


def _may_delete(lacking: list[str], *, deleting_allowed: bool) -> Check:
    if deleting_allowed and lacking:
        return Check(
            "database",
            "may delete",
            Verdict.WARNING,
            f"the stanza allows it, and the role lacks {_some(lacking)}",
            f"Connect as the cleaner's role to clean up; if this is it: {_GRANT}",
        )
    return Check("database", "may delete", Verdict.OK, "no" if lacking else "yes")


def _may_also(what: str, lacking: list[str], role: str) -> Check:
    """What archiving goes on without; who archives with tables that came with a migration may lack just this."""
    if not lacking:
        return Check("database", what, Verdict.OK)
    return Check("database", what, Verdict.WARNING, f"role {role} lacks {_some(lacking)}", _GRANT)


# --- the store


def examine_store(
    store: Store,
    *,
    part: str = "store",
    probe: bool = True,
    keeps_versions: bool = False,
    is_copied: bool = False,
    deleting_allowed: bool = False,
) -> Iterator[Check]:
    """Look at a bucket: whether it answers, takes objects, never replaces one, and what is kept of deleted ones.

    Args:
        store: An open one.
        part: Under which name.
        probe: Whether an object may be created to find out.
        keeps_versions: Whether it is expected to keep versions: a warning says when it does not.
        is_copied: Whether the service is expected to copy objects to a backup bucket: likewise.
        deleting_allowed: Whether its stanza lets objects be deleted: then the probe is deleted again.
    """
    try:
        found = store.condition()
        yield Check(part, "answers", Verdict.OK, f"bucket {store.bucket}")
        if probe:
            yield _may_create(store, part)
            yield _may_read_object(store, part)
            yield _may_delete_object(store, part, allowed=deleting_allowed)
    except HopArchiveError as error:
        yield failed(part, "answers", error)
        return
    yield _keeping(part, found, versions=keeps_versions, copies=is_copied)


def _may_create(store: Store, part: str) -> Check:
    try:
        (first,) = store.create([NewObject(PROBE_KEY, _PROBE)])
        (second,) = store.create([NewObject(PROBE_KEY, _OTHER_PROBE)])
    except HopArchiveError as error:
        return failed(part, "may create objects", error)
    # One of the two stands there, be it from an earlier look, and the other is refused.
    if Created.OTHER in (first, second) and second is not Created.NEW:
        return Check(part, "may create objects", Verdict.OK, "and what stands is never replaced")
    return Check(
        part,
        "may create objects",
        Verdict.FAILED,
        "the server replaced an object that was to be created only where there is none",
        "Use an S3 server that honours If-None-Match on PUT: without it, two archivers can overwrite objects.",
    )


def _may_read_object(store: Store, part: str) -> Check:
    try:
        (found,) = store.fetch([Extent(PROBE_KEY)])
    except HopArchiveError as error:
        return failed(part, "may read objects", error)
    return Check(part, "may read objects", Verdict.OK, f"{len(found)} bytes came back")


def _may_delete_object(store: Store, part: str, *, allowed: bool) -> Check:
    if not allowed:
        return Check(part, "may delete objects", Verdict.OK, "not tried: the stanza does not allow it")
    try:
        store.delete([PROBE_KEY])
    except HopArchiveError as error:
        return failed(part, "may delete objects", error)
    return Check(part, "may delete objects", Verdict.OK, "yes, as the stanza allows")


def _keeping(part: str, found: StoreCondition, *, versions: bool, copies: bool) -> Check:
    what = "versioning, replication"
    told = f"versioning {_said(found.versioning)}, replication {_said(found.replication)}"
    remedies = []
    if versions and found.versioning is False:
        remedies.append("Turn versioning on: it keeps what is deleted by mistake.")
    if copies and found.replication is False:
        remedies.append(
            "The stanza names a backup_bucket, and nothing copies objects there: have S3 replicate the bucket to it "
            "(deploy/s3/replication.json)."
        )
    if remedies:
        return Check(part, what, Verdict.WARNING, told, " ".join(remedies))
    if found.why_unknown:
        return Check(part, what, Verdict.UNKNOWN, f"{told} ({found.why_unknown})")
    return Check(part, what, Verdict.OK, told)


def _said(state: bool | None) -> str:
    return {True: "on", False: "off", None: "not known"}[state]


# --- clocks


def examine_clocks(
    now: Callable[[], datetime.datetime], clocks: Mapping[str, Callable[[], datetime.datetime | None]]
) -> Iterator[Check]:
    """Compare the clocks of servers with ours.

    Args:
        now: Our clock.
        clocks: What each server says that the time is, asked when called; None where it does not tell.
    """
    for name, ask in clocks.items():
        try:
            before, theirs, after = now(), ask(), now()
        except HopArchiveError:
            continue  # said already, where the part was looked at
        if theirs is not None:
            yield _agreement(name, _distance(theirs, before, after))


def _distance(
    theirs: datetime.datetime, before: datetime.datetime, after: datetime.datetime
) -> datetime.timedelta:
    """How far a clock is off, at the least: the answer was made at some moment between the two."""
    return max(before - theirs, theirs - after, datetime.timedelta(0))


def _agreement(name: str, off: datetime.timedelta) -> Check:
    if off < CLOCK_WARNING:
        return Check("clock", name, Verdict.OK, "agrees with ours")
    verdict = Verdict.WARNING if off < CLOCK_FAILURE else Verdict.FAILED
    detail = f"{off.total_seconds():,.0f} s away from ours"
    return Check("clock", name, verdict, detail, "Set this machine's clock by NTP, or see to the server's.")
