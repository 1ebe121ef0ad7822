"""Tables by session and month, made from the first ledger."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Panel
from stock_pipeline.core.backtesting.fills import Execution
from stock_pipeline.core.backtesting.ledger import Ledger
from stock_pipeline.core.backtesting.result import EQUITY_SCHEMA

Vector = NDArray[np.float64]


def equity_frame(
    panel: Panel, execution: Execution, ledger: Ledger, benchmark: Vector | None, capital: float
) -> pl.DataFrame:
    """The account by session, a frame of `EQUITY_SCHEMA`."""
    n, fills, equity = len(panel.sessions), execution.fills, ledger.equity
    before = np.concatenate([[capital], equity[:-1]])
    peak = np.maximum.accumulate(np.maximum(equity, capital))
    traded = np.bincount(fills.row, weights=np.abs(fills.units * fills.price), minlength=n)
    frame = {
        "session": pl.Series(panel.sessions, dtype=pl.Date),
        "equity": equity,
        "cash": ledger.cash,
        "return": _ratio(equity, before) - 1.0,
        "drawdown": equity / peak - 1.0,
        "gross_exposure": _ratio(np.abs(ledger.values).sum(axis=1), equity),
        "net_exposure": _ratio(ledger.values.sum(axis=1), equity),
        "positions": np.count_nonzero(ledger.units, axis=1),
        "turnover": _ratio(traded, before),
        "costs": np.bincount(fills.row, weights=fills.fees + fills.slippage, minlength=n),
        "borrow": execution.borrow,
        "buy_and_hold": capital * buy_and_hold(panel),
        "benchmark": np.full(n, np.nan) if benchmark is None else capital * _growth(benchmark),
    }
    return pl.DataFrame(frame).cast(pl.Schema(EQUITY_SCHEMA)).with_columns(pl.selectors.float().fill_nan(None))


def _ratio(value: NDArray, base: Vector) -> Vector:
    return np.where(base > 0, value / np.where(base > 0, base, 1.0), np.nan)


def _growth(closes: Vector) -> Vector:
    known = closes[np.isfinite(closes)]
    return closes / known[0] if len(known) else closes


def buy_and_hold(panel: Panel) -> Vector:
    """Growth of equal parts of the symbols with a bar in the first session, without costs."""
    held = np.isfinite(panel.close[0])
    return (panel.mark[:, held] / panel.mark[0, held]).mean(axis=1)


def positions_frame(panel: Panel, ledger: Ledger) -> pl.DataFrame:
    """``session, symbol, units, value, weight`` of every position held at a close."""
    rows, slots = np.nonzero(ledger.units)
    values, equity = ledger.values[rows, slots], ledger.equity[rows]
    return pl.DataFrame(
        {
            "session": pl.Series(panel.sessions, dtype=pl.Date).gather(rows),
            "symbol": pl.Series(panel.symbols, dtype=pl.String).gather(ledger.columns[slots]),
            "units": ledger.units[rows, slots],
            "value": values,
            "weight": _ratio(values, equity),
        }
    ).with_columns(pl.col("weight").fill_nan(None))


def monthly_table(panel: Panel, returns: Vector) -> pl.DataFrame:
    """Compounded return of each calendar month: ``year, month, return``."""
    frame = pl.DataFrame({"session": pl.Series(panel.sessions, dtype=pl.Date), "return": returns})
    return (
        frame.group_by(year=pl.col("session").dt.year(), month=pl.col("session").dt.month())
        .agg(((1 + pl.col("return")).product() - 1).alias("return"))
        .sort("year", "month")
    )
