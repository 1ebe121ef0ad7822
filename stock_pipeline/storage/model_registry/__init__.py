"""The model registry: MLflow behind plain records. Nothing outside this package imports MLflow."""

from __future__ import annotations

from stock_pipeline.storage.model_registry.registry import ModelRegistry
from stock_pipeline.storage.model_registry.run import TrainingRun
from stock_pipeline.storage.model_registry.types import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    LoadedModel,
    ModelMetadata,
    ModelVersion,
)

__all__ = [
    "ALIASES",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "LoadedModel",
    "ModelMetadata",
    "ModelRegistry",
    "ModelVersion",
    "TrainingRun",
]
