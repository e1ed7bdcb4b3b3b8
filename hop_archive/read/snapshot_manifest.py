"""The manifest of a catalog snapshot: what it names, and whether it is as it was written. Pure.

A manifest carries a SHA-256 of itself, and of what it says of each topic; Parquet files have theirs in it. So one bit that
flipped anywhere is noticed before anything of it is used, and costs the topic that it is about. Manifests of before
that (``WITHOUT_DIGEST``) are read: of them the types are checked, and that is all.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hop_archive.model.slices import OffsetSet
from hop_archive.model.watermarks import Watermarks

FORMAT = "hop_archive catalog snapshot 2"
"""What the manifest says of its own form."""

WITHOUT_DIGEST = "hop_archive catalog snapshot 1"
"""What manifests said that carry no digest (until 2026-11)."""


def _is_moment(text: str) -> str:
    if datetime.datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


def _taken_by(make: Callable[[Any], object]) -> AfterValidator:
    """Lets pass what ``make`` makes something of: of the right types, it may still be none of these."""

    def validate(value: Any) -> Any:
        make(value)
        return value

    return AfterValidator(validate)


_Int32 = Annotated[int, Field(ge=0, lt=2**31)]
_Int64 = Annotated[int, Field(ge=0, lt=2**63)]
_Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Moment = Annotated[str, AfterValidator(_is_moment)]
_STRICT = ConfigDict(strict=True, extra="ignore")


class _Part(BaseModel):
    model_config = _STRICT


class _File(_Part):
    path: Annotated[
        str,
        Field(
            pattern=r"^(messages|ledger|duplicates)/topic=[A-Za-z0-9._%~-]+/(month=[0-9-]+/)?part-[0-9]{8}-[0-9]{5}\.parquet$"
        ),
    ]
    kind: Literal["messages", "ledger", "duplicates"]
    rows: _Int64
    bytes: _Int64
    sha256: _Sha256


class _Generation(_Part):
    topic: _Text
    number: Annotated[int, Field(ge=1, lt=2**31)]
    cluster_id: _Text
    topic_id: _Text | None
    detected_at: _Moment
    reason: _Text


class _TopicState(_Part):
    archived: list[tuple[_Int32, _Int32, Annotated[list[tuple[_Int64, _Int64]], _taken_by(OffsetSet.of)]]]
    counts: tuple[_Int64, _Int64]
    others: list[tuple[str, str, str]]
    generations: list[tuple[_Int32, _Text, _Text | None]]
    retracted: _Sha256
    adopted: int


class _TopicPart(_Part):
    messages: _Int64
    whole_at: _Moment
    state: _TopicState
    generations: list[_Generation]
    collisions: list[tuple[_Int32, _Int32, _Int64, UUID, UUID]]
    files: list[_File]
    observed: list[
        Annotated[
            tuple[_Int32, _Int32, _Int64, _Int64, _Int64],
            _taken_by(lambda observed: Watermarks(*observed[2:])),
        ]
    ] = []


class _Setup(_Part):
    cluster_id: _Text
    kind: Literal["topic", "group"]
    name: _Text
    content: dict[str, Any]
    taken_at: _Moment


_TOPIC = TypeAdapter(_TopicPart)
_SETUPS = TypeAdapter(list[_Setup], config=_STRICT)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says, of all that proved itself.

    Attributes:
        topics: By name, what it says of each topic.
        setups: How the source's topics and groups were set up: what the catalog calls snapshots.
        damaged: Topics of which it is not as it was written, with what is wrong.
        problem: What is wrong with the manifest itself, or a part that is of no topic; '' for nothing.
        is_foreign: Whether it says that it is something else, or of a later version of this program.
    """

    topics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    setups: tuple[Mapping[str, Any], ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    has_digest: bool = True
    is_foreign: bool = False


def sealed(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a manifest with its digest, which is of its name, too.

    Args:
        name: The topic's; '' for the manifest as a whole.
        part: What is to be sealed; a digest that it has is made anew.
    """
    bare = {key: value for key, value in part.items() if key != "digest"}
    text = json.dumps([name, bare], sort_keys=True, separators=(",", ":"))
    return {**bare, "digest": hashlib.sha256(text.encode()).hexdigest()}


def _is_sealed(name: str, part: object) -> bool:
    try:
        return isinstance(part, dict) and part == sealed(name, part)
    except RecursionError:  # nested deeper than anything that this program writes
        return False


def read(text: bytes) -> Manifest:
    """What a manifest says, and what of it is not as it was written. Raises nothing, whatever the bytes are."""
    try:
        found = json.loads(text)
        form, topics = found["manifest"], found["topics"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Manifest(problem=f"it is no catalog snapshot's manifest, or damaged: {error}")
    if form not in (FORMAT, WITHOUT_DIGEST) or not isinstance(topics, dict):
        shown = repr(form) if isinstance(form, str) else "something else"
        return Manifest(
            problem=f"it is no catalog snapshot's: wanted {FORMAT!r}, found {shown}", is_foreign=True
        )
    has_digest = form == FORMAT
    problem = ""
    if has_digest and not _is_sealed("", found):
        problem = "it is not as it was written: its digest is another"
    whole, damaged = dict[str, Mapping[str, Any]](), dict[str, str]()
    for topic, part in topics.items():
        if has_digest and not _is_sealed(topic, part):
            damaged[topic] = "what the manifest says of it is not as it was written: its digest is another"
        elif why := _why_not(_TOPIC, part):
            damaged[topic] = f"what the manifest says of it cannot be: {why}"
        else:
            whole[topic] = part
    setups, of_setups = found.get("setups"), "what it says of how topics and groups were set up"
    kept: tuple[Mapping[str, Any], ...] = ()
    if setups is not None:
        if not isinstance(setups, dict) or (has_digest and not _is_sealed("setups", setups)):
            problem = problem or f"{of_setups} is not as it was written"
        elif why := _why_not(_SETUPS, setups.get("of")):
            problem = problem or f"{of_setups} cannot be: {why}"
        else:
            kept = tuple(setups["of"])
    return Manifest(whole, kept, damaged, problem, has_digest)


def _why_not(shape: TypeAdapter[Any], part: object) -> str:
    """Why this cannot be what a snapshot wrote; '' where it can."""
    try:
        shape.validate_json(json.dumps(part))
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_context=False, include_input=False)
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except RecursionError:
        return "it is nested too deep"
    return ""
