"""`stock-pipeline tasks`: tasks listed, shown, followed, asked for and acted on from a terminal of the machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.access.principal import Principal
from stock_pipeline.api.service import Service
from stock_pipeline.cli import console
from stock_pipeline.config.loading import load_settings
from stock_pipeline.config.tasks import BacktestRequest
from stock_pipeline.storage.database.tables.tasks import TaskRow
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.tasks import NewEvent
from stock_pipeline_tests.api_service import settings_for
from stock_pipeline_tests.commands import Said, command
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.run_control import Runs

pytestmark = pytest.mark.requirement("R2.3", "R2.4", "R2.5")
ANA = Principal("ana", "token", 1, permissions=frozenset({"backtests:create", "tasks:control"}))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    publish(lake, SESSIONS[-1])
    bars = pl.DataFrame({"symbol": ["S001"], "session": [SESSIONS[-1]], "close": [1.0]})
    lake.write_sessions("market/validated_bars", bars, start=SESSIONS[-1], end=SESSIONS[-1])
    return lake


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(Service, "runs", runs)
    return runs


@pytest.fixture
def config(lake: Lake, database_address: str, tmp_path: Path) -> Path:
    settings_for(lake, tmp_path / "home", storage={"metadata": database_address})
    return tmp_path / "home" / "market.yaml"


@pytest.fixture
def service(config: Path, runs: Runs) -> Iterator[Service]:
    service = Service(load_settings(config, environment={}))
    yield service
    service.database.dispose()


def tasks(config: Path, *arguments: str) -> Said:
    return command("-c", config, "tasks", *arguments)


def backtest(service: Service, **parameters: Any) -> str:
    return service.tasks.create(ANA, "backtest", BacktestRequest(strategy="sma_cross", parameters=parameters)).id


def turn(service: Service, task: str, state: str, **values: Any) -> None:
    """What the relay does where a run has another state."""
    now = datetime.now(UTC)
    with Session(service.database) as session, session.begin():
        session.execute(update(TaskRow).where(TaskRow.id == task).values(state=state, **values))
        data = {"error": values["error"]} if "error" in values else {}
        event = NewEvent(
            f"{task}:{state}", "task.state", now, task_id=task, task_kind="backtest", state=state, data=data
        )
        service.events.append(session, event)


@contextmanager
def turned_later(service: Service, task: str, state: str, *, once: Callable[[], Any], **values: Any) -> Iterator[None]:
    """Let a task have another state some time after something holds, while a command goes on."""
    over = threading.Event()

    def later() -> None:
        while not once() and not over.wait(0.02):
            pass
        over.wait(1.0)
        turn(service, task, state, **values)

    with ThreadPoolExecutor(1) as pool:
        turned = pool.submit(later)
        try:
            yield
        finally:
            over.set()
    turned.result()


def test_tasks_of_everybody_are_listed_and_shown(
    config: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "_width", 160)  # the terminal of the tests may be narrow
    assert "no task was started yet" in tasks(config, "list").all
    first, second = backtest(service, fast=5), backtest(service, fast=7)
    turn(service, first, "running", steps_done=1, steps_total=4, current_step="simulate", started_at=datetime.now(UTC))
    listed = tasks(config, "list")
    assert listed.code == 0
    assert first[:8] in listed.out
    assert "25 %, 1 of 4 steps, simulate" in listed.all
    assert first[:8] not in tasks(config, "list", "--state", "queued").out
    assert second[:8] in tasks(config, "list", "--active", "--owner", "ana", "--kind", "backtest").out
    assert "no task matches" in tasks(config, "list", "--kind", "train").all
    found = json.loads(tasks(config, "list", "--json", "--limit", "1").out)
    assert [(task["id"], task["parameters"]["parameters"]) for task in found] == [(second, {"fast": 7})]
    shown = tasks(config, "show", first[:6])
    for part in (
        first,
        "strategy sma_cross; parameters fast 5",
        "1 of 4 steps, simulate",
        "pause, cancel",
        "queued",
        "running",
    ):
        assert part in shown.all, shown.out
    assert json.loads(tasks(config, "show", first, "--json").out)["progress"]["share"] == 0.25


def test_a_table_of_tasks_fits_a_narrow_terminal(
    config: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn(service, backtest(service, fast=5), "running", steps_done=1, steps_total=4, current_step="check_request")
    monkeypatch.setattr(console.out, "_width", 80)
    lines = tasks(config, "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "progress" in "".join(lines)


def test_a_failed_task_says_why_and_what_to_do(config: Path, service: Service) -> None:
    task = backtest(service)
    advice = {"action": "fix-parameters", "text": "correct the parameters and ask again"}
    error = {"step": "simulate", "cause": "fast must be below slow", "next": advice}
    turn(service, task, "failed", error=error, ended_at=datetime.now(UTC))
    for said in (tasks(config, "show", task), tasks(config, "watch", task)):
        assert "fast must be below slow" in said.all
        assert "correct the parameters and ask again" in said.all
    assert tasks(config, "watch", task).code == 1


def test_work_is_asked_for_and_followed_to_its_end(config: Path, service: Service, runs: Runs) -> None:
    asked = tasks(
        config, "start", "backtest", "-p", "strategy=sma_cross", "-p", "parameters.fast=5", "--priority", "high"
    )
    assert asked.code == 0, asked.all
    task = service.tasks.get(asked.out.strip())
    assert (task.priority, task.parameters["parameters"]) == ("high", {"fast": 5})
    assert list(runs.runs) == [task.id]
    entry = next(iter(service.access.audit.entries(AuditFilter(action="task.create"))))
    assert (entry.actor_kind, entry.object_id) == ("command_line", task.id)
    assert task.owner == f"{entry.actor} (command line)", "never the name of an account, which somebody could take"
    turn(service, task.id, "running")
    with turned_later(service, task.id, "succeeded", once=lambda: True, ended_at=datetime.now(UTC)):
        watched = tasks(config, "watch", task.id)
    assert watched.code == 0
    assert [line.split()[1] for line in watched.out.splitlines()] == ["queued", "running", "succeeded"]
    events = [json.loads(line) for line in tasks(config, "watch", task.id, "--json").out.splitlines()]
    assert [event["state"] for event in events] == ["queued", "running", "succeeded"]


def test_a_retried_task_is_followed_to_its_new_end(config: Path, service: Service, runs: Runs) -> None:
    task = backtest(service)
    turn(service, task, "failed", error={"cause": "the disk is full"}, ended_at=datetime.now(UTC))
    again = {"ended_at": datetime.now(UTC), "attempts": 2}
    with turned_later(service, task, "succeeded", once=lambda: runs.repeated, **again):
        followed = tasks(config, "retry", task, "--watch")
    assert followed.code == 0, followed.all
    assert "succeeded" in followed.out
    assert "the disk is full" not in followed.out, "that end is the past"


def test_a_task_is_paused_resumed_canceled_and_retried(config: Path, service: Service, runs: Runs) -> None:
    task = backtest(service)
    assert f"the backtest {task} is pausing" in tasks(config, "pause", task[:8]).all
    assert runs.terminated == [task]
    turn(service, task, "paused", asked=None)
    assert f"the backtest {task} goes on" in tasks(config, "resume", task).all
    turn(service, task, "running", asked=None)
    assert "is canceling" in tasks(config, "cancel", task).all
    turn(service, task, "canceled", asked=None)
    assert json.loads(tasks(config, "retry", task, "--json").out)["id"] == task
    assert len(runs.repeated) == 2
    actions = [entry.action for entry in service.access.audit.entries(AuditFilter(object_kind="task"))]
    assert sorted(actions) == ["task.cancel", "task.pause", "task.resume", "task.retry"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "ab"], 1, "too short for the beginning of an id: 'ab'; allowed: 4 letters or more"),
        (["show", "abcdef"], 1, "there is no such task: 'abcdef'; to fix it: see `stock-pipeline tasks list`"),
        (["watch", "abcdef"], 1, "there is no such task"),
        (["start", "backtest"], 1, "strategy: must be given; allowed: strategy, parameters, start, end"),
        (["start", "backtest", "-p", "strategy=nope"], 1, "there is no such strategy; allowed: bollinger"),
        (["start", "predict", "-p", "symbols=S001"], 1, "symbols: Input should be a valid list; allowed: symbols"),
        (["start", "predict", "-p", "symbols=[NOPE]"], 1, "no bars of these symbols: NOPE"),
        (["start", "refresh", "-p", "x=2"], 1, "x: there is no such parameter; allowed: none"),
        (["start", "backtest", "-p", "start=2021-01-01", "-p", "start.x=1"], 1, "both a value and holds others"),
        (["start", "backtest", "-p", "strategy"], 1, "must be NAME=VALUE"),
        (
            ["start", "backtest", "-p", "strategy=sma_cross", "-p", "parameters={fast: 9, slow: 3}"],
            1,
            "error fast (9) must be smaller than slow (3)",
        ),
        (["list", "--state", "gone"], 1, "there is no such state: 'gone'; allowed: queued, starting"),
        (["start", "nothing"], 2, "'nothing' is not one of"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_mistakes_are_explained(config: Path, arguments: list[str], code: int, message: str) -> None:
    said = tasks(config, *arguments)
    assert said.code == code
    assert message in said.all.replace("│ ", "")


def test_what_a_state_does_not_allow_is_refused(config: Path, service: Service) -> None:
    task = backtest(service)
    said = tasks(config, "resume", task)
    assert said.code == 1
    assert "is queued, so it cannot resume now" in said.all


def test_without_the_services_tasks_are_seen_and_the_rest_says_what_to_start(
    config: Path, service: Service, runs: Runs
) -> None:
    task = backtest(service)
    service.tasks.store.copied_until(datetime.now(UTC) - timedelta(minutes=5))
    runs.down = True
    listed = tasks(config, "list")
    assert task[:8] in listed.out
    assert "start the services (`stock-pipeline dev`)" in listed.all
    refused = tasks(config, "cancel", task)
    assert refused.code == 1
    assert "nothing answers at its address; to fix it: start the services: stock-pipeline dev" in refused.all
    runs.down, runs.lost = False, True
    unsure = tasks(config, "start", "refresh")
    assert "it may have been done; to fix it: look at `stock-pipeline tasks list`" in unsure.all
