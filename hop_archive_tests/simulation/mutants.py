"""Faults put into the code on purpose, each in a copy of it: a simulation, or else a test that is named, has to find it.

``python -m hop_archive_tests.simulation.mutants`` applies one after another, and ends with 1 where one is found by nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parents[2]
_HISTORIES = 500
"""So many seeds are tried; each fault that the simulation can see shows in far fewer."""
_LONGEST_S = 600


class Mutant(NamedTuple):
    """A line that is made wrong.

    Attributes:
        why: What would happen.
        path: File below ``hop_archive``.
        was: What stands there once; ``now`` is what stands there instead.
        tests: Where the simulation does not show it: the tests that do, below ``hop_archive_tests``.
    """

    why: str
    path: str
    was: str
    now: str
    tests: str = ""


MUTANTS = (
    Mutant(
        "rows are committed whose objects were never made",
        "ingest/write.py",
        "    stored = write_objects(archive, group)\n",
        "    stored = list(group)\n",
    ),
    Mutant(
        "a copy is recorded of other content, which has the UUID of its original by now",
        "catalog/refusals.py",
        "        is_same = copy.digest is None or (topic == batch.slice.topic and digest in (None, copy.digest))\n",
        "        is_same = True\n",
        "faults/test_two_writers.py",
    ),
    Mutant(
        "what was read of a topic that was made anew meanwhile is committed as the old one's",
        "ingest/write.py",
        "        if planned is None or s.topic not in now or now[s.topic].topic_id != planned.topic_id:\n",
        "        if planned is None:\n",
        "faults/test_two_writers.py",
    ),
    Mutant(
        "what was read under another leader than the one that was proven is committed",
        "ingest/write.py",
        "        elif epochs.get(s.partition_log) != epoch:\n",
        "        elif False:\n",
        "faults/test_truncated_logs.py",
    ),
    Mutant(
        "offsets that retention took before they were read count as absent",
        "ingest/write.py",
        "    if first == whole.start:\n        return (batch,)\n",
        "    if first >= whole.start:\n        return (batch,)\n",
        "faults/test_two_writers.py",
    ),
    Mutant(
        "a client's UUID that other content has makes its message a duplicate",
        "model/identity.py",
        "        return known.digest == identity.digest and known.uuid == identity.uuid\n",
        "        return known.uuid == identity.uuid\n",
    ),
    Mutant(
        "where other bytes stand under a key, they count as the object that was to be made",
        "store/free_keys.py",
        "            if created is Created.OTHER:\n",
        "            if False:\n",
        "faults/test_two_writers.py",
    ),
    Mutant(
        "what is gone is not recorded as lost",
        "ingest/survey.py",
        "        archive.catalog.commit(Batch(gone, outcome, reason, run_id=archive.run_id))\n",
        "        pass\n",
    ),
    Mutant(
        "a look at a topic from before it was made anew begins the old one as its next generation",
        "ingest/survey.py",
        "        if recognition.number > 1 and name not in same:\n",
        "        if False:\n",
        "faults/test_changing_sources.py",
    ),
    Mutant(
        "a log that lost an end of which nothing was archived is not told",
        "ingest/survey.py",
        "    if findings:\n        archive.catalog.note_findings(findings, archive.now())\n",
        "",
        "faults/test_changing_sources.py",
    ),
    Mutant(
        "an object that a row names is deleted with those that none names",
        "upkeep/remove/remove.py",
        "                if not pending.is_named\n                and self.only_in(",
        "                if self.only_in(",
        "unit/upkeep/test_removing.py unit/upkeep/test_compacting.py faults/test_removal_crashes.py",
    ),
    Mutant(
        "a message is pruned of which a duplicate stays",
        "upkeep/remove/prune.py",
        "            keepers |= more\n",
        "            break\n",
        "unit/upkeep/test_removing.py",
    ),
    Mutant(
        "duplicates at the end of a log stay when what they are copies of is pruned",
        "upkeep/remove/prune.py",
        "        for at in (e.slice for e in entries if e.duplicates):\n",
        "        for at in ():\n",
        "unit/upkeep/test_removing.py",
    ),
    Mutant(
        "an orphan of a log that is over stays one for ever",
        "upkeep/repair/orphans.py",
        "    over = {log for log in open_logs if log.generation < last.get(log.topic, 0) and log in seen}\n",
        "    over = set[PartitionLog]()\n",
        "unit/upkeep/test_repairing.py",
    ),
    Mutant(
        "a segment is made of rows that somebody moved meanwhile",
        "upkeep/compact/compact.py",
        "    if len(rows) != group.rows:\n",
        "    if False:\n",
        "unit/upkeep/test_compacting.py faults/test_compaction_crashes.py",
    ),
    Mutant(
        "a segment is not read back before rows name it",
        "upkeep/compact/compact.py",
        "            _read_back(store, made.objects[0].body, moves, bodies)\n",
        "            pass\n",
        "unit/upkeep/test_compacting.py",
    ),
    Mutant(
        "rows are not checked before a repair puts an orphan aside",
        "upkeep/repair/orphans.py",
        "    if catalog.pending_keys(repair.store.bucket, [key]):\n",
        "    if False:\n",
        "unit/upkeep/test_repairing.py",
    ),
    Mutant(
        "the digest does not tell a null value from an empty one",
        "model/identity.py",
        "        length = _NULL if value is None else _LENGTH(len(value))\n",
        "        length = _LENGTH(len(value or b''))\n",
        "unit/model",
    ),
    Mutant(
        "what suppressing leaves to be deleted stays",
        "upkeep/remove/suppress.py",
        "        removing.delete_pending(COMMAND)\n        of_store, of_backup = (\n",
        "        of_store, of_backup = (\n",
        "unit/upkeep/test_removing.py faults/test_removal_crashes.py",
    ),
    Mutant(
        "the part of a batch that begins with lost offsets is committed whole",
        "ingest/write.py",
        "    return (gone, replace(batch, slice=whole.within(gone_to, whole.stop)))\n",
        "    return (batch,)\n",
        "faults/test_two_writers.py",
    ),
    Mutant(
        "a reader's slice ends with its last message, and not where the log does",
        "ingest/read.py",
        "        reached = max(self._reader.position(partition), fill.start)\n",
        "        reached = fill.start\n",
    ),
    Mutant(
        "objects are made of a topic that was made anew before it was read, before its generation begins",
        "ingest/write.py",
        "            others = {topic for topic, info in now.items() if info.topic_id not in ids[topic]}\n",
        "            others = set()\n",
        "faults/test_changing_sources.py",
    ),
)
"""Each is a single line's, and each of another promise."""


def mutated(mutant: Mutant, folder: Path) -> str:
    """The text of a mutant's file, with the line made wrong.

    Raises:
        AssertionError: It does not stand there once: the code has changed, and the mutant has to follow.
    """
    text = (folder / "hop_archive" / mutant.path).read_text()
    assert text.count(mutant.was) == 1, f"{mutant.path} has {text.count(mutant.was)} times: {mutant.was!r}"
    return text.replace(mutant.was, mutant.now)


def found_by(mutant: Mutant) -> str:
    """What finds a mutant, and by which words; '' where nothing does. First the simulation, then the tests that are named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in ("hop_archive", "hop_archive_tests"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "hop_archive" / mutant.path).write_text(mutated(mutant, folder))
        simulate = ["-m", "hop_archive_tests.simulation", "--count", str(_HISTORIES), "--as-it-is"]
        if (told := _failing(simulate, folder)) is not None:
            seed = re.search(r"Seed (\d+) fails: (?:AssertionError: )?(.{0,60})", told)
            return f"simulation, seed {seed[1]}: {seed[2]}" if seed else "simulation"
        tests = [f"hop_archive_tests/{path}" for path in mutant.tests.split()]
        if tests and (told := _failing(["-m", "pytest", "-q", "-x", "-n0", *tests], folder)) is not None:
            failed = re.search(r"^FAILED (?:hop_archive_tests/)?(\S+)", told, re.MULTILINE)
            return failed[1] if failed else mutant.tests
    return ""


def _failing(arguments: list[str], folder: Path) -> str | None:
    """What Python says of the copy's code where it ends with 1: what is wrong was found, and not that it could not be looked for."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=_LONGEST_S, check=False,
    )  # fmt: skip
    assert ended.returncode in (0, 1), ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout if ended.returncode == 1 else None


@click.command()
@click.argument("numbers", nargs=-1, type=int)
@click.option("--at-once", type=int, default=2, show_default=True, help="How many are looked for at once.")
def main(numbers: tuple[int, ...], at_once: int) -> None:
    """Put each fault (or those of these NUMBERS, from 1 on) into a copy of the code, and tell what finds it."""
    chosen = [(n, m) for n, m in enumerate(MUTANTS, start=1) if not numbers or n in numbers]
    caught = 0
    with ThreadPoolExecutor(at_once) as pool:
        for (number, mutant), finder in zip(
            chosen, pool.map(lambda one: found_by(one[1]), chosen), strict=True
        ):
            caught += bool(finder)
            click.echo(f"{number:3} {mutant.why}\n      {finder or 'NOT FOUND'}")
    click.echo(f"{caught} of {len(chosen)} caught.")
    raise SystemExit(0 if caught == len(chosen) else 1)


if __name__ == "__main__":
    main()
