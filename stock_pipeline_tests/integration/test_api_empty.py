"""The service before the pipeline has run for the first time: every read says so, and makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import Clock, app_for, problem, signed_in, with_clock

EMPTY = {
    "/api/models": {"items": [], "next_cursor": None},
    "/api/backtests": {"items": [], "unreadable": [], "next_cursor": None},
    "/api/alerts": {"items": [], "next_cursor": None},
}
ABSENT = {
    "/api/predictions": (503, "no-publication"),
    "/api/predictions?symbol=IBM": (503, "no-publication"),
    "/api/predictions/2024-01-02.IBM.5": (503, "no-publication"),
    "/api/unpredicted": (503, "no-publication"),
    "/api/predictions/requests/abc": (404, "predictions-not-ready"),
    "/api/models/champion": (404, "model-not-found"),
    "/api/models/1/metrics": (404, "model-not-found"),
    "/api/models/1/card": (404, "model-not-found"),
    "/api/backtests/sma_cross": (404, "backtest-not-found"),
    "/api/backtests/sma_cross/progress": (404, "task-not-found"),
    "/api/quality": (404, "no-data"),
    "/api/quality/sessions": (404, "no-data"),
    "/api/quality/scores": (404, "no-data"),
    "/api/quality/findings": (404, "no-data"),
    "/api/quality/quarantined": (404, "no-data"),
    "/api/quality/IBM": (404, "no-data"),
    "/api/risk": (404, "no-data"),
    "/api/risk/IBM": (404, "no-data"),
    "/api/symbols": (404, "no-data"),
    "/api/symbols/IBM": (404, "no-data"),
    "/api/alerts/1": (404, "alert-not-found"),
    "/reports/quality.html": (404, "report-not-found"),
    "/reports/data_docs/index.html": (404, "report-not-found"),
    "/reports/backtests/sma_cross.html": (404, "report-not-found"),
}


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    app = app_for(Lake(tmp_path_factory.mktemp("empty")), poll_seconds=60)
    return signed_in(with_clock(app, Clock()), "operator")


@pytest.mark.requirement("P5", "A6")
@pytest.mark.parametrize("path", EMPTY)
def test_lists_are_empty(operator: TestClient, path: str) -> None:
    answer = operator.get(path)
    assert answer.status_code == 200
    assert answer.json() == EMPTY[path]


@pytest.mark.requirement("P5", "A6", "A1", "A3", "A4")
@pytest.mark.parametrize("path", ABSENT)
def test_what_is_not_there_is_said(operator: TestClient, path: str) -> None:
    problem(operator.get(path), *ABSENT[path])


@pytest.mark.requirement("A4")
def test_there_is_nothing_to_decide(operator: TestClient) -> None:
    reason = {"reason": "because"}
    problem(operator.post("/api/models/1/promote", json=reason), 404, "model-not-found")
    problem(operator.post("/api/models/rollback", json=reason), 409, "no-previous-champion")
    problem(operator.post("/api/backtests", json={"strategy": "buy_and_hold"}), 409, "no-data")
    problem(operator.post("/api/predictions", json={"symbols": ["IBM"]}), 409, "no-data")


@pytest.mark.requirement("P5")
def test_reading_makes_nothing(operator: TestClient) -> None:
    home = Path(operator.app.state.service.settings.home)
    assert not (home / "mlflow").exists()
    assert operator.get("/api/strategies").status_code == 200
