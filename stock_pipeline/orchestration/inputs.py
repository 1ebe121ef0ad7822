"""Frames that several assets read, and objects made from the settings; reading only, no decision."""

from __future__ import annotations

import hashlib
from functools import reduce
from typing import Literal

import polars as pl

from stock_pipeline.config.settings import FeatureSettings, Settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features import INPUTS, FeatureSet, available, feature_set, load_user_features
from stock_pipeline.core.market import universe
from stock_pipeline.core.market.bars import BAR_SCHEMA, KEYS
from stock_pipeline.orchestration.resources import Platform

VALIDATED, BENCHMARK, MEMBERSHIP = "market/validated_bars", "market/benchmark", "market/membership"
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


def _within(name: str, chosen: FeatureSettings) -> list[str]:
    """The excluded features and sets that this set holds; an exclusion may concern another one."""
    members = {feature.name for feature in feature_set([name]).features}
    return [out for out in chosen.exclude if members & {feature.name for feature in feature_set([out]).features}]


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


def bars(platform: Platform) -> pl.DataFrame:
    """All validated bars with the columns that decide numbers."""
    return platform.lake.read(VALIDATED, columns=VALUES)


def benchmark(platform: Platform) -> pl.DataFrame | None:
    """``session, close`` of the benchmark, ``None`` where there is none."""
    return platform.lake.read(BENCHMARK) if platform.lake.exists(BENCHMARK) else None


def bars_with_benchmark(platform: Platform) -> pl.DataFrame:
    """Validated bars; with the column ``benchmark`` where a benchmark series is configured."""
    frame, series = bars(platform), benchmark(platform)
    if series is None:
        return frame
    return with_benchmark(frame, series)


def with_benchmark(frame: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
    """Add the benchmark's close of each session as the column ``benchmark``."""
    return frame.join(
        series.select("session", benchmark=pl.col("close")), on="session", how="left", maintain_order="left"
    )


def tradable(platform: Platform) -> pl.DataFrame:
    """Bars of every symbol that the configuration names, also from before it was a member and after it left."""
    wanted = platform.settings.universe.symbols
    frame = bars(platform)
    return frame if wanted == "all" else frame.filter(pl.col("symbol").is_in(wanted))


def membership(platform: Platform) -> pl.DataFrame | None:
    """``symbol, start, end`` of the point-in-time universe, ``None`` where every symbol is always a member."""
    return platform.lake.read(MEMBERSHIP) if platform.lake.exists(MEMBERSHIP) else None


def members(platform: Platform, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of `frame` that belong to the configured universe at their session."""
    wanted = platform.settings.universe.symbols
    if wanted != "all":
        frame = frame.filter(pl.col("symbol").is_in(wanted))
    if platform.lake.exists(MEMBERSHIP):
        frame = universe.members(platform.lake.read(MEMBERSHIP), frame)
    return frame


def features(platform: Platform, start: object = None, end: object = None) -> pl.DataFrame:
    """All configured feature sets side by side, by symbol and session."""
    names = list(chosen_feature_sets(platform.settings))
    frames = [platform.lake.read(f"features/{name}", start=start, end=end) for name in names]  # type: ignore[arg-type]
    return reduce(lambda left, right: left.join(right, on=list(KEYS), how="inner", maintain_order="left"), frames)


def feature_hash(platform: Platform) -> str:
    """Hash of all features that models are trained on, in order."""
    bars_frame = bars_with_benchmark(platform)
    missing = platform.settings.features.missing_columns
    sets = chosen_feature_sets(platform.settings).values()
    hashes = [usable_features(chosen, bars_frame, missing).hash for chosen in sets]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("+".join(hashes).encode()).hexdigest()[:16]
