"""The commands that take something away: the plan first, nothing without --yes, and what the stanzas forbid."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch
from hop_archive.cli.prune import age
from hop_archive.config.load import load, select
from hop_archive.config.open import Permission, backup_grace_s, open_backup, open_for_removal
from hop_archive.errors import ForbiddenError
from hop_archive.model.slices import Slice
from hop_archive.store.s3.store import S3Store
from hop_archive_tests.cli_helpers import M, archived, invoke, mocks, place, toml

__all__ = ["place"]  # a fixture

TOPIC = "gcn.circulars"
DATABASE = ("-D", "m", "-S", "m")


def allowed(place: Path, *, source: str = "", cleaning: bool = True, deleting: bool = True) -> Path:
    """Mocks that share a directory, with sample alerts archived; what their stanzas allow."""
    if not source:
        mocks(place, samples=60, archived=True)
    may = f"cleaning_allowed = {str(cleaning).lower()}\ndeleting_allowed = {str(deleting).lower()}"
    toml(
        place,
        f"""
        [source.m]
        type = "mock"
        directory = "{place}/mocks"
        samples = 60
        writable = true
        {source or 'test_topics = ["gcn.*"]'}
        [database.m]
        type = "mock"
        directory = "{place}/mocks"
        {may}
        [store.m]
        type = "mock"
        directory = "{place}/mocks/objects"
        {may}
        """,
    )
    if source:  # which may say what is archived
        assert invoke("run", *M, "--until-caught-up").exit_code == 0
    return place / "mocks"


def told(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def a_topic(directory: Path, start: str) -> str:
    return next(t for t in MockCatalog("m", directory=directory).topics() if t.startswith(start))


def a_uuid(directory: Path) -> str:
    catalog = MockCatalog("m", directory=directory)
    return str(next(catalog.rows(catalog.topics()[0])).uuid)


def a_lone_uuid(directory: Path) -> str:
    """Of a message whose value no other has at its time: some samples do."""
    catalog = MockCatalog("m", directory=directory)
    rows = [row for topic in catalog.topics() for row in catalog.rows(topic)]
    seen = Counter((row.timestamp_ms, row.message_crc32) for row in rows)
    return str(next(r.uuid for r in rows if r.message_crc32 and seen[r.timestamp_ms, r.message_crc32] == 1))


def test_without_yes_every_command_shows_its_plan_and_does_nothing(place: Path) -> None:
    directory = allowed(place)
    before = archived(directory)
    own = a_uuid(directory)
    for command in (
        ("clean-tests", *M),
        ("clean-duplicates", *DATABASE),
        ("prune", *DATABASE, "-T", "*", "--older-than", "1d"),
        ("retract", own, "-D", "m"),
        ("suppress", own, *DATABASE, "--reason", "why"),
    ):
        shown = invoke(*command)
        assert shown.exit_code == 0, shown.output
        assert told(invoke(*command, "--json"))["done"] is False
    assert archived(directory) == before
    assert MockCatalog("m", directory=directory).suppressions() == []
    assert "Add --yes" in invoke("clean-tests", *M).stdout


def test_test_topics_are_cleaned_and_stay_clean(place: Path) -> None:
    directory = allowed(place)
    plan = told(invoke("clean-tests", *M, "--json"))["plan"]["topics"]
    assert plan
    assert all(one["topic"].startswith("gcn.") for one in plan)
    done = told(invoke("clean_tests", *M, "--yes", "--delete-records", "--json"))
    assert done["removed"]["messages"] == sum(one["messages"] for one in plan) == done["removed"]["objects"]
    assert done["why_not_deleted"] == {}
    assert invoke("run", *M, "--until-caught-up").exit_code == 0
    assert not any(t.startswith("gcn.") for t in MockCatalog("m", directory=directory).topics())
    assert invoke("verify", *DATABASE, "--deep", "--grace", "0").exit_code == 0


@pytest.mark.parametrize(
    ("stanzas", "why"),
    [
        ({"cleaning": False}, "cleaning_allowed = true"),
        ({"source": 'test_topics = ["gcn.*"]\nproduction = true'}, "production"),
    ],
)
def test_nothing_is_cleaned_that_a_stanza_does_not_allow(
    place: Path, stanzas: dict[str, Any], why: str
) -> None:
    directory = allowed(place, **stanzas)
    before = archived(directory)
    refused = invoke("clean-tests", *M, "--yes")
    assert refused.exit_code == 2
    assert why in refused.stderr
    assert archived(directory) == before


def test_a_topic_that_is_no_test_topic_is_refused(place: Path) -> None:
    directory = allowed(place, source='test_topics = ["nothing-test"]')
    refused = invoke("clean-tests", *M, "-T", a_topic(directory, "gcn"), "--yes")
    assert refused.exit_code == 2
    assert "is no test topic" in refused.stderr


def test_copies_old_messages_and_content_go_only_where_deleting_is_allowed(place: Path) -> None:
    directory = allowed(place, deleting=False)
    before = archived(directory)
    for command in (
        ("clean-duplicates", *DATABASE),
        ("prune", *DATABASE, "-T", "*", "--older-than", "1d"),
        ("suppress", a_uuid(directory), *DATABASE, "--reason", "why"),
    ):
        refused = invoke(*command, "--yes")
        assert refused.exit_code == 2, command
        assert "deleting_allowed = true" in refused.stderr
    assert archived(directory) == before
    assert invoke("clean-duplicates", *DATABASE).stdout.startswith("No copies found.")


def test_a_topic_that_was_just_archived_is_not_pruned(place: Path) -> None:
    allowed(place)
    refused = invoke("prune", *DATABASE, "-T", "*", "--older-than", "1d", "--yes")
    assert refused.exit_code == 4
    assert "being archived" in refused.stderr


def test_a_message_is_retracted_and_the_mark_taken_away_again(place: Path) -> None:
    directory = allowed(place)
    own = a_uuid(directory)
    catalog = MockCatalog("m", directory=directory)
    assert told(invoke("retract", own, "-D", "m", "--yes", "--json"))["plan"]["change"] == [own]
    assert [str(r.uuid) for t in catalog.topics() for r in catalog.rows(t) if r.retracted] == [own]
    assert told(invoke("retract", own, "-D", "m", "--yes", "--json"))["done"] is False
    assert told(invoke("retract", own, "-D", "m", "--undo", "--yes", "--json"))["done"] is True
    unknown = told(invoke("retract", own.replace(own[:8], "0" * 8), "-D", "m", "--yes", "--json"), code=1)
    assert len(unknown["plan"]["unknown"]) == 1


def test_content_is_suppressed_and_what_is_left_is_sound(place: Path) -> None:
    directory = allowed(place)
    own = a_lone_uuid(directory)
    done = told(invoke("suppress", own, *DATABASE, "--reason", "request 17", "--yes", "--json"))
    assert done["suppressed"] == [own]
    assert done["left"] == []
    (found,) = MockCatalog("m", directory=directory).suppressions()
    assert (str(found.uuid), found.reason) == (own, "request 17")
    assert invoke("verify", *DATABASE, "--deep", "--grace", "0").exit_code == 0
    assert invoke("inspect", own, *DATABASE).exit_code == 0
    empty = invoke("suppress", own, *DATABASE, "--reason", "  ", "--yes")
    assert empty.exit_code == 2
    assert "The reason is empty" in empty.stderr


def test_of_several_messages_that_which_cannot_be_suppressed_is_named_and_the_others_are_done(
    place: Path,
) -> None:
    directory = allowed(place)
    catalog = MockCatalog("m", directory=directory)
    first, second = (next(catalog.rows(topic)) for topic in catalog.topics()[:2])
    other = first._replace(bucket="elsewhere", uuid=uuid.uuid4(), topic="moved", partition=0, offset=0)
    catalog.commit(Batch(Slice("moved", other.generation or 1, 0, 0, 1), rows=[other]))
    asked = [str(row.uuid) for row in (first, other, second)]
    shown = invoke("suppress", *asked, *DATABASE, "--reason", "request 17", "--yes", "--json")
    done = told(shown, code=2)
    assert done["suppressed"] == [asked[0], asked[2]]
    assert list(done["failed"]) == [asked[1]]
    assert "name the bucket elsewhere" in done["failed"][asked[1]]
    assert f"1 message could not be suppressed; the others are done. {asked[1]}: " in shown.stderr
    plain = invoke("suppress", *asked, *DATABASE, "--reason", "request 17", "--yes")
    assert plain.exit_code == 2
    assert f"{asked[1]} is not done: " in plain.stdout
    assert {str(found.uuid) for found in catalog.suppressions()} == {asked[0], asked[2]}


def test_an_old_object_whose_offset_nothing_has_dealt_with_is_not_called_one_in_the_making(
    place: Path,
) -> None:
    """Its message may be another one of that UUID, and waiting an hour does not tell."""
    directory = allowed(place)
    catalog = MockCatalog("m", directory=directory)
    row = next(row for topic in catalog.topics() for row in catalog.rows(topic) if row.position is None)
    assert row.slice is not None
    with catalog._state.change() as tables:
        del tables.rows[row.uuid]
        del tables.ledger[row.slice.partition_log]
    catalog.suppress({row.uuid: row.topic}, "request 17")
    invoke("verify", *DATABASE, "--grace", "0")
    command = ("suppress", str(row.uuid), *DATABASE, "--reason", "request 17", "--yes", "--json")
    assert told(invoke(*command), code=1)["young"] == [row.object_key]
    (file,) = (directory / "objects").rglob(Path(row.object_key).name)
    os.utime(file, (0, 0))
    old = told(invoke(*command), code=1)
    assert (old["young"], old["unsettled"]) == ([], [row.object_key])
    (line,) = old["left"]
    assert row.object_key in line
    assert "again in an hour" not in line
    assert file.exists()


def test_the_same_content_elsewhere_is_named(place: Path) -> None:
    directory = allowed(place)
    own = a_uuid(directory)
    catalog = MockCatalog("m", directory=directory)
    row = catalog.find(uuid.UUID(own))
    assert row is not None
    copy = row._replace(topic="restored", uuid=uuid.uuid4(), partition=0, offset=0, is_client_uuid=False)
    other = copy._replace(uuid=uuid.uuid4(), offset=1, digest=b"o" * 16, message_crc32=row.message_crc32 + 1)
    later = copy._replace(uuid=uuid.uuid4(), offset=2, timestamp_ms=row.timestamp_ms + 1)
    catalog.commit(Batch(Slice("restored", row.generation or 1, 0, 0, 3), rows=[copy, other, later]))
    command = ("suppress", own, *DATABASE, "--reason", "request 17", "--yes", "--json")
    left = told(invoke(*command), code=1)["left"]
    assert (
        [line for line in left if "restored" in line]
        == [line for line in left if str(copy.uuid) in line]
        != []
    )
    catalog.suppress({copy.uuid: "restored"}, "request 17")
    assert "restored" not in invoke(*command).output


def test_content_that_kafka_holds_yet_is_told_where_the_source_is_named(place: Path) -> None:
    directory = allowed(place)
    own = a_lone_uuid(directory)
    row = MockCatalog("m", directory=directory).find(uuid.UUID(own))
    assert row is not None
    command = ("suppress", own, "--reason", "request 17", "--yes")
    silent = invoke(*command, *DATABASE)
    assert silent.exit_code == 0
    assert "was not looked at" in silent.stderr
    told_of = invoke(*command, *M)
    assert told_of.exit_code == 1
    assert f"Kafka still holds {row.topic}[{row.partition}]@{row.offset}" in told_of.stdout


@pytest.mark.parametrize(("text", "days"), [("400d", 400), ("52w", 364), ("2y", 730)])
def test_an_age_is_of_days_weeks_or_years(text: str, days: int) -> None:
    assert age(text).days == days


def test_an_age_that_is_none_is_one_clear_message(place: Path) -> None:
    refused = invoke("prune", "-T", "*", "--older-than", "400", "-D", "m")
    assert refused.exit_code == 2
    assert "is no age" in refused.stderr


def test_of_an_age_before_the_first_year_nothing_is_old(place: Path) -> None:
    allowed(place)
    result = invoke("prune", *DATABASE, "-T", "*", "--older-than", "9000y")
    assert result.exit_code == 0, result.output
    assert "Nothing is so old." in result.output


def test_the_backup_is_opened_to_delete_from_only_for_who_may(place: Path) -> None:
    toml(
        place,
        """
        [database.d]
        type = "mock"
        cleaning_allowed = true
        deleting_allowed = true
        [store.s]
        type = "s3"
        bucket = "primary"
        backup_bucket = "copies"
        cleaning_allowed = true
        """,
    )
    configuration = load()
    chosen = select(configuration, "mock-hop", "d", "s")

    def may(permission: Permission) -> tuple[bool, bool]:
        _, store, backup = open_for_removal(configuration, chosen, permission)
        assert isinstance(store, S3Store)
        assert isinstance(backup, S3Store)
        assert (store.bucket, backup.bucket) == ("primary", "copies")
        return store._deleting_allowed, backup._deleting_allowed

    assert may("look") == (False, False)
    assert may("clean") == (True, True)
    with pytest.raises(ForbiddenError, match="store s does not say deleting_allowed"):
        may("delete")
    assert backup_grace_s(configuration.store("s")) == 900
    backup = open_backup("s", configuration.store("s"))
    assert backup is not None
    with pytest.raises(ForbiddenError, match="does not allow deleting"):
        backup.delete(["a"])
