"""A bucket's condition, asked of an S3 API."""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hop_archive.model.conditions import StoreCondition
from hop_archive.model.wording import said

_OFF = frozenset(
    {
        "ReplicationConfigurationNotFoundError",
        "NoSuchReplicationConfiguration",
        "NoSuchLifecycleConfiguration",
    }
)

FROZEN_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects are not read before they were restored; those of GLACIER_IR are."""


def ask_condition(client: Any, bucket: str, prefix: str = "") -> StoreCondition:
    """Ask a boto3 client for the condition of an existing bucket. What may not be seen is None, with the reason.

    Rules of its lifecycle count where they are of keys that begin with ``prefix``.
    """
    versioning, why_not, metadata = _asked(client.get_bucket_versioning, bucket)
    replication, why_neither, _ = _asked(client.get_bucket_replication, bucket)
    lifecycle, _, _ = _asked(client.get_bucket_lifecycle_configuration, bucket)
    status = (versioning or {}).get("Status")
    rules = (replication or {}).get("ReplicationConfiguration", {}).get("Rules", [])
    date = metadata.get("HTTPHeaders", {}).get("date", "")
    try:
        at = email.utils.parsedate_to_datetime(date) if date else None
    except ValueError:
        at = None
    return StoreCondition(
        at=at,
        versioning=None if versioning is None else status == "Enabled",
        replication=None if replication is None else any(rule.get("Status") == "Enabled" for rule in rules),
        why_unknown=why_not or why_neither,
        has_old_versions=None if versioning is None else status is not None,
        lifecycle=None if lifecycle is None else tuple(_taking_away(lifecycle.get("Rules", []), prefix)),
    )


def _taking_away(rules: Any, prefix: str) -> Iterator[str]:
    """What rules do with objects under the prefix that takes them out of reach, in words; of old versions they may do what they like.

    A rule for objects with tags is none for the archive's, which have none.
    """
    for rule in rules:
        chosen = rule.get("Filter", {})
        both = chosen.get("And", {})
        begin = both.get("Prefix") or chosen.get("Prefix") or rule.get("Prefix") or ""
        is_tagged = "Tag" in chosen or bool(both.get("Tags"))
        overlaps = begin.startswith(prefix) or prefix.startswith(begin)
        if rule.get("Status") != "Enabled" or is_tagged or not overlaps:
            continue
        name = f"rule {said(str(rule.get('ID') or '?'))}"
        where = f" under {said(begin)}" if begin else ""
        expiration = rule.get("Expiration", {})
        if "Days" in expiration or "Date" in expiration:
            yield f"{name} deletes objects{where} {_when(expiration)}"
        for transition in rule.get("Transitions", []):
            if transition.get("StorageClass") in FROZEN_CLASSES:
                yield f"{name} moves objects{where} to {transition['StorageClass']} {_when(transition)}"


def _when(deed: Mapping[str, Any]) -> str:
    return f"after {deed['Days']} days" if "Days" in deed else f"on {deed.get('Date', '?')}"


def _asked(call: Callable[..., Any], bucket: str) -> tuple[Mapping[str, Any] | None, str, Mapping[str, Any]]:
    """The answer, or why there is none, and the answer's metadata."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = call(Bucket=bucket)
    except ClientError as error:
        code = str(error.response["Error"].get("Code", ""))
        metadata = error.response.get("ResponseMetadata", {})
        return ({}, "", metadata) if code in _OFF else (None, f"{error.operation_name}: {code}", metadata)
    except BotoCoreError as error:
        return None, said(error), {}
    return found, "", found.get("ResponseMetadata", {})
