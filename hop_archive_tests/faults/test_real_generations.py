"""The local stack's broker keeps nothing: restarted, its topics made anew are generations of their own."""

from __future__ import annotations

import contextlib

import pytest

from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import survey
from hop_archive.model.limits import Limits
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    archiving_on_and_on,
    assert_all_archived,
    assert_first_life_is_accounted_for,
    begin_life,
    restartable,
)
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.local, pytest.mark.slow]

SMALL = Limits(batch_messages=50)


def test_a_broker_restarted_empty_in_mid_run_begins_generations_and_both_are_accounted_for(
    open_archive: OpenArchive, namespace: str, local_stack: LocalStack
) -> None:
    stack = restartable(local_stack, "kafka")
    archive = open_archive(limits=SMALL)
    first = begin_life(archive, namespace, seed=1)
    steps = catch_up(archive)
    next(steps)
    stack.kill("kafka")
    stack.start("kafka")
    second = begin_life(open_archive(), namespace, seed=2)
    with contextlib.suppress(HopArchiveError):
        exhausted(steps)
    exhausted(catch_up(archive))
    kept = assert_first_life_is_accounted_for(archive, first)
    assert 0 < kept < len(first.sent), "it was restarted too early or too late to matter"
    assert_all_archived(archive, second.topics, second.sent)
    assert {len(found) for found in archive.catalog.generations(second.topics).values()} == {2}


def test_a_run_on_and_on_goes_over_to_the_new_generation_by_itself(
    open_archive: OpenArchive, namespace: str, local_stack: LocalStack
) -> None:
    stack = restartable(local_stack, "kafka")
    archive, watching = open_archive(limits=SMALL), open_archive()
    first = begin_life(watching, namespace, seed=1)
    with archiving_on_and_on(archive, first.topics) as errors:
        wait_for(lambda: not survey(watching, first.topics).pending(), "the first life is archived")
        stack.kill("kafka")
        wait_for(lambda: errors, "the broker is missed", deadline_s=150.0)
        stack.start("kafka")
        second = begin_life(open_archive(), namespace, seed=2)
        wait_for(lambda: not survey(watching, first.topics).pending(), "the second life is archived")
    assert assert_first_life_is_accounted_for(watching, first) == len(first.sent)
    assert_all_archived(watching, second.topics, second.sent)
