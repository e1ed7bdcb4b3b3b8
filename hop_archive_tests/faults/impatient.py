"""The project's definitions for a run in a process, whose store and database are not waited for as long as a deployment should."""

from __future__ import annotations

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.orchestration.definitions import defs
from hop_archive.store.s3.store import S3Store

__all__ = ["defs"]

for part, what, seconds in ((S3Store, "retry_s", 2.0), (PostgresCatalog, "timeout_s", 2.0)):
    defaults = part.__init__.__kwdefaults__
    assert defaults is not None
    assert what in defaults
    defaults[what] = seconds
