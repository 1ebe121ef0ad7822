"""How much of a result is luck: probabilistic and deflated Sharpe ratio, probability of backtest over-fitting."""

from __future__ import annotations

from itertools import combinations
from math import e, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.errors import DataError

_NORMAL = NormalDist()
_EULER_GAMMA = 0.5772156649015329


def probabilistic_sharpe(returns: NDArray[np.float64], benchmark: float = 0.0) -> float | None:
    """Probability that the true Sharpe ratio is above a benchmark.

    Parameters
    ----------
    returns
        Returns per session, shape (sessions,).
    benchmark
        Sharpe ratio *per session* to be exceeded.

    Returns
    -------
    float or None
        ``None`` with fewer than three returns or no variation.

    Notes
    -----
    Bailey and Lopez de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012, eq. 11:
    ``Z[(SR - SR*) sqrt(n - 1) / sqrt(1 - skew SR + (kurt - 1) / 4 SR^2)]`` with the raw kurtosis (3 for a normal), and
    population skewness and kurtosis.
    """
    n = len(returns)
    if n < 3 or returns.std() <= 1e-15:
        return None
    sharpe = float(returns.mean() / returns.std(ddof=1))
    variance = _sharpe_variance(returns, sharpe)
    if variance <= 0:
        return None
    return _NORMAL.cdf((sharpe - benchmark) * sqrt(n - 1) / sqrt(variance))


def _sharpe_variance(returns: NDArray[np.float64], sharpe: float) -> float:
    """Variance of the estimated Sharpe ratio, times (n - 1)."""
    z = (returns - returns.mean()) / returns.std()
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    return 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2


def expected_maximum_sharpe(trials: int, variance: float) -> float:
    """Largest Sharpe ratio expected from trials without any skill.

    Bailey and Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014, eq. 1:
    ``sqrt(V) ((1 - g) Z^-1[1 - 1/N] + g Z^-1[1 - 1/(N e)])`` with the Euler-Mascheroni constant g; 0 for one trial.
    """
    if trials <= 1:
        return 0.0
    first, second = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * e))
    return sqrt(variance) * ((1 - _EULER_GAMMA) * first + _EULER_GAMMA * second)


def deflated_sharpe(returns: NDArray[np.float64], trials: int, variance: float | None = None) -> float | None:
    """Probability that the true Sharpe ratio is above zero, given how many trials it was picked from.

    Parameters
    ----------
    returns
        Returns per session of the picked trial.
    trials
        Number of independent trials, this one included.
    variance
        Variance of the per-session Sharpe ratios of the trials. When it is unknown, the sampling variance of this one
        is used, which is what trials without skill would show.

    Returns
    -------
    float or None
        The probabilistic Sharpe ratio against `expected_maximum_sharpe`; ``None`` where that is undefined.
    """
    if len(returns) < 3 or returns.std() <= 1e-15:
        return None
    if variance is None:
        sharpe = float(returns.mean() / returns.std(ddof=1))
        variance = max(_sharpe_variance(returns, sharpe), 0.0) / (len(returns) - 1)
    return probabilistic_sharpe(returns, expected_maximum_sharpe(trials, variance))


def probability_of_overfitting(returns: NDArray[np.float64], blocks: int = 16) -> float:
    """Probability that the best trial in sample is below the median out of sample (CSCV).

    Parameters
    ----------
    returns
        Returns of all trials on the same sessions, shape (sessions, trials).
    blocks
        Even number of blocks of equal length; sessions that do not fill a block are left out at the start.

    Returns
    -------
    float
        Share of the symmetric splits in which the relative rank out of sample of the trial with the best Sharpe ratio
        in sample is at or below one half.

    Raises
    ------
    DataError
        With fewer than two trials, an odd number of blocks or fewer than two sessions a block.

    Notes
    -----
    Bailey, Borwein, Lopez de Prado and Zhu, "The Probability of Backtest Overfitting", Journal of Computational Finance
    20(4), 2017, section 2.
    """
    if returns.ndim != 2 or returns.shape[1] < 2:
        raise DataError("over-fitting is judged among two or more trials", value=returns.shape)
    if blocks < 2 or blocks % 2 or len(returns) < 2 * blocks:
        raise DataError("blocks must be an even number with two sessions or more each", value=blocks)
    length = len(returns) // blocks
    parts = returns[len(returns) - length * blocks :].reshape(blocks, length, -1)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)
    below, splits = 0, 0
    for chosen in combinations(range(blocks), blocks // 2):
        mask = np.zeros(blocks, dtype=bool)
        mask[list(chosen)] = True
        inside, outside = (_sharpe(sums[m], squares[m], length) for m in (mask, ~mask))
        best = int(np.argmax(inside))
        rank = 1 + int((outside < outside[best]).sum()) + (int((outside == outside[best]).sum()) - 1) / 2
        below += rank / (returns.shape[1] + 1) <= 0.5
        splits += 1
    return below / splits


def _sharpe(sums: NDArray, squares: NDArray, length: int) -> NDArray[np.float64]:
    n = len(sums) * length
    mean = sums.sum(axis=0) / n
    variance = np.maximum(squares.sum(axis=0) / n - mean**2, 0.0)
    return np.where(variance > 1e-20, mean / np.sqrt(np.where(variance > 1e-20, variance, 1.0)), 0.0)
