"""What the image is made of: a bill of materials that is whole, licences that were judged, and an audit that says when it could not look."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hop_archive_tests.deployment.image import CHECKOUT, DOCKER, locked

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image has Python 3.11")


ANSWERS = {
    "": 3,
    '{"dependencies": []}': 0,
    '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}': 0,
    '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": []}]}]}': 1,
    '{"dependencies": [{"name": "a", "skip_reason": "not there"}]}': 3,
}
"""What pip-audit may say, and how the audit then ends."""


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_audit_that_could_not_ask_says_so_and_is_no_success(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = subprocess.CompletedProcess("pip-audit", 1, answer, "no route to the service")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    code = runpy.run_path(str(DOCKER / "audit.py"))["audit"]()
    assert code == ANSWERS[answer]
    assert ("NOT AUDITED" in capsys.readouterr().err) == (code == 3)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(DOCKER / "sbom.py"))


def test_the_bill_of_materials_has_every_locked_package_with_version_hashes_and_licence(
    made: dict[str, Any],
) -> None:
    text = made["bill"]()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert bom["metadata"]["component"]["name"] == "hop_archive"
    assert {found["name"]: found["version"] for found in bom["components"]} == locked("image")
    lock = (DOCKER / "image.lock").read_text()
    for found in bom["components"]:
        assert found["purl"] == f"pkg:pypi/{found['name']}@{found['version']}"
        assert found["licenses"], found["name"]
        (files,) = found["externalReferences"]
        assert files["hashes"]
        assert all(f"sha256:{one['content']}" in lock for one in files["hashes"])


def test_the_same_lock_makes_the_same_bill(made: dict[str, Any]) -> None:
    first, second = (json.loads(made["bill"]()) for _ in range(2))
    for bom in (first, second):
        del bom["metadata"]["timestamp"]
    assert first == second


def test_every_licence_is_permissive_or_was_judged(made: dict[str, Any]) -> None:
    other = {package.name for package in made["locked"]() if not made["is_permissive"](package.licence)}
    assert other == made["JUDGED"].keys()


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("GPL-3.0-only", False),
        ("", False),
    ],
)
def test_what_may_be_chosen_counts_and_what_comes_on_top_does(
    made: dict[str, Any], licence: str, permissive: bool
) -> None:
    assert made["is_permissive"](licence) is permissive


def test_the_page_of_licences_is_of_the_lock(made: dict[str, Any]) -> None:
    assert (CHECKOUT / "docs" / "licences.md").read_text() == made["page"](), "make image-lock"
