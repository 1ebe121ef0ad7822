"""The running account of the loop: cash, units, entry prices. What is reported comes from the ledgers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Account:
    """Cash and positions in adjusted units.

    Parameters
    ----------
    capital
        Cash at the start.
    symbols
        Number of symbols.
    """

    def __init__(self, capital: float, symbols: int) -> None:
        self.cash = capital
        self.units = np.zeros(symbols)
        self.entry = np.zeros(symbols)
        self.best = np.zeros(symbols)
        self.bought = np.zeros(symbols)
        self.traded = np.zeros(symbols)
        self.held: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def new_session(self) -> None:
        """Forget what was bought and traded in the last session."""
        self.bought[:] = 0.0
        self.traded[:] = 0.0

    def equity(self, marks: Vector) -> float:
        """Cash and positions at the given adjusted prices, shape (symbols,)."""
        return self.cash + float(self.units[self.held] @ marks[self.held])

    def gross(self, marks: Vector) -> float:
        """Sum of the absolute values of all positions."""
        return float(np.abs(self.units[self.held]) @ marks[self.held])

    def apply(self, columns: NDArray[np.int64], units: Vector, price: Vector, fees: Vector, closes: NDArray) -> None:
        """Book fills of different symbols.

        Parameters
        ----------
        columns, units, price, fees
            Symbols, signed units, fill prices and fees.
        closes
            Which fills close their position entirely (it becomes exactly 0).
        """
        before = self.units[columns]
        after = np.where(closes, 0.0, before + units)
        self.cash -= float(units @ price + fees.sum())
        grows = before * units > 0
        opens = (before == 0) | (before * after < 0)
        average = (self.entry[columns] * np.abs(before) + price * np.abs(units)) / np.where(
            after == 0, 1.0, np.abs(after)
        )
        self.entry[columns] = np.where(opens, price, np.where(grows, average, self.entry[columns]))
        self.best[columns] = np.where(opens, price, self.best[columns])
        self.units[columns] = after
        self.bought[columns] += np.maximum(units, 0.0)
        self.traded[columns] += np.abs(units)
        self.held = np.flatnonzero(self.units)

    def follow(self, high: Vector, low: Vector) -> None:
        """Move the best price of each position with a session's range (NaN moves nothing)."""
        held = self.held
        long = self.units[held] > 0
        best = np.where(long, np.fmax(self.best[held], high[held]), np.fmin(self.best[held], low[held]))
        self.best[held] = best
