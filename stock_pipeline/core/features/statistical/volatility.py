"""Volatility estimators from closes and from ranges, annualised with 252 sessions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stock_pipeline.core.features.declaring import FLAT_RETURNS, Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel, decay_length

_declare = Declaration("statistical", __name__)

CLOSE = ("close",)
OHLC = ("open", "high", "low", "close")
YEAR = 252.0
LAMBDA = 0.94
FLAT_YEAR = FLAT_RETURNS * YEAR**0.5


def _volatility(p: Panel, n: int) -> Array:
    return p.once(f"volatility_{n}", lambda: np.sqrt(YEAR) * p.std(p.log_return, n))


def _downside(p: Panel, n: int) -> Array:
    squares = p.once("downside", lambda: np.minimum(p.log_return, 0.0) ** 2)
    return np.sqrt(YEAR * p.mean(squares, n))


def _ewma(p: Panel) -> Array:
    squares = p.once("squared_return", lambda: p.log_return**2)
    return np.sqrt(YEAR * p.exponential(squares, 1.0 - LAMBDA))


def _log(p: Panel, key: str, upper: Callable[[], Array], lower: Callable[[], Array]) -> Array:
    return p.once(f"log_{key}", lambda: np.log(upper() / lower()))


def _high_low(p: Panel) -> Array:
    return _log(p, "high_low", lambda: p.high, lambda: p.low)


def _close_open(p: Panel) -> Array:
    return _log(p, "close_open", lambda: p.close, lambda: p.open)


def _open_before(p: Panel) -> Array:
    return _log(p, "open_before", lambda: p.open, lambda: p.lag(p.close))


def _parkinson(p: Panel, n: int) -> Array:
    squares = p.once("parkinson", lambda: _high_low(p) ** 2 / (4.0 * np.log(2.0)))
    return np.sqrt(YEAR * p.mean(squares, n))


def _garman_klass(p: Panel, n: int) -> Array:
    def build() -> Array:
        return 0.5 * _high_low(p) ** 2 - (2.0 * np.log(2.0) - 1.0) * _close_open(p) ** 2

    return np.sqrt(YEAR * np.maximum(p.mean(p.once("garman_klass", build), n), 0.0))


def _rogers_satchell_terms(p: Panel) -> Array:
    def build() -> Array:
        return np.log(p.high / p.close) * np.log(p.high / p.open) + np.log(p.low / p.close) * np.log(p.low / p.open)

    return p.once("rogers_satchell", build)


def _rogers_satchell(p: Panel, n: int) -> Array:
    return np.sqrt(YEAR * np.maximum(p.mean(_rogers_satchell_terms(p), n), 0.0))


def _yang_zhang(p: Panel, n: int) -> Array:
    k = 0.34 / (1.34 + (n + 1.0) / (n - 1.0))
    overnight, intraday = p.std(_open_before(p), n) ** 2, p.std(_close_open(p), n) ** 2
    daily = overnight + k * intraday + (1.0 - k) * np.maximum(p.mean(_rogers_satchell_terms(p), n), 0.0)
    return np.sqrt(YEAR * daily)


_declare.each(
    (5, 10, 20, 60, 120, 250),
    "volatility_{n}",
    _volatility,
    CLOSE,
    lambda n: n,
    "Standard deviation of daily log returns of {n} rows, annualised.",
    "Campbell, Lo and MacKinlay (1997), The Econometrics of Financial Markets, sec. 1.4",
)
_declare.one(
    "ewma_volatility",
    _ewma,
    CLOSE,
    decay_length(1.0 - LAMBDA),
    "Exponentially weighted volatility with decay 0.94, annualised.",
    "J.P. Morgan (1996), RiskMetrics Technical Document, sec. 5.2",
    decay=LAMBDA,
)
_declare.each(
    (20, 60),
    "downside_volatility_{n}",
    _downside,
    CLOSE,
    lambda n: n,
    "Root mean square of the negative daily returns over {n} rows, annualised.",
    "Sortino and van der Meer (1991), Downside Risk",
)
_declare.each(
    (20, 60),
    "parkinson_volatility_{n}",
    _parkinson,
    ("high", "low"),
    lambda n: n - 1,
    "Parkinson's volatility from high and low of {n} rows, annualised.",
    "Parkinson (1980), The Extreme Value Method for Estimating the Variance of the Rate of Return",
)
_declare.each(
    (20, 60),
    "garman_klass_volatility_{n}",
    _garman_klass,
    OHLC,
    lambda n: n - 1,
    "Garman and Klass' volatility from open, high, low and close of {n} rows, annualised.",
    "Garman and Klass (1980), On the Estimation of Security Price Volatilities from Historical Data, eq. 20",
)
_declare.each(
    (20, 60),
    "rogers_satchell_volatility_{n}",
    _rogers_satchell,
    OHLC,
    lambda n: n - 1,
    "Rogers and Satchell's drift-free volatility of {n} rows, annualised.",
    "Rogers and Satchell (1991), Estimating Variance from High, Low and Closing Prices",
)
_declare.each(
    (20, 60),
    "yang_zhang_volatility_{n}",
    _yang_zhang,
    OHLC,
    lambda n: n,
    "Yang and Zhang's volatility with opening jumps of {n} rows, annualised.",
    "Yang and Zhang (2000), Drift-Independent Volatility Estimation, eq. 7 to 10",
)
_declare.one(
    "volatility_ratio_5_20",
    lambda p: divide(_volatility(p, 5), _volatility(p, 20), FLAT_YEAR, 1.0),
    CLOSE,
    20,
    "Volatility of 5 rows over that of 20 rows.",
    "Term structure of realised volatility; Corsi (2009), A Simple Approximate Long-Memory Model",
    fast=5,
    slow=20,
)
_declare.one(
    "volatility_ratio_20_120",
    lambda p: divide(_volatility(p, 20), _volatility(p, 120), FLAT_YEAR, 1.0),
    CLOSE,
    120,
    "Volatility of 20 rows over that of 120 rows.",
    "Term structure of realised volatility; Corsi (2009), A Simple Approximate Long-Memory Model",
    fast=20,
    slow=120,
)
_declare.each(
    (60,),
    "volatility_of_volatility_{n}",
    lambda p, n: divide(p.std(_volatility(p, 20), n), p.mean(_volatility(p, 20), n), FLAT_YEAR, 1.0),
    CLOSE,
    lambda n: 20 + n - 1,
    "Standard deviation over mean of the 20-row volatility in {n} rows.",
    "Baltussen, van Bekkum and van der Grient (2018), Unknown Unknowns: Uncertainty About Risk",
)
