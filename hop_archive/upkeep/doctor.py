"""Whether each part of an archive answers, and lets the archive do its work: what ``hop-archive doctor`` shows.

Nothing of the archive is changed. One small object (``PROBE_KEY``) is created in the store, once, to learn whether
objects may be created there and whether what stands is left alone.
"""

from __future__ import annotations

import datetime
import enum
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from hop_archive.catalog.protocol import Catalog
from hop_archive.errors import HopArchiveError
from hop_archive.model.conditions import ENCODING
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Order, Query
from hop_archive.model.topics import LayoutPolicy, TopicPolicy
from hop_archive.model.wording import listed
from hop_archive.read.fetch import fetch_documents
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
    """What one look at one part found: at the ``source``, ``database``, ``store``, ``backup``, ``archive`` or ``clock``.

    The remedy is what to do next; '' where there is nothing to do.
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


def examine_source(
    source: Source, topics: TopicPolicy, *, writable: bool, production: bool = False
) -> Iterator[Check]:
    """Look at a source: whether it answers, which topics it has, and what may be done with them.

    ``writable`` is what its stanza says; on a ``production`` source, the service's own cluster, the archive writes and
    deletes nothing all the same.
    """
    check = partial(Check, "source")
    looking_at = "answers"
    try:
        yield check(looking_at, Verdict.OK, f"cluster {source.cluster_id()}")
        looking_at = "topics"
        infos = source.topics()
        archived = {name: info for name, info in infos.items() if topics.archived(name)}
        unmet = topics.unmet({*infos, *infos.untold})
        found = f"{len(archived)} of {len(infos)} topics are archived"
        if archived and not unmet:
            yield check("topics", Verdict.OK, found)
        else:
            found += f"; none by {_some(unmet)}" if unmet and infos else ""
            stanza = "topics and veto of the stanza, and at " if infos else ""
            hidden = "what the credentials may see: Kafka hides other topics."
            yield check("topics", Verdict.WARNING, found, f"Look at {stanza}{hidden}")
        for error in infos.untold.values():
            yield failed("source", "describes", error)
        if archived and all(info.topic_id for info in archived.values()):
            yield check("topic ids", Verdict.OK, "given: a topic made anew is always noticed")
        elif archived:
            yield check(
                "topic ids",
                Verdict.WARNING,
                "not given: a topic made anew is noticed only by offsets that went backwards",
                "Use brokers of Kafka 2.8 or newer.",
            )
        looking_at = "may read"
        tests = {name for name in infos if topics.test(name)}
        access = source.access({*archived, *tests})
        if archived:
            yield _may_read({name: access[name] for name in archived if name in access})
            looking_at = "reads"
            yield _reads(source, archived)
        if access:
            allowed = writable and not production
            yield _may("write", access, tests, allowed=allowed, wanted=writable)
            yield _may("delete", access, tests, allowed=allowed, wanted=False)
        looking_at = "group"
        rights = source.group_access()
        if rights is None:
            yield check("group", Verdict.UNKNOWN, "the cluster does not tell rights to the group")
        elif "read" in rights:
            yield check("group", Verdict.OK, "progress can be committed for monitoring")
        else:  # archiving goes on without: offsets of groups are never read back
            yield check(
                "group",
                Verdict.WARNING,
                "no right to READ the group: progress is archived, and not shown to monitoring",
                "Grant READ on the group that the stanza's group_id names.",
            )
    except HopArchiveError as error:
        yield failed("source", looking_at, error)  # what was well before it stays so


def _may_read(access: Mapping[str, frozenset[str] | None]) -> Check:
    check = partial(Check, "source", "may read")
    refused = [name for name, may in access.items() if may is not None and "read" not in may]
    if refused:
        remedy = "Grant READ and DESCRIBE on these topics, or veto them in the stanza."
        return check(Verdict.FAILED, f"no right to read {_some(refused)}", remedy)
    if any(may is None for may in access.values()):
        return check(Verdict.UNKNOWN, "the cluster does not tell rights")
    return check(Verdict.OK, f"all {len(access)} topics")


def _reads(source: Source, archived: Mapping[str, TopicInfo]) -> Check:
    """Read one message for real: rights alone do not make a network let large answers through."""
    check = partial(Check, "source", "reads")
    partitions = [TopicPartition(name, n) for name, info in archived.items() for n in range(info.partitions)]
    found = source.watermarks(partitions)
    if found.untold:
        return check(
            Verdict.FAILED,
            f"nothing is told of {_some(sorted(map(str, found.untold)))}: {next(iter(found.untold.values()))}",
            "What the other partitions hold is archived meanwhile.",
        )
    held = {at: marks for at, marks in found.items() if marks.low < marks.stable}
    if not held:
        return check(Verdict.UNKNOWN, "no topic holds a message to try it with")
    at, marks = max(held.items(), key=lambda item: item[1].stable)
    with source.reader({at: marks.stable - 1}) as reader:
        if reader.poll(1, _READ_S) or reader.position(at) >= marks.stable:
            return check(Verdict.OK, f"{at} at offset {marks.stable - 1}")
    return check(
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
    check = partial(Check, "source", f"may {deed}")
    known = {name: rights for name, rights in access.items() if rights is not None}
    may = {name for name, rights in known.items() if deed in rights}
    if not known:
        return check(Verdict.UNKNOWN, "the cluster does not tell rights")
    if may and not allowed:
        found = f"the archive is not to, and the credentials could {deed}: {_split(may, tests)}"
        return check(Verdict.WARNING, found, "Give the archive credentials that can only read.")
    if wanted and not may:
        return check(
            Verdict.WARNING,
            "the stanza says writable, and the credentials may write to no topic that is archived, and no test topic",
            "Grant WRITE, or leave writable out of the stanza.",
        )
    if not may:
        return check(Verdict.OK, "no" if allowed else "no, as it should be")
    return check(Verdict.OK, f"yes: {_split(may, tests)}")


def _split(names: Collection[str], tests: Collection[str]) -> str:
    """Test topics apart from the others, with which nothing should be tried."""
    own, others = {*names} & {*tests}, {*names} - {*tests}
    parts = [f"archived topics {_some(others)}"] if others else []
    return ", and ".join([*parts, *([f"test topics {_some(own)}"] if own else [])])


def _some(names: Collection[str]) -> str:
    return listed(sorted(names), _NAMED)


def examine_catalog(
    catalog: Catalog,
    *,
    deleting_allowed: bool,
    indexes_text: bool = False,
    layouts: LayoutPolicy | None = None,
) -> Iterator[Check]:
    """Look at a database: whether it answers, is migrated, and lets the role write, and delete or index where its stanza says so.

    ``layouts`` is that of the store: readers that another archiver left cannot read segments.
    """
    check = partial(Check, "database")
    try:
        catalog.check()
        found = catalog.condition()
    except HopArchiveError as error:
        yield failed("database", "answers, migrated", error)
        return
    yield check("answers, migrated", Verdict.OK, found.version and f"Postgres {found.version}")
    if found.was_adopted and layouts is not None:
        yield _readable_by_others(catalog, layouts)
    if found.is_old:
        yield check("version", Verdict.FAILED, f"Postgres {found.version}", "Use Postgres 14 or newer.")
    if found.encoding in ("", ENCODING):
        yield check("encoding", Verdict.OK, found.encoding)
    else:
        yield check(
            "encoding",
            Verdict.FAILED,
            f"{found.encoding}: topics and headers hold characters that it lacks, or that it takes unchecked",
            f"Make a database with ENCODING '{ENCODING}', and move the catalog there by dump and restore.",
        )
    hidden = [sequence.name for sequence in found.sequences if sequence.last is None]
    if behind := [sequence for sequence in found.sequences if sequence.is_behind]:
        yield check(
            "sequences",
            Verdict.FAILED,
            "; ".join(f"{one.name} is at {one.last}, and {one.table} has {one.greatest}" for one in behind),
            f"Let the owner of the tables run hop-archive migrate, or: {' '.join(f'{one.remedy};' for one in behind)}",
        )
    elif hidden:
        yield check("sequences", Verdict.UNKNOWN, f"role {found.role} may not read {_some(hidden)}")
    else:
        yield check("sequences", Verdict.OK, "none behind its table")
    if found.read_only:
        yield check(
            "may write",
            Verdict.FAILED,
            "the server or the role is read-only",
            "Connect to the primary, with a role whose default_transaction_read_only is off.",
        )
        return
    if lacking := found.lacking_to_archive():
        yield check("may write", Verdict.FAILED, f"role {found.role} lacks {_some(lacking)}", _GRANT)
    else:
        yield check("may write", Verdict.OK, f"as {found.role}" if found.role else "")
    lacking = found.lacking("DELETE", tables=("messages", "duplicates", "batches", "condemned"))
    if deleting_allowed and lacking:
        yield check(
            "may delete",
            Verdict.WARNING,
            f"the stanza allows it, and the role lacks {_some(lacking)}",
            f"Connect as the cleaner's role to clean up; if this is it: {_GRANT}",
        )
    else:
        yield check("may delete", Verdict.OK, "no" if lacking else "yes")
    if indexes_text:
        yield _may_also("may index text", found.lacking_to_index_text(), found.role)
    yield _may_also("may share work", found.lacking_to_share(), found.role)
    yield _may_also("may restore and rebuild", found.lacking_to_restore(), found.role)
    yield _may_also("may verify and take snapshots", found.lacking_to_look_after(), found.role)


def _readable_by_others(catalog: Catalog, layouts: LayoutPolicy) -> Check:
    """Whether the readers of the archiver that the catalog was taken over from find the messages that they ask for."""
    check = partial(Check, "database", "archive-core's readers")
    compacts = layouts.compact_after_days is not None
    in_segments = [topic for topic in catalog.topics() if compacts or layouts.layout_for(topic) == "segment"]
    if not in_segments and layouts.default == "message" and not compacts:
        return check(Verdict.OK, "each message is an object, which they can read")
    compresses = any(map(layouts.compresses, in_segments or ("",)))
    return check(
        Verdict.WARNING,
        f"the catalog was adopted, and {'old' if compacts else 'new'} messages of {_some(in_segments) or 'new topics'} go into segments: of these, programs"
        " that read by archive-core (archive-api) are given another message, without an error"
        f"{'; where segments are compressed, they fail on bytes that are no document' if compresses else ''}",
        'Say layout = "message" in the store\'s stanza, or for these topics in layouts, and no compact_after_days; or see that nothing reads them by archive-core.',
    )


_GRANT = (
    "Let the owner of the tables run deploy/postgres/roles.sql, again after each upgrade that has migrations: it grants"
    " what is lacking on new tables (docs/deployment.md)."
)


def _may_also(what: str, lacking: list[str], role: str) -> Check:
    """What archiving goes on without; who archives with tables that came with a migration may lack just this."""
    if not lacking:
        return Check("database", what, Verdict.OK)
    return Check("database", what, Verdict.WARNING, f"role {role} lacks {_some(lacking)}", _GRANT)


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

    With ``probe`` an object is created to find out, and deleted again where the stanza lets objects be deleted. A warning says
    where the bucket is expected to keep versions, or the service to copy objects to a backup bucket, and does not.
    """
    try:
        found = store.condition()
        yield Check(part, "answers", Verdict.OK, f"bucket {store.bucket}")
        if probe:
            yield from _probed(store, part, deleting_allowed=deleting_allowed)
    except HopArchiveError as error:
        yield failed(part, "answers", error)
        return
    check = partial(Check, part, "versioning, replication")
    states = {True: "on", False: "off", None: "not known"}
    kept = f"versioning {states[found.versioning]}, replication {states[found.replication]}"
    remedies = []
    if keeps_versions and found.versioning is False:
        remedies.append("Turn versioning on: it keeps what is deleted by mistake.")
    if is_copied and found.replication is False:
        remedies.append(
            "The stanza names a backup_bucket, and nothing copies objects there: have S3 replicate the bucket to it "
            "(deploy/s3/replication.json)."
        )
    if remedies:
        yield check(Verdict.WARNING, kept, " ".join(remedies))
    elif found.why_unknown:
        yield check(Verdict.UNKNOWN, f"{kept} ({found.why_unknown})")
    else:
        yield check(Verdict.OK, kept)
    yield _lifecycle(part, found.lifecycle)


def _lifecycle(part: str, found: tuple[str, ...] | None) -> Check:
    """Whether the bucket itself takes objects away, or where they cannot be read."""
    check = partial(Check, part, "lifecycle")
    if found is None:
        return check(
            Verdict.UNKNOWN,
            "whether rules delete or freeze objects may not be looked at (s3:GetLifecycleConfiguration)",
        )
    if not found:
        return check(Verdict.OK, "no rule takes objects away")
    return check(
        Verdict.WARNING,
        "; ".join(found),
        "Take these rules away, or let them mean other prefixes than the archive's: what they delete is lost, and what they move there"
        " is not read before it was restored. Rules for old versions, and for GLACIER_IR or INTELLIGENT_TIERING, do no harm.",
    )


def _probed(store: Store, part: str, *, deleting_allowed: bool) -> Iterator[Check]:
    """Create, read and delete one small object; what is refused is told, and the rest tried all the same."""
    what = "may create objects"
    try:
        (first,) = store.create([NewObject(PROBE_KEY, _PROBE)])
        (second,) = store.create([NewObject(PROBE_KEY, _OTHER_PROBE)])
        if (
            first is second is Created.OTHER
        ):  # somebody else's: nothing was put yet, for what stands is not touched
            (standing,) = store.fetch([Extent(PROBE_KEY)])
            store.create([NewObject(PROBE_KEY, standing)])
        # One of the two stands there, be it from an earlier look, and the other is refused.
        if Created.OTHER in (first, second) and second is not Created.NEW:
            yield Check(part, what, Verdict.OK, "and what stands is never replaced")
        else:
            yield Check(
                part,
                what,
                Verdict.FAILED,
                "the server replaced an object that was to be created only where there is none",
                "Use an S3 server that honours If-None-Match on PUT: without it, two archivers can overwrite objects.",
            )
    except HopArchiveError as error:
        yield failed(part, what, error)
    try:
        (body,) = store.fetch([Extent(PROBE_KEY)])
        yield Check(part, "may read objects", Verdict.OK, f"{len(body)} bytes came back")
    except HopArchiveError as error:
        yield failed(part, "may read objects", error)
    what = "may delete objects"
    if not deleting_allowed:
        yield Check(part, what, Verdict.OK, "not tried: the stanza does not allow it")
        return
    try:
        store.delete([PROBE_KEY])
        yield Check(part, what, Verdict.OK, "yes, as the stanza allows")
    except HopArchiveError as error:
        yield failed(part, what, error)


def examine_together(catalog: Catalog, store: Store) -> Iterator[Check]:
    """Look whether catalog and store belong to one archive: at the newest message, or, where there is none, for any object.

    A bucket that lost all or most of its objects, and a catalog that is empty beside a bucket that is not, are all right each by itself.
    """
    check = partial(Check, "archive", "catalog and store belong together")
    try:
        grown = [s for s in catalog.summaries() if s.messages and s.last_timestamp_ms is not None]
        if not grown:
            stray = next((info.key for info in store.listing() if not info.key.startswith(OWN_FOLDER)), None)
            if stray is None:
                yield check(Verdict.OK, "both are empty")
            else:
                what = f"the catalog has no message, and the bucket {store.bucket} has objects, {stray} first"
                yield check(Verdict.WARNING, what, "If the catalog was lost: hop-archive rebuild-catalog.")
            return
        last = max(grown, key=lambda summary: (summary.last_batch_at is not None, summary.last_batch_at))
        newest = itertools.islice(catalog.select(Query((last.topic,), limit=1), Order.NEWEST), 1)
        for found in fetch_documents(store, newest, catalog.find):
            where = f"the newest message of {last.topic}, in {found.row.object_key}"
            if found.problems:
                remedy = "See what else is: hop-archive verify. Where much is missing: docs/runbooks.md, The bucket is lost."
                yield check(Verdict.FAILED, f"{where}: {'; '.join(found.problems)}", remedy)
            else:
                yield check(Verdict.OK, f"{where}, is what its row says")
    except HopArchiveError as error:
        yield failed("archive", "catalog and store belong together", error)


def examine_clocks(
    now: Callable[[], datetime.datetime], clocks: Mapping[str, Callable[[], datetime.datetime | None]]
) -> Iterator[Check]:
    """Compare the clocks of servers, asked when called, with ours; None where a server does not tell the time."""
    for name, ask in clocks.items():
        try:
            before, theirs, after = now(), ask(), now()
        except HopArchiveError:
            continue  # said already, where the part was looked at
        if theirs is None:
            continue
        # At the least: the answer was made at some moment between the two.
        off = max(before - theirs, theirs - after, datetime.timedelta(0))
        if off < CLOCK_WARNING:
            yield Check("clock", name, Verdict.OK, "agrees with ours")
            continue
        verdict = Verdict.WARNING if off < CLOCK_FAILURE else Verdict.FAILED
        detail = f"{off.total_seconds():,.0f} s away from ours"
        remedy = "Set this machine's clock by NTP, or see to the server's."
        yield Check("clock", name, verdict, detail, remedy)
