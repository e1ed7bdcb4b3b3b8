"""``hop-archive list``, where AWS keeps the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from hop_archive_tests.aws import answering, json_refusal
from hop_archive_tests.cli_helpers import place, toml

__all__ = ["place"]
from hop_archive_tests.unit.cli.test_stanzas import KAFKA, listed


def test_a_secret_that_aws_keeps_is_not_asked_for_and_its_variables_are_not_lacking(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(place, KAFKA + 'secret_name = "s"\nregion = "us-west-2"\n')
    monkeypatch.setenv("BROKERS_OF_K", "h:1")
    with answering(lambda _: json_refusal("AccessDeniedException")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        found = listed()
    assert server.bodies == []
    assert (found["source", "k"]["address"], found["source", "k"]["missing"]) == ("Kafka at h:1", [])
    assert found["database", "aws-prod-db"]["missing"] == []
