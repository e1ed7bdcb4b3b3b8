"""What a restore would do, shown and not done."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.output import count, duration, size, table
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.recover.restore.prepare import Preparation, Restoration

_SAMPLE = 2_000
"""Messages that are read to see how long it may take."""

_MOST_SHOWN = 20


def show_plan(restoration: Restoration, *, as_json: bool, anew: bool = False) -> int:
    """Show the plan; nothing is written. The exit code: 1 where something would not be as it was.

    Raises:
        ConfigurationError, CorruptError: Something stands in the way; the plan was shown all the same.
    """
    from hop_archive.recover.restore.prepare import prepare

    found = prepare(restoration, anew=anew)
    estimate_s = _estimate_s(found)
    if as_json:
        click.echo(json.dumps(_plan_object(found, estimate_s), indent=2, ensure_ascii=False))
    else:
        for line in _plan_lines(found, estimate_s):
            click.echo(line)
    found.refuse()
    return 1 if found.unrestored else 0


def _estimate_s(found: Preparation) -> float | None:
    """How long reading and checking all of it would take, by the pace of the first messages; None for none."""
    from hop_archive.read.fetch import fetch_documents

    items = (item for target in found.plan.targets for item in found.selection.items(target))
    began = time.monotonic()
    sample = itertools.islice(items, _SAMPLE)
    size_bytes = sum(
        len(one.body) for one in fetch_documents(found.restoration.store, (i.row for i in sample))
    )
    elapsed_s = time.monotonic() - began
    return elapsed_s * found.plan.measure.size_bytes / size_bytes if size_bytes else None


def _plan_object(found: Preparation, estimate_s: float | None) -> dict[str, Any]:
    return {
        "dry_run": True,
        "goes_on_with": None if found.begun is None else found.begun.number,
        "messages": found.plan.messages,
        "bytes": found.plan.measure.size_bytes,
        "estimate_s": None if estimate_s is None else round(estimate_s, 1),
        "topics": [
            {
                "topic": target.source,
                "target": target.topic,
                "exists": found.conditions[target.topic].partitions is not None,
                "partitions": target.partitions,
                "messages": target.messages,
                "bytes": target.measure.size_bytes,
                "largest_bytes": target.measure.largest_bytes,
            }
            for target in found.plan.targets
        ],
        "problems": [
            {"where": one.where, "what": one.what, "remedy": one.remedy, "setting": one.setting}
            for one in found.problems
        ],
        "notes": list(found.notes),
        "unrestored": list(found.unrestored),
    }


def _plan_lines(found: Preparation, estimate_s: float | None) -> Iterator[str]:
    rows = [
        [
            target.source,
            target.topic,
            count(target.partitions),
            count(target.messages),
            size(target.measure.size_bytes),
        ]
        for target in found.plan.targets
    ]
    yield from table(["TOPIC", "TO", "PARTITIONS", "MESSAGES", "SIZE"], rows, right=(2, 3, 4))
    for note in found.notes[:_MOST_SHOWN]:
        yield f"Note: {note}"
    for one in found.problems[:_MOST_SHOWN] if found.restoration.request.set_topic_config else ():
        if one.setting is not None:
            yield f"Will be set for the time of the restore: {one.where} {'='.join(one.setting)} ({one.what})"
    if found.begun is not None:
        yield f"Goes on with restore {found.begun.number}, begun {found.begun.started_at:%Y-%m-%d %H:%M} UTC."
    about = "" if estimate_s is None else f"; to read them takes about {duration(estimate_s)}, by a sample"
    yield (
        f"{counted(found.plan.messages, 'message')} ({size(found.plan.measure.size_bytes)}) would be written to "
        f"source {found.restoration.target.name}{about}. Nothing was written."
    )
