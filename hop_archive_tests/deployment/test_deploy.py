"""The files of deploy/: each taken by who would read it, or by what models it: Dagster, the AWS clients, schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
import yaml
from botocore.exceptions import ClientError
from dagster._core.instance.config import dagster_instance_config
from dagster._serdes import ConfigurableClassData
from dagster_aws.ecs import EcsRunLauncher

from hop_archive.config.load import load
from hop_archive.config.stanzas import S3Stanza
from hop_archive_tests.deployment.image import CHECKOUT, DOCKER, compose

DEPLOY = CHECKOUT / "deploy"
REGION = "us-west-2"
OBJECTS = yaml.safe_load_all((DEPLOY / "kubernetes" / "hop-archive.yaml").read_text())
KUBERNETES = {(found["kind"], found["metadata"]["name"]): found for found in OBJECTS}
PARTS = ("code", "webserver", "daemon")


def assert_kubernetes_takes(made: Any) -> None:
    """It is an object by Kubernetes' own schema."""
    import kubernetes_validate  # here, as above all: the processes that only collect these tests need none of it

    kubernetes_validate.validate(made, "1.31", strict=True)


def read(path: str) -> Any:
    return json.loads((DEPLOY / path).read_text())


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    from moto import mock_aws

    with mock_aws():
        yield


# --- Dagster's settings with a launcher


def settings(tmp_path: Path, launcher: str) -> Mapping[str, Any]:
    """Production's settings with a launcher appended, as the documentation says, checked by Dagster."""
    parts = [DOCKER / "dagster.yaml", DEPLOY / launcher / "run_launcher.yaml"]
    (tmp_path / "dagster.yaml").write_text("".join(part.read_text() for part in parts))
    checked, _ = dagster_instance_config(str(tmp_path))
    return checked


def rehydrated(config: Mapping[str, Any], **other: Any) -> Any:
    data = ConfigurableClassData(
        config["module"], config["class"], yaml.safe_dump({**config["config"], **other})
    )
    return data.rehydrate(as_type=dg._core.launcher.base.RunLauncher)


def test_the_queue_limits_runs_by_topic_by_source_and_of_backfills(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((DOCKER / "dagster.yaml").read_text())
    checked, _ = dagster_instance_config(str(tmp_path))
    limits = {limit["key"]: limit for limit in checked["run_queue"]["tag_concurrency_limits"]}
    assert limits.keys() == {
        "dagster/partition",
        "hop_archive/source",
        "hop_archive/upkeep",
        "dagster/backfill",
        "dagster/from_ui",
    }
    assert limits["dagster/partition"]["limit"] == 1
    assert all(limit["limit"] < checked["run_queue"]["max_concurrent_runs"] for limit in limits.values())
    assert checked["run_retries"]["enabled"]
    assert checked["run_monitoring"]["enabled"]


def test_on_kubernetes_a_run_is_a_job_that_kubernetes_takes(tmp_path: Path) -> None:
    from dagster_k8s import K8sRunLauncher, construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    config = settings(tmp_path, "kubernetes")["run_launcher"]
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]}
    context = {"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump({**cluster, **context, "users": [{"name": "u", "user": {}}]}))
    launcher = rehydrated(config, load_incluster_config=False, kubeconfig_file=str(kubeconfig))
    assert isinstance(launcher, K8sRunLauncher)
    run = dg.DagsterRun(job_name="archive_topic", run_id="0" * 32)
    container = launcher.get_container_context_for_run(run)
    job = construct_dagster_k8s_job(
        container.get_k8s_job_config("ghcr.io/scimma/hop-archive:0.1.0", launcher),
        args=["dagster", "api", "execute_run", "{}"],
        job_name="dagster-run-0",
        user_defined_k8s_config=container.run_k8s_config,
        labels={"dagster/job": "archive_topic"},
    )
    made = ApiClient().sanitize_for_serialization(job)
    assert_kubernetes_takes(made)
    pod = made["spec"]["template"]
    (one,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"]["app"] == "hop-archive"  # what kube-logs looks for
    assert {"configMapRef": {"name": "hop-archive-settings"}} in one["envFrom"]
    assert {"secretRef": {"name": "hop-archive-secrets"}} in one["envFrom"]
    assert one["securityContext"]["runAsUser"] == 10001
    assert one["securityContext"]["readOnlyRootFilesystem"]
    assert made["spec"]["backoffLimit"] == 0
    mounted = {v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v}
    assert mounted == {"hop-archive-dagster"}
    assert {"name": "DAGSTER_HOME", "value": "/opt/dagster"} in one["env"]
    (mount,) = [mount for mount in one["volumeMounts"] if mount["mountPath"] == "/opt/dagster/dagster.yaml"]
    assert mount["subPath"] == "dagster.yaml"  # without it, that would be a folder


def test_on_ecs_the_launcher_takes_the_registered_task(tmp_path: Path, aws: None) -> None:
    config = settings(tmp_path, "ecs")["run_launcher"]
    ecs = boto3.client("ecs", region_name=REGION)
    for name in ("run", "service"):
        ecs.register_task_definition(**read(f"ecs/{name}.json"))
    launcher = rehydrated(config)
    assert isinstance(launcher, EcsRunLauncher)
    assert str(launcher.task_definition).endswith("task-definition/hop-archive-run:1")


# --- Kubernetes


@pytest.mark.parametrize("key", KUBERNETES, ids=" ".join)
def test_every_object_is_one_by_kubernetes_own_schema(key: tuple[str, str]) -> None:
    assert_kubernetes_takes(KUBERNETES[key])
    assert KUBERNETES[key]["metadata"]["namespace"] == "hop-archive"


@pytest.mark.parametrize("part", PARTS)
def test_pods_run_what_compose_runs_and_have_a_liveness_probe(part: str) -> None:
    template = KUBERNETES["Deployment", f"hop-archive-{part}"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    service = compose()["services"][part]
    assert container["command"] == service["command"]
    probe = container["livenessProbe"]
    if "exec" in probe:
        assert ["CMD", *probe["exec"]["command"]] == service["healthcheck"]["test"]
    else:
        assert probe["httpGet"]["path"] in " ".join(service["healthcheck"]["test"])
    assert template["metadata"]["labels"]["app"] == "hop-archive"
    assert template["spec"]["securityContext"]["runAsNonRoot"]


def test_no_container_can_write_to_its_image_and_each_has_a_place_for_temporary_files() -> None:
    for part in PARTS:
        spec = KUBERNETES["Deployment", f"hop-archive-{part}"]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
    for name in ("run", "service"):
        for container in read(f"ecs/{name}.json")["containerDefinitions"]:
            assert container["readonlyRootFilesystem"]
            assert [mount["containerPath"] for mount in container["mountPoints"]] == ["/tmp"]
    for service in ("buckets", "catalog", "dagster-storage", *PARTS):
        assert compose()["services"][service]["read_only"]
        assert compose()["services"][service]["tmpfs"] == ["/tmp"]


def test_the_settings_name_all_that_production_s_stanzas_and_dagster_want() -> None:
    environ = KUBERNETES["ConfigMap", "hop-archive-settings"]["data"]
    configuration = load(environ=environ)
    assert configuration.source(environ["HOP_ARCHIVE_SOURCE"]).resolved(environ).describe()
    assert configuration.database(environ["HOP_ARCHIVE_DATABASE"]).resolved(environ).describe()
    store = configuration.store(environ["HOP_ARCHIVE_STORE"]).resolved(environ)
    assert isinstance(store, S3Stanza)
    assert store.bucket == "example-archive"
    wanted = set(re.findall(r"\{env: (\w+)\}", (DOCKER / "dagster.yaml").read_text()))
    wanted |= set(re.findall(r"\{env: (\w+)\}", (DOCKER / "workspace.yaml").read_text()))
    assert wanted - environ.keys() == {"DAGSTER_POSTGRES_PASSWORD"}  # of hop-archive-secrets


def test_on_ecs_tasks_have_the_same_settings_and_commands() -> None:
    environ = KUBERNETES["ConfigMap", "hop-archive-settings"]["data"]
    for name in ("run", "service"):
        for container in read(f"ecs/{name}.json")["containerDefinitions"]:
            given = {one["name"]: one["value"] for one in container["environment"]}
            assert {**given, "DAGSTER_CODE_HOST": ""} == {**environ, "DAGSTER_CODE_HOST": ""}
            service = compose()["services"].get(container["name"])
            if service:
                assert container["command"] == service["command"]
                assert container["healthCheck"]["command"] == service["healthcheck"]["test"]


# --- S3


def test_the_buckets_take_their_settings(aws: None) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    for bucket in ("example-archive", "example-archive-backup", "example-dagster-logs"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=read("s3/public-access-block.json")
        )
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=read("s3/encryption.json"))
    for bucket in ("example-archive", "example-archive-backup"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=read("s3/versioning.json"))
    for bucket, name in (
        ("example-archive", "lifecycle"),
        ("example-archive-backup", "lifecycle-backup"),
        ("example-dagster-logs", "lifecycle-logs"),
    ):
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=read(f"s3/{name}.json"))
    s3.put_bucket_replication(Bucket="example-archive", ReplicationConfiguration=read("s3/replication.json"))
    s3.put_bucket_policy(Bucket="example-archive", Policy=json.dumps(read("s3/bucket-policy.json")))
    assert s3.get_bucket_versioning(Bucket="example-archive")["Status"] == "Enabled"
    (rule,) = s3.get_bucket_replication(Bucket="example-archive")["ReplicationConfiguration"]["Rules"]
    assert rule["DeleteMarkerReplication"]["Status"] == "Disabled"  # the backup keeps what is deleted here


# --- IAM


POLICIES = sorted(path.stem for path in (DEPLOY / "iam").glob("*.json") if not path.stem.startswith("trust"))


def allowed(name: str) -> set[str]:
    return {action for statement in read(f"iam/{name}.json")["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_such_by_iam_s_grammar(name: str, aws: None) -> None:
    boto3.client("iam").create_policy(PolicyName=name, PolicyDocument=json.dumps(read(f"iam/{name}.json")))


@pytest.mark.parametrize("name", ["trust-ecs", "trust-eks", "trust-s3"])
def test_roles_can_be_made_with_the_trust_policies(name: str, aws: None) -> None:
    boto3.client("iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps(read(f"iam/{name}.json"))
    )


def test_only_the_cleaner_deletes_and_it_creates_nothing() -> None:
    deleting = {name for name in POLICIES if any("Delete" in action for action in allowed(name))}
    assert deleting == {"cleaner"}
    assert "s3:PutObject" not in allowed("cleaner") | allowed("reader")


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_allows_by_wildcard(name: str) -> None:
    assert [action for action in allowed(name) if "*" in action] == []
    everything = [s["Sid"] for s in read(f"iam/{name}.json")["Statement"] if "*" in s["Resource"]]
    assert everything == (["SeeTasksAndNetwork"] if name == "ecs-launcher" else [])  # AWS has no narrower one


def as_user(name: str) -> Any:
    """An S3 client as a user with one of the policies."""
    iam = boto3.client("iam")
    iam.create_user(UserName=name)
    policy = json.dumps(read(f"iam/{name}.json"))
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client(
        "s3",
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )


def may(call: Any, **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AccessDenied", "403"):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("name", "put", "delete"), [("archiver", True, False), ("reader", False, False), ("cleaner", False, True)]
)
def test_each_may_do_with_objects_what_it_is_for(name: str, put: bool, delete: bool, aws: None) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    for bucket in ("example-archive", "another-bucket"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=bucket, Key="there", Body=b"1")
    client, at = as_user(name), {"Bucket": "example-archive"}

    def found() -> dict[str, bool]:
        return {
            "get": may(client.get_object, **at, Key="there"),
            "list": may(client.list_objects_v2, **at),
            "put": may(client.put_object, **at, Key="new", Body=b"2"),
            "delete": may(client.delete_object, **at, Key="there"),
            "elsewhere": may(client.get_object, Bucket="another-bucket", Key="there"),
            "settings": may(
                client.put_bucket_versioning, **at, VersioningConfiguration={"Status": "Suspended"}
            ),
        }

    from moto.core import set_initial_no_auth_action_count

    enforced = set_initial_no_auth_action_count(0)(found)()
    wanted = {"get": True, "list": True, "put": put, "delete": delete, "elsewhere": False, "settings": False}
    assert enforced == wanted


# --- Kafka


def test_kafka_s_rights_are_to_read_and_to_describe(tmp_path: Path) -> None:
    program = tmp_path / "kafka-acls.sh"
    program.write_text('#!/bin/sh\necho "$*" >> "$RECORD"\n')
    program.chmod(0o755)
    record = tmp_path / "record"
    environ = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "RECORD": str(record)}
    script = str(DEPLOY / "kafka" / "acls.sh")
    subprocess.run([script, "kafka:9092", "archiver"], env=environ, check=True, timeout=600)
    lines = record.read_text().splitlines()
    start = "--bootstrap-server kafka:9092 --add --allow-principal User:archiver"
    assert [line.removeprefix(start).strip() for line in lines] == [
        "--operation Read --operation Describe --operation DescribeConfigs --topic *",
        "--operation Read --group hop_archive",
        "--operation Describe --group *",
    ]
    assert subprocess.run([script, "kafka:9092"], env=environ, check=False, capture_output=True).returncode
