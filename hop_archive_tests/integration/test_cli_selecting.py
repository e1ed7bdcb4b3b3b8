"""A condition in SQL through the command line, on Postgres: every command that takes one selects the same messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive.cli import cli
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.roles import as_role
from hop_archive_tests.worlds import exhausted

pytestmark = pytest.mark.local

HERE = ("-D", "here", "-S", "here")
TITLE = "nowhere and where else"
CONDITIONS = (
    'uuid IN (SELECT m.uuid FROM messages AS m WHERE m."offset" < 3)',
    'where uuid IN (SELECT m.uuid FROM messages AS m WHERE m."offset" < 3)',
    f"title = '{TITLE}'",
    f"WHERE title = '{TITLE}'",
    "title LIKE '% where %' AND EXISTS (SELECT FROM topics WHERE topics.topic = messages.topic)",
)
"""Each selects the first three."""


@pytest.fixture
def first_three(
    open_archive: OpenArchive,
    address: StackAddress,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The UUIDs of the first three messages of an archive of ten, which the stanzas ``here`` mean."""
    archive = open_archive()
    archive.source.create_topic(namespace, 1)
    alerts = list(filler(10, 200, topic=namespace))
    titled = [replace(one, headers=(*one.headers, ("title", TITLE.encode()))) for one in alerts[:3]]
    archive.source.publish([*titled, *alerts[3:]])
    exhausted(catch_up(archive))
    monkeypatch.chdir(tmp_path)
    for name, value in as_role("archiver", address).environment().items():
        monkeypatch.setenv(name, value)
    Path("hop_archive.toml").write_text(_stanzas(namespace))
    return [str(row.uuid) for row in archive.catalog.rows(namespace)][:3]


def _stanzas(namespace: str) -> str:
    return f"""
    [database.here]
    type = "postgres"
    url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
    schema = "{namespace}"
    [store.here]
    type = "s3"
    bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
    endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
    region = "us-east-1"
    access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
    secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
    prefix = "{namespace}"
    """


def must(*args: str) -> str:
    result = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_where_inside_a_condition_stays_there(first_three: list[str]) -> None:
    for number, condition in enumerate(CONDITIONS):
        assert must("uuids", "-D", "here", condition).split() == first_three
        assert must("uuids", "-D", "here", "--where", condition).split() == first_three
        manifest = json.loads(must("export", f"out{number}", *HERE, "--where", condition, "--json"))
        assert manifest["messages"] == 3
        report = json.loads(must("verify", *HERE, "--deep", "--where", condition, "--json"))
        assert report["findings"] == []
        assert report["checked"]["messages"] == 3
