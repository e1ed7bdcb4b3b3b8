"""``hop-archive kube-logs`` against a server that speaks what it needs of the Kubernetes API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from hop_archive_tests.cli_helpers import command, environment, invoke, place, toml, wait_for

__all__ = ["place"]

TOKEN = "let-me-in"


@dataclass
class FakeCluster:
    """Pods by namespace, logs by container; ``refusal`` answers everything with a status of its own."""

    pods: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[tuple[str, str], str | int] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    page_size: int = 500
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def add(self, namespace: str, pod: str, labels: dict[str, str], containers: dict[str, str | int]) -> None:
        spec = {"containers": [{"name": name, "image": "i"} for name in containers]}
        body = {"metadata": {"name": pod, "namespace": namespace, "labels": labels}, "spec": spec}
        self.pods.setdefault(namespace, []).append(body)
        self.logs |= {(pod, name): log for name, log in containers.items()}

    def list(self, namespace: str, query: dict[str, str]) -> dict[str, Any]:
        wanted = dict(pair.split("=") for pair in query["labelSelector"].split(","))
        matching = [
            pod for pod in self.pods.get(namespace, []) if wanted.items() <= pod["metadata"]["labels"].items()
        ]
        start = int(query.get("continue", 0))
        stop = start + self.page_size
        following = {"continue": str(stop)} if stop < len(matching) else {}
        return {"kind": "PodList", "apiVersion": "v1", "metadata": following, "items": matching[start:stop]}


def handler(cluster: FakeCluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(target.query).items()}
            cluster.asked.append((target.path, query))
            parts = target.path.strip("/").split("/")  # api v1 namespaces NS pods [POD log]
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self.refuse(401, "Unauthorized")
            elif cluster.refusal:
                self.refuse(*cluster.refusal)
            elif len(parts) == 5:
                self.answer(200, json.dumps(cluster.list(parts[3], query)).encode())
            else:
                self.log_of((parts[5], query["container"]), query)

        def log_of(self, at: tuple[str, str], query: dict[str, str]) -> None:
            text = cluster.logs[at]
            if isinstance(text, int):
                self.refuse(text, f'container "{at[1]}" in pod "{at[0]}" is waiting to start')
                return
            tail = int(query.get("tailLines", 0))
            lines = text.splitlines(keepends=True)[-tail:]
            if query.get("previous"):
                lines = [f"before the restart: {line}" for line in lines]
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")  # as the API does it
            self.end_headers()
            for line in lines:
                # A line in two chunks, cut inside of a character where it has a long one.
                self.chunk(line.encode()[:2])
                self.chunk(line.encode()[2:])
            if query.get("follow"):
                cluster.over.wait(30)
            self.chunk(b"")

        def chunk(self, body: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, message: str) -> None:
            self.answer(status, json.dumps({"kind": "Status", "code": status, "message": message}).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster()
    made.add("archive", "daemon-1", {"app": "hop-archive"}, {"daemon": "one\ntwo\nthree\n"})
    made.add("archive", "code-1", {"app": "hop-archive"}, {"code": "serving\n", "proxy": "né\n"})
    made.add("archive", "other-1", {"app": "other"}, {"other": "not ours\n"})
    made.add("default", "stray", {"app": "hop-archive"}, {"stray": "in another namespace\n"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(made)) as server:
        made.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.over.set()
        server.shutdown()


def kubeconfig(
    directory: Path, port: int, token: str = TOKEN, monkey: pytest.MonkeyPatch | None = None
) -> Path:
    def context(name: str, namespace: str) -> dict[str, Any]:
        return {"name": name, "context": {"cluster": "c", "user": "u", "namespace": namespace}}

    path = directory / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "production",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [context("production", "archive"), context("elsewhere", "default")],
    }
    path.write_text(yaml.safe_dump(content))
    if monkey:
        monkey.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def access(place: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return kubeconfig(place, cluster.port, monkey=monkeypatch)


def test_each_line_of_every_container_that_matches_is_shown_with_where_it_is_from(access: Path) -> None:
    result = invoke("kube-logs")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "code-1/code: serving",
        "code-1/proxy: né",
        "daemon-1/daemon: one",
        "daemon-1/daemon: two",
        "daemon-1/daemon: three",
    ]


def test_older_spelling_works(access: Path) -> None:
    assert invoke("kube_logs").stdout == invoke("kube-logs").stdout


def test_with_json_each_line_is_an_object(access: Path) -> None:
    lines = [json.loads(line) for line in invoke("kube-logs", "--json", "-c", "proxy").stdout.splitlines()]
    assert lines == [{"pod": "code-1", "container": "proxy", "line": "né"}]


def test_the_last_lines_may_be_enough(access: Path) -> None:
    assert invoke("kube-logs", "-c", "daemon", "--lines", "1").stdout == "daemon-1/daemon: three\n"


def test_options_reach_the_api_in_its_units(access: Path, cluster: FakeCluster) -> None:
    invoke("kube-logs", "-c", "daemon", "--since", "2h", "--lines", "0", "--timestamps")
    assert cluster.asked[-1] == (
        "/api/v1/namespaces/archive/pods/daemon-1/log",
        {"container": "daemon", "sinceSeconds": "7200", "timestamps": "True"},
    )


def test_the_life_before_a_restart_can_be_read(access: Path) -> None:
    text = invoke("kube-logs", "-c", "code", "--previous").stdout
    assert text == "code-1/code: before the restart: serving\n"


def test_context_namespace_and_selector_come_from_options(access: Path) -> None:
    assert invoke("kube-logs", "--context", "elsewhere").stdout == "stray/stray: in another namespace\n"
    assert invoke("kube-logs", "-n", "default").stdout == "stray/stray: in another namespace\n"
    assert invoke("kube-logs", "-s", "app=other").stdout == "other-1/other: not ours\n"


def test_context_namespace_and_selector_come_from_the_environment(
    access: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_KUBE_CONTEXT", "elsewhere")
    assert "stray" in invoke("kube-logs").stdout
    monkeypatch.setenv("HOP_ARCHIVE_KUBE_NAMESPACE", "archive")
    monkeypatch.setenv("HOP_ARCHIVE_KUBE_SELECTOR", "app=other")
    assert invoke("kube-logs").stdout == "other-1/other: not ours\n"


STANZA = """
[database.staging]
type = "postgres"
url = "postgresql://somebody@127.0.0.1:9/none"
kube_context = "elsewhere"
kube_namespace = "${THE_NAMESPACE:-archive}"
kube_selector = "app=other"
"""


def test_it_is_said_whose_logs_are_read(access: Path, cluster: FakeCluster) -> None:
    result = invoke("kube-logs")
    assert result.stderr == (
        "Logs of app=hop-archive in context production "
        f"(http://127.0.0.1:{cluster.port}), namespace archive.\n"
    )


def test_the_stanza_of_the_chosen_database_names_the_deployment(
    access: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(place, STANZA)
    result = invoke("kube-logs", "-D", "staging")
    assert result.stdout == "other-1/other: not ours\n"
    assert "app=other in context elsewhere" in result.stderr
    monkeypatch.setenv("HOP_ARCHIVE_DATABASE", "staging")
    assert "other-1" in invoke("kube-logs").stdout
    assert "stray" in invoke("kube-logs", "-n", "default", "-s", "app=hop-archive").stdout
    monkeypatch.setenv("THE_NAMESPACE", "default")
    monkeypatch.setenv("HOP_ARCHIVE_KUBE_SELECTOR", "app=hop-archive")
    assert "stray" in invoke("kube-logs").stdout


def test_a_misspelt_key_of_the_deployment_is_told(access: Path, place: Path) -> None:
    toml(place, STANZA.replace("kube_context", "kube_contxt"))
    result = invoke("kube-logs", "-D", "staging")
    assert result.exit_code == 2
    assert "kube_contxt: unknown key; nearest known: kube_context" in result.stderr


def test_pods_beyond_the_first_page_are_shown_too(access: Path, cluster: FakeCluster) -> None:
    cluster.page_size = 1
    assert {line.split("/")[0] for line in invoke("kube-logs").stdout.splitlines()} == {"code-1", "daemon-1"}


def test_a_container_without_a_log_is_named_and_the_others_are_shown(
    access: Path, cluster: FakeCluster
) -> None:
    cluster.logs["code-1", "code"] = 400
    cluster.logs["code-1", "proxy"] = 404
    result = invoke("kube-logs")
    assert result.exit_code == 0
    assert "code-1/code has no log: container" in result.stderr
    assert "code-1/proxy has no log: it is gone" in result.stderr
    assert result.stdout.startswith("daemon-1/daemon: one\n")


def test_what_comes_is_shown_as_it_comes(access: Path, cluster: FakeCluster, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        environ = {**environment(), "KUBECONFIG": str(access)}
        process = subprocess.Popen(
            command("kube-logs", "--follow"), env=environ, stdout=output, stderr=output
        )
        try:
            # All of it, while each stream is still open.
            wait_for(lambda: len(shown.read_text().splitlines()) == 6, "which deployment, and five lines")
            assert process.poll() is None
            cluster.over.set()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_where_nothing_matches_it_says_of_what(access: Path) -> None:
    result = invoke("kube-logs", "-s", "app=nothing")
    assert result.exit_code == 2
    assert "No pod of namespace archive" in result.stderr
    assert "app=nothing" in result.stderr


def test_credentials_that_may_not_are_told_what_to_be_given(access: Path, cluster: FakeCluster) -> None:
    cluster.refusal = (403, 'pods is forbidden: User "u" cannot list resource "pods"')
    result = invoke("kube-logs")
    assert result.exit_code == 2
    assert "does not let you list pods: pods is forbidden" in result.stderr
    assert "pods/log" in result.stderr


def test_wrong_credentials_are_not_shown(
    place: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig(place, cluster.port, "not-this-one", monkeypatch)
    result = invoke("kube-logs")
    assert result.exit_code == 2
    assert "Unauthorized" in result.stderr
    assert "not-this-one" not in result.output


def test_a_cluster_that_does_not_answer_is_named_at_once_and_once(
    access: Path, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    kubeconfig(access.parent, 1)
    result = invoke("kube-logs")
    assert result.exit_code == 3
    assert "http://127.0.0.1:1 does not answer" in result.stderr
    assert caplog.records == []  # the client's own account of each attempt


def test_a_cluster_in_trouble_is_to_be_asked_again_later(access: Path, cluster: FakeCluster) -> None:
    cluster.refusal = (503, "etcd is away")
    result = invoke("kube-logs")
    assert result.exit_code == 3
    assert "etcd is away" in result.stderr


def test_without_a_kubeconfig_file_it_says_how_to_get_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(place / "none"))
    result = invoke("kube-logs")
    assert result.exit_code == 2
    assert "no access to a Kubernetes cluster" in result.stderr
    assert "update-kubeconfig" in result.stderr


@pytest.mark.parametrize("content", ["", "{", "clusters: 5", "apiVersion: v1"])
def test_a_kubeconfig_file_that_is_wrong_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = place / "kubeconfig"
    path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    result = invoke("kube-logs")
    assert result.exit_code == 2
    assert str(path) in result.stderr


def test_a_context_that_is_not_there_is_named(access: Path) -> None:
    result = invoke("kube-logs", "--context", "staging")
    assert result.exit_code == 2
    assert "staging" in result.stderr


def test_without_the_client_it_says_what_to_install(access: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    result = invoke("kube-logs")
    assert result.exit_code == 2
    assert "pip install 'hop_archive[kubernetes]'" in result.stderr


@pytest.mark.parametrize("age", ["soon", "0", "5y", "-3m", "1.5h"])
def test_an_age_that_is_none_is_refused(access: Path, age: str) -> None:
    result = invoke("kube-logs", f"--since={age}")
    assert result.exit_code == 2
    assert "15m" in result.stderr


def test_what_is_over_cannot_be_followed(access: Path) -> None:
    assert invoke("kube-logs", "-f", "-p").exit_code == 2
