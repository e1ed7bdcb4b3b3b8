"""``hop-archive uuids``: the UUIDs of the messages that are selected."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import (
    COLUMNS_HELP,
    Explained,
    StanzaOptions,
    selection_options,
    stanza_options,
    without_where,
)
from hop_archive.cli.output import timestamp

if TYPE_CHECKING:
    from hop_archive.catalog.records import Row
    from hop_archive.model.query import Query

_EPILOG = f"""\b
Examples:
  hop-archive uuids -D local-db -T gcn.notices --since 2d
  hop-archive uuids -D local-db --where "title ILIKE '%neutrino%' AND size > 1e6"
  hop-archive uuids -D local-db --where 'NOT is_client_uuid' --limit 5 --json
  hop-archive uuids -D aws-prod-db "where retracted"

{COLUMNS_HELP}
\b
All that is given must hold; an option given again names an alternative. The
order is that of topic, generation, partition and offset.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@selection_options
@click.argument(
    "clause",
    required=False,
    metavar="[CONDITION]",
    cls=Explained,
    help="The same as --where CONDITION; it may begin with the word where.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line for each message, instead of its UUID.",
)
def uuids(
    chosen: StanzaOptions, query: Query, timeout_s: float, clause: str | None, *, as_json: bool
) -> None:
    """Print the UUIDs of messages, one a line: of all, or of those that options or a condition select.

    However many there are, they are printed as the database finds them. It is only read, in a transaction that
    could not change anything.
    """
    if clause is not None:
        if query.condition:
            raise click.UsageError("Give the condition once: with --where, or as an argument.")
        query = replace(query, condition=without_where(clause))
    with chosen.setup().catalog() as catalog:
        rows = catalog.select(query, timeout_s=timeout_s)
        with quietly_closed():
            for row in rows:
                # Not by click, whose echo would flush each.
                sys.stdout.write(f"{json.dumps(as_object(row)) if as_json else row.uuid}\n")
            sys.stdout.flush()


@contextlib.contextmanager
def quietly_closed() -> Iterator[None]:
    """Let whoever reads our output go when they have enough, as ``head`` does: that is no error."""
    try:
        yield
    except BrokenPipeError:
        # What is still buffered would be tried again, and complained about, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_object(row: Row) -> dict[str, Any]:
    """Return a row as one line of JSON has it."""
    notes = row.annotations
    return {
        "uuid": str(row.uuid),
        "topic": row.topic,
        "generation": row.generation,
        "partition": row.partition,
        "offset": row.offset,
        "timestamp": timestamp(row.timestamp_ms),
        "timestamp_ms": row.timestamp_ms,
        "size": row.size_bytes,
        "media_type": notes.media_type,
        "title": notes.title,
        "sender": notes.sender,
        "file_name": notes.file_name,
        "originator": notes.originator,
        "is_client_uuid": row.is_client_uuid,
        "public": notes.public,
        "retracted": row.retracted,
    }
