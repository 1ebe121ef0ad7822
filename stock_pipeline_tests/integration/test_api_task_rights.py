"""To go on with a task, or to repeat it, is to start it: that needs what starting one of its kind needs."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from stock_pipeline.storage.database.tables.tasks import TaskRow
from stock_pipeline_tests.api_service import PASSWORD, problem, signed_in
from stock_pipeline_tests.run_control import Runs

pytestmark = pytest.mark.requirement("R8.2", "R8.3")


@pytest.mark.parametrize(("state", "action"), [("failed", "retry"), ("paused", "resume")])
def test_owners_start_nothing_again_that_they_may_not_start(lone_app: FastAPI, state: str, action: str) -> None:
    service = lone_app.state.service
    service.runs = runs = Runs()
    operator = signed_in(lone_app, "operator", "ole")
    task = operator.post("/api/tasks", json={"kind": "train"}).json()["id"]
    scopes = ["tasks:read", "tasks:control"]
    made = operator.post("/api/account/keys", json={"name": "watcher", "scopes": scopes, "password": PASSWORD}).json()
    program = TestClient(lone_app, headers={"X-API-Key": made["key"]})
    with Session(service.database) as session, session.begin():
        session.execute(update(TaskRow).where(TaskRow.id == task).values(state=state))

    problem(program.post(f"/api/tasks/{task}/{action}"), 403, "forbidden")
    service.access.roles.assign("ole", "analyst", by="system")
    service.access.roles.withdraw("ole", "operator", by="system")
    problem(operator.post(f"/api/tasks/{task}/{action}"), 403, "forbidden")
    assert runs.repeated == []
    service.access.roles.assign("ole", "operator", by="system")
    assert operator.post(f"/api/tasks/{task}/{action}").status_code == 202
    assert len(runs.repeated) == 1
