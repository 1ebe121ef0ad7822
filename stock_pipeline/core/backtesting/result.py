"""What a backtest returns: curves, fills, trades, figures, and where they came from, as frames and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.replay import Reconciliation
from stock_pipeline.core.backtesting.settings import BacktestSettings

EQUITY_SCHEMA: dict[str, pl.DataType] = {
    "session": pl.Date(),
    "equity": pl.Float64(),
    "cash": pl.Float64(),
    "return": pl.Float64(),
    "drawdown": pl.Float64(),
    "gross_exposure": pl.Float64(),
    "net_exposure": pl.Float64(),
    "positions": pl.Int64(),
    "turnover": pl.Float64(),
    "costs": pl.Float64(),
    "borrow": pl.Float64(),
    "buy_and_hold": pl.Float64(),
    "benchmark": pl.Float64(),
}
"""One row a session, at its close. ``turnover`` is the traded value over the equity of the session before; ``costs``
are fees and slippage of the session; ``buy_and_hold`` and ``benchmark`` are the capital grown without costs by,
respectively, equal parts of the symbols with a bar in the first session, and the benchmark given (null where there is
none)."""


@dataclass(frozen=True)
class BacktestResult:
    """A finished backtest.

    Parameters
    ----------
    strategy, parameters, settings
        What was run; ``parameters`` with all defaults filled in.
    equity
        Frame of `EQUITY_SCHEMA`.
    fills, unfilled, trades, positions
        Every fill, every order that was not filled in full, round trips, and ``session, symbol, units, value, weight``
        of every position held at a close.
    monthly
        ``year, month, return``.
    metrics
        Figures after costs; ``None`` where undefined.
    costs
        Currency paid by kind: commission, stamp duty, transfer fee, slippage, borrow, and their total.
    reconciliation
        Differences between the two ledgers; ``None`` when the second one was not asked for.
    notes
        Sentences about the method and its limits that a reader must know.
    ruined, drawdown_stops
        Session at whose close equity was gone (or ``None``); sessions at whose close the drawdown stop fired.
    """

    strategy: str
    description: str
    parameters: dict[str, Any]
    settings: BacktestSettings
    equity: pl.DataFrame
    fills: pl.DataFrame
    unfilled: pl.DataFrame
    trades: pl.DataFrame
    positions: pl.DataFrame
    monthly: pl.DataFrame
    metrics: dict[str, float | None]
    costs: dict[str, float]
    reconciliation: Reconciliation | None
    notes: tuple[str, ...]
    symbols: tuple[str, ...]
    ruined: Any = None
    drawdown_stops: tuple[Any, ...] = ()

    @property
    def too_good_to_be_true(self) -> bool:
        """Whether the Sharpe ratio is above 3, which on daily data is nearly always a mistake or a leak."""
        sharpe = self.metrics.get("sharpe")
        return sharpe is not None and sharpe > 3.0

    def to_frames(self) -> dict[str, pl.DataFrame]:
        """All tables by name, each as a frame; ``reconciliation`` only when there is one."""
        frames = {
            "equity": self.equity,
            "fills": self.fills,
            "unfilled": self.unfilled,
            "trades": self.trades,
            "positions": self.positions,
            "monthly": self.monthly,
            "costs": pl.DataFrame({"kind": list(self.costs), "amount": list(self.costs.values())}),
            "metrics": pl.DataFrame(
                {"metric": list(self.metrics), "value": list(self.metrics.values())},
                schema={"metric": pl.String(), "value": pl.Float64()},
            ),
        }
        if self.reconciliation is not None:
            r = self.reconciliation
            frames["reconciliation"] = pl.DataFrame(
                {"session": self.equity["session"], "cash": r.cash, "equity": r.equity, "positions": r.positions}
            )
        return frames

    def summary(self) -> dict[str, Any]:
        """Everything but the long tables, in types that JSON knows."""
        sessions = self.equity["session"]
        r = self.reconciliation
        return {
            "strategy": self.strategy,
            "description": self.description,
            "parameters": self.parameters,
            "settings": self.settings.model_dump(mode="json"),
            "data_version": self.settings.data_version,
            "model_version": self.settings.model_version,
            "seed": self.settings.seed,
            "trials": self.settings.trials,
            "first_session": str(sessions[0]),
            "last_session": str(sessions[-1]),
            "sessions": sessions.len(),
            "symbols": list(self.symbols),
            "metrics": self.metrics,
            "costs": self.costs,
            "reconciliation": None
            if r is None
            else {
                "agrees": r.agrees,
                "worst_relative": r.worst,
                "worst_cash": float(np.max(r.cash)),
                "worst_equity": float(np.max(r.equity)),
                "worst_positions": float(np.max(r.positions)),
            },
            "too_good_to_be_true": self.too_good_to_be_true,
            "ruined": None if self.ruined is None else str(self.ruined),
            "drawdown_stops": [str(x) for x in self.drawdown_stops],
            "unfilled_orders": self.unfilled.height,
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The summary with the equity curve and the trades, as JSON with sorted keys; equal runs give equal text."""
        tables = {
            name: json.loads(frame.write_json()) for name, frame in (("equity", self.equity), ("trades", self.trades))
        }
        return json.dumps({**self.summary(), **tables}, sort_keys=True, allow_nan=False)
