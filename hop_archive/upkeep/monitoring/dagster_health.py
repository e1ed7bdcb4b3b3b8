"""Whether a Dagster that archives is alive, asked from outside through the GraphQL of its web page.

Dagster cannot say itself that it has stopped. What is asked is what its page *Deployment* shows: whether the code is loaded, the
daemons beat, and each sensor that is on still ticks.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from hop_archive.model.wording import said
from hop_archive.upkeep.monitoring.telling import Problem, Seen

DAGSTER = "Dagster"

_LEAST_SILENCE_S = 600.0
_INTERVALS = 5
"""A sensor that has not ticked for so many of its intervals, and ten minutes, ticks no more: a tick may take a minute."""

_MOST_AHEAD_S = 120.0
"""A sign of life, or a tick, that is further ahead than clocks of two machines should be apart is from before one was set back."""

_SET_BACK = (
    "Set the clock right, restart the daemon, and let it forget those ticks: dagster schedule wipe (sensors and schedules that"
    " were switched by hand are as the code has them then)."
)
"""Dagster 1.13 counts by that clock: its loop sleeps, and sensors do not tick, until it shows again what it had shown."""

_FAILURE = re.compile(r"^\s*dagster[.\w]*\.Failure: ")
"""What Dagster writes before a message of ours."""

_TIMEOUT_S = 20.0

# The newest tick may be under way, so two. Without afterTimestamp dagster dev answered that there are none (1.13).
_QUERY = """
{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } }
  workspaceOrError {
    ... on PythonError { message }
    ... on Workspace {
      locationEntries {
        name
        loadStatus
        locationOrLoadError {
          ... on PythonError { message }
          ... on RepositoryLocation {
            repositories {
              sensors {
                name
                minIntervalSeconds
                sensorState { status ticks(limit: 2, afterTimestamp: 1) { timestamp status error { message causes { message } } } }
              }
            }
          }
        }
      }
    }
  }
}
"""


def dagster_health(url: str, now_s: float) -> Seen:
    """Ask a Dagster web page; raises nothing.

    Args:
        url: Its address, without ``/graphql``.
        now_s: Seconds since 1970.
    """
    request = urllib.request.Request(  # noqa: S310 - whoever gives the address wants it asked
        f"{url.rstrip('/')}/graphql",
        data=json.dumps({"query": _QUERY}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - likewise
            found = json.load(answer)["data"]
        problems = tuple(judged(found, now_s))
    except Exception as error:  # noqa: BLE001 - whatever answers there: it is not a Dagster that is well
        why = said(getattr(error, "reason", error)) or type(error).__name__
        what = f"its web page cannot be asked ({why})."
        problems = (_problem("", what, "See whether the webserver runs, and can be reached from here."),)
    return Seen(problems, frozenset({DAGSTER}))


def judged(found: Mapping[str, Any], now_s: float) -> Iterator[Problem]:
    """What is wrong by an answer of Dagster's. Pure."""
    for daemon in found["instance"]["daemonHealth"]["allDaemonStatuses"]:
        beat = daemon["lastHeartbeatTime"]
        if daemon["required"] and beat and beat - now_s > _MOST_AHEAD_S:
            what = f"its last sign of life is {_long(beat - now_s)} ahead: the clock was set back, and it may stand still until then."
            yield _problem(f"daemon {daemon['daemonType']}", what, _SET_BACK)
        elif daemon["required"] and not daemon["healthy"]:
            since = (
                f"its last sign of life was {_ago(now_s - beat)}" if beat else "it never gave a sign of life"
            )
            yield _problem(
                f"daemon {daemon['daemonType']}",
                f"it does not run, or only fails: {since}.",
                "Restart the daemon (dagster-daemon run): sensors, schedules and the run queue stand still without.",
            )
    workspace = found["workspaceOrError"]
    if "message" in workspace:
        yield _problem("workspace", f"{said(workspace['message'])}.", "See the webserver's log.")
    for location in workspace.get("locationEntries", ()):
        loaded = location["locationOrLoadError"] or {}
        if "message" in loaded:
            yield _problem(
                f"code location {location['name']}",
                f"it cannot be loaded: {said(loaded['message'])}.",
                "See the code server's log; hop-archive doctor tells what it lacks.",
            )
        for repository in loaded.get("repositories", ()):
            for sensor in repository["sensors"]:
                yield from _silent(sensor, now_s)


def _silent(sensor: Mapping[str, Any], now_s: float) -> Iterator[Problem]:
    state = sensor["sensorState"]
    if state["status"] != "RUNNING":
        return
    place, ticks = f"sensor {sensor['name']}", state["ticks"]
    patience_s = max(_LEAST_SILENCE_S, _INTERVALS * sensor["minIntervalSeconds"])
    last = next((tick for tick in ticks if tick["status"] != "STARTED"), None)
    if not ticks:
        yield _problem(place, "it has never ticked.", "See whether the daemon runs.", patience_s)
    elif (silent_s := now_s - ticks[0]["timestamp"]) < -_MOST_AHEAD_S:
        what = f"its last tick is {_long(-silent_s)} ahead: the clock was set back, and it does not tick until then."
        yield _problem(place, what, _SET_BACK)
    elif silent_s > patience_s:
        remedy = "See whether the daemon runs, and what the page Automation says."
        yield _problem(place, f"it ticked last {_ago(silent_s)}.", remedy)
    elif last and last["status"] == "FAILURE":
        error = last["error"] or {"message": "no reason given", "causes": []}
        # The last cause is the reason; around it stands that there was one.
        why = said(_FAILURE.sub("", [error, *error["causes"]][-1]["message"]))
        remedy = "See its page under Automation."
        yield _problem(place, f"its last tick failed: {why}.", remedy, _LEAST_SILENCE_S)


def _problem(place: str, what: str, remedy: str, patience_s: float = 0.0) -> Problem:
    return Problem(DAGSTER, place, what, remedy, "/deployment/daemons", patience_s=patience_s)


def _ago(seconds: float) -> str:
    return f"{_long(seconds)} ago"


def _long(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
