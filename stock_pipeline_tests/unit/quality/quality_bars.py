"""Real bars of the sample market, and ways to corrupt them on purpose, each with the rules that must notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from typing import Any

import polars as pl

from stock_pipeline.core.market.bars import BAR_SCHEMA, PRICES
from stock_pipeline_tests.conftest import SAMPLE

SYMBOLS = ("AAPL", "AMZN", "NFLX")
START, END = date(2013, 1, 2), date(2015, 6, 30)


@cache
def sample_bars(symbols: tuple[str, ...] = SYMBOLS, start: date = START, end: date = END) -> pl.DataFrame:
    """Bars of the sample in the bar schema, sorted; factors from the adjusted close; amount numbers the rows."""
    frames = [
        pl.read_csv(SAMPLE / "bars" / f"{symbol}.csv", try_parse_dates=True, schema_overrides={"volume": pl.Float64})
        for symbol in symbols
    ]
    bars = pl.concat(frames).filter(pl.col("session").is_between(start, end)).sort("symbol", "session")
    factor = pl.col("adj_close") / pl.col("close")
    return bars.with_columns(
        adj_factor=factor / factor.first().over("symbol"),
        amount=pl.int_range(pl.len()).cast(pl.Float64),
        currency=pl.lit("USD"),
        known_at=(pl.col("session").cast(pl.Datetime("us")) + pl.duration(hours=22)).dt.replace_time_zone("UTC"),
    ).select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())


def sessions_of(bars: pl.DataFrame) -> list[date]:
    """The sessions that the sample has."""
    return bars["session"].unique().sort().to_list()


def _set(**changes: Any) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda row: [row | {k: (v(row) if callable(v) else v) for k, v in changes.items()}]


def _scale(factor: float) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda row: [row | {name: row[name] * factor for name in PRICES}]


def _another_close(row: dict[str, Any]) -> float:
    """A close within the day's range that is not the row's: half of the way to the farther end."""
    farther = max(row["low"], row["high"], key=lambda price: abs(price - row["close"]))
    return float((row["close"] + farther) / 2)


CORRUPTIONS: dict[str, tuple[Callable[[dict[str, Any]], list[dict[str, Any]]], set[str], str]] = {
    "null close": (_set(close=None), {"missing_close"}, "quarantine"),
    "NaN close": (_set(close=float("nan")), {"missing_close"}, "quarantine"),
    "infinite close": (_set(close=float("inf")), {"missing_close"}, "quarantine"),
    "negative close": (_set(close=lambda r: -r["close"]), {"non_positive_close"}, "quarantine"),
    "zero close": (_set(close=0.0), {"non_positive_close"}, "quarantine"),
    "close outside": (_set(close=lambda r: r["high"] * 1.1), {"close_outside_range"}, "quarantine"),
    "zero factor": (_set(adj_factor=0.0), {"bad_adj_factor"}, "quarantine"),
    "weekend": (
        lambda r: [r | {"session": r["session"] + timedelta(days=5 - r["session"].weekday())}],
        {"off_calendar", "known_before_session"},
        "quarantine",
    ),
    "future": (_set(session=END + timedelta(days=30)), {"future_session"}, "quarantine"),
    "known too early": (
        _set(known_at=lambda r: r["known_at"] - timedelta(days=2)),
        {"known_before_session"},
        "quarantine",
    ),
    "no session": (_set(session=None), {"missing_key"}, "quarantine"),
    "pence": (_scale(100.0), {"unit_jump"}, "quarantine"),
    "thousands": (_scale(0.001), {"unit_jump"}, "quarantine"),
    "half": (_scale(0.5), {"split_like_jump", "unconfirmed_jump"}, "quarantine"),
    "tripled": (_scale(3.0), {"split_like_jump", "unconfirmed_jump"}, "quarantine"),
    "spike": (_scale(1.8), {"unconfirmed_jump", "split_like_jump"}, "quarantine"),
    "factor alone": (
        _set(adj_factor=lambda r: r["adj_factor"] * 2),
        {"split_like_jump", "unconfirmed_jump"},
        "quarantine",
    ),
    "mixed scale": (_set(open=lambda r: r["close"] / 7), {"mixed_scale"}, "quarantine"),
    "foreign currency": (_set(currency="EUR"), {"currency_change"}, "quarantine"),
    "copy": (lambda r: [r, dict(r)], {"duplicate"}, "quarantine"),
    "conflict": (lambda r: [r, r | {"volume": r["volume"] + 1}], {"conflicting_duplicate"}, "quarantine"),
    "revision": (
        lambda r: [r, r | {"close": _another_close(r), "known_at": r["known_at"] + timedelta(hours=9)}],
        {"superseded"},
        "quarantine",
    ),
    "swapped": (
        lambda r: [r | {"high": r["low"], "low": r["high"]}],
        {"high_low_swapped"},
        "repair",
    ),
    "low high": (_set(high=lambda r: min(r["open"], r["close"]) * 0.9), {"misplaced_field"}, "repair"),
    "far low": (_set(low=lambda r: r["low"] / 20), {"range_outlier"}, "repair"),
    "NaN open": (_set(open=float("nan")), {"bad_price_field"}, "repair"),
    "missing high": (_set(high=None), {"missing_price_field"}, "repair"),
    "negative volume": (_set(volume=lambda r: -r["volume"]), {"bad_volume"}, "repair"),
    "missing volume": (_set(volume=None), {"missing_volume"}, "repair"),
    "rounding": (_set(high=lambda r: max(r["open"], r["close"]) * 0.9995), {"ohlc_rounding"}, "repair"),
}
"""Name to (what it does to a row: the rows that replace it, rules of which one must catch it, severity)."""


def corrupt(bars: pl.DataFrame, picks: dict[int, str]) -> pl.DataFrame:
    """Corrupt the rows with the given numbers (``amount``) in the given ways."""
    chosen = pl.col("amount").is_in([float(number) for number in picks])
    rows = bars.filter(chosen).to_dicts()
    new = [made for row in rows for made in CORRUPTIONS[picks[int(row["amount"])]][0](row)]
    return pl.concat([bars.filter(~chosen), pl.DataFrame(new, schema=BAR_SCHEMA)])


def originals(validated: pl.DataFrame, quarantined: pl.DataFrame) -> pl.DataFrame:
    """Put the input together again from its fates: repaired fields take their originals back."""
    rows = validated.filter(pl.col("status") == "repaired").to_dicts()
    for row in rows:
        for entry in json.loads(row["repairs"]):
            value = entry["original"]
            row[entry["field"]] = float(value) if isinstance(value, str) else value
    restored = pl.DataFrame(rows, schema=validated.schema).select(BAR_SCHEMA.keys())
    clean = validated.filter(pl.col("status") == "clean").select(BAR_SCHEMA.keys())
    return pl.concat([clean, restored, quarantined.select(BAR_SCHEMA.keys())])


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort by every column."""
    return frame.sort(frame.columns, nulls_last=True)
