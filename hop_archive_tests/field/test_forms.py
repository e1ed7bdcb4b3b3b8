"""Documents of every historic form in an archive that was adopted: read, verified, restored, rebuilt and the rest."""

from __future__ import annotations

import datetime
import json
import uuid
from collections import Counter
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.cli.inspect import _lines, as_object
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import Sample
from hop_archive.errors import CorruptError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode, decode_statement
from hop_archive.model.findings import Kind
from hop_archive.model.message import Message
from hop_archive.model.query import Order, Query
from hop_archive.read.browse import OpenArchive
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.export import ExportRequest, Form, export
from hop_archive.read.fetch import fetch_documents
from hop_archive.read.inspect import inspect
from hop_archive.read.snapshot_locations import FolderLocation
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import restore
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import scrub
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.contract.catalog_helpers import connect, insert_as_archive_core
from hop_archive_tests.field.forms import FORMS, NOW_MS, TOPIC, Kept, every_form, sample
from hop_archive_tests.field.forms import kept as kept_in
from hop_archive_tests.integration.archive_core_catalog import SCHEMA, TRIGGER
from hop_archive_tests.restores import content, held, patient
from hop_archive_tests.roles import migrate_and_grant, url_of
from hop_archive_tests.worlds import World, exhausted

pytestmark = pytest.mark.field


class Adopted:
    """An archive with a message of each form and kind, and what is to be found of them."""

    def __init__(self, archive: Archive, topic: str) -> None:
        self.archive, self.topic = archive, topic
        self.kept = every_form(archive.store.bucket, topic)
        archive.store.create([one.object for one in self.kept])

    def verification(self) -> Verification:
        return Verification(self.archive.catalog, self.archive.store, Query((self.topic,)), grace_s=0)


@pytest.fixture(params=["mock", pytest.param("local stack", marks=pytest.mark.local)])
def there(request: pytest.FixtureRequest, namespace: str) -> Adopted:
    """On mocks; and on a catalog that archive-core's migrations left, with its trigger, and rows that it inserted."""
    if request.param == "mock":
        found = Adopted(World(store=MockStore(deleting_allowed=True)).archive(), TOPIC)
        found.archive.catalog.adopt([one.row for one in found.kept])
        return found
    address: StackAddress = request.getfixturevalue("address")
    url = f"{address.database_url}?options=-csearch_path%3D{namespace}"
    with connect(address.database_url) as connection:
        connection.execute(f"CREATE SCHEMA {namespace}".encode())
    with connect(url) as connection:
        for statement in (*SCHEMA, *TRIGGER):
            connection.execute(statement)
    insert_as_archive_core(url, [one.row for one in every_form(address.bucket, f"{namespace}.old")])
    archive: Archive = request.getfixturevalue("open_archive")()  # which migrates
    return Adopted(archive, f"{namespace}.old")


def another_catalog(there: Adopted, request: pytest.FixtureRequest, namespace: str) -> Catalog:
    """An empty one of the same kind."""
    if isinstance(there.archive.catalog, MockCatalog):
        return MockCatalog()
    url = request.getfixturevalue("address").database_url
    migrate_and_grant(url, f"{namespace}_again")
    catalog = PostgresCatalog("again", url_of("archiver", url), schema=f"{namespace}_again")
    request.addfinalizer(catalog.close)
    return catalog


# The one reader


@pytest.mark.parametrize("one", every_form("archive"), ids=lambda one: f"{one.form} {one.message.offset}")
def test_each_form_is_read_with_what_it_says_and_its_caveats(one: Kept) -> None:
    document, stated = decode(one.object.body, one.row.uuid), decode_statement(one.object.body, one.row.uuid)
    assert document.message == one.message
    assert (stated.key, stated.value, stated.received_headers) == (
        one.message.key,
        one.message.value,
        one.message.headers,
    )
    assert (document.uuid, document.message_crc32, document.digest) == (
        one.row.uuid,
        one.row.message_crc32,
        b"",
    )
    assert document.caveats == stated.caveats == one.form.caveats
    assert document.annotations.media_type in ("application/json", "text/plain")


def test_a_document_that_says_no_uuid_is_refused_where_nothing_else_tells_it() -> None:
    one = kept_in(FORMS[3], sample(0), "archive")
    with pytest.raises(CorruptError, match="no UUID"):
        decode(one.object.body)


@pytest.mark.parametrize(
    "changes",
    [{"message": "text"}, {"message": {"format": "json"}}, {"metadata": {"topic": "t", "timestamp": 5}},
     {"metadata": {"topic": "t", "timestamp": 5.5, "headers": None}},
     {"metadata": {"topic": "t", "timestamp": 5, "headers": [{"key": "a"}]}}, {"annotations": None},
     {"annotations": {"con_text_uuid": 5}}, {"archiver_notes": []}],
)  # fmt: skip
def test_what_is_in_none_of_these_forms_is_corrupt(changes: dict[str, object]) -> None:
    import bson

    fields = FORMS[5].fields(sample(0), uuid.uuid4())
    with pytest.raises(CorruptError):
        decode(bson.encode(fields | changes), uuid.uuid4())


# Reading


def test_all_are_fetched_browsed_and_inspected(there: Adopted) -> None:
    archive = there.archive
    rows = list(archive.catalog.select(Query((there.topic,)), Order.PLACE))
    found = {one.row.uuid: one for one in fetch_documents(archive.store, rows)}
    assert {own: one.problems for own, one in found.items() if one.problems} == {}
    assert [found[one.row.uuid].document and found[one.row.uuid].document.message for one in there.kept] == [  # type: ignore[union-attr]
        one.message for one in there.kept
    ]
    browsed = {
        one.uuid: (one.message, one.caveats)
        for one in OpenArchive(archive.catalog, archive.store).messages(there.topic)
    }
    assert browsed == {one.row.uuid: (one.message, one.form.caveats) for one in there.kept}
    for one in there.kept:
        inspection = inspect(archive.catalog, archive.store, one.row.uuid)
        assert inspection is not None
        assert inspection.fault() is None
        assert as_object(inspection)["caveats"] == list(one.form.caveats)
        shown = [line.split(maxsplit=1)[1] for line in _lines(inspection, None) if line.startswith("Note ")]
        assert shown == list(one.form.caveats)


@pytest.mark.parametrize("form", ["bson", "payloads"])
def test_all_are_exported(there: Adopted, form: Form, tmp_path: Path) -> None:
    archive = there.archive
    wanted = ExportRequest(Query((there.topic,)), form)
    manifest = export(archive.catalog, archive.store, tmp_path / "out", wanted, now=archive.now)
    assert manifest["messages"] == len(there.kept)
    if form == "bson":
        (file,) = (tmp_path / "out").glob("*.bson")
        assert Counter(file.read_bytes()) == Counter(b"".join(one.object.body for one in there.kept))
    else:
        found = sorted(path.read_bytes() for path in (tmp_path / "out" / there.topic).iterdir())
        assert found == sorted(one.message.value or b"" for one in there.kept)


def test_a_catalog_snapshot_has_them_all(there: Adopted, tmp_path: Path) -> None:
    archive = there.archive
    taken = snapshot(CatalogSnapshot(archive.catalog, FolderLocation(tmp_path / "snapshot"), (there.topic,)))
    assert json.dumps(taken)
    assert taken["messages"] == len(there.kept)


# Verifying


def test_verification_and_scrub_call_none_of_them_damaged_and_count_what_is_inexact(there: Adopted) -> None:
    recorder = FindingsRecorder(there.archive.catalog)
    for deep in (False, True):
        wanted = there.verification()
        looked = verify(wanted, recorder, deep=True) if deep else scrub(wanted, recorder, days=1)
        assert [found for found, _ in looked] == []
        assert wanted.checked.counts["messages"] == len(there.kept)
        assert wanted.checked.counts["inexact messages"] == sum(bool(one.form.caveats) for one in there.kept)


@pytest.mark.role("cleaner")  # who may put another in an object's place
def test_one_that_is_really_damaged_is_found_in_every_form(there: Adopted) -> None:
    for one in there.kept:
        body = bytearray(one.object.body)
        at = body.index(one.message.value or b"")
        body[at] ^= 1
        there.archive.store.delete([one.object.key])
        there.archive.store.create([NewObject(one.object.key, bytes(body))])
    found = [f for f, _ in verify(there.verification(), FindingsRecorder(there.archive.catalog), deep=True)]
    assert {(f.kind, f.uuid) for f in found} == {(Kind.CORRUPT_OBJECT, one.row.uuid) for one in there.kept}


# Getting them back


def restored(there: Adopted, cluster: MockCluster, folder: Path) -> dict[str, object]:
    wanted = Restoration(
        catalog=there.archive.catalog,
        store=there.archive.store,
        target=MockSource("there", cluster=cluster),
        request=Request(query=Query((there.topic,)), template="{topic}.again"),
        now=lambda: datetime.datetime.fromtimestamp(NOW_MS / 1000 + 3600, tz=datetime.UTC),
    )
    outcome = restore(wanted, patient(), folder)
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    topic: dict[str, object] = outcome.report["topics"][f"{there.topic}.again"]
    return topic


def test_all_are_restored_as_their_documents_have_them_and_the_report_says_what_is_inexact(
    there: Adopted, tmp_path: Path
) -> None:
    cluster = MockCluster(clock=lambda: NOW_MS, sleep=lambda _: None)
    report = restored(there, cluster, tmp_path)
    assert held(cluster, f"{there.topic}.again")[0] == [content(one.message) for one in there.kept]
    assert report["caveats"] == Counter(caveat for one in there.kept for caveat in one.form.caveats)


def test_all_are_rebuilt_into_an_empty_catalog(
    there: Adopted, request: pytest.FixtureRequest, namespace: str
) -> None:
    catalog = another_catalog(there, request, namespace)
    assert list(rebuild(Rebuild(catalog, there.archive.store))) == []
    found = {row.uuid: row for row in catalog.rows(there.topic)}
    assert found.keys() == {one.row.uuid for one in there.kept}
    for one in there.kept:
        said = found[one.row.uuid]
        described = one.row.annotations._replace(
            direct_upload="upload" in one.form.since, sender=said.annotations.sender
        )
        # Where the archiver's own _id took the place of all headers, nothing tells whose it is.
        is_client_uuid = one.row.is_client_uuid or not one.form.keeps_headers
        assert said == one.row._replace(annotations=described, is_client_uuid=is_client_uuid)
    assert list(rebuild(Rebuild(catalog, there.archive.store))) == []
    wanted = Verification(catalog, there.archive.store, grace_s=0)
    assert [found for found, _ in verify(wanted, FindingsRecorder(catalog), deep=True)] == []


# Taking them away, and taking none twice


@pytest.mark.role("cleaner")
def test_the_content_of_each_is_suppressed_for_good(there: Adopted) -> None:
    archive = there.archive
    uuids = [one.row.uuid for one in there.kept]
    assert suppress(Removing(archive.catalog, archive.store), uuids, "by order", grace_s=0).done == tuple(
        uuids
    )
    keys = {info.key for info in archive.store.listing()}
    assert not keys & {one.object.key for one in there.kept}
    for body in archive.store.fetch(Extent(key) for key in keys):
        document = decode(body)
        assert (document.suppressed, document.message.value, document.message.key) == ("by order", None, None)
    assert [
        found for found, _ in verify(there.verification(), FindingsRecorder(archive.catalog), deep=True)
    ] == []


def test_what_kafka_still_holds_of_them_is_not_archived_again(there: Adopted) -> None:
    archive = there.archive
    archive.source.create_topic(there.topic)
    # As they came, whatever the document lost of it since.
    originals = [_original(one) for one in there.kept]
    archive.source.publish(
        Sample(there.topic, m.key, m.value or b"", m.headers, m.timestamp_ms, 0, "filler") for m in originals
    )
    exhausted(catch_up(archive))
    assert [row for row in archive.catalog.rows(there.topic) if row.offset is not None] == []
    copies = {copy.offset: copy.uuid for _, copy in archive.catalog.duplicates(there.topic)}
    assert copies == {number: one.row.uuid for number, one in enumerate(there.kept)}


def _original(one: Kept) -> Message:
    headers = (("_id", one.row.uuid.bytes),) if one.row.is_client_uuid else ()
    return sample(one.row.timestamp_ms - sample(0).timestamp_ms, one.row.topic, headers)
