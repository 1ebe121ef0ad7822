"""What a backtest sees: bars as a long adjusted frame for strategies, and as dense arrays for the engine.

Prices
------
Trading takes place in *adjusted units*. A holding of ``q`` units at price ``raw * adj_factor`` is ``q * adj_factor``
shares at the raw price; ``q`` does not change when ``adj_factor`` does, so that a split multiplies the shares, and a
dividend is reinvested at the close before the ex-date without cost or tax. Because ``adj_factor`` is 1 at a symbol's
first bar, units equal shares at the start. Orders are rounded to lots, charged and limited at the raw scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market import universe
from stock_pipeline.core.market.bars import adjusted

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class MarketData:
    """Bars (and predictions) known up to their last session.

    Parameters
    ----------
    bars
        Raw bars sorted by symbol and session; ``close`` is required, ``adj_factor`` is 1 where it is missing. A boolean
        column ``special_treatment`` marks Chinese ST shares.
    predictions
        Out-of-sample predictions ``symbol, session, prediction``, or ``None``.
    membership
        ``symbol, start, end`` of the point-in-time universe, or ``None``: every symbol with a bar is a member.
    """

    bars: pl.DataFrame
    predictions: pl.DataFrame | None = None
    membership: pl.DataFrame | None = None

    @classmethod
    def from_bars(
        cls, bars: pl.DataFrame, predictions: pl.DataFrame | None = None, membership: pl.DataFrame | None = None
    ) -> MarketData:
        """Check and sort bars.

        Raises
        ------
        DataError
            When a column is missing, the frame is empty, a key is repeated, or a price or factor is not positive and
            finite.
        """
        missing = [c for c in ("symbol", "session", "close") if c not in bars.columns]
        if missing:
            raise DataError(
                "the bars lack columns", value=missing, allowed="symbol, session, close and the other prices"
            )
        if bars.height == 0:
            raise DataError("there are no bars to test on", fix="check the dates and the symbols asked for")
        if "adj_factor" not in bars.columns:
            bars = bars.with_columns(adj_factor=pl.lit(1.0))
        if bars.schema["session"] != pl.Date():
            raise DataError("the sessions are not dates", value=str(bars.schema["session"]), allowed="Date")
        bars = bars.filter(pl.col("close").is_not_null())
        if bars["adj_factor"].null_count():
            row = bars.filter(pl.col("adj_factor").is_null()).row(0, named=True)
            raise DataError(f"{row['symbol']} has no adjustment factor on {row['session']}")
        for column in ("open", "high", "low", "close", "adj_factor"):
            if column in bars.columns:
                bad = bars.filter(~(pl.col(column).is_finite() & (pl.col(column) > 0)))
                if bad.height:
                    row = bad.row(0, named=True)
                    raise DataError(
                        f"{column} of {row['symbol']} on {row['session']} cannot be traded at",
                        value=row[column],
                        allowed="positive finite numbers",
                        fix="backtest on validated bars",
                    )
        bars = bars.sort("symbol", "session")
        if bars.select(pl.struct("symbol", "session").is_duplicated().any()).item():
            raise DataError("a symbol has two bars in one session", fix="backtest on validated bars")
        return cls(bars, None if predictions is None else predictions.sort("symbol", "session"), membership)

    def members(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of ``symbol, session, ...`` whose symbol belongs to the universe on that session."""
        return frame if self.membership is None else universe.members(self.membership, frame)

    @cached_property
    def adjusted(self) -> pl.DataFrame:
        """The bars on adjusted prices, sorted by symbol and session: what strategies compute on."""
        return adjusted(self.bars)

    @cached_property
    def sessions(self) -> list[date]:
        """Sessions on which any symbol has a bar, ascending."""
        return self.bars["session"].unique().sort().to_list()

    @cached_property
    def symbols(self) -> list[str]:
        """Symbols with at least one bar, ascending."""
        return self.bars["symbol"].unique().sort().to_list()

    def until(self, session: date) -> MarketData:
        """The same data as it was known at the end of a session: nothing later exists, not even a symbol's name."""
        predictions = self.predictions
        return MarketData(
            self.bars.filter(pl.col("session") <= session),
            None if predictions is None else predictions.filter(pl.col("session") <= session),
            self.membership,
        )

    def until_with_other_future(self, session: date, rng: np.random.Generator) -> MarketData:
        """The same data up to a session, followed by another future: later prices are multiplied by random factors."""
        later = pl.col("session") > session
        factor = pl.Series(np.exp(rng.normal(0.0, 0.2, self.bars.height)))
        columns = [c for c in ("open", "high", "low", "close") if c in self.bars.columns]
        bars = self.bars.with_columns([pl.when(later).then(pl.col(c) * factor).otherwise(pl.col(c)) for c in columns])
        predictions = self.predictions
        if predictions is not None:
            noise = pl.Series(rng.normal(0.0, 1.0, predictions.height))
            predictions = predictions.with_columns(
                prediction=pl.when(later).then(noise).otherwise(pl.col("prediction")).cast(pl.Float64)
            )
        return MarketData(bars, predictions, self.membership)

    @cached_property
    def panel(self) -> Panel:
        """The dense form of the data."""
        return Panel.from_bars(self.bars, self.sessions, self.symbols)


@dataclass(frozen=True)
class Panel:
    """Dense arrays of shape (sessions, symbols); NaN where a symbol has no bar or the vendor has no such column.

    ``open, high, low, close`` are adjusted, ``volume`` is in raw shares, ``factor`` is filled forward (1 before the
    first bar), ``mark`` is the last known adjusted close (NaN before the first bar).
    """

    sessions: list[date]
    symbols: list[str]
    open: Matrix | None
    high: Matrix | None
    low: Matrix | None
    close: Matrix
    volume: Matrix | None
    factor: Matrix
    mark: Matrix
    special: NDArray[np.bool_] | None = None

    @classmethod
    def from_bars(cls, bars: pl.DataFrame, sessions: list[date], symbols: list[str]) -> Panel:
        """Scatter a long frame into arrays."""
        shape = (len(sessions), len(symbols))
        rows = positions(bars["session"], sessions)
        columns = positions(bars["symbol"], symbols)

        def dense(name: str) -> Matrix | None:
            if name not in bars.columns or bars[name].null_count() == bars.height:
                return None
            out = np.full(shape, np.nan)
            out[rows, columns] = bars[name].cast(pl.Float64).to_numpy()
            return out

        close, factor = dense("close"), dense("adj_factor")
        if close is None or factor is None:
            raise DataError("the bars have no close or no adjustment factor")
        last = last_rows(np.isfinite(close))
        factor = np.where(last >= 0, np.take_along_axis(factor, np.maximum(last, 0), 0), 1.0)
        prices = {n: None if (x := dense(n)) is None else x * factor for n in ("open", "high", "low")}
        close = close * factor
        mark = np.where(last >= 0, np.take_along_axis(close, np.maximum(last, 0), 0), np.nan)
        special = dense("special_treatment")
        return cls(
            sessions,
            symbols,
            prices["open"],
            prices["high"],
            prices["low"],
            close,
            dense("volume"),
            factor,
            mark,
            None if special is None else special > 0,
        )

    def slice(self, start: int, stop: int) -> Panel:
        """The sessions from row ``start`` up to and without row ``stop``."""

        def cut(x: Matrix | None) -> Matrix | None:
            return None if x is None else x[start:stop]

        return Panel(
            self.sessions[start:stop],
            self.symbols,
            cut(self.open),
            cut(self.high),
            cut(self.low),
            self.close[start:stop],
            cut(self.volume),
            self.factor[start:stop],
            self.mark[start:stop],
            None if self.special is None else self.special[start:stop],
        )


def last_rows(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row of the last bar at or before each row, -1 before the first; same shape as ``present``."""
    rows = np.where(present, np.arange(present.shape[0])[:, None], -1)
    return np.maximum.accumulate(rows, axis=0)


def positions(column: pl.Series, axis: Sequence[object]) -> NDArray[np.int64]:
    """Index of each value of a column on an axis without repetitions; -1 for values that are not on it."""
    keys = pl.DataFrame({"key": pl.Series(axis, dtype=column.dtype)}).with_row_index("row")
    found = pl.DataFrame({"key": column}).join(keys, on="key", how="left", maintain_order="left")
    return found["row"].cast(pl.Int64).fill_null(-1).to_numpy()
