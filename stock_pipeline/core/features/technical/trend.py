"""Trend indicators: moving averages, MACD, directional movement, Aroon, vortex, Ichimoku."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel, ema_length, wilder_length

_declare = Declaration("technical", __name__)

CLOSE = ("close",)
BAR = ("high", "low", "close")
MURPHY = "Murphy (1999), Technical Analysis of the Financial Markets, ch. 9"
WILDER = "Wilder (1978), New Concepts in Technical Trading Systems"
APPEL = "Appel (1979), The Moving Average Convergence Divergence Trading Method"


def _hull(p: Panel, n: int) -> Array:
    inner = p.once(f"hull_{n}", lambda: 2.0 * p.linear_mean(p.close, n // 2) - p.linear_mean(p.close, n))
    return p.close / p.linear_mean(inner, int(np.sqrt(n))) - 1.0


def _double(p: Panel, n: int) -> Array:
    first = p.ema(p.close, n)
    return 2.0 * first - p.ema(first, n)


def _triple(p: Panel, n: int) -> Array:
    first = p.ema(p.close, n)
    second = p.ema(first, n)
    return 3.0 * first - 3.0 * second + p.ema(second, n)


def _trix(p: Panel, n: int) -> Array:
    return p.growth(p.ema(p.ema(p.ema(p.close, n), n), n))


def _macd(p: Panel) -> Array:
    return p.once("macd", lambda: p.ema(p.close, 12) - p.ema(p.close, 26))


def _directional(p: Panel, n: int, up: bool) -> Array:
    """Directional indicator of Wilder: smoothed directional movement over smoothed true range, in percent."""

    def movement() -> Array:
        rise, fall = p.change(p.high), -p.change(p.low)
        moved, other = (rise, fall) if up else (fall, rise)
        return np.where(np.isnan(moved + other), np.nan, np.where((moved > other) & (moved > 0), moved, 0.0))

    key = f"{'plus' if up else 'minus'}_dm"
    return p.once(f"{key}_{n}", lambda: 100.0 * p.wilder(p.once(key, movement), n) / p.wilder(p.true_range, n))


def _dx(p: Panel, n: int) -> Array:
    def build() -> Array:
        plus, minus = _directional(p, n, True), _directional(p, n, False)
        return np.where(plus + minus > 0, 100.0 * np.abs(plus - minus) / (plus + minus), plus + minus)

    return p.once(f"dx_{n}", build)


def _aroon(p: Panel, n: int, up: bool) -> Array:
    place = p.place_of_max(p.high, n + 1, newest=True) if up else p.place_of_min(p.low, n + 1, newest=True)
    return 100.0 * (place - 1.0) / n


def _vortex(p: Panel, n: int, up: bool) -> Array:
    moved = p.once(f"vortex_{up}", lambda: np.abs(p.high - p.lag(p.low)) if up else np.abs(p.low - p.lag(p.high)))
    return p.sum(moved, n) / p.sum(p.true_range, n)


def _middle(p: Panel, n: int) -> Array:
    return (p.max(p.high, n) + p.min(p.low, n)) / 2.0


def _mass(p: Panel, n: int) -> Array:
    def build() -> Array:
        once = p.ema(p.once("range", lambda: p.high - p.low), 9)
        return once / p.ema(once, 9)

    return p.sum(p.once("mass_ratio", build), n)


def _choppiness(p: Panel, n: int) -> Array:
    top = p.once("true_high", lambda: np.maximum(p.high, p.lag(p.close)))
    bottom = p.once("true_low", lambda: np.minimum(p.low, p.lag(p.close)))
    return 100.0 * np.log10(p.sum(p.true_range, n) / (p.max(top, n) - p.min(bottom, n))) / np.log10(n)


def _efficiency(p: Panel, n: int) -> Array:
    return p.change(p.close, n) / p.sum(p.once("absolute_change", lambda: np.abs(p.change(p.close))), n)


_declare.each(
    (5, 10, 20, 50, 100, 200),
    "sma_ratio_{n}",
    lambda p, n: p.close / p.mean(p.close, n) - 1.0,
    CLOSE,
    lambda n: n - 1,
    "Close over its simple mean of {n} rows, less 1.",
    MURPHY,
)
_declare.each(
    (12, 26, 50),
    "ema_ratio_{n}",
    lambda p, n: p.close / p.ema(p.close, n) - 1.0,
    CLOSE,
    lambda n: ema_length(n) - 1,
    "Close over its exponential mean of span {n}, less 1.",
    MURPHY,
)
_declare.each(
    (20,),
    "wma_ratio_{n}",
    lambda p, n: p.close / p.linear_mean(p.close, n) - 1.0,
    CLOSE,
    lambda n: n - 1,
    "Close over its linearly weighted mean of {n} rows, less 1.",
    MURPHY,
)
_declare.each(
    (20,),
    "hma_ratio_{n}",
    _hull,
    CLOSE,
    lambda n: n - 1 + int(np.sqrt(n)) - 1,
    "Close over its Hull moving average of {n} rows, less 1.",
    "Hull (2005), Hull Moving Average",
)
_declare.each(
    (20,),
    "dema_ratio_{n}",
    lambda p, n: p.close / _double(p, n) - 1.0,
    CLOSE,
    lambda n: 2 * (ema_length(n) - 1),
    "Close over its double exponential mean of span {n}, less 1.",
    "Mulloy (1994), Smoothing Data with Faster Moving Averages",
)
_declare.each(
    (15,),
    "tema_ratio_{n}",
    lambda p, n: p.close / _triple(p, n) - 1.0,
    CLOSE,
    lambda n: 3 * (ema_length(n) - 1),
    "Close over its triple exponential mean of span {n}, less 1.",
    "Mulloy (1994), Smoothing Data with Less Lag",
)
_declare.one(
    "sma_cross_50_200",
    lambda p: p.mean(p.close, 50) / p.mean(p.close, 200) - 1.0,
    CLOSE,
    199,
    "Simple mean of 50 rows over that of 200 rows, less 1.",
    MURPHY,
    fast=50,
    slow=200,
)
_declare.one(
    "ppo_12_26",
    lambda p: p.ema(p.close, 12) / p.ema(p.close, 26) - 1.0,
    CLOSE,
    ema_length(26) - 1,
    "Percentage price oscillator: exponential mean of span 12 over that of span 26, less 1.",
    APPEL,
    fast=12,
    slow=26,
)
_declare.one(
    "macd_ratio",
    lambda p: _macd(p) / p.close,
    CLOSE,
    ema_length(26) - 1,
    "MACD line (spans 12 and 26) over close.",
    APPEL,
    fast=12,
    slow=26,
)
_declare.one(
    "macd_signal_ratio",
    lambda p: p.ema(_macd(p), 9) / p.close,
    CLOSE,
    ema_length(26) + ema_length(9) - 2,
    "MACD signal line (spans 12, 26, 9) over close.",
    APPEL,
    fast=12,
    slow=26,
    signal=9,
)
_declare.one(
    "macd_histogram_ratio",
    lambda p: (_macd(p) - p.ema(_macd(p), 9)) / p.close,
    CLOSE,
    ema_length(26) + ema_length(9) - 2,
    "MACD line less its signal line (spans 12, 26, 9), over close.",
    APPEL,
    fast=12,
    slow=26,
    signal=9,
)
_declare.each(
    (14,),
    "plus_di_{n}",
    lambda p, n: _directional(p, n, True),
    BAR,
    wilder_length,
    "Positive directional indicator over {n} periods, in percent.",
    WILDER,
)
_declare.each(
    (14,),
    "minus_di_{n}",
    lambda p, n: _directional(p, n, False),
    BAR,
    wilder_length,
    "Negative directional indicator over {n} periods, in percent.",
    WILDER,
)
_declare.each(
    (14,),
    "adx_{n}",
    lambda p, n: p.wilder(_dx(p, n), n),
    BAR,
    lambda n: 2 * wilder_length(n) - 1,
    "Average directional index over {n} periods, in percent.",
    WILDER,
)
_declare.each(
    (25,),
    "aroon_up_{n}",
    lambda p, n: _aroon(p, n, True),
    ("high",),
    lambda n: n,
    "Aroon up: 100 when the highest high of {n} + 1 rows is today's, 0 when it is the oldest.",
    "Chande (1995), A Time Price Oscillator",
)
_declare.each(
    (25,),
    "aroon_down_{n}",
    lambda p, n: _aroon(p, n, False),
    ("low",),
    lambda n: n,
    "Aroon down: 100 when the lowest low of {n} + 1 rows is today's, 0 when it is the oldest.",
    "Chande (1995), A Time Price Oscillator",
)
_declare.each(
    (25,),
    "aroon_oscillator_{n}",
    lambda p, n: _aroon(p, n, True) - _aroon(p, n, False),
    ("high", "low"),
    lambda n: n,
    "Aroon up less Aroon down over {n} rows.",
    "Chande (1995), A Time Price Oscillator",
)
_declare.each(
    (14,),
    "vortex_plus_{n}",
    lambda p, n: _vortex(p, n, True),
    BAR,
    lambda n: n,
    "Positive vortex movement over true range, sums of {n} rows.",
    "Botes and Siepman (2010), The Vortex Indicator",
)
_declare.each(
    (14,),
    "vortex_minus_{n}",
    lambda p, n: _vortex(p, n, False),
    BAR,
    lambda n: n,
    "Negative vortex movement over true range, sums of {n} rows.",
    "Botes and Siepman (2010), The Vortex Indicator",
)
_declare.each(
    (15,),
    "trix_{n}",
    _trix,
    CLOSE,
    lambda n: 3 * (ema_length(n) - 1) + 1,
    "One-row growth of the triple exponential mean of span {n}, as a fraction.",
    "Hutson (1983), Good TRIX",
)
_declare.one(
    "ichimoku_tenkan_kijun",
    lambda p: (_middle(p, 9) - _middle(p, 26)) / p.close,
    BAR,
    25,
    "Ichimoku conversion line (9) less base line (26), over close.",
    "Hosoda (1969), Ichimoku Kinko Hyo",
    fast=9,
    slow=26,
)
_declare.each(
    (26,),
    "ichimoku_kijun_ratio_{n}",
    lambda p, n: p.close / _middle(p, n) - 1.0,
    BAR,
    lambda n: n - 1,
    "Close over the Ichimoku base line of {n} rows, less 1.",
    "Hosoda (1969), Ichimoku Kinko Hyo",
)
_declare.each(
    (25,),
    "mass_index_{n}",
    _mass,
    ("high", "low"),
    lambda n: 2 * (ema_length(9) - 1) + n - 1,
    "Mass index: sum over {n} rows of the range's exponential mean (span 9) over its own exponential mean.",
    "Dorsey (1992), The Mass Index",
)
_declare.each(
    (14,),
    "choppiness_{n}",
    _choppiness,
    BAR,
    lambda n: n,
    "Choppiness index over {n} rows: near 100 sideways, near 0 trending.",
    "Dreiss (1993), Choppiness Index",
)
_declare.each(
    (10,),
    "efficiency_ratio_{n}",
    _efficiency,
    CLOSE,
    lambda n: n,
    "Signed efficiency ratio: net change of close over the path walked in {n} rows, from -1 to 1.",
    "Kaufman (1995), Smarter Trading",
)
_declare.each(
    (22,),
    "chandelier_ratio_{n}",
    lambda p, n: divide(p.close - (p.max(p.high, n) - 3.0 * p.wilder(p.true_range, n)), p.close),
    BAR,
    wilder_length,
    "Distance of close above the long chandelier exit (highest high of {n} rows less 3 ATR), over close.",
    "Le Beau, in Elder (2002), Come Into My Trading Room",
)
