"""Work that leaves the machine: tasks of the API done by a real Celery worker on a real Redis, Dagster on Postgres."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
import pytest
import yaml
from dagster._core.launcher import WorkerStatus
from redis import Redis

from stock_pipeline.api.service import Service
from stock_pipeline.cli import services
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.orchestration import watching, worker, worker_launcher
from stock_pipeline.orchestration.bootstrap import open_instance, prepare_home
from stock_pipeline.orchestration.liveness import MESSAGE
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.tasks import EventLog, Task, TaskStore
from stock_pipeline_tests.api_service import CHEAP, PASSWORD
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.copies import copy_market
from stock_pipeline_tests.databases import fresh_postgres
from stock_pipeline_tests.orchestration.test_tasks_services import process_of
from stock_pipeline_tests.services import free_port, redis
from stock_pipeline_tests.task_runs import states_of

pytestmark = pytest.mark.slow

STEPS = ["check_request", "simulate", "judge", "write_report"]
STRATEGY = """
import time
from pathlib import Path
from stock_pipeline.core.backtesting.strategies import Strategy
from stock_pipeline.core.backtesting.strategies.buy_and_hold import BuyAndHold
from stock_pipeline.core.parameters import Parameters

class GateParameters(Parameters):
    gate: str

class Gated(Strategy):
    name = "gated"
    description = "Buys and holds once a file is there."
    Parameters = GateParameters
    def targets(self, data):
        while not Path(self.parameters.gate).exists():
            time.sleep(0.02)
        return BuyAndHold().targets(data)
"""


@dataclass
class Machines:
    """All services but MLflow, and workers that a test starts and ends."""

    settings: Settings
    folder: Path
    environment: dict[str, str]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    worker: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.platform = Platform(self.settings)
        self.store, self.events = TaskStore(self.platform.database), EventLog(self.platform.database)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.settings.services.api_port}", timeout=120)

    def start(self, name: str, command: Any) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker; the one that is there where there is one."""
        if self.worker is None:
            self.worker = self.start("worker", [sys.executable, "-m", "stock_pipeline", "worker"])
        return self.worker

    def end_worker(self, how: signal.Signals) -> None:
        """End the worker, if there is one."""
        if self.worker is not None:
            self.processes.remove(self.worker)
            self.worker.send_signal(how)
            self.worker.wait(120)
            self.worker = None

    def until(self, holds: Callable[[], Any], seconds: float = 600) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            dead = [process.args for process in self.processes if process.poll()]
            assert not dead, dead
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)
        return found

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))

    def ask(self) -> tuple[str, Path]:
        """Ask for a back-test over the API; it goes on once its gate is there."""
        gate = self.folder / f"gate-{next(self.numbers)}"
        parameters = {"strategy": "gates:Gated", "parameters": {"gate": str(gate)}}
        answer = self.client.post("/api/tasks", json={"kind": "backtest", "parameters": parameters})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"], gate

    def say(self, task_id: str, wish: str) -> None:
        answer = self.client.post(f"/api/tasks/{task_id}/{wish}")
        assert answer.status_code == 202, answer.text

    def task(self, task_id: str, *states: str, attempts: int = 1, step: str | None = None) -> Task:
        """Wait until a task is in one of these states, and at a step."""

        def found() -> Task | None:
            task = self.store.get(task_id)
            fits = task is not None and task.state in states and task.attempts >= attempts
            return task if fits and step in (None, task.current_step) else None

        return self.until(found)

    def all_states(self, task_id: str) -> list[str]:
        return states_of(self.events.after(0, limit=10_000), task_id)

    def states(self, task_id: str) -> list[str]:
        """The states of a task, but for starts that a broker did not hear of, after which it was in the queue again."""
        kept: list[str] = []
        for state in self.all_states(task_id):
            if state == "queued" and kept[-1:] == ["starting"]:
                del kept[-2:]
            kept.append(state)
        return kept

    def process(self, run_id: str) -> psutil.Process:
        return process_of(self.settings, run_id)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with open_instance(self.settings) as instance:
            yield instance


@pytest.fixture(scope="module")
def machines(finished: Settings, postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("workers") / "copy"
    copy_market(finished.config_file.parent, folder)
    shutil.rmtree(folder / "home" / "dagster")
    (folder / "gates.py").write_text(STRATEGY)
    config = folder / "market.yaml"
    content = yaml.safe_load(config.read_text())
    content["backtests"]["strategies"].append({"name": "gates:Gated", "parameters": {"gate": str(folder)}})
    content |= {
        "storage": {"dagster": "env:TEAM_DATABASE", "metadata": "env:TEAM_DATABASE"},
        "tasks": {"workers": {"broker": "env:TEAM_BROKER", "slots": 1}},
        "services": {"api_port": free_port(), "dagster_port": free_port()},
        "access": {"passwords": CHEAP, "access_minutes": 60},  # one log-in for all tests
    }
    config.write_text(yaml.safe_dump(content))
    with fresh_postgres(postgres_server) as database, redis() as broker, pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "STOCK_PIPELINE_HOME", "STOCK_PIPELINE_CONFIG"):
            patch.setenv(name, "")  # restored afterwards, whatever the services need meanwhile
            patch.delenv(name)
        patch.setenv("TEAM_DATABASE", database)
        patch.setenv("TEAM_BROKER", broker)
        settings = load_settings(config, environment=dict(os.environ))
        instance_file = prepare_home(settings) / "dagster.yaml"
        text = instance_file.read_text()
        assert text.count("poll_interval_seconds: 30") == 1
        instance_file.write_text(text.replace("poll_interval_seconds: 30", "poll_interval_seconds: 1"))
        services.write_workspace(settings)
        Service(settings).access.accounts.create("ada", password=PASSWORD, roles=("analyst",), by="system")
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{folder}", "PYTHONUNBUFFERED": "1"}
        running = Machines(settings, folder, environment)
        try:
            for service in services.services(settings):
                if service.name not in ("mlflow", "worker"):
                    running.start(service.name, service.command)
                if service.name == "code-server":
                    running.until(services.code_socket(settings).is_socket)
            running.until(lambda: _log_in(running.client))
            yield running
        finally:
            family = [child for process in running.processes if process.poll() is None
                      for child in psutil.Process(process.pid).children(recursive=True)]  # fmt: skip
            for process in running.processes:
                process.terminate()
            for process in running.processes:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
            for child in psutil.wait_procs(family, timeout=5)[1]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            services.code_socket(settings).unlink(missing_ok=True)
            running.client.close()
            running.platform.database.dispose()


def _log_in(client: httpx.Client) -> bool:
    """Log in once the service is ready: who tries again and again is refused for a while."""
    try:
        if client.get("/readyz").status_code != 200:
            return False
    except httpx.TransportError:
        return False
    answer = client.post("/api/auth/login", json={"name": "ada", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return True


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is over, be it that nobody has asked for its exit code yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return True


@pytest.mark.requirement("R2.2", "R2.4")
def test_without_a_worker_work_waits_and_it_is_told(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    machines.end_worker(signal.SIGTERM)
    canceled, _ = machines.ask()
    machines.task(canceled, "starting")
    with machines.instance() as instance:
        machines.until(lambda: "1 runs wait" in watching.workers(machines.platform, instance, datetime.now(UTC)))
        assert "no_worker" in {alert.kind for alert in machines.platform.alert_outbox.open_alerts()}
        machines.say(canceled, "cancel")
        machines.task(canceled, "canceled")

        kept, gate = machines.ask()
        machines.task(kept, "starting")
        started = machines.start_worker()
        machines.task(kept, "running", step="simulate")
        assert machines.process(kept).ppid() == started.pid
        assert worker.main(["--slots", "1"]) == 1, "one worker is enough for a machine"
        assert "give it more --slots" in capsys.readouterr().err
        gate.touch()
        ended = machines.task(kept, "succeeded", "failed")
        assert (ended.state, ended.steps_done, ended.attempts) == ("succeeded", 4, 1), ended.error
        assert machines.states(kept) == ["queued", "starting", "running", "succeeded"]
        steps = [event.data["step"] for event in machines.events.after(0, limit=10_000)
                 if event.task_id == kept and event.kind == "task.progress"]  # fmt: skip
        assert list(dict.fromkeys(steps)) == STEPS

        machines.until(lambda: "there are 1" in watching.workers(machines.platform, instance, datetime.now(UTC)))
        assert "no_worker" not in {alert.kind for alert in machines.platform.alert_outbox.open_alerts()}
    # its message came to the worker before the other one
    assert machines.states(canceled) == ["queued", "starting", "canceling", "canceled"]


@pytest.mark.requirement("R2.2", "R2.3")
def test_a_run_of_a_worker_is_paused_resumed_and_canceled(machines: Machines) -> None:
    machines.start_worker()
    paused, gate = machines.ask()
    machines.task(paused, "running", step="simulate")
    machines.say(paused, "pause")
    gate.touch()
    machines.task(paused, "paused")
    machines.say(paused, "resume")
    ended = machines.task(paused, "succeeded", "failed", attempts=2)
    assert ended.state == "succeeded", ended.error
    done = [set(run.step_seconds or ()) for run in machines.store.runs(paused)]
    assert done == [{"check_request", "simulate"}, {"judge", "write_report"}]

    canceled, _ = machines.ask()
    machines.task(canceled, "running", step="simulate")
    process = machines.process(canceled)
    machines.say(canceled, "cancel")
    machines.task(canceled, "canceled")
    machines.until(lambda: has_ended(process))
    assert machines.states(canceled) == ["queued", "starting", "running", "canceling", "canceled"]
    with machines.instance() as instance:
        run = instance.get_run_by_id(canceled)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.CANCELED  # and not failed, as Celery's launcher has it by itself


@pytest.mark.requirement("R2.2", "R2.3")
def test_an_end_that_a_worker_has_not_heard_of_is_asked_for_again(machines: Machines) -> None:
    machines.start_worker()
    task_id, _ = machines.ask()
    machines.task(task_id, "running", step="simulate")
    process = machines.process(task_id)
    with _silent(os.environ["TEAM_BROKER"]), machines.instance() as instance:
        machines.client.post(f"/api/tasks/{task_id}/cancel")
        machines.until(lambda: _status(instance, task_id) == dg.DagsterRunStatus.CANCELING)
        machines.task(task_id, "canceling")
        assert process.is_running()
    machines.task(task_id, "canceled")
    machines.until(lambda: has_ended(process))


@pytest.mark.requirement("R2.2", "R2.5")
def test_while_the_broker_is_silent_work_waits_in_the_queue_and_it_is_told(machines: Machines) -> None:
    machines.start_worker()
    with _silent(os.environ["TEAM_BROKER"]), machines.instance() as instance:
        task_id, gate = machines.ask()
        machines.until(lambda: machines.all_states(task_id)[:3] == ["queued", "starting", "queued"])
        said = watching.workers(machines.platform, instance, datetime.now(UTC))
        assert "the broker cannot be reached" in said
        alerts = [one for one in machines.platform.alert_outbox.open_alerts() if one.kind == "no_worker"]
        assert "the broker cannot be reached" in alerts[-1].title
    machines.task(task_id, "running", step="simulate")
    gate.touch()
    ended = machines.task(task_id, "succeeded", "failed")
    assert (ended.state, ended.attempts) == ("succeeded", 1), ended.error
    with machines.instance() as instance:
        machines.until(lambda: "there are 1" in watching.workers(machines.platform, instance, datetime.now(UTC)))


@contextmanager
def _silent(broker: str) -> Iterator[None]:
    """A Redis that takes connections and never answers."""
    with Redis.from_url(broker) as client:
        process = psutil.Process(client.info("server")["process_id"])
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.requirement("R2.2", "R2.5")
def test_a_run_survives_the_death_of_its_process_and_of_its_worker(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.start_worker()
    task_id, gate = machines.ask()
    first = machines.task(task_id, "running", step="simulate")
    machines.process(first.run_id).kill()
    second = machines.task(task_id, "running", attempts=2, step="simulate")
    process = machines.process(second.run_id)
    machines.end_worker(signal.SIGKILL)
    machines.until(lambda: has_ended(process))
    with machines.instance() as instance:
        launcher, run = instance.run_launcher, instance.get_run_by_id(second.run_id)
        assert run is not None
        health = launcher.check_run_worker_health(run)
        assert health.status == WorkerStatus.RUNNING, "a silent worker may come back"
        monkeypatch.setattr(worker_launcher, "SILENT_SECONDS", 0.0)
        health = launcher.check_run_worker_health(run)
        assert (health.status, health.msg) == (WorkerStatus.FAILED, MESSAGE)
    machines.start_worker()
    machines.task(task_id, "running", attempts=3, step="simulate")
    gate.touch()
    ended = machines.task(task_id, "succeeded", "failed", attempts=3)
    assert ended.state == "succeeded", ended.error
    again = ["queued", "starting", "running", "retrying"]
    assert machines.states(task_id) == [*again, *again, "queued", "starting", "running", "succeeded"]
