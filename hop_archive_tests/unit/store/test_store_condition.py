"""What a bucket on AWS tells of versioning and replication, by moto."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.exceptions
import pytest
from moto import mock_aws

from hop_archive.store.s3.condition import ask_condition


@pytest.fixture
def s3() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        client.create_bucket(Bucket="bucket")
        yield client


def version(client: Any, bucket: str, status: str = "Enabled") -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def replicate(client: Any, status: str) -> None:
    client.create_bucket(Bucket="backup")
    version(client, "backup")
    rule = {
        "ID": "all",
        "Priority": 1,
        "Status": status,
        "Filter": {},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": "arn:aws:s3:::backup"},
    }
    role = "arn:aws:iam::123456789012:role/replication"
    client.put_bucket_replication(Bucket="bucket", ReplicationConfiguration={"Role": role, "Rules": [rule]})


def test_a_new_bucket_keeps_no_versions_and_is_not_copied(s3: Any) -> None:
    found = ask_condition(s3, "bucket")
    assert (found.versioning, found.replication, found.why_unknown) == (False, False, "")


def test_versions_and_copies_are_seen(s3: Any) -> None:
    version(s3, "bucket")
    replicate(s3, "Enabled")
    found = ask_condition(s3, "bucket")
    assert (found.versioning, found.replication) == (True, True)


def test_versioning_that_was_suspended_and_rules_that_are_off_do_not_count(s3: Any) -> None:
    version(s3, "bucket")
    replicate(s3, "Disabled")
    version(s3, "bucket", "Suspended")
    found = ask_condition(s3, "bucket")
    assert (found.versioning, found.replication) == (False, False)


class Refusing:
    """A client whose credentials may not see the bucket's settings."""

    def __getattr__(self, name: str) -> Any:
        def refuse(**_: object) -> None:
            headers = {"date": "Tue, 24 Nov 2026 02:06:46 GMT"}
            response: Any = {
                "Error": {"Code": "AccessDenied", "Message": json.dumps(name)},
                "ResponseMetadata": {"HTTPHeaders": headers},
            }
            raise botocore.exceptions.ClientError(response, name)

        return refuse


def test_what_may_not_be_seen_is_not_known_and_the_clock_is_told_all_the_same() -> None:
    found = ask_condition(Refusing(), "bucket")
    assert (found.versioning, found.replication) == (None, None)
    assert found.why_unknown == "get_bucket_versioning: AccessDenied"
    assert found.at == datetime.datetime(2026, 11, 24, 2, 6, 46, tzinfo=datetime.UTC)
