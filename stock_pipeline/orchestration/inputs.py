"""Frames that several assets read, and objects made from the settings; reading only, no decision."""

from __future__ import annotations

from functools import reduce

import polars as pl

from stock_pipeline.core.market import universe
from stock_pipeline.core.market.bars import KEYS
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage import configured_features
from stock_pipeline.storage.configured_features import (
    BENCHMARK,
    VALIDATED,
    VALUES,
    chosen_feature_sets,
    usable_features,
)

__all__ = ["BENCHMARK", "VALIDATED", "VALUES", "chosen_feature_sets", "usable_features"]

MEMBERSHIP = "market/membership"


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
    return configured_features.feature_hash(platform.settings, platform.lake)
