"""What a database and a bucket are like for who connects: clocks, rights, versions. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass

ARCHIVING_TABLES = (
    "messages",
    "batches",
    "duplicates",
    "generations",
    "logs",
    "observed",
    "findings",
    "topics",
)
"""The tables that archiving writes to."""

TABLES = (
    *ARCHIVING_TABLES,
    "verified",
    "suppressions",
    "condemned",
    "restores",
    "snapshots",
    "held",
    "message_ts",
    "row_progress",
    "archivers",
    "claims",
    "compacted",
    "checked",
)
"""Every table of a catalog."""

ENCODING = "UTF8"
"""The encoding that a catalog's database has to have: any other lacks characters that messages hold, or checks none."""

OLDEST = 14
"""Postgres' major version from which on every statement of ours is understood."""


@dataclass(frozen=True, slots=True)
class SequenceCondition:
    """Where a sequence stands beside the table whose rows it numbers.

    Attributes:
        name: The sequence, with its schema, quoted where SQL needs it.
        table: The table, likewise.
        column: Its column that the sequence numbers, likewise.
        key: The name of the primary key on that column; '' without one.
        last: The number it gave last, 0 if none; None where the role may not read it.
        greatest: The greatest number in the table, 0 if there is none.
    """

    name: str
    table: str
    column: str
    key: str
    last: int | None
    greatest: int

    @property
    def is_behind(self) -> bool:
        """Whether it is known to have numbers before it that are taken."""
        return self.last is not None and self.last < self.greatest

    @property
    def remedy(self) -> str:
        """The statement that lets it go on after what is taken, and never go back."""
        name = "'" + self.name.replace("'", "''") + "'"
        greatest = f"SELECT max({self.column}) FROM {self.table}"  # noqa: S608 (names, quoted)
        return f"SELECT setval({name}, greatest(nextval({name}), ({greatest})))"


@dataclass(frozen=True, slots=True)
class CatalogCondition:
    """The condition of a catalog.

    Attributes:
        at: The time by the server's clock.
        version: The server's version, for people; '' for a mock.
        is_old: Whether it is older than ``OLDEST``.
        read_only: Whether the server or the role's settings let nothing be written: a standby, say.
        role: Who is connected; '' for a mock.
        rights: Of each table, which of SELECT, INSERT, UPDATE and DELETE the role may use.
        encoding: Of the database; '' for a mock.
        was_adopted: Whether another archiver made it, or has rows in it: readers of its own are there.
        sequences: Where each sequence stands; none for a mock.
    """

    at: datetime.datetime
    version: str
    is_old: bool
    read_only: bool
    role: str
    rights: Mapping[str, frozenset[str]]
    encoding: str = ""
    sequences: tuple[SequenceCondition, ...] = ()
    was_adopted: bool = False

    def lacking_to_archive(self) -> list[str]:
        """The rights that an archiver needs and the role lacks, as ``INSERT on messages``."""
        return [
            *self.lacking("SELECT", "INSERT"),
            *self.lacking("UPDATE", tables=("batches", "findings", "observed", "topics")),
            *self.lacking("DELETE", tables=("batches",)),
        ]

    def lacking_to_restore(self) -> list[str]:
        """The rights that restoring and rebuilding need, beside those to archive, and the role lacks."""
        return [
            *self.lacking("SELECT", "INSERT", tables=("held", "restores", "suppressions")),
            *self.lacking("UPDATE", tables=("held", "restores")),
        ]

    def lacking_to_look_after(self) -> list[str]:
        """The rights that verifying and snapshots of the source need, beside those to archive, and the role lacks."""
        return [
            *self.lacking("SELECT", "INSERT", "UPDATE", tables=("snapshots", "row_progress")),
            *self.lacking("SELECT", "INSERT", tables=("verified", "checked")),
            *self.lacking("DELETE", tables=("verified", "checked")),
        ]

    def lacking_to_share(self) -> list[str]:
        """The rights that archivers need to divide a backlog among them, and the role lacks."""
        return self.lacking("SELECT", "INSERT", "UPDATE", "DELETE", tables=("archivers", "claims"))

    def lacking_to_index_text(self) -> list[str]:
        """The rights that filling the text index needs and the role lacks."""
        return [
            *self.lacking("SELECT", "INSERT", tables=("message_ts", "row_progress", "held")),
            *self.lacking("UPDATE", tables=("row_progress", "held")),
        ]

    def lacking(self, *wanted: str, tables: Collection[str] = ARCHIVING_TABLES) -> list[str]:
        """Which of the ``wanted`` rights on ``tables`` the role lacks, as ``INSERT on messages``."""
        return [
            f"{right} on {table}"
            for table, has in self.rights.items()
            for right in wanted
            if table in tables and right not in has
        ]


@dataclass(frozen=True, slots=True)
class StoreCondition:
    """The condition of a store's bucket.

    Attributes:
        at: The time by the service's clock; None where it does not tell.
        versioning: Whether a deleted or replaced object is kept as an old version; None where it is not known.
        replication: Whether objects are copied to another bucket by the service; None where it is not known.
        why_unknown: Why one of these two is not known, for people; '' where both are.
        has_old_versions: Whether old versions may be there: it keeps them, or kept them once; None where it is not known.
        lifecycle: What rules of its lifecycle take out of reach, in words: objects that they delete, or move to where they cannot be
            read at once; None where it is not known.
    """

    at: datetime.datetime | None
    versioning: bool | None
    replication: bool | None
    why_unknown: str = ""
    has_old_versions: bool | None = False
    lifecycle: tuple[str, ...] | None = ()
