"""Performance figures of a series of returns. What is undefined is ``None``, never NaN, infinite or 0.

Definitions agree with empyrical-reloaded (which the tests compare): returns per session, arithmetic means in the
ratios, sample deviations (``ddof=1``), geometric annual return.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.overfitting import deflated_sharpe, probabilistic_sharpe

Vector = NDArray[np.float64]
_FLAT = 1e-15


def return_metrics(returns: Vector, *, sessions_per_year: int = 252, risk_free: float = 0.0) -> dict[str, float | None]:
    """Figures of one series of returns.

    Parameters
    ----------
    returns
        Simple returns per session, shape (sessions,).
    sessions_per_year
        Sessions that make a year.
    risk_free
        Yearly risk-free rate; its geometric share of a session is taken off in Sharpe and Sortino ratio.

    Returns
    -------
    dict
        ``total_return, annual_return, volatility, sharpe, sortino, calmar, max_drawdown`` (<= 0),
        ``max_drawdown_sessions`` (from a peak until it is reached again, or the end), ``var_95, es_95, var_99, es_99``
        (historic, one session, losses positive), ``tail_ratio`` (95th percentile over the absolute 5th), ``skew,
        kurtosis`` (raw, population), ``best_session, worst_session, positive_sessions``.
    """
    n = len(returns)
    out: dict[str, float | None] = {}
    growth = float(np.prod(1.0 + returns)) if n else 1.0
    out["total_return"] = growth - 1.0 if n else None
    out["annual_return"] = growth ** (sessions_per_year / n) - 1.0 if n and growth > 0 else None
    deviation = float(returns.std(ddof=1)) if n > 1 else 0.0
    moves = deviation > _FLAT
    out["volatility"] = deviation * sqrt(sessions_per_year) if n > 1 else None
    excess = returns - ((1.0 + risk_free) ** (1.0 / sessions_per_year) - 1.0)
    mean = float(excess.mean()) if n else 0.0
    out["sharpe"] = mean / deviation * sqrt(sessions_per_year) if moves else None
    downside = sqrt(float((np.minimum(excess, 0.0) ** 2).mean())) if n else 0.0
    out["sortino"] = mean / downside * sqrt(sessions_per_year) if downside > _FLAT else None
    depth, longest = drawdown(returns)
    out["max_drawdown"], out["max_drawdown_sessions"] = (depth, float(longest)) if n else (None, None)
    annual = out["annual_return"]
    out["calmar"] = annual / -depth if annual is not None and depth < 0 else None
    for level in (95, 99):
        loss, shortfall = historic_var(returns, level / 100)
        out[f"var_{level}"], out[f"es_{level}"] = loss, shortfall
    low = abs(float(np.percentile(returns, 5))) if n else 0.0
    out["tail_ratio"] = abs(float(np.percentile(returns, 95))) / low if low > _FLAT else None
    z = (returns - returns.mean()) / returns.std() if moves else None
    out["skew"] = float((z**3).mean()) if z is not None else None
    out["kurtosis"] = float((z**4).mean()) if z is not None else None
    out["best_session"] = float(returns.max()) if n else None
    out["worst_session"] = float(returns.min()) if n else None
    out["positive_sessions"] = float((returns > 0).mean()) if n else None
    return _clean(out)


def drawdown(returns: Vector) -> tuple[float, int]:
    """Deepest fall from a peak (<= 0; the start is a peak too) and the longest time below one, in sessions."""
    curve = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    peak = np.maximum.accumulate(curve)
    below = curve < peak
    reset = np.where(below, 0, np.arange(len(curve)))
    longest = int((np.arange(len(curve)) - np.maximum.accumulate(reset)).max())
    return float((curve / peak - 1.0).min()), longest


def historic_var(returns: Vector, level: float) -> tuple[float | None, float | None]:
    """Value at risk and expected shortfall of one session from the returns' own quantile, losses positive.

    The value at risk interpolates the quantile linearly; the shortfall is the mean of the
    ``floor((n - 1) (1 - level)) + 1`` worst returns, as in empyrical.
    """
    if len(returns) < 2:
        return None, None
    tail = 1.0 - level
    count = int((len(returns) - 1) * tail) + 1
    return -float(np.percentile(returns, 100 * tail)), -float(np.sort(returns)[:count].mean())


def relative_metrics(
    returns: Vector, benchmark: Vector, *, sessions_per_year: int = 252, risk_free: float = 0.0
) -> dict[str, float | None]:
    """Figures against a benchmark on the same sessions (sessions where it is NaN are left out).

    Returns
    -------
    dict
        ``benchmark_total_return, beta`` (sample covariance over variance), ``alpha`` (yearly, compounded from the mean
        of ``excess - beta * benchmark excess``), ``correlation, tracking_error`` (yearly), ``information_ratio`` (mean
        active return over its deviation, times the root of the sessions a year).
    """
    names = ("benchmark_total_return", "beta", "alpha", "correlation", "tracking_error", "information_ratio")
    known = np.isfinite(benchmark)
    own, other = returns[known], benchmark[known]
    if len(own) < 3:
        return dict.fromkeys(names)
    out: dict[str, float | None] = dict.fromkeys(names)
    out["benchmark_total_return"] = float(np.prod(1.0 + other)) - 1.0
    rate = (1.0 + risk_free) ** (1.0 / sessions_per_year) - 1.0
    variance = float(other.var(ddof=1))
    if variance > _FLAT**2:
        beta = float(np.cov(own, other, ddof=1)[0, 1]) / variance
        out["beta"] = beta
        mean = float((own - rate - beta * (other - rate)).mean())
        out["alpha"] = (1.0 + mean) ** sessions_per_year - 1.0
        if own.std() > _FLAT:
            out["correlation"] = float(np.corrcoef(own, other)[0, 1])
    active = own - other
    deviation = float(active.std(ddof=1))
    out["tracking_error"] = deviation * sqrt(sessions_per_year)
    if deviation > _FLAT:
        out["information_ratio"] = float(active.mean()) / deviation * sqrt(sessions_per_year)
    return _clean(out)


def trade_metrics(trades: pl.DataFrame) -> dict[str, float | None]:
    """Figures of the closed round trips: ``trades, open_trades, win_rate, profit_factor, average_trade_return,
    best_trade_return, worst_trade_return, average_trade_sessions, payoff_ratio``.

    The profit factor is the sum of gains over the sum of losses, in currency.
    """
    closed = trades.filter(pl.col("closed").is_not_null())
    pnl, gains = closed["pnl"].to_numpy(), closed["return"].to_numpy()
    n = len(pnl)
    won, lost = pnl[pnl > 0], pnl[pnl < 0]
    return _clean(
        {
            "trades": float(n),
            "open_trades": float(trades.height - n),
            "win_rate": float((pnl > 0).mean()) if n else None,
            "profit_factor": float(won.sum() / -lost.sum()) if len(lost) else None,
            "payoff_ratio": float(won.mean() / -lost.mean()) if len(won) and len(lost) else None,
            "average_trade_return": float(gains.mean()) if n else None,
            "best_trade_return": float(gains.max()) if n else None,
            "worst_trade_return": float(gains.min()) if n else None,
            "average_trade_sessions": float(closed["sessions"].to_numpy().mean()) if n else None,
        }
    )


def overfitting_metrics(returns: Vector, trials: int, variance: float | None) -> dict[str, float | None]:
    """``probabilistic_sharpe, deflated_sharpe, trials``."""
    return _clean(
        {
            "probabilistic_sharpe": probabilistic_sharpe(returns),
            "deflated_sharpe": deflated_sharpe(returns, trials, variance),
            "trials": float(trials),
        }
    )


def _clean(metrics: dict[str, Any]) -> dict[str, float | None]:
    return {k: None if v is None or not isfinite(v) else float(v) for k, v in metrics.items()}
