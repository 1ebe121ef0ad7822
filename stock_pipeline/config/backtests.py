"""What stands under ``backtests``: the strategies, and the costs, execution and portfolio that all of them share.

What the words mean is defined in ``core.backtesting.settings``; here is only how they are written in a configuration
and what follows from the market where nothing is written.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from stock_pipeline.core.backtesting.settings import (
    BacktestSettings,
    CostSettings,
    ExecutionSettings,
    PortfolioSettings,
)
from stock_pipeline.core.market.calendar import ALIASES
from stock_pipeline.core.parameters import Parameters

RULES = {"XSHG": "CN", "24/7": "none", "24/5": "none"}
"""Exchange rules by calendar where the configuration names none; whole shares (US) everywhere else."""

SESSIONS_PER_YEAR = {"24/7": 365, "24/5": 261}
"""Sessions that make a year where it is not 252."""


class StrategySettings(Parameters):
    """One strategy to backtest."""

    name: str = Field(description="a registered strategy, or package.module:Class of your own")
    parameters: dict[str, Any] = Field({}, description="its parameters; the defaults where left out")


class BacktestCosts(CostSettings):
    """Costs, with the commission in basis points as well."""

    @model_validator(mode="before")
    @classmethod
    def _commission_bps(cls, value: Any) -> Any:
        """Read ``commission_bps: 5`` as ``commission_rate: 0.0005``."""
        if not isinstance(value, dict) or "commission_bps" not in value:
            return value
        if "commission_rate" in value:
            raise ValueError("commission_bps and commission_rate are the same cost; keep one")
        rest = {key: cost for key, cost in value.items() if key != "commission_bps"}
        bps = value["commission_bps"]
        if isinstance(bps, bool) or not isinstance(bps, int | float) or not 0 <= bps <= 1000:
            raise ValueError(f"commission_bps must be a number from 0 to 1000; it is {bps!r}")
        return {**rest, "commission_rate": bps / 10_000}


class BacktestsSettings(Parameters):
    """Which strategies are backtested, under which rules."""

    strategies: list[StrategySettings] = Field(
        [StrategySettings(name=name) for name in ("buy_and_hold", "sma_cross", "momentum_rank", "model_rank")],
        min_length=1,
        description="names, or {name: ..., parameters: {...}}",
    )
    start: date | None = Field(None, description="first session of the accounts; earlier bars are look-back only")
    end: date | None = Field(None, description="last session of the accounts")
    costs: BacktestCosts = BacktestCosts()
    execution: ExecutionSettings = ExecutionSettings()
    portfolio: PortfolioSettings = PortfolioSettings()
    risk_free: float = Field(0.0, ge=-0.1, le=1, description="yearly risk-free rate in the ratios")
    sessions_per_year: int | None = Field(None, ge=1, le=366, description="null: 252, or 365 round the clock")
    lookahead_cuts: int = Field(3, ge=0, le=100, description="dates at which a strategy is checked for look-ahead")
    seed: int = Field(0, ge=0, description="seed of the dates of that check")

    @field_validator("strategies", mode="before")
    @classmethod
    def _names_are_enough(cls, value: Any) -> Any:
        return (
            [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [strategy.name for strategy in self.strategies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each strategy may be listed once; listed again: {', '.join(twice)}")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start ({self.start}) must be before end ({self.end})")
        return self

    def settings(self, calendar: str) -> BacktestSettings:
        """Settings of one back-test on the market of a calendar.

        Parameters
        ----------
        calendar
            Name of the exchange calendar; decides exchange rules and sessions per year where they are left out.
        """
        name = ALIASES.get(calendar, calendar)
        execution = self.execution
        if "rules" not in execution.model_fields_set:
            execution = execution.model_copy(update={"rules": RULES.get(name, "US")})
        return BacktestSettings(
            start=self.start,
            end=self.end,
            costs=CostSettings(**self.costs.model_dump()),
            execution=execution,
            portfolio=self.portfolio,
            risk_free=self.risk_free,
            sessions_per_year=self.sessions_per_year or SESSIONS_PER_YEAR.get(name, 252),
            lookahead_cuts=self.lookahead_cuts,
            seed=self.seed,
        )
