"""What is made of readings: objects and rows, whatever is decided of their messages."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import DocumentPlace
from hop_archive.ingest.decide import decide
from hop_archive.ingest.read import Reading
from hop_archive.ingest.write import prepare, row_of
from hop_archive.model.annotations import annotate
from hop_archive.model.document import Document, encode
from hop_archive.model.message import Header, Message
from hop_archive.model.slices import Slice
from hop_archive.model.topics import Layout, LayoutPolicy, TopicPolicy
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive_tests.strategies import any_headers, messages

few_headers: st.SearchStrategy[tuple[Header, ...]] = st.one_of(
    st.just(()),
    st.sampled_from(range(3)).map(lambda n: (("_id", uuid.UUID(int=n).bytes), ("_format", b"blob"))),
)
groups = st.lists(
    st.one_of(messages(few_headers), messages(any_headers)).map(lambda m: m._replace(topic="t", partition=0)),
    max_size=8,
)


@given(groups, groups, st.sampled_from(["message", "segment"]), st.booleans())
def test_rows_and_objects_are_those_of_the_documents_that_were_decided(
    before: list[Message], now: list[Message], layout: Layout, private: bool
) -> None:
    archive = Archive(
        MockSource("source"),
        MockCatalog(),
        MockStore(),
        topics=TopicPolicy(private_topics=("t",) if private else ()),
        layouts=LayoutPolicy(layout),
    )
    numbered = [m._replace(offset=n) for n, m in enumerate(before + now)]
    held, asked = tuple(numbered[: len(before)]), tuple(numbered[len(before) :])
    if held:
        (prepared,) = prepare(archive, [Reading(Slice("t", 1, 0, 0, len(held)), held)])
        archive.catalog.commit(prepared.batch)
    new = [d for d in decide(asked, archive.catalog, archive.store) if d.duplicate_of is None]
    documents = [
        Document(
            d.message,
            d.identity.uuid,
            d.identity.is_client_uuid,
            d.identity.digest,
            d.identity.message_crc32,
            annotate(d.message.headers, d.message.value, public=not private),
        )
        for d in new
    ]
    (made,) = prepare(archive, [Reading(Slice("t", 1, 0, len(held), len(numbered) + 1), asked)])
    places = [DocumentPlace(row.object_key, row.position) for row in made.batch.rows]
    bodies = [encode(document) for document in documents]
    assert made.batch.rows == [
        row_of(1, archive.store.bucket, *parts) for parts in zip(documents, bodies, places, strict=True)
    ]
    stored = {new.key: new.body for new in made.objects}
    for place, body in zip(places, bodies, strict=True):
        start = place.position or 0
        assert stored[place.object_key][start : start + len(body)] == body
