"""Publishing: what may be sent where, and what becomes of messages that a topic does not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hop_archive.devkit.publish import (
    Consent,
    default_topic,
    marked,
    publish_singly,
    ready_topic,
    refuse_unless_allowed,
)
from hop_archive.devkit.samples import Sample
from hop_archive.errors import (
    ConfigurationError,
    DataError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
)
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.mock.source import MockSource
from hop_archive.upkeep.verify.sent import read_sent

POLICY = TopicPolicy(test_topics=("*-test", "sys.test", "test.?"))


def sample(value: bytes, *headers: tuple[str, bytes | None], timestamp_ms: int | None = None) -> Sample:
    return Sample("t", None, value, headers, timestamp_ms, None, value.decode())


def refuse(topic: str, consent: Consent | None = None, **stanza: bool) -> None:
    whole = {"writable": True, "production": False, **stanza}
    refuse_unless_allowed("s", topic, POLICY, consent=consent or Consent(), **whole)


@pytest.mark.parametrize("topic", ["a-test", "sys.test", "test.x"])
@pytest.mark.parametrize("production", [False, True])
def test_a_test_topic_of_a_writable_source_is_allowed(topic: str, production: bool) -> None:
    refuse(topic, production=production)


def test_a_read_only_source_never_is() -> None:
    with pytest.raises(ForbiddenError, match="s is read-only"):
        refuse("sys.test", Consent("sys.test", production=True), writable=False)


def test_another_topic_has_to_be_named_twice() -> None:
    with pytest.raises(ForbiddenError, match=r"--not-a-test-topic gcn\.notices"):
        refuse("gcn.notices")
    with pytest.raises(ForbiddenError, match=r"--not-a-test-topic gcn\.notices"):
        refuse("gcn.notices", Consent("gcn.other"))
    refuse("gcn.notices", Consent("gcn.notices"))


def test_on_production_that_has_to_be_confirmed_too() -> None:
    with pytest.raises(ForbiddenError, match="--production"):
        refuse("gcn.notices", Consent("gcn.notices"), production=True)
    with pytest.raises(ForbiddenError, match="--not-a-test-topic"):
        refuse("gcn.notices", Consent(production=True), production=True)
    refuse("gcn.notices", Consent("gcn.notices", production=True), production=True)


def test_the_first_name_among_the_test_topics_is_the_default() -> None:
    assert default_topic(POLICY) == "sys.test"
    assert default_topic(TopicPolicy(test_topics=("*", "a[bc]"))) == ""


def test_a_message_is_marked_once_after_its_own_headers() -> None:
    own = sample(b"x", ("a", b"1"))
    assert marked(own).headers == (("a", b"1"), ("_test", b"true"))
    assert marked(marked(own)) == marked(own)
    assert marked(sample(b"x", ("_test", b""))).headers[1:] == (("_test", b"true"),)


def test_a_topic_is_made_only_if_that_is_wanted() -> None:
    source = MockSource()
    with pytest.raises(MissingSettingError, match="--create"):
        ready_topic(source, "t", create=False, partitions=3)
    assert source.topics() == {}
    assert ready_topic(source, "t", create=True, partitions=3).partitions == 3
    assert ready_topic(source, "t", create=True, partitions=5).partitions == 3
    assert ready_topic(source, "t", create=False, partitions=1).partitions == 3


class Picky(MockSource):
    """Answers messages with the errors that it was told."""

    errors: dict[bytes, HopArchiveError]

    def publish(self, messages: Any) -> Any:
        (message,) = messages
        if error := self.errors.get(message.value):
            raise error
        return super().publish([message])


def picky(**errors: HopArchiveError) -> Picky:
    source = Picky()
    source.create_topic("t")
    source.errors = {name.encode(): error for name, error in errors.items()}
    return source


def singly(source: MockSource, *values: bytes, record: Path | None = None) -> tuple[int, list[str]]:
    refused: list[str] = []
    portions = publish_singly(
        source,
        [sample(value) for value in values],
        sleep=lambda _: None,
        record=record,
        refused=lambda message, error: refused.append(f"{message.kind}: {error}"),
    )
    return sum(map(len, portions)), refused


def test_messages_that_the_topic_does_not_take_are_told_and_the_others_sent(tmp_path: Path) -> None:
    source = picky(b=ConfigurationError("too far ahead"), c=DataError("timestamp 0"))
    record = tmp_path / "sent.bson"
    sent, refused = singly(source, b"a", b"b", b"c", b"d", record=record)
    assert (sent, refused) == (2, ["b: too far ahead", "c: timestamp 0"])
    assert {one.value for one in read_sent(record).values()} == {b"a", b"d"}


@pytest.mark.parametrize("kind", [ForbiddenError, MissingSettingError, UnavailableError])
def test_what_is_wrong_with_more_than_the_message_ends_it(
    kind: type[HopArchiveError], tmp_path: Path
) -> None:
    record = tmp_path / "sent.bson"
    with pytest.raises(kind):
        singly(picky(b=kind("no")), b"a", b"b", b"c", record=record)
    assert {one.value for one in read_sent(record).values()} == {b"a"}


def test_a_rate_is_kept_for_single_messages_too() -> None:
    pauses: list[float] = []
    source = MockSource()
    source.create_topic("t")
    some = [sample(b"%d" % n) for n in range(4)]
    list(publish_singly(source, some, rate=8.0, sleep=pauses.append, refused=lambda *_: None))
    assert sum(pauses) == pytest.approx(0.5)
