"""From signals per symbol to targets: states, equal shares of the symbols that trade, changes only."""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.backtesting.strategies.protocol import as_targets

WEIGHT_HELP = "Weight of a full position; null: an equal share of the symbols that have a bar that session."


def rolling_mean(column: str, window: int) -> pl.Expr:
    """Mean of the last ``window`` rows of each symbol, null until there are so many."""
    return pl.col(column).rolling_mean(window, min_samples=window).over("symbol")


def held_state(enter: pl.Expr, leave: pl.Expr) -> pl.Expr:
    """1 from the row at which ``enter`` is true to before the row at which ``leave`` is, else 0, for each symbol."""
    return pl.when(leave).then(0).when(enter).then(1).otherwise(None).forward_fill().over("symbol").fill_null(0)


def state_targets(frame: pl.DataFrame, weight: float | None) -> pl.DataFrame:
    """Targets where a state changes.

    Parameters
    ----------
    frame
        ``symbol, session, state`` (-1, 0, 1; null: no opinion yet), sorted by symbol and session.
    weight
        Weight of a full position, or ``None`` for an equal share of the symbols with a bar in that session.
    """
    share = pl.lit(weight) if weight is not None else 1.0 / pl.len().over("session")
    changed = pl.col("state") != pl.col("state").shift(1).over("symbol").fill_null(0)
    return as_targets(frame.with_columns(weight=pl.col("state") * share).filter(changed))
