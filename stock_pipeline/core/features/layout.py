"""Where the rows of each symbol and of each session stand in a sorted frame.

Only positions belong here; no values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.errors import DataError

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Positions of symbols and sessions.

    Attributes
    ----------
    offsets
        Shape (symbols + 1,): symbol s has the rows ``offsets[s]`` to ``offsets[s + 1]``.
    sessions
        Shape (rows,): days since 1970-01-01.
    """

    offsets: Integers
    sessions: NDArray[np.int32]

    def batches(self, rows: int) -> Iterator[tuple[int, int]]:
        """Runs of symbols ``[first, last)`` with about ``rows`` rows each."""
        first, symbols = 0, len(self.offsets) - 1
        while first < symbols:
            last = int(np.searchsorted(self.offsets, self.offsets[first] + rows, side="right")) - 1
            last = min(max(last, first + 1), symbols)
            yield first, last
            first = last

    def rows_for(self, start: date | None, end: date | None, lookback: int) -> NDArray[np.bool_]:
        """Mark the rows of the sessions ``start`` to ``end`` and up to ``lookback`` rows of each symbol before them."""
        first = self._before(start, inclusive=False) if start else self.offsets[:-1]
        last = self._before(end, inclusive=True) if end else self.offsets[1:]
        first = np.where(first < last, np.maximum(first - lookback, self.offsets[:-1]), last)
        steps = np.zeros(len(self.sessions) + 1, np.int32)
        np.add.at(steps, first, 1)
        np.add.at(steps, last, -1)
        return np.cumsum(steps[:-1]) > 0

    def spans(self, start: date | None, max_rows: int) -> Iterator[tuple[date, date]]:
        """Consecutive ranges of sessions (both ends included) with at most ``max_rows`` rows, from ``start`` on."""
        days, counts = np.unique(self.sessions, return_counts=True)
        if start is not None:
            wanted = days >= _day(start)
            days, counts = days[wanted], counts[wanted]
        first, rows = 0, 0
        for k, count in enumerate(counts):
            if k > first and rows + count > max_rows:
                yield _date(days[first]), _date(days[k - 1])
                first, rows = k, 0
            rows += int(count)
        if len(days):
            yield _date(days[first]), _date(days[-1])

    def from_session(self, start: date | None) -> NDArray[np.bool_]:
        """Mark the rows from ``start`` on (all, when it is ``None``)."""
        return np.ones(len(self.sessions), np.bool_) if start is None else self.sessions >= _day(start)

    def by_session(self, wanted: NDArray[np.bool_]) -> tuple[Integers, Integers]:
        """Order of the wanted rows by session (then symbol), and the offsets of the sessions in that order."""
        sessions = self.sessions[wanted]
        order = np.argsort(sessions, kind="stable")
        changes = np.flatnonzero(np.diff(sessions[order])) + 1
        return order, np.concatenate([[0], changes, [len(order)]]).astype(np.int64)

    def _before(self, day: date, *, inclusive: bool) -> Integers:
        """For each symbol, the position behind its last row before ``day`` (or up to it)."""
        earlier = self.sessions <= _day(day) if inclusive else self.sessions < _day(day)
        counted = np.concatenate([[0], np.cumsum(earlier)])
        return self.offsets[:-1] + counted[self.offsets[1:]] - counted[self.offsets[:-1]]


def layout_of(bars: pl.DataFrame) -> Layout:
    """Find the rows of each symbol, and check that the frame is sorted by symbol and session without duplicates.

    Raises
    ------
    DataError
        Naming the first row that is out of order, doubled or without a key.
    """
    for key, kind in (("symbol", pl.String), ("session", pl.Date)):
        if bars.schema[key] != kind:
            raise DataError(f"Column {key!r} of the bars has the wrong type", value=bars.schema[key], allowed=str(kind))
        if bars[key].null_count():
            raise DataError(f"Column {key!r} of the bars holds nulls", value=bars[key].null_count())
    sessions = bars["session"].to_physical().to_numpy()
    if bars.is_empty():
        return Layout(np.zeros(1, np.int64), sessions)
    runs = bars["symbol"].rle().struct.unnest()
    offsets = np.concatenate([[0], np.cumsum(runs["len"].to_numpy())]).astype(np.int64)
    unordered = np.flatnonzero((runs["value"] <= runs["value"].shift()).fill_null(False).to_numpy())
    if len(unordered):
        raise _disorder(bars, int(offsets[unordered[0]]))
    falling = np.diff(sessions) <= 0
    falling[offsets[1:-1] - 1] = False
    if falling.any():
        raise _disorder(bars, int(np.flatnonzero(falling)[0]) + 1)
    return Layout(offsets, sessions)


def _disorder(bars: pl.DataFrame, row: int) -> DataError:
    here, before = bars.row(row, named=True), bars.row(row - 1, named=True)
    return DataError(
        "Bars are not sorted by symbol and session, or hold a row twice",
        value=f"row {row} ({here['symbol']}, {here['session']}) follows ({before['symbol']}, {before['session']})",
        fix="bars.unique(['symbol', 'session']).sort('symbol', 'session')",
    )


def _day(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


def _date(day: int) -> date:
    return date.fromordinal(int(day) + date(1970, 1, 1).toordinal())
