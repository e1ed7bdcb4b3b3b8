"""The soak's checker shares no code with what it judges."""

from __future__ import annotations

import subprocess
import sys


def test_it_imports_nothing_of_the_archive() -> None:
    asked = (
        "import sys, hop_archive_tests.soak.checker; "
        "print([name for name in sys.modules if name.partition('.')[0] == 'hop_archive'])"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
