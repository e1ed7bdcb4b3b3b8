"""What is done once for each row, in portions: the text index, with the check of how far it is behind, and better media types."""

import datetime
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.model.progress import Progress
from hop_archive.model.wording import counted
from hop_archive.orchestration.overview import whole_archive
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES, unless_zero
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import (
    ASKED,
    SHORT,
    Home,
    job_link,
    only_fields,
    scheduled_tags,
    upkeep_job,
    upkeep_tags,
)
from hop_archive.upkeep.media_types import correct_media_types as correct
from hop_archive.upkeep.text_index import NOT_SET, backlog
from hop_archive.upkeep.text_index import index_text as index

_HOUR_S = 3600.0


class TextIndexConfig(dg.Config):
    """How much to index."""

    everything: bool = Field(
        default=False,
        description="Look from the beginning, not only where it was left: for topics that were added to index_text later.",
    )
    most_messages: int = Field(default=500_000, ge=1, description="Index so many messages at most.")


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    kinds={"postgres"},
    description="The words of messages, in which readers of archive-core search; of the topics that the database's index_text names.",
)
def text_index(
    context: dg.AssetExecutionContext, config: TextIndexConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Index what is not indexed yet. Again, or after a kill: goes on where it was."""
    done = Progress()
    if not archive.text_topics:
        context.log.info(NOT_SET)
        return dg.MaterializeResult(metadata={"indexed": 0, "why": NOT_SET})
    with as_failures():
        index(
            archive.catalog,
            archive.store,
            archive.text_topics,
            done,
            everything=config.everything,
            limit=config.most_messages,
        )
        left = backlog(archive.catalog, archive.text_topics)
    return dg.MaterializeResult(
        metadata={
            "indexed": unless_zero(done.counts["indexed"]),
            "headers_only": unless_zero(done.counts["headers"]),
            "unreadable_documents": unless_zero(done.counts["unreadable"]),
            "waiting": unless_zero(left.messages),
        }
    )


class TextIndexBounds(dg.Config):
    """How far the text index may be behind."""

    hours: float = Field(
        default=2.0, gt=0, description="Most hours that an archived message may wait for its text."
    )


@dg.asset_check(
    asset=whole_archive.key, description="What was archived is found by text within the hours that are set."
)
def text_indexed_in_time(
    context: dg.AssetCheckExecutionContext, config: TextIndexBounds, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Yellow where the job index_text does not keep up; it is started by hand, or raise its most_messages. Passes where it is off."""
    if not archive.text_topics:
        return dg.AssetCheckResult(passed=True, description=NOT_SET)
    with as_failures():
        left = backlog(archive.catalog, archive.text_topics)
    age = None if left.since is None else archive.now() - left.since
    late = age is not None and age > datetime.timedelta(hours=config.hours)
    at_least = "At least " if left.has_more else ""
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{at_least}{counted(left.messages, 'message waits', 'messages wait')} for the text index."
        if late
        else None,
        metadata={
            "waiting": left.messages,
            **(job_link(Home.of(context.run), "index_text") if late else {}),
            **({} if age is None else {"oldest_waits_hours": round(age.total_seconds() / _HOUR_S, 2)}),
        },
    )


class MediaTypesConfig(dg.Config):
    """How many rows to correct."""

    most_messages: int = Field(default=500_000, ge=1, description="Look at so many messages at most.")


@dg.op(out=dg.Out(dg.Nothing))
def correct_rows(
    context: dg.OpExecutionContext, config: MediaTypesConfig, archive: dg.ResourceParam[Archive]
) -> Iterator[dg.Output[None]]:
    """Correct media types that are told better today. Again, or after a kill: goes on where it was."""
    done = Progress()
    with as_failures():
        correct(archive.catalog, archive.store, done, limit=config.most_messages)
    complete = done.counts["rows"] >= done.total
    corrected = done.counts["corrected"]
    more = "all were looked at" if complete else "launch it again for the rest"
    context.log.info(f"{counted(corrected, 'row')} corrected; {more}.")
    yield dg.Output(None, metadata={"corrected": corrected, "is_complete": complete})


index_text = upkeep_job(
    "index_text", SHORT, text_index, "Fills the text index with what was archived since the last time."
)


@dg.schedule(
    job=index_text,
    cron_schedule="4-59/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Indexes text every ten minutes; where the database's stanza has no index_text, it starts nothing, and says so.",
)
def index_text_often(archive: dg.ResourceParam[Archive]) -> dg.RunRequest | dg.SkipReason:
    """A run, or why none."""
    with as_failures():
        return (
            dg.RunRequest(tags=scheduled_tags(index_text)) if archive.text_topics else dg.SkipReason(NOT_SET)
        )


@dg.job(
    config=only_fields("correct_rows", MediaTypesConfig),
    tags=upkeep_tags(ASKED),
    description="Corrects media types of rows that an older version wrote; documents stay as they are. Once after an upgrade.",
)
def correct_media_types() -> None:
    """One step."""
    correct_rows()
