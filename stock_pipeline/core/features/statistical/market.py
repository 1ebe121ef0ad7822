"""Dependence on the market benchmark; needs the column ``benchmark`` (its closing level on the row's session)."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import FLAT_RETURNS, Declaration
from stock_pipeline.core.features.panel import Array, Panel

_declare = Declaration("statistical", __name__)

BOTH = ("close", "benchmark")
YEAR = 252.0
SHARPE = "Sharpe (1963), A Simplified Model for Portfolio Analysis"


def _market(p: Panel) -> Array:
    """Log return of the benchmark since the symbol's previous row."""
    return p.once("market_return", lambda: np.log(p.benchmark / p.lag(p.benchmark)))


def _beta(p: Panel, n: int) -> Array:
    def build() -> Array:
        squares, _, products = p.pair_moments(_market(p), p.log_return, n)
        return np.where(squares > n * FLAT_RETURNS**2, products / squares, np.nan)

    return p.once(f"beta_{n}", build)


def _residual_volatility(p: Panel, n: int) -> Array:
    market, own, products = p.pair_moments(_market(p), p.log_return, n)
    left = np.maximum(own - products**2 / market, 0.0)
    return np.where(market > n * FLAT_RETURNS**2, np.sqrt(YEAR * left / (n - 2.0)), np.nan)


_declare.each(
    (60, 250),
    "beta_{n}",
    _beta,
    BOTH,
    lambda n: n,
    "Slope of daily returns on the benchmark's, over {n} rows.",
    SHARPE,
)
_declare.each(
    (60,),
    "benchmark_correlation_{n}",
    lambda p, n: p.correlation(_market(p), p.log_return, n, FLAT_RETURNS),
    BOTH,
    lambda n: n,
    "Correlation of daily returns with the benchmark's, over {n} rows.",
    SHARPE,
)
_declare.each(
    (60,),
    "benchmark_alpha_{n}",
    lambda p, n: YEAR * (p.mean(p.log_return, n) - _beta(p, n) * p.mean(_market(p), n)),
    BOTH,
    lambda n: n,
    "Intercept of daily returns on the benchmark's, over {n} rows, annualised.",
    "Jensen (1968), The Performance of Mutual Funds",
)
_declare.each(
    (60,),
    "residual_volatility_{n}",
    _residual_volatility,
    BOTH,
    lambda n: n,
    "Standard deviation of what the benchmark does not explain of daily returns, over {n} rows, annualised.",
    "Ang, Hodrick, Xing and Zhang (2006), The Cross-Section of Volatility and Expected Returns",
)
_declare.each(
    (5, 20, 60),
    "relative_return_{n}",
    lambda p, n: p.growth(p.close, n) - p.growth(p.benchmark, n),
    BOTH,
    lambda n: n,
    "Simple return over {n} rows less the benchmark's over the same sessions.",
    "Levy (1967), Relative Strength as a Criterion for Investment Selection",
)
