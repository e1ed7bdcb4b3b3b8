"""What a repair works with, and what is planned of a finding; and moving objects aside, which several plans do."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Miscount
from hop_archive.errors import ForbiddenError, ObjectMissingError
from hop_archive.model.findings import Kind
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import Extent, NewObject, Store
from hop_archive.upkeep.repair.upstream import Upstream
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S

QUARANTINE = f"{OWN_FOLDER}quarantine/"
"""Under this prefix stands what was moved aside: damaged bytes, and what no row names. A person may delete it."""


class NotMendedError(Exception):
    """Why a finding stays as it is; a sentence for people. Not an error: it is told of the finding."""


class GoneError(Exception):
    """The finding is not there any more."""


class RepairPlan(NamedTuple):
    """What would mend a finding.

    Attributes:
        how: What is done, for people.
        do: Does it, and says what was done; may raise ``NotMendedError``.
    """

    how: str
    do: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Repair:
    """What to mend, and what with.

    Attributes:
        catalog: Whose rows.
        store: Whose objects.
        backup: The backup of the store; None where there is none.
        upstream: The source.
        topics: Findings of these topics only; None for all.
        kinds: Findings of these kinds only; None for all.
        now: The clock on the wall.
        stop: Asked between findings; what is left is for the next time.
        run_id: Noted in the ledger.
        backup_grace_s: How old an object has to be before its copy counts as missing in the backup.
        miscounts: The wrong counts of one topic, as they were when they were asked for.
    """

    catalog: Catalog
    store: Store
    backup: Store | None
    upstream: Upstream
    topics: Collection[str] | None = None
    kinds: Collection[Kind] | None = None
    now: Callable[[], datetime.datetime] = utc_now
    stop: Callable[[], bool] = field(default=lambda: False)
    run_id: str = "repair"
    backup_grace_s: float = BACKUP_GRACE_S
    miscounts: dict[str, Sequence[Miscount]] = field(default_factory=dict)


def whole(store: Store, key: str) -> bytes | None:
    """The bytes of an object; None where it is not there."""
    try:
        (body,) = store.fetch([Extent(key)])
    except ObjectMissingError:
        return None
    return body


def quarantine(store: Store, key: str) -> str:
    """Move an object aside, byte for byte; says where it is now. Again, after a crash, it goes on.

    Raises:
        NotMendedError: The store's stanza does not allow deleting; nothing was done.
    """
    try:
        store.delete([])
    except ForbiddenError as error:
        raise NotMendedError(f"{key} stays where it is: the store does not allow deleting") from error
    body = whole(store, key)
    if body is None:
        return f"{key} is gone"
    ending = ".bson" if key.endswith(".bson") else ""
    (kept,) = create_free(store, [NewObject(f"{QUARANTINE}{key}", body)], ending)
    store.delete([key])
    return f"{key} moved to {kept}"
