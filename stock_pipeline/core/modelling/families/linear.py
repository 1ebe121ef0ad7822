"""Linear models: missing values set to the mean, standardised, clipped, then ridge or elastic net.

Center and scale are learnt from the training rows. Large penalties are the rule: many of the usual features are exactly
collinear, so the plain problem is ill-posed.

Sources: Hoerl and Kennard, *Ridge Regression*, Technometrics 12 (1970); Zou and Hastie, *Regularization and Variable
Selection via the Elastic Net*, JRSS B 67 (2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stock_pipeline.core.modelling.families import skops_files
from stock_pipeline.core.modelling.families.base import FitData, FittedModel, ModelFamily
from stock_pipeline.core.parameters import Parameters

_FILE = "model.skops"
_CHUNK = 65_536


class RidgeParameters(Parameters):
    """Parameters of ridge regression on standardised features."""

    alpha: float = Field(default=1.0, gt=0, description="L2 penalty as a multiple of the number of training rows.")
    clip: float = Field(default=5.0, gt=0, description="Standardised features beyond this are set to it.")


class ElasticNetParameters(Parameters):
    """Parameters of the elastic net on standardised features."""

    alpha: float = Field(
        default=0.02,
        gt=0,
        description="Penalty, as a multiple of the target's standard deviation (so that units do not matter).",
    )
    l1_ratio: float = Field(default=0.5, ge=0.01, le=1, description="Share of the L1 penalty.")
    max_iterations: int = Field(default=1_000, ge=10, description="Passes of coordinate descent at most.")
    clip: float = Field(default=5.0, gt=0, description="Standardised features beyond this are set to it.")


class FittedLinear(FittedModel):
    """Center, scale and a fitted linear regressor of scikit-learn."""

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int, state: Mapping[str, Any]) -> None:
        super().__init__(names, parameters, seed)
        self._state = dict(state)
        self._weights = np.ascontiguousarray(state["regressor"].coef_, dtype=np.float64)
        self._intercept = float(state["regressor"].intercept_)

    def _predict(self, x: np.ndarray) -> np.ndarray:
        result = np.empty(len(x))
        for start in range(0, len(x), _CHUNK):
            z = standardise(x[start : start + _CHUNK], self._state["center"], self._state["scale"], self.parameters)
            # a matrix product gives other last bits for other batches; a sum along each row does not
            result[start : start + _CHUNK] = (z * self._weights).sum(axis=1) + self._intercept
        return result

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the absolute standardised coefficients."""
        size = np.abs(self._weights)
        total = size.sum() or 1.0
        return {n: float(s / total) for n, s in zip(self.feature_names, size, strict=True)}

    def files(self) -> dict[str, bytes]:
        """Return ``model.skops``."""
        return {_FILE: skops_files.dump(self._state)}

    @classmethod
    def libraries(cls) -> dict[str, str]:
        """Return scikit-learn's version."""
        return skops_files.versions()

    @classmethod
    def restore(
        cls, files: Mapping[str, bytes], names: Sequence[str], parameters: Parameters, seed: int
    ) -> FittedModel:
        """Rebuild from ``model.skops``."""
        return cls(names, parameters, seed, skops_files.load(files[_FILE], ()))


class FittedRidge(FittedLinear):
    """Fitted ridge regression."""

    family = "ridge"


class FittedElasticNet(FittedLinear):
    """Fitted elastic net."""

    family = "elastic_net"


class Ridge(ModelFamily):
    """Ridge regression by Cholesky decomposition."""

    name = "ridge"
    parameter_model = RidgeParameters
    fitted = FittedRidge

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw the penalty."""
        return {"alpha": trial.suggest_float("alpha", 0.01, 100.0, log=True)}

    def _fit(self, data: FitData, parameters: RidgeParameters) -> FittedModel:
        from sklearn.linear_model import Ridge as Regressor

        regressor = Regressor(alpha=parameters.alpha * len(data.y), solver="cholesky")
        return _fit_linear(FittedRidge, regressor, data, parameters)


class ElasticNet(ModelFamily):
    """Elastic net by coordinate descent."""

    name = "elastic_net"
    parameter_model = ElasticNetParameters
    fitted = FittedElasticNet

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw penalty and its mixture."""
        return {
            "alpha": trial.suggest_float("alpha", 0.002, 0.2, log=True),
            "l1_ratio": trial.suggest_float("l1_ratio", 0.05, 1.0),
        }

    def _fit(self, data: FitData, parameters: ElasticNetParameters) -> FittedModel:
        from sklearn.linear_model import ElasticNet as Regressor

        regressor = Regressor(
            alpha=parameters.alpha * (float(data.y.std()) or 1.0),
            l1_ratio=parameters.l1_ratio,
            max_iter=parameters.max_iterations,
            random_state=data.seed,
            selection="cyclic",
        )
        return _fit_linear(FittedElasticNet, regressor, data, parameters)


def standardise(x: np.ndarray, center: np.ndarray, scale: np.ndarray, parameters: Any) -> np.ndarray:
    """Return (x - center) / scale as float64, missing values 0, clipped; ``x`` is not changed."""
    z = x.astype(np.float64)
    z -= center
    z /= scale
    np.clip(z, -parameters.clip, parameters.clip, out=z)
    np.nan_to_num(z, copy=False, nan=0.0)
    return z


def _fit_linear(kind: type[FittedLinear], regressor: Any, data: FitData, parameters: Any) -> FittedModel:
    from threadpoolctl import threadpool_limits

    center, scale = _moments(data.x)
    z = np.empty(data.x.shape, dtype=np.float32, order="C")
    for start in range(0, len(z), _CHUNK):
        z[start : start + _CHUNK] = standardise(data.x[start : start + _CHUNK], center, scale, parameters)
    with threadpool_limits(limits=data.threads or None, user_api="blas"):
        regressor.fit(z, data.y)
    data.progress(1, 1, None)
    return kind(data.names, parameters, data.seed, {"center": center, "scale": scale, "regressor": regressor})


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column over its known values (0 and 1 where there is nothing)."""
    count, total = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for start in range(0, len(x), _CHUNK):
        block = x[start : start + _CHUNK].astype(np.float64)
        count += np.isfinite(block).sum(axis=0)
        total += np.nansum(block, axis=0)
    center = total / np.maximum(count, 1)
    square = np.zeros(x.shape[1])
    for start in range(0, len(x), _CHUNK):
        square += np.nansum((x[start : start + _CHUNK].astype(np.float64) - center) ** 2, axis=0)
    scale = np.sqrt(square / np.maximum(count, 1))
    # a column that hardly varies carries rounding noise only
    flat = scale <= 1e-9 * np.maximum(np.abs(center), 1e-30)
    return center, np.where(flat, 1.0, scale)
