"""All that the archive knows of one message."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Mentions, Row
from hop_archive.errors import CorruptError, DataError, ObjectMissingError
from hop_archive.model.document import Document
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.protocol import Store


@dataclass(frozen=True, slots=True)
class Inspection:
    """One message, as catalog and store have it.

    Attributes:
        body: The stored bytes; None where there are none.
        document: What they decode to; None where they do not.
        problems: In what they are not what the row describes.
    """

    row: Row
    mentions: Mentions
    body: bytes | None
    document: Document | None
    problems: tuple[str, ...]

    def fault(self) -> DataError | None:
        """What a person has to decide on; None where all is well."""
        if not self.problems:
            return None
        message = f"Message {self.row.uuid} is not stored as the catalog says: {'; '.join(self.problems)}."
        facts = {"uuid": str(self.row.uuid), "object_key": self.row.object_key, "bucket": self.row.bucket}
        return ObjectMissingError(message, **facts) if self.body is None else CorruptError(message, **facts)


def inspect(catalog: Catalog, store: Store, message_uuid: uuid.UUID) -> Inspection | None:
    """What there is of the message of this UUID; None where the catalog has none. Changes nothing.

    Raises:
        UnavailableError: Catalog or store do not answer.
    """
    row = catalog.find(message_uuid)
    if row is None:
        return None
    mentions = catalog.mentions(message_uuid, row.topic)
    (fetched,) = fetch_documents(store, [row])
    problems = fetched.problems
    if fetched.error is not None and row.bucket != store.bucket:
        problems += (
            f"the catalog names the bucket {row.bucket}, and store {store.name} reads {store.bucket}",
        )
    body = None if fetched.error is not None else fetched.body
    return Inspection(row, mentions, body, fetched.document, problems)
