"""Adjustment factors from splits and dividends, from a vendor's adjusted close, or from a vendor's factors.

All factors are anchored at a symbol's first bar (1.0 there) and change only on ex-dates, so what is known later never
rewrites the past. Detecting splits that nobody reported belongs to ``core.quality``.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import KEYS

EVENT_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "split_ratio": pl.Float64(),
    "dividend": pl.Float64(),
}
"""Corporate actions by ex-date: new shares for one old share (1.0 without a split), and cash per share, stated for a
share after a split of the same day (0.0 without a dividend)."""

Method = Literal["total_return", "price_relative"]


def factors_from_events(bars: pl.DataFrame, events: pl.DataFrame, method: Method = "total_return") -> pl.DataFrame:
    r"""Add ``adj_factor`` from splits and cash dividends.

    With raw close :math:`c_t`, split ratio :math:`s_t` and dividend :math:`d_t`, the factor grows on the ex-date by

    - ``total_return``: :math:`s_t (c_t + d_t) / c_t`, so the adjusted return is :math:`(c_t + d_t) s_t / c_{t-1} - 1`
      (the dividend is reinvested at the ex-date's close; CRSP's holding-period return);
    - ``price_relative``: :math:`s_t c_{t-1} / (c_{t-1} - d_t s_t)`, so the adjusted return is
      :math:`c_t s_t / (c_{t-1} - d_t s_t) - 1` (the dividend is taken off the previous close; the factor files of Lean,
      Yahoo's adjusted close).

    Parameters
    ----------
    bars
        Raw bars with ``symbol, session, close``, sorted by symbol and session.
    events
        `EVENT_SCHEMA`. An ex-date without a bar takes effect on the symbol's next bar; events on or before
        the first bar have no effect; events of other symbols are ignored.
    method
        How a dividend enters.

    Returns
    -------
    polars.DataFrame
        ``bars`` with ``adj_factor`` (Float64). A close that is missing, not finite or not positive is passed over: the
        last usable close of the symbol stands in for it. Of a session that occurs twice, the first row counts.

    Raises
    ------
    DataError
        Unsorted bars, a split ratio that is not positive, a negative dividend, or a dividend not below the price.
    """
    _require_sorted(bars)
    _check_events(events)
    at_bar = _events_at_bars(bars, events)
    price = pl.col("close").is_finite() & (pl.col("close") > 0)
    frame = (
        bars.join(at_bar, on=list(KEYS), how="left", maintain_order="left")
        .with_columns(
            pl.when(price).then(pl.col("close")).forward_fill().over("symbol").alias("_close"),
            ((pl.col("symbol") == pl.col("symbol").shift(1)) & (pl.col("session") != pl.col("session").shift(1)))
            .fill_null(False)
            .alias("_later"),
            price.alias("_usable"),
        )
        .with_columns(pl.col("_close").shift(1).over("symbol").alias("_previous"))
    )
    cash, split = pl.col("_dividend"), pl.col("_split")
    own = pl.when("_usable").then(pl.col("_close")).otherwise(pl.col("_close") / split)
    step = split * (own + cash) / own if method == "total_return" else split * _less_dividend(cash, split)
    frame = frame.with_columns(
        pl.when(pl.col("_later") & split.is_not_null()).then(step).otherwise(1.0).fill_null(1.0).alias("_step")
    )
    bad = frame.filter(~((pl.col("_step") > 0) & pl.col("_step").is_finite()))
    if bad.height:
        row = bad.row(0, named=True)
        raise DataError(
            f"the dividend of {row['symbol']} on {row['session']} is not below the price",
            value=row["_dividend"],
            fix="check the dividend's currency and unit, and whether the prices are raw",
        )
    return bars.with_columns(frame.select(pl.col("_step").cum_prod().over("symbol")).to_series().alias("adj_factor"))


def _less_dividend(cash: pl.Expr, split: pl.Expr) -> pl.Expr:
    return pl.col("_previous") / (pl.col("_previous") - cash * split)


def factors_from_adj_close(
    bars: pl.DataFrame, adj_close: str = "adj_close", *, tolerance: float = 1e-5
) -> pl.DataFrame:
    """Add ``adj_factor`` from a vendor's adjusted close, whatever its base date.

    The ratio adjusted / raw is constant between ex-dates but for rounding. A change from one bar to the next by more
    than ``tolerance`` (relative) is an event; between events the ratio of the last event holds, so noise moves nothing.

    Parameters
    ----------
    bars
        Sorted bars with ``symbol, close`` and the column named by ``adj_close``. Rows where either is missing, not
        finite or not positive take the last factor.
    adj_close
        Name of the vendor's column; it stays in the result.
    tolerance
        Above the vendor's rounding noise, below the smallest dividend yield.

    Raises
    ------
    DataError
        Unsorted bars or a missing column.
    """
    _require_sorted(bars)
    _require_columns(bars, ["close", adj_close])
    ratio = pl.col(adj_close) / pl.col("close")
    usable = ratio.is_finite() & (ratio > 0) & pl.col("close").is_finite() & (pl.col("close") > 0)
    return _level_factor(bars, pl.when(usable).then(ratio), tolerance)


def factors_from_vendor(
    bars: pl.DataFrame,
    factor: str = "factor",
    *,
    convention: Literal["multiply", "divide"] = "multiply",
    tolerance: float = 0.0,
) -> pl.DataFrame:
    """Add ``adj_factor`` from a vendor's own factor column, whatever its base date.

    Parameters
    ----------
    bars
        Sorted bars with the column named by ``factor``. Missing and non-positive values take the last factor.
    factor
        Name of the vendor's column; it stays in the result.
    convention
        ``multiply``: adjusted = raw x factor; ``divide``: adjusted = raw / factor.
    tolerance
        Relative change below which the factor is taken as unchanged.
    """
    _require_sorted(bars)
    _require_columns(bars, [factor])
    value = pl.col(factor) if convention == "multiply" else 1.0 / pl.col(factor)
    usable = pl.col(factor).is_finite() & (pl.col(factor) > 0)
    return _level_factor(bars, pl.when(usable).then(value), tolerance)


def _level_factor(bars: pl.DataFrame, ratio: pl.Expr, tolerance: float) -> pl.DataFrame:
    """Piecewise constant ratio relative to the symbol's first usable one."""
    frame = bars.select("symbol", ratio.forward_fill().over("symbol").alias("_ratio"))
    before = pl.col("_ratio").shift(1).over("symbol")
    moved = ((pl.col("_ratio") / before - 1).abs() > tolerance) | before.is_null()
    level = pl.when(moved).then(pl.col("_ratio")).forward_fill().over("symbol")
    first = pl.col("_ratio").drop_nulls().first().over("symbol")
    factor = frame.select((level / first).fill_null(1.0).alias("adj_factor")).to_series()
    return bars.with_columns(factor)


def _events_at_bars(bars: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """One row a bar that an event takes effect on: product of the splits, dividends on the last split's basis."""
    keys = bars.select("symbol", "session", pl.col("session").alias("_bar")).sort("session")
    placed = (
        events.select(*EVENT_SCHEMA)
        .sort("session")
        .join_asof(keys, on="session", by="symbol", strategy="forward", check_sortedness=False)
        .filter(pl.col("_bar").is_not_null())
        .sort("symbol", "session")
    )
    # splits that follow on the same bar divide an earlier dividend per share
    from_here = pl.col("split_ratio").reverse().cum_prod().reverse()
    return (
        placed.group_by("symbol", "_bar", maintain_order=True)
        .agg(
            pl.col("split_ratio").product().alias("_split"),
            (pl.col("dividend") * pl.col("split_ratio") / from_here).sum().alias("_dividend"),
        )
        .rename({"_bar": "session"})
    )


def _check_events(events: pl.DataFrame) -> None:
    _require_columns(events, list(EVENT_SCHEMA))
    positive = pl.col("split_ratio").is_finite() & (pl.col("split_ratio") > 0)
    paid = pl.col("dividend").is_finite() & (pl.col("dividend") >= 0)
    bad = events.filter(~(positive & paid).fill_null(False))
    if bad.height:
        row = bad.row(0, named=True)
        raise DataError(
            f"the corporate action of {row['symbol']} on {row['session']} is not possible",
            value={"split_ratio": row["split_ratio"], "dividend": row["dividend"]},
            allowed="split_ratio > 0 (new shares for one old share) and dividend >= 0",
            fix="correct or remove the row in the events table",
        )


def _require_columns(frame: pl.DataFrame, columns: list[str]) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise DataError("columns are missing", value=missing, fix=f"add them; found: {', '.join(frame.columns)}")


def _require_sorted(bars: pl.DataFrame) -> None:
    _require_columns(bars, list(KEYS))
    same = pl.col("symbol") == pl.col("symbol").shift(1)
    wrong = (pl.col("symbol") < pl.col("symbol").shift(1)) | (same & (pl.col("session") < pl.col("session").shift(1)))
    if bars.select(wrong.any()).item():
        raise DataError("the bars are not in order", fix="sort them by symbol and session")
