"""Features: the registry, the feature sets ``technical``, ``statistical`` and ``alpha158``, and their computation."""

from __future__ import annotations

from stock_pipeline.core.features import alpha158, statistical, technical
from stock_pipeline.core.features.audit import audit, refuse_look_ahead
from stock_pipeline.core.features.definition import Feature, FeatureSet
from stock_pipeline.core.features.engine import compute, compute_batches, with_lookback
from stock_pipeline.core.features.panel import INPUTS, Panel
from stock_pipeline.core.features.registry import feature, feature_set, get, names, register, sets
from stock_pipeline.core.features.selection import available, columns_with_data, describe
from stock_pipeline.core.features.user import load_user_features

__all__ = [
    "INPUTS",
    "Feature",
    "FeatureSet",
    "Panel",
    "alpha158",
    "audit",
    "available",
    "columns_with_data",
    "compute",
    "compute_batches",
    "describe",
    "feature",
    "feature_set",
    "get",
    "load_user_features",
    "names",
    "refuse_look_ahead",
    "register",
    "sets",
    "statistical",
    "technical",
    "with_lookback",
]
