"""Buy everything in equal parts and hold it."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.ranking import rank_targets
from stock_pipeline.core.backtesting.strategies.schedule import decision_sessions
from stock_pipeline.core.parameters import Parameters


class BuyAndHoldParameters(Parameters):
    """Parameters of `BuyAndHold`."""

    rebalance: Literal["never", "monthly", "quarterly", "yearly"] = Field(
        default="never", description="When the equal weights are restored, and new symbols taken in."
    )
    gross: float = Field(default=1.0, gt=0, le=5, description="Share of equity that is invested.")


class BuyAndHold(Strategy):
    """Equal weights of every symbol that has a bar on the decision date."""

    name: ClassVar[str] = "buy_and_hold"
    description: ClassVar[str] = "Equal weights of all symbols at the start, kept or restored on a schedule."
    Parameters: ClassVar[type[Parameters]] = BuyAndHoldParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        dates = data.sessions[:1] if p.rebalance == "never" else decision_sessions(data.sessions, p.rebalance)
        scores = data.bars.filter(pl.col("session").is_in(dates)).select("session", "symbol", score=pl.lit(0.0))
        return rank_targets(data.members(scores), top=len(data.symbols), bottom=0, gross=p.gross)
