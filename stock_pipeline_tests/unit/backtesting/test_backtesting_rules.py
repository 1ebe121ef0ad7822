"""Exchange rules: dates of change, boards, lots, and their effect on fills of real and made-up Chinese shares."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.execution import execute
from stock_pipeline.core.backtesting.fills import fills_frame, unfilled_frame
from stock_pipeline.core.backtesting.orders import order_shares, round_lots
from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.market.exchange_rules import CN, NONE, US, chinese_board, rules


def made_up(rows: list[tuple], symbol: str = "SH600000", first: date = date(2021, 3, 1)) -> pl.DataFrame:
    """Bars of one symbol from (open, high, low, close, volume)."""
    return pl.DataFrame(
        [
            {
                "symbol": symbol,
                "session": first + timedelta(days=i),
                "open": o,
                "high": h,
                "low": low,
                "close": c,
                "volume": v,
            }
            for i, (o, h, low, c, v) in enumerate(rows)
        ]
    ).cast(dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64))


def trade(bars: pl.DataFrame, decisions: dict[int, float], rules: str = "CN", **groups):
    panel = MarketData.from_bars(bars).panel
    weights = np.full((len(panel.sessions), len(panel.symbols)), np.nan)
    for t, w in decisions.items():
        weights[t] = w
    execution = ExecutionSettings(rules=rules, **groups.pop("execution", {}))
    portfolio = PortfolioSettings(**{"capital": 100_000, **groups.pop("portfolio", {})})
    costs = CostSettings(**{"commission_rate": 0, "slippage_bps": 0, **groups.pop("costs", {})})
    result = execute(panel, weights, BacktestSettings(costs=costs, execution=execution, portfolio=portfolio))
    return fills_frame(result.fills, panel), unfilled_frame(result.unfilled, panel)


@pytest.mark.requirement("R3.3")
@pytest.mark.parametrize(
    ("day", "buy", "sell"),
    [
        (date(2007, 5, 29), 0.001, 0.001),
        (date(2007, 5, 30), 0.003, 0.003),
        (date(2008, 4, 24), 0.001, 0.001),
        (date(2008, 9, 18), 0.001, 0.001),
        (date(2008, 9, 19), 0.0, 0.001),
        (date(2023, 8, 27), 0.0, 0.001),
        (date(2023, 8, 28), 0.0, 0.0005),
    ],
)
def test_stamp_duty_changes_on_its_dates(day, buy, sell):
    levies = CN.levy_arrays([day])
    assert levies["duty_buy"][0] == buy
    assert levies["duty_sell"][0] == sell
    assert US.levy_arrays([day])["duty_sell"][0] == 0.0


@pytest.mark.requirement("R3.3")
def test_price_limits_by_board_date_and_special_treatment():
    days = [date(2020, 8, 21), date(2020, 8, 24), date(2022, 1, 4)]
    symbols = ["SH600000", "SZ300015", "688012.SH", "BJ830799", "000001.SZ"]
    limits = CN.limit_array(symbols, days)
    assert limits[:, 0].tolist() == [0.1, 0.1, 0.1]
    assert limits[:, 1].tolist() == [0.1, 0.2, 0.2]
    assert limits[:, 2].tolist() == [0.2, 0.2, 0.2]
    assert limits[2, 3] == 0.3
    special = np.zeros((3, 5), dtype=bool)
    special[:, [0, 2]] = True
    assert CN.limit_array(symbols, days, special)[0].tolist()[:3] == [0.05, 0.1, 0.2]
    assert US.limit_array(symbols, days) is None
    assert NONE.limit_array(symbols, days) is None


def test_boards_and_unknown_rules():
    boards = [chinese_board(s) for s in ("SH688012", "300750.XSHE", "600519", "430047.BJ", "AAPL", "sz.000001")]
    assert boards == ["star", "chinext", "", "bse", "", ""]
    with pytest.raises(ConfigurationError, match="CN, US, none"):
        rules("XX")


@pytest.mark.requirement("R3.3")
def test_lots():
    a = np.array
    shares = a([199.0, 250.7, 350.0, 99.0, 3.3])
    got = round_lots(shares, a([200.0, 200, 100, 100, 0]), a([1.0, 1, 100, 100, 0]))
    assert got.tolist() == [0, 250, 300, 0, 3.3]
    # An odd lot is sold whole; a part of it is not; a reversal closes all and opens whole lots.
    hundred = a([100.0])
    assert order_shares(a([150.0]), a([0.0]), hundred, hundred)[0] == -150
    assert order_shares(a([150.0]), a([120.0]), hundred, hundred)[0] == 0
    assert order_shares(a([150.0]), a([-270.0]), hundred, hundred)[0] == -350


@pytest.mark.requirement("R3.3")
def test_no_purchase_at_the_upper_limit_and_no_sale_at_the_lower():
    up = made_up([(10, 10, 10, 10, 1e6), (11, 11, 11, 11, 1e6), (11.5, 12, 11.2, 11.8, 1e6)])
    fills, missed = trade(up, {0: 1.0})
    assert fills.height == 0
    assert missed["reason"].to_list() == ["limit_up"]
    fills, _ = trade(up, {0: 1.0}, execution={"unfilled": "carry"})
    assert fills["session"].to_list() == [date(2021, 3, 3)]
    down = made_up([(10, 10, 10, 10, 1e6), (10, 10, 10, 10, 1e6), (9, 9, 9, 9, 1e6), (8.5, 8.9, 8.2, 8.4, 1e6)])
    fills, missed = trade(down, {0: 1.0, 1: 0.0}, execution={"unfilled": "carry"})
    assert fills["session"].to_list() == [date(2021, 3, 2), date(2021, 3, 4)]
    assert missed["reason"].to_list() == ["limit_down"]
    # The same bars under American rules trade at once.
    assert trade(up, {0: 1.0}, rules="US")[0]["session"].to_list() == [date(2021, 3, 2)]


@pytest.mark.requirement("R3.3")
def test_ex_date_is_no_price_limit():
    """A 2:1 split halves the raw price; the limit is reckoned from the adjusted previous close."""
    bars = made_up([(10, 10, 10, 10, 1e6), (10, 10, 10, 10, 1e6), (5.1, 5.2, 5, 5.1, 1e6), (5, 5, 5, 5, 1e6)])
    bars = bars.with_columns(adj_factor=pl.Series([1.0, 1.0, 2.0, 2.0]))
    fills, missed = trade(bars, {0: 0.5, 1: 0.0})
    assert missed.height == 0
    assert fills["shares"].to_list() == [5000.0, -10_000.0]
    assert fills["price"].to_list() == [10.0, 5.1]


@pytest.mark.requirement("R3.3")
def test_shares_bought_today_are_not_sold_today():
    """The stop is hit on the day of the purchase: T+0 sells there, T+1 on the next day at its open."""
    bars = made_up([(10, 10, 10, 10, 1e6), (10, 10, 9.3, 9.9, 1e6), (9.4, 9.6, 9.3, 9.5, 1e6), (9, 9, 9, 9, 1e6)])
    stop = {"portfolio": {"stop_loss": 0.05}}
    fills, _ = trade(bars, {0: 1.0}, rules="US", **stop)
    assert fills["session"].to_list() == [date(2021, 3, 2)] * 2
    assert fills["price"].to_list() == [10.0, 9.5]
    fills, missed = trade(bars, {0: 1.0}, rules="CN", **stop)
    assert fills["session"].to_list() == [date(2021, 3, 2), date(2021, 3, 3)]
    assert fills["price"].to_list() == [10.0, 9.4]
    assert missed["reason"].to_list() == ["bought_today"]


@pytest.mark.requirement("R3.3")
def test_halts_cancel_or_carry():
    bars = made_up([(10, 10, 10, 10, 1e6), (10, 10, 10, 10, 0), (10, 10, 10, 10, 1e6)])
    fills, missed = trade(bars, {0: 1.0})
    assert fills.height == 0
    assert missed["reason"].to_list() == ["halted"]
    fills, _ = trade(bars, {0: 1.0}, execution={"unfilled": "carry"})
    assert fills["session"].to_list() == [date(2021, 3, 3)]


@pytest.mark.requirement("R3.3")
def test_hand_computed_costs():
    """10,000 shares at 10.00 bought and at 11.00 sold, every cost written out."""
    bars = made_up([(10, 10, 10, 10, 1e9), (10, 10.5, 9.9, 10.4, 1e9), (11, 11.2, 10.8, 11, 1e9)])
    costs = {"commission_rate": 0.0003, "commission_minimum": 5.0, "slippage_bps": 10}
    fills, _ = trade(bars, {0: 1.0, 1: 0.0}, costs=costs, portfolio={"capital": 100_200.0})
    buy, sell = fills.row(0, named=True), fills.row(1, named=True)
    assert (buy["shares"], buy["price"]) == (10_000, pytest.approx(10.01))
    assert buy["commission"] == pytest.approx(30.03)
    assert buy["stamp_duty"] == 0.0
    assert buy["transfer_fee"] == pytest.approx(2.002)
    assert buy["slippage"] == pytest.approx(100.0)
    assert (sell["shares"], sell["price"]) == (-10_000, pytest.approx(10.989))
    assert sell["stamp_duty"] == pytest.approx(109.89)
    small, _ = trade(bars, {0: 0.01}, costs=costs)
    assert small["commission"].to_list() == [5.0]


@pytest.mark.requirement("R3.3", "R3.1")
def test_real_chinese_shares(market_data):
    """Momentum on 60 A shares, 2005-2021: no fill breaks a rule of its day."""
    raw = pl.read_parquet(market_data / "cn_61_raw.parquet").rename({"date": "session"})
    bars = raw.filter(pl.col("symbol") != "SH000001").cast(
        dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
    )
    settings = BacktestSettings(
        start=date(2007, 1, 4),
        execution=ExecutionSettings(rules="CN", unfilled="carry"),
        portfolio=PortfolioSettings(capital=2_000_000, stop_loss=0.15),
        lookahead_cuts=1,
    )
    result = run_backtest("momentum_rank", {"top": 10, "lookback": 60, "skip": 5}, bars, settings=settings)
    assert result.reconciliation.agrees
    fills = result.fills.join(bars, on=["symbol", "session"], how="left", suffix="_bar")
    assert fills.filter(pl.col("reason") != "delisted").filter(pl.col("volume").fill_null(0) == 0).height == 0
    buys = fills.filter(pl.col("side") == "buy")
    star = pl.col("symbol").str.starts_with("SH688")
    shares = buys.filter(~star)["shares"].to_numpy()
    assert np.abs(shares / 100 - np.round(shares / 100)).max() < 1e-9
    assert (buys.filter(star)["shares"] >= 200 - 1e-9).all()
    previous = bars.sort("symbol", "session").with_columns(before=pl.col("close").shift(1).over("symbol"))
    at = buys.join(previous.select("symbol", "session", "before"), on=["symbol", "session"]).filter(
        ~star & ~pl.col("symbol").str.starts_with("SZ300")
    )
    limit = (at["before"] * 1.1 * 100 + 0.5).floor() / 100
    assert (at["open"] < limit - 0.004).all()
    sells = fills.filter((pl.col("side") == "sell") & (pl.col("reason") != "delisted"))
    value = (sells["shares"].abs() * sells["price"]).to_numpy()
    early = (sells["session"] >= date(2007, 5, 30)).to_numpy() & (sells["session"] < date(2008, 4, 24)).to_numpy()
    late = (sells["session"] >= date(2008, 9, 19)).to_numpy()
    assert early.any()
    np.testing.assert_allclose(sells["stamp_duty"].to_numpy()[early], 0.003 * value[early])
    np.testing.assert_allclose(sells["stamp_duty"].to_numpy()[late], 0.001 * value[late])
    assert set(result.unfilled["reason"].unique()) & {"halted", "limit_up"}
    same_day = result.trades.filter(pl.col("opened") == pl.col("closed"))
    assert same_day.height == 0


@pytest.mark.requirement("R3.3")
def test_shorts_are_refused_where_the_rules_forbid_them():
    bars = made_up([(10, 10, 10, 10, 1e6)] * 3)
    with pytest.raises(ConfigurationError, match="no short position, but SH600000 is one on 2021-03-01"):
        trade(bars, {0: -1.0})
    fills, _ = trade(bars, {0: -1.0}, execution={"shorting": "allowed"})
    assert fills["shares"].to_list() == [-9_900.0]  # 10,000 less what duty and fee leave room for


@pytest.mark.requirement("R3.3")
@pytest.mark.parametrize(
    ("rules", "fractional", "shares"),
    [
        ("US", None, 333.0),
        ("US", True, 1000 / 3),
        ("none", None, 1000 / 3),
        ("none", False, 333.0),
        ("CN", None, 300.0),
    ],
)
def test_fractions_of_shares(rules, fractional, shares):
    bars = made_up([(3, 3, 3, 3, 1e6)] * 2)
    fills, _ = trade(bars, {0: 0.5}, rules=rules, execution={"fractional": fractional}, portfolio={"capital": 2_000.0})
    assert fills["shares"].to_list() == pytest.approx([shares])
