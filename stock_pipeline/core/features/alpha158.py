"""Alpha158: the 158 price and volume factors of Qlib 0.9.7, with the same names.

The formulas are those of Qlib's ``Alpha158DL.get_feature_config`` (Yang et al. 2020, "Qlib: An AI-oriented quantitative
investment platform"), including its 1e-12 in denominators. They differ from Qlib's own output in four stated ways:

- a window that is not full gives null (Qlib evaluates short windows with ``min_periods=1``);
- windows count the symbol's rows (Qlib reindexes to the exchange calendar, so that suspended days fill windows);
- a missing value anywhere in the window gives null (Qlib skips it);
- where the current volume is zero, ``VMA*`` and ``VSTD*`` are null (Qlib divides by 1e-12).

As in Qlib, ``RSQR`` and ``CORR``/``CORD`` are null where the standard deviation of an input is at most 2e-5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stock_pipeline.core.features.declaring import Declaration
from stock_pipeline.core.features.panel import Array, Panel

SOURCE = "Qlib 0.9.7, Alpha158"
WINDOWS = (5, 10, 20, 30, 60)
FLAT = 2e-5
TINY = 1e-12

PRICES = ("open", "high", "low", "close")


def _span(p: Panel) -> Array:
    return p.once("a158_span", lambda: p.high - p.low + TINY)


def _body_top(p: Panel) -> Array:
    return p.once("a158_top", lambda: np.maximum(p.open, p.close))


def _body_bottom(p: Panel) -> Array:
    return p.once("a158_bottom", lambda: np.minimum(p.open, p.close))


def _vwap(p: Panel) -> Array:
    """Adjusted average price: amount over adjusted volume equals (amount / volume) times the adjustment factor."""
    return p["amount"] / p.volume


def _traded_volume(p: Panel) -> Array:
    """Volume as a denominator: NaN where nothing was traded."""
    return p.once("a158_traded", lambda: np.where(p.volume > 0, p.volume + TINY, np.nan))


def _log_volume(p: Panel) -> Array:
    return p.once("a158_log_volume", lambda: np.log(p.volume + 1.0))


def _price_ratio(p: Panel) -> Array:
    return p.once("a158_price_ratio", lambda: p.close / p.lag(p.close))


def _volume_ratio(p: Panel) -> Array:
    return p.once("a158_volume_ratio", lambda: np.log(p.volume / p.lag(p.volume) + 1.0))


def _weighted_move(p: Panel) -> Array:
    return p.once("a158_move", lambda: np.abs(_price_ratio(p) - 1.0) * p.volume)


def _rises(p: Panel, column: str) -> Array:
    return p.once(f"a158_rises_{column}", lambda: np.maximum(p.change(p[column]), 0.0))


def _falls(p: Panel, column: str) -> Array:
    return p.once(f"a158_falls_{column}", lambda: np.maximum(-p.change(p[column]), 0.0))


def _moves(p: Panel, column: str) -> Array:
    return p.once(f"a158_moves_{column}", lambda: np.abs(p.change(p[column])))


def _is_up(p: Panel) -> Array:
    return p.once("a158_up", lambda: _sign_of_change(p, 1.0))


def _is_down(p: Panel) -> Array:
    return p.once("a158_down", lambda: _sign_of_change(p, -1.0))


def _sign_of_change(p: Panel, sign: float) -> Array:
    change = p.change(p.close)
    return np.where(np.isnan(change), np.nan, (sign * change > 0).astype(np.float64))


def _r_squared(p: Panel, d: int) -> Array:
    squares = p.squares(p.close, d)
    explained = p.slope(p.close, d) ** 2 * (d * (d * d - 1) / 12.0)
    return np.where(p.std(p.close, d) > FLAT, np.minimum(explained / squares, 1.0), np.nan)


def _residual(p: Panel, d: int) -> Array:
    return p.close - (p.mean(p.close, d) + p.slope(p.close, d) * (d - 1) / 2.0)


def _share(p: Panel, column: str, d: int, part: str) -> Array:
    total = p.sum(_moves(p, column), d) + TINY
    if part == "P":
        return p.sum(_rises(p, column), d) / total
    if part == "N":
        return p.sum(_falls(p, column), d) / total
    return (p.sum(_rises(p, column), d) - p.sum(_falls(p, column), d)) / total


BARS: tuple[tuple[str, str, Callable[[Panel], Array]], ...] = (
    ("KMID", "Close less open, over open", lambda p: (p.close - p.open) / p.open),
    ("KLEN", "High less low, over open", lambda p: (p.high - p.low) / p.open),
    ("KMID2", "Close less open, over the day's range", lambda p: (p.close - p.open) / _span(p)),
    ("KUP", "Upper shadow over open", lambda p: (p.high - _body_top(p)) / p.open),
    ("KUP2", "Upper shadow over the day's range", lambda p: (p.high - _body_top(p)) / _span(p)),
    ("KLOW", "Lower shadow over open", lambda p: (_body_bottom(p) - p.low) / p.open),
    ("KLOW2", "Lower shadow over the day's range", lambda p: (_body_bottom(p) - p.low) / _span(p)),
    ("KSFT", "Twice close less high and low, over open", lambda p: (2.0 * p.close - p.high - p.low) / p.open),
    ("KSFT2", "Twice close less high and low, over the range", lambda p: (2.0 * p.close - p.high - p.low) / _span(p)),
)
"""Name, description and formula of the factors of a single bar."""

Rolling = Callable[[Panel, int], Array]

ROLLING: tuple[tuple[str, str, tuple[str, ...], int, Rolling], ...] = (
    ("ROC", "Close {n} rows ago over close", ("close",), 1, lambda p, d: p.lag(p.close, d) / p.close),
    ("MA", "Mean close of {n} rows over close", ("close",), 0, lambda p, d: p.mean(p.close, d) / p.close),
    (
        "STD",
        "Standard deviation of close over {n} rows, over close",
        ("close",),
        0,
        lambda p, d: p.std(p.close, d) / p.close,
    ),
    ("BETA", "Slope of close over {n} rows, over close", ("close",), 0, lambda p, d: p.slope(p.close, d) / p.close),
    ("RSQR", "R squared of the linear trend of close over {n} rows", ("close",), 0, _r_squared),
    (
        "RESI",
        "Last residual of the linear trend of {n} rows, over close",
        ("close",),
        0,
        lambda p, d: _residual(p, d) / p.close,
    ),
    ("MAX", "Highest high of {n} rows over close", ("high", "close"), 0, lambda p, d: p.max(p.high, d) / p.close),
    ("MIN", "Lowest low of {n} rows over close", ("low", "close"), 0, lambda p, d: p.min(p.low, d) / p.close),
    (
        "QTLU",
        "80 % quantile of close over {n} rows, over close",
        ("close",),
        0,
        lambda p, d: p.order(p.close, d, "high") / p.close,
    ),
    (
        "QTLD",
        "20 % quantile of close over {n} rows, over close",
        ("close",),
        0,
        lambda p, d: p.order(p.close, d, "low") / p.close,
    ),
    (
        "RANK",
        "Percentile rank of close among the last {n} rows",
        ("close",),
        0,
        lambda p, d: p.order(p.close, d, "rank"),
    ),
    (
        "RSV",
        "Place of close between lowest low and highest high of {n} rows",
        ("high", "low", "close"),
        0,
        lambda p, d: (p.close - p.min(p.low, d)) / (p.max(p.high, d) - p.min(p.low, d) + TINY),
    ),
    (
        "IMAX",
        "Place of the highest high among {n} rows, over {n}",
        ("high",),
        0,
        lambda p, d: p.place_of_max(p.high, d) / d,
    ),
    (
        "IMIN",
        "Place of the lowest low among {n} rows, over {n}",
        ("low",),
        0,
        lambda p, d: p.place_of_min(p.low, d) / d,
    ),
    (
        "IMXD",
        "Rows from the lowest low to the highest high of {n} rows, over {n}",
        ("high", "low"),
        0,
        lambda p, d: (p.place_of_max(p.high, d) - p.place_of_min(p.low, d)) / d,
    ),
    (
        "CORR",
        "Correlation of close and log volume over {n} rows",
        ("close", "volume"),
        0,
        lambda p, d: p.correlation(p.close, _log_volume(p), d, FLAT),
    ),
    (
        "CORD",
        "Correlation of price ratios and log volume ratios over {n} rows",
        ("close", "volume"),
        1,
        lambda p, d: p.correlation(_price_ratio(p), _volume_ratio(p), d, FLAT),
    ),
    ("CNTP", "Share of rising closes in {n} rows", ("close",), 1, lambda p, d: p.mean(_is_up(p), d)),
    ("CNTN", "Share of falling closes in {n} rows", ("close",), 1, lambda p, d: p.mean(_is_down(p), d)),
    (
        "CNTD",
        "Share of rising less falling closes in {n} rows",
        ("close",),
        1,
        lambda p, d: p.mean(_is_up(p), d) - p.mean(_is_down(p), d),
    ),
    (
        "SUMP",
        "Sum of rises over all moves of close in {n} rows",
        ("close",),
        1,
        lambda p, d: _share(p, "close", d, "P"),
    ),
    (
        "SUMN",
        "Sum of falls over all moves of close in {n} rows",
        ("close",),
        1,
        lambda p, d: _share(p, "close", d, "N"),
    ),
    (
        "SUMD",
        "Rises less falls over all moves of close in {n} rows",
        ("close",),
        1,
        lambda p, d: _share(p, "close", d, "D"),
    ),
    (
        "VMA",
        "Mean volume of {n} rows over volume",
        ("volume",),
        0,
        lambda p, d: p.mean(p.volume, d) / _traded_volume(p),
    ),
    (
        "VSTD",
        "Standard deviation of volume over {n} rows, over volume",
        ("volume",),
        0,
        lambda p, d: p.std(p.volume, d) / _traded_volume(p),
    ),
    (
        "WVMA",
        "Variation coefficient of volume-weighted absolute returns over {n} rows",
        ("close", "volume"),
        1,
        lambda p, d: p.std(_weighted_move(p), d) / (p.mean(_weighted_move(p), d) + TINY),
    ),
    (
        "VSUMP",
        "Sum of rises over all moves of volume in {n} rows",
        ("volume",),
        1,
        lambda p, d: _share(p, "volume", d, "P"),
    ),
    (
        "VSUMN",
        "Sum of falls over all moves of volume in {n} rows",
        ("volume",),
        1,
        lambda p, d: _share(p, "volume", d, "N"),
    ),
    (
        "VSUMD",
        "Rises less falls over all moves of volume in {n} rows",
        ("volume",),
        1,
        lambda p, d: _share(p, "volume", d, "D"),
    ),
)
"""Name, description, inputs, rows needed beyond the window less one, and formula of the factors of a window d."""


def _price(column: str) -> Callable[[Panel], Array]:
    return lambda p: p[column] / p.close


def _rows_before(extra: int) -> Callable[[int], int]:
    return lambda n: n - 1 + extra


_declare = Declaration("alpha158", __name__)
for _name, _text, _function in BARS:
    _declare.one(_name, _function, PRICES, 0, f"{_text}.", SOURCE)
for _column in ("open", "high", "low"):
    _text = f"{_column.capitalize()} over close."
    _declare.one(f"{_column.upper()}0", _price(_column), (_column, "close"), 0, _text, SOURCE)
_declare.one(
    "VWAP0",
    lambda p: _vwap(p) / p.close,
    ("close", "volume", "amount"),
    0,
    "Volume-weighted average price (amount over volume) over close.",
    SOURCE,
)
for _name, _text, _inputs, _extra, _rolling in ROLLING:
    _declare.each(WINDOWS, f"{_name}{{n}}", _rolling, _inputs, _rows_before(_extra), f"{_text}.", SOURCE)
