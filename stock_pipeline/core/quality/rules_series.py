"""Rules that compare a row with its own past: jumps, reversals, units, stale runs, volume, gaps in the calendar.

What does not belong here: how the past is measured (``series``, ``prepare``).
"""

from __future__ import annotations

import math

import polars as pl

from stock_pipeline.core.quality.registry import Rule
from stock_pipeline.core.quality.settings import QualityRules

_PERCENT = (pl.col("_simple_return") * 100).round(2)


def _unit(rules: QualityRules) -> pl.Expr:
    away = (pl.col("_close") * pl.col("adj_factor") / pl.col("_median")).log().abs()
    return (away > math.log(rules.unit_factor)).fill_null(False)


def _extreme(rules: QualityRules) -> pl.Expr:
    scales = rules.extreme_scales * pl.col("_scale") * pl.col("_gap").sqrt()
    beyond = pl.col("_return").abs() > pl.max_horizontal(pl.lit(rules.extreme_floor), scales)
    return (beyond & ~pl.col("_jump")).fill_null(False)


RULES = (
    Rule(
        "unit_jump",
        "quarantine",
        "The close is many times above or below its recent median (pence for pounds, a shifted decimal point).",
        "Check unit and currency of the source. If the new unit is right, deliver all history in it.",
        _unit,
        pl.format(
            "the close {} is {} times the median of the last sessions",
            pl.col("close"),
            (pl.col("_close") * pl.col("adj_factor") / pl.col("_median")).round(4),
        ),
        value=pl.col("close"),
        expected=pl.col("_median") / pl.col("adj_factor"),
        parameters=("unit_factor", "unit_sessions"),
    ),
    Rule(
        "currency_change",
        "quarantine",
        "The currency differs from that of most recent rows.",
        "Check the listing; deliver a new listing under a symbol of its own.",
        lambda _: pl.col("_minority_currency"),
        pl.format("the currency {} is not that of the recent rows", pl.col("currency")),
        field="currency",
        parameters=("unit_sessions",),
    ),
    Rule(
        "split_like_jump",
        "quarantine",
        "The price moved by a usual split ratio, the volume does not tell of news, and no factor explains it.",
        "Add the missing split or share dividend to the corporate actions.",
        lambda rules: pl.col("_jump") & pl.col("_split") & ~_unit(rules),
        pl.format(
            "the adjusted price moved by {} %, a usual split ratio, and the adjustment factor {}",
            _PERCENT,
            pl.when(pl.col("_factor_changed")).then(pl.lit("changed as well")).otherwise(pl.lit("did not change")),
        ),
        value=pl.col("_simple_return"),
        expected=pl.lit(0.0),
        parameters=("jump_scales", "jump_floor", "jump_floor_no_volume", "event_volume", "level_rows"),
    ),
    Rule(
        "unconfirmed_jump",
        "quarantine",
        "A return beyond the robust limit without the volume of an event; used again once a later price confirms it.",
        "Look for news or a corporate action; the next session confirms or refutes the new level.",
        lambda rules: pl.col("_jump") & ~pl.col("_split") & ~_unit(rules),
        pl.format(
            "the adjusted price moved by {} %, beyond the robust limit of {} %, without unusual volume",
            _PERCENT,
            ((pl.col("_limit").exp() - 1) * 100).round(1),
        ),
        value=pl.col("_simple_return"),
        expected=pl.col("_limit"),
        parameters=("jump_scales", "jump_floor", "jump_floor_no_volume", "event_volume", "level_rows"),
    ),
    Rule(
        "stale_run",
        "quarantine",
        "Open, high, low and close are the same as on several sessions before.",
        "Check whether the source repeats its last price.",
        lambda _: pl.col("_stale"),
        pl.format("the bar at {} has not changed for several sessions", pl.col("close")),
        value=pl.col("close"),
        parameters=("stale_rows", "stale_rows_close_only"),
    ),
    Rule(
        "level_confirmed",
        "warn",
        "The price stays at a level that was quarantined on the row before, which is accepted from here on.",
        "Look for the reason of the jump, for example a corporate action that is missing.",
        lambda _: pl.col("_was_jump") & ~pl.col("_far"),
        pl.format("the close {} confirms the level that was unconfirmed on the row before", pl.col("close")),
        value=pl.col("close"),
        parameters=("level_rows",),
    ),
    Rule(
        "spike_reverted",
        "warn",
        "The move of the row before was undone: that row was a spike.",
        "Ask the vendor about the row before.",
        lambda _: (pl.col("_was_jump") & pl.col("_far") & pl.col("_level")) | pl.col("_reverted"),
        pl.format("the close {} undoes the move of the row before, which looks like a spike", pl.col("close")),
        value=pl.col("_simple_return"),
        parameters=("level_rows", "extreme_scales", "extreme_floor"),
    ),
    Rule(
        "extreme_return",
        "warn",
        "An accepted return far beyond the symbol's robust scale (MAD).",
        "Look for news; the volume or the level spoke for it.",
        _extreme,
        pl.format("the adjusted price moved by {} %", _PERCENT),
        value=pl.col("_simple_return"),
        expected=pl.col("_scale"),
        parameters=("extreme_scales", "extreme_floor", "scale_sessions"),
    ),
    Rule(
        "zero_volume",
        "warn",
        "The volume is 0 although the price moved within the session.",
        "Check the volume of the source.",
        lambda _: (pl.col("volume") == 0).fill_null(False) & ~pl.col("_suspended"),
        pl.lit("the volume is 0 although the price moved"),
        field="volume",
        value=pl.col("volume"),
    ),
    Rule(
        "volume_outlier",
        "warn",
        "The log volume is far from its median in robust scales.",
        "Look for news, a block trade, or a change of unit (lots for shares).",
        lambda rules: pl.col("_log_volume_score").abs() > rules.volume_scales,
        pl.format(
            "the volume {} is {} robust scales from its median", pl.col("volume"), pl.col("_log_volume_score").round(1)
        ),
        field="volume",
        value=pl.col("volume"),
        parameters=("volume_scales", "scale_sessions"),
    ),
    Rule(
        "missing_sessions",
        "warn",
        "Sessions of the calendar have no row since the symbol's row before.",
        "Fetch the missing sessions, or record the suspension.",
        lambda _: pl.col("_missing") > 0,
        pl.format("{} sessions are missing just before this one", pl.col("_missing")),
        field="session",
        value=pl.col("_missing").cast(pl.Float64),
        expected=pl.lit(0.0),
        parameters=("gap_sessions",),
    ),
    Rule(
        "short_history",
        "warn",
        "The series starts here, or starts anew after a long pause: long windows are not full for a while.",
        "Nothing to do; predictions start when enough sessions are there.",
        lambda _: pl.col("_first"),
        pl.lit("no earlier row within the look-back: the history starts here"),
        field="session",
        parameters=("gap_sessions",),
    ),
)
