"""Rules on the shape of one bar: ordering of its prices, mixed scales, prints far away, suspensions.

What does not belong here: how the shape is measured (``shape``) and how a field is repaired (``repair``).
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.quality.registry import Rule
from stock_pipeline.core.quality.series import near_split
from stock_pipeline.core.quality.settings import QualityRules

_NOT_SWAPPED = ~pl.col("_swapped")
_SPLIT_TOLERANCE = 0.05


def can_estimate(field: pl.Expr, rules: QualityRules) -> pl.Expr:
    """Whether the recent past allows an estimate: trading on the session before, and enough observations."""
    seen = pl.coalesce(
        *[pl.when(field == name).then(pl.col(f"_has_{name}")) for name in ("open", "high", "low", "volume")]
    )
    return ((pl.col("_gap") == 1) & (seen >= rules.repair_minimum)).fill_null(False)


def _mixed(rules: QualityRules) -> pl.Expr:
    beyond_rounding = pl.col("_violation") > rules.ohlc_rounding
    large = pl.col("_violation") > rules.ohlc_small
    repeated = beyond_rounding & (pl.col("_crowd") >= rules.mixed_count)
    day = pl.max_horizontal(pl.lit(_SPLIT_TOLERANCE), 3 * pl.col("_scale")).clip(upper_bound=0.12)
    another_scale = near_split(pl.col("_displaced"), day) | pl.col("_whole_range")
    alone = large & (another_scale | ~can_estimate(pl.col("_culprit"), rules))
    return pl.col("_culprit").is_not_null() & (repeated | alone).fill_null(False)


def _is_mixed(rules: QualityRules) -> pl.Expr:
    return _mixed(rules).fill_null(False)


def range_breach(side: str, rules: QualityRules) -> pl.Expr:
    """Whether the high (or low) lies absurdly far beyond open and close, measured in the symbol's own scale."""
    open_, close, extreme = pl.col("_open"), pl.col("_close"), pl.col(f"_{side}")
    ratio = extreme / pl.max_horizontal(open_, close) if side == "high" else pl.min_horizontal(open_, close) / extreme
    limit = pl.max_horizontal(pl.lit(rules.range_floor), rules.range_scales * pl.col("_scale"))
    return ((ratio.log() > limit) & can_estimate(pl.lit(side), rules)).fill_null(False)


CLOSE = Rule(
    "close_outside_range",
    "quarantine",
    "The close lies outside low..high while the open lies inside.",
    "Ask the vendor for the bar again; a close is never estimated.",
    lambda _: pl.col("_close_outside"),
    pl.format("the close {} lies outside its range {} to {}", pl.col("close"), pl.col("low"), pl.col("high")),
    value=pl.col("close"),
    expected=pl.when(pl.col("close") > pl.col("high")).then(pl.col("high")).otherwise(pl.col("low")),
    parameters=("ohlc_small",),
    fixed=True,
)
"""The one rule of shape that makes the close itself doubtful."""

RULES = (
    CLOSE,
    Rule(
        "mixed_scale",
        "quarantine",
        "Prices of one bar are on different scales (some adjusted for splits, some not).",
        "Deliver all four prices on the same basis: all as traded with factors, or all adjusted.",
        _mixed,
        pl.format(
            "{} is on another scale than the rest of the bar (open {}, high {}, low {}, close {})",
            *[pl.col(name) for name in ("_culprit", "open", "high", "low", "close")],
        ),
        field=pl.col("_culprit"),
        value=pl.coalesce(*[pl.when(pl.col("_culprit") == c).then(pl.col(c)) for c in ("open", "high", "low")]),
        expected=pl.col("close"),
        parameters=("ohlc_rounding", "ohlc_small", "mixed_sessions", "mixed_count"),
    ),
    Rule(
        "ohlc_order",
        "quarantine",
        "Low <= open, close <= high is broken, and no single field explains it.",
        "Ask the vendor for the bar again.",
        lambda rules: (
            (pl.col("_violation") > rules.ohlc_small)
            & pl.col("_culprit").is_null()
            & _NOT_SWAPPED
            & ~pl.col("_close_outside")
        ),
        pl.format(
            "open {}, high {}, low {}, close {} cannot be one bar",
            *[pl.col(name) for name in ("open", "high", "low", "close")],
        ),
        field="high",
        value=pl.col("_violation"),
        expected=pl.lit(0.0),
        parameters=("ohlc_small",),
    ),
    Rule(
        "suspension",
        "quarantine",
        "One flat price and no volume: nobody traded, the price is carried forward.",
        "Nothing to do; the symbol was halted.",
        lambda _: pl.col("_suspended"),
        pl.lit("no shares traded at one flat price: the symbol was suspended"),
        field="volume",
        value=pl.col("volume"),
    ),
    Rule(
        "high_low_swapped",
        "repair",
        "High and low are exchanged.",
        "Exchanged back; check the mapping of columns.",
        lambda _: pl.col("_swapped"),
        pl.format("high {} is below low {}; exchanged, the bar is in order", pl.col("high"), pl.col("low")),
        field="high",
        value=pl.col("high"),
        expected=pl.col("low"),
    ),
    Rule(
        "misplaced_field",
        "repair",
        "One of open, high and low breaks the order of the bar by more than a little, once.",
        "Estimated from recent bars; ask the vendor for the bar again.",
        lambda rules: (pl.col("_violation") > rules.ohlc_small) & pl.col("_culprit").is_not_null() & ~_is_mixed(rules),
        pl.format("{} does not fit the rest of the bar", pl.col("_culprit")),
        field=pl.col("_culprit"),
        value=pl.coalesce(*[pl.when(pl.col("_culprit") == c).then(pl.col(c)) for c in ("open", "high", "low")]),
        expected=pl.col("close"),
        parameters=("ohlc_small", "repair_sessions", "repair_minimum"),
    ),
    Rule(
        "ohlc_rounding",
        "repair",
        "The order of the bar is broken by a rounding or a little more.",
        "Clipped; nothing to do, unless it is frequent.",
        lambda rules: (
            (pl.col("_violation") > 0) & (pl.col("_violation") <= rules.ohlc_small) & _NOT_SWAPPED & ~_is_mixed(rules)
        ),
        pl.format("the order of the bar is broken by {} %", (pl.col("_violation") * 100).round(4)),
        field=pl.coalesce(pl.col("_culprit"), pl.lit("high")),
        value=pl.col("_violation"),
        expected=pl.lit(0.0),
        parameters=("ohlc_rounding", "ohlc_small"),
    ),
    Rule(
        "range_outlier",
        "repair",
        "High or low lies absurdly far beyond open and close (a wrong print).",
        "Estimated from recent bars; look at the trades of that day.",
        lambda rules: range_breach("high", rules) | range_breach("low", rules),
        pl.format(
            "the range {} to {} reaches absurdly far beyond open {} and close {}",
            *[pl.col(name) for name in ("low", "high", "open", "close")],
        ),
        field=pl.when(
            (pl.col("_high") / pl.col("_close")).fill_null(1.0) > (pl.col("_close") / pl.col("_low")).fill_null(1.0)
        )
        .then(pl.lit("high"))
        .otherwise(pl.lit("low")),
        value=pl.when(pl.col("_high") / pl.col("_close") > pl.col("_close") / pl.col("_low"))
        .then(pl.col("high"))
        .otherwise(pl.col("low")),
        expected=pl.col("close"),
        parameters=("range_scales", "range_floor", "repair_sessions", "repair_minimum"),
    ),
)
