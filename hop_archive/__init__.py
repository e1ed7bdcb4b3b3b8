"""Archives every message of Hopskotch's public Kafka topics, bit for bit, in S3 and Postgres.

To read an archive from Python::

    import hop_archive

    with hop_archive.open(database="aws-prod-db", store="s3-prod") as archive:
        for found in archive.messages("gcn.notices", since="2026-11-01"):
            print(found.timestamp, found.uuid, found.value)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from hop_archive.read.browse import OpenArchive

__all__ = ["open"]


def open(  # noqa: A001 (as gzip.open and the like: it is called by the name of its module)
    database: str | None = None,
    store: str | None = None,
    *,
    toml: str | PathLike[str] | None = None,
) -> OpenArchive:
    """Open an archive for reading: messages by topic, time and UUID. Nothing is connected yet.

    Importing this package does nothing, and loads little; what reading needs is loaded here.

    Args:
        database: Name of the database stanza; None: ``HOP_ARCHIVE_DATABASE``, else a mock.
        store: Name of the store stanza; None: ``HOP_ARCHIVE_STORE``, else a mock.
        toml: File with stanzas of your own; None: ``HOP_ARCHIVE_TOML``, else ``hop_archive.toml`` here.

    Raises:
        ConfigurationError: A stanza is not there, or a file or a variable that it needs.
    """
    from pathlib import Path

    from hop_archive.config.load import load, select
    from hop_archive.config.open import open_catalog, open_store
    from hop_archive.read.browse import OpenArchive

    configuration = load(None if toml is None else Path(toml))
    chosen = select(configuration, database=database, store=store)
    chosen.refuse_unnamed("database", "store")
    return OpenArchive(
        open_catalog(chosen.database, configuration.database(chosen.database)),
        open_store(chosen.store, configuration.store(chosen.store)),
    )
