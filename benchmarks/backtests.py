"""Speed of a whole backtest beside plain vectorbt and backtesting.py, in one process and one run.

    python benchmarks/backtests.py [--symbols 500] [--sessions 2500] [--repeat 5] [--json FILE]

Weekly top-20: every week the 20 best of a random score are held in equal parts, with commission, slippage and whole
lots. *Ours* is execution, both ledgers (the second one is vectorbt replaying the fills), round trips and all metrics;
*plain vectorbt* is its own simulation of the same weights (`from_orders`, target percent, cash sharing, automatic call
sequence) with its equity and Sharpe ratio. Preparing the arrays and importing is outside on both sides; both are warmed
up once. The single-symbol case is the 10/30 moving-average cross on the GOOG bars of backtesting.py: its `run` beside
our `run_backtest`, from bars to figures, with and without the second ledger.

Prices are a seeded random walk: only the amount of work matters here.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.data import Panel
from stock_pipeline.core.backtesting.run import run_backtest, simulate
from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)

COMMISSION, SLIPPAGE_BPS, CAPITAL = 0.0005, 5.0, 10_000_000.0


def market(symbols: int, sessions: int, seed: int = 7) -> tuple[Panel, np.ndarray]:
    """Random-walk panel and weekly top-20 weights (NaN where nothing is decided)."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0.0002, 0.02, (sessions, symbols)), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.005, close.shape))
    high = np.maximum(open_, close) * 1.005
    low = np.minimum(open_, close) * 0.995
    volume = rng.integers(1e5, 1e7, close.shape).astype(float)
    days = [date(2014, 1, 1) + timedelta(days=i) for i in range(sessions)]
    names = [f"S{i:04d}" for i in range(symbols)]
    panel = Panel(days, names, open_, high, low, close, volume, np.ones_like(close), close)
    weights = np.full(close.shape, np.nan)
    for t in range(0, sessions - 1, 5):
        weights[t] = 0.0
        weights[t, np.argsort(rng.normal(size=symbols))[:20]] = 1 / 20
    return panel, weights


def timed(call, repeat: int) -> list[float]:
    """Wall times of a call after one warm-up, in seconds."""
    call()
    out = []
    for _ in range(repeat):
        start = perf_counter()
        call()
        out.append(perf_counter() - start)
    return out


def weekly(symbols: int, sessions: int, repeat: int) -> dict[str, float]:
    import vectorbt as vbt

    panel, weights = market(symbols, sessions)
    settings = BacktestSettings(
        costs=CostSettings(commission_rate=COMMISSION, slippage_bps=SLIPPAGE_BPS),
        execution=ExecutionSettings(rules="US"),
        portfolio=PortfolioSettings(capital=CAPITAL),
    )
    shifted = np.vstack([np.full((1, symbols), np.nan), weights[:-1]])
    results = {}

    def ours() -> None:
        results["ours"] = simulate(panel, weights, settings)

    def plain() -> None:
        portfolio = vbt.Portfolio.from_orders(
            panel.close,
            size=shifted,
            size_type="targetpercent",
            price=panel.open,
            val_price=panel.open,
            fees=COMMISSION,
            slippage=SLIPPAGE_BPS / 1e4,
            size_granularity=1.0,
            init_cash=CAPITAL,
            cash_sharing=True,
            group_by=True,
            call_seq="auto",
            freq="1D",
        )
        results["plain"] = np.asarray(portfolio.value()).ravel()
        portfolio.sharpe_ratio()

    # Interleaved, so that both sides meet the same load of the machine.
    ours(), plain()
    pairs = [(timed_once(ours), timed_once(plain)) for _ in range(repeat)]
    mine, theirs = (median(x) for x in zip(*pairs, strict=True))
    equity = results["ours"].ledger.equity
    return {
        "ours_s": mine,
        "vectorbt_s": theirs,
        "ratio": median(a / b for a, b in pairs),
        "fills": len(results["ours"].execution.fills),
        "reconciliation": results["ours"].reconciliation.worst,
        "final_equity_difference": float(abs(equity[-1] / results["plain"][-1] - 1)),
    }


def timed_once(call) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def single(repeat: int) -> dict[str, float]:
    os.environ["TQDM_DISABLE"] = "1"
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover
    from backtesting.test import GOOG, SMA

    class Cross(Strategy):
        def init(self):
            self.fast, self.slow = self.I(SMA, self.data.Close, 10), self.I(SMA, self.data.Close, 30)

        def next(self):
            if crossover(self.fast, self.slow):
                self.position.close()
                self.buy()
            elif crossover(self.slow, self.fast):
                self.position.close()
                self.sell()

    frame = GOOG.reset_index()
    frame.columns = ["session", "open", "high", "low", "close", "volume"]
    bars = pl.from_pandas(frame).with_columns(pl.col("session").cast(pl.Date), symbol=pl.lit("GOOG"))
    settings = BacktestSettings(
        costs=CostSettings(commission_rate=0, slippage_bps=0, borrow_rate=0),
        execution=ExecutionSettings(flatten_at_end=True),
        portfolio=PortfolioSettings(capital=10_000),
        lookahead_cuts=0,
    )
    parameters = {"fast": 10, "slow": 30, "side": "long_short"}
    theirs = median(timed(lambda: Backtest(GOOG, Cross, finalize_trades=True).run(), repeat))
    both = median(timed(lambda: run_backtest("sma_cross", parameters, bars, settings=settings), repeat))
    one = median(
        timed(lambda: run_backtest("sma_cross", parameters, bars, settings=settings, second_ledger=False), repeat)
    )
    return {
        "ours_one_ledger_s": one,
        "ours_two_ledgers_s": both,
        "backtesting_py_s": theirs,
        "ratio_one_ledger": one / theirs,
        "ratio_two_ledgers": both / theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2500)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    out = {
        "weekly_top_20": weekly(arguments.symbols, arguments.sessions, arguments.repeat),
        "single_symbol_sma": single(arguments.repeat),
    }
    text = json.dumps(out, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
