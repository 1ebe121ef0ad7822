"""Tasks over HTTP with every service really running: asked for, followed live, failed, paused, retried, ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.orchestration.backtesting import TRIALS
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline.storage.locks import file_lock
from stock_pipeline_tests.api_service import PASSWORD
from stock_pipeline_tests.copies import copy_market
from stock_pipeline_tests.running import Running, services_running
from stock_pipeline_tests.services import free_port
from stock_pipeline_tests.serving import served

pytestmark = pytest.mark.slow

BACKTEST = {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"fast": 5, "slow": 50}}}
STEPS = ["check_request", "simulate", "judge", "write_report"]


@dataclass
class Everything:
    """The running services, and clients of some accounts."""

    settings: Settings
    running: Running
    ada: httpx.Client
    bob: httpx.Client
    operator: httpx.Client


@pytest.fixture(scope="module")
def everything(finished: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    folder = tmp_path_factory.mktemp("tasks") / "copy"
    copy_market(finished.config_file.parent, folder)
    config = folder / "market.yaml"
    # an account logs in once for all tests
    access = "access:\n  access_minutes: 60\n  passwords: {memory_kib: 8, passes: 1, lanes: 1}\n"
    config.write_text(f"{config.read_text()}\n{access}")
    settings = load_settings(config, environment={})
    accounts = Service(settings).access.accounts
    for name, role in (("ada", "analyst"), ("bob", "analyst"), ("olga", "operator")):
        accounts.create(name, password=PASSWORD, roles=(role,), by="system")
    with services_running(config, folder.parent / "dev.log") as running:
        clients = [client_of(running.api, name) for name in ("ada", "bob", "olga")]
        yield Everything(settings, running, *clients)
        for client in clients:
            client.close()


def client_of(address: str, name: str) -> httpx.Client:
    client = httpx.Client(base_url=address, timeout=120)
    answer = client.post("/api/auth/login", json={"name": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


class Watcher:
    """Follows the stream over the WebSocket; remembers every event."""

    def __init__(self, client: httpx.Client) -> None:
        self.events: list[dict[str, Any]] = []
        # it takes all that comes, also while the test does something else: else it would not hear answers to its pings
        self._socket: ClientConnection = connect(
            str(client.base_url).replace("http", "ws", 1) + "ws/events",
            proxy=None, open_timeout=120, ping_interval=None, max_queue=None,
        )  # fmt: skip
        token = client.headers["Authorization"].removeprefix("Bearer ")
        self._socket.send(json.dumps({"type": "authenticate", "token": token}))
        self.start = self._hear("authenticated")["newest"]
        # from the number that was told: until the service hears this, more may have happened
        self._socket.send(json.dumps({"type": "subscribe", "since": self.start}))
        self._hear("subscribed")

    def _hear(self, kind: str, seconds: float = 120) -> dict[str, Any]:
        """The next message of a kind; there are others, such as heartbeats."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = json.loads(self._socket.recv(max(0.1, deadline - time.monotonic())))
            except TimeoutError:
                raise AssertionError(f"no {kind} within {seconds:.0f} s; the last events: {self.events[-5:]}") from None
            assert message["type"] != "gap", message
            if message["type"] == kind:
                return dict(message)

    def until(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 600) -> dict[str, Any]:
        """Wait for an event."""
        deadline = time.monotonic() + seconds
        while True:
            event = self._hear("event", deadline - time.monotonic())
            self.events.append(event)
            if wanted(event):
                return event

    def state(self, task: str, *states: str) -> dict[str, Any]:
        """Wait until a task has one of these states."""
        return self.until(lambda e: e["task_id"] == task and e["kind"] == "task.state" and e["state"] in states)

    def states(self, task: str) -> list[str]:
        """The states that a task has had since the watcher looks."""
        return [e["state"] for e in self.events if e["task_id"] == task and e["kind"] == "task.state"]

    def close(self) -> None:
        self._socket.close()


def simulations_held_up(settings: Settings) -> AbstractContextManager[None]:
    """Hold the table of trials, to which a simulation adds itself, as another writer does for a moment."""
    return file_lock(settings.home / "lake" / ".locks" / f"{TRIALS.replace('/', '.')}.lock")


@pytest.fixture
def watcher(everything: Everything) -> Iterator[Watcher]:
    watcher = Watcher(everything.ada)
    yield watcher
    watcher.close()


def ask(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = client.post("/api/tasks", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    task: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/tasks/{task['id']}"
    return task


def read(client: httpx.Client, task: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(f"/api/tasks/{task['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def kind_of(answer: httpx.Response) -> str:
    return str(answer.json()["type"].removeprefix("urn:stock-pipeline:problem:"))


@pytest.mark.requirement("R2.1", "R2.3", "R2.4", "R5.1", "R5.2", "R5.3", "R5.4", "A2")
def test_a_task_is_followed_from_the_request_to_its_result(everything: Everything, watcher: Watcher) -> None:
    ada = everything.ada
    task = ask(ada, {**BACKTEST, "priority": "high"})
    assert (task["state"], task["owner"], task["origin"], task["priority"]) == ("queued", "ada", "api", "high")
    assert read(ada, task)["id"] == task["id"]  # seen at once, before the relay has found it
    ended = watcher.state(task["id"], "succeeded", "failed")
    assert ended["state"] == "succeeded", ended
    states = watcher.states(task["id"])
    assert states[0] == "queued"
    assert states[-2:] == ["running", "succeeded"]
    assert len(set(states)) == len(states)
    assert [event["sequence"] for event in watcher.events] == list(
        range(watcher.start + 1, watcher.start + 1 + len(watcher.events))
    )
    shares = [e["data"]["share"] for e in watcher.events if e["kind"] == "task.progress" and e["task_id"] == task["id"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {"sharpe", "trades", "id"} <= set(ended["data"]["result"])
    found = read(ada, task)
    assert found["progress"] == {
        "share": 1.0, "steps_done": 4, "steps_total": 4, "current_step": found["progress"]["current_step"],
        "part": None,
    }  # fmt: skip
    assert found["result"] == ended["data"]["result"]
    assert [change["state"] for change in found["history"]] == states
    assert sorted(found["runs"][0]["step_seconds"]) == sorted(STEPS)
    assert found["allowed"] == ["delete"]
    as_of = datetime.fromisoformat(found["as_of"])
    assert abs((datetime.now(UTC) - as_of).total_seconds()) < 60
    # the next one of its kind has an expected end from its start on
    again = ask(ada, {"kind": "backtest", "parameters": {"strategy": "sma_cross", "parameters": {"fast": 6}}})
    started = watcher.state(again["id"], "running")
    assert started["data"]["expected_end"] is not None
    watcher.state(again["id"], "succeeded")
    listed = ada.get("/api/tasks", params={"owner": "me", "kind": "backtest", "state": "succeeded", "limit": 1}).json()
    assert [item["id"] for item in listed["items"]] == [again["id"]]
    following = ada.get(
        "/api/tasks",
        params={
            "owner": "me", "kind": "backtest", "state": "succeeded", "limit": 1, "cursor": listed["next_cursor"],
        },
    ).json()  # fmt: skip
    assert [item["id"] for item in following["items"]] == [task["id"]]


@pytest.mark.requirement("R2.1", "R5.4")
def test_a_prediction_on_request(everything: Everything, watcher: Watcher) -> None:
    task = ask(everything.ada, {"kind": "predict", "parameters": {"symbols": ["AAPL", "NFLX"]}})
    ended = watcher.state(task["id"], "succeeded", "failed")
    assert ended["state"] == "succeeded", ended
    assert ended["data"]["result"]["predicted"] == 2
    unknown = everything.ada.post("/api/tasks", json={"kind": "predict", "parameters": {"symbols": ["AAPL", "NOPE"]}})
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["parameter"] == "parameters.symbols"
    assert "NOPE" in unknown.json()["detail"]


@pytest.mark.requirement("R2.1")
def test_one_request_is_one_task_however_often_it_is_sent(everything: Everything, watcher: Watcher) -> None:
    ada = everything.ada
    body = {"kind": "backtest", "parameters": {"strategy": "buy_and_hold"}}

    def send(_: int) -> httpx.Response:
        return ada.post("/api/tasks", json=body, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(send, range(5)))
    made = [answer for answer in answers if answer.status_code == 202]
    assert {kind_of(answer) for answer in answers if answer.status_code != 202} <= {"request-in-progress"}
    task = made[0].json()
    assert {answer.json()["id"] for answer in made} == {task["id"]}
    again = send(0)
    assert (again.status_code, again.headers["idempotent-replay"], again.json()["id"]) == (202, "true", task["id"])
    other = ada.post("/api/tasks", json={**body, "priority": "low"}, headers={"Idempotency-Key": "once"})
    assert (other.status_code, kind_of(other)) == (409, "idempotency-key-reused")
    somebody = ask(everything.bob, {**body, "priority": "low"}, **{"Idempotency-Key": "once"})
    assert somebody["id"] != task["id"]
    watcher.state(task["id"], "succeeded")
    runs = everything.running.graphql(
        'query { runsOrError(filter: {pipelineName: "backtest_on_request"}) { ... on Runs { results { '
        "tags { key value } } } } }"
    )["runsOrError"]["results"]
    requests = [tag["value"] for run in runs for tag in run["tags"] if tag["key"] == "stock_pipeline/request"]
    assert len(requests) == len(set(requests))


@pytest.mark.requirement("R2.5", "R5.5", "R2.3")
def test_a_failed_task_says_why_and_goes_on_from_there(everything: Everything, watcher: Watcher) -> None:
    ada, reports = everything.ada, everything.settings.home / "reports" / "backtests"
    aside = reports.with_name("backtests-aside")
    reports.rename(aside)
    reports.write_text("a file where a folder must be")
    try:
        task = ask(ada, {"kind": "backtest", "parameters": {"strategy": "momentum_rank"}})
        failed = watcher.state(task["id"], "failed", "succeeded")
    finally:
        reports.unlink()
        aside.rename(reports)
    assert failed["state"] == "failed"
    assert failed["severity"] == "error"
    error = failed["data"]["error"]
    assert error["step"] == "write_report"
    assert error["cause"]
    assert error["next"]["text"]
    found = read(ada, task)
    assert found["error"] == error
    assert found["allowed"] == ["retry", "delete"]
    answer = ada.post(f"/api/tasks/{task['id']}/retry")
    assert answer.status_code == 202, answer.text
    ended = watcher.state(task["id"], "succeeded", "failed")
    assert ended["state"] == "succeeded", ended
    found = read(ada, task)
    assert (found["attempts"], found["error"]) == (2, None)
    first, second = (sorted(run["step_seconds"]) for run in found["runs"])
    assert (first, second) == (sorted(STEPS[:3]), STEPS[3:])
    refused = ada.post(f"/api/tasks/{task['id']}/retry")
    assert (refused.status_code, kind_of(refused)) == (409, "task-state")


@pytest.mark.requirement("R2.3", "R2.4")
def test_a_paused_task_does_not_repeat_what_is_done(everything: Everything, watcher: Watcher) -> None:
    ada = everything.ada
    with simulations_held_up(everything.settings):
        task = ask(ada, {"kind": "backtest", "parameters": {"strategy": "rsi_mean_reversion"}})
        watcher.until(lambda e: e["task_id"] == task["id"] and e["data"].get("step") == "simulate")
        answer = ada.post(f"/api/tasks/{task['id']}/pause")
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "pausing"
    assert answer.json()["asked"]["by"] == "ada"
    watcher.state(task["id"], "paused")
    found = read(ada, task)
    assert found["allowed"] == ["cancel", "resume"]
    before = set(found["runs"][0]["step_seconds"])
    assert "simulate" in before
    assert kind_of(ada.delete(f"/api/tasks/{task['id']}")) == "task-state"
    assert ada.post(f"/api/tasks/{task['id']}/resume").status_code == 202
    watcher.state(task["id"], "succeeded")
    found = read(ada, task)
    assert not before & set(found["runs"][1]["step_seconds"])
    assert before | set(found["runs"][1]["step_seconds"]) == set(STEPS)
    states = [change["state"] for change in found["history"]]
    assert states[:2] == ["queued", "starting"] or states[:2] == ["queued", "running"]
    assert [state for state in states if "paus" in state] == ["pausing", "paused"]


@pytest.mark.requirement("R2.3", "R8.3", "A2")
def test_a_task_is_ended_by_its_owner_or_an_operator_and_then_forgotten(
    everything: Everything, watcher: Watcher
) -> None:
    ada, bob, operator = everything.ada, everything.bob, everything.operator
    with sole_writer(everything.settings.home, [BACKTESTS], lambda line: None):
        task = ask(ada, {"kind": "backtest", "parameters": {"strategy": "bollinger"}})
        watcher.state(task["id"], "running")
        waiting = ask(ada, {"kind": "backtest", "parameters": {"strategy": "bollinger"}})  # behind the other one
        for action in ("cancel", "pause", "resume", "retry"):
            refused = bob.post(f"/api/tasks/{waiting['id']}/{action}")
            assert (refused.status_code, kind_of(refused)) == (403, "forbidden")
        assert bob.delete(f"/api/tasks/{waiting['id']}").status_code == 403
        assert kind_of(ada.delete(f"/api/tasks/{task['id']}")) == "task-state"
        assert ada.post(f"/api/tasks/{waiting['id']}/pause").status_code == 202
        watcher.state(waiting["id"], "paused")
        assert operator.post(f"/api/tasks/{waiting['id']}/cancel").json()["state"] == "canceled"
        assert operator.post(f"/api/tasks/{task['id']}/cancel").json()["state"] in ("canceling", "canceled")
        watcher.state(task["id"], "canceled")
    found = read(ada, task)
    assert found["asked"]["by"] == "olga"
    assert ada.post(f"/api/tasks/{task['id']}/retry").status_code == 202
    assert watcher.state(task["id"], "succeeded", "failed")["state"] == "succeeded"
    assert ada.delete(f"/api/tasks/{task['id']}").status_code == 204
    assert ada.get(f"/api/tasks/{task['id']}").status_code == 404
    run = everything.running.graphql(
        "query($id: ID!) { runOrError(runId: $id) { __typename } }", {"id": found["runs"][0]["run_id"]}
    )
    assert run["runOrError"]["__typename"] == "RunNotFoundError"
    trail = Service(everything.settings).access.audit.entries(AuditFilter(object_kind="task", object_id=task["id"]))
    assert {entry.action for entry in trail} == {"task.create", "task.cancel", "task.retry", "task.delete"}


@pytest.mark.requirement("R2.1", "A2")
def test_reads_go_on_while_dagster_cannot_be_reached(everything: Everything, watcher: Watcher) -> None:
    lonely = everything.settings.model_copy(
        update={
            "tasks": everything.settings.tasks.model_copy(update={"dagster_url": f"http://127.0.0.1:{free_port()}"})
        }
    )
    with (
        served(create_app(Service(lonely))) as address,
        closing(client_of(f"{address}/", "ada")) as ada,
        ExitStack() as held,
    ):
        held.enter_context(simulations_held_up(everything.settings))  # so that it does not end too early
        task = ask(everything.ada, {"kind": "backtest", "parameters": {"strategy": "buy_and_hold"}})
        assert ada.get("/api/predictions").status_code == 200
        assert read(ada, task)["as_of"] is not None
        assert ada.get("/api/tasks").json()["items"]
        for method, path, body in (
            ("POST", "/api/tasks", BACKTEST),
            ("POST", "/api/tasks", BACKTEST),
            ("POST", f"/api/tasks/{task['id']}/cancel", None),
        ):
            answer = ada.request(method, path, json=body, headers={"Idempotency-Key": "later"} if body else {})
            assert (answer.status_code, kind_of(answer)) == (503, "dagster-unavailable"), answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert "cannot be asked" in answer.json()["detail"]
        held.close()
        watcher.state(task["id"], "succeeded")
        assert read(ada, task)["state"] == "succeeded"
        answer = ada.delete(f"/api/tasks/{task['id']}")
        assert (answer.status_code, kind_of(answer)) == (503, "dagster-unavailable")
    # the key of a request that came to nothing is free
    assert ask(everything.ada, BACKTEST, **{"Idempotency-Key": "later"})["state"] == "queued"
