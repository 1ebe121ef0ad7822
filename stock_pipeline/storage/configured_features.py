"""The features that the configuration asks for and the stored bars allow, and their hash.

Models name the hash that they were trained on: whoever is about to use a model compares it with this one.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import polars as pl

from stock_pipeline.config.settings import FeatureSettings, Settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features import INPUTS, FeatureSet, available, feature_set, load_user_features
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.storage.lake import Lake

VALIDATED, BENCHMARK = "market/validated_bars", "market/benchmark"
VALUES = [column for column in BAR_SCHEMA if column != "known_at"]
"""What decides a number: when a row was learnt does not."""


def chosen_feature_sets(settings: Settings) -> dict[str, FeatureSet]:
    """The configured feature sets by name, users' modules loaded, excluded features left out.

    Without a configured benchmark, the features that compare with it are left out as well.
    """
    for module in settings.features.modules:
        load_user_features(module)
    sets = {name: feature_set([name], exclude=_within(name, settings.features)) for name in settings.features.sets}
    if getattr(settings.source, "benchmark", None) is not None:
        return sets
    return {name: available(chosen, set(INPUTS) - {"benchmark"}) for name, chosen in sets.items()}


def usable_features(chosen: FeatureSet, frame: pl.DataFrame, missing: Literal["error", "drop"]) -> FeatureSet:
    """Drop the features whose columns the vendor does not deliver, where the settings allow it.

    A column that is wholly null counts as not delivered.

    Raises
    ------
    ConfigurationError
        A feature needs a column which the vendor does not deliver, and `missing` is ``error``.
    """
    delivered = [name for name in frame.columns if frame[name].null_count() < frame.height]
    if missing == "drop":
        return available(chosen, delivered)
    lacking = set(chosen.inputs) - set(delivered)
    if lacking and not frame.is_empty():
        needing = [feature.name for feature in chosen.features if lacking & set(feature.inputs)]
        raise ConfigurationError(
            f"{len(needing)} of {len(chosen.features)} features of {chosen.name} need columns that hold no values",
            value=sorted(lacking),
            fix="deliver them, or set features.missing_columns: drop to leave those features out",
        )
    return chosen


def feature_hash(settings: Settings, lake: Lake) -> str:
    """Hash of all features that models are trained on, in order.

    Raises
    ------
    NotFoundError
        There are no bars yet: which features can be computed is not known.
    """
    delivered = _delivered(lake)
    missing = settings.features.missing_columns
    hashes = [usable_features(chosen, delivered, missing).hash for chosen in chosen_feature_sets(settings).values()]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("+".join(hashes).encode()).hexdigest()[:16]


def _delivered(lake: Lake) -> pl.DataFrame:
    """One row with a value of each column that has any; empty where there are no bars."""
    rows = lake.count(VALIDATED)
    first = pl.all().drop_nulls().first()
    frame = lake.scan(VALIDATED, columns=VALUES).select(first).collect()
    if lake.exists(BENCHMARK):
        series = lake.scan(BENCHMARK).select("session", benchmark=pl.col("close")).drop_nulls()
        sessions = lake.scan(VALIDATED, columns=["session"]).unique()
        shared = sessions.join(series, on="session").select("benchmark").head(1).collect()
        value = shared["benchmark"][0] if shared.height else None
        frame = frame.with_columns(benchmark=pl.lit(value, pl.Float64))
    return frame if rows else frame.clear()


def _within(name: str, chosen: FeatureSettings) -> list[str]:
    """The excluded features and sets that this set holds; an exclusion may concern another one."""
    members = {feature.name for feature in feature_set([name]).features}
    return [out for out in chosen.exclude if members & {feature.name for feature in feature_set([out]).features}]
