"""Importing does nothing: no file, socket, process or thread is opened, and the environment is not read.

What counts is who asked: an import that a package outside of this project does for itself is its own affair,
and so is what the import system reads.

One process imports all, and runs each module once: whoever is the first to import one, it does the same, as no import goes
round in a circle (``unit/test_layers.py``). To begin anew for each took a hundred times as many.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hop_archive

ROOT = Path(hop_archive.__file__).parent

# Imports modules one after another; prints what the import of each did, as JSON.
# The audit events that count: https://docs.python.org/3/library/audit_events.html
OBSERVER = """
import importlib, json, os, sys, threading

PACKAGE = os.sep + "hop_archive" + os.sep
COUNTED = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.system", "os.posix_spawn",
           "os.fork", "socket.", "subprocess.", "sqlite3.", "urllib.", "tempfile.", "shutil.")
module, deeds = "", {}

def is_ours():
    # The innermost frame that is neither Python's own nor an import going on tells who asked.
    frame = sys._getframe(2)
    while frame:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return False
        if PACKAGE in name:
            return True
        if "site-packages" in name:
            return False
        frame = frame.f_back
    return False

def note(event, detail):
    if module and is_ours():
        deeds.setdefault(module, []).append(f"{event} {detail}"[:200])

def hook(event, args):
    if event.startswith(COUNTED):
        note(event, args[:1])

def watched(method, event):
    def called(self, *args):
        note(event, args)
        return method(self, *args)
    return called

sys.addaudithook(hook)
for name in ("__getitem__", "__iter__"):
    setattr(type(os.environ), name, watched(getattr(type(os.environ), name), "environment"))
threading.Thread.start = watched(threading.Thread.start, "thread")
modules = json.load(sys.stdin)
for module in modules:
    try:
        importlib.import_module(module)
    except BaseException as error:
        deeds.setdefault(module, []).append(f"{type(error).__name__}: {error}")
module = ""
json.dump(deeds, sys.stdout)
"""


def modules() -> list[str]:
    """All of ours but the scripts, which run when imported: ``__main__`` and Alembic's ``env``."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        if parts[-1] not in ("__main__", "env"):
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def deeds(directory: Path, names: list[str]) -> dict[str, list[str]]:
    """What importing each of these did, in a fresh interpreter without an environment, in an empty directory."""
    program = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path += {sys.path!r}\n{OBSERVER}"],
        input=json.dumps(names),
        cwd=directory,
        env={},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    assert program.stderr == ""
    found: dict[str, list[str]] = json.loads(program.stdout)
    return found


def test_importing_a_module_opens_and_reads_nothing(tmp_path: Path) -> None:
    assert deeds(tmp_path, modules()) == {}
    assert list(tmp_path.iterdir()) == []


CULPRITS = {
    "opens_a_file": "open(__file__).close()",
    "reads_a_file_through_the_library": "import pathlib; pathlib.Path(__file__).read_text()",
    "lists_a_directory": "import os; os.listdir('.')",
    "opens_a_socket": "import socket; socket.socket().close()",
    "asks_for_an_address": "import socket; socket.getaddrinfo('127.0.0.1', 1)",
    "starts_a_process": "import subprocess; subprocess.run(['true'])",
    "starts_a_thread": "import threading; threading.Thread(target=int).start()",
    "reads_a_variable": "import os; os.environ.get('HOME')",
    "asks_for_a_variable": "import os; os.getenv('HOME')",
    "tests_for_a_variable": "import os; 'HOME' in os.environ",
    "copies_the_environment": "import os; dict(os.environ)",
    "fails": "raise LookupError",
}


def test_each_deed_would_be_noticed(tmp_path: Path) -> None:
    package = tmp_path / "hop_archive"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "innocent.py").write_text(
        "import json, os, socket, threading\nPATH = os.path.join('a', 'b')\n"
    )
    for name, text in CULPRITS.items():
        (package / f"{name}.py").write_text(text)
    names = [f"hop_archive.{name}" for name in ("innocent", *CULPRITS)]
    found = deeds(tmp_path, names)
    assert {name.removeprefix("hop_archive.") for name in found} == set(CULPRITS)
