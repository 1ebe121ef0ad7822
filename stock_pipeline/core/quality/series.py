"""What a row's own past says: previous price, robust scale, usual volume, earlier levels, repeated oddities.

Everything is computed from the row and the trading rows of at most `QualityRules.lookback` sessions before it, by
windows that are evaluated afresh (medians, minima, counts), so the same row gets the same bits from any frame that
holds the look-back. Fates of earlier rows are never carried along: a rule that needs them works them out again.
What does not belong here: thresholds that decide (``rules_series``), estimates of values (``repair``).
"""

from __future__ import annotations

import math

import polars as pl

from stock_pipeline.core.quality.settings import STALE_GAP, QualityRules

MAD_TO_DEVIATION = 1.4826
"""Scale factor of the median absolute deviation under a normal law (Rousseeuw & Croux 1993, eq. 1.1)."""

SPLIT_RATIOS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 3 / 2, 4 / 3, 5 / 4)
"""Usual ratios of splits and share dividends; their inverses count as well."""

VOLUME_SESSIONS = 20
SCALE_FLOOR = 0.002
"""Least daily scale of log returns: keeps limits sane after flat stretches."""

CONTEXT = (
    "_gap", "_previous_close", "_reference", "_return", "_simple_return", "_scale", "_limit", "_volume_ratio", "_far",
    "_event", "_level", "_jump", "_was_jump", "_split", "_median", "_reverted", "_log_volume_score", "_stale",
    "_crowd", "_factor_changed", "_minority_currency", "_has_open", "_has_high", "_has_low", "_has_volume",
    "_volume_before",
)  # fmt: skip


def near_split(log_ratio: pl.Expr, tolerance: pl.Expr | float) -> pl.Expr:
    """Whether a log ratio of prices is within a tolerance of the log of a usual split ratio."""
    size = log_ratio.abs()
    return pl.any_horizontal(*[(size - math.log(ratio)).abs() <= tolerance for ratio in SPLIT_RATIOS])


def earlier(value: pl.Expr, rows: int, rules: QualityRules) -> pl.Expr:
    """The value ``rows`` trading rows ago; null across symbols and further than ``gap_sessions`` away."""
    near = pl.col("_idx") - pl.col("_idx").shift(rows) <= rules.gap_sessions
    return pl.when((pl.col("_sid") == pl.col("_sid").shift(rows)) & near).then(value.shift(rows))


def _median(value: pl.Expr, sessions: int, minimum: int) -> pl.Expr:
    return value.rolling_median_by("_idx", f"{sessions}i", closed="left", min_samples=minimum).over("_sid")


def _count(condition: pl.Expr, sessions: int) -> pl.Expr:
    ones = condition.fill_null(False).cast(pl.Int32)
    return ones.rolling_sum_by("_idx", f"{sessions}i", closed="left").over("_sid").fill_null(0)


def series_context(trading: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Compute the columns named in `CONTEXT` for trading rows.

    Parameters
    ----------
    trading
        Rows with a usable close, one for each symbol and session, sorted by them; suspensions left out.
    rules
        Windows and thresholds.

    Returns
    -------
    polars.DataFrame
        ``_row`` and the context columns.
    """
    frame = trading.with_columns(_sid=pl.col("symbol").rle_id(), _price=pl.col("_close") * pl.col("adj_factor"))
    frame = _returns(frame, rules)
    frame = _volumes(frame, rules)
    frame = _jumps(frame, rules)
    frame = _levels(frame, rules)
    frame = _habits(frame, rules)
    frame = _currencies(frame, rules)
    return frame.select("_row", *CONTEXT)


def _returns(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    previous = earlier(pl.col("_price"), 1, rules)
    frame = frame.with_columns(
        _gap=earlier(pl.col("_idx"), 1, rules).sub(pl.col("_idx")).neg(),
        _reference=previous,
        _previous_close=earlier(pl.col("close"), 1, rules),
        _return=(pl.col("_price") / previous).log(),
        _simple_return=pl.col("_price") / previous - 1,
        _factor_changed=(pl.col("adj_factor") != earlier(pl.col("adj_factor"), 1, rules)).fill_null(False),
    )
    # Around zero, not around the median return: daily medians are a hundredth of the scale.
    usual = _median(pl.col("_return").abs(), rules.scale_sessions, rules.scale_minimum)
    frame = frame.with_columns(_usual=usual)
    scale = pl.max_horizontal(pl.col("_usual") * MAD_TO_DEVIATION, pl.lit(SCALE_FLOOR))
    return frame.with_columns(_scale=pl.when(pl.col("_usual").is_not_null()).then(scale).otherwise(rules.default_scale))


def _volumes(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    frame = frame.with_columns(_shares=pl.col("_volume") / pl.col("adj_factor"))
    positive = pl.when(pl.col("_shares") > 0).then(pl.col("_shares"))
    frame = frame.with_columns(
        _volume_ratio=positive / _median(positive, VOLUME_SESSIONS, VOLUME_SESSIONS // 2),
        _log_shares=positive.log(),
        _volume_before=earlier(pl.col("_volume"), 1, rules).is_not_null(),
    )
    sessions, minimum = rules.scale_sessions, rules.scale_minimum
    frame = frame.with_columns(_surprise=pl.col("_log_shares") - _median(pl.col("_log_shares"), sessions, minimum))
    scale = _median(pl.col("_surprise").abs(), sessions, minimum) * MAD_TO_DEVIATION
    return frame.with_columns(_log_volume_score=pl.col("_surprise") / pl.max_horizontal(scale, pl.lit(0.2)))


def _jumps(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    known = pl.col("_volume_ratio").is_not_null()
    floor = pl.when(known).then(rules.jump_floor).otherwise(rules.jump_floor_no_volume)
    limit = pl.max_horizontal(floor, rules.jump_scales * pl.col("_scale") * pl.col("_gap").sqrt())
    frame = frame.with_columns(_limit=limit.fill_null(rules.jump_floor_no_volume))
    # The larger the move, the more shares must have changed hands. Value traded tells a split, which multiplies the
    # shares alone, from news.
    traded = pl.col("_volume_ratio") * pl.col("_return").exp()
    needed = rules.event_volume * pl.max_horizontal(pl.lit(1.0), pl.col("_return").abs() / rules.jump_floor)
    busy = ((pl.col("_volume_ratio") >= needed) & (traded >= rules.event_volume)).fill_null(False)
    return frame.with_columns(
        _far=(pl.col("_return").abs() > pl.col("_limit")).fill_null(False), _event=busy | _walked(rules)
    )


def _walked(rules: QualityRules) -> pl.Expr:
    """Whether the price walked to its new level within the session: the range begins near the price before.

    A market crash does so; a split or a wrong unit opens far away. A range with an absurd high or low proves nothing,
    nor does one that ends at the close itself: a wrong close drags the low or high of its bar along.
    """
    low, high = pl.col("_low") * pl.col("adj_factor"), pl.col("_high") * pl.col("adj_factor")
    before = pl.col("_reference")
    hole = pl.max_horizontal((low / before).log(), (before / high).log())
    open_, close = pl.col("_open"), pl.col("_close")
    up = (pl.col("_high") / pl.max_horizontal(open_, close)).log()
    down = (pl.min_horizontal(open_, close) / pl.col("_low")).log()
    absurd = pl.max_horizontal(up, down) > pl.max_horizontal(
        pl.lit(rules.range_floor), rules.range_scales * pl.col("_scale")
    )
    near = hole <= rules.walk_hole
    small = pl.col("_return").abs() <= rules.walk_limit
    dragged = pl.when(pl.col("_return") < 0).then(pl.col("_low") == close).otherwise(pl.col("_high") == close)
    return (near & small & ~absurd & ~dragged & (pl.col("_violation") == 0)).fill_null(False)


def _levels(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    returns_to = []
    for rows in range(2, rules.level_rows + 1):
        distance = (pl.col("_price") / earlier(pl.col("_price"), rows, rules)).log().abs()
        accepted = ~earlier(pl.col("_far"), rows, rules)
        returns_to.append(((distance <= pl.col("_limit")) & accepted).fill_null(False))
    tolerance = pl.max_horizontal(pl.lit(0.03), 2 * pl.col("_scale")).clip(upper_bound=0.12)
    frame = frame.with_columns(
        _level=pl.any_horizontal(*returns_to),
        _split=near_split(pl.col("_return"), tolerance).fill_null(False),
        _median=_median(pl.col("_price"), rules.unit_sessions, 3),
    )
    frame = frame.with_columns(_jump=pl.col("_far") & ~pl.col("_event") & ~pl.col("_level"))
    before = earlier(pl.col("_return"), 1, rules)
    undone = (pl.col("_return") + before).abs() <= 0.2 * before.abs()
    large = before.abs() > pl.max_horizontal(pl.lit(rules.extreme_floor), rules.extreme_scales * pl.col("_scale"))
    return frame.with_columns(
        _was_jump=earlier(pl.col("_jump"), 1, rules).fill_null(False), _reverted=(undone & large).fill_null(False)
    )


def _habits(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    close_only = pl.all_horizontal(pl.col("open", "high", "low").is_null())
    near = earlier(pl.col("_idx"), 1, rules) >= pl.col("_idx") - STALE_GAP
    same = pl.all_horizontal(
        *[pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ("open", "high", "low", "close")]
    )
    frame = frame.with_columns(_same=(same & near).fill_null(False))
    runs = {}
    for rows in {rules.stale_rows, rules.stale_rows_close_only}:
        runs[rows] = pl.all_horizontal(*[pl.col("_same").shift(back, fill_value=False) for back in range(rows - 1)])
    stale = pl.when(close_only).then(runs[rules.stale_rows_close_only]).otherwise(runs[rules.stale_rows])
    window = rules.repair_sessions
    return frame.with_columns(
        _stale=stale,
        _crowd=_count(pl.col("_violation") > rules.ohlc_rounding, rules.mixed_sessions),
        _has_open=_count(pl.col("_open").is_not_null(), window),
        _has_high=_count(pl.col("_high").is_not_null(), window),
        _has_low=_count(pl.col("_low").is_not_null(), window),
        _has_volume=_count(pl.col("_volume").is_not_null(), window),
    )


def _currencies(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    mixed = frame.group_by("symbol").agg(pl.col("currency").drop_nulls().unique().sort().alias("_all"))
    mixed = mixed.filter(pl.col("_all").list.len() > 1)
    if mixed.is_empty():
        return frame.with_columns(_minority_currency=pl.lit(False))
    some = frame.filter(pl.col("symbol").is_in(mixed["symbol"].implode()))
    window = rules.unit_sessions
    total = _count(pl.col("currency").is_not_null(), window)
    same = pl.coalesce(
        *[
            pl.when(pl.col("currency") == code).then(_count(pl.col("currency") == code, window))
            for code in sorted(set(mixed["_all"].explode().to_list()))
        ]
    )
    flags = some.select("_row", _minority_currency=(2 * same < total).fill_null(False))
    return frame.join(flags, on="_row", how="left", maintain_order="left").with_columns(
        pl.col("_minority_currency").fill_null(False)
    )
