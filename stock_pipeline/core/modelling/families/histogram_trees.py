"""Gradient-boosted trees by scikit-learn's HistGradientBoostingRegressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stock_pipeline.core.modelling.families import skops_files
from stock_pipeline.core.modelling.families.base import FitData, FittedModel, ModelFamily, threads_for
from stock_pipeline.core.parameters import Parameters

_FILE = "model.skops"
_TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)


class HistGradientBoostingParameters(Parameters):
    """Parameters of HistGradientBoostingRegressor; names as in scikit-learn where it has one."""

    rounds: int = Field(default=200, ge=1, le=10_000, description="Boosting rounds at most.")
    early_stopping_rounds: int = Field(
        default=20, ge=1, description="Stop when validation has not improved for this many rounds."
    )
    learning_rate: float = Field(default=0.04, gt=0, le=1, description="Shrinkage of each tree.")
    max_leaf_nodes: int = Field(default=10, ge=2, le=1024, description="Leaves of a tree.")
    max_depth: int = Field(default=4, ge=1, le=32, description="Depth of a tree.")
    min_rows_in_leaf: float = Field(
        default=0.005, gt=0, lt=0.5, description="Least share of the training rows in a leaf (never under 20 rows)."
    )
    max_features: float = Field(default=0.3, gt=0, le=1, description="Share of the features that a split may use.")
    l2_regularization: float = Field(default=50.0, ge=0, description="L2 penalty of leaf values.")
    max_bins: int = Field(default=63, ge=3, le=255, description="Histogram bins of a feature.")


class FittedHistGradientBoosting(FittedModel):
    """A fitted HistGradientBoostingRegressor."""

    family = "hist_gradient_boosting"

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int, estimator: Any) -> None:
        super().__init__(names, parameters, seed)
        self._estimator = estimator

    @property
    def rounds(self) -> int | None:
        """Number of boosting rounds kept."""
        return int(self._estimator.n_iter_)

    def _predict(self, x: np.ndarray) -> np.ndarray:
        if not len(x):
            return np.empty(0)
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=threads_for(x) or None, user_api="openmp"):
            return np.asarray(self._estimator.predict(x), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the total gain, summed over the splits of all trees."""
        gain = np.zeros(len(self.feature_names))
        for trees in self._estimator._predictors:
            for tree in trees:
                inner = tree.nodes[tree.nodes["is_leaf"] == 0]
                np.add.at(gain, inner["feature_idx"], inner["gain"])
        total = gain.sum() or 1.0
        return {n: float(g / total) for n, g in zip(self.feature_names, gain, strict=True)}

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


class HistGradientBoosting(ModelFamily):
    """scikit-learn's histogram boosting with squared loss; progress is by fold, as its fit has no call-back."""

    name = "hist_gradient_boosting"
    parameter_model = HistGradientBoostingParameters
    fitted = FittedHistGradientBoosting
    early_stopping = True

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw from a space that stays on the regularised side."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 31),
            "max_depth": trial.suggest_int("max_depth", 2, 7),
            "min_rows_in_leaf": trial.suggest_float("min_rows_in_leaf", 0.001, 0.05, log=True),
            "max_features": trial.suggest_float("max_features", 0.1, 0.8),
            "l2_regularization": trial.suggest_float("l2_regularization", 1.0, 500.0, log=True),
        }

    def _fit(self, data: FitData, parameters: HistGradientBoostingParameters) -> FittedModel:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        stop = data.x_val is not None and data.rounds is None
        estimator = HistGradientBoostingRegressor(
            max_iter=data.rounds or parameters.rounds,
            learning_rate=parameters.learning_rate,
            max_leaf_nodes=parameters.max_leaf_nodes,
            max_depth=parameters.max_depth,
            min_samples_leaf=max(20, int(parameters.min_rows_in_leaf * len(data.y))),
            max_features=parameters.max_features,
            l2_regularization=parameters.l2_regularization,
            max_bins=parameters.max_bins,
            early_stopping=stop,
            n_iter_no_change=parameters.early_stopping_rounds,
            random_state=data.seed,
        )
        x = _without_empty(data.x)
        with threadpool_limits(limits=data.threads or None, user_api="openmp"):
            if stop:
                estimator.fit(x, data.y, X_val=data.x_val, y_val=data.y_val)
                # scikit-learn keeps the rounds after the best one
                best = max(1, int(np.argmax(estimator.validation_score_)))
                del estimator._predictors[best:]
            else:
                estimator.fit(x, data.y)
        data.progress(int(estimator.n_iter_), estimator.max_iter, None)
        return FittedHistGradientBoosting(data.names, parameters, data.seed, estimator)


def _without_empty(x: np.ndarray) -> np.ndarray:
    """Return training rows with columns that have no value at all set to 0: scikit-learn cannot bin nothing."""
    empty = np.isnan(x).all(axis=0)
    if not empty.any():
        return x
    x = x.copy()
    x[:, empty] = 0.0
    return x
