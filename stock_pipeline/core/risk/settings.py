"""The parameters of the risk figures; the arithmetic is in the modules beside this one."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stock_pipeline.core.parameters import Parameters

MAX_PERIOD_SESSIONS = {"month": 31, "quarter": 92}
"""The most sessions that a calendar month or quarter can hold (a market that trades every day)."""

Method = Literal["fhs", "garch_t", "historical"]
"""``fhs``: filtered historical simulation; ``garch_t``: GARCH(1,1) with Student-t errors; ``historical``: plain."""


class RiskSettings(Parameters):
    """How volatility, value at risk, expected shortfall, drawdown and Sharpe are computed.

    Every figure is a finite window, so that a frame with `lookback` earlier sessions gives the bits of all history.
    """

    decay: float = Field(default=0.94, gt=0.5, lt=1.0, description="EWMA decay a session (RiskMetrics: 0.94)")
    volatility_window: int = Field(
        default=250, ge=20, le=2000, description="sessions in the EWMA; older ones weigh nothing"
    )
    volatility_minimum: int = Field(default=20, ge=2, description="fewest returns for a volatility")
    quantile_window: int = Field(default=500, ge=100, le=5000, description="sessions in the tail quantile")
    quantile_minimum: int = Field(default=250, ge=100, description="fewest standardised returns for a tail quantile")
    performance_window: int = Field(default=252, ge=20, le=2000, description="sessions in drawdown and Sharpe")
    sessions_per_year: int = Field(
        default=252, ge=200, le=366, description="to annualise; 365 for a market that never closes"
    )
    method: Literal["fhs", "garch_t", "historical", "ladder"] = Field(
        default="fhs",
        description="how VaR and ES are computed; ladder = the first whose own backtest passes, per symbol",
    )
    ladder: tuple[Method, ...] = Field(
        default=("fhs", "garch_t", "historical"),
        min_length=1,
        description="order of trial; the last one is the last resort",
    )
    decision_period: Literal["month", "quarter"] = Field(
        default="quarter", description="the ladder's choice and the GARCH parameters are renewed in its first session"
    )
    evaluation_window: int = Field(default=500, ge=250, le=5000, description="sessions of a method's own backtest")
    significance: float = Field(
        default=0.01, gt=0.0, lt=0.5, description="a backtest p-value below it rejects a method"
    )
    garch_window: int = Field(default=1000, ge=250, le=5000, description="returns that a GARCH model is fitted on")
    garch_minimum: int = Field(default=500, ge=250, description="fewest returns for a GARCH fit")

    @model_validator(mode="after")
    def _minima_fit_in_windows(self) -> Self:
        for low, high in (
            ("volatility_minimum", "volatility_window"),
            ("quantile_minimum", "quantile_window"),
            ("garch_minimum", "garch_window"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not exceed {high}")
        if len(set(self.ladder)) != len(self.ladder):
            raise ValueError("ladder names a method twice")
        return self

    @property
    def lookback(self) -> int:
        """Sessions needed before a session for bits that do not depend on where the frame starts."""
        simulated = self.quantile_window + self.volatility_window
        period = MAX_PERIOD_SESSIONS[self.decision_period]
        fitted = period + self.garch_window + 1
        if self.method == "garch_t":
            tail = fitted
        elif self.method == "ladder":
            tail = period + self.evaluation_window + max(simulated, fitted) + 1
        else:
            tail = simulated
        return max(tail, self.performance_window)

    @property
    def minimum_history(self) -> int:
        """Sessions from which a VaR exists (one close more than the returns that it needs)."""
        return self.volatility_minimum + self.quantile_minimum + 1
