"""What calls to a catalog and a store do, by their names: which of them change something, and what may befall them."""

from __future__ import annotations

from hop_archive_tests.simulation.history import At, Blow

STORE_READS = ("fetch", "listing", "etag", "check", "condition")
CATALOG_READS = frozenset({
    "adopted_extent", "adopted_rows", "adopted_span", "checked", "collisions", "compacted", "condition", "coverage", "check",
    "duplicates", "duplicates_in", "extent", "find", "findings", "generations", "has_adopted", "keepers", "known",
    "known_topics", "ledger", "ledger_days", "left_behind", "likely_copies", "measure", "mentions", "message_days",
    "miscounts", "miscounts_in", "objects_in", "observed", "open_findings", "partition_logs", "pending_deletes",
    "pending_keys", "recorded", "referred_to", "restores", "rows", "rows_for", "select", "snapshots", "spans", "stored",
    "summaries", "summary_miscounts", "suppressed", "suppressions", "tails", "text_backlog", "topics", "unledgered",
    "verified", "verified_shares", "waiting_keys",
})  # fmt: skip
_OUTSIDE_OF_ROWS = frozenset({"hold", "observe", "note_findings", "note_verified", "note_checked"})
"""These write as well, but neither rows nor the ledger; and to hold a name is not a statement that is sent twice."""


def writes_to_catalog(call: str) -> bool:
    """Whether a call writes to the catalog, so that it needs room there."""
    part, _, name = call.partition(".")
    return part == "catalog" and name.split()[0] not in CATALOG_READS | {"hold"}


def creates_objects(call: str) -> bool:
    """Whether a call needs room in the store."""
    return call == "store.create"


def may_change_rows_or_objects(call: str) -> bool:
    """Whether what rows name, or what is there, may be another after a call."""
    part, _, name = call.partition(".")
    name = name.split()[0]
    if part == "catalog":
        return name not in CATALOG_READS | _OUTSIDE_OF_ROWS
    return part == "store" and name in ("create", "delete")


def can_befall(blow: Blow, call: str) -> bool:
    """Whether a call can go wrong in this way: others may in the way of failing or dying at it.

    What a server does with a request that its client has given up is done once more, or later: creating objects, which is
    conditional, and writing to the catalog, which is a transaction. A bucket's DELETE is neither: see ``Blow``.
    """
    if blow in (Blow.LATE, Blow.TWICE):
        return writes_to_catalog(call) or call in ("store.create", "backup.create")
    if blow is Blow.TORN:
        return call in ("store.fetch item", "backup.fetch item")
    if blow is Blow.STALE:
        return call in ("store.listing", "backup.listing", "store.fetch", "backup.fetch")
    return True


_MOMENTS = ("", "", "reader.add", "catalog.commit")


def awaited(event: At) -> str:
    """The call before which an event happens, from its step on; '' where it happens at its step, as each second one does.

    What is planned, then read, then committed has to be the same all the while, and the moments between are short: a topic that
    was made anew before it was read, and after it was looked at, came about in one history of four hundred.
    """
    return _MOMENTS[event.choice % len(_MOMENTS)]
