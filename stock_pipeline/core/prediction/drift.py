"""Has the world left what the model was trained on? Drift of feature distributions and decay of the rank IC.

The verdict may ask for a retrain; deciding on it belongs to the shell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.parameters import Parameters


class DriftSettings(Parameters):
    """Thresholds of drift.

    The population stability index is read as usual in credit scoring: below 0.1 stable, above 0.25 changed. In a
    panel of symbols observations are dependent, so the Kolmogorov-Smirnov *distance* is judged, not its p-value.
    """

    bins: int = Field(default=10, ge=4, le=100, description="quantile bins of the stability index")
    psi_warn: float = Field(default=0.1, gt=0.0, description="index from which a feature is watched")
    psi_alarm: float = Field(default=0.25, gt=0.0, description="index from which a feature has drifted")
    ks_alarm: float = Field(default=0.2, gt=0.0, lt=1.0, description="distance from which a feature has drifted")
    missing_alarm: float = Field(default=0.1, gt=0.0, le=1.0, description="rise of the share of missing values")
    share_alarm: float = Field(
        default=0.3, gt=0.0, le=1.0, description="share of drifted features that asks for a retrain"
    )
    ic_window: int = Field(default=120, ge=20, description="sessions of the recent rank IC")
    ic_minimum_symbols: int = Field(default=5, ge=3, description="fewest outcomes of a session for a rank IC")
    ic_t_alarm: float = Field(default=2.0, gt=0.0, description="Newey-West t of the decay that is an alarm")


@dataclass(frozen=True)
class DriftVerdict:
    """What has drifted; ``retrain`` asks for a new model, ``reasons`` say why."""

    drifted: bool
    retrain: bool
    reasons: tuple[str, ...]
    features: pl.DataFrame
    rank_ic: dict[str, float | int | None]


def psi(reference: np.ndarray, recent: np.ndarray, bins: int = 10) -> float:
    """Population stability index over quantile bins of the reference.

    ``sum((q - p) ln(q / p))``; empty bins count as half an observation, so that the index stays finite.

    Notes
    -----
    Siddiqi, *Credit Risk Scorecards* (2006), ch. 6; it is the symmetrised divergence of Jeffreys (1946).
    """
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, x, side="right"), minlength=edges.size + 1) for x in (reference, recent)
    ]
    p, q = (np.maximum(c, 0.5) / np.maximum(c, 0.5).sum() for c in counts)
    return float(np.sum((q - p) * np.log(q / p)))


def kolmogorov_smirnov(reference: np.ndarray, recent: np.ndarray) -> tuple[float, float]:
    """Two-sample distance of the distribution functions, and its asymptotic p-value for independent observations.

    Notes
    -----
    Smirnov (1948), Annals of Mathematical Statistics 19; the series of Kolmogorov's limit law.
    """
    a, b = np.sort(reference), np.sort(recent)
    every = np.concatenate([a, b])
    distance = float(
        np.max(
            np.abs(np.searchsorted(a, every, side="right") / a.size - np.searchsorted(b, every, side="right") / b.size)
        )
    )
    size = math.sqrt(a.size * b.size / (a.size + b.size)) * distance
    if size < 0.2:
        return distance, 1.0
    series = 2.0 * sum((-1.0) ** (k - 1) * math.exp(-2.0 * k * k * size * size) for k in range(1, 101))
    return distance, min(max(series, 0.0), 1.0)


def feature_drift(
    reference: pl.DataFrame, recent: pl.DataFrame, features: Sequence[str], settings: DriftSettings | None = None
) -> pl.DataFrame:
    """Drift of each feature between training data and a recent window.

    Returns
    -------
    polars.DataFrame
        ``feature, psi, ks, ks_p, missing_reference, missing_recent, verdict`` in the given order; verdict is
        ``stable``, ``watch``, ``drifted`` or ``unknown`` (fewer than 50 values on a side; numbers are null).

    Raises
    ------
    DataError
        A feature is on one side only, or a side has no rows.
    """
    chosen = settings or DriftSettings()
    absent = [f for f in features if f not in reference.columns or f not in recent.columns]
    if absent:
        raise DataError("drift needs the same features on both sides", value=absent)
    if not reference.height or not recent.height:
        raise DataError("drift needs rows on both sides", value=(reference.height, recent.height))
    rows: list[tuple[str | float | None, ...]] = []
    for name in features:
        old, new = (_known(frame[name]) for frame in (reference, recent))
        gone = 1.0 - old.size / reference.height, 1.0 - new.size / recent.height
        lost = gone[1] - gone[0] > chosen.missing_alarm
        if min(old.size, new.size) < 50:
            rows.append((name, None, None, None, *gone, "drifted" if lost else "unknown"))
            continue
        index = psi(old, new, chosen.bins)
        distance, probability = kolmogorov_smirnov(old, new)
        if lost or index >= chosen.psi_alarm or distance >= chosen.ks_alarm:
            verdict = "drifted"
        else:
            verdict = "watch" if index >= chosen.psi_warn else "stable"
        rows.append((name, index, distance, probability, *gone, verdict))
    numbers = ("psi", "ks", "ks_p", "missing_reference", "missing_recent")
    schema = {"feature": pl.String, **dict.fromkeys(numbers, pl.Float64), "verdict": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _known(values: pl.Series) -> np.ndarray:
    numbers = values.cast(pl.Float64).drop_nulls().to_numpy()
    return numbers[np.isfinite(numbers)]


def session_rank_ic(outcomes: pl.DataFrame, minimum_symbols: int = 5) -> pl.DataFrame:
    """Spearman correlation of expected and realised returns in each session.

    Returns
    -------
    polars.DataFrame
        ``session, rank_ic, symbols``, sorted; sessions with too few outcomes or without variation are left out.
    """
    ranks = (pl.col(c).rank("average").over("session").alias(c) for c in ("expected_return", "realised_return"))
    return (
        outcomes.drop_nulls(["expected_return", "realised_return"])
        .sort("session", "symbol")
        .with_columns(ranks)
        .group_by("session", maintain_order=True)
        .agg(pl.corr("expected_return", "realised_return").alias("rank_ic"), pl.len().cast(pl.Int64).alias("symbols"))
        .filter((pl.col("symbols") >= minimum_symbols) & pl.col("rank_ic").is_finite())
        .sort("session")
    )


def rank_ic_decay(
    outcomes: pl.DataFrame, reference_ic: float, horizon: int, settings: DriftSettings | None = None
) -> dict[str, float | int | None]:
    """Is the recent rank IC below the one that the model was promoted for.

    Returns
    -------
    dict
        ``reference_ic, recent_ic, sessions, t`` (Newey-West, lags = horizon, of recent minus reference) and
        ``decayed`` (1 or 0); ``recent_ic`` and ``t`` are ``None`` below twenty sessions.
    """
    chosen = settings or DriftSettings()
    recent = session_rank_ic(outcomes, chosen.ic_minimum_symbols)["rank_ic"].tail(chosen.ic_window).to_numpy()
    out: dict[str, float | int | None] = {"reference_ic": reference_ic, "recent_ic": None, "sessions": recent.size}
    if recent.size < 20:
        return out | {"t": None, "decayed": 0}
    mean = float(recent.mean())
    error = recent - mean
    spread = float(error @ error)
    for k in range(1, min(horizon, recent.size - 1) + 1):
        spread += 2.0 * (1.0 - k / (horizon + 1.0)) * float(error[k:] @ error[:-k])
    deviation = math.sqrt(max(spread, 1e-12)) / recent.size
    t = (mean - reference_ic) / deviation
    return out | {"recent_ic": mean, "t": t, "decayed": int(t <= -chosen.ic_t_alarm)}


def drift_check(
    reference: pl.DataFrame,
    recent: pl.DataFrame,
    features: Sequence[str],
    *,
    outcomes: pl.DataFrame | None = None,
    reference_ic: float | None = None,
    horizon: int = 1,
    settings: DriftSettings | None = None,
) -> DriftVerdict:
    """Judge feature drift and, where outcomes and the promised IC are given, the decay of the rank IC.

    A retrain is asked for when the share of drifted features reaches ``share_alarm`` or the rank IC has decayed.
    """
    chosen = settings or DriftSettings()
    table = feature_drift(reference, recent, features, chosen)
    drifted = table.filter(pl.col("verdict") == "drifted")
    reasons = []
    if drifted.height:
        worst = drifted.sort("psi", descending=True, nulls_last=True)["feature"].head(5).to_list()
        reasons.append(f"{drifted.height} of {table.height} features drifted, most: {', '.join(worst)}")
    retrain = table.height > 0 and drifted.height / table.height >= chosen.share_alarm
    ic: dict[str, float | int | None] = {}
    if outcomes is not None and reference_ic is not None:
        ic = rank_ic_decay(outcomes, reference_ic, horizon, chosen)
        if ic["decayed"]:
            retrain = True
            reasons.append(
                f"rank IC {ic['recent_ic']:.4f} over {ic['sessions']} sessions is below the promised "
                f"{reference_ic:.4f} (t {ic['t']:.1f})"
            )
    return DriftVerdict(bool(drifted.height or ic.get("decayed")), retrain, tuple(reasons), table, ic)
