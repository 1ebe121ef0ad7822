"""Scores sessions with the best model that can be used, in order, as if each night had been run on its own.

The level of an interval depends on the outcomes that had matured by its session, so sessions are scored one after the
other; that a late night is caught up together with others changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from stock_pipeline.core.errors import IntegrityError, LookAheadError
from stock_pipeline.core.prediction import adaptive, fallback
from stock_pipeline.core.prediction.conformal import Calibrator
from stock_pipeline.core.prediction.outcomes import mature
from stock_pipeline.core.prediction.score import (
    PREDICTION_SCHEMA,
    UNPREDICTED_SCHEMA,
    Lineage,
    Scored,
    expected_returns,
    score,
)
from stock_pipeline.orchestration import inputs
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.code_version import code_version

SCORED, UNPREDICTED = "predictions/scored", "predictions/unpredicted"
RISK = "risk/symbol_risk"
RECENT_SESSIONS = 20
"""Without a membership table, symbols with a bar in so many sessions belong to the universe."""

LINEAGE_SCHEMA: dict[str, pl.DataType] = {
    "config_version": pl.String(),
    "code_version": pl.String(),
    "seed": pl.Int64(),
    "model_checksum": pl.String(),
    "superseded": pl.Boolean(),
}
SCORED_SCHEMA = {**PREDICTION_SCHEMA, **LINEAGE_SCHEMA}


@dataclass(frozen=True)
class Rung:
    """A usable rung of the ladder: its outputs for all sessions, calibrator and lineage."""

    outputs: pl.DataFrame
    calibrator: Calibrator
    model_name: str
    model_version: str
    feature_set_hash: str
    checksum: str
    seed: int
    trained_through: date | None


@dataclass(frozen=True)
class Data:
    """Frames that scoring reads, all from one version of the bars."""

    bars: pl.DataFrame
    risk: pl.DataFrame
    features: pl.DataFrame
    lake_version: int
    feature_set_hash: str


def load_data(platform: Platform) -> Data:
    """Read the present bars, risk and features."""
    version = platform.lake.version(inputs.VALIDATED)
    return Data(
        bars=inputs.bars(platform),
        risk=platform.lake.read(RISK),
        features=inputs.features(platform),
        lake_version=version if version is not None else 0,
        feature_set_hash=inputs.feature_hash(platform),
    )


def model_rung(platform: Platform, data: Data, sessions: Sequence[date], alias: str) -> Rung:
    """Load a registered model, verify it against the features at hand, and let it predict.

    Raises
    ------
    PipelineError
        The model cannot be loaded, is damaged, or was trained on other features: the ladder goes one rung down.
    """
    model = platform.model_registry.load(alias, feature_set_hash=data.feature_set_hash)
    if min(sessions) <= model.trained_through:
        raise LookAheadError(
            f"{model.family} version {model.version} has learnt from sessions up to {model.trained_through}",
            value=str(min(sessions)),
            allowed="later sessions",
        )
    wanted = data.features.filter(pl.col("session").is_in(list(sessions)))
    outputs = expected_returns(wanted, model.predict, model.feature_names, platform.settings.scoring)
    return Rung(
        outputs=outputs,
        calibrator=_calibrator(model.calibrator_json, alias),
        model_name=model.family,
        model_version=str(model.version),
        feature_set_hash=model.feature_set_hash,
        checksum=model.info.checksum,
        seed=model.seed,
        trained_through=model.trained_through,
    )


def _calibrator(text: str | None, alias: str) -> Calibrator:
    if text is None:
        raise IntegrityError("a model has no interval calibrator", value=alias, fix="retrain it")
    return Calibrator.model_validate_json(text)


def naive_rung(platform: Platform, data: Data, sessions: Sequence[date]) -> Rung:
    """Zero expected return with intervals from past returns: always possible."""
    settings = platform.settings
    first = min(sessions)
    past = data.bars.filter(pl.col("session") <= first)
    calibrator = fallback.naive_calibrator(
        past, data.risk, settings.models.horizon, settings=settings.predictions.conformal
    )
    requested = data.bars.filter(pl.col("session").is_in(list(sessions))).select("symbol", "session")
    return Rung(
        outputs=fallback.naive_outputs(requested),
        calibrator=calibrator,
        model_name=fallback.NAIVE_NAME,
        model_version=fallback.NAIVE_VERSION,
        feature_set_hash=data.feature_set_hash,
        checksum="",
        seed=settings.models.seed,
        trained_through=None,
    )


def choose_rung(platform: Platform, data: Data, sessions: Sequence[date]) -> fallback.Choice[Rung]:
    """Walk down the ladder: champion, previous champion, naive."""
    aliases = {alias for version in platform.model_registry.versions() for alias in version.aliases}

    def attempt(alias: str) -> Callable[[], Rung] | None:
        return (lambda: model_rung(platform, data, sessions, alias)) if alias in aliases else None

    return fallback.choose(attempt("champion"), attempt("previous"), lambda: naive_rung(platform, data, sessions))


def sessions_to_score(platform: Platform, data: Data) -> list[date]:
    """Sessions newer than what was scored (at first: than what the champion learnt from), or of another model."""
    every = data.bars["session"].unique().sort().to_list()
    if not every:
        return []
    newest = every[-1]
    champion = platform.model_registry.champion()
    scored = current(platform)
    if scored.is_empty():
        after = champion.trained_through if champion is not None else every[-2] if len(every) > 1 else date.min
        return [day for day in every if day > after] or [newest]
    last = scored["session"].max()
    todo = [day for day in every if day > last]  # type: ignore[operator]
    versions = set(scored.filter(pl.col("session") == newest)["model_version"].to_list())
    wanted = {str(champion.version)} if champion is not None else {fallback.NAIVE_VERSION}
    return todo or ([newest] if versions != wanted else [])


def current(platform: Platform) -> pl.DataFrame:
    """The predictions in force: of each symbol and session the newest scoring."""
    if not platform.lake.exists(SCORED):
        return pl.DataFrame(schema=SCORED_SCHEMA)
    return platform.lake.read(SCORED).filter(~pl.col("superseded"))


def score_all(
    platform: Platform, data: Data, sessions: Sequence[date], *, history: pl.DataFrame
) -> tuple[Scored, list[fallback.Choice[Rung]]]:
    """Score sessions with the ladder and add the lineage of each row.

    A model predicts all sessions that it has not learnt from at once. The naive rung is calibrated anew for each
    session, on what was known then.
    """
    predictions, unpredicted, choices = [], [], []
    for choice, group in _rungs(platform, data, sessions):
        scored = score_sessions(platform, data, choice, group, history=history)
        rows = with_lineage(platform, scored.predictions, choice.value)
        history = pl.concat([history, rows], how="diagonal")
        predictions.append(rows)
        unpredicted.append(scored.unpredicted)
        choices.append(choice)
    return Scored(pl.concat(predictions), pl.concat(unpredicted)), choices


def _rungs(
    platform: Platform, data: Data, sessions: Sequence[date]
) -> Iterator[tuple[fallback.Choice[Rung], list[date]]]:
    """Sessions that can be scored together, in order, each with the rung that scores them.

    A session that the champion has learnt from is scored on its own, by the next rung that has not seen it; so is every
    session when only the naive rung is left.
    """
    days, champion = sorted(sessions), platform.model_registry.champion()
    late = [day for day in days if champion is not None and day > champion.trained_through]
    for day in days[: len(days) - len(late)]:
        yield choose_rung(platform, data, [day]), [day]
    if not late:
        return
    together = choose_rung(platform, data, late)
    if together.level != fallback.NAIVE or len(late) == 1:
        yield together, late
        return
    for day in late:
        yield choose_rung(platform, data, [day]), [day]


def score_sessions(
    platform: Platform,
    data: Data,
    choice: fallback.Choice[Rung],
    sessions: Sequence[date],
    *,
    history: pl.DataFrame,
    symbols: Sequence[str] | None = None,
) -> Scored:
    """Score sessions in order.

    Parameters
    ----------
    history
        Predictions in force before the first session; their outcomes set the level of the intervals.
    symbols
        Only these; ranks are still among all.
    """
    settings, rung = platform.settings, choice.value
    horizon = rung.calibrator.horizon
    lineage = Lineage(
        horizon=horizon,
        model_name=rung.model_name,
        model_version=rung.model_version,
        fallback_level=choice.level,
        fallback_reason=choice.reason,
        feature_set_hash=rung.feature_set_hash,
        lake_version=data.lake_version,
    )
    recent = data.bars.filter(pl.col("session") >= _since(history, sessions))
    outcomes = [mature(history.select(*PREDICTION_SCHEMA), recent, horizon)]
    predictions, unpredicted = [], []
    quarantined = platform.lake.read("market/quarantined_bars", start=min(sessions), end=max(sessions))
    for day in sorted(sessions):
        known = data.bars.filter(pl.col("session") <= day)
        requested = _requested(platform, known, day, symbols)
        level = adaptive.update(pl.concat(outcomes), rung.calibrator.coverage, settings.predictions.adaptive, day)
        scored = score(
            rung.outputs.filter(pl.col("session") == day),
            bars=known,
            risk=data.risk.filter(pl.col("session") == day),
            calibrator=rung.calibrator,
            lineage=lineage,
            settings=settings.scoring,
            level=level,
            requested=requested,
            quarantined=quarantined.filter(pl.col("session") == day),
        )
        predictions.append(scored.predictions)
        unpredicted.append(scored.unpredicted)
        outcomes.append(mature(scored.predictions, recent, horizon))
    return Scored(pl.concat(predictions), pl.concat(unpredicted))


def with_lineage(platform: Platform, predictions: pl.DataFrame, rung: Rung) -> pl.DataFrame:
    """Add what a replay needs beside the row itself."""
    values = {
        "config_version": platform.settings.version,
        "code_version": code_version(),
        "seed": rung.seed,
        "model_checksum": rung.checksum,
        "superseded": False,
    }
    return predictions.with_columns(pl.lit(values[name], dtype).alias(name) for name, dtype in LINEAGE_SCHEMA.items())


def store(
    platform: Platform, rows: pl.DataFrame, unpredicted: pl.DataFrame, sessions: Sequence[date]
) -> dict[str, int]:
    """Write the scoring of some sessions; earlier scorings of them stay, marked as superseded.

    Returns
    -------
    dict
        Delta version by table.
    """
    lake, start, end = platform.lake, min(sessions), max(sessions)
    again = pl.col("session").is_in(list(sessions))
    old = lake.read(SCORED, start=start, end=end) if lake.exists(SCORED) else pl.DataFrame(schema=SCORED_SCHEMA)
    old = old.join(rows.select("prediction_id"), on="prediction_id", how="anti")
    old = old.with_columns(superseded=pl.col("superseded") | again)
    without = lake.read(UNPREDICTED, start=start, end=end) if lake.exists(UNPREDICTED) else unpredicted.clear()
    return {
        # the predictions are written last: their sessions vouch for both tables
        UNPREDICTED: lake.write_sessions(
            UNPREDICTED, pl.concat([without.filter(~again), unpredicted]), start=start, end=end
        ),
        SCORED: lake.write_sessions(
            SCORED, pl.concat([old.select(*SCORED_SCHEMA), rows.select(*SCORED_SCHEMA)]), start=start, end=end
        ),
    }


def _since(history: pl.DataFrame, sessions: Sequence[date]) -> date:
    first = history["session"].min()
    return min([min(sessions), *([first] if isinstance(first, date) else [])])


def _requested(platform: Platform, known: pl.DataFrame, day: date, symbols: Sequence[str] | None) -> pl.DataFrame:
    """Symbols that should have a prediction for `day`: members, or what was traded lately."""
    last = known["session"].unique().sort().tail(RECENT_SESSIONS)
    traded = known.filter(pl.col("session").is_in(last.implode()))["symbol"].unique().sort()
    asked = pl.Series("symbol", sorted(set(symbols)), pl.String) if symbols is not None else traded
    frame = pl.DataFrame({"symbol": asked}).with_columns(session=pl.lit(day, pl.Date))
    return frame if symbols is not None else inputs.members(platform, frame)


__all__ = [
    "SCORED",
    "SCORED_SCHEMA",
    "UNPREDICTED",
    "UNPREDICTED_SCHEMA",
    "Data",
    "Rung",
    "choose_rung",
    "current",
    "load_data",
    "score_all",
    "score_sessions",
    "sessions_to_score",
    "store",
    "with_lineage",
]
