"""The risk table: volatility, VaR, ES, drawdown and Sharpe of every symbol and session.

The arithmetic is in the modules beside this one; here it becomes the frame that is stored.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from stock_pipeline.core.risk.ladder import choose
from stock_pipeline.core.risk.panel import panel
from stock_pipeline.core.risk.settings import RiskSettings
from stock_pipeline.core.risk.volatility import ewma

__all__ = ["RISK_SCHEMA", "RiskSettings", "insufficient_history", "symbol_risk"]

RISK_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "volatility": pl.Float64(),
    "volatility_daily": pl.Float64(),
    "var_95": pl.Float64(),
    "var_99": pl.Float64(),
    "es_95": pl.Float64(),
    "es_99": pl.Float64(),
    "drawdown": pl.Float64(),
    "max_drawdown_252": pl.Float64(),
    "sharpe_252": pl.Float64(),
    "risk_method": pl.String(),
    "risk_reason": pl.String(),
}
"""The risk table. Volatility is the EWMA forecast for the next session (annualised, and a session); VaR and ES are
positive loss fractions of the next session; drawdown is at most 0; Sharpe is annualised over zero. ``risk_method``
names the VaR method, null where there is no VaR; ``risk_reason`` then says why (``too_little_history`` or
``no_price_movement``). The numbers in the names are the default windows."""


def symbol_risk(bars: pl.DataFrame, settings: RiskSettings, start: date | None = None) -> pl.DataFrame:
    """Risk figures of every bar, from that bar and earlier ones alone.

    Parameters
    ----------
    bars
        Validated bars with ``symbol, session, close, adj_factor``, in any order, including ``settings.lookback``
        sessions of each symbol before ``start`` where they exist.
    settings
        Windows and methods.
    start
        First session of the result; ``None``: all. The rows have the same bits whatever earlier bars were given
        beyond the look-back.

    Returns
    -------
    polars.DataFrame
        `RISK_SCHEMA`, one row a bar, sorted by symbol and session. Never NaN or infinite: null where unknown.

    Raises
    ------
    DataError
        Missing columns, repeated keys, or closes that are missing or not positive.
    """
    from stock_pipeline.core.risk import _kernels

    data = panel(bars)
    daily = ewma(data, settings)
    tail, method = choose(data, daily, settings)
    now, worst = _kernels.drawdowns(data.close, data.first, settings.performance_window)
    sharpe = _kernels.mean_over_deviation(data.returns, data.first, settings.performance_window)
    year = np.sqrt(float(settings.sessions_per_year))
    young = np.arange(data.first.size) - data.first + 1 < settings.minimum_history
    frame = data.keys.with_columns(
        pl.Series("volatility", daily * year),
        pl.Series("volatility_daily", daily),
        pl.Series("var_95", tail.var[:, 0]),
        pl.Series("var_99", tail.var[:, 1]),
        pl.Series("es_95", tail.es[:, 0]),
        pl.Series("es_99", tail.es[:, 1]),
        pl.Series("drawdown", now),
        pl.Series("max_drawdown_252", worst),
        pl.Series("sharpe_252", sharpe * year),
        pl.Series("risk_method", method.tolist(), dtype=pl.String()),
        pl.Series("young", young),
    )
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None)).with_columns(
        pl.when(pl.col("risk_method").is_null())
        .then(pl.when(pl.col("young")).then(pl.lit("too_little_history")).otherwise(pl.lit("no_price_movement")))
        .alias("risk_reason")
    )
    if start is not None:
        frame = frame.filter(pl.col("session") >= start)
    return frame.select(list(RISK_SCHEMA))


def insufficient_history(bars: pl.DataFrame, need: int) -> pl.DataFrame:
    """Symbols with fewer sessions than something needs.

    Parameters
    ----------
    bars
        Frame with ``symbol`` and ``session``.
    need
        Fewest sessions.

    Returns
    -------
    polars.DataFrame
        ``symbol, reason ("too_little_history"), sessions, needed``, sorted by symbol.
    """
    return (
        bars.group_by("symbol")
        .agg(pl.col("session").n_unique().cast(pl.Int64).alias("sessions"))
        .filter(pl.col("sessions") < need)
        .select("symbol", pl.lit("too_little_history").alias("reason"), "sessions", pl.lit(need).alias("needed"))
        .sort("symbol")
    )
