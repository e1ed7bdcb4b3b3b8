"""Print all that the image is made of, as this environment has it, with hashes: what make image-lock keeps as image.lock.

``docker/pin.py build`` prints what its wheel is built with (build.lock). Versions are those that the tests ran with, hashes those of
dev.lock, by which they were installed. Standard library and packaging only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TITLES = {"image": "What the image is made of", "build": "What the image's wheel is built with"}

_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml says that an installation with these extras needs, those included that they name."""
    project = _pyproject()["project"]
    found = [Requirement(text) for text in project["dependencies"]]
    left = [*extras]
    while left:
        for one in map(Requirement, project["optional-dependencies"][left.pop()]):
            if one.name == project["name"]:
                left += one.extras
            else:
                found.append(one)
    return found


def building() -> list[Requirement]:
    """What pyproject.toml says that a wheel is built with."""
    return [Requirement(text) for text in _pyproject()["build-system"]["requires"]]


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def needed(requirement: Requirement) -> Iterator[Requirement]:
    """What a requirement needs in its turn, on Linux."""
    for text in distribution(requirement.name).requires or ():
        one = Requirement(text)
        extras = {"", *requirement.extras}
        if one.marker is None or any(one.marker.evaluate({**_LINUX, "extra": extra}) for extra in extras):
            yield one


def closure(first: Iterable[Requirement]) -> dict[str, str]:
    """Version by canonical name of these and all that they need, directly or not."""
    versions: dict[str, str] = {}
    seen: set[str] = set()
    left = [*first]
    while left:
        one = left.pop()
        key = f"{canonicalize_name(one.name)}[{','.join(sorted(one.extras))}]"
        if key not in seen:
            seen.add(key)
            versions[canonicalize_name(one.name)] = distribution(one.name).version
            left += [*needed(one)]
    return versions


def hashes() -> dict[str, list[str]]:
    """What dev.lock allows of each package, by name and version: ``name==version``."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"(?m)^(?=[a-z0-9])", (ROOT / "dev.lock").read_text())[1:]:
        found[re.split(r"[ ;]", entry, maxsplit=1)[0]] = re.findall(r"--hash=(\S+)", entry)
    return found


def lock(which: str) -> str:
    """One requirement after another: what the image is made of has the extra ``all``."""
    needs = {"image": wanted("all"), "build": building()}[which]
    allowed = hashes()
    text = f"# {TITLES[which]}; make image-lock writes it.\n"
    for name, version in sorted(closure(needs).items()):
        lines = [f"{name}=={version}", *(f"    --hash={one}" for one in allowed[f"{name}=={version}"])]
        text += " \\\n".join(lines) + "\n"
    return text


if __name__ == "__main__":
    sys.stdout.write(lock(*sys.argv[1:] or ["image"]))
