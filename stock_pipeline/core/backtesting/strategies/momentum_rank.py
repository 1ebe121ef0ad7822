"""Cross-sectional momentum."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field, model_validator

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.ranking import rank_targets
from stock_pipeline.core.backtesting.strategies.schedule import Schedule, decision_sessions
from stock_pipeline.core.parameters import Parameters


class MomentumRankParameters(Parameters):
    """Parameters of `MomentumRank`."""

    lookback: int = Field(default=252, ge=2, le=2000, description="Sessions over which the return is measured.")
    skip: int = Field(default=21, ge=0, le=250, description="Latest sessions that are left out of it.")
    top: int = Field(default=5, ge=1, le=5000, description="Names held long.")
    bottom: int = Field(default=0, ge=0, le=5000, description="Names held short; 0 for long only.")
    rebalance: Schedule = Field(default="monthly", description="How often the ranking is renewed.")
    gross: float = Field(default=1.0, gt=0, le=5, description="Sum of absolute weights.")

    @model_validator(mode="after")
    def _order(self) -> MomentumRankParameters:
        if self.skip >= self.lookback:
            raise ValueError(f"skip ({self.skip}) must be smaller than lookback ({self.lookback})")
        return self


class MomentumRank(Strategy):
    """Hold the names with the largest past return (Jegadeesh and Titman 1993, with the latest month skipped)."""

    name: ClassVar[str] = "momentum_rank"
    description: ClassVar[str] = "Hold the names with the largest past return, optionally short the smallest."
    Parameters: ClassVar[type[Parameters]] = MomentumRankParameters

    def targets(self, data: MarketData) -> pl.DataFrame:
        """See `Strategy.targets`."""
        p = self.parameters
        close = pl.col("close")
        score = close.shift(p.skip).over("symbol") / close.shift(p.lookback).over("symbol") - 1
        dates = decision_sessions(data.sessions, p.rebalance)
        scores = data.adjusted.select("session", "symbol", score=score).filter(
            pl.col("session").is_in(dates) & pl.col("score").is_not_null()
        )
        return rank_targets(data.members(scores), top=p.top, bottom=p.bottom, gross=p.gross)
