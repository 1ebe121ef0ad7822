"""Compiled window loops (numba): each row's window is evaluated afresh, so its bits depend on that window alone.

Imported inside functions, because numba takes most of a second to load. All arrays are flat over rows; ``first[i]`` is
the row of the first bar of row i's symbol. No formula is chosen here: see the modules that call these.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def ewma_variance(returns: np.ndarray, first: np.ndarray, decay: float, window: int, minimum: int) -> np.ndarray:
    """Exponentially weighted mean of squared returns over at most ``window`` rows; NaN below ``minimum`` or if zero."""
    rows = returns.shape[0]
    out = np.full(rows, np.nan)
    weights = np.empty(window)
    totals = np.empty(window)
    weight, total = 1.0, 0.0
    for k in range(window):
        weights[k] = weight
        total += weight
        totals[k] = total
        weight *= decay
    for i in range(rows):
        n = min(i - first[i], window)
        if n < minimum:
            continue
        acc = 0.0
        for k in range(n):
            r = returns[i - k]
            acc += weights[k] * (r * r)
        if acc > 0.0:
            out[i] = acc / totals[n - 1]
    return out


@njit(cache=True)
def tails(
    scores: np.ndarray, first: np.ndarray, window: int, minimum: int, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower quantiles and tail means of the last ``window`` rows' scores, NaN scores left out.

    The quantile of share p lies at the order statistic ``(n + 1) p`` (interpolated linearly), so that the next score
    falls below it with probability p: Hyndman and Fan (1996), Am. Statistician 50, type 6. The more usual
    ``(n - 1) p`` would be exceeded by 1.2 % instead of 1 % of 500 scores. The tail mean is over the same mass.
    The window is kept sorted by insertion and deletion; what is read from it depends on its contents only.
    """
    rows, levels = scores.shape[0], shares.shape[0]
    quantiles = np.full((rows, levels), np.nan)
    means = np.full((rows, levels), np.nan)
    ordered = np.empty(window + 1)
    n = 0
    for i in range(rows):
        if first[i] == i:
            n = 0
        value = scores[i]
        if not np.isnan(value):
            value += 0.0
            at = np.searchsorted(ordered[:n], value)
            for k in range(n, at, -1):
                ordered[k] = ordered[k - 1]
            ordered[at] = value
            n += 1
        if i - window >= first[i]:
            old = scores[i - window]
            if not np.isnan(old):
                old += 0.0
                at = np.searchsorted(ordered[:n], old)
                n -= 1
                for k in range(at, n):
                    ordered[k] = ordered[k + 1]
        if n < minimum:
            continue
        for j in range(levels):
            mass = min(max((n + 1) * shares[j], 1.0), float(n))
            whole = int(mass)
            part = mass - whole
            acc = 0.0
            for k in range(whole):
                acc += ordered[k]
            quantiles[i, j] = ordered[whole - 1]
            if part > 0.0:
                quantiles[i, j] += part * (ordered[whole] - ordered[whole - 1])
                acc += part * ordered[whole]
            means[i, j] = min(acc / mass, quantiles[i, j])
    return quantiles, means


@njit(cache=True)
def drawdowns(close: np.ndarray, first: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Fall from the highest close of the last ``window`` rows, and the largest peak-to-trough fall inside them."""
    rows = close.shape[0]
    now = np.empty(rows)
    worst = np.empty(rows)
    for i in range(rows):
        peak = 0.0
        deepest = 0.0
        for k in range(max(first[i], i - window + 1), i + 1):
            peak = max(peak, close[k])
            deepest = min(deepest, close[k] / peak - 1.0)
        now[i] = close[i] / peak - 1.0
        worst[i] = deepest
    return now, worst


@njit(cache=True)
def mean_over_deviation(returns: np.ndarray, first: np.ndarray, window: int) -> np.ndarray:
    """Mean over sample standard deviation of the last ``window`` returns; NaN where fewer, or where they are equal."""
    rows = returns.shape[0]
    out = np.full(rows, np.nan)
    for i in range(rows):
        if i - first[i] < window:
            continue
        total = 0.0
        for k in range(i - window + 1, i + 1):
            total += returns[k]
        mean = total / window
        squares = 0.0
        for k in range(i - window + 1, i + 1):
            squares += (returns[k] - mean) ** 2
        if squares > 1e-20:
            out[i] = mean / np.sqrt(squares / (window - 1))
    return out


@njit(cache=True)
def garch_variance(residuals: np.ndarray, omega: float, alpha: float, beta: float, initial: float) -> np.ndarray:
    """GARCH(1,1) forecasts: element i is the variance of the residual after i, given residuals up to i."""
    out = np.empty(residuals.shape[0])
    variance = initial
    for i in range(residuals.shape[0]):
        variance = omega + alpha * residuals[i] * residuals[i] + beta * variance
        out[i] = variance
    return out
