"""``hop-archive kube-logs``: what the pods of a deployment logged, through the Kubernetes API's official client.

The client's errors become ours here, by status. Not by ``kubectl logs``: that ends at the first container that has no
log, follows five at most unless told, marks lines with a prefix to be parsed, and would be one more program to install.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import StanzaOptions, stanza_options
from hop_archive.cli.output import say
from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
    needing_extra,
)

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

_EPILOG = """\b
Examples:
  hop-archive kube-logs                                     the last 100 lines of each container
  hop-archive kube-logs -D aws-prod-db                      of what archives into that database
  hop-archive kube-logs --since 2h --lines 0                all lines of the last two hours
  hop-archive kube-logs -f -c daemon                        the daemon's, as they come
  hop-archive kube-logs --previous                          what those that crashed said last
  hop-archive kube-logs --context prod --namespace archive -s app=hop-archive,component=code

\b
Which deployment: what the options say; else the variables; else kube_context, kube_namespace and kube_selector
of the database stanza; else the kubeconfig file. The error output says which it is.
Which cluster: KUBECONFIG or ~/.kube/config; in a pod without one, the cluster it runs in. What is needed there:
to get and list pods and to get pods/log (deploy/kubernetes/hop-archive.yaml has such a role). The client comes
with: pip install 'hop_archive[kubernetes]'.
"""

_CONNECT_S, _ANSWER_S = 5.0, 60.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PAGE = 500

NO_LOG = 400
"""How the API answers for a container that has not started, or has no previous life."""

SELECTOR = "app=hop-archive"
"""The label that deploy/kubernetes gives to all pods of a deployment."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(value: str) -> int:
    """The type of an option that takes an age, in seconds: ``90s``, ``15m``, ``2h``, ``1d``, ``90``.

    Raises:
        click.BadParameter: The text is none, or 0.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
    seconds = int(found[1]) * _UNITS_S[found[2] or "s"] if found else 0
    if not seconds:
        raise click.BadParameter(f"{value!r} is no age; wanted for example 90s, 15m, 2h or 1d.")
    return seconds


@click.command("kube-logs", epilog=_EPILOG)
@stanza_options
@click.option(
    "-n",
    "--namespace",
    envvar="HOP_ARCHIVE_KUBE_NAMESPACE",
    default="",
    metavar="NAME",
    help="Where the deployment is.  [default: $HOP_ARCHIVE_KUBE_NAMESPACE, the database stanza's, or the context's own]",
)
@click.option(
    "-s",
    "--selector",
    envvar="HOP_ARCHIVE_KUBE_SELECTOR",
    default="",
    metavar="LABELS",
    help="Labels of its pods.  [default: $HOP_ARCHIVE_KUBE_SELECTOR, the database stanza's, or app=hop-archive]",
)
@click.option(
    "--context",
    envvar="HOP_ARCHIVE_KUBE_CONTEXT",
    default="",
    metavar="NAME",
    help="Context of the kubeconfig file.  [default: $HOP_ARCHIVE_KUBE_CONTEXT, the database stanza's, or its current one]",
)
@click.option("-c", "--container", default="", metavar="NAME", help="Only containers of this name.")
@click.option(
    "--since", "since_s", type=seconds_of, metavar="AGE", help="Only lines younger than: 90s, 15m, 2h, 1d."
)
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="So many of each container, from its end; 0: all.",
)
@click.option("--timestamps", is_flag=True, help="Begin each line with the time at which it was written.")
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes, until Ctrl-C.")
@click.option("-p", "--previous", is_flag=True, help="Of the containers' lives before their last restart.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of text.")
def kube_logs(
    chosen: StanzaOptions,
    namespace: str,
    selector: str,
    context: str,
    container: str,
    since_s: int | None,
    lines: int,
    *,
    timestamps: bool,
    follow: bool,
    previous: bool,
    as_json: bool,
) -> None:
    """Show what the pods of the deployment on Kubernetes logged, each line with its pod and container.

    The pods are those that match at the start; with --follow, ones that come later need another call. A
    container that has no log (yet) is named on the error output. Changes nothing.

    With --json, each object has pod, container and line.
    """
    from hop_archive.config.stanzas import PostgresStanza

    if follow and previous:
        raise click.UsageError("--previous is over: there is nothing to --follow.")
    setup = chosen.setup()
    stanza = setup.configuration.database(setup.selection.database)
    if isinstance(stanza, PostgresStanza) and (
        stanza.kube_context or stanza.kube_namespace or stanza.kube_selector
    ):
        # What it says where nobody said more.
        stanza = stanza.resolved()
        context, namespace = context or stanza.kube_context, namespace or stanza.kube_namespace
        selector = selector or stanza.kube_selector
    selector = selector or SELECTOR
    cluster = open_cluster(context, namespace)
    say(f"Logs of {selector} in {cluster}.", err=True)
    containers = cluster.containers(selector, container)
    given = {
        "tail_lines": lines or None,
        "since_seconds": since_s,
        "follow": follow,
        "previous": previous,
        "timestamps": timestamps,
    }
    part = {name: value for name, value in given.items() if value not in (None, False)}
    read = _following if follow else _in_turn
    for source, line in read(cluster, containers, part):
        if isinstance(line, NoLogError):
            say(f"{source} has no log: {line}", err=True)
        elif as_json:
            click.echo(json.dumps({"pod": source.pod, "container": source.name, "line": line}))
        else:
            click.echo(f"{source}: {line}")


def _in_turn(
    cluster: Cluster, containers: Sequence[Container], part: Mapping[str, Any]
) -> Iterator[tuple[Container, str | NoLogError]]:
    for container in containers:
        try:
            for line in cluster.lines(container, part):
                yield container, line
        except NoLogError as why:
            yield container, why


def _following(
    cluster: Cluster, containers: Sequence[Container], part: Mapping[str, Any]
) -> Iterator[tuple[Container, str | NoLogError]]:
    """A thread for each container, so that a silent one holds up no other."""
    queue: SimpleQueue[tuple[Container, str | HopArchiveError | None]] = SimpleQueue()

    def read(container: Container) -> None:
        try:
            for line in cluster.lines(container, part):
                queue.put((container, line))
            queue.put((container, None))
        except HopArchiveError as error:
            queue.put((container, error))

    for container in containers:
        # Daemons: what waits for a silent container's next line is not to outlive the command.
        threading.Thread(target=read, args=(container,), daemon=True).start()
    left = len(containers)
    while left:
        container, line = queue.get()
        if not isinstance(line, str):
            left -= 1
        if isinstance(line, str | NoLogError):
            yield container, line
        elif line is not None:
            raise line


@dataclass(frozen=True, slots=True)
class Container:
    """One container of one pod."""

    pod: str
    name: str

    def __str__(self) -> str:
        return f"{self.pod}/{self.name}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A namespace of a cluster, as the one who calls may see it.

    Attributes:
        api: The client.
        server: Where it is, for messages.
        context: By which context of the kubeconfig file; '' in a pod, of whose cluster it is then.
        namespace: Where the pods are.
    """

    api: CoreV1Api = field(repr=False)
    server: str
    context: str
    namespace: str

    def __str__(self) -> str:
        via = f"context {self.context}" if self.context else "the cluster of this pod"
        return f"{via} ({self.server}), namespace {self.namespace}"

    def containers(self, selector: str, name: str = "") -> list[Container]:
        """Containers of the pods that a label selector means, those of set-up included; by pod's name.

        Args:
            selector: As in ``kubectl -l``: ``app=hop-archive,tier!=test``.
            name: Only containers of this name; empty for all.

        Raises:
            MissingSettingError: There is none; the message says of which selector and namespace.
            ForbiddenError: The credentials are wrong, or may not list pods.
            UnavailableError: The cluster does not answer.
        """
        found: list[Container] = []
        following: str | None = None
        while following != "":
            with self._translated("list pods"):
                page = self.api.list_namespaced_pod(
                    self.namespace,
                    label_selector=selector,
                    limit=_PAGE,
                    _request_timeout=(_CONNECT_S, _ANSWER_S),
                    **({"_continue": following} if following else {}),
                )
            found.extend(
                Container(pod.metadata.name, container.name)
                for pod in page.items
                for container in (*(pod.spec.init_containers or ()), *pod.spec.containers)
                if name in ("", container.name)
            )
            following = page.metadata._continue or ""  # noqa: SLF001 (the client's name for it)
        if not found:
            named = f" with a container {name}" if name else ""
            raise MissingSettingError(
                f"No pod of namespace {self.namespace} at {self.server} matches {selector}{named}.",
                remedy="Name another --namespace, --selector or --context; kubectl get pods --show-labels"
                " -A shows what there is.",
                namespace=self.namespace,
                selector=selector,
            )
        return sorted(found, key=lambda container: container.pod)

    def lines(self, container: Container, part: Mapping[str, Any]) -> Iterator[str]:
        """The lines of a container's log, oldest first, each as it arrives; none where there is no log.

        Args:
            container: Whose.
            part: Which part, and how, as parameters of the API's ``read_namespaced_pod_log``.

        Raises:
            ForbiddenError: The credentials may not read logs.
            UnavailableError: The cluster does not answer, or hung up.
        """
        with self._translated(f"read the log of {container}"):
            answer = self.api.read_namespaced_pod_log(
                container.pod,
                self.namespace,
                container=container.name,
                _preload_content=False,
                _request_timeout=(_CONNECT_S, None if part.get("follow") else _ANSWER_S),
                **part,
            )
            rest = b""
            for chunk in answer.stream(amt=None, decode_content=True):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")

    @contextmanager
    def _translated(self, deed: str) -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            try:
                said = str(json.loads(error.body)["message"])  # a Status object, where all is well
            except (TypeError, ValueError, KeyError):
                said = f"status {error.status} {error.reason or ''}".strip()
            if error.status in (401, 403):
                raise ForbiddenError(
                    f"The Kubernetes cluster at {self.server} does not let you {deed}: {said}",
                    remedy="Log in anew, or have a role bound that may get and list pods and get pods/log"
                    f" in namespace {self.namespace}.",
                    status=error.status,
                ) from error
            if error.status in (NO_LOG, 404):  # or the pod has ended and gone since it was listed
                raise NoLogError(said if error.status == NO_LOG else "it is gone") from error
            if error.status and 400 <= error.status < 500:
                raise ConfigurationError(f"Kubernetes cannot {deed}: {said}", status=error.status) from error
            raise UnavailableError(
                f"The Kubernetes cluster at {self.server} cannot {deed} now: {said}", status=error.status
            ) from error
        except HTTPError as error:
            raise UnavailableError(
                f"The Kubernetes cluster at {self.server} does not answer ({type(error).__name__}).",
                remedy="See that it is up and can be reached from here, and that the kubeconfig file is for it.",
                server=self.server,
            ) from error


class NoLogError(ConfigurationError):
    """A container has no such log: it has not started, or never ended."""


def open_cluster(context: str = "", namespace: str = "") -> Cluster:
    """The cluster that the kubeconfig file means, or, in a pod, the one that it runs in. Nothing is connected.

    Args:
        context: Of the kubeconfig file; empty for its current one.
        namespace: Empty for the context's own, or the pod's.

    Raises:
        MissingSettingError: The client is not installed; or there is neither a kubeconfig file nor a pod.
        ConfigurationError: The kubeconfig file is wrong.
    """
    with needing_extra("kubernetes"):
        import yaml
        from kubernetes import client, config
    settings = client.Configuration()
    settings.retries = False  # one who waits at a terminal is told at once
    # Read here: the client reads the variable when it is imported.
    file = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    there = any(Path(name).is_file() for name in file.split(os.pathsep))
    # The client looks into what it reads without asking first what it is.
    wrong = (config.ConfigException, yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError)
    try:
        if not there and not context and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=settings)
            chosen, own_namespace = "", _OWN_NAMESPACE.read_text().strip()
        else:
            config.load_kube_config(file, context or None, settings, persist_config=False)
            contexts, current = config.list_kube_config_contexts(file)
            entry = next((entry for entry in contexts if entry["name"] == context), current)
            chosen, own_namespace = str(entry["name"]), str(entry["context"].get("namespace") or "default")
    except wrong as error:
        if not there:
            raise MissingSettingError(
                f"There is no access to a Kubernetes cluster from here: no kubeconfig file {file}.",
                remedy="Have one written (aws eks update-kubeconfig --name CLUSTER, or your provider's way),"
                " or name one in KUBECONFIG.",
                file=file,
            ) from error
        asked = f" with context {context}" if context else ""
        raise ConfigurationError(
            f"The kubeconfig file {file}{asked} cannot be used: {' '.join(str(error).split()).rstrip('.')}.",
            remedy="kubectl config get-contexts lists its contexts.",
            file=file,
        ) from error
    api = client.CoreV1Api(client.ApiClient(settings))
    return Cluster(api, settings.host, chosen, namespace or own_namespace)
