"""Whose keys S3 is asked with: those of the chain or a profile, renewed before they end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hop_archive.config.load import parse
from hop_archive.config.open import open_store
from hop_archive.errors import ForbiddenError
from hop_archive.store.protocol import Store
from hop_archive_tests.aws import Answering, answering, no_aws
from hop_archive_tests.cli_helpers import wait_for

__all__ = ["no_aws"]

EMPTY = b"<?xml version='1.0'?><ListBucketResult><Name>abc</Name><IsTruncated>false</IsTruncated></ListBucketResult>"

# Gives keys that live so many seconds and are numbered by how often it ran; fails after so many times.
PROCESS = """
import datetime, json, pathlib, sys
runs = pathlib.Path({runs!r})
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
number = len(runs.read_text())
if number > {fails_after}:
    sys.exit("hunter2 went wrong")
ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life_s})
print(json.dumps({{"Version": 1, "AccessKeyId": f"AKIA{{number}}", "SecretAccessKey": "s" * 40,
                   "SessionToken": f"token{{number}}", "Expiration": ends.isoformat()}}))
"""


@pytest.fixture
def server(no_aws: None) -> Iterator[Answering]:
    """A bucket that is empty and believes everybody."""
    with answering(lambda _: (200, "application/xml", EMPTY)) as heard:
        yield heard


def credential_process(home: Path, life_s: int, fails_after: int = 99, profile: str = "default") -> None:
    program = home / "keys.py"
    program.write_text(PROCESS.format(runs=str(home / "runs"), life_s=life_s, fails_after=fails_after))
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        f"[profile {profile}]\nregion = eu-north-1\ncredential_process = {sys.executable} {program}\n"
    )


def opened(server: Answering, text: str = "") -> Store:
    stanza = (
        f'[store.x]\ntype = "s3"\nbucket = "abc"\nregion = "us-west-2"\nendpoint = "{server.url}"\n{text}'
    )
    return open_store("x", parse(stanza).store("x"), {})


def test_keys_that_end_soon_are_renewed_within_one_store(server: Answering, tmp_path: Path) -> None:
    credential_process(tmp_path, life_s=60)
    store = opened(server)
    wait_for(lambda: list(store.listing()) == [] and len(set(server.keys)) == 3, "keys are renewed, twice")
    numbers = [int(key.removeprefix("AKIA")) for key in server.keys]
    assert numbers == sorted(numbers)
    assert server.tokens == [f"token{number}" for number in numbers]
    store.close()


def test_keys_that_live_for_long_are_asked_for_once(server: Answering, tmp_path: Path) -> None:
    credential_process(tmp_path, life_s=3600)
    store = opened(server)
    for _ in range(3):
        assert list(store.listing()) == []
    assert server.keys == ["AKIA1"] * 3
    store.close()


def test_the_profile_of_the_stanza_supplies_the_keys_and_not_the_region(
    server: Answering, tmp_path: Path
) -> None:
    credential_process(tmp_path, life_s=3600, profile="observatory")
    store = opened(server, 'profile = "observatory"')
    store.check()
    assert (server.keys, server.regions) == (["AKIA1"], ["us-west-2"])
    with pytest.raises(ForbiddenError, match="no credentials: The config profile \\(elsewhere\\)"):
        opened(server, 'profile = "elsewhere"').check()
    with pytest.raises(ForbiddenError, match="no credentials"):
        opened(server).check()


@pytest.mark.parametrize("fails_after", [0, 2])
def test_keys_that_nobody_renews_are_told_without_what_the_process_said(
    server: Answering, tmp_path: Path, fails_after: int
) -> None:
    credential_process(tmp_path, life_s=60, fails_after=fails_after)
    store = opened(server)
    with pytest.raises(ForbiddenError, match="no credentials: custom-process gave none") as caught:
        wait_for(lambda: list(store.listing()) != [], "the process fails")
    assert bool(server.keys) == bool(fails_after)
    chain: list[BaseException | None] = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "hunter2" not in repr(chain)
    store.close()
