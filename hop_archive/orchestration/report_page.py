"""The report: how the archive stands, as one page a day, in the store or in a folder."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import SHORT, schedule, upkeep_job
from hop_archive.read.report import DAYS, gather, markdown
from hop_archive.read.report_page import keep_in_folder, keep_in_store

FOLDER_VARIABLE = "HOP_ARCHIVE_REPORT_FOLDER"
URL_VARIABLE = "HOP_ARCHIVE_REPORT_URL"


class ReportConfig(dg.Config):
    """What to report, and where to."""

    days: int = Field(
        default=DAYS,
        ge=1,
        description="So many days at most, up to today, or to the newest message where that is older.",
    )
    folder: str = Field(
        default="",
        description=f"A folder for archive.html. Empty: what {FOLDER_VARIABLE} says where the run goes on; without that, "
        "hop_archive/reports/ in the store, a page a day.",
    )
    url: str = Field(
        default="",
        description=f"Under which address people see that folder, for the link. Empty: what {URL_VARIABLE} says.",
    )


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="How the archive stands, as a page: what is red, how far behind it is, and by day and topic messages, bytes, "
    "lag, lost, duplicates, verified share. hop-archive report writes the same.",
)
def archive_report(config: ReportConfig, archive: dg.ResourceParam[Archive]) -> dg.MaterializeResult[None]:
    """Ask the catalog and the source, and write the page. Again: the same, as of then."""
    folder = config.folder or os.environ.get(FOLDER_VARIABLE, "")
    url = config.url or os.environ.get(URL_VARIABLE, "")
    with as_failures():
        found = gather(archive, config.days)
        if not folder:
            where = f"s3://{archive.store.bucket}/{keep_in_store(found, archive.store)}"
            page: dg.MetadataValue = dg.MetadataValue.path(where)
        else:
            path = keep_in_folder(found, Path(folder))
            address = f"{url.rstrip('/')}/{path.name}"
            page = dg.MetadataValue.url(address) if url else dg.MetadataValue.path(path)
    return dg.MaterializeResult(
        metadata={
            "headline": found.headline,
            "page": page,
            "report": dg.MetadataValue.md(markdown(found)),
            "topics": len(found.topics),
            "messages": sum(sum(topic.messages.values()) for topic in found.topics),
            "bytes": sum(sum(topic.size_bytes.values()) for topic in found.topics),
            "lost": sum(sum(topic.lost.values()) for topic in found.topics),
            "duplicates": sum(sum(topic.duplicates.values()) for topic in found.topics),
            "open_findings": sum(topic.open_findings for topic in found.topics),
        }
    )


report_job = upkeep_job(
    "report_archive",
    SHORT,
    archive_report,
    "Writes how the archive stands, as a page, to the store or to a folder.",
)
report_daily = schedule(
    "report_daily", report_job, "7 13 * * *", "Reports once a day, after the scrub (UTC)."
)
