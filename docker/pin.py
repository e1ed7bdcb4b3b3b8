"""Print the versions of all that the image needs, as this environment has them: what make constraints keeps.

The environment that the tests ran in thus becomes the image's. Standard library and packaging only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGE = "hop_archive[kubernetes]"
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def needed(requirement: Requirement) -> Iterator[Requirement]:
    """What a requirement needs in its turn, on Linux."""
    for text in distribution(requirement.name).requires or ():
        one = Requirement(text)
        extras = {"", *requirement.extras}
        if one.marker is None or any(one.marker.evaluate({**_LINUX, "extra": extra}) for extra in extras):
            yield one


def closure(first: Requirement) -> dict[str, str]:
    """Version by canonical name of all that ``first`` needs, directly or not; without itself."""
    versions: dict[str, str] = {}
    seen: set[str] = set()
    left = [*needed(first)]
    while left:
        one = left.pop()
        key = f"{canonicalize_name(one.name)}[{','.join(sorted(one.extras))}]"
        if key not in seen:
            seen.add(key)
            versions[canonicalize_name(one.name)] = distribution(one.name).version
            left += [*needed(one)]
    versions.pop(canonicalize_name(first.name), None)
    return versions


def main() -> None:
    """Print one requirement a line."""
    sys.stdout.write("# What the image is made of; make constraints writes it.\n")
    for name, version in sorted(closure(Requirement(IMAGE)).items()):
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
