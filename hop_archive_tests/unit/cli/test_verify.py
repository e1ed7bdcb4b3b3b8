"""``hop-archive verify``: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.samples import Sample
from hop_archive.errors import ForbiddenError
from hop_archive.model.message import Receipt
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.verify.sent import read_sent, record_sent
from hop_archive_tests.cli_helpers import M, directory, invoke, place, store, toml

__all__ = ["directory", "place"]


def a_key(directory: Path) -> str:
    return next(iter(store(directory).listing())).key


def test_a_sound_archive_ends_with_0_and_says_what_was_looked_at(directory: Path) -> None:
    ran = invoke("verify", *M, "--deep")
    assert ran.exit_code == 0, ran.output
    messages = sum(one.messages for one in MockCatalog("m", directory=directory).summaries())
    assert "Nothing is wrong in database m and store m: looked at " in ran.output
    assert f"{messages} messages" in ran.output


def test_a_missing_object_ends_with_1_and_is_named_once_even_if_it_would_be_fetched(directory: Path) -> None:
    key = a_key(directory)
    store(directory).delete([key])
    ran = invoke("verify", *M, "--deep")
    assert ran.exit_code == 1
    assert ran.output.count("missing_object") == 1
    assert key in ran.output
    assert "1 finding found" in ran.output


def test_json_tells_kind_place_and_counts(directory: Path) -> None:
    key = a_key(directory)
    store(directory).delete([key])
    store(directory).create([NewObject("elsewhere.txt", b"?")])
    ran = invoke("verify", *M, "--json", "--grace", "0")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    assert {(one["kind"], one["object_key"]) for one in told["findings"]} == {
        ("missing_object", key),
        ("foreign_object", "elsewhere.txt"),
    }
    assert told["checked"]["rows"] > 0
    (missing,) = [one for one in told["findings"] if one["kind"] == "missing_object"]
    row = MockCatalog("m", directory=directory).recorded(missing["topic"], segments=False)
    assert missing["uuid"] in {str(one.uuid) for one in row}


def test_json_that_cannot_begin_prints_nothing(directory: Path) -> None:
    ran = invoke("verify", *M, "--json", "-T", "no.such.topic")
    assert (ran.exit_code, ran.stdout) == (2, "")


def test_what_a_key_holds_cannot_act_on_a_terminal(directory: Path) -> None:
    store(directory).create([NewObject("\x1b]0;owned\x07.txt", b"?")])
    ran = invoke("verify", *M, "--grace", "0")
    assert ran.exit_code == 1
    assert "\x1b" not in ran.output
    assert "\\x1b]0;owned" in ran.output


def test_what_is_too_young_to_be_called_an_orphan_is_counted(directory: Path) -> None:
    assert "too young" not in invoke("verify", *M).stdout
    store(directory).create([NewObject("top.txt", b"?")])
    ran = invoke("verify", *M)
    assert ran.exit_code == 0
    assert "1 objects too young to judge" in ran.stdout
    assert json.loads(invoke("verify", *M, "--json").stdout)["checked"]["objects too young to judge"] == 1


def test_json_of_a_sound_archive_has_no_findings(directory: Path) -> None:
    ran = invoke("verify", *M, "--json")
    assert (ran.exit_code, json.loads(ran.stdout)["findings"]) == (0, [])


def test_what_arrived_since_is_found_by_the_source_only(directory: Path) -> None:
    sent = invoke(
        "publish", "-H", "m", "-T", "fresh", "--not-a-test-topic", "fresh", "--count", "3", "--create"
    )
    assert sent.exit_code == 0, sent.output
    assert invoke("verify", *M).exit_code == 0
    ran = invoke("verify", *M, "--direction", "source", "--json")
    assert ran.exit_code == 1, ran.output
    found = json.loads(ran.stdout)["findings"]
    assert {(one["kind"], one["topic"]) for one in found} == {("not_archived", "fresh")}
    assert sum(one["stop"] - one["start"] for one in found) >= 3
    assert invoke("verify", *M, "--direction", "source", "-T", "fre*").exit_code == 1


def publish_and_archive(place: Path) -> Path:
    record = place / "sent.bson"
    to = ("-H", "m", "-T", "fresh", "--not-a-test-topic", "fresh", "--create", "--record", str(record))
    assert invoke("publish", *to, "--known").exit_code == 0
    assert invoke("run", *M, "--until-caught-up", "-q").exit_code == 0
    return record


def test_what_is_stored_is_as_it_was_sent_copies_included(place: Path, directory: Path) -> None:
    record = publish_and_archive(place)
    copies = list(MockCatalog("m", directory=directory).duplicates("fresh"))
    assert copies
    ran = invoke("verify", *M, "--sent", str(record))
    assert ran.exit_code == 0, ran.output
    assert f"{len(read_sent(record))} messages" in ran.output


def test_what_is_not_as_it_was_sent_or_not_there_is_told(place: Path, directory: Path) -> None:
    record = publish_and_archive(place)
    (at, offset), was = next(iter(read_sent(record).items()))
    other = Sample("fresh", was.key, b"other", was.headers, was.timestamp_ms, at.partition, "filler")
    record.unlink()
    receipts = [Receipt("fresh", at.partition, offset), Receipt("fresh", at.partition, 10**9)]
    record_sent(record, [other, other], receipts)
    ran = invoke("verify", *M, "--sent", str(record), "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)["findings"]
    assert [one["kind"] for one in found] == ["not_archived", "corrupt_object"]
    assert "not as it was sent" in found[1]["detail"]


def test_one_topic_can_be_chosen_and_one_that_is_not_there_is_told(directory: Path) -> None:
    ran = invoke("verify", *M, "-T", "no.such.topic")
    assert ran.exit_code == 2
    assert "no.such.topic" in ran.output


def test_options_that_only_deep_knows_are_refused_without_it(directory: Path) -> None:
    ran = invoke("verify", *M, "--since", "2d")
    assert ran.exit_code == 2
    assert "--deep" in ran.output


def test_a_store_without_a_backup_is_told(directory: Path) -> None:
    ran = invoke("verify", *M, "--direction", "backup")
    assert ran.exit_code == 2
    assert "backup_bucket" in ran.output


def test_servers_that_are_down_are_told_in_one_message(place: Path) -> None:
    toml(
        place,
        """
        [database.x]
        type = "postgres"
        url = "postgresql://nobody@127.0.0.1:9/none"
        """,
    )
    ran = invoke("verify", "-D", "x", "-S", "mock-store")
    assert ran.exit_code == 3
    assert ran.output.count("Error:") == 1


def test_what_is_found_is_remembered_and_closed_by_the_look_that_does_not_see_it_any_more(
    directory: Path,
) -> None:
    key = a_key(directory)
    (body,) = store(directory).fetch([Extent(key)])
    store(directory).delete([key])
    for _ in range(2):
        assert invoke("verify", *M).exit_code == 1
    shown = invoke("findings", "-D", "m", "--json")
    assert shown.exit_code == 1
    (one,) = json.loads(shown.stdout)["findings"]
    assert (one["kind"], one["object_key"], one["resolution"]) == ("missing_object", key, None)
    (counted,) = json.loads(invoke("status", *M, "--json").stdout)["findings"]
    assert (counted["kind"], counted["open"]) == ("missing_object", 1)
    assert "1 finding open" in invoke("status", *M).stdout
    store(directory).create([NewObject(key, body)])
    assert invoke("verify", *M, "--direction", "ledger").exit_code == 0
    assert invoke("findings", "-D", "m").exit_code == 1
    assert invoke("verify", *M).exit_code == 0
    assert invoke("findings", "-D", "m").exit_code == 0
    assert "not found any more on " in invoke("findings", "-D", "m", "--all").stdout


def test_what_is_not_to_be_remembered_is_not(directory: Path) -> None:
    store(directory).delete([a_key(directory)])
    assert invoke("verify", *M, "--no-record").exit_code == 1
    assert invoke("findings", "-D", "m").exit_code == 0


def test_what_was_accepted_with_a_reason_is_told_no_more(directory: Path) -> None:
    store(directory).create([NewObject("elsewhere.txt", b"?")])
    assert invoke("verify", *M, "--grace", "0").exit_code == 1
    assert invoke("findings", "-D", "m", "--accept", "1").exit_code == 2
    assert invoke("findings", "-D", "m", "--accept", "1", "--because", "a notice of ours").exit_code == 0
    ran = invoke("verify", *M, "--grace", "0")
    assert ran.exit_code == 0
    assert "1 finding accepted before" in ran.stdout


def test_a_number_that_is_no_open_finding_accepts_none(directory: Path) -> None:
    store(directory).create([NewObject("elsewhere.txt", b"?")])
    assert invoke("verify", *M, "--grace", "0").exit_code == 1
    refused = invoke("findings", "-D", "m", "--accept", "1", "--accept", "77", "--because", "ours")
    assert refused.exit_code == 2
    assert "77" in refused.stderr
    assert invoke("findings", "-D", "m").exit_code == 1


def test_a_look_that_finds_nothing_says_what_is_open_from_before(directory: Path) -> None:
    store(directory).create([NewObject("elsewhere.txt", b"?")])
    assert invoke("verify", *M, "--grace", "0").exit_code == 1
    ran = invoke("verify", *M, "--direction", "ledger")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("Nothing new is wrong in ")
    assert "1 finding is open from before: hop-archive findings." in ran.stdout


def test_a_kind_that_is_none_is_told(directory: Path) -> None:
    ran = invoke("findings", "-D", "m", "--kind", "ghost")
    assert ran.exit_code == 2
    assert "missing_object" in ran.output


class ReadOnly(MockCatalog):
    """A catalog whose role may only read."""

    def note_findings(self, *_: object) -> Sequence[bool]:
        raise ForbiddenError("you may not.")

    def close_unseen(self, *_: object) -> int:
        raise ForbiddenError("you may not.")


def test_a_role_that_may_only_read_is_told_once_and_verification_goes_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.config.open.MockCatalog", ReadOnly)
    sound = invoke("verify", *M)
    assert sound.exit_code == 0
    assert sound.output.count("is not remembered") == 1
    keys = [info.key for info in store(directory).listing()][:3]
    store(directory).delete(keys)
    ran = invoke("verify", *M)
    assert ran.exit_code == 1
    assert all(key in ran.output for key in keys)
    assert ran.output.count("is not remembered") == 1


def test_a_deep_look_at_the_source_reads_it_again(directory: Path) -> None:
    ran = invoke("verify", *M, "--direction", "source", "--deep", "--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["findings"]) == (0, [])
    assert told["checked"]["messages read again"] > 50
    assert "messages" not in told["checked"]
    few = json.loads(
        invoke("verify", *M, "--direction", "source", "--deep", "--sample", "1", "--json").stdout
    )
    assert 0 < few["checked"]["messages read again"] < told["checked"]["messages read again"]
