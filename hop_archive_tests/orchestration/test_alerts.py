"""The sensor that tells people: losses, checks, runs that failed for good; once, and through restarts and outages."""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import DagsterEvent, DagsterEventType

from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.orchestration.alerts import TOLD_BY_THE_LOOK, AlarmsResource, Cursor, FailedRun, alerts
from hop_archive.orchestration.definitions import build_definitions, defs
from hop_archive.orchestration.resources import StanzasResource
from hop_archive.upkeep.monitoring.alarm import Alarm, State
from hop_archive.upkeep.monitoring.telling import Problem, Rules, Seen, Told
from hop_archive_tests.orchestration.helpers import AT_ONCE, archive_of, tick
from hop_archive_tests.unit.upkeep.monitoring.test_telling import Mailbox
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted

AT_LEAST = Rules(settle_s=0.0)


class Ticking:
    """Ticks the sensor, each time with the cursor that it left."""

    def __init__(self, world: World, instance: dg.DagsterInstance) -> None:
        self.box = Mailbox()
        self.instance = instance
        self.cursor: str | None = None
        self.defs = build_definitions(
            archive=archive_of(world), pacing=AT_ONCE, alarms=[Alarm("ops", (self.box,), rules=AT_LEAST)]
        )

    def tick(self) -> str:
        """What this tick told; '' for nothing."""
        before = len(self.box.taken)
        self.cursor = tick(self.defs, self.instance, alerts, self.cursor).cursor
        return "\n".join(f"{m.title}\n{m.body}" for m in self.box.taken[before:])

    def run(self, job: str, **options: object) -> dg.ExecuteInProcessResult:
        found = self.defs.resolve_job_def(job)
        return found.execute_in_process(instance=self.instance, raise_on_error=False, **options)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    return world


def test_a_finding_is_told_once_and_that_it_is_over(world: World, instance: dg.DagsterInstance) -> None:
    ticking = Ticking(world, instance)
    assert ticking.tick() == ""
    at = world.archive().now()
    world.catalog.note_findings([Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="a")], at)
    told = ticking.tick()
    assert f"{BUSY} missing_object: 1 open since" in told
    assert "hop-archive repair" in told
    assert ticking.tick() == ""
    ticking.run("check_archive")
    ticking.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(dg.AssetKey("verification"), "nothing_found", passed=False)
    )
    assert ticking.tick() == "", "checks that are red because of it are no news"
    numbers = [record.number for record in world.catalog.findings()]
    world.catalog.resolve_findings(numbers, "repaired", at)
    assert f"GREEN again:\n- findings {BUSY} missing_object" in ticking.tick()


def test_a_run_that_failed_for_good_is_told_with_its_reason_and_one_that_is_tried_again_is_not(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticking = Ticking(world, instance)
    ticking.tick()
    wrong = {"kinds": ["no_such_kind"]}
    ticking.run("repair", run_config=wrong, tags={"dagster/will_retry": "true"})
    assert ticking.tick() == ""
    run = ticking.run("repair", run_config=wrong)
    assert not run.success
    told = ticking.tick()
    assert (
        "repair: it failed, and is not tried again by itself: There is no kind of finding called no_such_kind"
        in told
    )
    assert ticking.tick() == ""
    ticking.run("repair", run_config=wrong)
    assert ticking.tick() == ""  # it is red still
    assert ticking.run("repair").success
    assert "GREEN again:\n- run failed repair" in ticking.tick()


def test_what_failed_before_the_first_tick_is_not_told(world: World, instance: dg.DagsterInstance) -> None:
    ticking = Ticking(world, instance)
    ticking.run("repair", run_config={"kinds": ["no_such_kind"]})
    assert ticking.tick() == ""


def test_a_check_that_turns_red_is_told_with_its_description_and_a_yellow_one_is_not(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticking = Ticking(world, instance)
    ticking.tick()

    def evaluated(severity: dg.AssetCheckSeverity, *, passed: bool) -> None:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                dg.AssetKey("archive"),
                "coverage_has_no_holes",
                passed=passed,
                severity=severity,
                description="7 offsets are without an outcome.",
            )
        )

    evaluated(dg.AssetCheckSeverity.WARN, passed=False)
    assert ticking.tick() == ""
    evaluated(dg.AssetCheckSeverity.ERROR, passed=False)
    assert "archive coverage_has_no_holes: 7 offsets are without an outcome." in ticking.tick()
    evaluated(dg.AssetCheckSeverity.ERROR, passed=True)
    assert "GREEN again" in ticking.tick()


def test_what_a_service_did_not_take_is_told_at_a_later_tick(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticking = Ticking(world, instance)
    ticking.tick()
    at = world.archive().now()
    world.catalog.note_findings([Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="a")], at)
    ticking.box.why = "no answer within 10 s"
    assert ticking.tick() == ""
    ticking.box.why = ""
    assert "missing_object" in ticking.tick()


def test_without_a_stanza_nobody_is_told_and_the_tick_says_so(
    world: World, instance: dg.DagsterInstance
) -> None:
    plain = build_definitions(archive=archive_of(world), pacing=AT_ONCE, alarms=[])
    assert "HOP_ARCHIVE_ALERT names no alert stanza" in tick(plain, instance, alerts).skip_message


def test_the_stanzas_that_the_environment_names_are_told(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    path = f"{tmp_path}/my.toml"
    with open(path, "w") as file:  # noqa: PTH123
        file.write(
            "[alert.a]\ntype='apprise'\nurls=['json://h']\nui='https://u'\n[alert.b]\ntype='apprise'\nurls=['xml://h']\n"
        )
    monkeypatch.setenv("HOP_ARCHIVE_ALERT", "b, a")
    resource = AlarmsResource(stanzas=StanzasResource(toml_file=path))
    found = resource.create_resource(dg.build_init_resource_context(instance=instance))
    assert [(alarm.name, alarm.ui, [s.name for s in alarm.services]) for alarm in found] == [
        ("b", "", ["b 1 (xml)"]),
        ("a", "https://u", ["a 1 (json)"]),
    ]


def test_a_thousand_red_topics_make_no_large_cursor() -> None:
    problems = tuple(
        Problem("lag", f"topic-{n}", "7 messages wait.", "See whether runs start. " * 5) for n in range(1_000)
    )
    told = Told().after(Seen(problems, frozenset({"lag"})), ["ops 1 (json)"], 0.0, Rules())
    cursor = Cursor(1.0, (FailedRun("repair", "", "id", 2.0, "why"),), {"ops": State(told)})
    text = cursor.to_text()
    assert len(text) < 60_000
    assert Cursor.from_text(text) == cursor


def test_checks_that_the_look_stands_for_are_there() -> None:
    names = {key.name for key in defs.get_repository_def().asset_graph.asset_check_keys}
    assert names >= TOLD_BY_THE_LOOK


def test_a_red_check_that_is_about_to_be_evaluated_is_not_over(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticking = Ticking(world, instance)
    ticking.tick()
    key = dg.AssetCheckKey(dg.AssetKey("copies"), "no_duplicates")
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            key.asset_key,
            key.name,
            passed=False,
            description="7 messages are in the archive twice. " + "x" * 500 + " Launch the job deduplicate.",
        )
    )
    told = ticking.tick()
    assert "Launch the job deduplicate." in told
    assert "See the check's page" not in told
    run_id = dg.DagsterRun(job_name="deduplicate").run_id
    instance.event_log_storage.store_event(planned(run_id, key))
    assert ticking.tick() == ""
    assert Cursor.from_text(ticking.cursor).states["ops"].told.red()


def planned(run_id: str, key: dg.AssetCheckKey) -> dg.EventLogEntry:
    """What Dagster writes where a run begins that is to evaluate a check."""
    event = DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        "deduplicate",
        event_specific_data=AssetCheckEvaluationPlanned(asset_key=key.asset_key, check_name=key.name),
    )
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=20,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        dagster_event=event,
    )


def test_a_cursor_that_cannot_be_read_is_none_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("{}", "AAAA", Cursor(1.0).to_text()[:-8]):
        assert Cursor.from_text(text) == Cursor()
    assert "cannot be read" in caplog.text


def test_more_failed_jobs_than_can_be_kept_are_not_over(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.orchestration.alerts._MOST_FAILING", 1)
    ticking = Ticking(world, instance)
    ticking.tick()
    wrong = {"kinds": ["no_such_kind"]}
    ticking.run("repair", run_config=wrong)
    assert "repair" in ticking.tick()
    ticking.run("verify", run_config={"ops": {"verification": {"config": {"topics": ["no.such"]}}}})
    assert "GREEN" not in ticking.tick()


def test_stanzas_that_take_long_are_looked_for_in_turns_and_none_is_forgotten(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.orchestration.alerts._LONGEST_S", -1.0)
    boxes = {name: Mailbox(name) for name in ("a", "b", "c")}
    alarms = [Alarm(name, (box,), rules=AT_LEAST) for name, box in boxes.items()]
    definitions = build_definitions(archive=archive_of(world), pacing=AT_ONCE, alarms=alarms)
    found = [Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="a")]
    world.catalog.note_findings(found, world.archive().now())
    cursor, told = None, []
    for _ in range(6):
        cursor = tick(definitions, instance, alerts, cursor).cursor
        told.append([len(box.taken) for box in boxes.values()])
    assert told == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert [*Cursor.from_text(cursor).states] == ["a", "b", "c"]
