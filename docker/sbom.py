"""Print what the image is made of: a bill of materials in CycloneDX' JSON (make sbom), or with ``licences`` a page of its licences.

Names, versions and hashes are those of image.lock; licences are what the installed packages say of themselves, in SPDX' words. A package that is
not installed as it is locked is refused: make setup.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, metadata, version
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

LOCK = Path(__file__).with_name("image.lock")
PERMISSIVE = frozenset(
    [
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    ]
)
"""Licences that ask of who passes the image on no more than to pass on their text."""
JUDGED = {
    "certifi": "MPL-2.0: its files are passed on unchanged; their source is in the package",
    "psycopg": "LGPL-3.0: a library of its own beside ours, unchanged, that anybody may replace in the image",
    "psycopg-binary": "as psycopg",
    "psycopg-pool": "as psycopg",
    "psycopg2-binary": "LGPL with exceptions: as psycopg",
    "tqdm": "MPL-2.0 AND MIT: as certifi",
}
"""Those of other licences, and why the image may have them nevertheless."""
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-or-later",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""How packages call what SPDX calls by another name."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of the image."""

    name: str
    version: str
    hashes: tuple[str, ...]
    licence: str


def licence_of(said: PackageMetadata) -> str:
    """An SPDX expression: what the package says as such; else its classifiers; else a text short enough to be a name. '' for none."""
    if expression := said.get("License-Expression"):
        return str(expression)
    classified = [
        found.split(" :: ")[-1]
        for found in said.get_all("Classifier") or ()
        if found.startswith("License ::")
    ]
    named = str(said.get("License") or "")
    names = [name for name in classified if name != "OSI Approved"] or (
        [named] if named and "\n" not in named else []
    )
    return " OR ".join(sorted({_SPDX.get(name, name) for name in names}))


def locked() -> Iterator[Locked]:
    """All that image.lock names, in its order.

    Raises:
        SystemExit: Another version is installed here.
    """
    for entry in re.split(r"(?m)^(?=[a-z0-9])", LOCK.read_text())[1:]:
        name, number = re.split(r"==|[ \n]", entry, maxsplit=2)[:2]
        if version(name) != number:
            raise SystemExit(
                f"{name} is locked at {number}, and installed at {version(name)}: make setup, or make image-lock"
            )
        yield Locked(
            name, number, tuple(re.findall(r"--hash=sha256:(\w+)", entry)), licence_of(metadata(name))
        )


def bill() -> str:
    """The bill of materials."""
    made = LicenseFactory()
    ours = Component(
        name="hop_archive",
        version=version("hop_archive"),
        type=ComponentType.APPLICATION,
        bom_ref="hop_archive",
    )
    ours.licenses.add(made.make_from_string("BSD-3-Clause"))
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"hop_archive {ours.version} {LOCK.read_text()}"))
    bom.metadata.component = ours
    components = []
    for package in locked():
        url = PackageURL("pypi", name=package.name, version=package.version)
        files = [HashType(alg=HashAlgorithm.SHA_256, content=content) for content in package.hashes]
        component = Component(
            name=package.name, version=package.version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url)
        )
        component.external_references.add(
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(url)), hashes=files)
        )
        component.licenses.add(made.make_from_string(package.licence))
        components.append(component)
        bom.components.add(component)
    bom.register_dependency(ours, components)
    return json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=2) + "\n"


def is_permissive(licence: str) -> bool:
    """Whether all that an expression asks for is permissive, or may be chosen so."""
    return bool(licence) and all(
        any(name.strip("() ") in PERMISSIVE for name in each.split(" OR ")) for each in licence.split(" AND ")
    )


def page() -> str:
    """docs/licences.md: every package with its licence, and what was thought of those that are not permissive."""
    rows = [f"| {p.name} | {p.version} | {p.licence} |" for p in locked()]
    judged = [f"| {name} | {why} |" for name, why in sorted(JUDGED.items())]
    return "\n".join(
        [
            "# Licences",
            "",
            "What the image is made of beside hop_archive itself (BSD-3-Clause), as the packages say. `make image-lock` writes this page.",
            "",
            "Not permissive, and why the image may have them:",
            "",
            "| package | why |",
            "|---|---|",
            *judged,
            "",
            "All:",
            "",
            "| package | version | licence |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page() if sys.argv[1:] == ["licences"] else bill())
