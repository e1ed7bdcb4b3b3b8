from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Row
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import UnavailableError
from hop_archive.ingest.decide import Decided, Decision
from hop_archive.ingest.decide import decide as decide_with_store
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.identity import Identity, candidates, identify
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive.model.slices import Slice
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject

U = uuid.UUID("00112233-4455-4677-8899-aabbccddeeff")
V = uuid.UUID("ffeeddcc-bbaa-4988-8766-554433221100")
W = uuid.UUID(int=7)


def sent(value: bytes | None = b"v", own: uuid.UUID | None = None, topic: str = "gcn") -> Message:
    headers: tuple[Header, ...] = (("_id", own.bytes),) if own else ()
    return Message(topic, 0, 0, 1_000, TimestampType.CREATE, None, value, headers)


def decide(
    messages: Sequence[Message], catalog: MockCatalog, expected: Iterable[Identity] = ()
) -> list[Decision]:
    """What is decided where the store has nothing that would tell more than the catalog."""
    return decide_with_store(messages, catalog, MockStore(), expected)


def row(message: Message, own: uuid.UUID, *, is_client: bool, digest: bytes | None) -> Row:
    """A row of this message; one that another archiver wrote, where there is no digest."""
    ours = digest is not None
    return Row(
        message.topic,
        1 if ours else None,
        message.partition if ours else None,
        message.offset if ours else None,
        message.timestamp_ms,
        message.timestamp_type if ours else None,
        own,
        is_client,
        digest,
        object_key="key",
        bucket="bucket",
        position=None,
        size_bytes=1,
        crc32=0,
        message_crc32=crc32(message.value),
        annotations=Annotations(),
    )


def adopted(message: Message, own: uuid.UUID, *, is_client: bool) -> Row:
    return row(message, own, is_client=is_client, digest=None)


def keep(catalog: MockCatalog, decisions: Sequence[Decision]) -> None:
    """Commit what was decided to be new, each message at an offset of its own."""
    for decision in decisions:
        if decision.duplicate_of is not None:
            continue
        topic, own = decision.message.topic, decision.identity
        at = sum(entry.slice.topic == topic for entry in catalog.ledger())
        stored = row(
            decision.message._replace(offset=at), own.uuid, is_client=own.is_client_uuid, digest=own.digest
        )
        catalog.commit(Batch(Slice(topic, 1, 0, at, at + 1), rows=[stored]))


def holding(*messages: Message) -> MockCatalog:
    catalog = MockCatalog()
    keep(catalog, decide(messages, catalog))
    return catalog


def adopting(*rows: Row) -> MockCatalog:
    catalog = MockCatalog()
    catalog.adopt(rows)
    return catalog


def derived(message: Message, attempt: int = 0) -> uuid.UUID:
    """The UUID that the archive gives a message whose publisher's it can't use."""
    attempts = candidates(identify(message))
    ours = (candidate.uuid for candidate in attempts if not candidate.is_client_uuid)
    return next(itertools.islice(ours, attempt, None))


def verdicts(decisions: Sequence[Decision]) -> list[tuple[uuid.UUID, uuid.UUID | None, uuid.UUID | None]]:
    return [(d.identity.uuid, d.duplicate_of, d.collided_with) for d in decisions]


def test_nothing_to_decide_gives_nothing() -> None:
    assert decide([], MockCatalog()) == []


def test_a_new_message_is_archived_under_its_publishers_uuid() -> None:
    (found,) = decide([sent(own=U)], MockCatalog())
    assert verdicts([found]) == [(U, None, None)]
    assert found.identity.is_client_uuid
    assert found.reason == ""


def test_a_new_message_without_one_is_archived_under_a_derived_uuid_which_is_no_collision() -> None:
    (found,) = decide([sent()], MockCatalog())
    assert verdicts([found]) == [(derived(sent()), None, None)]
    assert not found.identity.is_client_uuid


@pytest.mark.parametrize("own", [U, None])
def test_of_two_copies_in_one_batch_the_first_is_archived_and_the_second_its_duplicate(
    own: uuid.UUID | None,
) -> None:
    first, second, third = decide([sent(own=own), sent(b"other"), sent(own=own)], MockCatalog())
    assert first.duplicate_of is None
    assert second.duplicate_of is None
    assert third.duplicate_of == first.identity.uuid
    assert third.reason == "same UUID and digest"


@pytest.mark.parametrize("own", [U, None])
def test_a_copy_of_what_the_catalog_holds_is_a_duplicate(own: uuid.UUID | None) -> None:
    (found,) = decide([sent(own=own)], holding(sent(own=own)))
    assert found.duplicate_of == (own or derived(sent()))


@pytest.mark.parametrize("own", [U, None])
def test_a_copy_of_what_is_expected_but_not_committed_is_a_duplicate(own: uuid.UUID | None) -> None:
    expected = [d.identity for d in decide([sent(own=own)], MockCatalog())]
    (found,) = decide([sent(own=own)], MockCatalog(), expected)
    assert found.duplicate_of == expected[0].uuid


def test_other_content_under_a_used_uuid_is_archived_under_a_derived_one() -> None:
    (found,) = decide([sent(b"new", U)], holding(sent(b"old", U)))
    assert verdicts([found]) == [(derived(sent(b"new", U)), None, U)]
    assert not found.identity.is_client_uuid
    assert found.message.headers == (("_id", U.bytes),)


def test_a_collision_within_a_batch_is_seen_too() -> None:
    first, second = decide([sent(b"old", U), sent(b"new", U)], MockCatalog())
    assert verdicts([first, second]) == [(U, None, None), (derived(sent(b"new", U)), None, U)]


def test_a_collision_delivered_again_is_a_duplicate_of_what_it_was_archived_as() -> None:
    collided = derived(sent(b"new", U))
    in_batch = decide([sent(b"old", U), sent(b"new", U), sent(b"new", U)], MockCatalog())[2]
    later = decide([sent(b"new", U)], holding(sent(b"old", U), sent(b"new", U)))[0]
    assert in_batch.duplicate_of == later.duplicate_of == collided


def test_the_message_that_came_first_stays_known_after_a_collision() -> None:
    (found,) = decide([sent(b"old", U)], holding(sent(b"old", U), sent(b"new", U)))
    assert found.duplicate_of == U


def test_three_contents_under_one_uuid_are_three_messages() -> None:
    found = decide([sent(b"1", U), sent(b"2", U), sent(b"3", U)], MockCatalog())
    assert len({d.identity.uuid for d in found}) == 3
    assert [d.collided_with for d in found] == [None, U, U]


def test_a_uuid_used_in_another_topic_is_a_collision_even_with_the_same_content() -> None:
    (found,) = decide([sent(own=U, topic="lvk")], holding(sent(own=U, topic="gcn")))
    assert verdicts([found]) == [(derived(sent(own=U, topic="lvk")), None, U)]


def test_cross_posted_messages_in_one_batch_are_archived_in_both_topics() -> None:
    first, second = decide([sent(own=U, topic="gcn"), sent(own=U, topic="lvk")], MockCatalog())
    assert first.duplicate_of is None
    assert second.duplicate_of is None
    assert first.identity.uuid != second.identity.uuid


def test_a_cross_posted_message_delivered_again_is_a_duplicate_within_its_topic() -> None:
    catalog = holding(sent(own=U, topic="gcn"), sent(own=U, topic="lvk"))
    (found,) = decide([sent(own=U, topic="lvk")], catalog)
    assert found.duplicate_of == derived(sent(own=U, topic="lvk"))


@pytest.mark.parametrize("victim", [sent(b"plain"), sent(b"new", U)])
def test_a_publisher_who_uses_the_uuid_that_the_archive_would_derive_displaces_no_message(
    victim: Message,
) -> None:
    catalog = holding(sent(b"old", U), sent(b"evil", derived(victim)))
    (found,) = decide([victim], catalog)
    assert found.duplicate_of is None
    assert found.identity.uuid == derived(victim, attempt=1)
    assert found.collided_with == (U if victim.headers else None)
    keep(catalog, [found])
    assert decide([victim], catalog)[0].duplicate_of == derived(victim, attempt=1)


def test_a_copy_of_an_adopted_row_with_its_uuid_is_a_duplicate() -> None:
    (found,) = decide([sent(own=U)], adopting(adopted(sent(), U, is_client=True)))
    assert found.duplicate_of == U
    assert found.reason == "same timestamp and CRC-32"


def test_a_copy_of_an_adopted_row_that_got_a_random_uuid_is_a_duplicate() -> None:
    (found,) = decide([sent()], adopting(adopted(sent(), W, is_client=False)))
    assert found.duplicate_of == W


def test_each_copy_of_an_adopted_row_is_its_duplicate() -> None:
    found = decide([sent(), sent()], adopting(adopted(sent(), W, is_client=False)))
    assert [d.duplicate_of for d in found] == [W, W]


@pytest.mark.parametrize("change", [{"value": b"w"}, {"timestamp_ms": 2_000}, {"topic": "lvk"}])
def test_an_adopted_row_of_another_value_time_or_topic_is_another_message(change: dict[str, bytes]) -> None:
    message = sent()._replace(**change)  # type: ignore[arg-type]  # (the names are data)
    (found,) = decide([message], adopting(adopted(sent(), W, is_client=False)))
    assert found.duplicate_of is None


def test_other_content_under_the_uuid_of_an_adopted_row_is_a_collision() -> None:
    (found,) = decide([sent(b"new", U)], adopting(adopted(sent(b"old"), U, is_client=True)))
    assert verdicts([found]) == [(derived(sent(b"new", U)), None, U)]


def test_a_payload_sent_twice_in_a_millisecond_under_two_uuids_is_two_messages() -> None:
    (found,) = decide([sent(own=V)], adopting(adopted(sent(), U, is_client=True)))
    assert verdicts([found]) == [(V, None, None)]


def test_nor_is_it_one_where_the_second_uuid_is_in_use_by_other_content() -> None:
    catalog = adopting(adopted(sent(), U, is_client=True))
    keep(catalog, decide([sent(b"other", V)], catalog))
    (found,) = decide([sent(own=V)], catalog)
    assert verdicts([found]) == [(derived(sent(own=V)), None, V)]


def test_while_the_store_does_not_answer_nothing_is_decided_on_what_it_would_tell() -> None:
    catalog = adopting(adopted(sent(b""), W, is_client=False))
    down = Faults((Fault(1, When.BEFORE, fail),)).wrap(MockStore(), "store")
    with pytest.raises(UnavailableError):
        decide_with_store([sent(b"")], catalog, down)
    assert decide_with_store([sent(b"x")], catalog, down)[0].duplicate_of is None


def test_a_message_without_content_is_no_copy_of_one_whose_content_was_suppressed() -> None:
    store = MockStore()
    message = sent(None)
    tombstone = encode(Document(message, W, False, b"", 0, suppressed="by law"))
    store.create([NewObject("key", tombstone)])
    row = adopted(message, W, is_client=False)._replace(size_bytes=len(tombstone), crc32=crc32(tombstone))
    (found,) = decide_with_store([message], adopting(row), store)
    assert found.duplicate_of is None


@pytest.mark.parametrize("uuids", list(itertools.permutations([U, V, W])))
def test_which_adopted_row_a_message_copies_does_not_hang_on_the_order_of_rows(
    uuids: tuple[uuid.UUID, ...],
) -> None:
    """W came without a publisher's UUID, so the message under a fourth one may be its copy, but not U's or V's."""
    catalog = adopting(*(adopted(sent(), own, is_client=own != W) for own in uuids))
    (found,) = decide([sent(own=uuid.UUID(int=9))], catalog)
    assert found.duplicate_of == W


small = st.builds(
    lambda value, key, headers, topic, timestamp_ms: Message(
        topic, 0, 0, timestamp_ms, TimestampType.CREATE, key, value, headers
    ),
    st.sampled_from([b"x", b"y", b"", None]),
    st.sampled_from([None, b""]),
    st.sampled_from(
        [
            (),
            (("_id", None),),
            (("_id", b"text"),),
            (("_id", U.bytes),),
            (("_id", V.bytes),),
            (("_id", V.bytes), ("_id", U.bytes)),
            (("_id", derived(sent(b"x", topic="a")).bytes),),
        ]
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from([1_000, 2_000]),
)
batches = st.lists(small, max_size=8)


def same_content(one: Message, other: Message) -> bool:
    return (one.topic, one.key, one.value, one.headers) == (
        other.topic,
        other.key,
        other.value,
        other.headers,
    )


@given(batches, batches)
def test_every_uuid_is_given_once_and_every_duplicate_names_its_equal(
    before: list[Message], now: list[Message]
) -> None:
    catalog = MockCatalog()
    earlier = decide(before, catalog)
    keep(catalog, earlier)
    archived = {d.identity.uuid: d.message for d in earlier if d.duplicate_of is None}
    for decision in decide(now, catalog):
        if decision.duplicate_of is None:
            assert decision.identity.uuid not in archived
            archived[decision.identity.uuid] = decision.message
        else:
            assert same_content(archived[decision.duplicate_of], decision.message)


@given(batches)
def test_what_was_archived_is_all_duplicate_the_next_time(messages: list[Message]) -> None:
    catalog = MockCatalog()
    first = decide(messages, catalog)
    keep(catalog, first)
    again = decide(messages, catalog)
    assert [d.duplicate_of for d in again] == [d.duplicate_of or d.identity.uuid for d in first]


@given(batches, batches)
def test_it_makes_no_difference_how_messages_are_cut_into_batches(
    first: list[Message], second: list[Message]
) -> None:
    together = decide([*first, *second], MockCatalog())
    catalog = MockCatalog()
    earlier = decide(first, catalog)
    expected = [d.identity for d in earlier if d.duplicate_of is None]
    while_in_flight = decide(second, catalog, expected)
    keep(catalog, earlier)
    committed = decide(second, catalog)
    assert verdicts(together) == verdicts([*earlier, *committed])
    assert verdicts(while_in_flight) == verdicts(committed)


@given(batches)
def test_a_message_without_an_equal_is_archived_and_with_a_uuid_of_its_own_under_that(
    messages: list[Message],
) -> None:
    for place, decision in enumerate(decide(messages, MockCatalog())):
        earlier = messages[:place]
        if not any(same_content(m, decision.message) for m in earlier):
            assert decision.duplicate_of is None
        if decision.collided_with is None and decision.duplicate_of is None:
            own = identify(decision.message)
            assert decision.identity.uuid == own.uuid or not own.is_client_uuid


# --- asked in rounds, decided as if one by one

VICTIMS = (sent(b"x", topic="a"), sent(b"y", U, topic="a"))
"""Messages whose derived UUIDs other publishers use: they need one after another."""

clashing = st.builds(
    lambda value, own: sent(value, own, topic="a"),
    st.sampled_from([b"x", b"y", b"", None]),
    st.sampled_from([None, U, V, *(derived(victim, n) for victim in VICTIMS for n in range(4))]),
)
clashes = st.lists(st.one_of(clashing, small), max_size=12)


def one_by_one(
    messages: Sequence[Message], catalog: MockCatalog, expected: Sequence[Identity]
) -> list[Decision]:
    """What is to be decided, with a question to the catalog for each UUID when its turn comes."""
    identities = [identify(m) for m in messages]
    decided = Decided()
    decided.learn(catalog.known(identities))
    for identity in expected:
        decided.expect(identity)
    decisions: list[Decision] = []
    for message, identity in zip(messages, identities, strict=True):
        for own in candidates(identity):
            if own is not identity:
                decided.learn(catalog.known([own]))
            copy = decided.copy_of(own) if own is identity else decided.copy_under(own)
            if copy is not None or decided.holder(own.uuid) is None:
                break
        if copy is not None:
            reason = "same UUID and digest" if copy.digest is not None else "same timestamp and CRC-32"
            decisions.append(Decision(message, own, copy.uuid, reason))
        else:
            decided.expect(own)
            collided = identity.is_client_uuid and own is not identity
            decisions.append(Decision(message, own, collided_with=identity.uuid if collided else None))
    return decisions


@given(clashes, clashes, clashes, st.lists(clashing, max_size=4))
def test_what_is_decided_in_rounds_is_what_would_be_decided_one_by_one(
    before: list[Message], in_flight: list[Message], now: list[Message], foreign: list[Message]
) -> None:
    catalog = adopting(
        *(adopted(m, uuid.UUID(int=9 + n), is_client=bool(n % 2)) for n, m in enumerate(foreign))
    )
    keep(catalog, decide(before, catalog))
    expected = [d.identity for d in decide(in_flight, catalog) if d.duplicate_of is None]
    assert decide(now, catalog, expected) == one_by_one(now, catalog, expected)


def test_collisions_cost_a_question_a_group_and_long_chains_of_them_few() -> None:
    victim = sent(b"new", U)
    catalog = holding(
        *(sent(b"old %d" % n, uuid.UUID(int=n)) for n in range(500)),
        sent(b"old", U),
        *(sent(b"evil %d" % n, derived(victim, n)) for n in range(60)),
    )
    group, chain = Faults(), Faults()
    found = decide(
        [sent(b"new %d" % n, uuid.UUID(int=n)) for n in range(500)], group.wrap(catalog, "catalog")
    )
    assert sum(d.collided_with is not None for d in found) == 500
    assert group.calls == ["catalog.known"] * 2
    assert decide([victim], chain.wrap(catalog, "catalog"))[0].identity.uuid == derived(victim, 60)
    assert len(chain.calls) == 7
