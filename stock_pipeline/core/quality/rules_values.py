"""Rules on single values, keys and duplicates: what a row says by itself.

What does not belong here: the shape of bars (``rules_bars``) and comparisons with earlier rows (``rules_series``).
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.market.bars import PRICES
from stock_pipeline.core.quality.registry import Rule
from stock_pipeline.core.quality.settings import QualityRules


def _not_finite(name: str) -> pl.Expr:
    return (~pl.col(name).is_finite()).fill_null(False)


def _unusable_price(name: str) -> pl.Expr:
    return _not_finite(name) | (pl.col(name) <= 0).fill_null(False)


def _first_field(conditions: dict[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(*[pl.when(condition).then(pl.lit(name)) for name, condition in conditions.items()])


def _value_of(conditions: dict[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(*[pl.when(condition).then(pl.col(name)) for name, condition in conditions.items()])


_BAD_PRICES = {name: _unusable_price(name) for name in PRICES if name != "close"}


def _expected_volume(rules: QualityRules) -> pl.Expr:
    return pl.col("_has_volume") >= rules.repair_minimum


def _missing_prices(rules: QualityRules) -> dict[str, pl.Expr]:
    return {
        name: pl.col(name).is_null() & (pl.col(f"_has_{name}") >= rules.repair_minimum)
        for name in ("open", "high", "low")
    }


HARD = (
    Rule(
        "missing_key",
        "quarantine",
        "The symbol or the session is missing.",
        "Ask the vendor for the row again; check the mapping of columns.",
        lambda _: pl.col("symbol").is_null() | pl.col("session").is_null(),
        pl.lit("the row has no symbol or no session"),
        field=pl.when(pl.col("symbol").is_null()).then(pl.lit("symbol")).otherwise(pl.lit("session")),
        fixed=True,
    ),
    Rule(
        "future_session",
        "quarantine",
        "The session is later than the last closed session.",
        "Check date format (D/M/Y against M/D/Y) and time zone of the source.",
        lambda _: pl.col("_future"),
        pl.format("session {} is later than the last closed session", pl.col("session")),
        field="session",
        fixed=True,
    ),
    Rule(
        "off_calendar",
        "quarantine",
        "The exchange was closed on that date.",
        "Check the configured calendar, the date format and the time zone of the source.",
        lambda _: pl.col("session").is_not_null() & pl.col("_idx").is_null() & ~pl.col("_future"),
        pl.format("{} is not a session of the calendar", pl.col("session")),
        field="session",
        fixed=True,
    ),
    Rule(
        "known_before_session",
        "quarantine",
        "The row was learnt before its session began.",
        "Check time zones and the date column: such a price cannot have been traded yet.",
        lambda _: (
            pl.col("known_at") < pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        ).fill_null(False),
        pl.format("learnt at {} UTC, before the session {}", pl.col("known_at"), pl.col("session")),
        field="known_at",
        fixed=True,
    ),
    Rule(
        "missing_close",
        "quarantine",
        "The close is null, NaN or infinite.",
        "Ask the vendor for the row again; a close is never estimated.",
        lambda _: pl.col("close").is_null() | _not_finite("close"),
        pl.format("the close is {}", pl.col("close").cast(pl.String).fill_null("missing")),
        fixed=True,
    ),
    Rule(
        "non_positive_close",
        "quarantine",
        "The close is zero or negative.",
        "Ask the vendor for the row again; a close is never estimated.",
        lambda _: (pl.col("close") <= 0).fill_null(False),
        pl.format("the close is {}, not above 0", pl.col("close")),
        value=pl.col("close"),
        expected=pl.lit(0.0),
        fixed=True,
    ),
    Rule(
        "bad_adj_factor",
        "quarantine",
        "The adjustment factor is missing, not finite, or not positive.",
        "Rebuild the factors from splits and dividends.",
        lambda _: pl.col("adj_factor").is_null() | _unusable_price("adj_factor"),
        pl.format("the adjustment factor is {}", pl.col("adj_factor").cast(pl.String).fill_null("missing")),
        field="adj_factor",
        fixed=True,
    ),
)
"""Rules that make a row unfit to be compared with anything."""

DUPLICATES = (
    Rule(
        "duplicate",
        "quarantine",
        "The same values came more than once for a symbol and session; the copy learnt first is kept.",
        "Nothing is lost; look why the source delivers rows twice.",
        lambda _: pl.col("_duplicate") == "duplicate",
        pl.lit("a copy of another row of the same symbol and session, which is kept"),
        field="session",
        fixed=True,
    ),
    Rule(
        "superseded",
        "quarantine",
        "Values that were learnt later replace this row.",
        "The vendor revised history; compare the revision with the exchange if it is large.",
        lambda _: pl.col("_duplicate") == "superseded",
        pl.lit("another row of the same symbol and session was learnt later and has other values"),
        field="session",
        fixed=True,
    ),
    Rule(
        "conflicting_duplicate",
        "quarantine",
        "Rows of one symbol and session were learnt at the same time with different values; none is used.",
        "Find out which row is right and deliver that one alone.",
        lambda _: pl.col("_duplicate") == "conflicting_duplicate",
        pl.lit("rows of the same symbol and session differ, and nothing says which is right"),
        field="session",
        value=pl.col("close"),
        fixed=True,
    ),
)

FIELDS = (
    Rule(
        "bad_price_field",
        "repair",
        "Open, high or low is NaN, infinite, zero or negative.",
        "Estimated where the recent past allows it, else set to null; ask the vendor for the bar again.",
        lambda _: pl.any_horizontal(*_BAD_PRICES.values()),
        pl.format("{} is not a price", _first_field(_BAD_PRICES)),
        field=_first_field(_BAD_PRICES),
        value=_value_of(_BAD_PRICES),
    ),
    Rule(
        "missing_price_field",
        "repair",
        "One of open, high and low is missing although the vendor usually gives it.",
        "Estimated from recent bars; ask the vendor for the bar again.",
        lambda rules: (
            (pl.sum_horizontal(*[c.cast(pl.Int8) for c in _missing_prices(rules).values()]) == 1)
            & (pl.col("_gap") == 1)
        ),
        pl.lit("one of open, high and low is missing"),
        field=_first_field({name: pl.col(name).is_null() & (pl.col(f"_has_{name}") > 2) for name in _BAD_PRICES}),
        parameters=("repair_sessions", "repair_minimum"),
    ),
    Rule(
        "bad_volume",
        "repair",
        "The volume or traded value is negative, NaN or infinite.",
        "Estimated where the recent past allows it, else set to null.",
        lambda _: pl.any_horizontal(
            *[_not_finite(name) | (pl.col(name) < 0).fill_null(False) for name in ("volume", "amount")]
        ),
        pl.lit("the volume or the traded value is negative or not a number"),
        field=pl.when(_not_finite("volume") | (pl.col("volume") < 0).fill_null(False))
        .then(pl.lit("volume"))
        .otherwise(pl.lit("amount")),
        value=pl.col("volume"),
        expected=pl.lit(0.0),
    ),
    Rule(
        "missing_volume",
        "repair",
        "A single volume is missing although the vendor usually gives it.",
        "Estimated by the median of the last 20 sessions; ask the vendor for the bar again.",
        lambda rules: (
            pl.col("volume").is_null() & _expected_volume(rules) & pl.col("_volume_before") & (pl.col("_gap") == 1)
        ),
        pl.lit("the volume is missing on this session alone"),
        field="volume",
        parameters=("repair_sessions", "repair_minimum"),
    ),
)

RULES = (*HARD, *DUPLICATES, *FIELDS)
