"""Round trips: from the fill that opens a position to the fill that brings it back to zero or to the other side."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Panel
from stock_pipeline.core.backtesting.fills import REASONS, Fills
from stock_pipeline.core.backtesting.ledger import positions_after

TRADE_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "side": pl.String(),
    "opened": pl.Date(),
    "closed": pl.Date(),
    "sessions": pl.Int64(),
    "shares": pl.Float64(),
    "entry_price": pl.Float64(),
    "exit_price": pl.Float64(),
    "adjusted_entry": pl.Float64(),
    "adjusted_exit": pl.Float64(),
    "pnl": pl.Float64(),
    "return": pl.Float64(),
    "costs": pl.Float64(),
    "fills": pl.Int64(),
    "exit_reason": pl.String(),
}
"""One row a round trip.

``entry_price`` and ``exit_price`` are averages of the raw fill prices, slippage included, as on a broker's statement;
after a split only ``adjusted_entry`` and ``adjusted_exit`` can be compared. ``shares`` are the raw shares of the
opening fill; ``pnl`` is after all costs but borrow; ``return`` is ``pnl`` over the value of all opening fills;
``costs`` are fees and slippage. A position still open has ``closed`` null, the last close as its exit and
``exit_reason`` ``open``.
"""


def round_trips(fills: Fills, panel: Panel) -> pl.DataFrame:
    """Group fills into round trips, a frame of `TRADE_SCHEMA` sorted by opening date and symbol.

    The sum of ``pnl`` is the change of equity before borrow cost. A fill that reverses a position is split, with its
    costs, in proportion.
    """
    if len(fills) == 0:
        return pl.DataFrame(schema=TRADE_SCHEMA)
    order, after = positions_after(fills)
    column = fills.column[order]
    new_symbol = np.concatenate([[True], column[1:] != column[:-1]])
    before = np.where(new_symbol, 0.0, np.concatenate([[0.0], after[:-1]]))
    units = fills.units[order]
    reverses = before * after < 0
    # A reversing fill becomes two legs; every other fill is one.
    leg = np.repeat(np.arange(len(units)), 1 + reverses)
    second = np.concatenate([[False], leg[1:] == leg[:-1]])
    opening_part = reverses[leg] & second
    closing_part = reverses[leg] & ~second
    leg_units = np.where(opening_part, after[leg], np.where(closing_part, -before[leg], units[leg]))
    share = np.where(reverses[leg], np.abs(leg_units) / np.abs(units[leg]), 1.0)
    starts = opening_part | ((before[leg] == 0) & ~closing_part)
    trip = np.cumsum(starts) - 1
    n = int(trip[-1]) + 1
    price, fees = fills.price[order][leg], fills.fees[order][leg] * share
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(leg)) - 1
    side = np.sign(leg_units[first])
    grows = leg_units * side[trip] > 0

    def total(values: NDArray, where: NDArray | None = None) -> NDArray:
        return np.bincount(trip, weights=values if where is None else np.where(where, values, 0.0), minlength=n)

    opened, closed = total(np.abs(leg_units), grows), total(np.abs(leg_units), ~grows)
    value_in, value_out = total(np.abs(leg_units) * price, grows), total(np.abs(leg_units) * price, ~grows)
    final = np.where(closing_part[last], 0.0, after[leg[last]])
    is_open = final != 0
    mark = panel.mark[-1, column[leg[first]]]
    pnl = side * (value_out - value_in) + np.where(is_open, final * mark, 0.0) - total(fees)
    row = fills.row[order][leg]
    end = np.where(is_open, len(panel.sessions) - 1, row[last])
    sessions = pl.Series(panel.sessions, dtype=pl.Date)
    raw = np.abs(leg_units) * (fills.shares[order] / units)[leg]
    paid = raw * fills.raw_price[order][leg]
    shares_in, shares_out = total(raw, grows), total(raw, ~grows)
    last_close = mark / panel.factor[-1, column[leg[first]]]
    frame = pl.DataFrame(
        {
            "symbol": pl.Series(panel.symbols, dtype=pl.String).gather(column[leg[first]]),
            "side": np.where(side > 0, "long", "short"),
            "opened": sessions.gather(row[first]),
            "closed": sessions.gather(end).set(pl.Series(is_open), None),
            "sessions": end - row[first],
            "shares": raw[first],
            "entry_price": total(paid, grows) / shares_in,
            "exit_price": np.where(is_open, last_close, total(paid, ~grows) / np.where(closed > 0, shares_out, 1.0)),
            "adjusted_entry": value_in / opened,
            "adjusted_exit": np.where(is_open, mark, value_out / np.where(closed > 0, closed, 1.0)),
            "pnl": pnl,
            "return": pnl / value_in,
            "costs": total(fees + fills.slippage[order][leg] * share),
            "fills": np.bincount(trip, minlength=n),
            "exit_reason": pl.Series(REASONS).gather(fills.reason[order][leg[last]]).set(pl.Series(is_open), "open"),
        }
    )
    return frame.cast(pl.Schema(TRADE_SCHEMA)).sort("opened", "symbol", "sessions")
