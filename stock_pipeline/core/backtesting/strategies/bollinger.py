"""Return to the mean from the Bollinger bands, or following a break-out of them."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.signals import WEIGHT_HELP, held_state, state_targets
from stock_pipeline.core.parameters import Parameters


class BollingerParameters(Parameters):
    """Parameters of `Bollinger`."""

    window: int = Field(default=20, ge=5, le=500, description="Sessions of mean and deviation.")
    width: float = Field(default=2.0, gt=0, le=6, description="Deviations between mean and band.")
    mode: Literal["reversion", "breakout"] = Field(
        default="reversion", description="Buy below the lower or above the upper band."
    )
    side: Literal["long", "long_short"] = Field(default="long", description="Whether to go short at the opposite band.")
    weight: float | None = Field(default=None, gt=0, le=5, description=WEIGHT_HELP)


class Bollinger(Strategy):
    """Positions opened outside the bands and closed at the mean.

    The bands are the mean of the last ``window`` adjusted closes plus and minus ``width`` population deviations
    (``ddof=0``, as Bollinger defines them).
    """

    name: ClassVar[str] = "bollinger"
    description: ClassVar[str] = "Positions opened outside the Bollinger bands and closed at the mean."
    Parameters: ClassVar[type[Parameters]] = BollingerParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        close = pl.col("close")
        mean = close.rolling_mean(p.window, min_samples=p.window).over("symbol")
        deviation = close.rolling_std(p.window, min_samples=p.window, ddof=0).over("symbol")
        score = pl.when(deviation > 1e-6 * mean).then((close - mean) / deviation).otherwise(0.0)
        frame = data.adjusted.select("symbol", "session", z=pl.when(mean.is_not_null()).then(score))
        z = pl.col("z") if p.mode == "reversion" else -pl.col("z")
        state = held_state(z < -p.width, z >= 0)
        if p.side == "long_short":
            state = state - held_state(z > p.width, z <= 0)
        return state_targets(frame.select("symbol", "session", state=state), p.weight)
