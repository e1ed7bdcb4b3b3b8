"""Names and globs of a source's stanza that mean none of its topics: told wherever topics are selected by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import survey
from hop_archive.model.topics import TopicPolicy, matches, without_meaning
from hop_archive.source.mock.source import MockSource
from hop_archive.upkeep.doctor import Verdict, examine_source
from hop_archive_tests.cli_helpers import M, invoke, mocks, place
from hop_archive_tests.strategies import topics
from hop_archive_tests.worlds import BUSY, QUIET, awkward_world, exhausted

__all__ = ["place"]

NOWHERE = 'topics = ["nosuch.*", "gcn.notices", "sys.*"]\nveto = ["sys.*"]'
UNMET = "no topic that is archived by nosuch.*, sys.*"


@given(st.lists(topics, max_size=4), st.lists(st.one_of(topics, st.sampled_from(["*", "a*", "?", "[ab]*"]))))
def test_what_means_nothing_is_told_and_nothing_else(names: list[str], patterns: list[str]) -> None:
    expected = [one for one in patterns if not any(matches(name, (one,)) for name in names)]
    assert without_meaning(patterns, names) == expected


def test_what_means_vetoed_topics_only_archives_nothing_either() -> None:
    policy = TopicPolicy(topics=("a.*", "b.*", "c.*", "d"), veto=("b.*",))
    assert policy.unmet(["a.x", "b.x", "d"]) == ("b.*", "c.*")
    assert policy.unmet([]) == policy.topics


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_run_warns_of_them_and_goes_on_with_the_others(place: Path, quiet: tuple[str, ...]) -> None:
    mocks(place, source=NOWHERE)
    ran = invoke("run", *M, "--until-caught-up", *quiet)
    assert ran.exit_code == 0
    assert UNMET in ran.output
    assert [one["topic"] for one in json.loads(invoke("status", *M, "--json").stdout)["topics"]] == [
        "gcn.notices"
    ]


def test_a_run_says_so_as_json_too_and_nothing_where_topics_are_named(place: Path) -> None:
    mocks(place, source=NOWHERE)
    ran = json.loads(invoke("run", *M, "--until-caught-up", "--json").stdout)
    assert ran["no_topic_for"] == ["nosuch.*", "sys.*"]
    named = invoke("run", *M, "--until-caught-up", "-T", "gcn.notices")
    assert "no topic" not in named.output


def test_status_tells_them(place: Path) -> None:
    mocks(place, source=NOWHERE)
    invoke("run", *M, "--until-caught-up", "-q")
    text = invoke("status", *M).stdout
    assert UNMET in text
    assert "the source has no topic for nosuch.*, sys.*" in text.splitlines()[0]
    assert json.loads(invoke("status", *M, "--json").stdout)["source"]["no_topic_for"] == [
        "nosuch.*",
        "sys.*",
    ]
    assert "no topic" not in invoke("status", *M, "-T", "gcn.notices").stdout


def test_the_doctor_warns_of_them() -> None:
    source = MockSource()
    source.create_topic("gcn.notices")
    for wanted, verdict in (("nosuch.*", Verdict.WARNING), ("gcn.*", Verdict.OK)):
        policy = TopicPolicy(topics=("gcn.notices", wanted))
        (check,) = [one for one in examine_source(source, policy, writable=False) if one.what == "topics"]
        assert check.verdict is verdict
        assert ("nosuch.*" in check.detail) is (verdict is Verdict.WARNING)


def test_a_topic_that_cannot_be_described_is_met_all_the_same() -> None:
    world = awkward_world()
    archive = replace(world.archive(), topics=TopicPolicy(topics=(BUSY, QUIET, "x")))
    exhausted(catch_up(archive, overlap=0))
    world.cluster.deny(QUIET, "describe")
    assert survey(archive).unmet == ("x",)
    assert survey(archive, [BUSY]).unmet == ()
