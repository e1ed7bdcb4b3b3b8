"""Containers of a Kubernetes deployment and what they logged, through the API's official client.

The client's errors become ours here, by status; nothing else of it gets out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

_CONNECT_S, _ANSWER_S = 5.0, 60.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PAGE = 500

NO_LOG = 400
"""How the API answers for a container that has not started, or has no previous life."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of one pod."""

    pod: str
    name: str

    def __str__(self) -> str:
        return f"{self.pod}/{self.name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a container's log.

    Attributes:
        last: So many lines from the end; None for all.
        since_s: Only what is younger, in seconds; None for all.
        follow: Whether to stay and deliver what comes.
        previous: Of the container's life before the last restart.
        timestamps: Whether each line begins with the time at which it was written.
    """

    last: int | None = None
    since_s: int | None = None
    follow: bool = False
    previous: bool = False
    timestamps: bool = False

    def parameters(self) -> dict[str, Any]:
        """As the API takes them, without those that say nothing."""
        given = {
            "tail_lines": self.last,
            "since_seconds": self.since_s,
            "follow": self.follow,
            "previous": self.previous,
            "timestamps": self.timestamps,
        }
        return {name: value for name, value in given.items() if value not in (None, False)}


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
        found = [
            Container(pod.metadata.name, one.name)
            for pod in self._pods(selector)
            for one in (*(pod.spec.init_containers or ()), *pod.spec.containers)
            if name in ("", one.name)
        ]
        if not found:
            named = f" with a container {name}" if name else ""
            raise MissingSettingError(
                f"No pod of namespace {self.namespace} at {self.server} matches {selector}{named}.",
                remedy="Name another --namespace, --selector or --context; kubectl get pods --show-labels"
                " -A shows what there is.",
                namespace=self.namespace,
                selector=selector,
            )
        return sorted(found, key=lambda one: one.pod)

    def _pods(self, selector: str) -> Iterator[Any]:
        following: str | None = None
        while following != "":
            with self._told("list pods"):
                page = self.api.list_namespaced_pod(
                    self.namespace,
                    label_selector=selector,
                    limit=_PAGE,
                    _request_timeout=(_CONNECT_S, _ANSWER_S),
                    **({"_continue": following} if following else {}),
                )
            yield from page.items
            following = page.metadata._continue or ""  # noqa: SLF001 (the client's name for it)

    def lines(self, container: Container, wanted: Wanted) -> Iterator[str]:
        """The lines of a container's log, oldest first, each as it arrives; none where there is no log.

        Raises:
            ForbiddenError: The credentials may not read logs.
            UnavailableError: The cluster does not answer, or hung up.
        """
        with self._told(f"read the log of {container}"):
            answer = self.api.read_namespaced_pod_log(
                container.pod,
                self.namespace,
                container=container.name,
                _preload_content=False,
                _request_timeout=(_CONNECT_S, None if wanted.follow else _ANSWER_S),
                **wanted.parameters(),
            )
            yield from _lines(answer)

    @contextmanager
    def _told(self, deed: str) -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._refusal(deed, error) from error
        except HTTPError as error:
            raise UnavailableError(
                f"The Kubernetes cluster at {self.server} does not answer ({type(error).__name__}).",
                remedy="See that it is up and can be reached from here, and that the kubeconfig file is for it.",
                server=self.server,
            ) from error

    def _refusal(self, deed: str, error: Any) -> Exception:
        said = _said(error)
        if error.status in (401, 403):
            return ForbiddenError(
                f"The Kubernetes cluster at {self.server} does not let you {deed}: {said}",
                remedy="Log in anew, or have a role bound that may get and list pods and get pods/log"
                f" in namespace {self.namespace}.",
                status=error.status,
            )
        if error.status == NO_LOG:
            return NoLogError(said)
        if error.status == 404:  # the pod has ended and gone since it was listed
            return NoLogError("it is gone")
        if error.status and 400 <= error.status < 500:
            return ConfigurationError(f"Kubernetes cannot {deed}: {said}", status=error.status)
        return UnavailableError(
            f"The Kubernetes cluster at {self.server} cannot {deed} now: {said}", status=error.status
        )


class NoLogError(ConfigurationError):
    """A container has no such log: it has not started, or never ended."""


def _said(error: Any) -> str:
    """The message of the API's answer, which is a Status object where all is well."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"status {error.status} {error.reason or ''}".strip()


def _lines(chunks: Any) -> Iterator[str]:
    rest = b""
    for chunk in chunks.stream(amt=None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def open_cluster(context: str = "", namespace: str = "") -> Cluster:
    """The cluster that the kubeconfig file means, or, in a pod, the one that it runs in. Nothing is connected.

    Args:
        context: Of the kubeconfig file; empty for its current one.
        namespace: Empty for the context's own, or the pod's.

    Raises:
        MissingSettingError: The client is not installed; or there is neither a kubeconfig file nor a pod.
        ConfigurationError: The kubeconfig file is wrong.
    """
    try:
        from kubernetes import client
    except ModuleNotFoundError as error:
        raise MissingSettingError(
            f"The package {error.name} is not installed.",
            remedy="Install hop_archive with its extra: pip install 'hop_archive[kubernetes]'.",
        ) from error
    settings = client.Configuration()
    settings.retries = False  # one who waits at a terminal is told at once
    chosen, own_namespace = _configured(settings, context)
    api = client.CoreV1Api(client.ApiClient(settings))
    return Cluster(api, settings.host, chosen, namespace or own_namespace)


def _configured(settings: Any, context: str) -> tuple[str, str]:
    """Fill in the client's settings; the context, and the namespace that goes with it."""
    import yaml
    from kubernetes import config

    # The client looks into what it reads without asking first what it is.
    wrong = (config.ConfigException, yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError)

    # Read here: the client reads the variable when it is imported.
    file = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    there = any(Path(one).is_file() for one in file.split(os.pathsep))
    try:
        if not there and not context and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=settings)
            return "", _OWN_NAMESPACE.read_text().strip()
        config.load_kube_config(file, context or None, settings, persist_config=False)
        contexts, current = config.list_kube_config_contexts(file)
    except wrong as error:
        raise _no_access(file, context, there=there, why=str(error)) from error
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str(chosen["name"]), str(chosen["context"].get("namespace") or "default")


def _no_access(file: str, context: str, *, there: bool, why: str) -> ConfigurationError:
    if not there:
        return MissingSettingError(
            f"There is no access to a Kubernetes cluster from here: no kubeconfig file {file}.",
            remedy="Have one written (aws eks update-kubeconfig --name CLUSTER, or your provider's way),"
            " or name one in KUBECONFIG.",
            file=file,
        )
    asked = f" with context {context}" if context else ""
    return ConfigurationError(
        f"The kubeconfig file {file}{asked} cannot be used: {' '.join(why.split()).rstrip('.')}.",
        remedy="kubectl config get-contexts lists its contexts.",
        file=file,
    )
