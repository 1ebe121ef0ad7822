"""The shape of one bar: does low <= open, close <= high hold, by how much is it broken, and which field breaks it.

What does not belong here: what happens to a broken bar (``rules_bars``), estimates (``repair``).
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.quality.settings import QualityRules

OTHER_SCALE = 0.75
"""When both high and low lie this far from open and close, all of the range is on another scale."""


def with_shape(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Add the columns that describe the shape of each bar.

    Returns
    -------
    polars.DataFrame
        With ``_violation`` (largest relative breach of the ordering, 0 when it holds, null without a close),
        ``_swapped`` (high and low exchanged), ``_culprit`` (``open``, ``high`` or ``low`` when that field alone
        explains the breach), ``_displaced`` (log distance of that field, or of the range, from the close),
        ``_close_outside`` (the close leaves the range by more than a small amount while the open does not) and
        ``_flat_no_volume`` (one price and no shares).
    """
    open_, high, low, close = (pl.col(f"_{name}") for name in ("open", "high", "low", "close"))
    top, bottom = pl.max_horizontal(open_, close), pl.min_horizontal(open_, close)
    tolerance = rules.ohlc_rounding
    breach = pl.max_horizontal(top / high - 1, low / bottom - 1, low / high - 1, pl.lit(0.0))
    upside_down = (low / high - 1 > tolerance).fill_null(False)

    def above(value: pl.Expr, by: float) -> pl.Expr:
        return (value > high * (1 + by)).fill_null(False)

    def below(value: pl.Expr, by: float) -> pl.Expr:
        return (value < low * (1 - by)).fill_null(False)

    def outside(value: pl.Expr, by: float) -> pl.Expr:
        return above(value, by) | below(value, by)

    both_above = above(close, tolerance) & (above(open_, tolerance) | open_.is_null())
    both_below = below(close, tolerance) & (below(open_, tolerance) | open_.is_null())
    high_is_bad = both_above & ~below(pl.min_horizontal(open_, close), tolerance)
    low_is_bad = both_below & ~above(pl.max_horizontal(open_, close), tolerance)
    open_is_bad = outside(open_, tolerance) & ~outside(close, tolerance) & ~upside_down
    swapped = upside_down & pl.all_horizontal(
        *[(value.is_between(high * (1 - tolerance), low * (1 + tolerance))).fill_null(True) for value in (open_, close)]
    )
    culprit = (
        pl.when(swapped)
        .then(None)
        .when(open_is_bad)
        .then(pl.lit("open"))
        .when(high_is_bad & open_.is_not_null())
        .then(pl.lit("high"))
        .when(low_is_bad & open_.is_not_null())
        .then(pl.lit("low"))
    )
    displaced = (
        pl.when(culprit == "open").then(open_ / close).when(culprit == "high").then(close / high).otherwise(close / low)
    )
    large = rules.ohlc_small
    close_outside = outside(close, large) & ~outside(open_, large) & ~upside_down
    flat = pl.all_horizontal(*[(value == close).fill_null(True) for value in (open_, high, low)])
    has_range = high.is_not_null() & low.is_not_null()
    return frame.with_columns(
        _violation=pl.when(close.is_not_null()).then(breach),
        _swapped=swapped & close.is_not_null(),
        _culprit=culprit,
        _displaced=pl.when(culprit.is_not_null()).then(displaced.log()),
        _whole_range=((culprit == "high") & (low < bottom * OTHER_SCALE)).fill_null(False)
        | ((culprit == "low") & (high > top / OTHER_SCALE)).fill_null(False),
        _close_outside=close_outside.fill_null(False),
        _flat_no_volume=(flat & has_range & (pl.col("_volume") == 0)).fill_null(False),
    )
