"""Bands and ranges: true range, Bollinger, Keltner, Donchian, ulcer index, Chaikin volatility."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel, ema_length, wilder_length

_declare = Declaration("technical", __name__)

CLOSE = ("close",)
BAR = ("high", "low", "close")
WILDER = "Wilder (1978), New Concepts in Technical Trading Systems"
BOLLINGER = "Bollinger (2001), Bollinger on Bollinger Bands"
KELTNER = "Keltner (1960), How to Make Money in Commodities; ATR form of Raschke"
DONCHIAN = "Donchian (1960), High Finance in Copper"


def _bollinger(p: Panel, n: int) -> Array:
    """Distance from the middle in standard deviations (ddof 0)."""
    return divide(p.close - p.mean(p.close, n), p.std(p.close, n, 0), p.close)


def _keltner_width(p: Panel) -> Array:
    return 4.0 * p.wilder(p.true_range, 10) / p.ema(p.close, 20)


def _bollinger_width(p: Panel, n: int) -> Array:
    return 4.0 * p.std(p.close, n, 0) / p.mean(p.close, n)


def _donchian(p: Panel, n: int) -> Array:
    low = p.min(p.low, n)
    return (p.close - low) / (p.max(p.high, n) - low)


def _ulcer(p: Panel, n: int) -> Array:
    squares = p.once(f"ulcer_{n}", lambda: (100.0 * (p.close / p.max(p.close, n) - 1.0)) ** 2)
    return np.sqrt(p.mean(squares, n))


def _range(p: Panel) -> Array:
    return p.once("range", lambda: p.high - p.low)


KELTNER_ROWS = max(wilder_length(10), ema_length(20) - 1)

_declare.one(
    "true_range_ratio",
    lambda p: p.true_range / p.close,
    BAR,
    1,
    "True range over close.",
    WILDER,
)
_declare.each(
    (14,),
    "atr_ratio_{n}",
    lambda p, n: p.wilder(p.true_range, n) / p.close,
    BAR,
    wilder_length,
    "Average true range over {n} periods, over close.",
    WILDER,
)
_declare.each(
    (20,),
    "bollinger_percent_b_{n}",
    lambda p, n: (_bollinger(p, n) + 2.0) / 4.0,
    CLOSE,
    lambda n: n - 1,
    "Bollinger %b: 0 at the lower and 1 at the upper band (2 deviations of {n} rows); null when flat.",
    BOLLINGER,
)
_declare.each(
    (20,),
    "bollinger_width_{n}",
    _bollinger_width,
    CLOSE,
    lambda n: n - 1,
    "Distance of the Bollinger bands (2 deviations of {n} rows) over their middle.",
    BOLLINGER,
)
_declare.one(
    "keltner_position_20",
    lambda p: divide(p.close - p.ema(p.close, 20), 2.0 * p.wilder(p.true_range, 10), p.close),
    BAR,
    KELTNER_ROWS,
    "Distance of close from its exponential mean of span 20, in units of twice the ATR of 10 periods.",
    KELTNER,
    span=20,
    atr=10,
)
_declare.one(
    "keltner_width_20",
    _keltner_width,
    BAR,
    KELTNER_ROWS,
    "Distance of the Keltner bands (2 ATR of 10 periods) over the exponential mean of span 20.",
    KELTNER,
    span=20,
    atr=10,
)
_declare.one(
    "squeeze_20",
    lambda p: _bollinger_width(p, 20) / _keltner_width(p),
    BAR,
    KELTNER_ROWS,
    "Width of the Bollinger bands over that of the Keltner bands: below 1 volatility is compressed.",
    "Carter (2005), Mastering the Trade",
    window=20,
)
_declare.each(
    (20, 55),
    "donchian_position_{n}",
    _donchian,
    BAR,
    lambda n: n - 1,
    "Place of close between lowest low and highest high of {n} rows, 0 to 1; null when they are equal.",
    DONCHIAN,
)
_declare.each(
    (20, 55),
    "donchian_width_{n}",
    lambda p, n: (p.max(p.high, n) - p.min(p.low, n)) / p.close,
    BAR,
    lambda n: n - 1,
    "Highest high less lowest low of {n} rows, over close.",
    DONCHIAN,
)
_declare.each(
    (14,),
    "ulcer_index_{n}",
    _ulcer,
    CLOSE,
    lambda n: 2 * (n - 1),
    "Root mean square over {n} rows of the percentage fall from the highest close of {n} rows.",
    "Martin and McCann (1989), The Investor's Guide to Fidelity Funds",
)
_declare.each(
    (10,),
    "chaikin_volatility_{n}",
    lambda p, n: p.growth(p.ema(_range(p), n), n),
    ("high", "low"),
    lambda n: ema_length(n) - 1 + n,
    "Growth over {n} rows of the exponential mean (span {n}) of the range, as a fraction.",
    "Chaikin, in Achelis (2000), Technical Analysis from A to Z",
)
_declare.each(
    (10,),
    "range_ratio_{n}",
    lambda p, n: p.mean(p.once("range_ratio", lambda: _range(p) / p.close), n),
    BAR,
    lambda n: n - 1,
    "Mean over {n} rows of high less low over close.",
    "Average daily range; Kaufman (2013), Trading Systems and Methods, ch. 20",
)
