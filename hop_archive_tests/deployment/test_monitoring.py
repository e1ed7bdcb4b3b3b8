"""The dashboard and the rules of deploy/monitoring: what they ask for is there, and Prometheus's own tool takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from hop_archive.ingest.follow import catch_up
from hop_archive.upkeep.monitoring.measured import STAGES
from hop_archive.upkeep.monitoring.metrics import ArchiveMetrics, RunMetrics, registry_of
from hop_archive.upkeep.monitoring.numbers import count
from hop_archive_tests.worlds import awkward_world, exhausted

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())
_NAME = re.compile(r"\bhop_archive_\w+")


def metric_names() -> set[str]:
    """What may be asked for: the samples' names of all metrics."""
    registry = CollectorRegistry()
    RunMetrics(registry)
    names: set[str] = set()
    for family in [*ArchiveMetrics(lambda: None).describe(), *registry.collect()]:
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
        names |= {family.name + end for end in ends.get(family.type, [""])}
    return names


def expressions() -> Iterator[str]:
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_each_metric_that_is_asked_for_is_there() -> None:
    asked = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert len(asked) > 12
    assert asked - metric_names() == set()


def test_each_metric_is_explained() -> None:
    page = (CHECKOUT / "docs" / "monitoring.md").read_text()
    assert [
        name
        for name in sorted(metric_names())
        if name.rpartition("_")[2] not in {"sum", "count"} and f"`{name}" not in page
    ] == []
    assert [stage for stage in STAGES.values() if f"`{stage}`" not in page] == []


def test_rules_say_how_bad_it_is_and_what_to_do() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_panels_lie_side_by_side_and_ask_the_source_that_is_chosen() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, int] = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert own.isdisjoint(cells), panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
        sources: list[Any] = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {source["uid"] for source in sources} == {"${datasource}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFG"[: len(panel["targets"])])
        assert panel["title"]
        assert panel["description"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]


def promtool(*args: str, given: str = "") -> str:
    program = shutil.which("promtool")
    if program is None and not os.environ.get("CI"):
        pytest.skip("there is no promtool here: Debian's package prometheus has it")
    assert program is not None
    done = subprocess.run(
        [program, *args], cwd=FOLDER, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_they_fire_when_they_should() -> None:
    assert "8 rules found" in promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_prometheus_takes_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    every = [{"record": f"a:b{n}", "expr": expression} for n, expression in enumerate(expressions())]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": every}]}))
    assert f"{len(every)} rules found" in promtool("check", "rules", str(path))


def test_prometheus_has_nothing_to_say_against_the_metrics() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    registry = registry_of(lambda: count(world.archive(), {}))
    RunMetrics(registry)
    promtool("check", "metrics", given=generate_latest(registry).decode())
