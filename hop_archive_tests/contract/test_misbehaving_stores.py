"""Servers that do not do what S3 does, or do what S3 may do and the archive must not take for loss."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from hop_archive.errors import (
    ObjectFrozenError,
    UnavailableError,
    UnsupportedError,
)
from hop_archive.store.protocol import Created, Extent, NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.doctor import PROBE_KEY, Verdict, examine_store
from hop_archive_tests.cli_helpers import invoke, place, toml
from hop_archive_tests.contract.store_fixtures import (
    BreakingProxy,
    CountingProxy,
    IgnoringProxy,
    LaggingProxy,
    moto_endpoint,
    proven,
)

__all__ = ["moto_endpoint", "place"]

NEW, SAME, OTHER = Created.NEW, Created.SAME, Created.OTHER
_numbers = itertools.count()


def client(endpoint: str) -> Any:
    """Whoever sets the server up."""
    made: Any = boto3.client
    return made(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )


@pytest.fixture
def bucket(moto_endpoint: str) -> str:
    """A bucket of the test's own."""
    name = f"misbehaving-{next(_numbers)}"
    client(moto_endpoint).create_bucket(Bucket=name)
    return name


def opened(endpoint: str, bucket: str, *, deleting_allowed: bool = False) -> S3Store:
    return S3Store(
        "s3-test",
        bucket=bucket,
        endpoint=endpoint,
        access_key="any",
        secret_key="any",
        concurrency=4,
        deleting_allowed=deleting_allowed,
        retry_s=1.0,
    )


def numbered(count: int, body: bytes = b"mine") -> list[NewObject]:
    return [NewObject(f"t/{number}", body) for number in range(count)]


def there(endpoint: str, bucket: str) -> dict[str, bytes]:
    """All that stands in the bucket."""
    s3 = client(endpoint)
    found = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {each["Key"]: s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in found}


STANZAS = ("-H", "m", "-D", "m", "-S", "m")


def configure(place: Path, endpoint: str, bucket: str, more: str = "") -> None:
    """Stanzas ``m``: mocks in a directory, and a bucket of a server that believes everybody."""
    toml(
        place,
        f"""
        [source.m]
        type = "mock"
        samples = 12
        directory = "{place}/mocks"
        [database.m]
        type = "mock"
        directory = "{place}/mocks"
        deleting_allowed = true
        [store.m]
        type = "s3"
        bucket = "{bucket}"
        endpoint = "{endpoint}"
        access_key_env = "KEY"
        secret_key_env = "KEY"
        deleting_allowed = true
        {more}
        """,
    )


@pytest.fixture
def _any_key(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("KEY", "any")


# --- a server that ignores If-None-Match


@pytest.fixture
def ignoring(moto_endpoint: str) -> Iterator[str]:
    with IgnoringProxy(moto_endpoint).run() as endpoint:
        yield endpoint


def test_a_server_that_replaces_objects_is_refused_at_the_first_that_is_created(
    moto_endpoint: str, ignoring: str, bucket: str
) -> None:
    store = opened(ignoring, bucket)
    for _ in range(2):  # and each time
        with pytest.raises(
            UnsupportedError, match=r"s3-test.*ignores If-None-Match.*Nothing else was written"
        ):
            store.create(numbered(20))
    assert there(moto_endpoint, bucket) == {"t/0": b"mine"}


def test_nothing_that_stands_there_is_replaced_to_find_that_out(
    moto_endpoint: str, ignoring: str, bucket: str
) -> None:
    client(moto_endpoint).put_object(Bucket=bucket, Key="t/0", Body=b"another's")
    store = opened(ignoring, bucket)
    assert store.create(numbered(1)) == [OTHER]
    with pytest.raises(UnsupportedError):
        store.create(numbered(3))
    assert there(moto_endpoint, bucket) == {"t/0": b"another's", "t/1": b"mine"}


def test_a_server_that_refuses_is_asked_once_more_than_there_are_objects_and_then_never_again(
    moto_endpoint: str, bucket: str
) -> None:
    proxy = CountingProxy(moto_endpoint)
    with proxy.run() as endpoint:
        store = opened(endpoint, bucket)
        assert set(store.create(numbered(5))) == {NEW}
        first, proxy.asked = sum(each.startswith("PUT") for each in proxy.asked), []
        store.create([NewObject("t/5", b"mine")])
    assert first == 6
    assert proxy.asked == [f"PUT /{bucket}/t/5"]
    assert there(moto_endpoint, bucket) == dict.fromkeys((f"t/{n}" for n in range(6)), b"mine")


@pytest.mark.parametrize("stands", [None, b"from an earlier look"])
def test_doctor_finds_a_server_that_replaces_objects(
    moto_endpoint: str, ignoring: str, bucket: str, stands: bytes | None
) -> None:
    if stands is not None:
        client(moto_endpoint).put_object(Bucket=bucket, Key=PROBE_KEY, Body=stands)
    (check,) = [each for each in examine_store(opened(ignoring, bucket)) if each.what == "may create objects"]
    assert (check.verdict, "If-None-Match" in check.detail) == (Verdict.FAILED, True)


@pytest.mark.usefixtures("_any_key")
def test_a_run_on_a_server_that_replaces_objects_ends_at_once_and_catalogs_nothing(
    moto_endpoint: str, ignoring: str, bucket: str, place: Path
) -> None:
    configure(place, ignoring, bucket)
    ran = invoke("run", *STANZAS, "--until-caught-up", "-q")
    assert ran.exit_code == 2, ran.output
    assert "ignores If-None-Match" in ran.output
    assert "Traceback" not in ran.output
    assert not invoke("uuids", "-D", "m", "-T", "*").stdout
    assert len(there(moto_endpoint, bucket)) == 1


# --- a put that is not to be read yet


@pytest.mark.parametrize("looks", [1, 3])
def test_what_is_not_to_be_read_yet_is_waited_for_and_no_other_object(
    moto_endpoint: str, bucket: str, looks: int
) -> None:
    with LaggingProxy(moto_endpoint, looks=looks).run() as endpoint:
        store = opened(endpoint, bucket)
        assert store.create(numbered(2)) == [NEW, NEW]
        assert store.create(numbered(2)) == [SAME, SAME]
    with LaggingProxy(moto_endpoint, looks=looks).run() as endpoint:
        assert proven(opened(endpoint, bucket)).create(numbered(2, b"other")) == [OTHER, OTHER]


def test_what_is_never_to_be_read_is_told_and_an_object_that_was_created_is_so(
    moto_endpoint: str, bucket: str
) -> None:
    with LaggingProxy(moto_endpoint, looks=10**9).run() as endpoint:
        store = opened(endpoint, bucket)
        assert store.create(numbered(1)) == [NEW]
        with pytest.raises(UnavailableError, match="under which nothing stands"):
            store.create(numbered(1))
    assert there(moto_endpoint, bucket) == {"t/0": b"mine"}


# --- cold storage, locks, versions


def put_in(endpoint: str, bucket: str, key: str, storage_class: str) -> None:
    client(endpoint).put_object(Bucket=bucket, Key=key, Body=b"0123456789", StorageClass=storage_class)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
@pytest.mark.parametrize("extent", [Extent("t/cold"), Extent("t/cold", 2, 3)])
def test_an_object_in_cold_storage_is_told_with_what_to_do(
    moto_endpoint: str, bucket: str, storage_class: str, extent: Extent
) -> None:
    put_in(moto_endpoint, bucket, "t/cold", storage_class)
    put_in(moto_endpoint, bucket, "t/warm", "GLACIER_IR")
    bodies = opened(moto_endpoint, bucket).fetch([Extent("t/warm"), extent])
    assert next(bodies) == b"0123456789"
    with pytest.raises(
        ObjectFrozenError, match=r"object t/cold is in cold storage.*restore-object"
    ) as caught:
        next(bodies)
    assert caught.value.facts["object_key"] == "t/cold"
    assert "Check the keys" not in str(caught.value)
    assert not caught.value.retryable


def test_what_stands_under_a_key_in_cold_storage_is_not_taken_for_another_s(
    moto_endpoint: str, bucket: str
) -> None:
    put_in(moto_endpoint, bucket, "t/0", "GLACIER")
    with pytest.raises(ObjectFrozenError, match="restore-object"):
        opened(moto_endpoint, bucket).create(numbered(1))


def lock(endpoint: str, days: int) -> str:
    """A bucket that keeps each version for days, whoever asks."""
    name = f"locked-{next(_numbers)}"
    s3 = client(endpoint)
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": days}}
    s3.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return name


class Locking(BreakingProxy):
    """AWS takes an object under a lock with a checksum of any kind, moto with another header that says which kind it is."""

    def altered(self, request: bytes) -> bytes:
        return re.sub(
            rb"(?i)(\r\nx-amz-checksum-sha256: )",
            rb"\r\nx-amz-sdk-checksum-algorithm: SHA256\1",
            request,
            count=1,
        )


@pytest.fixture
def locking(moto_endpoint: str) -> Iterator[str]:
    with Locking(moto_endpoint).run() as endpoint:
        yield endpoint


def test_under_a_lock_a_deleted_object_is_gone_and_its_version_stays_which_the_bucket_tells(
    moto_endpoint: str, locking: str
) -> None:
    locked = lock(moto_endpoint, 30)
    store = opened(locking, locked, deleting_allowed=True)
    assert store.create(numbered(2)) == [NEW, NEW]
    store.delete(["t/0", "t/1"])
    assert list(store.listing()) == []
    assert store.create(numbered(1)) == [NEW]
    assert store.condition().has_old_versions
    versions = client(moto_endpoint).list_object_versions(Bucket=locked)["Versions"]
    assert sum(each["Key"] == "t/0" for each in versions) >= 2


def copied(endpoint: str, bucket: str, backup: str) -> None:
    """What replication does."""
    for key, body in there(endpoint, bucket).items():
        client(endpoint).put_object(Bucket=backup, Key=key, Body=body)


def versions(endpoint: str, bucket: str, key: str = "") -> list[tuple[str, str]]:
    """Each version under a key, or under any: its key and its id; what was deleted is there, too."""
    found = client(endpoint).list_object_versions(Bucket=bucket, Prefix=key).get("Versions", [])
    return [(each["Key"], each["VersionId"]) for each in found]


def bodies_of_versions(endpoint: str, bucket: str) -> bytes:
    s3 = client(endpoint)
    return b"".join(
        s3.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
        for key, version in versions(endpoint, bucket)
    )


@pytest.mark.usefixtures("_any_key")
def test_suppressing_names_in_each_bucket_whose_old_versions_have_the_content_and_those_are_all(
    moto_endpoint: str, bucket: str, place: Path
) -> None:
    s3, backup = client(moto_endpoint), f"{bucket}-backup"
    s3.create_bucket(Bucket=backup)
    for each in (bucket, backup):
        s3.put_bucket_versioning(Bucket=each, VersioningConfiguration={"Status": "Enabled"})
    configure(place, moto_endpoint, bucket, f'backup_bucket = "{backup}"')
    assert invoke("run", *STANZAS, "--until-caught-up", "-q").exit_code == 0
    copied(moto_endpoint, bucket, backup)
    (own,) = invoke("uuids", "-D", "m", "--limit", "1", "-T", "*").stdout.split()[:1]
    key = json.loads(invoke("inspect", own, *STANZAS[2:], "--json").stdout)["object"]["key"]
    content = there(moto_endpoint, bucket)[key]
    command = ("suppress", own, *STANZAS[2:], "--reason", "request 17", "--yes", "--json")
    first, again = invoke(*command), invoke(*command)
    assert (first.exit_code, again.exit_code) == (1, 1)
    for each in (bucket, backup):
        assert content in bodies_of_versions(moto_endpoint, each)
        (line,) = [line for line in json.loads(first.stdout)["left"] if f"Bucket {each} keeps" in line]
        assert f"those of {key} are deleted" in line
        (line,) = [line for line in json.loads(again.stdout)["left"] if f"Bucket {each} keeps" in line]
        assert "that the first call of this named" in line
        for named, version in versions(moto_endpoint, each, key):
            s3.delete_object(Bucket=each, Key=named, VersionId=version)
        assert content not in bodies_of_versions(moto_endpoint, each)
    assert invoke("verify", *STANZAS[2:], "--deep").exit_code == 0


@pytest.mark.usefixtures("_any_key")
def test_under_a_lock_suppressing_is_done_but_for_what_the_lock_holds_and_says_so(
    moto_endpoint: str, locking: str, place: Path
) -> None:
    locked = lock(moto_endpoint, 30)
    configure(place, locking, locked)
    assert invoke("run", *STANZAS, "--until-caught-up", "-q").exit_code == 0
    (own,) = invoke("uuids", "-D", "m", "--limit", "1", "-T", "*").stdout.split()[:1]
    done = invoke("suppress", own, *STANZAS[2:], "--reason", "request 17", "--yes")
    assert done.exit_code == 1
    assert "where a lock holds them, when its time is over" in done.output
    assert invoke("verify", *STANZAS[2:], "--deep").exit_code == 0


@pytest.mark.usefixtures("_any_key")
def test_verifying_tells_of_an_object_in_cold_storage_with_what_to_do_and_finds_nothing_else(
    moto_endpoint: str, bucket: str, place: Path
) -> None:
    configure(place, moto_endpoint, bucket)
    assert invoke("run", *STANZAS, "--until-caught-up", "-q").exit_code == 0
    (key, body), *_ = there(moto_endpoint, bucket).items()
    client(moto_endpoint).put_object(Bucket=bucket, Key=key, Body=body, StorageClass="GLACIER")
    ran = invoke("verify", *STANZAS[2:], "--deep")
    assert (ran.exit_code, f"object {key} is in cold storage" in ran.output) == (1, True)
    assert "restore-object" in ran.output
    found = json.loads(invoke("findings", "-D", "m", "--json").stdout)["findings"]
    assert {(each["kind"], each["object_key"]) for each in found} == {("frozen_object", key)}
