"""Crossing of two simple moving averages."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.signals import WEIGHT_HELP, rolling_mean, state_targets
from stock_pipeline.core.parameters import Parameters


class SmaCrossParameters(Parameters):
    """Parameters of `SmaCross`."""

    fast: int = Field(default=50, ge=1, le=1000, description="Sessions of the fast average.")
    slow: int = Field(default=200, ge=2, le=2000, description="Sessions of the slow average, more than fast.")
    side: Literal["long", "long_short"] = Field(
        default="long", description="Go flat or short when the fast crosses below."
    )
    weight: float | None = Field(default=None, gt=0, le=5, description=WEIGHT_HELP)

    @model_validator(mode="after")
    def _order(self) -> SmaCrossParameters:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be smaller than slow ({self.slow})")
        return self


class SmaCross(Strategy):
    """Long from the session at which the fast average crosses above the slow one, until it crosses below.

    A cross is a strict change of order between two successive rows of a symbol, so that a position is opened only by a
    cross and not by the order found at the first row.
    """

    name: ClassVar[str] = "sma_cross"
    description: ClassVar[str] = "Long (or long-short) on crossings of two simple moving averages."
    Parameters: ClassVar[type[Parameters]] = SmaCrossParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        gap = (rolling_mean("close", p.fast) - rolling_mean("close", p.slow)).alias("gap")
        frame = data.adjusted.select("symbol", "session", gap)
        before = pl.col("gap").shift(1).over("symbol")
        below = -1 if p.side == "long_short" else 0
        cross = pl.when((before < 0) & (pl.col("gap") > 0)).then(1).when((before > 0) & (pl.col("gap") < 0)).then(below)
        state = cross.otherwise(None).forward_fill().over("symbol").fill_null(0)
        return state_targets(frame.select("symbol", "session", state=state), p.weight)
