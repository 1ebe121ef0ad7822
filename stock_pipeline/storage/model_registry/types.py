"""What the model registry takes and gives: plain records without MLflow in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
import polars as pl

from stock_pipeline.core.modelling.families import FittedModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
CALIBRATOR = "calibrator.json"
"""Name of the interval calibrator inside a model's folder."""


@dataclass(frozen=True)
class ModelMetadata:
    """Where a model comes from, beside what training itself knows.

    Attributes
    ----------
    feature_set, feature_set_hash
        Name and hash of the feature set it was trained on.
    data_version
        Lake version of every table that was read, by table.
    code_version
        Version of this program, with the commit where known.
    market
        Name of the market.
    tags
        Anything else worth finding again.
    """

    feature_set: str
    feature_set_hash: str
    data_version: Mapping[str, int]
    code_version: str
    market: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes
    ----------
    name, version
        Registered model and its version, from 1.
    family, horizon, trained_through, feature_set, feature_set_hash, seed, data_version, code_version
        As registered.
    aliases
        Which of `ALIASES` point here.
    metrics
        Out-of-sample figures (``oos/...``) and those of the hold-out (``holdout/...``).
    checksum
        SHA-256 of the manifest that lists every file of the model.
    created_at
        UTC.
    run_id, run_path
        The MLflow run, and its path below the address of the MLflow UI.
    tags
        All tags.
    """

    name: str
    version: int
    family: str
    horizon: int
    trained_through: date
    feature_set: str
    feature_set_hash: str
    seed: int
    data_version: Mapping[str, int]
    code_version: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    checksum: str
    created_at: datetime
    run_id: str
    run_path: str
    model_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A verified model, ready to predict.

    Attributes
    ----------
    info
        Its registered version.
    model
        The fitted model.
    calibrator_json
        The interval calibrator that was stored with it, ``None`` if there was none.
    """

    info: ModelVersion
    model: FittedModel
    calibrator_json: str | None

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Predict the forward return (fraction) of each row of a features frame; see `FittedModel.predict`."""
        return self.model.predict(frame)

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return self.info.name

    @property
    def version(self) -> int:
        """Registered version."""
        return self.info.version

    @property
    def family(self) -> str:
        """Model family."""
        return self.info.family

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Features that the model takes, in order."""
        return self.model.feature_names

    @property
    def feature_set_hash(self) -> str:
        """Hash of the feature set it was trained on."""
        return self.info.feature_set_hash

    @property
    def horizon(self) -> int:
        """Sessions over which it predicts."""
        return self.info.horizon

    @property
    def trained_through(self) -> date:
        """Newest session that it has seen."""
        return self.info.trained_through

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.info.seed

    @property
    def data_version(self) -> Mapping[str, int]:
        """Lake versions that it was trained on."""
        return self.info.data_version
