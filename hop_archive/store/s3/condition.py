"""A bucket's condition, asked of an S3 API."""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Mapping
from typing import Any

from hop_archive.model.conditions import StoreCondition
from hop_archive.model.wording import said

_OFF = frozenset({"ReplicationConfigurationNotFoundError", "NoSuchReplicationConfiguration"})


def ask_condition(client: Any, bucket: str) -> StoreCondition:
    """Ask a boto3 client for the condition of an existing bucket. What may not be seen is None, with the reason."""
    versioning, why_not, metadata = _asked(client.get_bucket_versioning, bucket)
    replication, why_neither, _ = _asked(client.get_bucket_replication, bucket)
    rules = (replication or {}).get("ReplicationConfiguration", {}).get("Rules", [])
    date = metadata.get("HTTPHeaders", {}).get("date", "")
    try:
        at = email.utils.parsedate_to_datetime(date) if date else None
    except ValueError:
        at = None
    return StoreCondition(
        at=at,
        versioning=None if versioning is None else versioning.get("Status") == "Enabled",
        replication=None if replication is None else any(rule.get("Status") == "Enabled" for rule in rules),
        why_unknown=why_not or why_neither,
    )


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
