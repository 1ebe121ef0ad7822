"""Volatility forecasts for the next session: finite EWMA, and GARCH(1,1) through ``arch``.

Quantiles of losses are in ``var.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.risk.panel import Panel
from stock_pipeline.core.risk.settings import RiskSettings

SCALE = 100.0
"""GARCH parameters are for returns in per cent: the optimiser needs numbers near one."""


def ewma(data: Panel, settings: RiskSettings) -> np.ndarray:
    """EWMA volatility a session, the forecast for t+1 made at t.

    ``sigma²[t] = sum_k decay^k r²[t-k] / sum_k decay^k`` over at most ``volatility_window`` returns, zero mean.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), return units a session; NaN where there are too few returns or no price moved.

    Notes
    -----
    J.P. Morgan/Reuters, *RiskMetrics Technical Document*, 4th ed. 1996, section 5.2, truncated: at decay 0.94 the
    weights beyond 250 sessions are 2e-7 of the whole.
    """
    from stock_pipeline.core.risk import _kernels

    variance = _kernels.ewma_variance(
        data.returns, data.first, settings.decay, settings.volatility_window, settings.volatility_minimum
    )
    return np.sqrt(variance)


@dataclass(frozen=True)
class GarchFit:
    """A fitted constant-mean GARCH(1,1); parameters are for returns in per cent.

    ``nu`` is the degrees of freedom of the Student-t errors, ``None`` for normal ones.
    """

    mu: float
    omega: float
    alpha: float
    beta: float
    nu: float | None
    log_likelihood: float
    initial_variance: float
    converged: bool


def fit_garch(returns_pct: np.ndarray, distribution: Literal["t", "normal"] = "t") -> GarchFit:
    """Fit ``r = mu + e``, ``sigma²[t+1] = omega + alpha e²[t] + beta sigma²[t]`` by maximum likelihood.

    Parameters
    ----------
    returns_pct
        Returns in per cent, oldest first, finite, shape (observations,).
    distribution
        Law of the standardised errors.

    Raises
    ------
    DataError
        Fewer than 100 observations, or one that is not finite, or no variation.

    Notes
    -----
    Bollerslev (1986), J. Econometrics 31, eq. 1-4; Student-t errors: Bollerslev (1987), Rev. Econ. Stat. 69. The
    variance before the first observation is the mean squared deviation, as in the benchmark of McCullough and
    Renfro (1998) / Fiorentini, Calzolari and Panattoni (1996).
    """
    from arch import arch_model

    values = np.ascontiguousarray(returns_pct, dtype=np.float64)
    if values.size < 100:
        raise DataError("too few returns for a GARCH fit", value=values.size, allowed="at least 100")
    if not np.isfinite(values).all():
        raise DataError("a return for a GARCH fit is not finite", fix="give returns after the first session")
    initial = float(np.mean((values - values.mean()) ** 2))
    if initial <= 0.0:
        raise DataError("the returns for a GARCH fit do not vary")
    model = arch_model(values, mean="Constant", vol="GARCH", p=1, q=1, dist=distribution, rescale=False)
    result = model.fit(disp="off", show_warning=False, backcast=initial)
    found = {str(name): float(value) for name, value in zip(result.params.index, result.params, strict=True)}
    return GarchFit(
        mu=found["mu"],
        omega=found["omega"],
        alpha=found["alpha[1]"],
        beta=found["beta[1]"],
        nu=found.get("nu"),
        log_likelihood=float(result.loglikelihood),
        initial_variance=initial,
        converged=result.convergence_flag == 0,
    )


def garch_volatility(fit: GarchFit, returns_pct: np.ndarray) -> np.ndarray:
    """Volatility forecasts (per cent) of a fitted model: element i is for the return after ``returns_pct[i]``.

    The recursion begins at the first element with the fit's initial variance.
    """
    from stock_pipeline.core.risk import _kernels

    residuals = np.ascontiguousarray(returns_pct, dtype=np.float64) - fit.mu
    return np.sqrt(_kernels.garch_variance(residuals, fit.omega, fit.alpha, fit.beta, fit.initial_variance))
