"""Random forest by scikit-learn: few, shallow trees on samples of rows and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stock_pipeline.core.modelling.families import skops_files
from stock_pipeline.core.modelling.families.base import FitData, FittedModel, ModelFamily
from stock_pipeline.core.parameters import Parameters

_FILE = "model.skops"
_TRUSTED = ("sklearn.tree._tree.Tree",)
_STEP = 10


class RandomForestParameters(Parameters):
    """Parameters of RandomForestRegressor; names as in scikit-learn where it has one."""

    trees: int = Field(default=100, ge=1, le=5_000, description="Number of trees.")
    max_depth: int = Field(default=5, ge=1, le=32, description="Depth of a tree.")
    min_rows_in_leaf: float = Field(
        default=0.005, gt=0, lt=0.5, description="Least share of the training rows in a leaf (never under 20 rows)."
    )
    max_features: float = Field(default=0.1, gt=0, le=1, description="Share of the features that a split may use.")
    max_samples: float = Field(default=0.3, gt=0, le=1, description="Share of the rows that a tree is grown on.")


class FittedRandomForest(FittedModel):
    """A fitted RandomForestRegressor."""

    family = "random_forest"

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int, estimator: Any) -> None:
        super().__init__(names, parameters, seed)
        # with several threads scikit-learn adds the trees in the order in which they finish: other bits every time
        self._estimator = estimator.set_params(n_jobs=1)

    def _predict(self, x: np.ndarray) -> np.ndarray:
        if not len(x):
            return np.empty(0)
        return np.asarray(self._estimator.predict(x), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the impurity decrease."""
        share = self._estimator.feature_importances_
        return {n: float(s) for n, s in zip(self.feature_names, share, strict=True)}

    def files(self) -> dict[str, bytes]:
        """Return ``model.skops``."""
        return {_FILE: skops_files.dump(self._estimator)}

    @classmethod
    def libraries(cls) -> dict[str, str]:
        """Return scikit-learn's version."""
        return skops_files.versions()

    @classmethod
    def restore(
        cls, files: Mapping[str, bytes], names: Sequence[str], parameters: Parameters, seed: int
    ) -> FittedModel:
        """Rebuild from ``model.skops``."""
        return cls(names, parameters, seed, skops_files.load(files[_FILE], _TRUSTED))


class RandomForest(ModelFamily):
    """scikit-learn's random forest with squared loss."""

    name = "random_forest"
    parameter_model = RandomForestParameters
    fitted = FittedRandomForest

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw from a space that stays on the regularised side."""
        return {
            "max_depth": trial.suggest_int("max_depth", 2, 8),
            "min_rows_in_leaf": trial.suggest_float("min_rows_in_leaf", 0.001, 0.05, log=True),
            "max_features": trial.suggest_float("max_features", 0.05, 0.5),
            "max_samples": trial.suggest_float("max_samples", 0.1, 0.8),
        }

    def _fit(self, data: FitData, parameters: RandomForestParameters) -> FittedModel:
        from sklearn.ensemble import RandomForestRegressor

        estimator = RandomForestRegressor(
            n_estimators=0,
            max_depth=parameters.max_depth,
            min_samples_leaf=max(20, int(parameters.min_rows_in_leaf * len(data.y))),
            max_features=parameters.max_features,
            max_samples=parameters.max_samples,
            random_state=data.seed,
            n_jobs=data.threads or -1,
            warm_start=True,
        )
        for done in range(0, parameters.trees, _STEP):
            estimator.set_params(n_estimators=min(done + _STEP, parameters.trees))
            estimator.fit(data.x, data.y)
            data.progress(estimator.n_estimators, parameters.trees, None)
        return FittedRandomForest(data.names, parameters, data.seed, estimator)
