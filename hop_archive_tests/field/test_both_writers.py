"""archive-core and this archive at work on one bucket at once: what each may do to the other's objects, and how it is mended."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from hop_archive.catalog.records import Row
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.findings import Finding
from hop_archive.model.identity import digest
from hop_archive.model.message import Message
from hop_archive.read.check import check
from hop_archive.upkeep.repair.evidence import encoded_anew
from hop_archive.upkeep.repair.plan import QUARANTINE
from hop_archive.upkeep.repair.repair import RepairOutcome
from hop_archive_tests.damaging import Ruin, kinds, ruin, verified
from hop_archive_tests.field.forms import FORMS, Form, kept
from hop_archive_tests.worlds import BUSY

pytestmark = pytest.mark.field

NEWEST = next(form for form in FORMS if form.since.startswith("2026-04-23"))
EXACT = [form for form in FORMS if form.keeps_headers and form.keeps_key]


@pytest.fixture
def both() -> Ruin:
    """An archive without a backup, whose source is not asked: nothing but its own objects can mend it."""
    found = ruin("message", backup=False)
    assert look(found) == []
    return found


def look(both: Ruin) -> list[Finding]:
    """In every direction, deep; what is found is noted."""
    return list(verified(both.archive()))


def given_by_publishers(both: Ruin) -> list[tuple[Row, Message]]:
    """Rows under UUIDs of publishers', which archive-core would store under the same keys, and their messages."""
    rows = [row for row in both.rows(BUSY) if row.is_client_uuid]
    return [(row, decode(both.body(row.object_key)).message) for row in rows]


def archive_cores(message: Message, row: Row, form: Form = NEWEST) -> bytes:
    return kept(form, message, row.bucket, row.uuid).object.body


def test_an_object_that_archive_core_overwrote_is_mended_from_what_it_holds(both: Ruin) -> None:
    victims = given_by_publishers(both)[:5]
    before = {row.uuid: both.body(row.object_key) for row, _ in victims}
    for row, message in victims:
        both.put(row.object_key, archive_cores(message, row))
    assert set(kinds(look(both))) == {"wrong_size"}
    mended = both.repair(backup=False, source=False)
    assert {one.outcome for one in mended} == {RepairOutcome.MENDED}, [one.how for one in mended]
    after = {row.uuid: row for row in both.rows(BUSY)}
    for row, message in victims:
        now = after[row.uuid]
        assert both.body(now.object_key) == before[row.uuid]
        assert now._replace(object_key=row.object_key) == row
        assert now.object_key != row.object_key
        assert both.body(f"{QUARANTINE}{row.object_key}") == archive_cores(message, row)
    assert look(both) == []


@pytest.mark.parametrize("change", [{"value": b"other"}, {"key": b"other"}, {"headers": ()}])
def test_where_it_holds_another_message_nothing_is_made_of_it(both: Ruin, change: dict[str, object]) -> None:
    row, message = given_by_publishers(both)[0]
    both.put(row.object_key, archive_cores(message._replace(**change), row))  # type: ignore[arg-type]  # as given
    look(both)
    (told,) = both.repair(backup=False, source=False)
    assert (told.outcome, "good in none of: the store itself" in told.how) == (RepairOutcome.LEFT, True)


@pytest.mark.parametrize("form", EXACT, ids=str)
def test_the_very_bytes_come_back_whatever_the_leaders_epoch_was(both: Ruin, form: Form) -> None:
    row, message = next((r, m) for r, m in given_by_publishers(both) if len(m.headers) == 1)
    document = decode(both.body(row.object_key))
    message = message._replace(key=b"k")
    made = replace(
        document, digest=digest(b"k", message.headers, message.value), message_crc32=crc32(message.value)
    )
    for epoch in (None, 0, 7, 4321):
        body = encode(replace(made, message=message._replace(leader_epoch=epoch)))
        described = row._replace(
            size_bytes=len(body), crc32=crc32(body), digest=made.digest, message_crc32=made.message_crc32
        )
        assert encoded_anew(described, archive_cores(message, row, form)) == body
        assert check(described, body)[1] == ()


def test_no_bytes_come_back_of_a_row_that_was_changed_since(both: Ruin) -> None:
    row, message = given_by_publishers(both)[0]
    changed = row._replace(annotations=row.annotations._replace(sender="somebody else"))
    refined = row._replace(
        annotations=row.annotations._replace(media_type="text/csv")
    )  # which rows alone have
    assert encoded_anew(row, archive_cores(message, row)) is not None
    assert encoded_anew(refined, archive_cores(message, row)) is not None
    assert encoded_anew(changed, archive_cores(message, row)) is None


def test_what_archive_core_left_where_we_were_first_with_the_row_is_put_aside(both: Ruin) -> None:
    row, message = given_by_publishers(both)[0]
    body, key = archive_cores(message, row), row.object_key
    elsewhere = key.replace(".bson", ".1.bson")
    both.put(elsewhere, both.body(key))
    both.put(key, body)
    both.alter(row, object_key=elsewhere)
    assert kinds(look(both)) == ["orphan_object"]
    (mended,) = both.repair(backup=False, source=False)
    assert mended.outcome is RepairOutcome.MENDED, mended.how
    assert both.body(f"{QUARANTINE}{key}") == body
    assert look(both) == []


def test_an_object_of_archive_cores_without_a_row_stays_for_a_person(both: Ruin) -> None:
    row, message = given_by_publishers(both)[0]
    unknown = kept(NEWEST, message, row.bucket, uuid.UUID(int=7))
    both.put(unknown.object.key, unknown.object.body)
    assert kinds(look(both)) == ["orphan_object"]
    (told,) = both.repair(backup=False, source=False)
    assert (told.outcome, "another archiver wrote it" in told.how) == (RepairOutcome.LEFT, True)
