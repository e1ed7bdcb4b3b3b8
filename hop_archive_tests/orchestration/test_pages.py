"""What the pages of Dagster's UI show, asked of the real webserver as they ask it: of an archive with two damaged objects."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.resources import Backup
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.dagster_services import CODE, WEBSERVER, deployment
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.orchestration.helpers import (
    add_partitions,
    archive_of,
    run_shared,
)
from hop_archive_tests.worlds import BUSY, QUIET, fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "hop_archive"}
DATA = {
    "archive",
    "archive_report",
    "archived_messages",
    "catalog_as_parquet",
    "copies",
    "restores",
    "scrubbing",
    "source_snapshot",
    "test_topics",
    "text_index",
    "verification",
}
"""What can be materialized, and all together: none of it changes anything but the archive's own records."""

ASSET = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 1, partitions: $partitions) {
    metadataEntries { __typename label
      ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
      ... on MarkdownMetadataEntry { mdStr } ... on TimestampMetadataEntry { timestamp } } } } } }"""
CHECKS = """query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
    name description executionForLatestMaterialization { status evaluation { severity description
      metadataEntries { label ... on TableMetadataEntry { table { records } } } } } } } } } } }"""
SCHEMA = """query($selector: PipelineSelector!) {
  runConfigSchemaOrError(selector: $selector, mode: "default") { ... on RunConfigSchema {
    rootConfigType { ... on CompositeConfigType { fields { name isRequired description } } } } } }"""
VALID = """query($selector: PipelineSelector!, $config: RunConfigData!) {
  isPipelineConfigValid(pipeline: $selector, mode: "default", runConfigData: $config) {
    __typename ... on RunConfigValidationInvalid { errors { message } } } }"""


@dataclass(frozen=True)
class Pages:
    """The webserver, and what was damaged in the archive that it shows."""

    port: int
    missing: str
    cut_short: str

    def ask(self, query: str, **variables: Any) -> Any:
        """What a page is answered."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def metadata(self, asset: str, partition: str | None = None) -> dict[str, dict[str, Any]]:
        """The newest materialization of an asset, or of a partition of it."""
        variables = {"key": {"path": [asset]}, **({"partitions": [partition]} if partition else {})}
        (newest,) = self.ask(ASSET, **variables)["assetOrError"]["assetMaterializations"]
        return {entry["label"]: entry for entry in newest["metadataEntries"]}

    def checks(self, asset: str) -> dict[str, dict[str, Any]]:
        """The checks of an asset, as of its newest materialization."""
        found = self.ask(CHECKS, key={"path": [asset]})["assetNodeOrError"]["assetChecksOrError"]["checks"]
        return {check["name"]: check for check in found}

    def fields(self, job: str) -> dict[str, bool]:
        """What a job's launchpad shows, and which of it is required."""
        found = self.ask(SCHEMA, selector={**SELECTOR, "pipelineName": job})["runConfigSchemaOrError"]
        return {field["name"]: field["isRequired"] for field in found["rootConfigType"]["fields"]}

    def refusal(self, job: str, **config: Any) -> str:
        """Why a job's launchpad refuses this configuration; '' where it does not."""
        selector = {**SELECTOR, "pipelineName": job}
        found = self.ask(VALID, selector=selector, config=json.dumps(config))["isPipelineConfigValid"]
        return " ".join(error["message"] for error in found.get("errors", ()))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """What was archived, damaged, and looked at by each job, as the webserver shows it."""
    broken = ruin("message")
    home = tmp_path_factory.mktemp("pages") / "dagster"
    with deployment(home, os.environ, services=(CODE, WEBSERVER)) as made:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            missing, cut_short = archived_and_damaged(broken, instance)
        words = made.commands[WEBSERVER]
        shown = Pages(int(words[words.index("--port") + 1]), missing, cut_short)

        def is_up() -> bool:
            with suppress(OSError):
                if shown.ask("{ assetNodes { id } }")["assetNodes"]:
                    return True
                # It asked the code server before that was there, and would wait to ask again.
                shown.ask(
                    'mutation { reloadRepositoryLocation(repositoryLocationName: "hop_archive") { __typename } }'
                )
            return False

        wait_for(is_up, "the webserver answers, and knows the code", 400)
        yield shown


def archived_and_damaged(broken: Ruin, instance: dg.DagsterInstance) -> tuple[str, str]:
    """Have each job look at an archive with a missing object and one that is cut short; which they are."""
    defs = build_definitions(archive=archive_of(broken.world), backup=Backup())
    add_partitions(defs, instance)
    fill(broken.world.cluster, seed=1)
    run_shared(defs, instance)
    first, second = broken.rows(BUSY)[:2]
    broken.drop(first.object_key)
    broken.truncate(second)
    for job in ("verify", "check_archive"):
        assert defs.resolve_job_def(job).execute_in_process(instance=instance).success
    fill(broken.world.cluster, seed=2)
    run_shared(defs, instance)
    return first.object_key, second.object_key


# --- one red place


def test_the_archive_shows_its_totals_and_is_red_while_objects_are_damaged(pages: Pages) -> None:
    shown = pages.metadata("archive")
    assert shown["dagster/row_count"]["intValue"] > 0
    assert shown["dagster/size_bytes"]["intValue"] > 0
    assert shown["open_findings"]["intValue"] == 2
    assert shown["lost"]["text"] == shown["lag_messages"]["text"] == "none"
    assert shown["newest_message"]["timestamp"] > shown["oldest_message"]["timestamp"]
    assert shown.keys() >= {
        "topics",
        "last_batch_age_s",
        "verified_percent",
        "by_topic",
        "messages_last_hour",
    }
    statuses = {
        name: check["executionForLatestMaterialization"]["status"]
        for name, check in pages.checks("archive").items()
    }
    assert statuses.pop("objects_present") == "FAILED"
    assert set(statuses.values()) == {"SUCCEEDED"}, statuses


def test_what_looked_and_found_something_is_red_too(pages: Pages) -> None:
    check = pages.checks("verification")["nothing_found"]["executionForLatestMaterialization"]
    assert check["status"] == "FAILED"
    assert "Launch the job repair" in check["evaluation"]["description"]


def test_a_red_check_says_what_is_wrong_where_and_what_to_do(pages: Pages) -> None:
    red = pages.checks("archive")["objects_present"]["executionForLatestMaterialization"]["evaluation"]
    assert red["severity"] == "ERROR"
    assert red["description"].startswith("2 findings are open: 1 missing_object, 1 wrong_size. The first: ")
    assert "Launch the job repair: it shows what would mend each" in red["description"]
    (table,) = [entry["table"] for entry in red["metadataEntries"] if entry["label"] == "first"]
    named = {json.loads(record)["where"] for record in table["records"]}
    assert named == {pages.missing, pages.cut_short}


# --- a topic's page


def test_a_topics_page_has_its_totals_in_dagsters_units(pages: Pages) -> None:
    shown = pages.metadata("archived_messages", BUSY)
    numbers = {
        label
        for label, entry in shown.items()
        if entry["__typename"] in ("IntMetadataEntry", "FloatMetadataEntry")
    }
    assert numbers == {"dagster/row_count", "dagster/size_bytes"}
    assert shown["first_message"]["timestamp"] < shown["last_message"]["timestamp"]
    assert shown["lag"]["text"] == "none: all that Kafka holds is archived"
    assert shown["open_findings"]["text"] == "2"
    assert shown["last_offsets"]["text"].startswith("partition 0: ")


def test_checks_of_a_topic_are_of_its_newest_materialization(pages: Pages) -> None:
    statuses = pages.ask(
        """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError {
          ... on AssetChecks { checks { name partitionStatuses { ... on AssetCheckDefaultPartitionStatuses {
            failedPartitions succeededPartitions } } } } } } } }""",
        key={"path": ["archived_messages"]},
    )["assetNodeOrError"]["assetChecksOrError"]["checks"]
    found = {check["name"]: check["partitionStatuses"] for check in statuses}
    for shown in found.values():
        assert sorted([*shown["failedPartitions"], *shown["succeededPartitions"]]) == [BUSY, QUIET]
    assert found["objects_present"]["failedPartitions"] == [BUSY]
    assert found["no_open_findings"]["failedPartitions"] == []


# --- runs


def test_no_run_has_a_tag_for_each_topic_and_one_that_archives_says_how_much(pages: Pages) -> None:
    runs = pages.ask("{ runsOrError { ... on Runs { results { jobName tags { key value } } } } }")[
        "runsOrError"
    ]["results"]
    archiving = [run for run in runs if run["jobName"] == "archive_quiet_topics"]
    assert archiving
    for run in archiving:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        assert tags["messages"].endswith(" of 2 topics")
        assert not [key for key in tags if key.startswith("topic/")]


# --- data and deeds


def test_to_materialize_all_offers_data_and_no_deed_and_wants_no_configuration(pages: Pages) -> None:
    nodes = pages.ask(
        "{ assetNodes { assetKey { path } isExecutable configField { isRequired } jobNames } }"
    )["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes if node["isExecutable"]} == DATA
    assert [n["assetKey"]["path"] for n in nodes if n["configField"] and n["configField"]["isRequired"]] == []


@pytest.mark.parametrize("job", ["verify", "deduplicate", "clean_tests", "restore"])
def test_what_the_archive_is_known_for_are_asset_jobs(pages: Pages, job: str) -> None:
    found = pages.ask(
        "query($s: PipelineSelector!) { pipelineOrError(params: $s) { ... on Pipeline { isAssetJob } } }",
        s={**SELECTOR, "pipelineName": job},
    )
    assert found["pipelineOrError"]["isAssetJob"]


@pytest.mark.parametrize("job", ["repair", "prune", "rebuild_catalog", "correct_media_types"])
def test_a_deed_that_makes_no_asset_has_a_launchpad_of_its_own(pages: Pages, job: str) -> None:
    # The UI hides the tab Launchpad of asset jobs.
    found = pages.ask(
        "query($s: PipelineSelector!) { pipelineOrError(params: $s) { ... on Pipeline { isAssetJob } } }",
        s={**SELECTOR, "pipelineName": job},
    )
    assert not found["pipelineOrError"]["isAssetJob"]


@pytest.mark.parametrize(
    ("job", "required"),
    [
        ("restore", {"topics", "to_source"}),
        ("prune", {"rules"}),
        ("repair", set()),
        ("deduplicate", set()),
        ("clean_tests", set()),
        ("rebuild_catalog", set()),
        ("correct_media_types", set()),
    ],
)
def test_a_launchpad_shows_the_fields_of_its_deed_alone_and_requires_those_that_it_needs(
    pages: Pages, job: str, required: set[str]
) -> None:
    fields = pages.fields(job)
    assert {name for name, wanted in fields.items() if wanted} == required
    assert not fields.keys() & {"ops", "resources", "execution", "loggers"}
    refused = pages.refusal(job)
    assert all(name in refused for name in required)
    assert bool(refused) is bool(required)


def test_a_restore_that_says_which_topics_and_where_to_is_taken(pages: Pages) -> None:
    assert pages.refusal("restore", topics=["*"], to_source="hop-local") == ""
    assert "topicz" in pages.refusal("restore", topicz=["*"], to_source="hop-local")
