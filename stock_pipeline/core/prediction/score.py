"""From model outputs, risk and a calibrator to the rows that are published, and to the list of those that are not.

Loading models belongs to ``storage``; whether the rows may be published is decided in ``publish.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction.adaptive import AdaptiveLevel
from stock_pipeline.core.prediction.conformal import Calibrator
from stock_pipeline.core.prediction.schema import (
    PREDICTION_SCHEMA,
    REASONS,
    UNPREDICTED_SCHEMA,
    Lineage,
    Scored,
    prediction_id,
)

__all__ = [
    "PREDICTION_SCHEMA",
    "REASONS",
    "UNPREDICTED_SCHEMA",
    "Lineage",
    "ScoreSettings",
    "Scored",
    "expected_returns",
    "prediction_id",
    "rank_sessions",
    "score",
]


class ScoreSettings(Parameters):
    """What a symbol needs to be predicted."""

    min_history: int = Field(default=252, ge=2, description="fewest sessions of a symbol")
    max_missing_share: float = Field(
        default=0.2, ge=0.0, lt=1.0, description="largest share of features that may be missing"
    )


def expected_returns(
    features: pl.DataFrame,
    predict: Callable[[pl.DataFrame], np.ndarray],
    feature_names: Sequence[str],
    settings: ScoreSettings | None = None,
) -> pl.DataFrame:
    """Ask a model for the expected returns of all rows with enough features.

    Parameters
    ----------
    features
        ``symbol, session`` and the features, null where missing.
    predict
        From a frame of exactly ``feature_names`` (in that order) to expected returns of shape (rows,).
    feature_names
        The features of the model.
    settings
        How many features may be missing.

    Returns
    -------
    polars.DataFrame
        ``symbol, session, expected_return``, sorted; rows with too many missing features are absent.

    Raises
    ------
    DataError
        A feature is absent, or the model's output has another shape or is not finite (such a model must not be used).
    """
    chosen = settings or ScoreSettings()
    absent = [c for c in ("symbol", "session", *feature_names) if c not in features.columns]
    if absent:
        raise DataError("features lack columns that the model was trained on", value=absent)
    lacking = pl.sum_horizontal(pl.col(c).is_null() | ~pl.col(c).is_finite().fill_null(False) for c in feature_names)
    usable = features.sort("symbol", "session").filter(lacking <= chosen.max_missing_share * len(feature_names))
    keys = usable.select("symbol", "session")
    if usable.height == 0:
        return keys.with_columns(pl.lit(None, pl.Float64).alias("expected_return"))
    output = np.asarray(predict(usable.select(feature_names)), dtype=np.float64)
    if output.shape != (usable.height,):
        raise DataError("the model's output has the wrong shape", value=output.shape, allowed=f"({usable.height},)")
    if not np.isfinite(output).all():
        raise DataError("the model's output is not finite", value=int((~np.isfinite(output)).sum()))
    return keys.with_columns(pl.Series("expected_return", output))


def rank_sessions(predictions: pl.DataFrame) -> pl.DataFrame:
    """Set ``rank`` within each session: 1 = highest expected return, ties by symbol. Use it after joining arms."""
    columns = predictions.columns
    ordered = predictions.sort(["session", "expected_return", "symbol"], descending=[False, True, False])
    ranked = ordered.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("session").alias("rank"))
    return ranked.select(columns if "rank" in columns else [*columns, "rank"]).sort("symbol", "session")


def score(
    outputs: pl.DataFrame,
    *,
    bars: pl.DataFrame,
    risk: pl.DataFrame,
    calibrator: Calibrator,
    lineage: Lineage,
    settings: ScoreSettings | None = None,
    level: AdaptiveLevel | float | None = None,
    requested: pl.DataFrame | None = None,
    members: pl.DataFrame | None = None,
    quarantined: pl.DataFrame | None = None,
) -> Scored:
    """Give every requested row a prediction with interval, confidence, rank and risk, or a reason why not.

    Parameters
    ----------
    outputs
        ``symbol, session, expected_return`` of the model (`expected_returns`).
    bars
        Validated bars with ``symbol, session, close, currency``, with at least ``min_history`` sessions before.
    risk
        The risk table of the same rows.
    calibrator
        Intervals and confidence, calibrated for the same horizon.
    lineage
        Model, features and data that the rows came from.
    settings
        Fewest sessions of a symbol.
    level
        Adapted coverage; ``None``: the calibrator's target.
    requested
        ``symbol, session`` to account for; ``None``: all bars and quarantined rows of the sessions in ``outputs``.
    members
        ``symbol, session`` that belong to the universe; ``None``: all.
    quarantined
        ``symbol, session`` and, where known, ``reason`` of rows that validation withheld.

    Returns
    -------
    Scored
        Each requested row once: predicted, or unpredicted with its reason.

    Raises
    ------
    DataError
        A column is missing, a key repeats, the calibrator is for another horizon, or an interval is not in order.
    """
    chosen = settings or ScoreSettings()
    if calibrator.horizon != lineage.horizon:
        raise DataError("the calibrator is for another horizon", value=calibrator.horizon, allowed=str(lineage.horizon))
    keys = ["symbol", "session"]
    for name, frame, needed in (
        ("outputs", outputs, [*keys, "expected_return"]),
        ("bars", bars, [*keys, "close", "currency"]),
        ("risk", risk, [*keys, "volatility", "var_95", "es_95"]),
    ):
        absent = [c for c in needed if c not in frame.columns]
        if absent:
            raise DataError(f"{name} lack columns", value=absent, allowed=", ".join(needed))
        if frame.select(keys).is_duplicated().any():
            raise DataError(f"{name} repeat a symbol and session", fix="give each key once")
    withheld = _withheld(quarantined)
    sessions = outputs["session"].unique()
    if requested is None:
        requested = pl.concat([bars.select(keys), withheld.select(keys)]).filter(
            pl.col("session").is_in(sessions.implode())
        )
    seen = bars.sort(keys).select(
        *keys,
        pl.col("close").cast(pl.Float64),
        "currency",
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("symbol").alias("history"),
    )
    belongs = requested.select(keys).unique() if members is None else members.select(keys).unique()
    table = (
        requested.select(keys)
        .unique()
        .join(seen, on=keys, how="left")
        .join(outputs.select(*keys, pl.col("expected_return").cast(pl.Float64)), on=keys, how="left")
        .join(risk.select(*keys, "volatility", "var_95", "es_95"), on=keys, how="left")
        .join(withheld, on=keys, how="left")
        .join(belongs.with_columns(pl.lit(True).alias("member")), on=keys, how="left")
        .sort(keys)
        .with_columns(_reason(chosen))
    )
    unpredicted = table.filter(pl.col("reason").is_not_null()).with_columns(_detail(chosen))
    predictions = _predictions(table.filter(pl.col("reason").is_null()), calibrator, lineage, level)
    return Scored(predictions, unpredicted.select(list(UNPREDICTED_SCHEMA)))


def _withheld(quarantined: pl.DataFrame | None) -> pl.DataFrame:
    if quarantined is None:
        return pl.DataFrame(schema={"symbol": pl.String, "session": pl.Date, "withheld": pl.String})
    why = pl.col("reason") if "reason" in quarantined.columns else pl.lit("withheld by validation")
    return (
        quarantined.select("symbol", "session", why.fill_null("withheld by validation").alias("withheld"))
        .sort("symbol", "session", "withheld")
        .unique(["symbol", "session"], keep="first", maintain_order=True)
    )


def _reason(settings: ScoreSettings) -> pl.Expr:
    volatility = pl.col("volatility")
    tests = (
        pl.col("member").is_null(),
        pl.col("history").is_null() & pl.col("withheld").is_not_null(),
        pl.col("history").is_null(),
        pl.col("history") < settings.min_history,
        pl.col("expected_return").is_null(),
        ~(volatility.is_finite() & (volatility > 0)).fill_null(False),
    )
    return pl.coalesce(pl.when(test).then(pl.lit(reason)) for test, reason in zip(tests, REASONS, strict=True)).alias(
        "reason"
    )


def _detail(settings: ScoreSettings) -> pl.Expr:
    return (
        pl.when(pl.col("reason") == "not_a_member")
        .then(pl.lit("outside the universe on this session"))
        .when(pl.col("reason") == "quarantined_today")
        .then(pl.col("withheld"))
        .when(pl.col("reason") == "no_bar_today")
        .then(pl.lit("no price was delivered for this session"))
        .when(pl.col("reason") == "too_little_history")
        .then(pl.format("{} of {} sessions", pl.col("history"), pl.lit(settings.min_history)))
        .when(pl.col("reason") == "missing_features")
        .then(pl.lit("too many features have no value"))
        .otherwise(pl.lit("volatility is unknown or zero"))
        .alias("detail")
    )


def _predictions(
    rows: pl.DataFrame, calibrator: Calibrator, lineage: Lineage, level: AdaptiveLevel | float | None
) -> pl.DataFrame:
    if isinstance(level, AdaptiveLevel):
        levels = level.of(rows["symbol"])
    else:
        levels = np.full(rows.height, calibrator.coverage if level is None else level)
    expected, volatility = rows["expected_return"].to_numpy(), rows["volatility"].to_numpy()
    lower, upper = calibrator.interval(expected, volatility, levels)
    ids = [
        prediction_id(symbol, session.isoformat(), lineage)
        for symbol, session in zip(rows["symbol"].to_list(), rows["session"].to_list(), strict=True)
    ]
    made = rows.with_columns(
        pl.Series("prediction_id", ids, dtype=pl.String()),
        pl.Series("lower", lower),
        pl.Series("upper", upper),
        pl.Series("confidence", calibrator.confidence(expected, volatility)),
        pl.Series("interval_level", levels),
        pl.lit(calibrator.coverage).alias("coverage_target"),
        **{name: pl.lit(value) for name, value in lineage.model_dump().items()},
    )
    made = rank_sessions(made.with_columns(pl.lit(0, pl.Int64).alias("rank")))
    made = made.select(pl.col(name).cast(dtype) for name, dtype in PREDICTION_SCHEMA.items())
    bounds = made.select(pl.col("lower", "expected_return", "upper", "confidence").is_finite().all()).row(0)
    ordered = made.select(pl.col("expected_return").is_between(pl.col("lower"), pl.col("upper")).all()).item()
    if made.height and not (all(bounds) and ordered):
        raise DataError("a prediction's interval is not finite or not in order", fix="check the calibrator")
    return made
