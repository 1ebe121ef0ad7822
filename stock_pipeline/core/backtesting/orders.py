"""From the position wanted to an order the exchange accepts: lots, volume, buying power. No prices are decided here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_EPS = 1e-9


def round_lots(shares: Vector, minimum: Vector, step: Vector) -> Vector:
    """Round absolute share counts down to what may be ordered.

    Parameters
    ----------
    shares
        Share counts >= 0, shape (n,).
    minimum, step
        Smallest order and step of each; a step of 0 leaves the count as it is.

    Returns
    -------
    numpy.ndarray
        ``minimum + k * step`` at or below ``shares``, 0 below ``minimum``. A count within 1e-9 steps of the next step
        is taken as that step, because it is the product of binary fractions.
    """
    safe = np.where(step > 0, step, 1.0)
    base = np.where(step > 0, minimum % safe, 0.0)
    whole = base + np.floor((shares - base) / safe + _EPS) * safe
    out = np.where(step > 0, whole, shares)
    return np.where(out + _EPS < minimum, 0.0, np.maximum(out, 0.0))


def order_shares(held: Vector, target: Vector, minimum: Vector, step: Vector) -> Vector:
    """Signed order, in raw shares, that moves holdings towards targets.

    A target of 0 sells or covers everything, odd lots included. An order that reverses a position closes all of it and
    opens whole lots on the other side. All other orders are whole lots, rounded towards no trade. A change below 1e-9
    of the position is rounding and no order.
    """
    change = target - held
    change = np.where(np.abs(change) <= _EPS * np.maximum(np.abs(held), np.abs(target)), 0.0, change)
    plain = np.sign(change) * round_lots(np.abs(change), minimum, step)
    plain = np.where(np.abs(change) < np.abs(plain), change, plain)
    reverse = -held + np.sign(target) * round_lots(np.abs(target), minimum, step)
    out = np.where(held * target < 0, reverse, plain)
    return np.where(target == 0, -held, out)


def cap_orders(order: Vector, cap: Vector, minimum: Vector, step: Vector) -> Vector:
    """Cut orders to at most ``cap`` shares, in whole lots."""
    least = np.minimum(np.maximum(cap, 0.0), np.abs(order))
    return np.where(np.abs(order) > cap, np.sign(order) * round_lots(least, minimum, step), order)


def split_order(held: Vector, order: Vector) -> tuple[Vector, Vector]:
    """Split signed orders into the part that reduces a position and the part that opens or increases one."""
    closing = np.where(held * order < 0, np.sign(order) * np.minimum(np.abs(order), np.abs(held)), 0.0)
    return closing, order - closing


def fit_buying_power(
    held: Vector,
    order: Vector,
    price: Vector,
    minimum: Vector,
    step: Vector,
    *,
    equity: float,
    gross: float,
    leverage: float,
    cost: Callable[[Vector], Vector],
) -> Vector:
    """Cut the opening parts of orders in one proportion until the account can carry them.

    Parameters
    ----------
    held, order, price
        Raw shares held and ordered and raw price of each symbol with an order, shape (n,).
    minimum, step
        Lots of each.
    equity, gross
        Equity, and sum of absolute values of all positions (those without an order included), before the orders.
    leverage
        Largest allowed ratio of gross value to equity after the orders and their costs. With 1 and no shorts this says
        that cash never falls below zero.
    cost
        Total cost (fees and slippage) of each signed order.

    Returns
    -------
    numpy.ndarray
        The orders; those that were cut are whole lots again. Less than 1e-9 of equity left opens nothing.
    """
    closing, opening = split_order(held, order)
    if not opening.any():
        return order
    tolerance = 1e-12 * max(abs(equity), 1.0)
    ratio = 1.0
    base = gross - float(np.abs(closing) @ price)
    for _ in range(30):
        part = opening if ratio == 1.0 else np.sign(opening) * round_lots(np.abs(opening) * ratio, minimum, step)
        trial = closing + part
        value = float(np.abs(part) @ price)
        spent = float(cost(trial).sum())
        room = leverage * (equity - spent) - base
        if value <= room + tolerance:
            return trial
        if value <= 0 or room <= 0 or ratio < 1e-6:
            break
        without = float(cost(closing).sum())
        available = leverage * (equity - without) - base
        needed = value + leverage * (spent - without)
        ratio *= min(available / needed, 1.0 - 1e-9) if available > _EPS * abs(equity) else 0.0
    return closing
