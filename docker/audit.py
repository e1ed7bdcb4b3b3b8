"""Ask for known vulnerabilities of all that dev.lock names, the image's packages among them: make audit.

Ends with 0 where there is none, 1 where there is one, and 3 where nobody could be asked: then nothing is known, and the output says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LOCK = Path(__file__).parents[1] / "dev.lock"
_NOT_ASKED = 3


def audit(arguments: Sequence[str] = ()) -> int:
    """Run pip-audit, which installs nothing, and say what it found; ``arguments`` are its own, such as ``--ignore-vuln``."""
    asked = [
        "pip-audit",
        "--disable-pip",
        "--require-hashes",
        "--format=json",
        "--progress-spinner=off",
        "--timeout=15",
    ]
    done = subprocess.run(
        [str(Path(sys.executable).with_name(asked[0])), *asked[1:], f"--requirement={LOCK}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return _not_asked((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped:
        return _not_asked(f"of {len(skipped)} of {len(packages)} packages: {skipped[0]['skip_reason']}")
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, each in found:
        mended = ", ".join(each["fix_versions"]) or "nothing yet"
        sys.stdout.write(f"{package['name']} {package['version']}: {each['id']}, mended in {mended}\n")
    sys.stdout.write(f"{len(packages)} packages asked for, {len(found)} known vulnerabilities.\n")
    return 1 if found else 0


def _not_asked(why: str) -> int:
    sys.stderr.write(
        f"NOT AUDITED: the vulnerability service could not be asked ({why}). Nothing is known of what dev.lock names;"
        " the workflow audit asks each week.\n"
    )
    return _NOT_ASKED


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1:]))
