"""``hop-archive kube-logs``: what the pods of a deployment logged."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

from hop_archive.cli.options import Setup, StanzaOptions, stanza_options
from hop_archive.errors import HopArchiveError

if TYPE_CHECKING:
    from hop_archive.cli.kube_pods import Cluster, Container, Wanted

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

SELECTOR = "app=hop-archive"
"""The label that deploy/kubernetes gives to all pods of a deployment."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The seconds of an age; fail for what is none, and for 0."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
    seconds = int(found[1]) * _UNITS_S[found[2] or "s"] if found else 0
    if not seconds:
        raise click.BadParameter(f"{value!r} is no age; wanted for example 90s, 15m, 2h or 1d.", ctx, param)
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
    "--since", "since_s", callback=_seconds, metavar="AGE", help="Only lines younger than: 90s, 15m, 2h, 1d."
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
    if follow and previous:
        raise click.UsageError("--previous is over: there is nothing to --follow.")
    from hop_archive.cli.kube_pods import Wanted, open_cluster

    place = _Place(context, namespace, selector).completed(chosen.setup())
    cluster = open_cluster(place.context, place.namespace)
    click.echo(f"Logs of {place.selector} in {cluster}.", err=True)
    found = cluster.containers(place.selector, container)
    wanted = Wanted(lines or None, since_s, follow, previous, timestamps)
    show = _follow if follow else _in_turn
    show(cluster, found, wanted, _as_object if as_json else _as_text)


@dataclass(frozen=True, slots=True)
class _Place:
    """Which deployment; '' for what is not said."""

    context: str
    namespace: str
    selector: str

    def completed(self, setup: Setup) -> _Place:
        """The same, with what the chosen database's stanza says where nobody said more."""
        from hop_archive.config.stanzas import PostgresStanza

        stanza = setup.configuration.database(setup.selection.database)
        if isinstance(stanza, PostgresStanza) and (
            stanza.kube_context or stanza.kube_namespace or stanza.kube_selector
        ):
            stanza = stanza.resolved()
            said = _Place(stanza.kube_context, stanza.kube_namespace, stanza.kube_selector)
        else:
            said = _Place("", "", "")
        return _Place(
            self.context or said.context,
            self.namespace or said.namespace,
            self.selector or said.selector or SELECTOR,
        )


def _as_text(one: Container, line: str) -> str:
    return f"{one}: {line}"


def _as_object(one: Container, line: str) -> str:
    return json.dumps({"pod": one.pod, "container": one.name, "line": line})


def _in_turn(
    cluster: Cluster, found: Sequence[Container], wanted: Wanted, form: Callable[[Container, str], str]
) -> None:
    from hop_archive.cli.kube_pods import NoLogError

    for one in found:
        try:
            for line in cluster.lines(one, wanted):
                click.echo(form(one, line))
        except NoLogError as why:
            click.echo(f"{one} has no log: {why}", err=True)


def _follow(
    cluster: Cluster, found: Sequence[Container], wanted: Wanted, form: Callable[[Container, str], str]
) -> None:
    """A thread for each container, so that a silent one holds up no other; only this thread writes."""
    from hop_archive.cli.kube_pods import NoLogError

    told: SimpleQueue[tuple[Container, str | HopArchiveError | None]] = SimpleQueue()
    for one in found:
        # Daemons: what waits for a silent container's next line is not to outlive the command.
        threading.Thread(target=_read, args=(cluster, one, wanted, told), daemon=True).start()
    left = len(found)
    while left:
        one, line = told.get()
        if isinstance(line, str):
            click.echo(form(one, line))
            continue
        left -= 1
        if isinstance(line, NoLogError):
            click.echo(f"{one} has no log: {line}", err=True)
        elif line is not None:
            raise line


def _read(
    cluster: Cluster,
    one: Container,
    wanted: Wanted,
    told: SimpleQueue[tuple[Container, str | HopArchiveError | None]],
) -> None:
    try:
        for line in cluster.lines(one, wanted):
            told.put((one, line))
        told.put((one, None))
    except HopArchiveError as error:
        told.put((one, error))
