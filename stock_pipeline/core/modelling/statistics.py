"""Statistics of serially dependent series: means of overlapping returns, and paired comparisons of forecasts.

Labels over h sessions overlap, so neighbouring sessions are not independent; every standard error here allows for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MeanTest:
    """A mean with its heteroskedasticity- and autocorrelation-consistent standard error.

    Attributes
    ----------
    mean, standard_error, t
        ``None`` where undefined (fewer than 3 values, or no variation).
    p_greater
        One-sided p-value of "the mean is not above zero".
    count, lag
        Number of values, and lags of the kernel.
    """

    mean: float | None
    standard_error: float | None
    t: float | None
    p_greater: float | None
    count: int
    lag: int


def newey_west_lag(count: int, horizon: int) -> int:
    """Return the lags to use: at least ``horizon - 1``, else the rule floor(4 (T/100)^(2/9)).

    Source: Newey and West, *Automatic Lag Selection in Covariance Matrix Estimation*, Review of Economic Studies 61
    (1994), as the rule of thumb of Wooldridge's *Introductory Econometrics*, section 12.5.
    """
    rule = int(4 * (max(count, 1) / 100) ** (2 / 9))
    return max(0, min(max(horizon - 1, rule), count - 2))


def long_run_variance(values: np.ndarray, lag: int) -> float:
    """Return the Bartlett-kernel long-run variance (Newey and West, Econometrica 55, 1987, eq. 5)."""
    centred = values - values.mean()
    total = float(centred @ centred)
    for j in range(1, min(lag, len(values) - 1) + 1):
        total += 2 * (1 - j / (lag + 1)) * float(centred[j:] @ centred[:-j])
    return total / len(values)


def newey_west_mean(values: np.ndarray, horizon: int = 1) -> MeanTest:
    """Test whether a mean is above zero (normal approximation).

    Parameters
    ----------
    values
        One value a session, in time order; NaN are left out.
    horizon
        Overlap of the values in sessions; at least ``horizon - 1`` lags are used.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    count, lag = len(values), newey_west_lag(len(values), horizon)
    if count < 3:
        return MeanTest(float(values.mean()) if count else None, None, None, None, count, lag)
    mean, variance = float(values.mean()), long_run_variance(values, lag)
    if variance <= 0:
        return MeanTest(mean, None, None, None, count, lag)
    error = math.sqrt(variance / count)
    return MeanTest(mean, error, mean / error, 0.5 * math.erfc(mean / error / math.sqrt(2)), count, lag)


def diebold_mariano(difference: np.ndarray, horizon: int) -> MeanTest:
    """Test whether one forecast is better than another by the mean of paired differences.

    Diebold and Mariano, *Comparing Predictive Accuracy*, JBES 13 (1995), with the Bartlett kernel (the rectangular one
    can give a negative variance), the small-sample factor of Harvey, Leybourne and Newbold, International Journal of
    Forecasting 13 (1997), eq. 9, and Student's t with T - 1 degrees of freedom.

    Parameters
    ----------
    difference
        Score of the one minus score of the other, one value a session in time order (higher scores are better).
    horizon
        Forecast horizon in sessions.
    """
    from scipy.stats import t as student

    test = newey_west_mean(difference, horizon)
    if test.t is None or test.standard_error is None:
        return test
    n, h = test.count, min(horizon, test.count - 1)
    factor = math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    value = test.t * factor
    return MeanTest(test.mean, test.standard_error / factor, value, float(student.sf(value, n - 1)), n, test.lag)
