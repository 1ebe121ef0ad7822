"""Results that others have published, reproduced with general settings."""

from __future__ import annotations

import warnings

import polars as pl
import pytest

from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)

FREE = CostSettings(commission_rate=0, slippage_bps=0, borrow_rate=0)


@pytest.fixture(scope="module")
def goog() -> pl.DataFrame:
    backtesting = pytest.importorskip("backtesting.test")
    frame = backtesting.GOOG.reset_index()
    frame.columns = ["session", "open", "high", "low", "close", "volume"]
    return pl.from_pandas(frame).with_columns(pl.col("session").cast(pl.Date), symbol=pl.lit("GOOG"))


def run(goog: pl.DataFrame, costs: CostSettings = FREE, **parameters):
    settings = BacktestSettings(
        costs=costs,
        execution=ExecutionSettings(rules="US", flatten_at_end=True),
        portfolio=PortfolioSettings(capital=10_000),
    )
    return run_backtest("sma_cross", parameters, goog, settings=settings)


@pytest.mark.requirement("R3.2", "R3.3", "V3")
def test_the_goog_cross_of_backtesting_py(goog):
    """66 trades and 51,422.99 dollars, as asserted by backtesting.py's own tests."""
    result = run(goog, fast=10, slow=30, side="long_short")
    m = result.metrics
    assert m["trades"] == 66
    assert m["final_equity"] == pytest.approx(51_422.98999999996, rel=1e-12)
    assert result.equity["equity"].max() == pytest.approx(75_787.44, rel=1e-12)
    assert m["total_return"] == pytest.approx(4.142298999999996, rel=1e-12)
    assert m["max_drawdown"] == pytest.approx(-0.4798012705007589, rel=1e-12)
    assert m["win_rate"] == pytest.approx(0.4696969696969697, rel=1e-12)
    assert m["best_trade_return"] == pytest.approx(0.5359595229490424, rel=1e-9)
    assert m["worst_trade_return"] == pytest.approx(-0.1839887353835481, rel=1e-9)
    assert m["average_trade_return"] == pytest.approx(0.032748078066748834, rel=1e-9)
    assert result.reconciliation.agrees
    assert result.reconciliation.worst < 1e-12


@pytest.mark.requirement("R3.3")
@pytest.mark.parametrize(("fast", "slow", "commission"), [(10, 30, 0.002), (5, 40, 0.0), (20, 60, 0.001)])
def test_other_parameters_and_commissions_equal_backtesting_py_run_beside(goog, fast, slow, commission):
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover
    from backtesting.test import GOOG, SMA

    class Cross(Strategy):
        def init(self):
            self.a, self.b = self.I(SMA, self.data.Close, fast), self.I(SMA, self.data.Close, slow)

        def next(self):
            if crossover(self.a, self.b):
                self.position.close()
                self.buy()
            elif crossover(self.b, self.a):
                self.position.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Backtest(GOOG, Cross, finalize_trades=True, commission=commission).run()
    costs = FREE.model_copy(update={"commission_rate": commission})
    ours = run(goog, costs=costs, fast=fast, slow=slow)
    assert ours.trades.height == theirs["# Trades"]
    assert ours.trades["shares"].to_list() == theirs["_trades"]["Size"].tolist()
    assert ours.metrics["final_equity"] == pytest.approx(theirs["Equity Final [$]"], rel=1e-9)
    assert ours.trades["pnl"].to_list() == pytest.approx(theirs["_trades"]["PnL"].tolist(), rel=1e-6, abs=1e-6)
