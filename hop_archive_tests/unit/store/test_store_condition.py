"""What a bucket on AWS tells of versioning and replication, by moto."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
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
    assert found.has_old_versions  # of the time before


def test_a_bucket_that_never_kept_versions_has_none(s3: Any) -> None:
    assert ask_condition(s3, "bucket").has_old_versions is False


PREFIXED = {"Filter": {"Prefix": "archive/segments/"}}
EVERYWHERE = {"Filter": {"Prefix": ""}}
RULES = {
    "expires": ({**EVERYWHERE, "Expiration": {"Days": 30}}, "rule r deletes objects after 30 days"),
    "expires by filter and size": (
        {"Filter": {"And": {"Prefix": "archive/", "ObjectSizeGreaterThan": 9}}, "Expiration": {"Days": 1}},
        "rule r deletes objects under archive/ after 1 days",
    ),
    "expires at a date": (
        {**PREFIXED, "Expiration": {"Date": datetime.datetime(2027, 1, 1)}},
        "rule r deletes objects under archive/segments/ on 2027-01-01",
    ),
    "freezes": (
        {**PREFIXED, "Transitions": [{"Days": 9, "StorageClass": "DEEP_ARCHIVE"}]},
        "rule r moves objects under archive/segments/ to DEEP_ARCHIVE after 9 days",
    ),
    "stays at hand": ({**EVERYWHERE, "Transitions": [{"Days": 9, "StorageClass": "GLACIER_IR"}]}, ""),
    "elsewhere": ({"Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}}, ""),
    "tagged": ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}}, ""),
    "old versions": ({**EVERYWHERE, "NoncurrentVersionExpiration": {"NoncurrentDays": 9}}, ""),
    "off": ({**EVERYWHERE, "Status": "Disabled", "Expiration": {"Days": 30}}, ""),
}


@pytest.mark.parametrize(("rule", "told"), RULES.values(), ids=RULES.keys())
def test_rules_that_take_objects_out_of_reach_are_told_and_no_others(
    s3: Any, rule: dict[str, Any], told: str
) -> None:
    s3.put_bucket_lifecycle_configuration(
        Bucket="bucket", LifecycleConfiguration={"Rules": [{"ID": "r", "Status": "Enabled", **rule}]}
    )
    found = ask_condition(s3, "bucket", "archive/").lifecycle
    assert found is not None
    assert len(found) == bool(told)
    assert all(line.startswith(told) for line in found)


@pytest.mark.parametrize("name", ["lifecycle", "lifecycle-backup"])
def test_the_rules_that_are_shipped_take_nothing_out_of_reach(s3: Any, name: str) -> None:
    shipped = Path(__file__).parents[3] / "deploy" / "s3" / f"{name}.json"
    s3.put_bucket_lifecycle_configuration(
        Bucket="bucket", LifecycleConfiguration=json.loads(shipped.read_text())
    )
    assert ask_condition(s3, "bucket").lifecycle == ()


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
    assert (found.versioning, found.replication, found.has_old_versions, found.lifecycle) == (None,) * 4
    assert found.why_unknown == "get_bucket_versioning: AccessDenied"
    assert found.at == datetime.datetime(2026, 11, 24, 2, 6, 46, tzinfo=datetime.UTC)
