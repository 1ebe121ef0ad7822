"""Buy what has fallen fast, by the relative strength index."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.signals import WEIGHT_HELP, held_state, state_targets
from stock_pipeline.core.parameters import Parameters


class RsiParameters(Parameters):
    """Parameters of `RsiMeanReversion`."""

    period: int = Field(default=14, ge=2, le=250, description="Sessions of the index.")
    lower: float = Field(default=30.0, gt=0, lt=100, description="Long below this value.")
    leave: float = Field(default=50.0, gt=0, lt=100, description="Close when the index has come back to this value.")
    upper: float = Field(default=70.0, gt=0, lt=100, description="Short above this value, with side long_short.")
    side: Literal["long", "long_short"] = Field(default="long", description="Whether to go short above upper.")
    weight: float | None = Field(default=None, gt=0, le=5, description=WEIGHT_HELP)

    @model_validator(mode="after")
    def _order(self) -> RsiParameters:
        if not self.lower < self.leave < self.upper:
            raise ValueError(f"lower ({self.lower}) < leave ({self.leave}) < upper ({self.upper}) must hold")
        return self


class RsiMeanReversion(Strategy):
    """Long when the index falls below ``lower``, until it is back at ``leave``; mirrored for shorts.

    The index is Cutler's form, ``100 * gains / (gains + losses)`` with sums over the window, which depends on the
    window alone, while Wilder's smoothing depends on where the history starts.
    """

    name: ClassVar[str] = "rsi_mean_reversion"
    description: ClassVar[str] = "Long after a fast fall, out when the relative strength index is back to normal."
    Parameters: ClassVar[type[Parameters]] = RsiParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        change = pl.col("close") - pl.col("close").shift(1).over("symbol")
        frame = data.adjusted.select(
            "symbol", "session", gain=change.clip(lower_bound=0), loss=-change.clip(upper_bound=0)
        )
        gains, losses = (
            pl.col(c).rolling_mean(p.period, min_samples=p.period).over("symbol").clip(lower_bound=0)
            for c in ("gain", "loss")
        )
        frame = frame.select("symbol", "session", rsi=100 * gains / (gains + losses)).with_columns(
            rsi=pl.col("rsi").fill_nan(50.0)
        )
        rsi = pl.col("rsi")
        state = held_state(rsi < p.lower, rsi >= p.leave)
        if p.side == "long_short":
            state = state - held_state(rsi > p.upper, rsi <= p.leave)
        return state_targets(frame.select("symbol", "session", state=state), p.weight)
