"""Documents in every form that archive-ingest and archive-core wrote, and rows and objects of them. All of our own making.

The forms and their dates are those of docs/adopting.md, which has what is made of each.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson.binary import Binary
from bson.int64 import Int64

from hop_archive.catalog.records import Row
from hop_archive.model import adopted
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import crc32
from hop_archive.model.identity import client_uuid
from hop_archive.model.keys import object_key
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive.store.protocol import NewObject

NOW_MS = 1_700_000_000_000
JSON_WRAPPED = adopted.WRAPPED.format("json")
TOPIC = "gcn.old"

Fields = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One form of a document.

    Attributes:
        since: When it was first written, or what else it is called.
        fields: What it holds of a message that is archived under a UUID.
        caveats: In what it is not exact.
        keeps_headers: Whether the headers that were received are in it.
        keeps_key: Whether the key is.
        last: How its key ends, of a UUID.
    """

    since: str
    fields: Callable[[Message, uuid.UUID], Fields]
    caveats: tuple[str, ...] = ()
    keeps_headers: bool = True
    keeps_key: bool = True
    last: Callable[[uuid.UUID], object] = str

    def __str__(self) -> str:
        return self.since

    def kept(self, message: Message, own: uuid.UUID) -> Message:
        """The message as the document has it."""
        headers = message.headers if self.keeps_headers else (("_id", own.bytes),)
        key = message.key if self.keeps_key else None
        return message._replace(partition=-1, offset=-1, headers=headers, key=key, leader_epoch=None)


def wrapped(message: Message, **_: object) -> Fields:
    return {"format": "json", "content": message.value}


def metadata(message: Message, headers: Sequence[object] | None, **more: object) -> Fields:
    return {"timestamp": Int64(message.timestamp_ms), "headers": headers, "topic": message.topic, **more}


def pairs(message: Message) -> list[list[str | bytes | None]]:
    return [list(pair) for pair in message.headers]


def notes(message: Message, own: uuid.UUID, **more: object) -> Fields:
    is_client_uuid = client_uuid(message.headers) == own
    return {"con_text_uuid": str(own), "con_is_client_uuid": is_client_uuid, **more}


def made_header(message: Message, own: uuid.UUID) -> Fields:
    made = {"key": "uuid", "body": uuid.uuid5(own, "another").urn}
    return {"message": message.value, "metadata": metadata(message, [*pairs(message), made])}


def id_alone(message: Message, own: uuid.UUID) -> Fields:
    return {"message": wrapped(message), "metadata": metadata(message, [["_id", own.bytes]])}


def without_notes(message: Message, own: uuid.UUID) -> Fields:
    return {"message": wrapped(message), "metadata": metadata(message, pairs(message))}


def archiver_notes(message: Message, own: uuid.UUID) -> Fields:
    return {**without_notes(message, own), "archiver_notes": notes(message, own)}


def with_annotations(message: Message, own: uuid.UUID) -> Fields:
    found = notes(message, own, con_message_crc32=crc32(message.value), duplicate=False)
    return {**without_notes(message, own), "annotations": found}


def null_headers(message: Message, own: uuid.UUID) -> Fields:
    return {**with_annotations(message, own), "metadata": metadata(message, pairs(message) or None)}


def with_key(message: Message, own: uuid.UUID) -> Fields:
    found = null_headers(message, own)
    found["annotations"] |= {"public": True, "direct_upload": False}
    at = found["metadata"]
    return {
        **found,
        "metadata": {
            "timestamp": at["timestamp"],
            "headers": at["headers"],
            "key": message.key,
            "topic": at["topic"],
        },
    }


def plain_payload(message: Message, own: uuid.UUID) -> Fields:
    return {**with_key(message, own), "message": message.value}


def described(message: Message, own: uuid.UUID) -> Fields:
    found = plain_payload(message, own)
    del found["annotations"]["duplicate"]
    texts = {"media_type": "application/json", "title": "", "sender": "", "file_name": ""}
    found["annotations"] |= {**texts, "text_fully_indexed": True}
    return found


def newest(message: Message, own: uuid.UUID) -> Fields:
    found = described(message, own)
    found["annotations"] |= {"originator": ""}
    return found


def text_key(message: Message, own: uuid.UUID) -> Fields:
    found = newest(message, own)
    found["annotations"] |= {"direct_upload": True}
    found["metadata"] |= {"key": (message.key or b"").decode()}
    return found


def text_headers(message: Message, own: uuid.UUID) -> Fields:
    found = newest(message, own)
    headers = [[n, v if v is None or n == "_id" else v.decode()] for n, v in message.headers]
    found["metadata"] |= {"headers": headers}
    return found


def by_another_library(message: Message, own: uuid.UUID) -> Fields:
    """Numbers of other widths, binary values of other subtypes, and the fields of each part in another order."""
    found = newest(message, own)
    at, said = found["metadata"], found["annotations"]
    at |= {
        "timestamp": float(message.timestamp_ms),
        "headers": [[n, v and Binary(v, 128)] for n, v in message.headers],
    }
    said |= {"con_message_crc32": float(crc32(message.value)), "con_text_uuid": str(own).upper()}
    return {
        "annotations": dict(reversed(said.items())),
        "metadata": dict(reversed(at.items())),
        "message": message.value and Binary(message.value, 2),
    }


OLD = (JSON_WRAPPED, adopted.NO_KEY)
FORMS = (
    Form("2022-11-28 made header", made_header, (adopted.NO_NOTES, adopted.NO_KEY), keeps_key=False,
         last=lambda own: own.urn),
    Form("2022-11-29 bytes in the key", id_alone, (adopted.NO_NOTES, *OLD), keeps_headers=False, keeps_key=False,
         last=lambda own: own.bytes),
    Form("2022-11-30 _id alone", id_alone, (adopted.NO_NOTES, *OLD), keeps_headers=False, keeps_key=False),
    Form("2022-12-22 without notes", without_notes, (adopted.NO_NOTES, *OLD), keeps_key=False),
    Form("2023-01-17 archiver_notes", archiver_notes, OLD, keeps_key=False),
    Form("2023-01-19 annotations", with_annotations, OLD, keeps_key=False),
    Form("2023-08-16 headers null", null_headers, OLD, keeps_key=False),
    Form("2023-11-03 key", with_key, (JSON_WRAPPED,)),
    Form("2023-11-30 plain payload", plain_payload),
    Form("2026-02-13 described", described),
    Form("2026-04-23 originator", newest),
    Form("direct upload with a text key", text_key, (adopted.TEXT_KEY,)),
    Form("text headers", text_headers, (adopted.TEXT_HEADER,)),
    Form("another library", by_another_library),
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A message in one form: its row and object, and what has to come of it."""

    form: Form
    row: Row
    object: NewObject
    message: Message


def kept(form: Form, message: Message, bucket: str, own: uuid.UUID | None = None) -> Kept:
    """The row and the object that were made of a message: under a UUID by chance, if its publisher gave none."""
    given = client_uuid(message.headers)
    own = own or given or uuid.uuid4()
    body = bson.encode(form.fields(message, own))
    key = object_key(message.topic, message.timestamp_ms, own).replace(str(own), str(form.last(own)))
    row = Row(
        topic=message.topic,
        generation=None,
        partition=None,
        offset=None,
        timestamp_ms=message.timestamp_ms,
        timestamp_type=None,
        uuid=own,
        is_client_uuid=given == own,
        digest=None,
        object_key=key,
        bucket=bucket,
        position=None,
        size_bytes=len(body),
        crc32=crc32(body),
        message_crc32=crc32(message.value),
        annotations=Annotations(media_type="application/json"),
    )
    return Kept(form, row, NewObject(key, body), form.kept(message, own))


def sample(number: int, topic: str = TOPIC, headers: tuple[Header, ...] = ()) -> Message:
    """A message of which every form can be made: its key is text, its payload JSON."""
    value = json.dumps({"number": number, "of": topic}).encode()
    return Message(
        topic, 0, number, NOW_MS + number, TimestampType.CREATE, b"key %d" % number, value, headers
    )


def every_form(bucket: str, topic: str = TOPIC) -> list[Kept]:
    """A message in each form with a UUID of its publisher's and other headers, and one without any header."""
    found: list[Kept] = []
    for form in FORMS:
        number = len(found)
        own, other = (_uuid(topic, n) for n in (number, number + 1))
        headers = (("_sender", b"somebody"), ("_id", own.bytes), ("a", None), ("a", b""))
        found.append(kept(form, sample(number, topic, headers), bucket))
        if form is not FORMS[-2]:  # which is about headers
            found.append(kept(form, sample(number + 1, topic), bucket, other))
    return found


def _uuid(topic: str, number: int) -> uuid.UUID:
    """The same each time; its bytes are text, since SeaweedFS has no backslash in a key."""
    return uuid.UUID(bytes=f"{topic}{number:02}".rjust(16, "~")[-16:].encode())
