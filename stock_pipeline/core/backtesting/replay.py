"""The second ledger: vectorbt books exactly our fills, and both ledgers are compared.

vectorbt decides nothing here: it receives signed size, price and fees of each fill, on a timeline with one row for the
execution of a session and a second one where stops acted inside it. Borrow charges are booked as the fee of buying one
unit in a column of its own whose price is always 1, and so are the fees of a sale that exceed its proceeds, which
vectorbt would reject. The cash it starts with is raised by a constant, taken off again, so that
its own cash check never changes a fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Matrix, Panel
from stock_pipeline.core.backtesting.fills import Fills
from stock_pipeline.core.backtesting.ledger import Ledger

Vector = NDArray[np.float64]

TOLERANCE = 1e-9
"""Largest difference between the ledgers, relative to the largest equity (positions: to the largest position)."""


@dataclass(frozen=True)
class Replay:
    """vectorbt's accounts at each session's close, in the layout of `Ledger`."""

    units: Matrix
    cash: Vector
    equity: Vector


@dataclass(frozen=True)
class Reconciliation:
    """How far the two ledgers are apart.

    Parameters
    ----------
    cash, equity, positions
        Largest absolute difference of each session, in currency (positions: in value), shape (sessions,).
    scale
        Largest absolute equity.
    """

    cash: Vector
    equity: Vector
    positions: Vector
    scale: float

    @property
    def worst(self) -> float:
        """Largest difference of all, relative to the largest equity."""
        largest = max(float(x.max(initial=0.0)) for x in (self.cash, self.equity, self.positions))
        return largest / self.scale

    @property
    def agrees(self) -> bool:
        """Whether the ledgers agree within `TOLERANCE`."""
        return bool(self.worst <= TOLERANCE)


def replay(fills: Fills, borrow: Vector, ledger: Ledger, panel: Panel, capital: float) -> Replay:
    """Let vectorbt keep the accounts of given fills.

    Parameters
    ----------
    fills, borrow
        What happened.
    ledger
        Only its list of traded symbols is used.
    panel
        The dense data.
    capital
        Cash at the start.
    """
    n, width = len(panel.sessions), len(ledger.columns)
    if len(fills) == 0 or width == 0:
        flat = np.full(n, capital) - np.cumsum(borrow)
        return Replay(np.zeros((n, width)), flat, flat.copy())
    extra = np.zeros(n, dtype=np.int64)
    extra[fills.row[fills.stage == 1]] = 1
    first = np.arange(n) + np.concatenate([[0], np.cumsum(extra)[:-1]])
    last = first + extra
    rows = first[fills.row] + fills.stage
    slots = np.searchsorted(ledger.columns, fills.column)
    height = n + int(extra.sum())
    size = np.full((height, width + 1), np.nan)
    price, fees = np.ones((height, width + 1)), np.zeros((height, width + 1))
    size[rows, slots], price[rows, slots], fees[rows, slots] = fills.units, fills.price, fills.fees
    uncovered = (fills.units < 0) & (fills.fees >= -0.999 * fills.units * fills.price)
    fees[rows[uncovered], slots[uncovered]] = 0.0
    charge = np.bincount(rows[uncovered], weights=fills.fees[uncovered], minlength=height)
    charge = charge + np.bincount(first, weights=borrow, minlength=height)
    size[charge != 0, width] = 1.0
    fees[:, width] = charge
    session_of_row = np.repeat(np.arange(n), 1 + extra)
    close = np.ones((height, width + 1))
    marks = panel.mark[:, ledger.columns]
    close[:, :width] = np.where(np.isfinite(marks), marks, 1.0)[session_of_row]
    spent = np.cumsum(np.bincount(fills.row, weights=np.abs(fills.units * fills.price) + fills.fees, minlength=n))
    net = np.cumsum(np.bincount(fills.row, weights=fills.units * fills.price + fills.fees, minlength=n))
    busiest = float(np.diff(spent, prepend=0.0).max())
    surplus = 2.0 * busiest + max(float(net.max()), 0.0) + float(borrow.sum()) + height
    cash, units, equity = _vectorbt(close, size, price, fees, capital + surplus)
    cash, units, equity = cash[last] - surplus, units[last], equity[last] - surplus
    return Replay(units[:, :width], cash + units[:, width], equity)


def _vectorbt(
    close: Matrix, size: Matrix, price: Matrix, fees: Matrix, init_cash: float
) -> tuple[Vector, Matrix, Vector]:
    import vectorbt

    portfolio = vectorbt.Portfolio.from_orders(
        close,
        size=size,
        size_type="amount",
        direction="both",
        price=price,
        fixed_fees=fees,
        init_cash=init_cash,
        cash_sharing=True,
        group_by=True,
        raise_reject=True,
        allow_partial=False,
        ffill_val_price=True,
        freq="1D",
    )
    cash = np.asarray(portfolio.cash(), dtype=float).reshape(len(close))
    # One pass over the positions gives values and units; `value()` and `assets()` would each make their own.
    values = np.asarray(portfolio.asset_value(group_by=False), dtype=float)
    return cash, values / close, cash + values.sum(axis=1)


def reconcile(ledger: Ledger, other: Replay, panel: Panel) -> Reconciliation:
    """Compare two ledgers session by session."""
    marks = np.nan_to_num(panel.mark[:, ledger.columns])
    apart = np.abs(ledger.units - other.units) * marks
    return Reconciliation(
        np.abs(ledger.cash - other.cash),
        np.abs(ledger.equity - other.equity),
        apart.max(axis=1) if apart.size else np.zeros(len(ledger.cash)),
        float(np.abs(ledger.equity).max()),
    )
