"""Tasks with all services running: launched through Dagster's web server, killed, started again by its daemon, told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest

from stock_pipeline.config import Settings
from stock_pipeline.config.launches import OWNER, launch_spec
from stock_pipeline.config.tasks import BacktestRequest
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.tasks import EventLog, Task, TaskStore
from stock_pipeline_tests.orchestration.test_services import LAUNCH, LOCATION
from stock_pipeline_tests.running import services_running
from stock_pipeline_tests.task_runs import states_of


def wait_for(store: TaskStore, task_id: str, states: tuple[str, ...], attempts: int = 1, seconds: float = 400) -> Task:
    deadline = time.monotonic() + seconds
    while True:
        task = store.get(task_id)
        if task is not None and task.state in states and task.attempts >= attempts:
            return task
        assert time.monotonic() < deadline, task
        time.sleep(0.2)


@pytest.mark.requirement("R2.1", "R2.2", "R2.3", "R2.5", "V2")
@pytest.mark.slow
def test_a_task_survives_the_death_of_its_process(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    database = open_database(settings.storage.metadata_url)
    store = TaskStore(database)
    spec = launch_spec(settings, "backtest", BacktestRequest(strategy="sma_cross", parameters={"fast": 7}))
    tags = {**spec.tags, OWNER: "ann"}
    params = {
        "selector": {**LOCATION, "jobName": spec.job},
        "runConfigData": spec.run_config,
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    with services_running(settings.config_file, tmp_path / "dev.log") as running:
        with sole_writer(settings.home, [BACKTESTS], print):  # so that it does not end before it is killed
            launched = running.graphql(LAUNCH, {"params": params})["launchRun"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            task_id = launched["run"]["runId"]
            wait_for(store, task_id, ("running",))
            process_of(settings, task_id).kill()
            wait_for(store, task_id, ("retrying", "queued", "starting", "running"), attempts=1)
            wait_for(store, task_id, ("running",), attempts=2)
        ended = wait_for(store, task_id, ("succeeded", "failed"), attempts=2)
        assert ended.state == "succeeded", ended.error
        assert ended.result is not None
        assert ended.result["strategy"] == "sma_cross"
        assert (ended.owner, ended.origin, ended.steps_done) == ("ann", "api", 4)
        assert psutil.pid_exists(running.process.pid)
        assert running.stop() == 0
    events = EventLog(database).after(0, limit=10_000)
    assert states_of(events, task_id) == [
        "queued", "starting", "running", "retrying", "queued", "starting", "running", "succeeded",
    ]  # fmt: skip
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    database.dispose()


def process_of(settings: Settings, run_id: str) -> psutil.Process:
    """The process that executes a run, as it announced itself in the run's events."""
    with open_instance(settings) as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    told = [record.event_log_entry.get_dagster_event().engine_event_data.metadata for record in records]
    return psutil.Process(next(int(str(found["pid"].value)) for found in reversed(told) if "pid" in found))
