"""Bars as flat arrays for the risk kernels: one row a bar, symbols one after the other.

Only the change of form and its checks belong here, no risk figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError


@dataclass(frozen=True)
class Panel:
    """Adjusted closes and simple returns of all symbols in one row order.

    Attributes
    ----------
    keys
        ``symbol``, ``session``, sorted by both.
    starts
        Row of each symbol's first bar, shape (symbols,), and the number of rows as the last element.
    first
        For each row the row of its symbol's first bar, shape (rows,).
    close
        Adjusted close, shape (rows,).
    returns
        ``close[t] / close[t-1] - 1``, NaN in a symbol's first row, shape (rows,).
    """

    keys: pl.DataFrame
    starts: np.ndarray
    first: np.ndarray
    close: np.ndarray
    returns: np.ndarray


def panel(bars: pl.DataFrame) -> Panel:
    """Turn validated bars into a `Panel`.

    Raises
    ------
    DataError
        A needed column is missing, a key occurs twice, or an adjusted close is null, not finite or not positive.
    """
    needed = ("symbol", "session", "close", "adj_factor")
    missing = [c for c in needed if c not in bars.columns]
    if missing:
        raise DataError("bars lack columns that risk needs", value=missing, allowed=", ".join(needed))
    frame = bars.select("symbol", "session", (pl.col("close") * pl.col("adj_factor")).cast(pl.Float64).alias("close"))
    frame = frame.sort("symbol", "session")
    keys = frame.select("symbol", "session")
    if keys.is_duplicated().any():
        twice = keys.filter(keys.is_duplicated()).row(0)
        raise DataError("a session occurs twice for a symbol", value=twice, fix="give validated bars")
    bad = frame.filter(~(pl.col("close").is_finite() & (pl.col("close") > 0)).fill_null(False))
    if bad.height:
        raise DataError(
            "an adjusted close is missing or not positive", value=bad.row(0), fix="give validated bars, not raw ones"
        )
    close = frame["close"].to_numpy().astype(np.float64)
    if frame.height == 0:
        empty = np.empty(0)
        return Panel(keys, np.zeros(1, np.int64), np.empty(0, np.int64), empty, empty)
    changes = (frame["symbol"] != frame["symbol"].shift(1)).fill_null(True).to_numpy()
    begins = np.flatnonzero(changes).astype(np.int64)
    starts = np.append(begins, frame.height).astype(np.int64)
    first = np.repeat(begins, np.diff(starts))
    returns = np.full(frame.height, np.nan)
    returns[1:] = close[1:] / close[:-1] - 1.0
    returns[begins] = np.nan
    return Panel(keys, starts, first, close, returns)
