"""Errors of the core become Dagster failures here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from hop_archive.errors import HopArchiveError


@contextmanager
def told() -> Iterator[None]:
    """Turn a ``HopArchiveError`` into a ``Failure`` with its facts, to be retried only where that can help."""
    try:
        yield
    except HopArchiveError as error:
        raise dg.Failure(
            description=str(error),
            metadata={name: str(value) for name, value in error.facts.items()},
            allow_retries=error.retryable,
        ) from error
