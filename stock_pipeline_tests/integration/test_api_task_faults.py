"""Tasks among faults: a database that fails between the launch and its entry, slow counts, tasks with a long story."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from fastapi import FastAPI
from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.app import create_app
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.task_service import PERMISSIONS
from stock_pipeline.config.tasks import PredictRequest
from stock_pipeline.storage.database.tables.tasks import EventRow, TaskRow
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import problem, service_for, signed_in
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.run_control import Runs

WANTED = {"kind": "predict", "parameters": {"symbols": ["S001"]}}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    publish(lake, SESSIONS[-1])
    bars = pl.DataFrame({"symbol": ["S001"], "session": [SESSIONS[-1]], "close": [1.0]})
    lake.write_sessions("market/validated_bars", bars, start=SESSIONS[-1], end=SESSIONS[-1])
    return lake


@pytest.fixture
def app(lake: Lake, database_address: str) -> Iterator[FastAPI]:
    service = service_for(
        lake, storage={"metadata": database_address}, tasks={"max_queued": 8, "max_queued_per_account": 8}
    )
    service.runs = Runs()
    yield create_app(service)
    service.database.dispose()


def fails(*arguments: Any, **named: Any) -> Any:
    raise OperationalError("INSERT", {}, Exception("the connection was lost"))


# ------------------------------------------------------------------ launched, but not written down
@pytest.mark.requirement("R2.1", "A5")
def test_a_launch_that_could_not_be_entered_is_not_said_to_have_changed_nothing(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = app.state.service
    with signed_in(app, "analyst", "ada", raise_server_exceptions=False) as ada:
        monkeypatch.setattr(service.tasks.store, "enter", fails)
        answer = ada.post("/api/tasks", json=WANTED, headers={"Idempotency-Key": "one"})
        monkeypatch.undo()
        told = problem(answer, 503, "database-unavailable")
        assert len(service.runs.runs) == 1
        assert "nothing was changed" not in told["detail"]
        assert "may have been done" in told["detail"]
        again = ada.post("/api/tasks", json=WANTED, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.headers["idempotent-replay"]) == (202, "true")
        assert len(service.runs.runs) == 1


@pytest.mark.requirement("A5")
def test_only_a_question_that_changes_nothing_is_said_to_have_changed_nothing(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = app.state.service.tasks.store
    with signed_in(app, "analyst", "ada", raise_server_exceptions=False) as ada:
        task = ada.post("/api/tasks", json=WANTED).json()["id"]
        monkeypatch.setattr(store, "get", fails)
        assert "nothing was changed" in problem(ada.get(f"/api/tasks/{task}"), 503, "database-unavailable")["detail"]
        monkeypatch.undo()
        monkeypatch.setattr(app.state.service.access.audit, "record", fails)  # the last thing that an action does
        told = problem(ada.post(f"/api/tasks/{task}/pause"), 503, "database-unavailable")
        monkeypatch.undo()
        assert "may have been done" in told["detail"]
        assert ada.get(f"/api/tasks/{task}").json()["state"] == "pausing"


# ------------------------------------------------------------------ the limits of the queue
def asked_by(name: str) -> tuple[Principal, str, PredictRequest]:
    return (
        Principal(name, "token", permissions=frozenset(PERMISSIONS.values())),
        "predict",
        PredictRequest(symbols=["S001"]),
    )


@pytest.mark.requirement("R2.2")
def test_a_count_that_takes_long_holds_up_no_other_launch(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = app.state.service.tasks
    counting, go_on, count = threading.Event(), threading.Event(), tasks.store.queued

    def slow(owner: str | None = None) -> int:
        if threading.current_thread().name.startswith("slow"):
            counting.set()
            assert go_on.wait(60)
        return count(owner)

    monkeypatch.setattr(tasks.store, "queued", slow)
    with ThreadPoolExecutor(1, thread_name_prefix="slow") as first, ThreadPoolExecutor(1) as second:
        held = first.submit(tasks.create, *asked_by("ada"))
        assert counting.wait(60)
        try:
            assert second.submit(tasks.create, *asked_by("bob")).result(60).owner == "bob"
        finally:
            go_on.set()
        assert held.result(60).owner == "ada"


@pytest.mark.requirement("R2.2", "V2")
def test_launches_at_once_fill_the_queue_and_never_more(app: FastAPI) -> None:
    tasks, accepted, refused = app.state.service.tasks, [], []

    def ask(number: int) -> None:
        try:
            accepted.append(tasks.create(*asked_by(f"account-{number % 3}")))
        except ProblemError as error:
            refused.append(error.kind)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(24)))
    assert set(refused) == {"queue-full"}
    assert 1 <= len(accepted) == tasks.store.queued() <= 8
    for number in range(8 - len(accepted)):  # a launch that is nearly over may have been counted twice for a moment
        ask(number)
    assert len(accepted) == 8


# ------------------------------------------------------------------ tasks with a long story
@pytest.mark.requirement("R5.4", "R2.4")
def test_the_newest_of_very_many_events_are_shown(app: FastAPI) -> None:
    service, start = app.state.service, datetime(2026, 1, 5, tzinfo=UTC)
    with signed_in(app, "analyst", "ada") as ada:
        task = ada.post("/api/tasks", json=WANTED).json()["id"]
        first, common = service.events.newest() + 1, {"severity": "info", "task_id": task, "recorded_at": 0.0}
        rows = [
            {
                "sequence": first + number,
                "source_key": f"made-up:{number}",
                "kind": "task.state" if number % 2 else "task.progress",
                "at": start + timedelta(seconds=number),
                "state": "running" if number % 2 else None,
                "data": {"steps_done": number, "steps_total": 9_999, "step": f"step-{number:04d}"},
                **common,
            }
            for number in range(2_200)
        ]
        with Session(service.database) as session, session.begin():
            session.execute(insert(EventRow), rows)
        shown = ada.get(f"/tasks/{task}").text
        assert "step-2198" in shown
        assert shown.index("step-2198") < shown.index("step-2196"), "newest first"
        history = ada.get(f"/api/tasks/{task}").json()["history"]
        assert history[-1]["data"]["step"] == "step-2199"
        assert [change["sequence"] for change in history] == sorted(change["sequence"] for change in history)


@pytest.mark.requirement("R5.4", "A1")
def test_the_page_and_the_api_read_what_a_task_has_predicted_alike(app: FastAPI) -> None:
    service = app.state.service
    row = {"symbol": "S001", "session": "2024-01-02", "expected_return": 0.0123, "lower": -0.5, "upper": 0.5,
           "confidence": 0.5, "model_name": "ridge", "model_version": 77}  # fmt: skip
    with signed_in(app, "analyst", "ada") as ada:
        task = ada.post("/api/tasks", json=WANTED).json()["id"]
        with Session(service.database) as session, session.begin():
            session.execute(update(TaskRow).values(state="succeeded"))
        problem(ada.get(f"/api/predictions/requests/{task}"), 404, "predictions-not-ready")
        assert "ridge 77" not in ada.get(f"/tasks/{task}").text
        folder = service.reports / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{task}.json").write_text(json.dumps({"task": task, "predictions": [row], "unpredicted": []}))
        assert ada.get(f"/api/predictions/requests/{task}").json()["predictions"] == [row]
        assert "ridge 77" in ada.get(f"/tasks/{task}").text
        (folder / f"{task}.json").unlink()
