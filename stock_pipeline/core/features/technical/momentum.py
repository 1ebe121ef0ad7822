"""Momentum oscillators: RSI, stochastics, Williams %R, CCI, CMO, TSI, ultimate and awesome oscillators."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel, ema_length, wilder_length

_declare = Declaration("technical", __name__)

CLOSE = ("close",)
BAR = ("high", "low", "close")
WILDER = "Wilder (1978), New Concepts in Technical Trading Systems"
LANE = "Lane (1984), Lane's Stochastics"


def _gain(p: Panel) -> Array:
    return p.once("gain", lambda: np.maximum(p.change(p.close), 0.0))


def _loss(p: Panel) -> Array:
    return p.once("loss", lambda: np.maximum(-p.change(p.close), 0.0))


def _rsi(p: Panel, n: int) -> Array:
    def build() -> Array:
        gain, loss = p.wilder(_gain(p), n), p.wilder(_loss(p), n)
        return 100.0 * gain / (gain + loss)

    return p.once(f"rsi_{n}", build)


def _stochastic_rsi(p: Panel, n: int) -> Array:
    rsi = _rsi(p, n)
    low, high = p.min(rsi, n), p.max(rsi, n)
    return 100.0 * divide(rsi - low, high - low, 100.0)


def _stochastic(p: Panel, n: int) -> Array:
    def build() -> Array:
        low, high = p.min(p.low, n), p.max(p.high, n)
        return 100.0 * (p.close - low) / (high - low)

    return p.once(f"stochastic_{n}", build)


def _cci(p: Panel, n: int) -> Array:
    deviation = p.absolute_deviation(p.typical, n)
    return divide(p.typical - p.mean(p.typical, n), 0.015 * deviation, p.typical)


def _cmo(p: Panel, n: int) -> Array:
    up, down = p.sum(_gain(p), n), p.sum(_loss(p), n)
    return 100.0 * (up - down) / (up + down)


def _tsi(p: Panel) -> Array:
    change = p.change(p.close)
    size = p.once("absolute_change", lambda: np.abs(change))
    return 100.0 * p.ema(p.ema(change, 25), 13) / p.ema(p.ema(size, 25), 13)


def _ultimate(p: Panel) -> Array:
    pressure = p.once("buying_pressure", lambda: p.close - np.minimum(p.low, p.lag(p.close)))

    def share(n: int) -> Array:
        return p.sum(pressure, n) / p.sum(p.true_range, n)

    return 100.0 * (4.0 * share(7) + 2.0 * share(14) + share(28)) / 7.0


def _awesome(p: Panel) -> Array:
    median = p.once("median_price", lambda: (p.high + p.low) / 2.0)
    return (p.mean(median, 5) - p.mean(median, 34)) / p.close


def _coppock(p: Panel, n: int) -> Array:
    total = p.once("coppock", lambda: p.growth(p.close, 14) + p.growth(p.close, 11))
    return p.linear_mean(total, n)


def _balance_of_power(p: Panel, n: int) -> Array:
    def build() -> Array:
        span = p.high - p.low
        return np.where(span == 0, 0.0, (p.close - p.open) / span)

    return p.mean(p.once("balance_of_power", build), n)


def _up_days(p: Panel) -> Array:
    change = p.change(p.close)
    return p.once("up_days", lambda: np.where(np.isnan(change), np.nan, (change > 0).astype(np.float64)))


_declare.each(
    (6, 14, 21),
    "rsi_{n}",
    _rsi,
    CLOSE,
    wilder_length,
    "Relative strength index over {n} periods, 0 to 100; null when the price never moved.",
    WILDER,
)
_declare.each(
    (14,),
    "stochastic_rsi_{n}",
    _stochastic_rsi,
    CLOSE,
    lambda n: wilder_length(n) + n - 1,
    "Place of the RSI within its range of {n} rows, 0 to 100.",
    "Chande and Kroll (1994), The New Technical Trader",
)
_declare.each(
    (14,),
    "stochastic_k_{n}",
    _stochastic,
    BAR,
    lambda n: n - 1,
    "Fast stochastic %K: place of close within the range of {n} rows, 0 to 100; null when the range is zero.",
    LANE,
)
_declare.each(
    (14,),
    "stochastic_d_{n}",
    lambda p, n: p.mean(_stochastic(p, n), 3),
    BAR,
    lambda n: n + 1,
    "Fast stochastic %D (slow %K): mean of 3 values of %K of {n} rows.",
    LANE,
)
_declare.each(
    (14,),
    "stochastic_slow_d_{n}",
    lambda p, n: p.mean(p.mean(_stochastic(p, n), 3), 3),
    BAR,
    lambda n: n + 3,
    "Slow stochastic %D: mean of 3 values of slow %K of {n} rows.",
    LANE,
)
_declare.each(
    (14,),
    "williams_r_{n}",
    lambda p, n: _stochastic(p, n) - 100.0,
    BAR,
    lambda n: n - 1,
    "Williams %R over {n} rows, -100 to 0.",
    "Williams (1979), How I Made One Million Dollars",
)
_declare.each(
    (20,),
    "cci_{n}",
    _cci,
    BAR,
    lambda n: n - 1,
    "Commodity channel index over {n} rows; null when the typical price is flat.",
    "Lambert (1980), Commodity Channel Index",
)
_declare.each(
    (14,),
    "cmo_{n}",
    _cmo,
    CLOSE,
    lambda n: n,
    "Chande momentum oscillator over {n} rows (plain sums), -100 to 100.",
    "Chande and Kroll (1994), The New Technical Trader",
)
_declare.each(
    (5, 10, 20, 60, 120),
    "roc_{n}",
    lambda p, n: 100.0 * p.growth(p.close, n),
    CLOSE,
    lambda n: n,
    "Rate of change of close over {n} rows, in percent.",
    "Murphy (1999), Technical Analysis of the Financial Markets, ch. 10",
)
_declare.one(
    "tsi_25_13",
    _tsi,
    CLOSE,
    1 + ema_length(25) - 1 + ema_length(13) - 1,
    "True strength index (spans 25 and 13), -100 to 100.",
    "Blau (1991), True Strength Index",
    slow=25,
    fast=13,
)
_declare.one(
    "ultimate_oscillator",
    _ultimate,
    BAR,
    28,
    "Ultimate oscillator of 7, 14 and 28 rows, 0 to 100.",
    "Williams (1985), The Ultimate Oscillator",
)
_declare.one(
    "awesome_oscillator_ratio",
    _awesome,
    BAR,
    33,
    "Awesome oscillator (means of 5 and 34 median prices), over close.",
    "Williams (1998), New Trading Dimensions",
    fast=5,
    slow=34,
)
_declare.each(
    (10,),
    "coppock_{n}",
    _coppock,
    CLOSE,
    lambda n: 14 + n - 1,
    "Coppock curve: linearly weighted mean over {n} rows of the growth over 14 and over 11 rows.",
    "Coppock (1962), Barron's",
)
_declare.each(
    (14,),
    "balance_of_power_{n}",
    _balance_of_power,
    ("open", *BAR),
    lambda n: n - 1,
    "Mean over {n} rows of body over range, -1 to 1 (a bar without range counts as 0).",
    "Livshin (2001), Balance of Market Power",
)
_declare.each(
    (13,),
    "bull_power_{n}",
    lambda p, n: (p.high - p.ema(p.close, n)) / p.close,
    ("high", "close"),
    lambda n: ema_length(n) - 1,
    "Elder's bull power: high less exponential mean of span {n}, over close.",
    "Elder (1993), Trading for a Living",
)
_declare.each(
    (13,),
    "bear_power_{n}",
    lambda p, n: (p.low - p.ema(p.close, n)) / p.close,
    ("low", "close"),
    lambda n: ema_length(n) - 1,
    "Elder's bear power: low less exponential mean of span {n}, over close.",
    "Elder (1993), Trading for a Living",
)
_declare.each(
    (12,),
    "psychological_line_{n}",
    lambda p, n: 100.0 * p.mean(_up_days(p), n),
    CLOSE,
    lambda n: n,
    "Share of rising closes in {n} rows, in percent.",
    "Japanese practice; e.g. Nippon Technical Analysts Association, Analysis of Stock Price in Japan (1989)",
)
_declare.each(
    (14,),
    "qstick_ratio_{n}",
    lambda p, n: p.mean(p.once("body", lambda: p.close - p.open), n) / p.close,
    ("open", "close"),
    lambda n: n - 1,
    "Mean body (close less open) of {n} rows, over close.",
    "Chande and Kroll (1994), The New Technical Trader",
)
