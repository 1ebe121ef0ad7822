"""The routes of alerts, on SQLite and Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.paging import Page
from stock_pipeline.api.schemas_market import Alert as AlertAnswer
from stock_pipeline.observability.alerts import Alert
from stock_pipeline_tests.api_finished import all_pages
from stock_pipeline_tests.api_service import problem, signed_in

NOW = datetime(2024, 5, 2, 18, 0, tzinfo=UTC)


def fill(app: FastAPI) -> None:
    """Six alerts of three problems."""
    for number in range(6):
        app.state.service.alert_outbox.enqueue(
            Alert(
                kind="run_failed" if number % 2 else "overdue",
                severity=("warning", "error", "critical")[number % 3],
                title=f"problem {number % 3} <script>",
                body="something happened",
                fingerprint=f"problem-{number % 3}",
                source_key=f"alert-{number}",
                created_at=NOW + timedelta(minutes=number),
                labels={"market": "small"},
                remedy="look at it",
            )
        )


@pytest.mark.requirement("A6", "P3")
def test_alerts_are_listed_filtered_and_paged(app: FastAPI) -> None:
    client = signed_in(app)
    assert client.get("/api/alerts").json() == {"items": [], "next_cursor": None}
    fill(app)
    page = Page[AlertAnswer].model_validate(client.get("/api/alerts").json())
    assert [one.created_at for one in page.items] == [NOW + timedelta(minutes=number) for number in range(5, -1, -1)]
    assert page.items[0].remedy == "look at it"
    assert [one["id"] for one in all_pages(client, "/api/alerts", limit=2)] == [one.id for one in page.items]
    for filters, count in (
        ({"severity": "critical"}, 2),
        ({"kind": "overdue"}, 3),
        ({"kind": "overdue", "severity": "error"}, 1),
        ({"state": "resolved"}, 0),
        ({"state": "all"}, 6),
        ({"kind": "' OR 1=1"}, 0),
    ):
        assert len(client.get("/api/alerts", params=filters).json()["items"]) == count, filters
    cursor = client.get("/api/alerts", params={"limit": 2}).json()["next_cursor"]
    problem(client.get("/api/alerts", params={"cursor": cursor, "state": "all"}), 400, "invalid-cursor")
    problem(client.get("/api/alerts", params={"severity": "loud"}), 422, "invalid-parameters")


@pytest.mark.requirement("A6", "R8.2", "R8.4")
def test_an_operator_says_that_a_problem_is_over(app: FastAPI) -> None:
    fill(app)
    viewer, operator = signed_in(app), signed_in(app, "operator")
    first = viewer.get("/api/alerts").json()["items"][-1]
    path = f"/api/alerts/{first['id']}"
    problem(viewer.post(f"{path}/resolve"), 403, "forbidden")
    problem(operator.post(f"{path}/resolve", json={"reason": "ok", "by": "me"}), 422, "invalid-parameters")
    problem(operator.post(f"{path}/resolve?by=me"), 422, "invalid-parameters")
    problem(operator.post("/api/alerts/999/resolve"), 404, "alert-not-found")
    problem(operator.post(f"/api/alerts/{2**63}/resolve"), 422, "invalid-parameters")
    over = operator.post(f"{path}/resolve", json={"reason": "the vendor is back"})
    assert over.status_code == 200, over.text
    assert over.json()["resolved_at"] is not None
    again = operator.post(f"{path}/resolve")
    assert again.json() == over.json()
    assert viewer.get(path).json() == over.json()
    # both alerts of the problem are over, and whoever was told hears of it
    assert {one["fingerprint"] for one in viewer.get("/api/alerts").json()["items"]} == {"problem-1", "problem-2"}
    assert len(viewer.get("/api/alerts", params={"state": "resolved"}).json()["items"]) == 2
    assert app.state.service.alert_outbox.undelivered() == 7
    trail = app.state.service.access.audit
    (entry,) = [one for one in trail.entries(AuditFilter(), limit=100) if one.action == "alert.resolve"]
    assert (entry.actor, entry.object_id) == ("the-operator", str(first["id"]))
    assert entry.detail["reason"] == "the vendor is back"


@pytest.mark.requirement("R8.4")
def test_what_cannot_be_written_down_is_not_done(app: FastAPI) -> None:
    fill(app)
    operator = signed_in(app, "operator", raise_server_exceptions=False)
    first = operator.get("/api/alerts").json()["items"][0]
    database = app.state.service.database

    def rename(present: str, wanted: str) -> None:
        with database.begin() as connection:
            connection.execute(text(f"ALTER TABLE {present} RENAME TO {wanted}"))

    rename("audit_entry", "elsewhere")
    assert operator.post(f"/api/alerts/{first['id']}/resolve").status_code >= 500
    rename("elsewhere", "audit_entry")
    assert operator.get(f"/api/alerts/{first['id']}").json()["resolved_at"] is None
    assert operator.post(f"/api/alerts/{first['id']}/resolve").json()["resolved_at"] is not None
