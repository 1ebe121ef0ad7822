"""Whole backtests: portfolio rules, tables, JSON, the report, and bad input."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.run import run_backtest, simulate
from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)
from stock_pipeline.core.backtesting.sizing import size
from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.reporting.backtest import backtest_report

FREE = CostSettings(commission_rate=0, slippage_bps=0, borrow_rate=0)


def one(rows: list[tuple], **more) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["open", "high", "low", "close"], orient="row").cast(pl.Float64)
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(len(rows))]
    return frame.with_columns(symbol=pl.lit("A<b>"), session=pl.Series(days), volume=pl.lit(1e6), **more)


def go(bars: pl.DataFrame, decisions: dict[int, float], costs: CostSettings = FREE, rules: str = "none", **portfolio):
    panel = MarketData.from_bars(bars).panel
    weights = np.full((len(panel.sessions), len(panel.symbols)), np.nan)
    for t, w in decisions.items():
        weights[t] = w
    settings = BacktestSettings(
        costs=costs,
        execution=ExecutionSettings(rules=rules),
        portfolio=PortfolioSettings(**{"capital": 1000.0, **portfolio}),
    )
    return simulate(panel, weights, settings)


@pytest.fixture(scope="module")
def goog() -> pl.DataFrame:
    backtesting = pytest.importorskip("backtesting.test")
    frame = backtesting.GOOG.reset_index()
    frame.columns = ["session", "open", "high", "low", "close", "volume"]
    return pl.from_pandas(frame).with_columns(pl.col("session").cast(pl.Date), symbol=pl.lit("GOOG"))


@pytest.mark.requirement("R3.3")
def test_a_backtest_by_hand():
    """Bought at 10.01, held over a rise to 12, sold at 11.988; commission 1 % and 0.1 % slippage, whole shares."""
    bars = one([(10, 10, 10, 10), (10, 11, 10, 11), (12, 12, 12, 12), (12, 12, 12, 12)])
    costs = CostSettings(commission_rate=0.01, slippage_bps=10)
    s = go(bars, {0: 1.0, 2: 0.0}, costs=costs, rules="US")
    # 98 x (10.01 + 0.1001) = 990.79; one more share would cost 1,000.90.
    assert s.execution.fills.shares.tolist() == [98.0, -98.0]
    cash = 1000 - 98 * 10.01 * 1.01
    assert s.ledger.cash[1] == pytest.approx(cash)
    assert s.ledger.equity[1] == pytest.approx(cash + 98 * 11)
    assert s.ledger.equity[3] == pytest.approx(cash + 98 * 11.988 * 0.99)
    assert s.costs["commission"] == pytest.approx(98 * 0.01 * (10.01 + 11.988))
    assert s.costs["slippage"] == pytest.approx(98 * (0.01 + 0.012))
    assert s.trades["pnl"].sum() == pytest.approx(s.ledger.equity[-1] - 1000)


@pytest.mark.requirement("R3.3")
def test_borrow_is_charged_by_calendar_days():
    bars = one([(10, 10, 10, 10)] * 3).with_columns(
        session=pl.Series([date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 6)])
    )
    s = go(bars, {0: -1.0}, costs=CostSettings(commission_rate=0, slippage_bps=0, borrow_rate=0.365))
    assert s.execution.borrow.tolist() == pytest.approx([0, 0, 1000 * 0.365 * 3 / 365])
    assert s.reconciliation.agrees


@pytest.mark.requirement("R3.4")
@pytest.mark.parametrize(
    ("portfolio", "price", "reason"),
    [
        ({"stop_loss": 0.1}, 9.0, "stop_loss"),
        ({"trailing_stop": 0.1}, 10.8, "trailing_stop"),
        ({"take_profit": 0.15}, 11.5, "take_profit"),
        ({"stop_loss": 0.25}, 7.0, "stop_loss"),
    ],
)
def test_stops_at_their_level_and_through_gaps(portfolio, price, reason):
    bars = one([(10, 10, 10, 10), (10, 12, 10, 11), (10.9, 11, 8.5, 8.6), (7, 7.2, 6.9, 7), (7, 7, 7, 7)])
    s = go(bars, {0: 1.0}, **portfolio)
    assert s.trades["exit_reason"].to_list() == [reason]
    assert s.execution.fills.price[-1] == pytest.approx(price)
    assert s.execution.fills.stage.tolist() == [0, 1]
    assert s.reconciliation.agrees


@pytest.mark.requirement("R3.4")
def test_drawdown_stop_flattens_pauses_and_comes_back():
    path = [10, 10, 8, 8, 8, 8, 8, 9]
    s = go(one([(p, p, p, p) for p in path]), {0: 1.0}, drawdown_stop=0.15, drawdown_pause=2)
    fills = s.execution.fills
    assert s.execution.pauses == (2,)
    assert fills.row.tolist() == [1, 3, 5]
    forever = go(one([(p, p, p, p) for p in path]), {0: 1.0}, drawdown_stop=0.15)
    assert forever.execution.fills.row.tolist() == [1, 3]


@pytest.mark.requirement("R3.4")
def test_a_ruined_short_stops_trading():
    s = go(one([(p, p, p, p) for p in (10, 10, 25, 25, 10, 10)]), {0: -1.0, 3: -1.0})
    assert s.execution.ruined == 2
    assert s.execution.fills.row.tolist() == [1, 3]
    assert s.metrics["annual_return"] is None
    assert all(v is None or math.isfinite(v) for v in s.metrics.values())
    assert s.reconciliation.agrees


@pytest.mark.requirement("R3.4")
def test_limits_and_sizing():
    rng = np.random.default_rng(0)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, [0.01, 0.02, 0.03], (200, 3)), axis=0))
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(200)]
    bars = pl.concat([pl.DataFrame({"symbol": s, "session": days, "close": closes[:, i]}) for i, s in enumerate("ABC")])
    panel = MarketData.from_bars(bars).panel
    weights = np.full((200, 3), np.nan)
    weights[100] = [0.9, 0.6, -0.5]
    weights[120, 0] = 0.9

    def sized(**portfolio):
        return size(weights, panel, PortfolioSettings(**portfolio), 252)

    assert sized(max_gross=5)[100].tolist() == [0.9, 0.6, -0.5]
    assert sized()[100].tolist() == pytest.approx([0.45, 0.3, -0.25])
    assert np.abs(sized(max_position=0.3)[100]).max() == pytest.approx(0.3)
    assert sized(max_positions=2, max_gross=5)[100].tolist() == [0.9, 0.6, 0.0]
    assert sized(max_net=0.5, max_gross=5)[100].sum() == pytest.approx(0.5)
    assert sized(sizing="equal", max_gross=1.5)[100].tolist() == pytest.approx([0.5, 0.5, -0.5])
    # What stands is not touched; the new weight gets what is left.
    assert sized()[120, 0] == pytest.approx(0.45)
    scaled = sized(sizing="volatility", volatility_target=0.10, max_gross=5)[100]
    returns = closes[38:101] / closes[37:100] - 1
    assert (returns @ scaled).std(ddof=1) * np.sqrt(252) == pytest.approx(0.10)
    assert np.nanmax(np.abs(scaled)) < 0.9


@pytest.mark.requirement("R3.3", "R3.4")
def test_delisting_and_participation():
    bars = pl.concat(
        [
            one([(10, 10, 10, 10)] * 12).with_columns(symbol=pl.lit("A")),
            one([(10, 10, 10, 10)] * 4).with_columns(symbol=pl.lit("B")),
        ]
    ).with_columns(volume=pl.lit(200.0))
    settings = BacktestSettings(
        costs=FREE,
        execution=ExecutionSettings(
            rules="US", delisting_sessions=3, delisting_recovery=0.5, max_participation=0.1, unfilled="carry"
        ),
        portfolio=PortfolioSettings(capital=1000),
        lookahead_cuts=0,
    )
    result = run_backtest("buy_and_hold", None, bars, settings=settings)
    b = result.fills.filter(pl.col("symbol") == "B")
    assert b["shares"].to_list() == pytest.approx([20, 20, 10, -50])
    assert b["reason"].to_list()[-1] == "delisted"
    assert b["session"].to_list()[-1] == date(2020, 1, 7)
    assert b["price"].to_list()[-1] == 5.0
    assert result.equity["equity"][-1] == pytest.approx(750)
    assert result.reconciliation.agrees


@pytest.mark.requirement("R3.5")
def test_result_tables_json_and_determinism(goog):
    settings = BacktestSettings(
        data_version="7", model_version="none", seed=3, trials=12, portfolio=PortfolioSettings(stop_loss=0.1)
    )
    benchmark = goog.select("session", close=pl.col("close") * 2)
    parameters = {"fast": 20, "slow": 80}
    first = run_backtest("sma_cross", parameters, goog, settings=settings, benchmark=benchmark)
    second = run_backtest("sma_cross", parameters, goog.sample(fraction=1.0, shuffle=True, seed=1), settings=settings,
                          benchmark=benchmark)  # fmt: skip
    assert first.to_json() == second.to_json()
    loaded = json.loads(first.to_json())
    assert loaded["parameters"] == {"fast": 20, "slow": 80, "side": "long", "weight": None}
    assert (loaded["data_version"], loaded["seed"], loaded["trials"]) == ("7", 3, 12)
    assert loaded["reconciliation"]["agrees"] is True
    assert len(loaded["equity"]) == goog.height
    frames = first.to_frames()
    assert {"equity", "fills", "trades", "monthly", "costs", "positions", "metrics", "reconciliation"} <= set(frames)
    growth = (1 + frames["monthly"]["return"]).product()
    assert growth == pytest.approx(1 + first.metrics["total_return"])
    assert frames["costs"].filter(pl.col("kind") == "total")["amount"][0] == pytest.approx(
        sum(v for k, v in first.costs.items() if k != "total")
    )
    total = frames["equity"]
    np.testing.assert_allclose(total["cash"] + total["net_exposure"] * total["equity"], total["equity"], rtol=1e-12)
    assert first.metrics["beta"] is not None
    assert total["benchmark"][-1] == pytest.approx(total["buy_and_hold"][-1])


@pytest.mark.requirement("R3.5")
def test_the_report_says_everything_and_escapes_data(goog):
    settings = BacktestSettings(data_version="lake-41", model_version="model-9", trials=5)
    named = goog.with_columns(symbol=pl.lit("<script>alert(1)</script>"))
    result = run_backtest("sma_cross", {"fast": 10, "slow": 30}, named, settings=settings)
    page = backtest_report(result)
    assert "<script>alert(1)" not in page
    assert 'src="http' not in page
    assert "Plotly.newPlot" in page
    for text in ("Monthly returns", "Rolling Sharpe", "lake-41", "model-9", "They agree in every session", "Costs",
                 "Too good" if result.too_good_to_be_true else "How to read this", "buy and hold"):  # fmt: skip
        assert text in page
    assert "Too good to be true" not in page
    rows = json.loads(page.split('id="trade-data">')[1].split("</script>")[0])
    assert len(rows) == result.trades.height


@pytest.mark.requirement("R3.5")
def test_the_report_warns_of_what_is_too_good_and_of_nothing():
    good = [(100 * 1.01**i * (1 + 0.001 * (i % 3)),) * 4 for i in range(60)]
    settings = BacktestSettings(lookahead_cuts=0)
    result = run_backtest("buy_and_hold", None, one(good), settings=settings)
    assert result.too_good_to_be_true
    assert "Too good to be true" in backtest_report(result)
    idle = run_backtest("sma_cross", {"fast": 5, "slow": 50}, one([(10, 10, 10, 10)] * 30), settings=settings)
    assert idle.metrics["sharpe"] is None
    assert "Nothing was traded" in backtest_report(idle)


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda b: b.drop("close"), DataError, "lack columns"),
        (lambda b: b.head(0), DataError, "no bars"),
        (lambda b: pl.concat([b, b.head(1)]), DataError, "two bars in one session"),
        (lambda b: b.with_columns(close=-pl.col("close")), DataError, "cannot be traded at"),
        (lambda b: b.with_columns(open=pl.lit(float("inf"))), DataError, "open of A<b> on 2020-01-01"),
        (lambda b: b.head(1), DataError, "fewer than two sessions"),
        (lambda b: b.with_columns(pl.col("session").cast(pl.String)), DataError, "not dates"),
        (lambda b: b.with_columns(adj_factor=pl.lit(None, dtype=pl.Float64)), DataError, "no adjustment factor"),
    ],
)
def test_bad_bars_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        run_backtest("buy_and_hold", None, change(one([(10, 10, 10, 10)] * 5)))


def test_settings_that_the_data_cannot_serve_are_refused():
    bars = one([(10, 10, 10, 10)] * 5)
    settings = BacktestSettings(execution=ExecutionSettings(price="open"))
    with pytest.raises(ConfigurationError, match="bars have none"):
        run_backtest("buy_and_hold", None, bars.drop("open"), settings=settings)
    settings = BacktestSettings(portfolio=PortfolioSettings(stop_loss=0.1))
    with pytest.raises(ConfigurationError, match="highs and lows"):
        run_backtest("buy_and_hold", None, bars.drop("low"), settings=settings)
    settings = BacktestSettings(execution=ExecutionSettings(rules="XX"))
    with pytest.raises(ConfigurationError, match="unknown exchange rules"):
        run_backtest("buy_and_hold", None, bars, settings=settings)


@pytest.mark.requirement("R3.1", "R3.5")
def test_on_the_sample_market(sample_dir):
    """Real raw prices with splits, entries and exits: no jump of equity at a split, everything reconciled."""
    files = sorted((sample_dir / "bars").glob("*.csv")) if (sample_dir / "bars").is_dir() else []
    if not files:
        pytest.skip("the sample market is not there")
    bars = pl.concat([pl.read_csv(f, try_parse_dates=True) for f in files]).sort("symbol", "session")
    ratio = pl.col("adj_close") / pl.col("close")
    bars = bars.with_columns(adj_factor=ratio / ratio.first().over("symbol"), volume=pl.col("volume").cast(pl.Float64))
    settings = BacktestSettings(start=date(2004, 1, 2), portfolio=PortfolioSettings(trailing_stop=0.3))
    result = run_backtest("momentum_rank", {"top": 3}, bars, settings=settings)
    assert result.reconciliation.agrees
    assert result.metrics["trades"] > 20
    assert result.equity["return"].min() > -0.25
    jumps = bars.with_columns(jump=pl.col("adj_factor") / pl.col("adj_factor").shift(1).over("symbol")).filter(
        pl.col("jump") > 1.5
    )
    held = result.positions.join(jumps.select("symbol", "session"), on=["symbol", "session"])
    assert held.height > 0
    shares = result.fills["shares"].to_numpy()
    whole = result.fills.filter(pl.col("side") == "buy")["shares"].to_numpy()
    assert np.abs(whole - np.round(whole)).max() < 1e-6
    assert len(shares) > len(whole)
