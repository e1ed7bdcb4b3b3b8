"""Options that select messages, shared by every command that works on some of them."""

from __future__ import annotations

import datetime
import functools
import re
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.moments import moment
from hop_archive.cli.options import Command
from hop_archive.errors import ConfigurationError
from hop_archive.model.times import MOMENT_HELP, milliseconds

if TYPE_CHECKING:
    from hop_archive.model.query import Query

LONGEST_TIMEOUT_S = 300
"""A connection gives up a server that says nothing for longer: psql is for such questions."""

COLUMNS_HELP = """\b
Columns that a condition may use:
  topic, generation, partition, "offset" (in quotes), timestamp (milliseconds
  since 1970), timestamp_type (0 create, 1 append), uuid, is_client_uuid,
  size (bytes of the document), key, bucket, position, crc32, message_crc32,
  digest, media_type, title, sender, file_name, originator, public,
  direct_upload, retracted
"""

_WHERE = re.compile(r"\A\s*where\b", re.IGNORECASE)
"""Only at the beginning: any other ``where`` is the condition's own, of a subquery or of a text."""

_OPTIONS = (
    click.option(
        "-T",
        "--topic",
        "topics",
        metavar="NAME",
        multiple=True,
        help="Only of this topic; a name, or a glob such as 'gcn.*'. May be given again.",
    ),
    click.option("--since", type=moment, help=f"Only with a timestamp at or after {MOMENT_HELP}."),
    click.option("--until", type=moment, help="Only with a timestamp before that; forms as for --since."),
    click.option(
        "--sender", "senders", metavar="TEXT", multiple=True, help="Only of this sender. May be given again."
    ),
    click.option(
        "--media-type",
        "media_types",
        metavar="TYPE",
        multiple=True,
        help="Only of this media type, as inspect shows it. May be given again.",
    ),
    click.option(
        "--limit", metavar="NUMBER", type=click.IntRange(min=0), help="Only so many, the first ones."
    ),
    click.option(
        "--where",
        "condition",
        metavar="CONDITION",
        help="Only those that meet a condition in SQL. Nothing else can be run with it. Needs a Postgres database.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0, max=LONGEST_TIMEOUT_S, min_open=True),
        default=60,
        show_default=True,
        help="Longest that the database may look for the next messages.",
    ),
)


def selection_options(command: Command) -> Command:
    """Give a command the options that select; it receives ``query`` (a `Query`) and ``timeout_s``."""

    @functools.wraps(command)
    def collecting(
        *args: Any,
        topics: tuple[str, ...],
        since: datetime.datetime | None,
        until: datetime.datetime | None,
        senders: tuple[str, ...],
        media_types: tuple[str, ...],
        limit: int | None,
        condition: str | None,
        **others: Any,
    ) -> Any:
        from hop_archive.model.query import Query

        query = Query(
            topics=tuple(dict.fromkeys(topics)),
            since_ms=None if since is None else milliseconds(since),
            until_ms=None if until is None else milliseconds(until),
            senders=senders,
            media_types=media_types,
            condition=without_where(condition),
            limit=limit,
        )
        return command(*args, query=query, **others)

    wrapped: Any = collecting
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # what click's decorators return is the function given


def without_where(condition: str | None) -> str:
    """The condition without the word ``where`` that it may begin with; '' for None.

    Raises:
        ConfigurationError: It is empty: everything would be selected where something was meant.
    """
    if condition is None:
        return ""
    bare = _WHERE.sub("", condition, count=1)
    if not bare.strip():
        raise ConfigurationError("The condition is empty.", remedy="Leave it out to select everything.")
    return bare


def described(query: Query) -> dict[str, Any]:
    """Return a query as JSON has it; only what it says."""
    from hop_archive.cli.output import timestamp

    said = {
        "topics": list(query.topics),
        "since": timestamp(query.since_ms),
        "until": timestamp(query.until_ms),
        "senders": list(query.senders),
        "media_types": list(query.media_types),
        "uuids": None if query.uuids is None else [str(own) for own in query.uuids],
        "where": query.condition,
        "limit": query.limit,
    }
    return {name: value for name, value in said.items() if value not in (None, "", [])}
