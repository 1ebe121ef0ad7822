"""The prediction tables: columns, the lineage that every row carries, and its identity.

How rows are made belongs to ``score.py``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl
from pydantic import Field

from stock_pipeline.core.parameters import Parameters

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "symbol": pl.String(),
    "session": pl.Date(),
    "horizon": pl.Int64(),
    "expected_return": pl.Float64(),
    "lower": pl.Float64(),
    "upper": pl.Float64(),
    "confidence": pl.Float64(),
    "coverage_target": pl.Float64(),
    "interval_level": pl.Float64(),
    "rank": pl.Int64(),
    "model_name": pl.String(),
    "model_version": pl.String(),
    "arm": pl.String(),
    "fallback_level": pl.Int64(),
    "fallback_reason": pl.String(),
    "feature_set_hash": pl.String(),
    "lake_version": pl.Int64(),
    "volatility": pl.Float64(),
    "var_95": pl.Float64(),
    "es_95": pl.Float64(),
    "close": pl.Float64(),
    "currency": pl.String(),
}
"""The predictions table. ``expected_return``, ``lower`` and ``upper`` are fractions over the horizon; the interval
aims at ``interval_level`` (the target, adapted to recent misses) so that ``coverage_target`` is met. ``rank`` is 1 for
the best of a session. ``var_95`` and ``es_95`` are null where there is too little history for a tail."""

UNPREDICTED_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "reason": pl.String(),
    "detail": pl.String(),
}
"""Requested rows without a prediction; ``reason`` is one of `REASONS`."""

REASONS = (
    "not_a_member",
    "quarantined_today",
    "no_bar_today",
    "too_little_history",
    "missing_features",
    "no_volatility",
)
"""Why a row has no prediction, in the order in which they are tried."""


class Lineage(Parameters):
    """Where predictions come from; every row carries it."""

    horizon: int = Field(ge=1, le=252, description="sessions of the forward return")
    model_name: str = Field(min_length=1)
    model_version: str = Field(min_length=1)
    arm: str = Field(default="champion", min_length=1)
    fallback_level: int = Field(default=0, ge=0, le=2)
    fallback_reason: str | None = None
    feature_set_hash: str = Field(min_length=1)
    lake_version: int = Field(ge=0)


@dataclass(frozen=True)
class Scored:
    """Predictions (`PREDICTION_SCHEMA`) and unpredicted rows (`UNPREDICTED_SCHEMA`), each sorted by symbol, session."""

    predictions: pl.DataFrame
    unpredicted: pl.DataFrame


def prediction_id(symbol: str, session: str, lineage: Lineage) -> str:
    """Identity of a prediction: 32 hexadecimal digits of the SHA-256 of what determines it."""
    parts = (
        symbol,
        session,
        str(lineage.horizon),
        lineage.model_name,
        lineage.model_version,
        lineage.feature_set_hash,
        str(lineage.lake_version),
    )
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
