"""Returns over several horizons, extremes, reward for risk, and distance from highs and lows."""

from __future__ import annotations

import numpy as np

from stock_pipeline.core.features.declaring import FLAT_RETURNS, Declaration, divide
from stock_pipeline.core.features.panel import Array, Panel

_declare = Declaration("statistical", __name__)

CLOSE = ("close",)
ELEMENTARY = "Campbell, Lo and MacKinlay (1997), The Econometrics of Financial Markets, sec. 1.4"
SESSIONS_A_YEAR = 252


def _is_positive(p: Panel) -> Array:
    r = p.log_return
    return p.once("positive", lambda: np.where(np.isnan(r), np.nan, (r > 0).astype(np.float64)))


def _place(p: Panel, n: int) -> Array:
    low, high = p.min(p.close, n), p.max(p.close, n)
    return (p.close - low) / (high - low)


_declare.each(
    (1, 2, 3, 5, 10, 20, 60, 120, 250),
    "return_{n}",
    lambda p, n: p.growth(p.close, n),
    CLOSE,
    lambda n: n,
    "Simple return of close over {n} rows.",
    ELEMENTARY,
)
_declare.one(
    "momentum_250_20",
    lambda p: p.lag(p.close, 20) / p.lag(p.close, 250) - 1.0,
    CLOSE,
    250,
    "Simple return from 250 to 20 rows ago: momentum without the latest month.",
    "Jegadeesh and Titman (1993), Returns to Buying Winners and Selling Losers",
    window=250,
    skip=20,
)
_declare.one(
    "overnight_return",
    lambda p: p.open / p.lag(p.close) - 1.0,
    ("open", "close"),
    1,
    "Simple return from the previous close to the open.",
    "Lou, Polk and Skouras (2019), A Tug of War: Overnight versus Intraday Expected Returns",
)
_declare.one(
    "intraday_return",
    lambda p: p.close / p.open - 1.0,
    ("open", "close"),
    0,
    "Simple return from open to close.",
    "Lou, Polk and Skouras (2019), A Tug of War: Overnight versus Intraday Expected Returns",
)
_declare.each(
    (20,),
    "overnight_return_sum_{n}",
    lambda p, n: p.sum(p.once("overnight", lambda: np.log(p.open / p.lag(p.close))), n),
    ("open", "close"),
    lambda n: n,
    "Sum of overnight log returns over {n} rows.",
    "Lou, Polk and Skouras (2019), A Tug of War: Overnight versus Intraday Expected Returns",
)
_declare.each(
    (20, 60),
    "positive_share_{n}",
    lambda p, n: p.mean(_is_positive(p), n),
    CLOSE,
    lambda n: n,
    "Share of positive daily returns in {n} rows.",
    "Da, Gurun and Warachka (2014), Frog in the Pan",
)
_declare.each(
    (20, 60),
    "max_return_{n}",
    lambda p, n: p.max(p.log_return, n),
    CLOSE,
    lambda n: n,
    "Largest daily log return of {n} rows.",
    "Bali, Cakici and Whitelaw (2011), Maxing Out",
)
_declare.each(
    (20, 60),
    "min_return_{n}",
    lambda p, n: p.min(p.log_return, n),
    CLOSE,
    lambda n: n,
    "Smallest daily log return of {n} rows.",
    "Bali, Cakici and Whitelaw (2011), Maxing Out",
)
_declare.each(
    (20, 60, 250),
    "sharpe_{n}",
    lambda p, n: np.sqrt(SESSIONS_A_YEAR) * divide(p.mean(p.log_return, n), p.std(p.log_return, n), FLAT_RETURNS, 1.0),
    CLOSE,
    lambda n: n,
    "Mean over standard deviation of daily returns of {n} rows, annualised, without a riskless rate.",
    "Sharpe (1994), The Sharpe Ratio",
)
_declare.each(
    (20, 60, 250),
    "drawdown_{n}",
    lambda p, n: p.close / p.max(p.close, n) - 1.0,
    CLOSE,
    lambda n: n - 1,
    "Close over the highest close of {n} rows, less 1: at most 0.",
    "Magdon-Ismail and Atiya (2004), Maximum Drawdown",
)
_declare.each(
    (60, 250),
    "max_drawdown_{n}",
    lambda p, n: p.deepest_fall(p.close, n),
    CLOSE,
    lambda n: n - 1,
    "Deepest fall of close from a running high within {n} rows: at most 0.",
    "Magdon-Ismail and Atiya (2004), Maximum Drawdown",
)
_declare.each(
    (250,),
    "rise_from_low_{n}",
    lambda p, n: p.close / p.min(p.close, n) - 1.0,
    CLOSE,
    lambda n: n - 1,
    "Close over the lowest close of {n} rows, less 1: at least 0.",
    "George and Hwang (2004), The 52-Week High and Momentum Investing",
)
_declare.each(
    (250,),
    "price_position_{n}",
    _place,
    CLOSE,
    lambda n: n - 1,
    "Place of close between the lowest and the highest close of {n} rows, 0 to 1; null when they are equal.",
    "George and Hwang (2004), The 52-Week High and Momentum Investing",
)
_declare.each(
    (250,),
    "rows_since_high_{n}",
    lambda p, n: (n - p.place_of_max(p.close, n, newest=True)) / (n - 1.0),
    CLOSE,
    lambda n: n - 1,
    "Age of the highest close of {n} rows: 0 when it is today's, 1 when it is the oldest.",
    "Bhootra and Hur (2013), The Timing of 52-Week High Price and Momentum",
)
