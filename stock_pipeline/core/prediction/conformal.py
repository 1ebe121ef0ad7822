"""Prediction intervals from a model's own out-of-sample errors: split conformal on volatility-scaled residuals.

A residual is ``(label - prediction) / (volatility * sqrt(horizon / sessions_per_year))``, so that one distribution
serves calm and wild times alike. How the level adapts when outcomes mature is in ``adaptive.py``.
"""

from __future__ import annotations

import math
from datetime import date
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.parameters import Parameters

GRID = 4001
"""Residuals are kept up to this number; beyond it, that many of their quantiles at equal steps are."""


class ConformalSettings(Parameters):
    """How intervals are calibrated."""

    coverage: float = Field(default=0.9, gt=0.5, lt=1.0, description="share of outcomes that intervals shall hold")
    sides: Literal["symmetric", "asymmetric"] = Field(
        default="symmetric", description="one quantile of absolute residuals, or one for each side"
    )
    minimum_residuals: int = Field(default=500, ge=20, description="fewest residuals to calibrate on")
    recent_sessions: int | None = Field(
        default=None, ge=60, description="calibrate on the newest sessions only; null = all"
    )
    sessions_per_year: int = Field(default=252, ge=200, le=366, description="that annualised the volatility")


def order_statistic(count: int, probability: float) -> int:
    """Rank (1-based) of the conformal quantile: ``ceil((n + 1) p)``.

    The product is rounded to nine digits first, so that ``(9 + 1) * 0.9`` is rank 9 and not 10.

    Notes
    -----
    Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 2.2; Lei et al. (2018), JASA
    113, theorem 2.2.
    """
    return math.ceil(round((count + 1) * probability, 9))


class Calibrator(Parameters):
    """A calibrated residual distribution; immutable, ``model_dump_json`` and ``model_validate_json`` keep it exactly.

    ``residuals_sorted`` holds the standardised residuals in ascending order (or `GRID` quantiles of them), from which
    intervals of any level are read; ``coverage_on_residuals`` is the share of them inside their own interval.
    """

    method: Literal["conformal", "normal"]
    coverage: float = Field(gt=0.0, lt=1.0)
    sides: Literal["symmetric", "asymmetric"]
    horizon: int = Field(ge=1)
    sessions_per_year: int = Field(ge=1)
    residuals: int = Field(ge=0, description="how many residuals it was calibrated on")
    fitted_through: date | None = Field(description="newest session whose outcome was used")
    coverage_on_residuals: float | None
    residuals_sorted: tuple[float, ...]
    absolute_sorted: tuple[float, ...]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        for name in ("residuals_sorted", "absolute_sorted"):
            values = np.asarray(getattr(self, name))
            if values.size == 0 or np.any(np.diff(values) < 0):
                raise ValueError(f"{name} must be ascending and not empty")
        return self

    def multipliers(self, coverage: float | None = None) -> tuple[float, float]:
        """Standardised lower and upper half-widths ``(lo <= 0, hi >= 0)`` for a coverage (default: the target).

        A level that the number of residuals cannot support is served by the most extreme residual.
        """
        level = self.coverage if coverage is None else coverage
        if self.sides == "symmetric":
            width = _ranked(self.absolute_sorted, level, self.residuals)
            return -width, width
        tail = (1.0 - level) / 2.0
        low = -_ranked(tuple(-v for v in reversed(self.residuals_sorted)), 1.0 - tail, self.residuals)
        high = _ranked(self.residuals_sorted, 1.0 - tail, self.residuals)
        return min(low, 0.0), max(high, 0.0)

    def scale(self, volatility: np.ndarray) -> np.ndarray:
        """Horizon volatility of annualised ``volatility``, same shape."""
        return np.asarray(volatility, dtype=np.float64) * math.sqrt(self.horizon / self.sessions_per_year)

    def interval(
        self, prediction: np.ndarray, volatility: np.ndarray, coverage: float | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of the horizon return.

        Parameters
        ----------
        prediction
            Expected horizon return, shape (rows,).
        volatility
            Annualised volatility, shape (rows,).
        coverage
            Level, one for all or one a row; ``None``: the target.

        Returns
        -------
        lower, upper
            Shape (rows,); ``lower <= prediction <= upper``. No return is below -1, so neither is ``lower`` unless the
            prediction itself is.
        """
        middle = np.asarray(prediction, dtype=np.float64)
        scale = self.scale(volatility)
        levels = np.broadcast_to(self.coverage if coverage is None else coverage, middle.shape)
        low, high = np.empty(middle.shape), np.empty(middle.shape)
        for level in np.unique(levels):
            rows = levels == level
            low[rows], high[rows] = self.multipliers(float(level))
        lower = np.minimum(np.maximum(middle + low * scale, -1.0), middle)
        return lower, np.maximum(middle + high * scale, middle)

    def confidence(self, prediction: np.ndarray, volatility: np.ndarray) -> np.ndarray:
        """Estimated probability that the realised return has the sign of the prediction, in [0, 1].

        It is the share of residuals that, added to the prediction, keep its sign: a split conformal predictive
        distribution read at zero. A prediction of exactly zero predicts no sign and gets 0.5.

        Notes
        -----
        Vovk, Shen, Manokhin and Xie (2019), Machine Learning 108, "Nonparametric predictive distributions based on
        conformal prediction"; ties count half.
        """
        middle = np.asarray(prediction, dtype=np.float64)
        scale = self.scale(volatility)
        grid = np.asarray(self.residuals_sorted)
        edge = np.divide(-middle, scale, out=np.full(middle.shape, np.nan), where=scale > 0)
        left = np.searchsorted(grid, edge, side="left")
        right = np.searchsorted(grid, edge, side="right")
        below = (0.5 * (left + right) + 0.5) / (grid.size + 1.0)
        out = np.where(middle > 0, 1.0 - below, below)
        return np.where((middle == 0) | ~(scale > 0), 0.5, np.clip(out, 0.0, 1.0))


def _ranked(ascending: tuple[float, ...], probability: float, count: int) -> float:
    """The conformal quantile: an order statistic of all residuals, or the nearest kept quantile at or above it."""
    kept = len(ascending)
    rank = order_statistic(max(count, kept), probability)
    if count > kept:
        rank = 1 + math.ceil(round((min(rank, count) - 1) * (kept - 1) / (count - 1), 9))
    return ascending[min(max(rank, 1), kept) - 1]


def _kept(values: np.ndarray) -> tuple[float, ...]:
    ordered = np.sort(values) + 0.0
    if ordered.size > GRID:
        ordered = ordered[np.round(np.linspace(0, ordered.size - 1, GRID)).astype(np.int64)]
    return tuple(float(v) for v in ordered)


def residuals(frame: pl.DataFrame, horizon: int, sessions_per_year: int = 252) -> np.ndarray:
    """Standardised residuals of rows with finite ``prediction, label`` and positive ``volatility`` (annualised)."""
    missing = [c for c in ("prediction", "label", "volatility") if c not in frame.columns]
    if missing:
        raise DataError("calibration lacks columns", value=missing, allowed="prediction, label, volatility")
    known = frame.select(pl.col("prediction", "label", "volatility").cast(pl.Float64)).filter(
        pl.all_horizontal(pl.all().is_finite().fill_null(False)) & (pl.col("volatility") > 0)
    )
    scale = known["volatility"].to_numpy() * math.sqrt(horizon / sessions_per_year)
    return (known["label"].to_numpy() - known["prediction"].to_numpy()) / scale


def fit(
    oos: pl.DataFrame,
    coverage: float | None = None,
    *,
    horizon: int,
    settings: ConformalSettings | None = None,
    as_of: date | None = None,
) -> Calibrator:
    """Calibrate intervals on out-of-sample predictions whose outcome is known.

    Parameters
    ----------
    oos
        ``symbol, session, prediction, label, volatility`` (annualised, known at the session) and, for ``as_of``,
        ``label_session``. Rows with a missing or not finite value are left out.
    coverage
        Overrides ``settings.coverage``.
    horizon
        Sessions of the forward return.
    settings
        Sides, minimum and window.
    as_of
        Use only outcomes known at this date (``label_session <= as_of``).

    Raises
    ------
    DataError
        Missing columns, or fewer residuals than ``minimum_residuals``, or too few for the coverage.
    """
    chosen = settings or ConformalSettings()
    level = chosen.coverage if coverage is None else coverage
    frame = oos.drop_nulls("label")
    if as_of is not None:
        if "label_session" not in frame.columns:
            raise DataError("an as-of calibration needs the session of each outcome", value="label_session")
        frame = frame.filter(pl.col("label_session") <= as_of)
    if chosen.recent_sessions is not None and frame.height:
        newest = frame["session"].unique().sort().tail(chosen.recent_sessions)
        frame = frame.filter(pl.col("session") >= newest[0])
    values = residuals(frame, horizon, chosen.sessions_per_year)
    if values.size < chosen.minimum_residuals:
        raise DataError(
            "too few residuals to calibrate intervals",
            value=values.size,
            allowed=f"at least {chosen.minimum_residuals}",
            fix="give more out-of-sample history, or lower minimum_residuals",
        )
    needed = level if chosen.sides == "symmetric" else (1.0 + level) / 2.0
    if order_statistic(values.size, needed) > values.size:
        raise DataError(
            "too few residuals for the coverage", value=(values.size, level), fix="lower the coverage or add history"
        )
    through = frame["label_session"].max() if "label_session" in frame.columns else None
    made = Calibrator(
        method="conformal",
        coverage=level,
        sides=chosen.sides,
        horizon=horizon,
        sessions_per_year=chosen.sessions_per_year,
        residuals=int(values.size),
        fitted_through=through if isinstance(through, date) else None,
        coverage_on_residuals=None,
        residuals_sorted=_kept(values),
        absolute_sorted=_kept(np.abs(values)),
    )
    low, high = made.multipliers()
    inside = float(np.mean((values >= low) & (values <= high)))
    return made.model_copy(update={"coverage_on_residuals": inside})


def normal(coverage: float, *, horizon: int, sessions_per_year: int = 252) -> Calibrator:
    """A calibrator for where no residuals exist yet: standard normal quantiles, said by ``method="normal"``.

    Its intervals rest on volatility alone; at 90 % the normal quantile is slightly wider than that of standardised
    daily returns, whose excess mass is in the centre and the far tails.
    """
    law = NormalDist()
    grid = [law.inv_cdf((k + 0.5) / GRID) for k in range(GRID)]
    half = [law.inv_cdf(0.5 + (k + 0.5) / (2 * GRID)) for k in range(GRID)]
    return Calibrator(
        method="normal",
        coverage=coverage,
        sides="symmetric",
        horizon=horizon,
        sessions_per_year=sessions_per_year,
        residuals=0,
        fitted_through=None,
        coverage_on_residuals=None,
        residuals_sorted=tuple(grid),
        absolute_sorted=tuple(half),
    )
