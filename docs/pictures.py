"""Make the pictures of docs/images anew: of an archive on this machine, with 500 quiet topics, and two objects that are damaged.

Wants Debian's chromium (or CHROMIUM, the path of another), and `pip install playwright` in .venv; some ten minutes of a quiet
machine. It uses a stack of its own, in build/pictures, which it removes at the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import click
from PIL import Image

from hop_archive.devkit.dev import trickle
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.publish import publish
from hop_archive.devkit.samples import samples
from hop_archive.devkit.sampling import create_sample_topics
from hop_archive.devkit.workbench import INSTANCE_FILE, Workbench, set_up
from hop_archive.errors import UnavailableError
from hop_archive.ingest.survey import survey
from hop_archive.read.report import gather
from hop_archive.read.report_page import keep_in_folder

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parent / "images"
STACK = Path("build/pictures")
QUIET_TOPICS = 500
DAYS = 30
"""Of so many days there are messages, for the plots of the report."""
DAMAGED = "gcn.notices"
LONGEST_S = 900.0


def main() -> None:
    """Fill an archive, damage it, have it looked at, and take a picture of each page."""
    _refuse_without_a_browser()
    bench = set_up(STACK, Path(INSTANCE_FILE))
    try:
        _publish(bench)
        port = _free_port()
        place = ("--host", "127.0.0.1", "--port", str(port))
        command = bench.command("dagster", "dev", *bench.code, "--log-level", "warning", *place)
        with bench.running(*command):
            threading.Thread(target=trickle, args=(bench, 5.0), daemon=True).start()
            site = Site(f"http://127.0.0.1:{port}")
            _wait(site.answers, "Dagster's UI answers")
            with contextlib.closing(bench.archive()) as archive:
                _wait(lambda: sum(survey(archive).pending().values()) < 100, "nearly all is archived")
            _damage(bench)
            for job in ("verify", "check_archive", "report_archive"):
                site.run(job)
            backfill = site.backfill([DAMAGED, "ztf.alerts", "snews.alerts", "lvk.superevents"])
            with contextlib.closing(bench.archive()) as archive:
                report = keep_in_folder(gather(archive), STACK)
            with _browser() as page:
                _take_all(page, site, backfill)
                take(page, report.resolve().as_uri(), "report", "By topic")
    finally:
        LocalStack(STACK).down(purge=True)
        shutil.rmtree(STACK, ignore_errors=True)


def _take_all(page: Page, site: Site, backfill: str) -> None:
    location = f"{site.url}/locations/hop_archive"
    take(page, f"{site.url}/assets/archive", "archive", "by_topic", height=1250)
    take(
        page,
        f"{site.url}/assets/archived_messages?view=partitions&partition={DAMAGED}",
        "topic",
        "open_findings",
    )
    take(page, f"{site.url}/runs", "run", "archive_quiet_topics")
    checks = f"{site.url}/assets/archive?view=checks&checkDetail=objects_present"
    take(page, checks, "objects", "Launch the job repair")
    take(page, f"{location}/jobs/repair/playground", "repair", "dry_run")
    take(page, f"{site.url}/runs/b/{backfill}?tab=runs", "backfill", f"partition: {DAMAGED}")

    def point_at_a_tick_without_a_run(page: Page) -> None:
        page.get_by_text("0 runs requested").first.scroll_into_view_if_needed()
        page.get_by_text("0 runs requested").first.hover()

    take(page, f"{location}/sensors/kafka_offsets", "ticks", "requested", then=point_at_a_tick_without_a_run)


def take(
    page: Page,
    url: str,
    name: str,
    until: str,
    *,
    height: int = 900,
    then: Callable[[Page], None] = lambda _: None,
) -> None:
    """Take a picture of a page once it shows ``until``, and nothing of it is being loaded any more."""
    page.set_viewport_size({"width": 1400, "height": height})
    page.goto(url)
    page.wait_for_function(
        "wanted => { const said = document.body.innerText; return said.includes(wanted) && !said.includes('Loading') }",
        arg=until,
        timeout=LONGEST_S * 1000,
    )
    then(page)
    page.wait_for_timeout(3_000)  # icons and switches come after the words
    taken = Image.open(io.BytesIO(page.screenshot()))
    taken.convert("RGB").quantize(256).save(IMAGES / f"{name}.png", optimize=True)  # a third of the size
    click.echo(f"{name}.png: {url}")


class Site:
    """Dagster's webserver, asked as its own pages ask it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def answers(self) -> bool:
        """Whether it does, and knows the code."""
        with contextlib.suppress(OSError):
            return bool(self.ask("{ assetNodes { id } }")["assetNodes"])
        return False

    def run(self, job: str) -> None:
        """Launch a job with nothing configured, and wait until it has ended well."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "hop_archive",
            "pipelineName": job,
        }
        launched = self.ask(
            "mutation($e: ExecutionParams!) { launchRun(executionParams: $e) { ... on LaunchRunSuccess { run { runId } } } }",
            e={"selector": selector, "runConfigData": "{}", "mode": "default"},
        )
        run_id = launched["launchRun"]["run"]["runId"]
        status = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        _wait(lambda: self.ask(status, id=run_id)["runOrError"]["status"] == "SUCCESS", f"{job} ends well")

    def backfill(self, topics: list[str]) -> str:
        """Launch a backfill of these topics; its number."""
        launched = self.ask(
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {"
            " ... on LaunchBackfillSuccess { backfillId } } }",
            p={"assetSelection": [{"path": ["archived_messages"]}], "partitionNames": topics},
        )
        return str(launched["launchPartitionBackfill"]["backfillId"])


def _publish(bench: Workbench) -> None:
    """Sample alerts to their topics, and one to each of many quiet ones."""
    with contextlib.closing(bench.archive()) as archive:
        create_sample_topics(archive.source)
        now_ms = time.time_ns() // 1_000_000
        for day in range(DAYS):
            alerts = samples(50 + 37 * day % 60, seed=day, now_ms=now_ms - day * 86_400_000)
            for _ in publish(archive.source, alerts, sleep=time.sleep):
                pass
        names = [f"survey.{number:03}.alerts" for number in range(QUIET_TOPICS)]
        for name in names:
            archive.source.create_topic(name)
        alerts = samples(QUIET_TOPICS, seed=DAYS, now_ms=now_ms)
        quiet = (replace(alert, topic=name, partition=0) for alert, name in zip(alerts, names, strict=False))
        for _ in publish(archive.source, quiet, sleep=time.sleep):
            pass


def _damage(bench: Workbench) -> None:
    """Delete an object, and cut another one short, behind the archive's back."""
    has = bench.environ
    s3 = boto3.client(
        "s3",
        "us-east-1",
        endpoint_url=has["HOP_ARCHIVE_LOCAL_S3_ENDPOINT"],
        aws_access_key_id=has["HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"],
        aws_secret_access_key=has["HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"],
    )
    bucket = has["HOP_ARCHIVE_LOCAL_BUCKET"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{DAMAGED}/", MaxKeys=2)["Contents"]
    gone, short = (entry["Key"] for entry in listed)
    s3.delete_object(Bucket=bucket, Key=gone)
    body = s3.get_object(Bucket=bucket, Key=short)["Body"].read()
    s3.put_object(Bucket=bucket, Key=short, Body=body[: len(body) // 2])


def _refuse_without_a_browser() -> None:
    """End at once, not after minutes of filling, where what takes the pictures is not installed."""
    wanting = []
    if importlib.util.find_spec("playwright") is None:
        wanting.append(
            "playwright is not in .venv: .venv/bin/pip install playwright (no browser of its own is wanted)."
        )
    if _chromium() is None:
        wanting.append(
            "There is no Chromium here: apt-get install chromium, or say in CHROMIUM where another one is."
        )
    if wanting:
        sys.exit("\n".join(wanting))


def _chromium() -> str | None:
    return shutil.which(os.environ.get("CHROMIUM", "chromium"))


@contextlib.contextmanager
def _browser() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright  # not in dev.lock: only this script wants it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        with contextlib.suppress(UnavailableError, OSError):  # of a busy machine
            if condition():
                return
        time.sleep(2.0)
    sys.exit(f"Waited {LONGEST_S:.0f} s in vain: {what}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
