"""``make container`` and ``make push``: which commands they run, in a repository made for the test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import hop_archive

CHECKOUT = Path(hop_archive.__file__).parents[1]
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com"


def _release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", CHECKOUT / "docker" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["release"] = module
    spec.loader.exec_module(module)
    return module


release = _release()

# Notes its arguments and what it is given; answers as the AWS client would.
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
case "$1 $2" in
  "ecr get-login-password" | "ecr-public get-login-password") echo the-password ;;
  "login --username") echo "given: $(cat)" >> "$RECORD" ;;
esac
test "$1" != "$FAILING"
"""


@dataclass
class Repository:
    """A git repository with what ``make push`` is made of, and recorders in the place of docker and aws."""

    directory: Path
    record: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("GIT", "MAKE"))}
        path = f"{self.directory.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {
            **kept,
            "PATH": path,
            "RECORD": str(self.record),
            "FAILING": "",
            "HOME": str(self.directory.parent),
        }

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.environ, check=True, capture_output=True, text=True
        ).stdout.strip()

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
        return subprocess.run(
            command,
            cwd=self.directory,
            env={**self.environ, **environ},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ran(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "checkout", tmp_path / "record")
    (made.directory / "docker").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "docker/release.py", ".gitignore"):
        shutil.copy(CHECKOUT / name, made.directory / name)
    (tmp_path / "bin").mkdir()
    for name in ("docker", "aws"):
        program = tmp_path / "bin" / name
        program.write_text(RECORDER)
        program.chmod(0o755)
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message=first")
    return made


def test_the_image_is_built_with_version_and_commit_for_one_platform(repository: Repository) -> None:
    assert repository.make("container", "VERSION=1.2.3", "COMMIT=abc", "IMAGE=mine").returncode == 0
    assert repository.ran() == [
        "docker build --platform linux/amd64 --file docker/Dockerfile"
        " --build-arg VERSION=1.2.3 --build-arg COMMIT=abc --tag mine:1.2.3 ."
    ]


def test_with_nothing_said_the_image_says_what_is_checked_out(repository: Repository) -> None:
    repository.make("container")
    (line,) = repository.ran()
    assert f"--build-arg COMMIT={repository.git('rev-parse', 'HEAD')} --tag" in line
    assert f"--tag hop-archive:{release.package_version()} ." in line


def test_an_image_of_what_is_not_committed_says_so(repository: Repository) -> None:
    (repository.directory / "new").touch()
    repository.make("container")
    assert f"COMMIT={repository.git('rev-parse', 'HEAD')}-dirty" in repository.ran()[0]


@pytest.mark.parametrize("ref", ["hop-archive-1.2.3", "refs/tags/hop-archive-1.2.3"])
def test_a_release_is_built_once_and_pushed_under_all_its_tags(repository: Repository, ref: str) -> None:
    done = repository.make("push", f"GITHUB_REF={ref}", "REGISTRY=registry.example.org/us")
    assert done.returncode == 0, done.stderr
    names = [f"registry.example.org/us/hop-archive:{tag}" for tag in ("1.2.3", "1.2", "1", "latest")]
    build, *pushes = repository.ran()
    assert all(f"--tag {name}" in build for name in names)
    assert f"VERSION=1.2.3 --build-arg COMMIT={repository.git('rev-parse', 'HEAD')}" in build
    assert pushes == [f"docker push {name}" for name in names]


def test_the_ref_may_come_from_the_environment_as_in_github(repository: Repository) -> None:
    assert repository.make("push", GITHUB_REF="refs/tags/hop-archive-1.2.3").returncode == 0
    assert len(repository.ran()) == 5


@pytest.mark.parametrize(
    ("registry", "login", "password"),
    [
        (
            ECR,
            f"docker login --username AWS --password-stdin {ECR}",
            "aws ecr get-login-password --region us-west-2",
        ),
        (
            "public.ecr.aws/us",
            "docker login --username AWS --password-stdin public.ecr.aws",
            "aws ecr-public get-login-password --region us-east-1",
        ),
    ],
)
def test_amazons_registries_are_logged_in_to_first(
    repository: Repository, registry: str, login: str, password: str
) -> None:
    done = repository.make("push", "GITHUB_REF=hop-archive-1.2.3", f"REGISTRY={registry}")
    assert repository.ran()[:3] == [password, login, "given: the-password"]
    assert "the-password" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "main",
        "refs/heads/hop-archive-1.2.3",
        "hop-archive-1.2",
        "hop-archive-01.2.3",
        "hop-archive-1.2.3-beta",
        "hop-archive-1.2.3 ",
        "v1.2.3",
        "hop-archive-1.2.3;id",
    ],
)
def test_a_ref_that_is_no_release_is_refused_with_what_is_one(repository: Repository, ref: str) -> None:
    done = repository.make("push", f"GITHUB_REF={ref}")
    assert done.returncode != 0
    assert "Refused" in done.stderr
    assert "hop-archive-1.2.3" in done.stderr
    assert repository.ran() == []


@pytest.mark.parametrize("name", ["new", "pyproject.toml"])
def test_a_checkout_with_anything_not_committed_is_refused(repository: Repository, name: str) -> None:
    with (repository.directory / name).open("a") as file:
        file.write("\n")
    done = repository.make("push", "GITHUB_REF=hop-archive-1.2.3")
    assert done.returncode != 0
    assert "not committed" in done.stderr
    assert repository.ran() == []


def test_a_checkout_that_is_not_what_the_tag_names_is_refused(repository: Repository) -> None:
    repository.git("tag", "hop-archive-1.2.3")
    repository.git("commit", "--quiet", "--allow-empty", "--message=second")
    done = repository.make("push", "GITHUB_REF=hop-archive-1.2.3")
    assert done.returncode != 0
    assert "git checkout hop-archive-1.2.3" in done.stderr
    assert repository.ran() == []
    repository.git("checkout", "--quiet", "hop-archive-1.2.3")
    assert repository.make("push", "GITHUB_REF=hop-archive-1.2.3").returncode == 0


def test_nothing_is_pushed_when_the_build_fails(repository: Repository) -> None:
    done = repository.make("push", "GITHUB_REF=hop-archive-1.2.3", FAILING="build")
    assert done.returncode != 0
    assert len(repository.ran()) == 1
    assert "Traceback" not in done.stderr


def test_nothing_is_built_when_there_is_no_password(repository: Repository) -> None:
    done = repository.make("push", "GITHUB_REF=hop-archive-1.2.3", f"REGISTRY={ECR}", FAILING="ecr")
    assert done.returncode != 0
    assert repository.ran() == ["aws ecr get-login-password --region us-west-2"]


def test_a_dry_run_shows_the_commands_and_runs_none(repository: Repository) -> None:
    command = [
        sys.executable,
        "docker/release.py",
        "push",
        "--ref=hop-archive-1.2.3",
        f"--registry={ECR}",
        "--dry-run",
    ]
    done = subprocess.run(
        command, cwd=repository.directory, env=repository.environ, check=True, capture_output=True, text=True
    )
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["aws", "ecr"],
        ["docker", "build"],
        *([["docker", "push"]] * 4),
    ]
    assert repository.ran() == []


@pytest.mark.parametrize(
    ("version", "others", "tags"),
    [
        ("1.2.3", [], ["1.2.3", "1.2", "1", "latest"]),
        ("1.2.3", ["1.2.2", "1.2.3", "1.2.3rc1"], ["1.2.3", "1.2", "1", "latest"]),
        ("1.2.3", ["1.10.0"], ["1.2.3", "1.2"]),
        ("1.2.3", ["2.0.0"], ["1.2.3", "1.2", "1"]),
        ("1.2.3", ["1.2.4"], ["1.2.3"]),
        ("1.2.3", ["2.0.0rc1"], ["1.2.3", "1.2", "1", "latest"]),
        ("1.2.3rc2", [], ["1.2.3rc2"]),
    ],
)
def test_only_the_newest_moves_the_tags_that_move(version: str, others: list[str], tags: list[str]) -> None:
    def named(text: str) -> object:
        return release.Version.of(f"hop-archive-{text}")

    assert release.Version.of(f"hop-archive-{version}").tags([named(other) for other in others]) == tags
