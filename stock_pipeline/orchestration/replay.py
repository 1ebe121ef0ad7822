"""Computes a published prediction again from exactly what it names, and compares bit by bit."""

from __future__ import annotations

from datetime import date

import polars as pl

from stock_pipeline.config import Settings
from stock_pipeline.core.errors import NotFoundError
from stock_pipeline.core.features import compute, with_lookback
from stock_pipeline.core.prediction import fallback
from stock_pipeline.core.prediction.replay import Comparison, compare
from stock_pipeline.core.prediction.score import PREDICTION_SCHEMA
from stock_pipeline.core.risk.symbol_risk import symbol_risk
from stock_pipeline.orchestration import inputs, scoring
from stock_pipeline.orchestration.resources import Platform


def replay(settings: Settings, prediction_id: str) -> Comparison:
    """Recompute features, risk, model output and interval of the session of a prediction.

    The bars are read in the version that the prediction names, the model is loaded by its version and verified;
    features and risk are computed anew from the bars. Nothing stored but bars, model and earlier predictions is used.

    Raises
    ------
    NotFoundError
        No prediction has this id.
    """
    platform = Platform(settings)
    stored = platform.lake.read(scoring.SCORED) if platform.lake.exists(scoring.SCORED) else None
    row = stored.filter(pl.col("prediction_id") == prediction_id) if stored is not None else None
    if stored is None or row is None or row.is_empty():
        raise NotFoundError(
            "there is no prediction with this id", value=prediction_id, fix="see `stock-pipeline show predictions`"
        )
    found = row.row(0, named=True)
    session = found["session"]
    every = platform.lake.read(inputs.VALIDATED, version=found["lake_version"], columns=inputs.VALUES)
    bars = every.filter(pl.col("session") <= session)
    data = scoring.Data(
        bars=bars,
        risk=symbol_risk(with_lookback(bars, session, settings.risk.lookback), settings.risk, start=session)
        if found["fallback_level"] < fallback.NAIVE
        else symbol_risk(bars, settings.risk),
        features=_features(platform, bars, session),
        lake_version=found["lake_version"],
        feature_set_hash=found["feature_set_hash"],
    )
    if found["fallback_level"] == fallback.NAIVE:
        rung = scoring.naive_rung(platform, data, [session])
    else:
        rung = scoring.model_rung(platform, data, [session], found["model_version"])
    choice = fallback.Choice(rung, found["fallback_level"], found["fallback_reason"], ())
    history = stored.filter(pl.col("session") < session, ~pl.col("superseded"))
    # outcomes of earlier predictions may have matured after the bars of that night: those bars are read up to now
    matured = scoring.Data(every, data.risk, data.features, data.lake_version, data.feature_set_hash)
    again = scoring.score_sessions(platform, matured, choice, [session], history=history)
    same_session = stored.filter(
        pl.col("session") == session, pl.col("model_version") == found["model_version"],
        pl.col("lake_version") == found["lake_version"],
    )  # fmt: skip
    mine = pl.col("prediction_id") == prediction_id
    fields = list(PREDICTION_SCHEMA)
    whole = compare(same_session.select(fields), again.predictions.select(fields))
    if whole.identical:
        return compare(same_session.filter(mine).select(fields), again.predictions.filter(mine).select(fields))
    return whole


def _features(platform: Platform, bars: pl.DataFrame, session: date) -> pl.DataFrame:
    """All configured features of one session, computed from bars."""
    series = inputs.benchmark(platform)
    if series is not None:
        bars = inputs.with_benchmark(bars, series)
    missing = platform.settings.features.missing_columns
    joined: pl.DataFrame | None = None
    for chosen in inputs.chosen_feature_sets(platform.settings).values():
        usable = inputs.usable_features(chosen, bars, missing)
        frame = compute(bars, usable, start=session)
        joined = frame if joined is None else joined.join(frame, on=["symbol", "session"], maintain_order="left")
    assert joined is not None
    return joined
