"""Traded value and volume, relative to the symbol's own past; a window without trading gives null."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import FLAT_RETURNS, Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel

_declare = Declaration("statistical", __name__)

BOTH = ("close", "volume")


def traded_value(p: Panel) -> Array:
    """Close times volume, in the symbol's currency (the adjustment cancels)."""
    return p.once("traded_value", lambda: p.close * p.volume)


def illiquidity(p: Panel, n: int) -> Array:
    """Mean absolute return per unit of traded value (Amihud 2002); NaN when a row of the window has no volume."""

    def build() -> Array:
        return np.where(p.volume > 0, np.abs(p.growth(p.close)) / traded_value(p), np.nan)

    return p.mean(p.once("illiquidity", build), n)


def _log_volume(p: Panel) -> Array:
    return p.once("log1p_volume", lambda: np.log1p(p.volume))


def _is_untraded(p: Panel) -> Array:
    return p.once("untraded", lambda: np.where(np.isnan(p.volume), np.nan, (p.volume == 0).astype(np.float64)))


_declare.one(
    "illiquidity_ratio_20_120",
    lambda p: np.log(illiquidity(p, 20) / illiquidity(p, 120)),
    BOTH,
    120,
    "Logarithm of Amihud's illiquidity of 20 rows over that of 120 rows.",
    "Amihud (2002), Illiquidity and Stock Returns",
    fast=20,
    slow=120,
)
_declare.one(
    "traded_value_ratio_20_120",
    lambda p: np.log(p.mean(traded_value(p), 20) / p.mean(traded_value(p), 120)),
    BOTH,
    119,
    "Logarithm of the mean traded value of 20 rows over that of 120 rows.",
    "Gervais, Kaniel and Mingelgrin (2001), The High-Volume Return Premium",
    fast=20,
    slow=120,
)
_declare.each(
    (20, 60),
    "volume_zscore_{n}",
    lambda p, n: divide(_log_volume(p) - p.mean(_log_volume(p), n), p.std(_log_volume(p), n), _log_volume(p)),
    ("volume",),
    lambda n: n - 1,
    "Log volume less its mean of {n} rows, in standard deviations; null when flat.",
    "Gervais, Kaniel and Mingelgrin (2001), The High-Volume Return Premium",
)
_declare.each(
    (20,),
    "volume_volatility_{n}",
    lambda p, n: divide(p.std(p.volume, n), p.mean(p.volume, n)),
    ("volume",),
    lambda n: n - 1,
    "Standard deviation over mean of the volume of {n} rows.",
    "Chordia, Subrahmanyam and Anshuman (2001), Trading Activity and Expected Stock Returns",
)
_declare.each(
    (20, 60),
    "return_volume_correlation_{n}",
    lambda p, n: p.correlation(p.log_return, _log_volume(p), n, FLAT_RETURNS),
    BOTH,
    lambda n: n,
    "Correlation of daily returns and log volume over {n} rows.",
    "Karpoff (1987), The Relation Between Price Changes and Trading Volume",
)
_declare.each(
    (20,),
    "zero_volume_share_{n}",
    lambda p, n: p.mean(_is_untraded(p), n),
    ("volume",),
    lambda n: n - 1,
    "Share of rows without trading in {n} rows.",
    "Liu (2006), A Liquidity-Augmented Capital Asset Pricing Model",
)
