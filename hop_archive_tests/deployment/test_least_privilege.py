"""Each command once as whom the documentation says, on a Postgres with the shipped roles and an S3 that enforces the shipped policies.

Then each right of a policy is taken away in its turn: the command that needs it fails, and says so.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from click.testing import Result
from moto.server import ThreadedMotoServer

from hop_archive.cli import COMMANDS
from hop_archive.config import logs
from hop_archive.errors import ForbiddenError
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive_tests.cli_helpers import invoke
from hop_archive_tests.deployment.image import CHECKOUT
from hop_archive_tests.deployment.test_roles import Server, server

__all__ = ["server"]

pytestmark = pytest.mark.local

IAM = CHECKOUT / "deploy" / "iam"
BUCKET, BACKUP = "example-archive", "example-archive-backup"
REGION = "us-west-2"

Policy = Mapping[str, Any]


def shipped(name: str) -> Policy:
    policy: Policy = json.loads((IAM / f"{name}.json").read_text())
    for statement in policy["Statement"]:
        # For several deletes at once moto asks of the bucket what AWS asks of each object.
        if statement["Sid"] == "DeleteObjects":
            statement["Resource"].append(f"arn:aws:s3:::{BUCKET}")
    return policy


@dataclass(slots=True)
class Buckets:
    """An S3 that asks IAM, with a user for each policy or two together, as ``archiver+cleaner``."""

    endpoint: str
    administrator: tuple[str, str] = ("any", "any")

    def client(self, service: str) -> Any:
        """Whoever may do all."""
        make: Any = boto3.client
        key, secret = self.administrator
        return make(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def grant(self, user: str, policies: Mapping[str, Policy]) -> tuple[str, str]:
        """Make a user with policies; the keys."""
        iam = self.client("iam")
        iam.create_user(UserName=user)
        for name, policy in policies.items():
            iam.put_user_policy(UserName=user, PolicyName=name, PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=user)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def objects(self, bucket: str = BUCKET) -> set[str]:
        found = self.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
        return {each["Key"] for each in found}


ALL_S3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
USERS = ("reader", "archiver", "cleaner", "archiver+cleaner")


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    made = Buckets(f"http://{host}:{port}")
    urllib.request.urlopen(f"{made.endpoint}/moto-api/reset", data=b"").close()
    for name in (BUCKET, BACKUP):
        made.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    made.administrator = made.grant("administrator", {"all": ALL_S3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on, IAM decides
        yield made
    running.stop()


@dataclass(frozen=True, slots=True)
class House:
    """A configuration with a database stanza for each role and a store stanza for each user, of one archive."""

    place: Path
    buckets: Buckets
    database: Server

    def invoke(self, *args: str, role: str, user: str) -> Result:
        return invoke(*args, "-H", "m", "-D", role, "-S", user)

    def replicate(self) -> None:
        """What S3 itself does."""
        s3 = self.buckets.client("s3")
        for key in self.buckets.objects() - self.buckets.objects(BACKUP):
            s3.copy_object(Bucket=BACKUP, Key=key, CopySource={"Bucket": BUCKET, "Key": key})

    def topic(self, message_uuid: str) -> str:
        return str(self.about(message_uuid)["topic"])

    def key(self, message_uuid: str) -> str:
        return str(self.about(message_uuid)["object"]["key"])

    def about(self, message_uuid: str) -> Any:
        return json.loads(invoke("inspect", message_uuid, "-D", "reader", "-S", "reader", "--json").stdout)

    def uuids(self) -> list[str]:
        found = invoke("uuids", "-D", "reader", "-T", "*")
        assert found.exit_code == 0, found.output
        return found.stdout.split()


_DELETING = "cleaning_allowed = true\ndeleting_allowed = true"


def stanzas(place: Path, buckets: Buckets, users: Mapping[str, tuple[str, str]], database: Server) -> str:
    """The text of the file; what is secret goes into the environment."""
    text = [
        f'[source.m]\ntype = "mock"\ndirectory = "{place}/kafka"\nsamples = 40\nwritable = true',
    ]
    for role in ("archiver", "reader", "cleaner", "repairer"):
        os.environ[f"URL_{role.upper()}"] = database.url(role)
        text.append(
            f'[database.{role}]\ntype = "postgres"\nurl = "${{URL_{role.upper()}}}"\nindex_text = ["*"]\n'
            f"{_DELETING if role == 'cleaner' else ''}"
        )
    for user, (key, secret) in users.items():
        name = re.sub("[^A-Z]", "_", user.upper())
        os.environ[f"KEY_{name}"], os.environ[f"SECRET_{name}"] = key, secret
        text.append(
            f'[store."{user}"]\ntype = "s3"\nbucket = "{BUCKET}"\nbackup_bucket = "{BACKUP}"\nregion = "{REGION}"\n'
            f'endpoint = "{buckets.endpoint}"\naccess_key_env = "KEY_{name}"\nsecret_key_env = "SECRET_{name}"\n'
            f"{_DELETING if 'cleaner' in user else ''}"
        )
    return "\n".join(text)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, buckets: Buckets, server: Server) -> Iterator[House]:
    place = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HOP_ARCHIVE_", "AWS_"))]:
            patch.delenv(name)
        before = dict(os.environ)
        users = {
            user: buckets.grant(user.replace("+", "-"), {name: shipped(name) for name in user.split("+")})
            for user in USERS
        }
        (place / "hop_archive.toml").write_text(stanzas(place, buckets, users, server))
        patch.chdir(place)
        try:
            made = House(place, buckets, server)
            ran = made.invoke("run", "--until-caught-up", "-q", role="archiver", user="archiver")
            assert ran.exit_code == 0, ran.output
            made.replicate()
            yield made
        finally:
            for name in [*os.environ.keys() - before.keys()]:
                del os.environ[name]
            logs.remove_former()


@dataclass(frozen=True, slots=True)
class Need:
    """What a command is run with: as whom in the database, as whom in S3 ('' where it asks none), and how it ends."""

    role: str
    user: str
    args: tuple[str, ...] = ()
    code: int = 0


NEEDS: dict[str, Need] = {
    "run": Need("archiver", "archiver", ("--until-caught-up", "-q")),
    "snapshot take": Need("archiver", ""),
    "doctor": Need("archiver", "archiver"),
    "verify": Need("archiver", "reader", ("--deep", "--direction", "backup")),
    "scrub": Need("archiver", "reader"),
    "index-text": Need("archiver", "reader", ("--all",)),
    "rebuild-catalog": Need("archiver", "reader", ("--yes",)),
    "status": Need("reader", "reader"),
    "topics": Need("reader", "reader"),
    "report": Need("reader", "", ("page.html",)),
    "uuids": Need("reader", "", ("-T", "*")),
    "inspect": Need("reader", "reader", ("UUID",)),
    "export": Need("reader", "reader", ("exported", "-T", "*")),
    "catalog-snapshot": Need("reader", "", ("snapshot",)),
    "findings": Need("reader", ""),
    "watch": Need("reader", ""),
    "metrics": Need("reader", "", ("--textfile", "metrics.prom")),
    "restore": Need("archiver", "archiver", ("-T", "TOPIC", "--to-topic", "again")),
    "correct-media-types": Need("repairer", "reader"),
    "repair": Need("repairer", "archiver+cleaner", ("--verify", "--yes")),
    "retract": Need("cleaner", "", ("UUID", "--yes")),
    "compact": Need("cleaner", "archiver+cleaner", ("--older-than", "0d", "--yes")),
    "suppress": Need("cleaner", "archiver+cleaner", ("UUID", "--reason", "a test", "--yes"), 1),
    "prune": Need("cleaner", "cleaner", ("-T", "TOPIC", "--older-than", "1d", "--yes")),
    "clean-tests": Need("cleaner", "cleaner", ("--yes",)),
    "clean-duplicates": Need("cleaner", "cleaner", ("--yes",)),
}


def told(house: House, command: str, need: Need) -> Result:
    """Run a command as it is meant to be run."""
    (own, *_) = house.uuids()
    args = [{"UUID": own, "TOPIC": house.topic(own)}.get(arg, arg) for arg in need.args]
    stanzas = ["-H", "m", "-D", need.role, *(["-S", need.user] if need.user else [])]
    taken = {option for option in "HDS" if f"-{option}, " in invoke(*command.split(), "--help").output}
    chosen = [
        each
        for flag, name in zip(stanzas[::2], stanzas[1::2], strict=True)
        if flag[1] in taken
        for each in (flag, name)
    ]
    return invoke(*command.split(), *args, *chosen)


def given(house: House, command: str) -> Callable[[], bool]:
    """Bring about what a command has something to do with; what tells afterwards that it was done."""
    own = house.uuids()[0]
    with psycopg.connect(house.database.inside) as owner:
        match command:
            case "rebuild-catalog":
                owner.execute("DELETE FROM messages WHERE uuid = %s", [own])
                return lambda: own in house.uuids()
            case "repair":
                key = house.key(own)
                house.buckets.client("s3").delete_object(Bucket=BUCKET, Key=key)
                return lambda: key in house.buckets.objects()
            case "suppress":
                key = house.key(own)
                return lambda: key not in house.buckets.objects()
            case "prune":
                owner.execute("UPDATE batches SET created_at = created_at - interval '1 day'")
                owner.execute(
                    "UPDATE messages SET timestamp = timestamp - 400 * 86400000::bigint WHERE uuid = %s",
                    [own],
                )
                key = house.key(own)
                return lambda: own not in house.uuids() and key not in house.buckets.objects()
            case "retract":
                return lambda: bool(house.about(own)["retracted"])
            case "scrub":
                owner.execute("DELETE FROM verified")
    return lambda: True


@pytest.mark.parametrize("command", NEEDS)
def test_each_command_does_its_work_as_whom_the_documentation_says(house: House, command: str) -> None:
    is_done = given(house, command)
    ran = told(house, command, NEEDS[command])
    assert ran.exit_code == NEEDS[command].code, ran.output
    assert is_done(), ran.output


NOT_REMEMBERED = ("verify",)
"""A reader may look all the same: what it finds is told, and that it is not remembered."""


@pytest.mark.parametrize(
    "command", [name for name, need in NEEDS.items() if need.role != "reader" and name not in NOT_REMEMBERED]
)
def test_whoever_may_only_read_is_told_what_is_lacking(house: House, command: str) -> None:
    given(house, command)
    ran = told(house, command, replace(NEEDS[command], role="reader"))
    assert ran.exit_code in (1, 2), ran.output
    assert re.search(r"roles\.sql|does not say (cleaning|deleting)_allowed|no right|lacks", ran.output), (
        ran.output
    )
    assert "Traceback" not in ran.output


_numbers = itertools.count()

Deed = Callable[[S3Store], object]


def unknown(store: S3Store) -> None:
    found = store.condition()
    if found.lifecycle is None or found.versioning is None or found.replication is None:
        raise ForbiddenError("AccessDenied")


S3_RIGHTS: dict[str, tuple[str, Deed]] = {
    "s3:ListBucket": ("verify", lambda store: list(store.listing())),
    "s3:GetObject": ("verify --deep", lambda store: list(store.fetch([Extent("there")]))),
    "s3:PutObject": ("run", lambda store: store.create([NewObject(f"new/{next(_numbers)}", b"1")])),
    "s3:DeleteObject": ("prune", lambda store: store.delete(["gone/1", "gone/2"])),
    "s3:GetBucketVersioning": ("doctor", unknown),
    "s3:GetReplicationConfiguration": ("doctor", unknown),
    "s3:GetLifecycleConfiguration": ("doctor", unknown),
}


NOT_MODELLED = {"s3:GetReplicationConfiguration"}
"""What moto answers whoever asks (5.2)."""


def of_buckets(policy: Policy) -> list[str]:
    """What a policy lets be done with the archive's buckets."""
    return [
        action
        for statement in policy["Statement"]
        if any("example-archive" in resource for resource in statement["Resource"])
        for action in statement["Action"]
    ]


@pytest.mark.parametrize(
    ("name", "action"),
    [
        (name, action)
        for name in ("archiver", "reader", "cleaner")
        for action in sorted({*of_buckets(shipped(name))} - NOT_MODELLED)
    ],
)
def test_each_right_of_each_policy_is_wanted_by_what_its_holder_does(
    buckets: Buckets, name: str, action: str
) -> None:
    _, deed = S3_RIGHTS[action]
    whole, less = shipped(name), shipped(name)
    for statement in less["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action] or [
            "s3:ListAllMyBuckets"
        ]
    buckets.client("s3").put_object(Bucket=BUCKET, Key="there", Body=b"1")
    for policy, is_enough in ((whole, True), (less, False)):
        key, secret = buckets.grant(f"{name}-{next(_numbers)}", {"only": policy})
        store = S3Store(
            "s3", bucket=BUCKET, endpoint=buckets.endpoint, region=REGION, access_key=key, secret_key=secret,
            deleting_allowed=True,
        )  # fmt: skip
        with contextlib.nullcontext() if is_enough else pytest.raises(ForbiddenError, match="AccessDenied"):
            deed(store)
        store.close()


def test_the_documentation_has_this_table_and_no_command_is_left_out() -> None:
    page = (CHECKOUT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| `([a-z -]+)` \| ([a-z, -]+) \| ([a-z,+ -]+) \|", page, re.MULTILINE)
    assert {command: (role, user) for command, role, user in rows} == {
        command: (need.role, need.user.replace("+", " and ") or "-") for command, need in NEEDS.items()
    }
    asking = {name for name in COMMANDS if f"-{'D'}, --database" in invoke(name, "--help").output}
    assert asking - {command.split()[0] for command in NEEDS} == {
        "connect", "db-logs", "kube-logs", "list", "migrate", "publish",
    }  # fmt: skip
