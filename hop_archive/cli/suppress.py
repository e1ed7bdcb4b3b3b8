"""``hop-archive suppress``: content that has to go for good."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options, uuids_argument
from hop_archive.cli.output import print_lines, say, size
from hop_archive.cli.removal import agreed, opened, print_removed, yes_option
from hop_archive.errors import ConfigurationError, HopArchiveError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.catalog.records import Row
    from hop_archive.upkeep.remove.remove import Removing
    from hop_archive.upkeep.remove.suppress import Suppressed

_EPILOG = """\b
Examples:
  hop-archive suppress 9a3f...-... -D local-db -S local-store --reason 'request 2026/17'
      what would be done
  hop-archive suppress 9a3f...-... -D local-db -S local-store --reason 'request 2026/17' --yes
      and does it

\b
What is done:
  a tombstone takes the place of the document: where and when the message was,
  and its digest, without key, value and headers; title, sender, file name and
  originator go from the catalog, too. Old objects are deleted, in the backup
  bucket as well; segments are written anew without it. The suppression is
  remembered, with the reason, for whatever comes back later. There is no undo.

\b
Ends with 1 where a UUID is not in the catalog, or where the content is or may be
somewhere yet: in Kafka, where a source is named (-H) that still holds it; under
other UUIDs, as of a restored topic that was archived, too (looked for by time
and by UUID); in old versions in a bucket that keeps them, in a backup that lets
nothing be deleted, in objects of crashed runs that are younger than an hour, or
whose offsets the ledger has not dealt with.
A message that cannot be suppressed, as where a segment is missing that has to be
written anew, stops no other one: it is named at the end, with what to do first and
the exit code of its reason; then the same command again does what is left.
"""


@click.command(epilog=_EPILOG)
@stanza_options
@uuids_argument("Which messages.")
@click.option(
    "--reason", metavar="TEXT", required=True, help="Why; kept in the catalog and in the tombstone."
)
@yes_option
@json_option
def suppress(
    chosen: StanzaOptions, uuids: tuple[uuid.UUID, ...], *, reason: str, yes: bool, as_json: bool
) -> int:
    """Remove the content of messages for good, for legal reasons; that they were there stays known.

    The stanzas of database and store have to say deleting_allowed = true. Interrupted, it is completed by running it
    again.
    """
    from hop_archive.upkeep.remove.suppress import FAILURES
    from hop_archive.upkeep.remove.suppress import suppress as take_content_away

    if not reason.strip():
        raise ConfigurationError("The reason is empty.", remedy="Say why the content has to go.")
    message_uuids = list(dict.fromkeys(uuids))
    setup = chosen.setup("database", "store")
    with opened(setup, "delete") as removing:
        plan = []
        for message_uuid in message_uuids:
            row = removing.catalog.find(message_uuid)
            topic, object_key = (row.topic, row.object_key) if row else (None, None)
            plan.append({"uuid": str(message_uuid), "topic": topic, "object_key": object_key})
            if as_json:
                continue
            if row is None:
                say(f"{message_uuid}  is not in the catalog")
            else:
                where = "a document of its own" if row.position is None else "a segment, to be written anew"
                extent = f"{size(row.size_bytes)} in {where}"
                say(f"{message_uuid}  {row.topic}, {extent}: {row.object_key}")
        if not agreed("Remove this content for good?", plan, yes=yes, as_json=as_json):
            return 0
        failures = FAILURES()
        found = take_content_away(removing, message_uuids, reason.strip(), failures=failures)
        left = list(_left(setup, removing, found))
        if not as_json:
            say(f"What is archived of {counted(len(found.done), 'message')} has no content any more.")
        print_removed(
            removing.tally,
            plan,
            as_json=as_json,
            suppressed=[str(done) for done in found.done],
            unknown=[str(unknown) for unknown in found.unknown],
            failed={name: str(error) for name, error in failures},
            young=list(found.young),
            unsettled=list(found.unsettled),
            keeps_versions=found.keeps_versions,
            left=left,
        )
        if not as_json:
            print_lines(left)
            print_lines(f"{name} is not done: {error}" for name, error in failures)
        failures.raise_any()
    return 1 if left or found.unknown else 0


def _left(setup: Setup, removing: Removing, found: Suppressed) -> Iterator[str]:
    """Where the content is or may be yet, and what there is to do about it."""
    from hop_archive.upkeep.remove.suppress import likenesses

    for store, keeps in (
        (removing.store, found.keeps_versions),
        (removing.backup, found.backup_keeps_versions),
    ):
        if store is not None and (line := _old_versions(store.bucket, keeps, found.held)):
            yield line
    if found.young:
        some = ", ".join(found.young[:5])
        yield f"{counted(len(found.young), 'object')} may hold it and may be in the making ({some}): run this again in an hour."
    if found.unsettled:
        some = ", ".join(found.unsettled[:5])
        yield (
            f"{counted(len(found.unsettled), 'object')} may hold it, or another message of its UUID, at an offset that the ledger "
            f"has not dealt with ({some}): run this again once the archive has caught up with Kafka (hop-archive run). Where its "
            "topic, or that generation of it, is gone, nothing ever will: look into it, and delete it by hand if it has to go."
        )
    if removing.tally.backup_refusal:
        yield "The backup still has it."
    rows = [row for done in found.done if (row := removing.catalog.find(done)) is not None]
    for row in likenesses(removing, rows):
        yield f"The same content is archived as {row.uuid} in {row.topic} ({row.object_key}): name that UUID, too, if it has to go."
    yield from _in_kafka(setup, removing, rows)


def _old_versions(bucket: str, keeps: bool | None, held: Sequence[str]) -> str:
    """What there is to do about old versions of what was deleted; '' where there is nothing."""
    if keeps is False:
        return ""
    is_kept = (
        "keeps, or has kept, old versions" if keeps else "may keep old versions (that could not be looked at)"
    )
    which = f"those of {', '.join(held)}" if held else "those that the first call of this named"
    return (
        f"Bucket {bucket} {is_kept}: the content is there until {which} are deleted (aws s3api list-object-versions --bucket"
        f" {bucket} --prefix KEY, then delete-object with each --version-id; where a lock holds them, when its time is over)."
    )


def _in_kafka(setup: Setup, removing: Removing, rows: Sequence[Row]) -> list[str]:
    """Where the source, if one is named, still holds a message; said on stderr where none is.

    A source that cannot be asked is no error by now, when the content is gone: it is one more thing to see to.
    """
    from hop_archive.upkeep.remove.suppress import places
    from hop_archive.upkeep.repair.plan import Upstream

    if not setup.selection.asks_source:
        say("Whether Kafka still holds it was not looked at: name the source (-H) to know.", err=True)
        return []
    stood = sorted(at for row in rows for at in places(removing, row))
    try:
        with contextlib.closing(setup.open()) as archive:
            upstream = Upstream(archive)
            return [
                f"Kafka still holds {at}, until retention removes it or its records are deleted up to there."
                for at in stood
                if upstream.held(at)
            ]
    except HopArchiveError as error:
        return [f"Whether Kafka still holds it is not known: {error} The same command again asks once more."]
