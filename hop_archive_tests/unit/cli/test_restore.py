"""The command restore: what it says, its exit codes, and what it refuses. On mocks in a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, invoke, mocks, place, toml

__all__ = ["place"]  # a fixture

TOPIC = "gcn.notices"


@pytest.fixture
def archived(place: Path) -> Path:
    """Sample alerts in mocks of a directory, archived; a second cluster beside it."""
    directory = mocks(place, samples=120, archived=True)
    text = (place / "hop_archive.toml").read_text()
    toml(
        place,
        text
        + f"""
        [source.there]
        type = "mock"
        directory = "{place}/there"
        samples = 0
        writable = true
        [source.readonly]
        type = "mock"
        [source.service]
        type = "mock"
        writable = true
        production = true
        """,
    )
    return directory


def restore(*args: str, to: str = "there"):  # type: ignore[no-untyped-def]
    return invoke("restore", *M, "--to-source", to, *args)


def there(place: Path) -> MockSource:
    return MockSource("there", directory=place / "there")


def test_a_topic_is_restored_and_told(archived: Path, place: Path) -> None:
    result = restore("-T", TOPIC, "--to-topic", "again")
    assert result.exit_code == 0, result.output
    number = sum(1 for row in MockCatalog(directory=archived).rows(TOPIC))
    assert f"{TOPIC} -> again: {number} messages" in result.stdout
    assert f"{number} compared" in result.stdout
    assert list(there(place).topics()) == ["again"]


def test_json_has_counts_by_partition(archived: Path) -> None:
    result = restore("--all-topics", "--to-topic-template", "{topic}.again", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["outcome"], report["differences"], report["left_out"]) == ("done", 0, 0)
    for one in report["topics"].values():
        assert sum(part["messages"] for part in one["partitions"]) == one["messages"] == one["compared"]


def test_a_dry_run_shows_the_plan_and_writes_nothing(archived: Path, place: Path) -> None:
    result = restore("-T", TOPIC, "--to-topic", "again", "--dry-run")
    assert result.exit_code == 0
    assert "would be written" in result.stdout
    assert "Nothing was written." in result.stdout
    assert there(place).topics() == {}
    told = json.loads(restore("-T", TOPIC, "--to-topic", "again", "--dry-run", "--json").stdout)
    assert told["dry_run"] is True
    assert told["topics"][0]["target"] == "again"
    assert told["problems"] == []


def test_a_dry_run_that_finds_something_in_the_way_ends_with_2(archived: Path) -> None:
    assert restore("-T", TOPIC, "--to-topic", "again").exit_code == 0
    result = restore("-T", TOPIC, "--to-topic", "again", "--without-tests", "--dry-run")
    assert result.exit_code == 2
    assert "--append" in result.stderr


def test_the_same_command_again_finds_everything_there(archived: Path, place: Path) -> None:
    first = restore("-T", TOPIC, "--since", "2001-01-01", "--to-topic", "again")
    again = restore("-T", TOPIC, "--since", "2001-01-01", "--to-topic", "again")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "was done before" in again.stdout
    assert "0 written now" in again.stdout


def test_a_dry_run_of_a_restore_that_is_done_says_so(archived: Path) -> None:
    assert restore("-T", TOPIC, "--to-topic", "again").exit_code == 0
    result = restore("-T", TOPIC, "--to-topic", "again", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "is this very one" in result.stdout
    assert "Nothing would be written." in result.stdout
    told = json.loads(restore("-T", TOPIC, "--to-topic", "again", "--dry-run", "--json").stdout)
    assert (told["dry_run"], told["done"]) == (True, told["restore"])
    begun_anew = restore("-T", TOPIC, "--to-topic", "again", "--dry-run", "--restart")
    assert begun_anew.exit_code == 2
    assert "--append" in begun_anew.stderr


def test_the_plan_says_that_its_target_is_archived_in_turn(archived: Path) -> None:
    assert (
        "archives these messages once more" in restore("-T", TOPIC, "--to-topic", "again", "--dry-run").stdout
    )


def test_the_help_offers_no_limit_since_it_is_refused(archived: Path) -> None:
    assert "--limit" not in invoke("restore", "--help").stdout
    assert "takes no limit" in restore("-T", TOPIC, "--limit", "5").stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "--all-topics"),
        (("-T", "nope"), "no messages of a topic nope"),
        (("-T", TOPIC, "--limit", "3"), "takes no limit"),
        (("-T", TOPIC, "--to-topic", "a", "--to-topic-template", "b"), "choose one"),
        (("-T", TOPIC, "--to-topic", "a b"), "name of a Kafka topic"),
        (("-T", TOPIC, "--generation", "newest"), "latest, all or a number"),
        (("--offsets", "gcn.notices:0"), "TOPIC:PARTITION:START-STOP"),
        (("--offsets", "gcn.notices:0:7-7"), "holds no offset"),
        (("-T", TOPIC, "--until", "2001-01-01"), "Nothing in the catalog"),
        (("-T", TOPIC, "--topic-config", "retention.ms"), "NAME=VALUE"),
        (("-T", TOPIC, "--topic-config", "retention.ms=abc"), "retention.ms=abc is no number"),
        (("-T", TOPIC, "--where", "true"), "mock"),
        (("--all-topics", "-T", TOPIC), "--all-topics means all"),
        (("-T", TOPIC, "--to-files", "x", "--append"), "does not go with --to-files"),
        (("-T", TOPIC, "--to-files", "x", "--dry-run"), "do not go with --to-files"),
        (("-T", TOPIC, "--to-files", "x", "--without-tests"), "does not go with --to-files"),
        (("-T", TOPIC, "--to-files", "x", "--generation", "1"), "do not go with --to-files"),
    ],
)
def test_what_makes_no_sense_is_one_message_and_2(archived: Path, args: tuple[str, ...], told: str) -> None:
    result = restore(*args)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_read_only_source_is_refused(archived: Path) -> None:
    result = restore("-T", TOPIC, to="readonly")
    assert result.exit_code == 2
    assert "readonly is read-only" in result.stderr


def test_production_has_to_be_named_twice(archived: Path) -> None:
    result = restore("-T", TOPIC, to="service")
    assert result.exit_code == 2
    assert "--production service" in result.stderr
    assert restore("-T", TOPIC, "--production", "service", to="service").exit_code == 0


def test_an_unknown_target_is_named(archived: Path) -> None:
    result = restore("-T", TOPIC, to="ther")
    assert result.exit_code == 2
    assert "there" in result.stderr


def test_offsets_and_uuids_select(archived: Path, place: Path) -> None:
    rows = [row for row in MockCatalog(directory=archived).rows(TOPIC) if row.partition == 0]
    first = rows[2].offset or 0
    result = restore("--offsets", f"{TOPIC}:0:{first}-{first + 3}", "--to-topic", "some", "--json")
    assert result.exit_code == 0, result.output
    wanted = [row for row in rows if first <= (row.offset or 0) < first + 3]
    assert json.loads(result.stdout)["messages"] == len(wanted)
    result = restore("--uuid", str(rows[0].uuid), "--to-topic", "one", "--json")
    assert json.loads(result.stdout)["messages"] == 1


def test_restoring_to_files_writes_a_folder(archived: Path, place: Path) -> None:
    result = restore("-T", TOPIC, "--to-files", "out")
    assert result.exit_code == 0, result.output
    table = pq.read_table(place / "out" / "catalog.parquet")
    assert table.num_rows == sum(1 for _ in MockCatalog(directory=archived).rows(TOPIC))


def test_without_any_argument_it_asks_which_messages(place: Path) -> None:
    result = invoke("restore")
    assert result.exit_code == 2
    assert "Which messages?" in result.output
