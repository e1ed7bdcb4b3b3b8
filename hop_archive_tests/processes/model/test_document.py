from __future__ import annotations

import subprocess
import sys
import uuid

import pytest

from hop_archive.model.document import encode
from hop_archive.model.keys import object_key
from hop_archive_tests.strategies import (
    archived,
)
from hop_archive_tests.unit.model.test_document import BARE, FULL, GIVEN

PRINT_DOCUMENTS = """
import sys
from hop_archive.model.document import decode, encode
from hop_archive.model.keys import object_key
from hop_archive.model.message import Message
from hop_archive_tests.strategies import archived
for line in sys.stdin:
    document = archived(decode(bytes.fromhex(line)).message)
    key = object_key(document.message.topic, document.message.timestamp_ms, document.uuid)
    print(encode(document).hex(), document.digest.hex(), document.uuid, key)
"""


def test_processes_with_other_hash_seeds_make_the_same_documents() -> None:
    some = [FULL, BARE, GIVEN, *(FULL._replace(key=bytes([n]), timestamp_ms=-n) for n in range(20))]
    sent = "".join(encode(archived(message)).hex() + "\n" for message in some)
    said = {
        subprocess.run(
            [sys.executable, "-c", PRINT_DOCUMENTS],
            input=sent,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout
        for seed in ("1", "2")
    }
    here = [archived(message) for message in some]
    assert said == {
        "".join(
            f"{encode(d).hex()} {d.digest.hex()} {d.uuid}"
            f" {object_key(d.message.topic, d.message.timestamp_ms, d.uuid)}\n"
            for d in here
        )
    }


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
def test_object_keys_do_not_depend_on_where_the_machine_is(zone: str) -> None:
    key = subprocess.run(
        [
            sys.executable,
            "-c",
            "import uuid; from hop_archive.model.keys import object_key; print(object_key('t', 3600_000, uuid.UUID(int=1)))",
        ],
        env={"TZ": zone, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert key == f"t/1970/1/1/1/{uuid.UUID(int=1)}.bson\n"
