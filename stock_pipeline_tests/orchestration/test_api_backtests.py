"""The routes of back-tests and strategies, over results that were really simulated."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.api.schemas_backtests import BacktestDetail, BacktestPage, BacktestTable, StrategyInfo
from stock_pipeline.config import Settings
from stock_pipeline.core.backtesting import strategies
from stock_pipeline.storage.database.tables.tasks import TaskRow
from stock_pipeline_tests.api_finished import all_pages, app_of, clients, copied
from stock_pipeline_tests.api_service import problem

ASKED = "buy_and_hold-0123456789abcdef"
"""Id of a result that somebody asked for."""


@pytest.fixture(scope="module")
def app(finished: Settings, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    settings = copied(finished, tmp_path_factory.mktemp("backtests") / "market")
    folder = settings.home / "reports" / "backtests"
    (folder / "on_request").mkdir(exist_ok=True)
    for suffix in (".json", ".html"):
        shutil.copyfile(folder / f"buy_and_hold{suffix}", folder / "on_request" / f"{ASKED}{suffix}")
    return app_of(settings)


@pytest.fixture(scope="module")
def viewer(app: FastAPI) -> TestClient:
    return clients(app, "viewer")[0]


@pytest.mark.requirement("A3", "R3.5")
def test_configured_ones_and_those_on_request_are_listed(viewer: TestClient) -> None:
    page = BacktestPage.model_validate(viewer.get("/api/backtests").json())
    assert {one.id for one in page.items} == {"buy_and_hold", "model_rank", ASKED}
    assert page.items[0].id == ASKED  # the newest comes first
    assert page.unreadable == []
    assert {one["id"] for one in all_pages(viewer, "/api/backtests", limit=1)} == {one.id for one in page.items}
    for filters, ids in (
        ({"strategy": "model_rank"}, {"model_rank"}),
        ({"origin": "on_request"}, {ASKED}),
        ({"origin": "configured", "strategy": "buy_and_hold"}, {"buy_and_hold"}),
        ({"strategy": "nope"}, set()),
    ):
        assert {one["id"] for one in viewer.get("/api/backtests", params=filters).json()["items"]} == ids


@pytest.mark.requirement("A3", "R3.4", "R3.5")
def test_a_result_says_what_the_pipeline_stored(app: FastAPI, viewer: TestClient) -> None:
    detail = BacktestDetail.model_validate(viewer.get("/api/backtests/model_rank").json())
    stored = app.state.service.lake.read("backtests/summary").filter(pl.col("strategy") == "model_rank").to_dicts()[0]
    assert detail.parameters == json.loads(stored["parameters"])
    assert (detail.data_version, detail.model_version) == (stored["data_version"], stored["model_version"])
    for name, value in detail.metrics.items():
        assert value == pytest.approx(stored[name]), name
        assert (value is None) == (name in detail.undefined)
    assert detail.costs["total"] == pytest.approx(stored["total_costs"])
    assert detail.settings["costs"]["slippage_bps"] > 0
    assert any("executed at the open" in note for note in detail.notes)
    assert detail.links["report"] == "/reports/backtests/model_rank.html"
    assert viewer.get(f"/api/backtests/{ASKED}").json()["links"]["report"].endswith(f"/on_request/{ASKED}.html")


@pytest.mark.requirement("A3", "R3.5")
def test_curves_months_and_trades_are_the_stored_ones(app: FastAPI, viewer: TestClient) -> None:
    lake = app.state.service.lake
    equity = BacktestTable.model_validate(viewer.get("/api/backtests/model_rank/equity").json())
    stored = lake.read("backtests/equity/model_rank")
    assert equity.columns["equity"] == pytest.approx(stored["equity"].to_list())
    assert equity.columns["session"] == [str(day) for day in stored["session"]]
    text = viewer.get("/api/backtests/model_rank/equity", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [float(row["drawdown"]) for row in rows] == pytest.approx(stored["drawdown"].to_list())
    monthly = viewer.get("/api/backtests/model_rank/monthly").json()["columns"]
    assert monthly["return"] == pytest.approx(lake.read("backtests/monthly/model_rank")["return"].to_list())
    trades = lake.read("backtests/trades/model_rank")
    found = all_pages(viewer, "/api/backtests/model_rank/trades", limit=7)
    assert sorted(one["pnl"] for one in found) == pytest.approx(sorted(trades["pnl"].to_list()))
    symbol = trades["symbol"][0]
    mine = all_pages(viewer, "/api/backtests/model_rank/trades", limit=1000, symbol=symbol)
    assert len(mine) == trades.filter(pl.col("symbol") == symbol).height
    report = viewer.get("/api/backtests/model_rank/report")
    assert report.content == viewer.get("/reports/backtests/model_rank.html").content
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")


@pytest.mark.requirement("A3")
def test_cursors_of_another_list_are_refused(viewer: TestClient) -> None:
    cursor = viewer.get("/api/backtests/model_rank/trades", params={"limit": 1}).json()["next_cursor"]
    for path in ("/api/backtests/buy_and_hold/trades", "/api/backtests"):
        problem(viewer.get(path, params={"cursor": cursor}), 400, "invalid-cursor")
    problem(viewer.get("/api/backtests/model_rank/trades", params={"cursor": cursor[:-2]}), 400, "invalid-cursor")


@pytest.mark.requirement("A3")
def test_no_name_leads_out_of_the_folder(app: FastAPI, viewer: TestClient, tmp_path: Path) -> None:
    folder = app.state.service.reports / "backtests"
    secret = tmp_path / "secret.json"
    secret.write_text((folder / "model_rank.json").read_text())
    (folder / "linked.json").symlink_to(secret)
    try:
        problem(viewer.get("/api/backtests/linked"), 404, "backtest-not-found")
    finally:
        (folder / "linked.json").unlink()
    for name in (
        "..%2fmodel_rank",
        "%2e%2e",
        ".hidden",
        "on_request%2f" + ASKED,
        "model_rank.json",
        "a" * 300,
        "a%00b",
    ):
        assert viewer.get(f"/api/backtests/{name}").status_code in (400, 404, 422), name
    problem(viewer.get("/api/backtests/nope"), 404, "backtest-not-found")
    problem(viewer.get("/api/backtests/nope/equity"), 404, "backtest-not-found")


@pytest.mark.requirement("A3")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"metrics": 3}', b'{"metrics": {"sharpe": 1}}', b"\xff\xfe"])
def test_a_damaged_result_is_named_and_the_others_are_listed(app: FastAPI, viewer: TestClient, content: bytes) -> None:
    broken = app.state.service.reports / "backtests" / "on_request" / "broken.json"
    broken.write_bytes(content)
    try:
        page = viewer.get("/api/backtests").json()
        assert page["unreadable"] == ["broken"]
        assert len(page["items"]) == 3
        for below in ("", "/equity", "/trades", "/monthly"):
            problem(viewer.get(f"/api/backtests/broken{below}"), 503, "storage-unreadable")
    finally:
        broken.unlink()


@pytest.mark.requirement("A3", "R2.1")
def test_asking_for_one_is_a_task(app: FastAPI) -> None:
    viewer, analyst = clients(app, "viewer", "analyst")
    wanted = {"strategy": "sma_cross", "parameters": {"fast": 20, "slow": 60}}
    problem(viewer.post("/api/backtests", json=wanted), 403, "forbidden")
    problem(analyst.post("/api/backtests", json={"strategy": "nope"}), 422, "invalid-parameters")
    problem(analyst.post("/api/backtests", json={**wanted, "colour": "red"}), 422, "invalid-parameters")
    problem(analyst.post("/api/backtests", json={**wanted, "parameters": {"fast": -1}}), 422, "invalid-parameters")
    problem(analyst.post("/api/backtests", json=wanted), 503, "dagster-unavailable")  # its web server does not run
    problem(analyst.post("/api/predictions", json={"symbols": ["AAPL", "AAPL"]}), 422, "invalid-parameters")
    problem(analyst.post("/api/predictions", json={"symbols": ["AAPL"]}), 503, "dagster-unavailable")


@pytest.mark.requirement("A3", "R2.3")
def test_the_task_leads_to_the_result(app: FastAPI, viewer: TestClient) -> None:
    from datetime import UTC, datetime

    from sqlalchemy import update
    from sqlalchemy.orm import Session

    from stock_pipeline.storage.tasks import Launched

    service = app.state.service
    task = service.tasks.store.enter(
        Launched(
            "0f6a1c7e-2c0e-4a44-9a6d-6d0f3c1f2b7a", "backtest", "backtest_on_request", datetime.now(UTC), "the-analyst"
        )
    )  # fmt: skip
    assert viewer.get(f"/api/backtests/{task.id}/progress").json()["state"] == "queued"
    problem(viewer.get(f"/api/backtests/{task.id}"), 404, "backtest-not-ready")
    with Session(service.database) as session, session.begin():
        session.execute(update(TaskRow).values(state="succeeded", result={"id": ASKED}))
    assert viewer.get(f"/api/backtests/{task.id}").json()["id"] == ASKED
    assert viewer.get(f"/api/backtests/{ASKED}/progress").json()["id"] == task.id
    problem(viewer.get("/api/backtests/model_rank/progress"), 404, "task-not-found")
    problem(viewer.get(f"/api/predictions/requests/{task.id}"), 404, "predictions-not-ready")


@pytest.mark.requirement("A1", "R1.2")
def test_predictions_on_request_are_read_once_they_are_there(app: FastAPI, viewer: TestClient) -> None:
    folder = app.state.service.reports / "predictions"
    folder.mkdir()
    made = {
        "task": "abc",
        "made_at": "2024-01-02T00:00:00+00:00",
        "predictions": [{"symbol": "AAPL"}],
        "unpredicted": [],
    }
    (folder / "abc.json").write_text(json.dumps(made))
    assert viewer.get("/api/predictions/requests/abc").json() == made
    (folder / "abc.json").write_text("{")
    problem(viewer.get("/api/predictions/requests/abc"), 503, "storage-unreadable")
    problem(viewer.get("/api/predictions/requests/..%2f..%2fmarket"), 404, "not-found")


@pytest.mark.requirement("A3")
def test_the_singular_leads_to_the_plural(viewer: TestClient) -> None:
    answer = viewer.get("/api/backtest/model_rank/trades?limit=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "/api/backtests/model_rank/trades?limit=1")
    assert viewer.get("/api/backtest").json() == viewer.get("/api/backtests").json()
    evil = viewer.get("/api/backtest/%0d%0aSet-Cookie:%20a=b", follow_redirects=False)
    assert "set-cookie" not in evil.headers


@pytest.mark.requirement("A3", "R3.2")
def test_strategies_have_the_schema_of_their_parameters(app: FastAPI, viewer: TestClient) -> None:
    items = {one["name"]: StrategyInfo.model_validate(one) for one in viewer.get("/api/strategies").json()["items"]}
    assert set(strategies.names()) <= set(items)
    assert items["model_rank"].configured
    assert items["model_rank"].needs_predictions
    assert items["model_rank"].parameters == {"top": 2}
    assert items["model_rank"].newest_result == "model_rank"
    assert items["buy_and_hold"].newest_result == ASKED
    assert not items["sma_cross"].configured
    properties = items["sma_cross"].parameters_schema["properties"]
    assert {"fast", "slow"} <= set(properties)
    assert all("type" in value or "anyOf" in value or "enum" in value for value in properties.values())
