"""Documents that archive-core, and archive-ingest before it, wrote, in the shape of ours. Pure.

docs/adopting.md has every form that they wrote, with its dates, and what is made of it. A document of our own never comes
this way.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from zlib_ng import zlib_ng

from hop_archive.model.annotations import Annotations, annotate
from hop_archive.model.identity import client_uuid

WRAPPED = "the payload is as hop-client wrote it anew ({}): Kafka may have carried other bytes"
TEXT_KEY = "the key was stored as text, and is given as its UTF-8 bytes"
TEXT_HEADER = "a header was stored as text, and is given as its UTF-8 bytes"
NO_KEY = "the key was not stored: whether there was one is not known"
NO_NOTES = "nothing was noted of it: headers may be missing, and its _id may be the archiver's"

_BARE = {"message", "metadata"}
_MADE_HEADER = {"key", "body"}


def in_our_shape(fields: Mapping[str, Any], under: uuid.UUID | None) -> tuple[dict[str, Any], list[str]]:
    """The fields of another archiver's document as ours would have them, but for the digest; and its caveats.

    What it does not say is computed where that can be done. ``under`` is the UUID under which it was read, which is its own
    where it has none inside.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is in no form that any version wrote.
    """
    value, metadata = fields["message"], {**fields["metadata"]}
    caveats, kinds = list[str](), list[tuple[str, bytes]]()
    if fields.keys() == _BARE and "offset" not in metadata:
        notes = dict[str, Any]()
        caveats.append(NO_NOTES)
    else:
        notes = {**fields["archiver_notes" if "archiver_notes" in fields else "annotations"]}
    if isinstance(value, dict):  # as hop-client's ``serialize`` returned it
        value, kind = value["content"], value["format"]
        kinds.append(("_format", kind.encode()))
        caveats.append(WRAPPED.format(kind))
    if "key" not in metadata:
        caveats.append(NO_KEY)
    key = metadata.get("key")
    if isinstance(key, str):
        caveats.append(TEXT_KEY)
        key = key.encode()
    headers, is_text = list[tuple[str, Any]](), False
    received = metadata["headers"]
    for pair in [] if received is None else received:
        if isinstance(pair, dict) and pair.keys() == _MADE_HEADER:
            continue  # the archiver put it there, with a UUID of its own
        name, content = pair
        if isinstance(content, str):
            is_text = True
            content = content.encode()
        headers.append((name, content))
    caveats += [TEXT_HEADER] if is_text else []
    given = client_uuid(headers)
    own = uuid.UUID(notes["con_text_uuid"]) if "con_text_uuid" in notes else given or under
    if own is None:
        raise ValueError("it says no UUID, and stands under none")
    if any(name not in notes for name in Annotations._fields):
        notes = {**annotate([*kinds, *headers], value)._asdict(), **notes}
    crc32 = notes.get("con_message_crc32", zlib_ng.crc32(value or b""))
    notes |= {
        "con_text_uuid": str(own),
        "con_is_client_uuid": notes.get("con_is_client_uuid", given == own),
        "con_message_crc32": _whole(crc32),
    }
    metadata |= {"key": key, "headers": headers, "timestamp": _whole(metadata["timestamp"])}
    return {"message": value, "metadata": metadata, "annotations": notes}, caveats


def _whole(number: object) -> object:
    """Some languages write every number as a floating one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
