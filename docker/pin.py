"""Print the versions of all that the image needs, as this environment has them: what make constraints keeps.

The environment that the tests ran in thus becomes the image's. Standard library and packaging only.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml says that an installation with these extras needs, those included that they name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found = [Requirement(text) for text in project["dependencies"]]
    left = [*extras]
    while left:
        for one in map(Requirement, project["optional-dependencies"][left.pop()]):
            if one.name == project["name"]:
                left += one.extras
            else:
                found.append(one)
    return found


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


def main() -> None:
    """Print one requirement a line: what the image is made of has the extra ``all``."""
    sys.stdout.write("# What the image is made of; make constraints writes it.\n")
    for name, version in sorted(closure(wanted("all")).items()):
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
