"""The naive yardsticks: zero, always up, momentum. Every report shows them beside every model.

They are models like any other (fitted, saved, registered), so that the last step of the fallback ladder is one too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.modelling.families.base import FitData, FittedModel, ModelFamily
from stock_pipeline.core.parameters import Parameters

_MOMENTUM = re.compile(r"^(past_return|return|ret|roc|momentum|mom)_?(2[0-9]{2})(d|_sessions)?$")


class NoParameters(Parameters):
    """No parameters."""


class MomentumParameters(Parameters):
    """Parameters of the momentum baseline."""

    column: str | None = Field(
        default=None,
        description="Column with the past return; default: the feature named like return_250 or momentum_252.",
    )
    information_coefficient: float = Field(
        default=0.02,
        gt=0,
        le=0.1,
        description="Assumed correlation of past and future return, which sets the size of forecasts.",
    )
    clip: float = Field(default=3.0, gt=0, description="Standardised past returns beyond this are set to it.")


class FittedBaseline(FittedModel):
    """A baseline: a handful of numbers, saved as JSON."""

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int, state: Mapping[str, float]) -> None:
        super().__init__(names, parameters, seed)
        self.state = dict(state)

    def files(self) -> dict[str, bytes]:
        """Return ``baseline.json``; floats are written so that they read back exactly."""
        return {"baseline.json": (json.dumps(self.state, sort_keys=True) + "\n").encode()}

    @classmethod
    def restore(
        cls, files: Mapping[str, bytes], names: Sequence[str], parameters: Parameters, seed: int
    ) -> FittedModel:
        """Rebuild from ``baseline.json``."""
        return cls(names, parameters, seed, json.loads(files["baseline.json"]))


class FittedZero(FittedBaseline):
    """Predicts no return."""

    family = "zero"

    def _predict(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x))


class FittedAlwaysUp(FittedBaseline):
    """Predicts the mean of the training labels, everywhere."""

    family = "always_up"

    def _predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.state["mean"])


class FittedMomentum(FittedBaseline):
    """Predicts mean + IC x volatility x score (Grinold and Kahn, *Active Portfolio Management*, 2000, eq. 10.1)."""

    family = "momentum"

    def _predict(self, x: np.ndarray) -> np.ndarray:
        state = self.state
        score = (x[:, 0].astype(np.float64) - state["center"]) / state["scale"]
        score = np.clip(np.nan_to_num(score, nan=0.0), -state["clip"], state["clip"])
        return state["mean"] + state["slope"] * score

    def importance(self) -> dict[str, float]:
        """Return 1 for the one column used."""
        return {self.feature_names[0]: 1.0}


class Zero(ModelFamily):
    """No return is ever expected."""

    name = "zero"
    parameter_model = NoParameters
    fitted = FittedZero
    baseline = True
    tunable = False

    def inputs(self, names: Sequence[str], parameters: Parameters) -> list[str]:
        """Use no column."""
        return []

    def _fit(self, data: FitData, parameters: Any) -> FittedModel:
        return FittedZero(data.names, parameters, data.seed, {})


class AlwaysUp(ModelFamily):
    """The mean of the training labels is always expected."""

    name = "always_up"
    parameter_model = NoParameters
    fitted = FittedAlwaysUp
    baseline = True
    tunable = False

    def inputs(self, names: Sequence[str], parameters: Parameters) -> list[str]:
        """Use no column."""
        return []

    def _fit(self, data: FitData, parameters: Any) -> FittedModel:
        return FittedAlwaysUp(data.names, parameters, data.seed, {"mean": float(data.y.mean())})


class Momentum(ModelFamily):
    """Past winners are expected to win, past losers to lose, by a fixed small amount."""

    name = "momentum"
    parameter_model = MomentumParameters
    fitted = FittedMomentum
    baseline = True
    tunable = False

    def inputs(self, names: Sequence[str], parameters: Parameters) -> list[str]:
        """Use the one past-return column.

        Raises
        ------
        ConfigurationError
            If the column is absent, or none is named and no feature looks like a past return of about a year.
        """
        wanted = parameters.column  # type: ignore[attr-defined]
        found = [wanted] if wanted in names else [n for n in names if wanted is None and _MOMENTUM.match(n.lower())]
        if not found:
            raise ConfigurationError(
                "the momentum baseline has no past-return column",
                value=wanted,
                allowed="a column of the data set, for example past_return_250",
                fix="set models.momentum.column, or join modelling.labels.past_returns to the data set",
            )
        return [min(found, key=lambda n: (abs(_length(n) - 250), n))]

    def _fit(self, data: FitData, parameters: Any) -> FittedModel:
        past = data.x[:, 0].astype(np.float64)
        known = past[np.isfinite(past)]
        scale = float(known.std()) if len(known) else 0.0
        state = {
            "mean": float(data.y.mean()),
            "slope": parameters.information_coefficient * float(data.y.std()),
            "center": float(known.mean()) if len(known) else 0.0,
            "scale": scale or 1.0,
            "clip": parameters.clip,
        }
        return FittedMomentum(data.names, parameters, data.seed, state)


def _length(name: str) -> int:
    match = _MOMENTUM.match(name.lower())
    return int(match.group(2)) if match else 250
