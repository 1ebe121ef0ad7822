"""What a proxy is told about a request for the web UIs of Dagster and MLflow, and the ways of the console to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.config import addresses
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for, settings_for, signed_in
from stock_pipeline_tests.integration.test_api_security import console

pytestmark = pytest.mark.requirement("R8.5")

UIS = ("dagster", "mlflow")


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    services = {"dagster_path": "/dagster", "mlflow_path": "/mlflow"}
    return app_for(
        Lake(tmp_path / "lake"), sections={"services": services, "access": {"public_url": "http://testserver"}}
    )


@pytest.mark.parametrize("ui", UIS)
def test_those_who_may_pass_and_leave_a_trace(app: FastAPI, ui: str) -> None:
    with signed_in(app, "operator", name="otto") as otto:
        answer = otto.get(f"/api/proxied/{ui}")
        assert (answer.status_code, answer.headers["x-account"]) == (204, "otto")
        assert answer.headers["cache-control"] == "no-store"
        otto.get(f"/api/proxied/{ui}")
    parts = app.state.service  # the sums are written at the end, and every minute
    entries = parts.access.audit.entries(AuditFilter(action="data.read", object_id=f"/api/proxied/{ui}"))
    assert {entry.actor for entry in entries} == {"otto"}
    assert sum(entry.detail["requests"] for entry in entries) == 2


@pytest.mark.parametrize("ui", UIS)
@pytest.mark.parametrize("role", ["viewer", "analyst"])
def test_others_do_not(app: FastAPI, ui: str, role: str) -> None:
    client = signed_in(app, role)
    answer = client.get(f"/api/proxied/{ui}")
    assert answer.status_code == 403
    assert f"lacks the permission {ui}:use" in answer.json()["detail"]
    del client.headers["Authorization"]
    assert client.get(f"/api/proxied/{ui}").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, 204),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 204),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 204),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://testserver.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_a_cookie_counts_for_pages_of_this_service_only(app: FastAPI, headers: dict[str, str], status: int) -> None:
    browser = console(app, "otto", "operator")
    for ui in UIS:
        assert browser.get(f"/api/proxied/{ui}", headers=headers).status_code == status


def test_the_console_leads_to_them_by_their_public_address(app: FastAPI) -> None:
    browser = console(app, "otto", "operator")
    answer = browser.get("/tools/dagster/runs/5?tab=a&x=%2F", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "http://testserver/dagster/runs/5?tab=a&x=%2F")
    answer = browser.get("/tools/mlflow//evil.example", headers={"Accept": "text/html"})
    assert answer.headers["location"].startswith("http://testserver/mlflow/")
    browser.cookies.clear()
    answer = browser.get("/tools/dagster/runs/5?tab=a", headers={"Accept": "text/html"})
    assert answer.headers["location"] == "/login?next=%2Ftools%2Fdagster%2Fruns%2F5%3Ftab%3Da"


def test_without_a_proxy_they_are_where_they_listen(tmp_path: Path) -> None:
    plain = settings_for(None, tmp_path, services={"dagster_port": 3001})
    assert addresses.dagster_page(plain, "runs/5") == "http://127.0.0.1:3001/runs/5"
    assert addresses.mlflow_page(plain) == "http://127.0.0.1:5000/"
    below = settings_for(None, tmp_path, services={"dagster_path": "/dagster"})
    assert addresses.dagster(below) == "http://127.0.0.1:3000/dagster"
    assert addresses.dagster_page(below) == "http://127.0.0.1:3000/dagster/"
