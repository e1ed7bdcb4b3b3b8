"""Topics that are archived and have no messages: nothing to do with them is a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.samples import Sample
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]

FIRST, EMPTY, LAST = "a.first", "b.empty", "c.last"
NAMED = ("-T", FIRST, "-T", EMPTY, "-T", LAST)


@pytest.fixture
def directory(place: Path) -> Path:
    """An archive of three topics, the second of which has no messages."""
    found = mocks(place, source="writable = true", samples=0)
    source = MockSource("m", writable=True, directory=found)
    for topic in (FIRST, EMPTY, LAST):
        source.create_topic(topic)
    source.publish([Sample(topic, None, b"hello", (), None, None, "filler") for topic in (FIRST, LAST)])
    ran = invoke("run", *M, "--until-caught-up", "-q")
    assert ran.exit_code == 0, ran.output
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("verify", "--deep"),
        ("verify", "--direction", "ledger"),
        ("verify", "--direction", "source", "--deep"),
        ("scrub",),
        ("uuids",),
        ("export", "out"),
        ("repair", "--verify", "--yes"),
        ("clean-duplicates",),
        ("catalog-snapshot", "snapshot"),
        ("restore", "--dry-run", "--to-topic-template", "{topic}.restored"),
    ],
)
@pytest.mark.parametrize("named", [("-T", EMPTY), NAMED, ("-T", "b.*"), ("-T", "*")])
def test_a_command_takes_a_topic_without_messages(
    directory: Path, command: tuple[str, ...], named: tuple[str, ...]
) -> None:
    ran = invoke(command[0], *M, *command[1:], *named)
    assert ran.exit_code == 0, ran.output


def test_a_look_goes_on_beyond_it(directory: Path) -> None:
    catalog = MockCatalog("m", directory=directory)
    gone = [row.object_key for topic in (FIRST, LAST) for row in catalog.rows(topic)]
    MockStore("m", directory / "objects", deleting_allowed=True).delete(gone)
    ran = invoke("verify", *M, "--deep", "--json", *NAMED)
    assert ran.exit_code == 1
    assert [one["object_key"] for one in json.loads(ran.output)["findings"]] == gone
