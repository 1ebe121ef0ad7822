"""Settings of a backtest: costs, execution, portfolio. What a strategy may be tuned by is the strategy's own."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from stock_pipeline.core.parameters import Parameters


class CostSettings(Parameters):
    """What trading costs, beside the levies that the exchange rules prescribe."""

    commission_rate: float = Field(
        default=0.0005, ge=0, le=0.1, description="Commission as a fraction of traded value."
    )
    commission_minimum: float = Field(default=0.0, ge=0, description="Least commission of one order, in currency.")
    commission_per_share: float = Field(default=0.0, ge=0, description="Commission per share, added to the rate.")
    slippage_bps: float = Field(default=5.0, ge=0, le=1000, description="Basis points by which each fill is worse.")
    borrow_rate: float = Field(
        default=0.02, ge=0, le=1, description="Yearly cost of a short position's value, by days/365."
    )
    buy_levy: float | None = Field(
        default=None, ge=0, le=0.1, description="Stamp duty on purchases instead of the rules'."
    )
    sell_levy: float | None = Field(
        default=None, ge=0, le=0.1, description="Stamp duty on sales instead of the rules'."
    )


class ExecutionSettings(Parameters):
    """How a target becomes fills."""

    rules: str = Field(default="US", description="Exchange rules: US, CN or none.")
    price: Literal["auto", "open", "close"] = Field(
        default="auto",
        description="Price of the next session at which orders are filled; auto: open, close where none.",
    )
    unfilled: Literal["cancel", "carry"] = Field(
        default="cancel", description="What happens to an order that a halt, a price limit or the volume stopped."
    )
    max_participation: float | None = Field(
        default=None, gt=0, le=1, description="Largest share of a session's volume."
    )
    minimum_trade_weight: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Changes smaller than this share of equity are left (closing orders are not).",
    )
    fractional: bool | None = Field(default=None, description="Fractions of shares; null: as the rules say.")
    shorting: Literal["rules", "allowed"] = Field(default="rules", description="Allow shorts where the rules do not.")
    flatten_at_end: bool = Field(
        default=False, description="Close all positions at the last session's execution price."
    )
    delisting_sessions: int | None = Field(
        default=60, ge=1, description="A position without a bar for so many sessions is written off at its last close."
    )
    delisting_recovery: float = Field(
        default=1.0, gt=0, le=1, description="Share of the last close that a delisting returns."
    )


class PortfolioSettings(Parameters):
    """Capital, sizing, limits and stops. Fractions are of equity, or of the entry price for stops."""

    capital: float = Field(default=1_000_000.0, gt=0, description="Cash at the start, in currency.")
    sizing: Literal["target", "equal", "volatility"] = Field(
        default="target",
        description="Weights as the strategy gives them, equal among its names, or scaled to a volatility.",
    )
    volatility_target: float = Field(
        default=0.15, gt=0, le=2, description="Yearly volatility aimed at by volatility sizing."
    )
    volatility_window: int = Field(
        default=63, ge=10, le=1000, description="Sessions from which volatility is estimated."
    )
    max_position: float | None = Field(default=None, gt=0, description="Largest absolute weight of a symbol.")
    max_gross: float = Field(
        default=1.0, gt=0, le=20, description="Largest sum of absolute weights; also the buying power."
    )
    max_net: float | None = Field(default=None, gt=0, description="Largest absolute sum of weights.")
    max_positions: int | None = Field(
        default=None, ge=1, description="Largest number of names; the largest weights stay."
    )
    stop_loss: float | None = Field(
        default=None, gt=0, lt=1, description="Loss from the average entry price that closes."
    )
    trailing_stop: float | None = Field(default=None, gt=0, lt=1, description="Fall from the best price that closes.")
    take_profit: float | None = Field(default=None, gt=0, description="Gain from the average entry price that closes.")
    drawdown_stop: float | None = Field(
        default=None, gt=0, lt=1, description="Fall of equity from its peak that flattens all."
    )
    drawdown_pause: int | None = Field(
        default=None, ge=1, description="Sessions out of the market after it; null: for ever."
    )


class BacktestSettings(Parameters):
    """Everything about a backtest that is not the strategy."""

    start: date | None = Field(
        default=None, description="First session of the account; earlier bars are look-back only."
    )
    end: date | None = Field(default=None, description="Last session of the account.")
    costs: CostSettings = CostSettings()
    execution: ExecutionSettings = ExecutionSettings()
    portfolio: PortfolioSettings = PortfolioSettings()
    risk_free: float = Field(default=0.0, ge=-0.1, le=1, description="Yearly risk-free rate in the ratios.")
    sessions_per_year: int = Field(default=252, ge=1, le=366, description="Sessions that make a year.")
    trials: int = Field(
        default=1, ge=1, description="How many strategies or parameter sets were tried before this one."
    )
    trials_sharpe_variance: float | None = Field(
        default=None,
        ge=0,
        description="Variance of the per-session Sharpe ratios of those trials, for the deflated one.",
    )
    lookahead_cuts: int = Field(
        default=3, ge=0, le=100, description="Dates at which the strategy is checked for look-ahead."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the dates of the look-ahead check.")
    data_version: str | None = Field(default=None, description="Version of the bars, carried into the result.")
    model_version: str | None = Field(default=None, description="Version of the model, carried into the result.")
