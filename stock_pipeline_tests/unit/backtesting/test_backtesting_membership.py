"""The point-in-time universe in a backtest: joiners bring their past, leavers are sold at a real price."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.membership import member_targets
from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.backtesting.settings import BacktestSettings, CostSettings, ExecutionSettings

FIRST = date(2020, 1, 1)
FREE = BacktestSettings(
    costs=CostSettings(commission_rate=0, slippage_bps=0), execution=ExecutionSettings(rules="none", fractional=True)
)


def day(n: int) -> date:
    return FIRST + timedelta(days=n)


def bars(**closes: list[float]) -> pl.DataFrame:
    frames = [
        pl.DataFrame(
            {
                "symbol": [symbol] * len(values),
                "session": [day(n) for n in range(len(values))],
                "open": values,
                "high": values,
                "low": values,
                "close": values,
                "volume": [1e6] * len(values),
            }
        )
        for symbol, values in closes.items()
    ]
    return pl.concat(frames)


def spans(*rows: tuple[str, int, int | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"symbol": s, "start": day(a), "end": None if b is None else day(b)} for s, a, b in rows],
        schema={"symbol": pl.String, "start": pl.Date, "end": pl.Date},
    )


@pytest.mark.requirement("R3.1", "R3.2")
def test_a_leaver_is_sold_at_the_price_after_it_left() -> None:
    flat = [100.0] * 20
    falling = [100.0] * 10 + [50.0] * 10  # the fall comes with the news that it leaves
    result = run_backtest(
        "buy_and_hold",
        None,
        bars(A=flat, B=falling),
        membership=spans(("A", 0, None), ("B", 0, 9)),
        settings=FREE,
    )
    assert result.equity["equity"][-1] == pytest.approx(1_000_000 * 0.75)
    sales = result.fills.filter(pl.col("symbol") == "B").sort("session")
    assert sales["session"].to_list() == [day(1), day(11)], "bought at once, sold after its first session outside"
    assert result.positions.filter((pl.col("symbol") == "B") & (pl.col("session") > day(11))).is_empty()


@pytest.mark.requirement("R3.2")
def test_a_joiner_is_ranked_with_its_past_and_never_before_it_joins() -> None:
    rising = [100.0 * 1.01**n for n in range(60)]
    result = run_backtest(
        "momentum_rank",
        {"lookback": 10, "skip": 1, "top": 1, "rebalance": "daily"},
        bars(A=[100.0] * 60, B=rising),
        membership=spans(("A", 0, None), ("B", 30, None)),
        settings=FREE,
    )
    bought = result.fills.filter(pl.col("symbol") == "B")
    assert bought["session"].min() == day(31), "its past is known when it joins, so it is chosen on that very day"


def test_a_standing_signal_is_taken_up_on_joining_and_dropped_on_leaving() -> None:
    data = MarketData.from_bars(bars(A=[1.0] * 10), membership=spans(("A", 3, 6)))
    decided = pl.DataFrame(
        {"session": [day(1)], "symbol": ["A"], "weight": [0.5]},
        schema={"session": pl.Date, "symbol": pl.String, "weight": pl.Float64},
    )
    found = member_targets(decided, data)
    assert found.rows() == [(day(3), "A", 0.5), (day(7), "A", 0.0)]


def test_adjoining_spans_are_no_exit_and_no_table_changes_nothing() -> None:
    data = MarketData.from_bars(bars(A=[1.0] * 10), membership=spans(("A", 0, 4), ("A", 5, None)))
    decided = pl.DataFrame(
        {"session": [day(0)], "symbol": ["A"], "weight": [1.0]},
        schema={"session": pl.Date, "symbol": pl.String, "weight": pl.Float64},
    )
    assert member_targets(decided, data).filter(pl.col("weight") == 0).is_empty()
    assert member_targets(decided, MarketData.from_bars(bars(A=[1.0] * 10))).equals(decided)


@pytest.mark.requirement("R3.2", "V3")
def test_decisions_of_members_do_not_depend_on_the_future() -> None:
    random = np.random.default_rng(5)
    prices = {s: list(100 * np.exp(np.cumsum(random.normal(0, 0.02, 80)))) for s in "ABCD"}
    table = spans(("A", 0, None), ("B", 0, 40), ("C", 20, 60), ("D", 50, None))
    from stock_pipeline.core.backtesting.strategies import build

    strategy = build("sma_cross", {"fast": 3, "slow": 9})
    whole = MarketData.from_bars(bars(**prices), membership=table)
    full = member_targets(strategy.targets(whole), whole)
    for cut in (15, 41, 61, 79):
        part = whole.until(day(cut))
        seen = member_targets(strategy.targets(part), part)
        assert seen.equals(full.filter(pl.col("session") <= day(cut)))
