"""Requests for tasks: who may ask for what, what is refused at once, exactly one run for each request, full queues."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.orm import Session

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api import dagster_client, dagster_queries, task_launching
from stock_pipeline.api.app import create_app
from stock_pipeline.api.dagster_client import DagsterClient
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.config import addresses
from stock_pipeline.config.launches import KIND, OWNER, PRIORITY, REQUEST
from stock_pipeline.config.tasks import PRIORITIES
from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskRunRow
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import service_for, settings_for, signed_in
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.run_control import Runs
from stock_pipeline_tests.services import free_port
from stock_pipeline_tests.waiting import wait_until

BODIES: dict[str, dict[str, Any]] = {
    "predict": {"kind": "predict", "parameters": {"symbols": ["S001", "S002"]}},
    "backtest": {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"fast": 5, "slow": 50}}},
    "train": {"kind": "train"},
    "refresh": {"kind": "refresh", "parameters": {}},
    "backfill": {"kind": "backfill", "parameters": {"start": "2020-01-01", "end": "2020-12-31"}},
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    publish(lake, SESSIONS[-1])
    bars = pl.DataFrame({"symbol": ["S001", "OLD"], "session": [SESSIONS[-1]] * 2, "close": [1.0, 2.0]})
    lake.write_sessions("market/validated_bars", bars, start=SESSIONS[-1], end=SESSIONS[-1])
    return lake


@pytest.fixture
def app(lake: Lake, database_address: str) -> Iterator[FastAPI]:
    service = service_for(
        lake, storage={"metadata": database_address}, tasks={"max_queued": 6, "max_queued_per_account": 4}
    )
    service.runs = Runs()
    yield create_app(service)
    service.database.dispose()


@pytest.fixture
def sqlite_app(lake: Lake, sqlite_address: str) -> Iterator[FastAPI]:
    service = service_for(lake, storage={"metadata": sqlite_address})
    service.runs = Runs()
    yield create_app(service)
    service.database.dispose()


def runs_of(app: FastAPI) -> Runs:
    runs: Runs = app.state.service.runs
    return runs


def kind_of(answer: Any) -> str:
    return str(answer.json()["type"].removeprefix("urn:stock-pipeline:problem:"))


def turn(app: FastAPI, task_id: str, state: str, **values: Any) -> None:
    """Do to a task what the relay does."""
    with Session(app.state.service.database) as session, session.begin():
        session.execute(update(TaskRow).where(TaskRow.id == task_id).values(state=state, **values))


# ------------------------------------------------------------------ who may ask for what
@pytest.mark.requirement("R2.1", "R8.2", "V8", "A2")
def test_each_kind_needs_its_own_permission(sqlite_app: FastAPI) -> None:
    allowed = {
        "viewer": set(),
        "analyst": {"predict", "backtest"},
        "operator": set(BODIES),
        "administrator": set(BODIES),
    }
    for role, kinds in allowed.items():
        with signed_in(sqlite_app, role) as client:
            for kind, body in BODIES.items():
                answer = client.post("/api/tasks", json=body)
                assert answer.status_code == (202 if kind in kinds else 403), (role, kind, answer.text)
    anonymous = TestClient(sqlite_app)
    assert anonymous.post("/api/tasks", json=BODIES["predict"]).status_code == 401
    assert anonymous.post("/api/tasks", json={"kind": ["predict"]}).status_code == 401
    with signed_in(sqlite_app, "viewer") as viewer:
        for broken in ({"kind": "dance"}, {"kind": ["predict"]}, {"kind": None}, [], {}):
            assert viewer.post("/api/tasks", json=broken).status_code == 403  # not told what a right one looks like
        assert viewer.get("/api/tasks").status_code == 200
    # a key of a program that may only ask for predictions
    access = sqlite_app.state.service.access
    _, secret = access.keys.create("the-analyst", "narrow", ["predictions:request"])
    headers = {"X-API-Key": secret}
    assert anonymous.post("/api/tasks", json=BODIES["predict"], headers=headers).status_code == 202
    assert anonymous.post("/api/tasks", json=BODIES["backtest"], headers=headers).status_code == 403
    assert anonymous.get("/api/tasks", headers=headers).status_code == 403


@pytest.mark.requirement("R2.1", "R2.2", "A2")
def test_a_task_is_a_run_with_the_owner_the_request_and_the_priority(app: FastAPI) -> None:
    with signed_in(app, "operator", "olga") as client:
        for priority, number in PRIORITIES.items():
            answer = client.post("/api/tasks", json={**BODIES["backtest"], "priority": priority})
            task = answer.json()
            run = runs_of(app).runs[task["id"]]
            assert (run.job, run.tags[KIND], run.tags[OWNER]) == ("backtest_on_request", "backtest", "olga")
            assert run.tags[PRIORITY] == str(number)
            assert run.tags[REQUEST]
            assert answer.headers["location"] == f"/api/tasks/{task['id']}"
            assert (task["state"], task["priority"], task["parameters"]["strategy"]) == (
                "queued",
                priority,
                "sma_cross",
            )
        read = client.get(f"/api/tasks/{task['id']}")
        assert read.json()["history"][0]["state"] == "queued"
        assert read.json()["as_of"] is None  # no relay has said anything
        same = client.get(f"/api/tasks/{task['id']}", headers={"If-None-Match": read.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        entries = app.state.service.access.audit.entries(AuditFilter(action="task.create"))
        assert entries[0].object_id == task["id"]
        assert entries[0].actor == "olga"


# ------------------------------------------------------------------ what is refused at once
@pytest.mark.parametrize(
    ("body", "parameter", "said"),
    [
        ({"kind": "predict", "parameters": {"symbols": ["S001", "OLD", "NOPE"]}}, "parameters.symbols", "NOPE"),
        ({"kind": "predict", "parameters": {"symbols": []}}, "predict.parameters.symbols", "at least 1"),
        ({"kind": "predict", "parameters": {"symbols": ["S001", "S001"]}}, "predict.parameters", "once"),
        ({"kind": "predict", "parameters": {"symbols": ["'; DROP TABLE task;--"]}}, "parameters.symbols", "no bars"),
        ({"kind": "predict", "parameters": {"symbols": ["S001"], "more": 1}}, "predict.parameters.more", "unknown"),
        ({"kind": "predict", "parameters": {"symbols": ["S001"]}, "owner": "x"}, "predict.owner", "unknown"),
        ({"kind": "predict"}, "predict.parameters", "required"),
        ({"kind": "predict", "parameters": {"symbols": ["S001"]}, "priority": 1}, "predict.priority", "low"),
        ({"kind": "backtest", "parameters": {"strategy": "os:system"}}, "parameters.strategy", "allowed"),
        ({"kind": "backtest", "parameters": {"strategy": "../x"}}, "parameters.strategy", "allowed"),
        (
            {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"fast": 0}}},
            "parameters.parameters",
            "fast",
        ),
        (
            {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"quick": 1}}},
            "parameters.parameters",
            "fast",
        ),
        (
            {"kind": "backtest", "parameters": {"strategy": "sma_cross", "start": "2021-01-02", "end": "2021-01-01"}},
            "backtest.parameters",
            "before",
        ),
        ({"kind": "backtest", "parameters": {"strategy": "sma_cross", "start": "1492-01-01"}}, "backtest", "1900"),
        ({"kind": "train", "parameters": {"families": ["oracle"]}}, "parameters.families", "ridge"),
        ({"kind": "backfill", "parameters": {"end": "1950-01-01"}}, "parameters.end", "history"),
        ({"kind": "dance"}, "body", "predict"),
    ],
)
@pytest.mark.requirement("R2.1")
def test_nonsense_is_refused_before_anything_is_launched(
    sqlite_app: FastAPI, body: dict[str, Any], parameter: str, said: str
) -> None:
    with signed_in(sqlite_app, "operator") as client:
        answer = client.post("/api/tasks", json=body)
        assert answer.status_code == 422, answer.text
        assert kind_of(answer) == "invalid-parameters"
        assert answer.json()["errors"][0]["parameter"].startswith(parameter), answer.text
        assert said in answer.text
    assert not runs_of(sqlite_app).runs


def test_deep_parameters_and_bad_keys_are_refused(sqlite_app: FastAPI) -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    with signed_in(sqlite_app, "analyst") as client:
        body = {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"fast": deep}}}
        assert client.post("/api/tasks", json=body).status_code == 422
        for key in ("", " ", "x" * 101, "a b", "ü".encode("latin-1"), "\x7f"):
            answer = client.post("/api/tasks", json=BODIES["predict"], headers={"Idempotency-Key": key})
            assert answer.status_code == 422, key
        twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        assert client.post("/api/tasks", json=BODIES["predict"], headers=twice).status_code == 422
    assert not runs_of(sqlite_app).runs


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.fixed_dictionaries(
        {"kind": st.sampled_from([*BODIES, "x"])},
        optional={
            "priority": st.sampled_from(["low", "urgent", "x", None, 3]),
            "parameters": st.dictionaries(
                st.sampled_from(["symbols", "strategy", "parameters", "start", "end", "families", "rebuild", "x"]),
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=8,
                ),
                max_size=4,
            ),
        },
    )
)
@pytest.mark.requirement("R2.1", "V8")
def test_whatever_is_sent_is_accepted_or_refused_but_never_breaks(hammered: TestClient, body: dict[str, Any]) -> None:
    content = json.dumps(body)  # with Infinity where the number is so
    answer = hammered.post("/api/tasks", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (202, 400, 409, 422, 429), answer.text


@pytest.fixture
def hammered(sqlite_app: FastAPI) -> Iterator[TestClient]:
    sqlite_app.state.service.access.limits.check = lambda *arguments: None
    with signed_in(sqlite_app, "operator") as client:
        yield client


# ------------------------------------------------------------------ exactly one run for each request
@pytest.mark.requirement("R2.1", "V2")
def test_a_key_stands_for_one_request(app: FastAPI) -> None:
    with signed_in(app, "analyst", "ada") as ada, signed_in(app, "analyst", "bob") as bob:

        def send(client: TestClient, body: dict[str, Any] = BODIES["backtest"]) -> Any:
            return client.post("/api/tasks", json=body, headers={"Idempotency-Key": "k-1"})

        first, again = send(ada), send(ada)
        assert (first.status_code, again.status_code) == (202, 202)
        assert "idempotent-replay" not in first.headers
        assert again.headers["idempotent-replay"] == "true"
        assert again.json()["id"] == first.json()["id"]
        other = send(ada, {**BODIES["backtest"], "priority": "low"})
        assert (other.status_code, kind_of(other)) == (409, "idempotency-key-reused")
        assert send(bob).json()["id"] != first.json()["id"]
        assert len(runs_of(app).runs) == 2
        # written differently, but the same request
        explicit = {
            "kind": "backtest",
            "priority": "normal",
            "parameters": {**BODIES["backtest"]["parameters"], "end": None},
        }
        assert send(ada, explicit).json()["id"] == first.json()["id"]
        turn(app, first.json()["id"], "succeeded")
        assert ada.delete(f"/api/tasks/{first.json()['id']}").status_code == 204
        gone = send(ada)
        assert (gone.status_code, kind_of(gone)) == (410, "task-gone")


@pytest.mark.requirement("R2.1", "V2")
def test_a_launch_whose_answer_was_lost_is_found_again(app: FastAPI) -> None:
    runs = runs_of(app)
    with signed_in(app, "analyst", "ada") as ada:
        headers = {"Idempotency-Key": "lost"}
        runs.lost = True
        answer = ada.post("/api/tasks", json=BODIES["backtest"], headers=headers)
        assert (answer.status_code, kind_of(answer)) == (503, "dagster-unavailable")
        runs.lost = False
        assert len(runs.runs) == 1
        again = ada.post("/api/tasks", json=BODIES["backtest"], headers=headers)
        assert (again.status_code, again.headers["idempotent-replay"]) == (202, "true")
        assert again.json()["id"] in runs.runs
        assert len(runs.runs) == 1
        assert ada.get(f"/api/tasks/{again.json()['id']}").json()["owner"] == "ada"


@pytest.mark.requirement("R2.1", "V2")
def test_a_service_that_dies_before_or_after_the_launch_leaves_no_second_run(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, runs = app.state.service, runs_of(app)
    launcher, store = service.tasks.launcher, service.tasks.store
    with signed_in(app, "analyst", "ada") as ada:

        def send(key: str) -> Any:
            return ada.post("/api/tasks", json=BODIES["backtest"], headers={"Idempotency-Key": key})

        class Died(BaseException):
            pass

        def die(*arguments: Any) -> None:
            raise Died

        # after the launch, before the task was entered
        monkeypatch.setattr(launcher, "_enter", die)
        with pytest.raises(Died):
            service.tasks.submit(*_direct(service, "ada"), idempotency_key="after")
        monkeypatch.undo()
        assert len(runs.runs) == 1
        assert send("after").headers["idempotent-replay"] == "true"
        assert len(runs.runs) == 1
        # before the launch: others wait until it is certain that nothing comes of it
        monkeypatch.setattr(launcher, "_launch", die)
        with pytest.raises(Died):
            service.tasks.submit(*_direct(service, "ada"), idempotency_key="before")
        monkeypatch.undo()
        waits = send("before")
        assert (waits.status_code, kind_of(waits)) == (409, "request-in-progress")
        assert int(waits.headers["retry-after"]) > 0
        later = datetime.now(UTC) + task_launching.LEASE + timedelta(seconds=1)
        monkeypatch.setattr(launcher, "_clock", lambda: later)
        monkeypatch.setattr(store, "_clock", lambda: later)
        healed = send("before")
        assert healed.status_code == 202
        assert "idempotent-replay" not in healed.headers
        assert send("before").json()["id"] == healed.json()["id"]
        assert len(runs.runs) == 2


def _direct(service: Any, name: str) -> tuple[Any, str, Any]:
    from stock_pipeline.access.principal import Principal
    from stock_pipeline.config.tasks import BacktestRequest

    who = Principal(name, "token", permissions=frozenset({"backtests:create"}))
    return who, "backtest", BacktestRequest(**BODIES["backtest"]["parameters"])


@pytest.mark.requirement("R2.1", "V2")
def test_requests_at_once_with_one_key_are_one_run(app: FastAPI) -> None:
    runs = runs_of(app)
    runs.gate.clear()
    with signed_in(app, "analyst", "ada") as ada:
        answers: list[Any] = []

        def send() -> None:
            answers.append(ada.post("/api/tasks", json=BODIES["backtest"], headers={"Idempotency-Key": "once"}))

        first = threading.Thread(target=send)
        first.start()
        wait_until(app.state.service.tasks.launcher._under_way.total, lambda: answers)
        send()
        assert kind_of(answers[0]) == "request-in-progress"
        runs.gate.set()
        first.join(120)
        assert answers[1].status_code == 202
        assert len(runs.runs) == 1


# ------------------------------------------------------------------ queues that are full, Dagster that is away
@pytest.mark.requirement("R2.2")
def test_a_full_queue_says_when_to_come_again(app: FastAPI) -> None:
    runs = runs_of(app)
    with signed_in(app, "analyst", "ada") as ada, signed_in(app, "analyst", "bob") as bob:
        tasks = [ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"] for _ in range(4)]
        full = ada.post("/api/tasks", json=BODIES["backtest"], headers={"Idempotency-Key": "full"})
        assert (full.status_code, kind_of(full)) == (429, "queue-full")
        assert int(full.headers["retry-after"]) == 30
        assert len(runs.runs) == 4
        for _ in range(2):
            assert bob.post("/api/tasks", json=BODIES["predict"]).status_code == 202
        crowded = bob.post("/api/tasks", json=BODIES["predict"])
        assert (crowded.status_code, kind_of(crowded)) == (429, "queue-full")
        # a task runs: there is room again, and the estimate says when there will be more
        turn(app, tasks[0], "running", expected_end=datetime.now(UTC) + timedelta(seconds=500))
        again = ada.post("/api/tasks", json=BODIES["backtest"], headers={"Idempotency-Key": "full"})
        assert again.status_code == 202  # the key of the refused request was not used up
        full = ada.post("/api/tasks", json=BODIES["backtest"])
        assert 300 <= int(full.headers["retry-after"]) <= 500


@pytest.mark.requirement("R2.1")
def test_without_dagster_reads_go_on_and_the_rest_says_why_not(app: FastAPI) -> None:
    runs = runs_of(app)
    with signed_in(app, "analyst", "ada") as ada:
        made = [ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"] for _ in range(3)]
        turn(app, made[0], "failed")
        turn(app, made[1], "running")
        runs.down = True
        for path in (f"{made[0]}/retry", f"{made[1]}/cancel", f"{made[2]}/pause", f"{made[2]}/cancel"):
            answer = ada.post(f"/api/tasks/{path}")
            assert (answer.status_code, kind_of(answer)) == (503, "dagster-unavailable"), path
            assert answer.headers["retry-after"] == "10"
        assert ada.delete(f"/api/tasks/{made[0]}").status_code == 503
        assert ada.post("/api/tasks", json=BODIES["backtest"]).status_code == 503
        states = [item["state"] for item in ada.get("/api/tasks").json()["items"]]
        assert states == ["queued", "running", "failed"]  # nothing was promised
        assert ada.get("/api/predictions").status_code == 200
        assert ada.post(f"/api/tasks/{made[1]}/pause").json()["state"] == "pausing"  # the run sees that by itself
        runs.down = False
        assert ada.post(f"/api/tasks/{made[0]}/retry").status_code == 202


@pytest.mark.requirement("R2.5")
def test_a_pause_never_ends_a_process_although_the_tables_lag_behind(sqlite_app: FastAPI) -> None:
    runs = runs_of(sqlite_app)
    with signed_in(sqlite_app, "analyst", "ada") as ada:
        begun, waits, taken = (ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"] for _ in range(3))
        # Dagster has started them, and the relay has not told it yet
        runs.runs[begun] = replace(runs.runs[begun], status="STARTED")
        runs.runs[taken] = replace(runs.runs[taken], status="STARTING")
        for task in (begun, waits, taken):
            assert ada.post(f"/api/tasks/{task}/pause").json()["state"] == "pausing"
        assert runs.terminated == [waits]  # the others look for the wish before their next step


@pytest.mark.requirement("R2.5")
def test_what_people_repeat_is_not_taken_off_the_automatic_retries(sqlite_app: FastAPI) -> None:
    runs = runs_of(sqlite_app)
    with signed_in(sqlite_app, "analyst", "ada") as ada:
        task = ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"]
        runs.runs[task].tags["dagster/max_retries"] = "2"
        turn(sqlite_app, task, "failed", attempts=3)
        assert ada.post(f"/api/tasks/{task}/retry").status_code == 202
        *_, repetition = runs.runs.values()
        # Dagster starts a run again while its chain has at most so many: this one is the fourth
        assert repetition.tags["dagster/max_retries"] == "5"


# ------------------------------------------------------------------ what a state allows
@pytest.mark.requirement("R2.3", "R2.5", "V2", "A2")
def test_what_may_be_asked_depends_on_the_state(app: FastAPI) -> None:
    runs = runs_of(app)
    granted = {
        "pause": {"queued", "starting", "running", "retrying"},
        "cancel": {"queued", "starting", "running", "pausing", "retrying", "paused"},
        "resume": {"paused"},
        "retry": {"failed", "canceled"},
        "delete": {"succeeded", "failed", "canceled"},
    }
    states = ["queued", "starting", "running", "pausing", "paused", "canceling", "canceled", "succeeded", "failed"]
    with signed_in(app, "operator", "olga") as client:
        for state in [*states, "retrying"]:
            for action, allowed in granted.items():
                task = client.post("/api/tasks", json=BODIES["backtest"]).json()["id"]
                turn(app, task, state, steps_done=2 if action == "resume" else 0)
                listed = client.get(f"/api/tasks/{task}").json()["allowed"]
                assert (action in listed) == (state in allowed)
                path = f"/api/tasks/{task}"
                answer = client.delete(path) if action == "delete" else client.post(f"{path}/{action}")
                if state in allowed:
                    assert answer.status_code == (204 if action == "delete" else 202), (state, action, answer.text)
                else:
                    assert (answer.status_code, kind_of(answer)) == (409, "task-state")
                    assert state in answer.json()["detail"]
                turn(app, task, "succeeded")
        assert {strategy for _, strategy in runs.repeated} == {"FROM_FAILURE", "ALL_STEPS"}


@pytest.mark.requirement("R2.1")
def test_runs_of_the_command_line_are_left_to_it(sqlite_app: FastAPI) -> None:
    with signed_in(sqlite_app, "operator") as client:
        task = client.post("/api/tasks", json=BODIES["backtest"]).json()["id"]
        for state, actions in (("running", ("pause", "cancel")), ("failed", ("retry",))):
            turn(sqlite_app, task, state, origin="command line")
            assert client.get(f"/api/tasks/{task}").json()["allowed"] == (["delete"] if state == "failed" else [])
            for action in actions:
                answer = client.post(f"/api/tasks/{task}/{action}")
                assert (answer.status_code, kind_of(answer)) == (409, "task-state")
        assert not runs_of(sqlite_app).repeated
        assert client.delete(f"/api/tasks/{task}").status_code == 204


@pytest.mark.requirement("R2.5", "V2")
def test_two_people_who_retry_at_once_launch_one_run(app: FastAPI) -> None:
    runs = runs_of(app)
    with signed_in(app, "operator", "olga") as client:
        task = client.post("/api/tasks", json=BODIES["backtest"]).json()["id"]
        turn(app, task, "failed")
        assert client.post(f"/api/tasks/{task}/retry").status_code == 202
        second = client.post(f"/api/tasks/{task}/retry")
        assert (second.status_code, kind_of(second)) == (409, "task-state")
        assert len(runs.repeated) == 1
        # a launch that failed gives the right to launch back
        turn(app, task, "failed", asked=None)
        runs.repeat = _nothing_left  # type: ignore[method-assign]
        refused = client.post(f"/api/tasks/{task}/retry")
        assert (refused.status_code, kind_of(refused)) == (409, "nothing-to-repeat")
        del runs.repeat
        assert client.post(f"/api/tasks/{task}/retry").status_code == 202


def _nothing_left(*arguments: Any) -> Any:
    raise ProblemError(409, "nothing-to-repeat", "every step of the run has succeeded; nothing is left to do")


@pytest.mark.requirement("R8.3")
def test_tasks_of_others_and_of_the_platform_need_the_wider_permission(sqlite_app: FastAPI) -> None:
    app = sqlite_app
    with (
        signed_in(app, "analyst", "ada") as ada,
        signed_in(app, "analyst", "bob") as bob,
        signed_in(app, "operator") as operator,
        signed_in(app, "viewer") as viewer,
    ):
        mine, ours = (ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"] for _ in range(2))
        turn(app, ours, "queued", owner=None, origin="schedule")
        for client in (bob, viewer):
            for path in (f"{mine}/cancel", f"{mine}/pause", f"{ours}/cancel"):
                assert client.post(f"/api/tasks/{path}").status_code == 403
            assert client.delete(f"/api/tasks/{mine}").status_code == 403
            assert client.get(f"/api/tasks/{mine}").status_code == 200
        assert ada.post(f"/api/tasks/{ours}/cancel").status_code == 403
        assert operator.post(f"/api/tasks/{ours}/cancel").status_code == 202
        assert ada.post(f"/api/tasks/{mine}/cancel").status_code == 202
        trail = app.state.service.access.audit.entries(AuditFilter(action="task.cancel"))
        assert [(entry.actor, entry.object_id) for entry in trail] == [("ada", mine), ("the-operator", ours)]


# ------------------------------------------------------------------ lists
@pytest.mark.requirement("R2.1", "A2")
def test_lists_are_filtered_and_paged_without_loss(app: FastAPI) -> None:
    with signed_in(app, "operator", "olga") as olga, signed_in(app, "analyst", "ada") as ada:
        made = []
        for number in range(12):
            client, kind = (olga, "train") if number % 3 == 0 else (ada, ["predict", "backtest"][number % 2])
            task = client.post("/api/tasks", json=BODIES[kind]).json()
            turn(app, task["id"], ["succeeded", "running", "failed"][number % 3])
            made.append((task["id"], kind, "olga" if client is olga else "ada"))
        newest_first = [task for task, _, _ in reversed(made)]

        def pages(**filters: Any) -> list[str]:
            seen: list[str] = []
            cursor = None
            while True:
                answer = ada.get("/api/tasks", params={"limit": 5, **filters, **({"cursor": cursor} if cursor else {})})
                assert answer.status_code == 200, answer.text
                seen += [item["id"] for item in answer.json()["items"]]
                cursor = answer.json()["next_cursor"]
                if cursor is None:
                    return seen

        assert pages() == newest_first
        assert pages(owner="me") == [task for task, _, owner in reversed(made) if owner == "ada"]
        assert pages(owner="olga", kind="train") == [task for task, kind, _ in reversed(made) if kind == "train"]
        assert pages(state="failed") == [task for task in newest_first if made.index(_of(made, task)) % 3 == 2]
        assert pages(active="true") == [task for task in newest_first if made.index(_of(made, task)) % 3 == 1]
        assert pages(active="true", state="failed") == []
        assert pages(text="SMA_") == [task for task, kind, _ in reversed(made) if kind == "backtest"]
        assert pages(text="%") == []  # not a wildcard
        assert pages(since="2999-01-01T00:00:00Z") == []
        assert pages(until="2999-01-01T00:00:00Z", origin="api") == newest_first
        for bad in (
            {"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"since": "2020-01-01"}, {"state": "x"}, {"more": 1},
            {"kind": ""}, {"text": "x" * 101}, {"origin": "mars"},
        ):  # fmt: skip
            assert ada.get("/api/tasks", params=bad).status_code in (400, 422), bad
        assert ada.get("/api/tasks?kind=train&kind=predict").status_code == 422


def _of(made: list[tuple[str, str, str]], task: str) -> tuple[str, str, str]:
    return next(one for one in made if one[0] == task)


@pytest.mark.requirement("R2.1", "A2")
def test_deleting_takes_the_runs_along_and_leaves_the_events(app: FastAPI) -> None:
    with signed_in(app, "analyst", "ada") as ada:
        task = ada.post("/api/tasks", json=BODIES["backtest"]).json()["id"]
        with Session(app.state.service.database) as session, session.begin():
            session.add(TaskRunRow(run_id="second", task_id=task, status="", created_at=datetime.now(UTC)))
        turn(app, task, "failed")
        assert ada.delete(f"/api/tasks/{task}").status_code == 204
        assert set(runs_of(app).deleted) == {task, "second"}
        for answer in (ada.get(f"/api/tasks/{task}"), ada.delete(f"/api/tasks/{task}")):
            assert (answer.status_code, kind_of(answer)) == (404, "task-not-found")
        events = ada.get("/api/events", params={"task_id": task}).json()["items"]
        assert [event["state"] for event in events] == ["queued"]


# ------------------------------------------------------------------ the client of Dagster's GraphQL
def test_every_question_fits_the_schema_of_the_installed_dagster() -> None:
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    schema = create_schema().graphql_schema
    assert [validate(schema, parse(query)) for query in dagster_queries.ALL] == [[]] * len(dagster_queries.ALL)


@contextmanager
def answering(answer: Callable[[], tuple[int, bytes]]) -> Iterator[str]:
    """A web server that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = answer()
            if not status:
                self.connection.close()
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>no</html>", (503, "dagster-unavailable")),
        (502, b"", (503, "dagster-unavailable")),
        (200, b"[]", (503, "dagster-unavailable")),
        (200, b'{"errors": [{"message": "x"}]}', (503, "dagster-unavailable")),
        (0, b"", (503, "dagster-unavailable")),
        (200, b'{"data": {"x": {"__typename": "PythonError", "message": "secret"}}}', (503, "dagster-unavailable")),
        (200, b'{"data": {"x": {"__typename": "PipelineNotFoundError"}}}', (503, "dagster-unavailable")),
        (
            200,
            b'{"data": {"x": {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "", "path": []}]}}}',
            (422, "invalid-parameters"),
        ),
        (200, b'{"data": {"x": {"__typename": "InvalidSubsetError", "message": "x"}}}', (409, "nothing-to-repeat")),
    ],
)
def test_answers_of_a_broken_web_server_are_told_as_problems(
    status: int, body: bytes, expected: tuple[int, str]
) -> None:
    with answering(lambda: (status, body)) as address, pytest.raises(ProblemError) as raised:
        DagsterClient(address, timeout=60).launch("nightly", {}, {})
    assert (raised.value.status, raised.value.kind) == expected
    assert "secret" not in raised.value.detail


def test_a_web_server_that_is_slow_or_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dagster_client, "HEALTH_SECONDS", 120.0)
    release = threading.Event()

    def slow() -> tuple[int, bytes]:
        release.wait(300)
        return 200, json.dumps({"data": {"version": "1"}}).encode()

    with answering(slow) as address:
        with pytest.raises(ProblemError) as raised:
            DagsterClient(address, timeout=0.2).get("x")
        assert "did not answer in time" in raised.value.detail
        release.set()
        assert DagsterClient(address).health() == "1"
    with pytest.raises(ProblemError) as raised:
        DagsterClient(f"http://127.0.0.1:{free_port()}").health()
    assert "nothing answers" in raised.value.detail
    assert raised.value.headers == {"Retry-After": "10"}


def test_the_web_server_is_found_by_the_configuration(tmp_path: Path) -> None:
    def address(**sections: Any) -> str:
        return addresses.dagster(settings_for(tmp_path / "lake", tmp_path / "home", **sections))

    assert address(services={"dagster_port": 3001}) == "http://127.0.0.1:3001"
    assert address(services={"host": "0.0.0.0", "dagster_port": 3001}) == "http://127.0.0.1:3001"
    assert address(services={"host": "::1", "dagster_port": 3001}) == "http://[::1]:3001"
    assert address(tasks={"dagster_url": "http://dagster:3000"}) == "http://dagster:3000"
