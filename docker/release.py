"""Builds the image, and pushes a release of it: what make container and make push call.

``push`` takes the version from the ref, ``hop-archive-1.2.3`` or ``refs/tags/hop-archive-1.2.3``, and refuses a
checkout that is not what the ref says. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
PREFIX = "hop-archive-"

_NUMBER = r"(0|[1-9][0-9]*)"
_REF = re.compile(rf"(?:refs/tags/)?{PREFIX}{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:rc([1-9][0-9]*))?")
_ECR = re.compile(r"[0-9]{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?(?=/|$)")
_PUBLIC_ECR = re.compile(r"public\.ecr\.aws(?=/|$)")


class RefusedError(Exception):
    """What was asked is not done; the message says why and what would be."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release: three numbers, and which candidate for it this is (none: the release itself)."""

    numbers: tuple[int, int, int]
    candidate: float = float("inf")

    @classmethod
    def of(cls, ref: str) -> Self:
        """The version that a ref names.

        Raises:
            RefusedError: It names none.
        """
        found = _REF.fullmatch(ref)
        if not found:
            raise RefusedError(
                f"{ref!r} is no release. Wanted hop-archive-1.2.3 or refs/tags/hop-archive-1.2.3"
                " (hop-archive-1.2.3rc1 for a candidate)."
            )
        *numbers, candidate = found.groups()
        major, minor, patch = map(int, numbers)
        return cls((major, minor, patch), int(candidate) if candidate else float("inf"))

    @property
    def is_candidate(self) -> bool:
        """Whether it is not the release itself."""
        return self.candidate != float("inf")

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) + (f"rc{self.candidate:.0f}" if self.is_candidate else "")

    def tags(self, others: Iterable[Version]) -> list[str]:
        """The image's tags: 1.2.3, and 1.2, 1 and latest where no other release is newer; a candidate's, one.

        So a mend of 1.1 that is released after 1.2 does not become what ``latest`` means.
        """
        if self.is_candidate:
            return [str(self)]
        released = [other for other in others if not other.is_candidate]
        moving = [
            (".".join(map(str, self.numbers[:length])) or "latest", self.numbers[:length])
            for length in (2, 1, 0)
        ]
        newest = [
            tag for tag, head in moving if all(o <= self for o in released if o.numbers[: len(head)] == head)
        ]
        return [str(self), *newest]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands, after it has shown them; one that is dry shows only. Questions to git are always asked."""

    dry: bool

    def run(self, *command: str) -> None:
        """Run it to its end.

        Raises:
            RefusedError: It failed.
        """
        self._show(shlex.join(command))
        if not self.dry and subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise RefusedError(f"{command[0]} {command[1]} failed: see above.")

    def pipe(self, producer: Sequence[str], consumer: Sequence[str]) -> None:
        """Give one command what another printed; it is shown nowhere.

        Raises:
            RefusedError: One of them failed.
        """
        self._show(f"{shlex.join(producer)} | {shlex.join(consumer)}")
        if self.dry:
            return
        made = subprocess.run(producer, cwd=ROOT, stdout=subprocess.PIPE, check=False)
        if made.returncode:
            raise RefusedError(f"{producer[0]} {producer[1]} failed: see above.")
        if subprocess.run(consumer, cwd=ROOT, input=made.stdout, check=False).returncode:
            raise RefusedError(f"{consumer[0]} {consumer[1]} failed: see above.")

    def _show(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def git(*arguments: str) -> str:
    """What git answers about the checkout; empty where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def is_dirty() -> bool:
    """Whether there is anything that is not committed, or no repository at all."""
    return not git("rev-parse", "HEAD") or bool(git("status", "--porcelain"))


def checked_out() -> str:
    """The commit, marked where there is more than it has; ``unknown`` outside of a repository."""
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and is_dirty() else commit or "unknown"


def package_version() -> str:
    """What pyproject.toml says."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def build_command(names: Sequence[str], version: str, commit: str, platform: str) -> list[str]:
    """The command that builds the image under these names."""
    named = [argument for name in names for argument in ("--tag", name)]
    args = ["--build-arg", f"VERSION={version}", "--build-arg", f"COMMIT={commit}"]
    return ["docker", "build", "--platform", platform, "--file", "docker/Dockerfile", *args, *named, "."]


def container(shell: Shell, image: str, version: str, commit: str, platform: str) -> None:
    """Build the image of what is checked out, whatever state that is in."""
    version = version or package_version()
    shell.run(*build_command([f"{image}:{version}"], version, commit or checked_out(), platform))


def push(shell: Shell, ref: str, registry: str, image: str, platform: str) -> None:
    """Build the image of a release and push it under all of its tags.

    Raises:
        RefusedError: The ref is none, the checkout is not clean or is not what the ref names, or a command failed.
    """
    version = Version.of(ref)
    if is_dirty():
        raise RefusedError(
            "There is something here that is not committed (git status): an image of it could not be made again."
        )
    _refuse_other_commit(f"{PREFIX}{version}")
    repository = f"{registry.rstrip('/')}/{image}"
    names = [f"{repository}:{tag}" for tag in version.tags(_released())]
    _log_in(shell, registry)
    shell.run(*build_command(names, str(version), git("rev-parse", "HEAD"), platform))
    for name in names:
        shell.run("docker", "push", name)


def _refuse_other_commit(tag: str) -> None:
    tagged, here = (
        git("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}"),
        git("rev-parse", "HEAD"),
    )
    if tagged and tagged != here:
        raise RefusedError(
            f"{tag} is commit {tagged[:12]}, and checked out is {here[:12]}: git checkout {tag}"
        )


def _released() -> list[Version]:
    return [Version.of(tag) for tag in git("tag", "--list", f"{PREFIX}*").split() if _REF.fullmatch(tag)]


def _log_in(shell: Shell, registry: str) -> None:
    """Log in to Amazon's registries, whose passwords last for hours; for others ``docker login`` has been done."""
    if found := _ECR.match(registry):
        password = ["aws", "ecr", "get-login-password", "--region", found["region"]]
        shell.pipe(password, ["docker", "login", "--username", "AWS", "--password-stdin", found[0]])
    elif found := _PUBLIC_ECR.match(registry):
        password = ["aws", "ecr-public", "get-login-password", "--region", "us-east-1"]
        shell.pipe(password, ["docker", "login", "--username", "AWS", "--password-stdin", found[0]])


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--image", default="hop-archive", help="name of the image (default: %(default)s)")
    common.add_argument("--platform", default="linux/amd64", help="default: %(default)s")
    common.add_argument("--dry-run", action="store_true", help="show the commands only")
    one = kinds.add_parser("container", parents=[common], help="build the image of what is checked out")
    one.add_argument("--version", default="", help="default: what pyproject.toml says")
    one.add_argument("--commit", default="", help="default: what is checked out")
    two = kinds.add_parser("push", parents=[common], help="build and push the image of a release")
    two.add_argument("--ref", required=True, help="hop-archive-1.2.3 or refs/tags/hop-archive-1.2.3")
    two.add_argument("--registry", required=True, help="such as 123456789012.dkr.ecr.us-west-2.amazonaws.com")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; 2 where it is refused."""
    given = _arguments(arguments)
    shell = Shell(given.dry_run)
    try:
        if given.kind == "container":
            container(shell, given.image, given.version, given.commit, given.platform)
        else:
            push(shell, given.ref, given.registry, given.image, given.platform)
    except RefusedError as refusal:
        sys.stderr.write(f"Refused: {refusal}\n")
        return 2
    except FileNotFoundError as missing:
        sys.stderr.write(f"There is no program {missing.filename} here.\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
