"""Shape and memory of the daily returns: moments, tails, autocorrelation, variance ratio, standing of the price."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import FLAT_RETURNS, Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel

_declare = Declaration("statistical", __name__)

CLOSE = ("close",)
MOMENTS = "Joanes and Gill (1998), Comparing Measures of Sample Skewness and Kurtosis"


def _skewness(p: Panel, n: int) -> Array:
    m2, m3, _ = p.higher_moments(p.log_return, n)
    biased = np.sqrt(n) * m3 / m2**1.5
    return np.where(m2 > n * FLAT_RETURNS**2, biased * np.sqrt(n * (n - 1.0)) / (n - 2.0), np.nan)


def _kurtosis(p: Panel, n: int) -> Array:
    m2, _, m4 = p.higher_moments(p.log_return, n)
    biased = n * m4 / m2**2 - 3.0
    value = ((n + 1.0) * biased + 6.0) * (n - 1.0) / ((n - 2.0) * (n - 3.0))
    return np.where(m2 > n * FLAT_RETURNS**2, value, np.nan)


def _autocorrelation(p: Panel, n: int, k: int) -> Array:
    return p.correlation(p.log_return, p.lag(p.log_return, k), n, FLAT_RETURNS)


def _absolute_return(p: Panel) -> Array:
    return p.once("absolute_return", lambda: np.abs(p.log_return))


def _variance_ratio(p: Panel, n: int, k: int) -> Array:
    """Variance of n overlapping k-row returns over k times that of all daily returns in them, uncorrected for bias."""
    long = p.once(f"log_return_{k}", lambda: p.sum(p.log_return, k))
    return divide(p.std(long, n) ** 2, k * p.std(p.log_return, n + k - 1) ** 2, FLAT_RETURNS**2, 1.0)


def _tail_ratio(p: Panel, n: int) -> Array:
    low, high = (p.order(p.log_return, n, part, 0.05, 0.95) for part in ("low", "high"))
    return np.where((high > 0) & (low < 0), np.log(-high / low), np.nan)


def _zero_returns(p: Panel) -> Array:
    change = p.change(p.close)
    return p.once("zero_returns", lambda: np.where(np.isnan(change), np.nan, (change == 0).astype(np.float64)))


_declare.each(
    (20, 60, 120),
    "skewness_{n}",
    _skewness,
    CLOSE,
    lambda n: n,
    "Sample skewness (G1) of daily returns of {n} rows.",
    MOMENTS,
)
_declare.each(
    (20, 60, 120),
    "kurtosis_{n}",
    _kurtosis,
    CLOSE,
    lambda n: n,
    "Sample excess kurtosis (G2) of daily returns of {n} rows.",
    MOMENTS,
)
_declare.each(
    (20, 60),
    "autocorrelation_1_{n}",
    lambda p, n: _autocorrelation(p, n, 1),
    CLOSE,
    lambda n: n + 1,
    "Correlation of daily returns with those of the row before, over {n} pairs.",
    "Campbell, Lo and MacKinlay (1997), The Econometrics of Financial Markets, sec. 2.4",
)
_declare.each(
    (60,),
    "autocorrelation_5_{n}",
    lambda p, n: _autocorrelation(p, n, 5),
    CLOSE,
    lambda n: n + 5,
    "Correlation of daily returns with those of 5 rows before, over {n} pairs.",
    "Campbell, Lo and MacKinlay (1997), The Econometrics of Financial Markets, sec. 2.4",
)
_declare.each(
    (60,),
    "absolute_autocorrelation_1_{n}",
    lambda p, n: p.correlation(_absolute_return(p), p.lag(_absolute_return(p)), n, FLAT_RETURNS),
    CLOSE,
    lambda n: n + 1,
    "Correlation of absolute daily returns with those of the row before, over {n} pairs: volatility clustering.",
    "Cont (2001), Empirical Properties of Asset Returns",
)
_declare.each(
    (60,),
    "variance_ratio_5_{n}",
    lambda p, n: _variance_ratio(p, n, 5),
    CLOSE,
    lambda n: n + 4,
    "Variance of {n} overlapping 5-row returns over 5 times that of daily returns: above 1 trending, below reverting.",
    "Lo and MacKinlay (1988), Stock Market Prices Do Not Follow Random Walks",
)
_declare.each(
    (60,),
    "tail_ratio_{n}",
    _tail_ratio,
    CLOSE,
    lambda n: n,
    "Logarithm of the 95 % quantile of daily returns over minus the 5 % quantile, of {n} rows.",
    "Quantile skewness; Kim and White (2004), On More Robust Estimation of Skewness and Kurtosis",
)
_declare.each(
    (20, 60, 250),
    "price_zscore_{n}",
    lambda p, n: divide(p.close - p.mean(p.close, n), p.std(p.close, n), p.close),
    CLOSE,
    lambda n: n - 1,
    "Close less its mean of {n} rows, in standard deviations; null when flat.",
    "Chan (2013), Algorithmic Trading, ch. 2",
)
_declare.each(
    (60, 250),
    "return_rank_{n}",
    lambda p, n: p.order(p.log_return, n, "rank"),
    CLOSE,
    lambda n: n,
    "Percentile rank of today's return among the last {n}, above 0 to 1.",
    "Hyndman and Fan (1996), Sample Quantiles in Statistical Packages",
)
_declare.each(
    (20,),
    "zero_return_share_{n}",
    lambda p, n: p.mean(_zero_returns(p), n),
    CLOSE,
    lambda n: n,
    "Share of rows without a price change in {n} rows.",
    "Lesmond, Ogden and Trzcinka (1999), A New Estimate of Transaction Costs",
)
