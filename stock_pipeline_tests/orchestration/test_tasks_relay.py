"""The relay: lost processes, deleted runs, wishes nobody carried out, checks that stop a run, one relay at a time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
from sqlalchemy import Engine, text, update
from sqlalchemy.orm import Session

from stock_pipeline.config import load_settings
from stock_pipeline.config.launches import KIND, OWNER, PARAMETERS, STARTED_BY
from stock_pipeline.core.errors import ConfigurationError, NotFoundError
from stock_pipeline.orchestration import maintenance
from stock_pipeline.orchestration.relay import Relay
from stock_pipeline.orchestration.relay_lock import alone
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.tables.tasks import EventRow
from stock_pipeline.storage.tasks import EventFilter, EventLog, NotNowError, TaskStore
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.task_runs import QUIET, SETTINGS, Runs, states_of
from stock_pipeline_tests.waiting import wait_until

CHILD = """
import socket, sys, time
from pathlib import Path
import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from stock_pipeline.orchestration.liveness import HOST
from stock_pipeline.storage.database import open_database
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.task_runs import QUIET, Runs

address, home = sys.argv[1], Path(sys.argv[2])
with dg.DagsterInstance.get() as instance:
    runs = Runs(open_database(address, migrate=False), home, instance)
    runs.hang_in = "two"
    tags = {HOST: socket.gethostname(), "dagster/max_retries": "1"}
    run = instance.create_run_for_job(runs.job, tags=tags, run_config=QUIET)
    print(run.run_id, flush=True)
    execute_run(InMemoryJob(runs.job), run, instance)
"""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, with Dagster's queue."""
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nrun_retries: {enabled: true, retry_on_asset_or_op_failure: false}\n"
    )
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.mark.requirement("R2.2", "R2.3", "R2.5")
def test_a_killed_process_is_noticed_and_the_task_goes_on_where_it_was(
    database: Engine, database_address: str, disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, database_address, str(tmp_path)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    relay, store = Relay(disk, database), TaskStore(database)
    try:
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()

        def begun() -> bool:
            relay.poll()
            task = store.get(run_id)
            return task is not None and task.current_step == "two"

        wait_until(begun, lambda: store.get(run_id), seconds=300)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert not psutil.pid_exists(child.pid)
    Relay(disk, database).poll()
    task = store.get(run_id)
    assert task is not None
    assert task.state == "retrying"
    assert task.error is not None
    assert "process is gone" in task.error["cause"]
    assert task.error["next"]["action"] == "wait"

    runs = Runs(database, tmp_path, disk)
    runs.done[run_id, "one"] = 1
    again = runs.repeat(run_id).run_id
    runs.start(again)
    runs.finish(again)
    assert {step: count for (_, step), count in runs.done.items()} == {"one": 1, "two": 1, "three": 1}
    Relay(disk, database).poll()
    task = store.get(run_id)
    assert task is not None
    assert (task.state, task.attempts, task.steps_done, task.result) == ("succeeded", 2, 3, {"last": "three"})
    assert states_of(EventLog(database).after(0, limit=1000), run_id) == [
        "queued", "running", "retrying", "queued", "starting", "running", "succeeded",
    ]  # fmt: skip


@pytest.mark.requirement("R2.3")
def test_a_waiting_run_is_stopped_by_the_relay_when_nobody_else_does(
    database: Engine, disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    runs, relay = Runs(database, tmp_path, disk), Relay(disk, database)
    paused, canceled = runs.launch("ann").run_id, runs.launch("bob").run_id
    relay.poll()
    earlier = TaskStore(database, clock=lambda: datetime.now(UTC) - timedelta(minutes=1))
    earlier.ask(paused, "pause", "ann")
    earlier.ask(canceled, "cancel", "bob")
    relay.poll()
    relay.poll()
    store = TaskStore(database)
    assert [runs.status(run) for run in (paused, canceled)] == ["CANCELED", "CANCELED"]
    assert [store.get(run).state for run in (paused, canceled)] == ["paused", "canceled"]  # type: ignore[union-attr]
    # a claim to resume that came to nothing is void after a while
    now = datetime.now(UTC)
    earlier, later = (TaskStore(database, clock=lambda at=at: at) for at in (now, now + timedelta(minutes=1)))
    earlier.ask(paused, "resume", "ann")
    later.ask(paused, "resume", "bob")
    with pytest.raises(NotNowError, match="about to resume"):
        later.ask(paused, "resume", "ann")
    later.ask(paused, None, "bob")
    assert later.ask(paused, "cancel", "ann").state == "canceled"


@pytest.mark.requirement("R2.2", "V2")
def test_a_run_that_is_interrupted_before_it_is_recorded_as_failed_is_repeated(
    database: Engine, disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    runs, relay, store = Runs(database, tmp_path, disk), Relay(disk, database), TaskStore(database)
    run_id = runs.launch(retries=1).run_id
    runs.start(run_id)
    runs.terminate(run_id)  # as a worker's run at its time limit, of which Dagster then says that it has failed
    relay.poll()
    runs.fail(run_id, "Exceeded maximum runtime of 3600 seconds.")
    relay.poll()
    task = store.get(run_id)
    assert task is not None
    assert (task.state, task.error and task.error["next"]["action"]) == ("retrying", "wait")
    again = runs.repeat(run_id).run_id
    runs.start(again)
    runs.finish(again)
    relay.poll()
    assert states_of(EventLog(database).after(0, limit=1000), run_id) == [
        "queued", "starting", "running", "canceling", "canceled", "retrying",
        "queued", "starting", "running", "succeeded",
    ]  # fmt: skip


@pytest.mark.requirement("V2")
def test_a_task_whose_run_was_deleted_in_dagster_is_closed(
    database: Engine, disk: dg.DagsterInstance, tmp_path: Path
) -> None:
    runs, time = Runs(database, tmp_path, disk), [0.0]
    relay = Relay(disk, database, clock=lambda: time[0])
    run = runs.launch().run_id
    relay.poll()
    runs.delete(run)
    time[0] += 100
    relay.poll()
    task = TaskStore(database).get(run)
    assert task is not None
    assert task.state == "canceled"
    (*_, told) = EventLog(database).after(0, limit=10)
    assert told.data["reason"] == "its run was deleted in Dagster"


@pytest.mark.requirement("R5.5", "R2.5")
def test_a_check_that_stops_a_run_is_named_with_its_remedy(database: Engine) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("no_gaps", asset="bars", blocking=True)])
    def bars() -> Iterator[dg.Output[None] | dg.AssetCheckResult]:
        yield dg.Output(None, metadata={"figure": float("nan")})
        yield dg.AssetCheckResult(
            check_name="no_gaps", passed=False, description="3 gaps", metadata={"remedy": "load the year again\x00"}
        )

    instance = dg.DagsterInstance.ephemeral(settings=SETTINGS)
    result = dg.materialize([bars], instance=instance, raise_on_error=False)
    Relay(instance, database).poll()
    task = TaskStore(database).get(result.run_id)
    assert task is not None
    assert (task.state, task.kind) == ("failed", "other")
    assert task.error is not None
    assert task.error["checks"] == [
        {"check": "no_gaps", "asset": "bars", "description": "3 gaps", "remedy": "load the year again"}
    ]
    assert task.error["next"] == {
        "action": "look-at-check", "text": "look at the check no_gaps of bars: load the year again",
    }  # fmt: skip


@pytest.mark.requirement("R5.5")
def test_the_kind_of_error_decides_between_correcting_the_request_and_following_the_advice(database: Engine) -> None:
    errors = {
        "asked": ConfigurationError("no such family", value="x", allowed="ridge", fix="name another"),
        "lost": NotFoundError("what an earlier step left is gone", fix="repeat the whole task"),
        "library": ValueError("kaput"),
    }

    def failing(name: str) -> str:
        @dg.asset(name=name)
        def fails() -> None:
            raise errors[name]

        return str(dg.materialize([fails], instance=instance, raise_on_error=False).run_id)

    instance = dg.DagsterInstance.ephemeral(settings=SETTINGS)
    runs = {name: failing(name) for name in errors}
    Relay(instance, database).poll()
    told = {name: TaskStore(database).get(run_id).error for name, run_id in runs.items()}  # type: ignore[union-attr]
    assert {name: error["type"] for name, error in told.items() if error} == {
        "asked": "ConfigurationError", "lost": "NotFoundError", "library": None,
    }  # fmt: skip
    assert told["asked"]["next"] == {"action": "fix-parameters", "text": "name another"}  # type: ignore[index]
    assert told["lost"]["next"] == {"action": "follow-advice", "text": "repeat the whole task"}  # type: ignore[index]
    assert told["library"]["next"]["action"] == "look-at-log"  # type: ignore[index]


@pytest.mark.requirement("V5")
def test_a_run_whose_events_are_gone_ends_all_the_same(database: Engine, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral(settings=SETTINGS)
    runs = Runs(database, tmp_path, instance)
    run = runs.launch().run_id
    runs.start(run)
    Relay(instance, database).poll()
    runs.finish(run)
    instance.event_log_storage.delete_events(run)
    Relay(instance, database).poll()
    assert states_of(EventLog(database).after(0, limit=100), run) == ["queued", "starting", "running", "succeeded"]


@pytest.mark.requirement("R5.3")
def test_alerts_are_told_although_the_relay_was_away_for_long(database: Engine) -> None:
    from stock_pipeline.observability.alerts import Alert
    from stock_pipeline.orchestration.relay_alerts import copy_alerts
    from stock_pipeline.storage.outbox import AlertOutbox

    outbox, log = AlertOutbox(database), EventLog(database)

    def raise_alert(name: str, days: int) -> None:
        at = datetime.now(UTC) - timedelta(days=days)
        outbox.enqueue(
            Alert(kind="t", severity="error", title=name, body=name, fingerprint=name, source_key=name, created_at=at,
                  labels={})
        )  # fmt: skip

    raise_alert("ancient", 30)
    raise_alert("new", 0)
    assert copy_alerts(database, log) == 1, "at first, what is old is not told"
    raise_alert("while it was away", 20)
    assert copy_alerts(database, log) == 1
    assert copy_alerts(database, log) == 0
    outbox.resolve("new", datetime.now(UTC))
    assert copy_alerts(database, log) == 1
    told = log.after(0, limit=10, filters=EventFilter(kinds=("alert", "alert.resolved")))
    assert [(event.kind, event.data["title"]) for event in told] == [
        ("alert", "new"), ("alert", "while it was away"), ("alert.resolved", "Over: new"),
    ]  # fmt: skip


@pytest.mark.requirement("V5")
def test_a_second_relay_waits_until_the_first_has_ended(database: Engine, tmp_path: Path) -> None:
    stop, waiting, active = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        with alone(database, tmp_path, stop, waiting.set) as held:
            if held():
                active.set()

    with alone(database, tmp_path, stop) as held:
        assert held()
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(120)
        assert not active.is_set()
    assert active.wait(120)
    other.join()
    with alone(database, tmp_path, threading.Event()) as held:
        assert held(), "it was given back"
        stop.set()
        with alone(database, tmp_path, stop) as second_held:
            assert not second_held()


@pytest.mark.requirement("R2.1")
def test_maintenance_forgets_tasks_whose_runs_are_gone_and_old_events(tmp_path: Path) -> None:
    settings = load_settings(make_market(tmp_path, until="2016-01-05"), environment={})
    platform = Platform(settings)
    runs = Runs(platform.database, tmp_path)
    gone, kept, paused = (runs.launch() for _ in range(3))
    for run in (gone, kept):
        runs.start(run.run_id)
        runs.finish(run.run_id)
    Relay(runs.instance, platform.database).poll()
    store = TaskStore(platform.database, clock=lambda: datetime.now(UTC) - timedelta(minutes=1))
    store.ask(paused.run_id, "pause", "ann")
    runs.terminate(paused.run_id)
    Relay(runs.instance, platform.database).poll()
    assert maintenance.forget_tasks(platform, runs.instance) == 0
    for run in (gone, paused):
        runs.delete(run.run_id)
    assert maintenance.forget_tasks(platform, runs.instance) == 2
    assert [task.id for task in store.list()] == [kept.run_id]
    log = EventLog(platform.database)
    count = log.newest()
    assert maintenance.forget_events(platform) == 0
    with Session(platform.database) as session, session.begin():
        session.execute(update(EventRow).values(recorded_at=EventRow.recorded_at - 200 * 86_400))
    assert maintenance.forget_events(platform) == count
    assert log.oldest() == count + 1


@pytest.mark.requirement("V2", "V5")
def test_what_people_write_into_tags_and_a_damaged_run_hold_nothing_up(database: Engine, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral(settings=SETTINGS)
    runs = Runs(database, tmp_path, instance)
    odd = {
        OWNER: "x\x00" * 100, KIND: "k" * 100, STARTED_BY: "s" * 100, PARAMETERS: '{"a": NaN, "b": "\\u0000"}',
        "dagster/priority": "high", "dagster/max_retries": "many",
    }  # fmt: skip
    strange = instance.create_run_for_job(runs.job, tags=odd, run_config=QUIET)
    damaged, good = runs.launch(), runs.launch()
    for run in (damaged, good):
        runs.start(run.run_id)
        runs.finish(run.run_id)
    with instance.event_log_storage.run_connection(damaged.run_id) as connection:
        kept = connection.execute(text("SELECT id, event FROM event_logs WHERE run_id = :run"), {"run": damaged.run_id})
        rows = [tuple(row) for row in kept]
        connection.execute(text("UPDATE event_logs SET event = '{' WHERE run_id = :run"), {"run": damaged.run_id})
    relay, store = Relay(instance, database), TaskStore(database)
    relay.poll()
    relay.poll()
    task = store.get(strange.run_id)
    assert task is not None
    assert (task.owner, task.priority, task.state) == ("x" * 64, "normal", "queued")
    assert (task.kind, task.origin, task.parameters) == ("k" * 30, "s" * 20, {"a": None, "b": ""})
    assert store.get(good.run_id).state == "succeeded"  # type: ignore[union-attr]
    assert store.get(damaged.run_id) is None
    with instance.event_log_storage.run_connection(damaged.run_id) as connection:
        for number, content in rows:
            connection.execute(text("UPDATE event_logs SET event = :e WHERE id = :i"), {"e": content, "i": number})
    Relay(instance, database).poll()
    assert store.get(damaged.run_id).state == "succeeded"  # type: ignore[union-attr]
    events = EventLog(database).after(0, limit=1000)
    assert states_of(events, damaged.run_id) == ["queued", "starting", "running", "succeeded"]


@pytest.mark.requirement("V5", "R2.4")
def test_runs_that_dagster_keeps_in_postgres_are_copied_too(
    postgres_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    storage = f"storage:\n  postgres:\n    postgres_url: {postgres_address}\n"
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + storage)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    database = open_database(postgres_address)  # one database for both
    with dg.DagsterInstance.get() as instance:
        runs = Runs(database, tmp_path, instance)
        first, second = runs.launch(), runs.launch()
        relay, store = Relay(instance, database), TaskStore(database)
        for run in (first, second):  # records of both lie side by side in one table
            runs.start(run.run_id)
        runs.step(first.run_id)
        runs.step(second.run_id)
        relay.poll()
        assert [task.steps_done for task in store.list()] == [1, 1]
        store.ask(second.run_id, "pause", "ann")
        for run in (first, second):
            runs.finish(run.run_id)
        Relay(instance, database).poll()
        assert {task.id: task.state for task in store.list()} == {first.run_id: "succeeded", second.run_id: "paused"}
        events = EventLog(database).after(0, limit=100)
        assert states_of(events, second.run_id) == ["queued", "starting", "running", "pausing", "paused"]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
