"""Price stops: where they stand, whether a session's range reaches them, and at what price they are filled.

Stop loss and take profit stand at a distance from the average entry price (slippage included), the trailing stop from
the best price since entry *up to the previous close*, because the order of high and low within a session is unknown. A
session that opens beyond a level is filled at its open, which may be much worse than the level; otherwise the fill is
at the level. When a session reaches both a stop and the take profit, the stop is taken, unless the open itself is
beyond the take profit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.fills import REASONS
from stock_pipeline.core.backtesting.settings import PortfolioSettings

Vector = NDArray[np.float64]
_STOP, _TRAIL, _PROFIT = (REASONS.index(x) for x in ("stop_loss", "trailing_stop", "take_profit"))


def stop_fills(
    side: Vector, entry: Vector, best: Vector, open_: Vector, high: Vector, low: Vector, settings: PortfolioSettings
) -> tuple[Vector, NDArray[np.int64]]:
    """Fill price and reason of each position in a session.

    Parameters
    ----------
    side
        1 for long, -1 for short, shape (positions,).
    entry, best
        Average entry price and best price so far, adjusted.
    open_, high, low
        The session's range, adjusted; NaN reaches nothing. At a close-only check all three are the close.
    settings
        Distances.

    Returns
    -------
    price : numpy.ndarray
        NaN where nothing was reached.
    reason : numpy.ndarray
        Codes of `REASONS`.
    """
    # In terms of side * price a short is a long: losses lie below, gains above.
    first, worst, top = side * open_, np.where(side > 0, low, -high), np.where(side > 0, high, -low)
    level = np.full(len(side), -np.inf)
    reason = np.full(len(side), _STOP)
    if settings.stop_loss is not None:
        level = side * entry - settings.stop_loss * entry
    if settings.trailing_stop is not None:
        trail = side * best - settings.trailing_stop * best
        reason = np.where(trail > level, _TRAIL, reason)
        level = np.maximum(level, trail)
    price = np.where(worst <= level, np.minimum(first, level), np.nan)
    if settings.take_profit is not None:
        goal = side * entry + settings.take_profit * entry
        gain = (first >= goal) | ((top >= goal) & np.isnan(price))
        price = np.where(gain, np.maximum(first, goal), price)
        reason = np.where(gain, _PROFIT, reason)
    return side * price, reason
