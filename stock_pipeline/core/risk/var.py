"""Value at risk and expected shortfall of the next session, by three methods on one panel.

A figure dated t is a forecast, made at t, of the loss from the close of t to the close of t+1, as a positive fraction.
Which method a symbol uses is decided in ``ladder.py``; whether a method is right is measured in ``backtest.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.risk.panel import Panel
from stock_pipeline.core.risk.settings import RiskSettings
from stock_pipeline.core.risk.volatility import SCALE, GarchFit, fit_garch, garch_volatility

LEVELS = (0.95, 0.99)
"""Confidence levels, in the order of the columns of every array here."""

_SHARES = np.array([0.05, 0.01])


@dataclass(frozen=True)
class Tail:
    """VaR and ES, each of shape (rows, levels), loss fractions in [0, 1]; NaN where there is too little history."""

    var: np.ndarray
    es: np.ndarray


def filtered_historical(data: Panel, volatility: np.ndarray, settings: RiskSettings) -> Tail:
    """Filtered historical simulation: quantiles of standardised returns, scaled by the current volatility.

    ``z[t] = r[t] / sigma[t-1]``; ``VaR[t] = -sigma[t] q(z[t-w+1..t])``, ``ES`` likewise with the tail mean.

    Notes
    -----
    Barone-Adesi, Giannopoulos and Vosper (1999), J. Futures Markets 19; Hull and White (1998), J. Risk 1. The tail
    mean is the coherent estimator of Acerbi and Tasche (2002), J. Banking and Finance 26, eq. 4.11.
    """
    scores = np.full(data.returns.shape, np.nan)
    scores[1:] = data.returns[1:] / volatility[:-1]
    scores[data.starts[:-1]] = np.nan
    return _scaled(data, scores, volatility, settings)


def historical(data: Panel, settings: RiskSettings) -> Tail:
    """Plain historical simulation: quantiles of the returns themselves (it ignores that volatility clusters)."""
    return _scaled(data, data.returns, np.ones(data.returns.shape), settings)


def _scaled(data: Panel, scores: np.ndarray, scale: np.ndarray, settings: RiskSettings) -> Tail:
    from stock_pipeline.core.risk import _kernels

    quantiles, means = _kernels.tails(scores, data.first, settings.quantile_window, settings.quantile_minimum, _SHARES)
    return _loss(quantiles * scale[:, None], means * scale[:, None])


def _loss(quantiles: np.ndarray, means: np.ndarray) -> Tail:
    # adding zero turns the -0.0 of a quantile at zero into 0.0
    return Tail(np.clip(-quantiles, 0.0, 1.0) + 0.0, np.clip(-means, 0.0, 1.0) + 0.0)


def student_tail(nu: float) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles and tail means of a Student-t law with unit variance, at `LEVELS`.

    Notes
    -----
    McNeil, Frey and Embrechts, *Quantitative Risk Management* (2005), eq. 2.25.
    """
    from scipy.stats import t as student

    quantile = student.ppf(_SHARES, nu)
    mean = -student.pdf(quantile, nu) / _SHARES * (nu + quantile**2) / (nu - 1.0)
    unit = np.sqrt((nu - 2.0) / nu)
    return quantile * unit, mean * unit


def garch_student(data: Panel, points: np.ndarray, settings: RiskSettings, begin: int, end: int) -> Tail:
    """GARCH(1,1)-t on the rows ``begin..end`` of one symbol, parameters renewed at ``points``.

    Parameters
    ----------
    points
        Rows of the symbol at which a model is fitted, ascending; a fit at row p uses the ``garch_window`` returns up
        to and including p and serves the rows p to the row before the next point.
    begin, end
        Rows wanted, ``begin <= row < end``, all of one symbol.

    Returns
    -------
    Tail
        Shape (end - begin, levels); NaN before the first usable fit, and where a fit did not converge.
    """
    out = Tail(np.full((end - begin, 2), np.nan), np.full((end - begin, 2), np.nan))
    if end <= begin:
        return out
    first = int(data.first[begin])
    bounds = np.append(points, end)
    for point, following in zip(points, bounds[1:], strict=True):
        low, high = max(int(point), begin), min(int(following), end)
        if low >= high:
            continue
        origin = max(first + 1, int(point) - settings.garch_window + 1)
        fit = _fit(data.returns[origin : int(point) + 1], settings)
        if fit is None or fit.nu is None:
            continue
        sigma = garch_volatility(fit, data.returns[origin:high] * SCALE)[low - origin :]
        quantile, mean = student_tail(fit.nu)
        rows = slice(low - begin, high - begin)
        tail = _loss((fit.mu + np.outer(sigma, quantile)) / SCALE, (fit.mu + np.outer(sigma, mean)) / SCALE)
        out.var[rows], out.es[rows] = tail.var, tail.es
    return out


def _fit(returns: np.ndarray, settings: RiskSettings) -> GarchFit | None:
    if returns.size < settings.garch_minimum:
        return None
    try:
        fit = fit_garch(returns * SCALE)
    except DataError:
        return None
    return fit if fit.converged and fit.nu is not None and fit.nu > 2.0 else None
