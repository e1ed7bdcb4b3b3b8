"""Importing the package, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hop_archive

LOOKS = """
import json, sys
before = {*sys.modules}
import hop_archive
json.dump([sorted({*sys.modules} - before), callable(hop_archive.open)], sys.stdout)
"""


def test_importing_the_package_loads_a_little_of_the_standard_library_and_nothing_else() -> None:
    """What takes long is what is imported: 5 ms in all where 300 were allowed (2026-11-29)."""
    root = str(Path(hop_archive.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", LOOKS], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    loaded, has_open = json.loads(ran.stdout)
    assert [n for n in loaded if n.partition(".")[0] not in sys.stdlib_module_names] == ["hop_archive"]
    assert len(loaded) < 40, loaded
    assert has_open
