"""Volume indicators, all relative to the symbol's own volume. A window in which nothing was traded gives null."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import Declaration
from stock_pipeline.core.features.panel import Array, Panel, ema_length

_declare = Declaration("technical", __name__)

CLOSE = ("close", "volume")
BAR = ("high", "low", "close", "volume")


def _signed_volume(p: Panel) -> Array:
    return p.once("signed_volume", lambda: np.sign(p.change(p.close)) * p.volume)


def _flow_volume(p: Panel) -> Array:
    """Chaikin's money flow volume; a bar without range counts as 0."""

    def build() -> Array:
        span = p.high - p.low
        place = ((p.close - p.low) - (p.high - p.close)) / span
        return np.where(span == 0, 0.0, place) * p.volume

    return p.once("flow_volume", build)


def _chaikin_weights() -> tuple[float, ...]:
    """Weights of past money flow in EMA3 - EMA10 of its running total.

    With ``A[t-j] = A[t] - (m[t] + ... + m[t-j+1])`` and weights ``d[j]`` of the two averages' difference, which sum to
    zero, the total cancels and ``m[t-k]`` keeps the weight ``-sum(d[j] for j > k)``.
    """
    length = ema_length(10)
    fast, slow = (
        np.where(np.arange(length) < ema_length(s), (1 - 2 / (s + 1)) ** np.arange(length), 0.0) for s in (3, 10)
    )
    difference = fast / fast.sum() - slow / slow.sum()
    return tuple(float(v) for v in -(difference[::-1].cumsum()[::-1][1:]))


_CHAIKIN = _chaikin_weights()


def _mfi(p: Panel, n: int) -> Array:
    change = p.change(p.typical)
    flow = p.typical * p.volume
    up = p.once("mfi_up", lambda: np.where(np.isnan(change), np.nan, np.where(change > 0, flow, 0.0)))
    down = p.once("mfi_down", lambda: np.where(np.isnan(change), np.nan, np.where(change < 0, flow, 0.0)))
    gained, lost = p.sum(up, n), p.sum(down, n)
    return 100.0 * gained / (gained + lost)


def _force(p: Panel, n: int) -> Array:
    force = p.once("force", lambda: p.change(p.close) * p.volume)
    return p.ema(force, n) / (p.ema(p.volume, n) * p.close)


def _ease(p: Panel, n: int) -> Array:
    def build() -> Array:
        middle = p.once("median_price", lambda: (p.high + p.low) / 2.0)
        relative_volume = p.volume / p.mean(p.volume, n)
        moved = p.change(middle) * (p.high - p.low) / (p.close * p.close)
        return np.where(p.volume > 0, moved / relative_volume, np.nan)

    return p.mean(p.once(f"ease_{n}", build), n)


def _weighted_price(p: Panel, price: Array, key: str, n: int) -> Array:
    value = p.once(f"value_{key}", lambda: price * p.volume)
    return p.sum(value, n) / p.sum(p.volume, n)


_declare.each(
    (10, 20, 60),
    "obv_balance_{n}",
    lambda p, n: p.sum(_signed_volume(p), n) / p.sum(p.volume, n),
    CLOSE,
    lambda n: n,
    "On-balance volume gained in {n} rows over the volume traded in them, -1 to 1.",
    "Granville (1963), New Key to Stock Market Profits; windowed",
)
_declare.each(
    (20,),
    "chaikin_money_flow_{n}",
    lambda p, n: p.sum(_flow_volume(p), n) / p.sum(p.volume, n),
    BAR,
    lambda n: n - 1,
    "Chaikin money flow over {n} rows, -1 to 1.",
    "Chaikin, in Achelis (2000), Technical Analysis from A to Z",
)
_declare.one(
    "chaikin_oscillator_ratio",
    lambda p: p.weighted(_flow_volume(p), _CHAIKIN) / p.mean(p.volume, 20),
    BAR,
    max(len(_CHAIKIN) - 1, 19),
    "Chaikin oscillator (spans 3 and 10 of the accumulation line) over the mean volume of 20 rows.",
    "Chaikin, in Achelis (2000), Technical Analysis from A to Z",
    fast=3,
    slow=10,
)
_declare.each(
    (14,),
    "mfi_{n}",
    _mfi,
    BAR,
    lambda n: n,
    "Money flow index over {n} rows, 0 to 100.",
    "Quong and Soudack (1989), Volume-Weighted RSI: Money Flow",
)
_declare.each(
    (13,),
    "force_index_{n}",
    _force,
    CLOSE,
    ema_length,
    "Elder's force index (span {n}) over mean volume (span {n}) times close.",
    "Elder (1993), Trading for a Living",
)
_declare.each(
    (14,),
    "ease_of_movement_{n}",
    _ease,
    BAR,
    lambda n: 2 * (n - 1),
    "Ease of movement over {n} rows with move, range and volume made relative; null after a day without volume.",
    "Arms (1989), The Arms Index",
)
_declare.each(
    (5, 20, 60),
    "volume_ratio_{n}",
    lambda p, n: p.volume / p.mean(p.volume, n),
    ("volume",),
    lambda n: n - 1,
    "Volume over its mean of {n} rows.",
    "Murphy (1999), Technical Analysis of the Financial Markets, ch. 7",
)
_declare.one(
    "pvo_12_26",
    lambda p: p.ema(p.volume, 12) / p.ema(p.volume, 26) - 1.0,
    ("volume",),
    ema_length(26) - 1,
    "Percentage volume oscillator: exponential mean of span 12 over that of span 26, less 1.",
    "Achelis (2000), Technical Analysis from A to Z",
    fast=12,
    slow=26,
)
_declare.each(
    (20,),
    "vwma_ratio_{n}",
    lambda p, n: p.close / _weighted_price(p, p.close, "close", n) - 1.0,
    CLOSE,
    lambda n: n - 1,
    "Close over its volume-weighted mean of {n} rows, less 1.",
    "Arms (1989), The Arms Index",
)
_declare.each(
    (20,),
    "vwap_ratio_{n}",
    lambda p, n: p.close / _weighted_price(p, p.typical, "typical", n) - 1.0,
    BAR,
    lambda n: n - 1,
    "Close over the volume-weighted mean typical price of {n} rows, less 1.",
    "Berkowitz, Logue and Noser (1988), The Total Cost of Transactions on the NYSE; rolling",
)
_declare.each(
    (20,),
    "price_volume_trend_{n}",
    lambda p, n: p.sum(p.once("pvt", lambda: p.growth(p.close) * p.volume), n) / p.sum(p.volume, n),
    CLOSE,
    lambda n: n,
    "Volume-weighted mean daily return over {n} rows (windowed price-volume trend).",
    "Achelis (2000), Technical Analysis from A to Z; windowed",
)
