"""What to verify, and what was looked at so far."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from hop_archive.archive import Archive, utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.store.protocol import Store
from hop_archive.upkeep.verify.sent import Place, Sent

NOT_DUE = "copies not due yet"
"""What objects are counted as whose copies may be on their way to the backup."""

NEW_NOT_DUE = "new copies not due yet"
"""Likewise those of objects that are new since the last look."""

NOT_LOOKED_AT = "not looked at"
"""What the partitions and topics are counted as that the source could not show."""

BACKUP_GRACE_S = 900.0
"""Objects younger than this may be on their way to the backup: so long S3 takes for one in 10,000 (Amazon S3 User Guide,
"Replication Time Control")."""

GRACE_S = 3600.0
"""Objects younger than this may belong to a batch that is about to be committed."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What to verify.

    Attributes:
        query: Which messages. What is not fetched is selected by topic only.
        grace_s: How old an object has to be before it counts as one that no row names.
        checked: Where to count what was looked at, for people and for ``--json``: ``objects``, ``rows``, ``messages``
            (documents fetched), ``bytes``, ``batches``, ``offsets``, ``inexact messages`` (of documents with caveats).
        backup: The backup of the store; None where there is none.
        backup_grace_s: How old an object has to be before its copy counts as missing there.
        open_archive: Opens the archive whose source is asked; None where none is.
        sample: Of the source, about so many messages of each partition are read again; None: all.
        sent: What was sent; None where nobody recorded that.
    """

    catalog: Catalog
    store: Store
    query: Query = field(default_factory=Query)
    grace_s: float = GRACE_S
    checked: Progress = field(default_factory=Progress)
    backup: Store | None = None
    backup_grace_s: float = BACKUP_GRACE_S
    now: Callable[[], datetime.datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep
    open_archive: Callable[[], AbstractContextManager[Archive]] | None = None
    sample: int | None = None
    sent: Mapping[Place, Sent] | None = None

    def oldest_young_ms(self, grace_s: float | None = None) -> int:
        """What was created after this moment (milliseconds since 1970) is too young to be judged; None: by ``self.grace_s``."""
        return int((self.now().timestamp() - (self.grace_s if grace_s is None else grace_s)) * 1000)

    def topics(self) -> Sequence[str]:
        """The topics that are meant, of those that the catalog knows.

        Raises:
            ConfigurationError: A name or glob means none.
        """
        return self.query.chosen_topics(self.catalog.known_topics())
