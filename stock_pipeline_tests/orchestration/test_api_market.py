"""Quality, risk and symbols over tables that the pipeline has really made."""

from __future__ import annotations

import csv
import io
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.api.schemas_market import (
    QualitySummary,
    RiskHistory,
    RiskPage,
    ScoreSeries,
    SymbolDetail,
    SymbolQuality,
    TablePage,
)
from stock_pipeline.config import Settings
from stock_pipeline.core.risk.backtest import kupiec
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_finished import all_pages, app_of, clients, copied, taken_away
from stock_pipeline_tests.api_service import problem

WHOLE = {"from": "2016-01-01", "to": "2021-12-31"}


@pytest.fixture(scope="module")
def app(finished: Settings, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return app_of(copied(finished, tmp_path_factory.mktemp("market") / "market"))


@pytest.fixture(scope="module")
def viewer(app: FastAPI) -> TestClient:
    return clients(app, "viewer")[0]


@pytest.fixture(scope="module")
def lake(app: FastAPI) -> Lake:
    return app.state.service.lake


# -------------------------------------------------------------------- quality
@pytest.mark.requirement("A6", "R7.4")
def test_quality_at_a_glance(viewer: TestClient, lake: Lake) -> None:
    found = QualitySummary.model_validate(viewer.get("/api/quality").json())
    scores = lake.read("market/quality_scores")
    newest = scores.filter(pl.col("session") == scores["session"].max())
    assert (found.session, found.symbols) == (newest["session"][0], newest.height)
    assert found.mean == pytest.approx(newest["score"].mean())
    assert sum(found.rows.values()) == lake.count("market/raw_bars")
    assert found.findings == lake.count("market/quality_findings") == sum(rule.rows for rule in found.rules)
    for link in (found.links.report, found.links.data_docs):
        assert viewer.get(link).status_code == 200


@pytest.mark.requirement("A6", "R7.4")
def test_scores_over_time_and_by_symbol(viewer: TestClient, lake: Lake) -> None:
    scores = lake.read("market/quality_scores")
    series = ScoreSeries.model_validate(viewer.get("/api/quality/sessions", params=WHOLE).json()).sessions
    means = scores.group_by("session").agg(pl.col("score").mean()).sort("session")
    assert series["mean"] == pytest.approx(means["score"].to_list())
    assert series["session"] == [str(day) for day in means["session"]]
    listed = all_pages(viewer, "/api/quality/scores", limit=1000, **WHOLE)
    assert len(listed) == scores.height
    year = all_pages(viewer, "/api/quality/scores", limit=1000)
    assert len(year) == scores.filter(pl.col("session") >= date(2020, 6, 30)).height
    assert listed[0]["session"] == str(scores["session"].max())
    below = all_pages(viewer, "/api/quality/scores", below=100, limit=1000, **WHOLE)
    assert len(below) == scores.filter(pl.col("score") < 100).height
    one = SymbolQuality.model_validate(viewer.get("/api/quality/AAPL", params=WHOLE).json())
    assert one.scores["score"] == pytest.approx(scores.filter(pl.col("symbol") == "AAPL")["score"].to_list())
    problem(viewer.get("/api/quality/NOPE"), 404, "symbol-not-found")


@pytest.mark.requirement("A6", "R7.2")
def test_findings_and_quarantine(viewer: TestClient, lake: Lake) -> None:
    findings = lake.read("market/quality_findings")
    listed = all_pages(viewer, "/api/quality/findings", limit=2)
    assert len(listed) == findings.height > 0
    assert [one["session"] for one in listed] == sorted((one["session"] for one in listed), reverse=True)
    rule = findings["rule"][0]
    assert {one["rule"] for one in all_pages(viewer, "/api/quality/findings", rule=rule)} == {rule}
    symbol = findings["symbol"][0]
    text = viewer.get("/api/quality/findings", params={"symbol": symbol, "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert len(rows) == findings.filter(pl.col("symbol") == symbol).height
    quarantined = TablePage.model_validate(viewer.get("/api/quality/quarantined").json())
    assert quarantined.total == lake.count("market/quarantined_bars")


@pytest.mark.requirement("A6", "R7.2")
def test_quarantined_rows_have_their_reasons(finished: Settings, tmp_path: Path) -> None:
    settings = copied(finished, tmp_path / "market")
    lake = Lake(settings.storage.lake_uri)
    bar = lake.read("market/validated_bars", start=date(2021, 6, 30), symbols=["AAPL"])
    columns = lake.schema("market/quarantined_bars")
    row = bar.with_columns(
        rules=pl.lit(["impossible_price"]), reason=pl.lit("above <b>all</b>"), close=pl.lit(float("nan"))
    )
    row = row.select(columns.names())
    lake.write_sessions("market/quarantined_bars", row, start=date(2021, 6, 30), end=date(2021, 6, 30))
    (viewer,) = clients(app_of(settings), "viewer")
    (item,) = viewer.get("/api/quality/quarantined").json()["items"]
    assert (item["rules"], item["reason"]) == (["impossible_price"], "above <b>all</b>")
    assert (item["close"], item["undefined"]) == (None, {"close": "not a number"})
    assert "impossible_price" in viewer.get("/api/quality/quarantined", params={"format": "csv"}).text
    assert viewer.get("/api/quality/AAPL").json()["quarantined_rows"] == 1
    assert viewer.get("/api/quality").json()["quarantined_in_session"] == 1


# ----------------------------------------------------------------------- risk
@pytest.mark.requirement("A6", "R1.4")
def test_risk_of_the_newest_session(viewer: TestClient, lake: Lake) -> None:
    risk = lake.read("risk/symbol_risk")
    newest = risk.filter(pl.col("session") == risk["session"].max()).sort("symbol")
    page = RiskPage.model_validate(viewer.get("/api/risk").json())
    assert page.session == newest["session"][0]
    assert [one["var_95"] for one in page.items] == pytest.approx(newest["var_95"].to_list())
    by = viewer.get("/api/risk", params={"sort": "volatility", "order": "desc", "limit": 1}).json()
    assert by["items"][0]["volatility"] == pytest.approx(newest["volatility"].max())
    assert len(all_pages(viewer, "/api/risk", limit=1)) == newest.height
    least = newest["volatility"].median()
    some = viewer.get("/api/risk", params={"min_volatility": least}).json()
    assert some["total"] == newest.filter(pl.col("volatility") >= least).height
    older = viewer.get("/api/risk", params={"session": "2020-03-16", "symbol": "AAPL"}).json()
    assert older["items"][0]["session"] == "2020-03-16"
    problem(viewer.get("/api/risk", params={"session": "2020-03-15"}), 404, "session-not-found")  # a Sunday
    text = viewer.get("/api/risk", params={"format": "csv"}).text
    assert len(list(csv.DictReader(io.StringIO(text)))) == newest.height


@pytest.mark.requirement("A6", "R1.4")
def test_value_at_risk_is_judged_by_what_followed(viewer: TestClient, lake: Lake) -> None:
    stored = lake.read("risk/var_backtest")
    page = viewer.get("/api/risk").json()
    for line in page["backtest"]:
        mine = stored.filter(pl.col("level") == line["level"])
        assert line["exceedances"] == mine["exceedances"].sum()
        expected = kupiec(line["observations"], line["exceedances"], line["level"])
        assert line["kupiec_p"] == pytest.approx(expected["p_value"])
    history = RiskHistory.model_validate(viewer.get("/api/risk/AAPL", params=WHOLE).json())
    lines = {line["level"]: line for line in history.backtest}
    for level, name in ((0.95, "exceeded_95"), (0.99, "exceeded_99")):
        assert sum(1 for one in history.history[name] if one) == lines[level]["exceedances"]
    assert history.history["next_return"][-1] is None  # nobody knows it yet
    bars = lake.read("market/validated_bars", symbols=["AAPL"])
    price = (bars["close"] * bars["adj_factor"]).to_list()
    shown = dict(zip(history.history["session"], history.history["next_return"], strict=True))
    assert shown[str(bars["session"][-3])] == pytest.approx(price[-2] / price[-3] - 1)


# -------------------------------------------------------------------- symbols
@pytest.mark.requirement("A6")
def test_symbols_are_found(viewer: TestClient) -> None:
    assert [one["symbol"] for one in all_pages(viewer, "/api/symbols", limit=1)] == ["AAPL", "AMZN", "GOOG", "NFLX"]
    assert [one["symbol"] for one in viewer.get("/api/symbols", params={"search": "oo"}).json()["items"]] == ["GOOG"]
    assert viewer.get("/api/symbols", params={"search": ".*"}).json()["items"] == []
    assert all(one["predicted"] for one in viewer.get("/api/symbols", params={"active": True}).json()["items"])
    assert viewer.get("/api/symbols", params={"active": False}).json()["items"] == []


@pytest.mark.requirement("A6", "R1.3")
def test_everything_about_one_symbol(app: FastAPI, viewer: TestClient, lake: Lake) -> None:
    found = SymbolDetail.model_validate(viewer.get("/api/symbols/AAPL", params=WHOLE).json())
    bars = lake.read("market/validated_bars", symbols=["AAPL"])
    assert found.prices["close"] == pytest.approx(bars["close"].to_list())
    assert found.prices["adjusted_close"] == pytest.approx((bars["close"] * bars["adj_factor"]).to_list())
    published = lake.read("predictions/published", symbols=["AAPL"])
    assert found.predictions["expected_return"] == pytest.approx(published["expected_return"].to_list())
    outcomes = lake.read("predictions/outcomes", symbols=["AAPL"])
    assert found.outcomes.known == outcomes.height > 0
    assert found.outcomes.coverage == pytest.approx(outcomes["inside"].mean())
    realised = [value for value in found.predictions["realised_return"] if value is not None]
    assert realised == pytest.approx(outcomes["realised_return"].to_list())
    newest = found.newest_prediction
    assert newest is not None
    assert newest.session == app.state.publications.current.session
    assert newest.lineage.model_version == published["model_version"][-1]
    year = viewer.get("/api/symbols/AAPL").json()
    assert (year["from"], year["to"]) == ("2020-06-30", "2021-06-30")
    assert len(year["prices"]["session"]) == bars.filter(pl.col("session") >= date(2020, 6, 30)).height
    early = viewer.get("/api/symbols/AAPL", params={"from": "1990-01-01", "to": "1990-12-31"}).json()
    assert set(early["undefined"]) == {"prices", "predictions", "risk"}


@pytest.mark.requirement("R8.2")
def test_a_symbol_shows_no_more_than_its_reader_may_see(app: FastAPI, viewer: TestClient) -> None:
    _, key = app.state.service.access.keys.create("the-viewer", "narrow", ["predictions:read"], by="system")
    found = TestClient(app, headers={"X-API-Key": key}).get("/api/symbols/AAPL", params=WHOLE)
    detail = SymbolDetail.model_validate(found.json())
    assert (detail.risk, detail.findings) == ({}, [])
    assert set(detail.undefined) == {"risk", "findings"}
    assert detail.prices == viewer.get("/api/symbols/AAPL", params=WHOLE).json()["prices"]


@pytest.mark.requirement("A6")
@pytest.mark.parametrize("path", ["/api/symbols/AAPL", "/api/risk/AAPL", "/api/quality/AAPL", "/api/quality/sessions"])
@pytest.mark.parametrize(
    ("query", "status"),
    [("from=2021-02-01&to=2021-01-01", 422), ("from=x", 422), ("to=0001-01-01", 422), ("start=2021-01-01", 422),
     ("from=2021-01-01&from=2021-01-02", 422), ("to=2200-12-31", 200), ("from=1900-01-01&to=1900-01-01", 200)],
)  # fmt: skip
def test_ranges_are_checked(viewer: TestClient, path: str, query: str, status: int) -> None:
    assert viewer.get(f"{path}?{query}").status_code == status


@pytest.mark.requirement("A6")
@pytest.mark.parametrize("symbol", ["'%20OR%201=1%20--", "a,b", "%00", "..%2f..", "x" * 65, "%F0%9F%92%A9", "*"])
def test_odd_symbols_are_no_symbols(viewer: TestClient, symbol: str) -> None:
    for path in ("symbols", "risk", "quality"):
        assert viewer.get(f"/api/{path}/{symbol}").status_code in (400, 404, 422)


READS = (
    "/api/quality", "/api/quality/sessions", "/api/quality/scores", "/api/quality/findings", "/api/quality/quarantined",
    "/api/quality/AAPL", "/api/risk", "/api/risk/AAPL", "/api/symbols", "/api/symbols/AAPL",
)  # fmt: skip


@pytest.mark.requirement("A6", "P5")
@pytest.mark.parametrize(
    ("table", "kinds"),
    [("market/quality_scores", {404}), ("market/validated_bars", {404}), ("risk/symbol_risk", {404})],
)
def test_absent_tables_are_said(app: FastAPI, viewer: TestClient, lake: Lake, table: str, kinds: set[int]) -> None:
    with taken_away(Path(lake.uri(table))):
        statuses = {path: viewer.get(path).status_code for path in READS}
    assert set(statuses.values()) <= {200, *kinds}, statuses
    assert set(statuses.values()) & kinds


@pytest.mark.requirement("A6", "P5")
@pytest.mark.parametrize("how", ["files", "log", "columns"])
def test_damaged_tables_are_said(finished: Settings, tmp_path: Path, how: str) -> None:
    settings = copied(finished, tmp_path / "market")
    lake = Lake(settings.storage.lake_uri)
    for table in ("market/quality_scores", "market/quality_findings", "market/validated_bars", "risk/symbol_risk"):
        folder = Path(lake.uri(table))
        if how == "files":
            for file in folder.rglob("*.parquet"):
                file.write_bytes(file.read_bytes()[:100])
        elif how == "log":
            for file in (folder / "_delta_log").glob("*.json"):
                file.write_bytes(b"{")
        else:
            lake.replace(table, pl.DataFrame({"something": ["else"]}))
    (viewer,) = clients(app_of(settings), "viewer")
    for path in READS:
        if path != "/api/quality/quarantined":
            problem(viewer.get(path), 503, "storage-unreadable")
    assert viewer.get("/api/predictions").status_code == 200


@pytest.mark.requirement("A6")
def test_pages_stay_in_the_version_of_the_first(finished: Settings, tmp_path: Path) -> None:
    settings = copied(finished, tmp_path / "market")
    lake = Lake(settings.storage.lake_uri)
    (viewer,) = clients(app_of(settings), "viewer")
    before = all_pages(viewer, "/api/quality/scores", limit=1000)
    first = viewer.get("/api/quality/scores", params={"limit": 3}).json()
    scores = lake.read("market/quality_scores")
    lake.replace("market/quality_scores", scores.with_columns(score=pl.lit(1.0)))
    second = viewer.get("/api/quality/scores", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert first["items"] + second["items"] == before[:6]
    assert viewer.get("/api/quality/scores", params={"limit": 1}).json()["items"][0]["score"] == 1.0
    lake.vacuum("market/quality_scores", retention_days=0)
    gone = viewer.get("/api/quality/scores", params={"limit": 3, "cursor": first["next_cursor"]})
    problem(gone, 410, "page-gone")
    problem(viewer.get("/api/quality/findings", params={"cursor": first["next_cursor"]}), 400, "invalid-cursor")
