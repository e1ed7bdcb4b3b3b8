"""The files of docker/ and .github/: valid by the schemas of those who read them, and in step with each other."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from hop_archive.cli import COMMANDS
from hop_archive.config.load import load, select
from hop_archive.devkit.local.s3 import BACKUP_BUCKET, PRIMARY_BUCKET
from hop_archive_tests.deployment.image import CHECKOUT, DOCKER, compose, copied, dockerfile, locked
from hop_archive_tests.installed import wanted_with

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yaml"))
ARCHIVE = ("buckets", "catalog", "dagster-storage", "code", "webserver", "daemon")


def tool(*command: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_such_by_githubs_schema(workflow: Path) -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))


def test_the_dockerfile_is_without_lint() -> None:
    tool("hadolint", str(DOCKER / "Dockerfile"))


def test_all_images_are_pinned_by_a_tag() -> None:
    (base,) = [words for name, words in dockerfile() if name == "ARG" and words.startswith("PYTHON_IMAGE")]
    images = [base.partition("=")[2], *(service["image"] for service in compose()["services"].values())]
    assert [image for image in images if not re.search(r":(?!latest$)[\w.-]+$", image)] == []


def test_the_image_runs_as_nobody_in_particular_and_has_its_labels() -> None:
    instructions = dockerfile()
    last_stage = instructions[max(n for n, (name, _) in enumerate(instructions) if name == "FROM") :]
    assert [words for name, words in last_stage if name == "USER"] == ["10001"]
    labels = next(words for name, words in last_stage if name == "LABEL")
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${COMMIT}"' in labels


def test_only_what_is_copied_is_sent_to_the_builder_and_it_is_there() -> None:
    sources = {name for names, _ in copied() for name in names}
    sent = {
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert sent == sources
    assert [name for name in sources if not (CHECKOUT / name).exists()] == []


def test_by_itself_the_image_is_compose_s_webserver() -> None:
    instructions = dict(dockerfile())
    webserver = compose()["services"]["webserver"]
    assert json.loads(instructions["CMD"]) == webserver["command"]
    checked = instructions["HEALTHCHECK"].partition("CMD ")[2]
    assert ["CMD", *json.loads(checked)] == webserver["healthcheck"]["test"]


def test_every_port_is_for_this_machine_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_what_stays_has_a_health_check_and_what_waits_waits_for_one() -> None:
    services = compose()["services"]
    waited = {
        (name, on, how["condition"])
        for name, service in services.items()
        for on, how in service.get("depends_on", {}).items()
    }
    for name, on, condition in waited:
        test = services[on].get("healthcheck", {})
        once = test.get("disable", False)
        assert condition == ("service_completed_successfully" if once else "service_healthy"), f"{name}: {on}"
        assert once or test["test"][0] == "CMD"
    assert {on for _, on, _ in waited} >= {"kafka", "postgres", "s3", "code"}


def interpolated(text: str, environ: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: environ.get(m[1]) or m[2], text)


def environment(dotenv: dict[str, str]) -> dict[str, str]:
    """What the code location gets: .env whole, and what the file sets, which may take its value from there."""
    given = compose()["services"]["code"]["environment"]
    return {**dotenv, **{name: interpolated(value, dotenv) for name, value in given.items()}}


def template() -> dict[str, str]:
    text = (DOCKER / "env.tpl").read_text()
    return {name: shlex.split(value)[0] for name, value in re.findall(r"(?m)^(\w+)=(.*)$", text)}


def test_by_itself_compose_archives_from_its_kafka_to_its_own_servers() -> None:
    environ = environment({})
    configuration = load(environ=environ)
    chosen = select(configuration, environ=environ)
    assert (chosen.source, chosen.database, chosen.store) == ("hop-local", "local-db", "local-store")
    assert configuration.source(chosen.source).resolved(environ).describe() == "Kafka at kafka:9092"
    store = configuration.store(chosen.store).resolved(environ)
    assert store.describe() == "s3://hop-archive at http://s3:8333"


def test_with_the_template_filled_in_the_source_is_hopskotch() -> None:
    filled = {name: value or "filled-in" for name, value in template().items()}
    environ = environment(filled)
    configuration = load(environ=environ)
    chosen = select(configuration, environ=environ)
    assert (chosen.source, chosen.database, chosen.store) == ("hop-prod", "local-db", "mock-store")
    source: Any = configuration.source(chosen.source).resolved(environ)
    login = source.login(environ)
    assert (login.username, login.password.get_secret_value()) == ("filled-in", "filled-in")
    assert source.describe() == "Kafka at kafka.scimma.org:9092"
    store: Any = configuration.store(chosen.store).resolved(environ)
    assert store.directory.startswith("/var/lib/hop_archive/")  # the volume that all share


def test_credentials_of_the_servers_are_those_that_the_archive_uses() -> None:
    services = compose()["services"]
    environ, postgres = environment({}), services["postgres"]["environment"]
    login = f"{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}"
    assert f"//{login}@postgres:5432/{postgres['POSTGRES_DB']}" in environ["HOP_ARCHIVE_LOCAL_DATABASE_URL"]
    assert environ["DAGSTER_POSTGRES_PASSWORD"] == postgres["POSTGRES_PASSWORD"]
    assert (
        f"CREATE DATABASE {environ['DAGSTER_POSTGRES_DB']};" in (DOCKER / "postgres" / "init.sql").read_text()
    )
    (identity,) = json.loads((DOCKER / "s3.json").read_text())["identities"]
    keys = (environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    assert identity["credentials"] == [dict(zip(("accessKey", "secretKey"), keys, strict=True))]
    assert keys == (environ["HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"], environ["HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"])
    made = services["buckets"]["command"][2:]
    assert made == [environ["HOP_ARCHIVE_LOCAL_BUCKET"], environ["DAGSTER_LOGS_BUCKET"]]
    assert PRIMARY_BUCKET in made
    assert BACKUP_BUCKET not in made


def test_all_of_the_archive_s_services_are_one_image() -> None:
    services = compose()["services"]
    assert {services[name]["image"] for name in ARCHIVE} == {"hop-archive:local"}
    assert all(services[name]["build"] == services["code"]["build"] for name in ARCHIVE)


def test_the_image_s_versions_are_ones_that_the_package_takes() -> None:
    pinned = locked("image")
    unfit = [
        str(wanted)
        for wanted in wanted_with("all")
        if not wanted.specifier.contains(pinned.get(canonicalize_name(wanted.name), "0"))
    ]
    assert unfit == [], "make image-lock"


@pytest.mark.parametrize("which", ["image", "build"])
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image has Python 3.11")
def test_a_lock_of_the_image_is_of_what_is_installed_here_with_the_hashes_of_the_lock_that_it_came_by(
    which: str,
) -> None:
    made = runpy.run_path(str(DOCKER / "pin.py"))
    assert (DOCKER / f"{which}.lock").read_text() == made["lock"](which), "make image-lock"


def test_the_image_takes_nothing_that_its_locks_do_not_name_by_hash() -> None:
    installs = [
        part
        for name, words in dockerfile()
        if name == "RUN"
        for part in words.split("&&")
        if "pip install" in part
    ]
    by_lock = [part for part in installs if "--require-hashes" in part and "--no-deps" in part]
    assert len(by_lock) == 2
    (own,) = [part for part in installs if part not in by_lock]
    assert "--no-index" in own


def test_actions_are_pinned_by_the_hash_of_a_commit() -> None:
    used = [found for path in WORKFLOWS for found in re.findall(r"(?m)uses: (\S+)", path.read_text())]
    assert [one for one in used if not re.fullmatch(r"\./\S+|[\w./-]+@[0-9a-f]{40}", one)] == []


def test_releases_and_their_workflow_are_named_alike() -> None:
    (workflow,) = [yaml.safe_load(path.read_text()) for path in WORKFLOWS if path.stem == "release"]
    assert workflow[True]["push"]["tags"] == ["hop-archive-*"]  # YAML's reading of the key "on"


def test_what_the_documentation_names_is_there_and_it_names_all_of_deploy() -> None:
    text = (CHECKOUT / "docs" / "deployment.md").read_text()
    named = set(re.findall(r"\b(?:docker|deploy)/[\w./-]*\w\.\w+", text)) - {"docker/.env"}
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []
    files = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "deploy").rglob("*") if path.is_file()}
    assert sorted(files - named) == []
    commands = set(re.findall(r"(?m)(?:^|`|-- |exec code )hop-archive ([a-z][a-z-]+)", text))
    assert len(commands) >= 5
    assert sorted(commands - COMMANDS.keys()) == []
