"""Gradient-boosted trees by LightGBM, set for noisy daily data: shallow, slow, strongly regularised, stopped early.

Source: Ke et al., *LightGBM: A Highly Efficient Gradient Boosting Decision Tree*, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stock_pipeline.core.modelling.families.base import FitData, FittedModel, ModelFamily, threads_for
from stock_pipeline.core.parameters import Parameters


class LightGBMParameters(Parameters):
    """Parameters of LightGBM; names as in LightGBM where it has one."""

    rounds: int = Field(default=400, ge=1, le=20_000, description="Boosting rounds at most.")
    early_stopping_rounds: int = Field(
        default=40, ge=1, description="Stop when validation has not improved for this many rounds."
    )
    learning_rate: float = Field(default=0.03, gt=0, le=1, description="Shrinkage of each tree.")
    num_leaves: int = Field(default=15, ge=2, le=1024, description="Leaves of a tree.")
    max_depth: int = Field(default=5, ge=1, le=32, description="Depth of a tree.")
    min_rows_in_leaf: float = Field(
        default=0.005, gt=0, lt=0.5, description="Least share of the training rows in a leaf (never under 20 rows)."
    )
    feature_fraction: float = Field(default=0.3, gt=0, le=1, description="Share of the features that a tree may use.")
    bagging_fraction: float = Field(default=0.7, gt=0, le=1, description="Share of the rows that a tree sees.")
    lambda_l1: float = Field(default=0.0, ge=0, description="L1 penalty of leaf values.")
    lambda_l2: float = Field(default=50.0, ge=0, description="L2 penalty of leaf values.")
    max_bin: int = Field(default=63, ge=3, le=255, description="Histogram bins of a feature.")


class FittedLightGBM(FittedModel):
    """A booster."""

    family = "lightgbm"

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int, text: str) -> None:
        import lightgbm

        super().__init__(names, parameters, seed)
        self._text = text
        # always rebuilt from its text, so that what predicts before saving is what predicts after loading
        self._booster = lightgbm.Booster(model_str=text)

    @property
    def rounds(self) -> int | None:
        """Number of boosting rounds kept."""
        return int(self._booster.current_iteration())

    def _predict(self, x: np.ndarray) -> np.ndarray:
        if not len(x):
            return np.empty(0)
        return np.asarray(self._booster.predict(x, num_threads=threads_for(x)), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the total gain."""
        gain = self._booster.feature_importance("gain")
        total = gain.sum() or 1.0
        return {n: float(g / total) for n, g in zip(self.feature_names, gain, strict=True)}

    def files(self) -> dict[str, bytes]:
        """Return ``model.txt`` in LightGBM's own text format."""
        return {"model.txt": self._text.encode()}

    @classmethod
    def libraries(cls) -> dict[str, str]:
        """Return LightGBM's version."""
        import lightgbm

        return {"lightgbm": lightgbm.__version__}

    @classmethod
    def restore(
        cls, files: Mapping[str, bytes], names: Sequence[str], parameters: Parameters, seed: int
    ) -> FittedModel:
        """Rebuild from ``model.txt``."""
        return cls(names, parameters, seed, files["model.txt"].decode())


class LightGBM(ModelFamily):
    """LightGBM with squared loss, deterministic for a seed whatever the number of threads."""

    name = "lightgbm"
    parameter_model = LightGBMParameters
    fitted = FittedLightGBM
    early_stopping = True

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw from a space that stays on the regularised side."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 4, 31),
            "max_depth": trial.suggest_int("max_depth", 2, 7),
            "min_rows_in_leaf": trial.suggest_float("min_rows_in_leaf", 0.001, 0.05, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.1, 0.8),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 1.0),
            "lambda_l2": trial.suggest_float("lambda_l2", 1.0, 500.0, log=True),
        }

    def _fit(self, data: FitData, parameters: LightGBMParameters) -> FittedModel:
        import lightgbm

        total = data.rounds or parameters.rounds
        settings = {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": parameters.learning_rate,
            "num_leaves": parameters.num_leaves,
            "max_depth": parameters.max_depth,
            "min_data_in_leaf": max(20, int(parameters.min_rows_in_leaf * len(data.y))),
            "feature_fraction": parameters.feature_fraction,
            "bagging_fraction": parameters.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l1": parameters.lambda_l1,
            "lambda_l2": parameters.lambda_l2,
            "max_bin": parameters.max_bin,
            "seed": data.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": data.threads,
            "verbosity": -1,
        }
        train = lightgbm.Dataset(data.x, data.y, feature_name=_safe(data.names), params=settings)
        stop = data.x_val is not None and data.rounds is None
        callbacks: list[Any] = [_report(data, total)]
        valid = []
        if stop:
            valid = [lightgbm.Dataset(data.x_val, data.y_val, reference=train, params=settings)]
            callbacks.append(lightgbm.early_stopping(parameters.early_stopping_rounds, verbose=False))
        booster = lightgbm.train(settings, train, total, valid_sets=valid, callbacks=callbacks)
        kept = booster.best_iteration if stop and booster.best_iteration > 0 else booster.current_iteration()
        text = booster.model_to_string(num_iteration=kept)
        return FittedLightGBM(data.names, parameters, data.seed, text)


def _safe(names: Sequence[str]) -> list[str]:
    """Return names without the characters that LightGBM's text format reserves; the real ones are in the manifest."""
    return [f"f{i}" for i in range(len(names))]


def _report(data: FitData, total: int) -> Any:
    def callback(env: Any) -> None:
        loss = env.evaluation_result_list[0][2] if env.evaluation_result_list else None
        data.progress(env.iteration + 1, total, loss)

    callback.order = 5  # type: ignore[attr-defined]  # before early stopping, which ends the round by an exception
    return callback
