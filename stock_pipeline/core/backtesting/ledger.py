"""The first ledger: accounts made from the fills alone, without the loop that produced them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Matrix, Panel
from stock_pipeline.core.backtesting.fills import Fills

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Ledger:
    """Accounts at each session's close.

    Parameters
    ----------
    columns
        Symbols that were ever traded, as columns of the panel, shape (traded,).
    units
        Positions in adjusted units, shape (sessions, traded).
    values
        Positions at the last known close, in currency, same shape.
    cash, equity
        Shape (sessions,).
    """

    columns: NDArray[np.int64]
    units: Matrix
    values: Matrix
    cash: Vector
    equity: Vector


def keep_accounts(fills: Fills, borrow: Vector, panel: Panel, capital: float) -> Ledger:
    """Book every fill and borrow charge.

    Parameters
    ----------
    fills
        In order of execution.
    borrow
        Charge of each session, shape (sessions,).
    panel
        The dense data.
    capital
        Cash at the start.

    Returns
    -------
    Ledger
        ``cash[t] = capital - sum(units * price + fees) - sum(borrow)`` over all fills and charges up to ``t``;
        ``equity = cash + sum(units * last close)``. A position that comes within 1e-9 of its largest size of zero is
        zero.
    """
    n = len(panel.sessions)
    paid = np.bincount(fills.row, weights=fills.units * fills.price + fills.fees, minlength=n)
    cash = capital - np.cumsum(paid + borrow)
    columns, slot = np.unique(fills.column, return_inverse=True)
    units = np.zeros((n, len(columns)))
    if len(fills):
        order, after = positions_after(fills)
        units = _hold(fills.row[order], slot[order], after, n, len(columns))
    values = units * np.nan_to_num(panel.mark[:, columns])
    return Ledger(columns, units, values, cash, cash + values.sum(axis=1))


def positions_after(fills: Fills) -> tuple[NDArray[np.int64], Vector]:
    """Order of the fills by symbol and time, and the position of the symbol after each, in that order."""
    order = np.argsort(fills.column, kind="stable")
    units, column = fills.units[order], fills.column[order]
    after = np.empty_like(units)
    bounds = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1], [True]]))
    # Summing inside each symbol afresh keeps the rounding of one symbol out of the next.
    for start, stop in pairwise(bounds):
        part = np.cumsum(units[start:stop])
        part[np.abs(part) <= 1e-9 * np.abs(part).max(initial=0.0)] = 0.0
        after[start:stop] = part
    return order, after


def _hold(rows: NDArray, slots: NDArray, after: Vector, n: int, width: int) -> Matrix:
    """Positions carried forward from fill to fill, shape (n, width)."""
    at = np.full((n, width), -1)
    at[rows, slots] = np.arange(len(after))
    np.maximum.accumulate(at, axis=0, out=at)
    return np.where(at >= 0, after[np.maximum(at, 0)], 0.0)
