"""The settings of training, as they stand in the configuration file.

Parameters of a single family are in its own module.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stock_pipeline.core.modelling.target import TargetKind
from stock_pipeline.core.parameters import Parameters


class TrainingSettings(Parameters):
    """How models are trained and tested walk-forward. Lengths are in sessions."""

    horizon: int = Field(default=5, ge=1, le=252, description="Sessions over which the forward return is predicted.")
    folds: int = Field(default=5, ge=1, le=50, description="Number of walk-forward test blocks.")
    embargo: int = Field(
        default=5, ge=0, le=252, description="Sessions left unused before each test block, beyond the purge."
    )
    window: Literal["expanding", "rolling"] = Field(
        default="expanding", description="Learn from all the past, or the newest part."
    )
    train_sessions: int | None = Field(
        default=None, ge=20, description="Length of the (first) training part; default: by folds."
    )
    test_sessions: int | None = Field(default=None, ge=1, description="Length of a test block; default: by folds.")
    holdout_sessions: int = Field(
        default=63, ge=0, description="Newest sessions that nothing sees before the final model; 0: none."
    )
    validation_fraction: float = Field(
        default=0.15,
        ge=0,
        lt=0.9,
        description="Newest share of each training part kept for early stopping (families that use it).",
    )
    refit: bool = Field(
        default=True,
        description="After early stopping, fit again on training and validation together with the rounds found.",
    )
    target: TargetKind = Field(
        default="rank", description="Fit to the return, its excess over the session's mean, or its rank."
    )
    winsor: float = Field(
        default=0.005,
        ge=0,
        lt=0.25,
        description="Training labels beyond this quantile on either side are set to it; 0: none.",
    )
    min_rows: int = Field(default=200, ge=20, description="Fewer training rows than this in a fold are an error.")
    threads: int = Field(default=0, ge=0, description="Threads of each fit; 0: by the size of the data.")

    @model_validator(mode="after")
    def _rolling_has_a_length(self) -> TrainingSettings:
        if self.window == "rolling" and self.train_sessions is None:
            raise ValueError("a rolling window needs train_sessions")
        return self
