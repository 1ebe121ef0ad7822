"""Trains families on the data at hand, registers them with their calibrator and card, and decides who is champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.core.modelling import dataset as datasets
from stock_pipeline.core.modelling.labels import forward_returns, past_returns
from stock_pipeline.core.modelling.progress import Progress
from stock_pipeline.core.modelling.promotion import (
    Contender,
    PromotionDecision,
    best_candidate,
    decide,
    too_good_to_be_true,
)
from stock_pipeline.core.modelling.search import search
from stock_pipeline.core.modelling.training import TrainingResult, train_walk_forward
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction import conformal
from stock_pipeline.core.prediction.walk_forward import walk_forward_intervals
from stock_pipeline.orchestration import inputs
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.code_version import code_version
from stock_pipeline.storage.model_registry import ModelMetadata, ModelVersion
from stock_pipeline.storage.watermarks import parameters_hash, session_hashes

BASELINES = ("zero", "always_up", "momentum")
"""Naive forecasts that every model is judged against."""

PAST_RETURN = "baseline_past_return_250"
"""Input of the momentum baseline; models do not see it."""

INPUTS_TAG, ACKNOWLEDGED_TAG, DECISION_TAG = "inputs_hash", "acknowledged_by", "decision"


def oos_table(family: str) -> str:
    """Lake table of the out-of-sample predictions of a family."""
    return f"models/oos_predictions/{family}"


def intervals_table(family: str) -> str:
    """Lake table of a family's walk-forward intervals: calibrated on earlier years, adapted as outcomes matured."""
    return f"models/walk_forward_intervals/{family}"


@dataclass(frozen=True)
class TrainingData:
    """What all families learn from, in one frame, and a hash of it."""

    frame: pl.DataFrame
    feature_names: tuple[str, ...]
    feature_set_hash: str
    volatility: pl.DataFrame
    data_version: dict[str, int]
    inputs_hash: str


def load(platform: Platform) -> TrainingData:
    """Features of the universe's members beside their labels."""
    settings, lake = platform.settings, platform.lake
    bars = inputs.bars(platform)
    labels = forward_returns(bars, settings.models.horizon)
    frame = datasets.join(inputs.members(platform, inputs.features(platform)), labels)
    names = tuple(column for column in frame.columns if column not in datasets.KEYS)
    past = past_returns(bars, name=PAST_RETURN)
    frame = frame.join(past, on=["symbol", "session"], how="left", maintain_order="left")
    risk = lake.read("risk/symbol_risk", columns=["symbol", "session", "volatility"])
    tables = [inputs.VALIDATED, "risk/symbol_risk", *(f"features/{name}" for name in settings.features.sets)]
    matured = frame.filter(pl.col("label").is_not_null())
    content = session_hashes({"dataset": matured}).hash_rows().sort()
    return TrainingData(
        frame=frame,
        feature_names=names,
        feature_set_hash=inputs.feature_hash(platform),
        volatility=risk,
        data_version=lake.versions(tables),
        inputs_hash=parameters_hash(
            *(int(value) for value in (content.len(), content.hash(7).sum() % 2**63)),
            settings.models.model_dump_json(exclude={"promotion"}),
            settings.predictions.conformal.model_dump_json(),
            code_version("core/modelling"),
        ),
    )


def latest(platform: Platform, family: str) -> ModelVersion | None:
    """Newest registered version of a family."""
    return next((v for v in reversed(platform.model_registry.versions()) if v.family == family), None)


def is_current(platform: Platform, data: TrainingData, family: str) -> bool:
    """Whether the newest version of a family was trained on exactly this data with these settings."""
    version = latest(platform, family)
    return (
        version is not None
        and version.tags.get(INPUTS_TAG) == data.inputs_hash
        and platform.lake.exists(intervals_table(family))
    )


def out_of_sample(platform: Platform, family: str) -> pl.DataFrame:
    """Walk-forward predictions of a family or baseline, without the hold-out."""
    return newest_version(platform.lake.read(oos_table(family))).filter(pl.col("fold") > 0)


def newest_version(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of the newest version of a family (a baseline has but one)."""
    number = pl.col("model_version").cast(pl.Int64, strict=False).fill_null(0)
    return rows.filter(number == number.max())


def links(platform: Platform, families: Sequence[str]) -> dict[str, dg.MetadataValue[Any]]:
    """Address of the newest MLflow run of each family."""
    found = {family: version for family in families if (version := latest(platform, family)) is not None}
    return {f"mlflow_{name}": dg.MetadataValue.url(platform.mlflow_url + v.run_path) for name, v in found.items()}


def train_baseline(platform: Platform, data: TrainingData, family: str) -> pl.DataFrame:
    """Walk a naive forecast forward and store its out-of-sample predictions."""
    parameters = {"column": PAST_RETURN} if family == "momentum" else None
    names = (PAST_RETURN,) if family == "momentum" else data.feature_names
    result = _fit(platform, data, family, names, parameters, lambda progress: None)
    _store(platform, result, family)
    return result.oos


def train_family(
    platform: Platform,
    data: TrainingData,
    family: str,
    report: Callable[[str], None],
    count: Callable[[str, int, int, str], None] = lambda unit, done, total, of: None,
) -> tuple[ModelVersion, TrainingResult]:
    """Train one family walk-forward and register its final model with calibrator and card.

    Parameters
    ----------
    report
        Takes lines for people.
    count
        Takes what is counted, how many are done of how many, and the family.
    """
    from stock_pipeline.core.reporting.model_card import model_card

    settings = platform.settings
    metadata = ModelMetadata(
        feature_set="+".join(settings.features.sets),
        feature_set_hash=data.feature_set_hash,
        data_version=data.data_version,
        code_version=code_version(),
        market=settings.market.name,
        tags={INPUTS_TAG: data.inputs_hash, "config_version": settings.version},
    )
    baselines = {name: out_of_sample(platform, name) for name in BASELINES}
    with platform.model_registry.training_run(family, metadata) as run:

        def progress(message: Progress) -> None:
            run.progress(message)
            if message.stage != "round":
                what = "final model" if message.stage == "final" else f"fold {message.fold} of {message.folds}"
                skill = message.metrics.get("rank_ic")
                report(f"{family}: {what} done" + (f", rank IC {skill:+.4f}" if skill is not None else ""))
                # the final model is one more fit
                done = message.folds + 1 if message.stage == "final" else message.fold
                count("fold", done, message.folds + 1, family)

        def trial(message: Progress) -> None:
            run.progress(message)
            if message.stage == "trial":
                count("trial", message.fold, message.folds, family)

        parameters: Parameters | Mapping[str, Any] | None = settings.models.parameters.get(family)
        if settings.models.search is not None:
            found = search(
                data.frame,
                feature_names=data.feature_names,
                family=family,
                training=settings.models.training,
                settings=settings.models.search,
                base=parameters,
                seed=settings.models.seed,
                progress=trial,
            )
            run.log_frame("trials", found.trials, folder="search")
            report(f"{family}: best of {found.count} parameter sets is {found.parameters.model_dump(mode='json')}")
            parameters = found.parameters
        result = _fit(platform, data, family, data.feature_names, parameters, progress)
        with_risk = result.oos.join(data.volatility, on=["symbol", "session"], how="left")
        calibrator = conformal.fit(with_risk, horizon=settings.models.horizon, settings=settings.predictions.conformal)
        version = run.finish(
            result,
            model_card(
                result,
                baselines,
                market=metadata.market,
                feature_set=metadata.feature_set,
                feature_set_hash=metadata.feature_set_hash,
                data_version=metadata.data_version,
                code_version=metadata.code_version,
                trials=trials(platform),
            ),
            calibrator.model_dump_json(),
            baselines=baselines,
            example=data.frame.select(data.feature_names).tail(3),
        )
    _store(platform, result, str(version.version))
    intervals = walk_forward_intervals(
        with_risk,
        horizon=settings.models.horizon,
        settings=settings.predictions.conformal,
        adaptive=settings.predictions.adaptive,
    )
    _keep(platform, intervals_table(family), intervals, str(version.version))
    return version, result


def _store(platform: Platform, result: TrainingResult, version: str) -> None:
    """Keep the out-of-sample predictions of a training, each with the newest session that its model had seen."""
    seen = result.fold_metrics.select(pl.col("fold").cast(pl.Int32), "trained_through")
    last = pl.DataFrame({"fold": [0], "trained_through": [result.trained_through]}, schema=seen.schema)
    rows = pl.concat([result.oos, result.holdout]).join(pl.concat([seen, last]), on="fold", how="left")
    _keep(platform, oos_table(result.family), rows, version)


def _keep(platform: Platform, table: str, rows: pl.DataFrame, version: str) -> None:
    """Put a version's rows beside those of the champion and the previous champion, which are still in use."""
    rows = rows.with_columns(model_version=pl.lit(version)).sort("symbol", "session")
    if platform.lake.exists(table):
        used = {str(v.version) for v in platform.model_registry.versions() if set(v.aliases) & {"champion", "previous"}}
        old = platform.lake.read(table)
        if dict(old.schema) == dict(rows.schema):
            rows = pl.concat([old.filter(pl.col("model_version").is_in(list(used - {version}))), rows])
    platform.lake.replace(table, rows)


def champion_predictions(platform: Platform, champion: ModelVersion) -> pl.DataFrame | None:
    """Out-of-sample predictions of exactly this version, hold-out included; ``None`` where they are not kept."""
    table = oos_table(champion.family)
    if not platform.lake.exists(table):
        return None
    rows = platform.lake.read(table).filter(pl.col("model_version") == str(champion.version))
    return rows.select("symbol", "session", "prediction", "trained_through") if rows.height else None


def trials(platform: Platform) -> int:
    """How many models and parameter sets are tried to find a champion."""
    models = platform.settings.models
    each = models.search.trials if models.search is not None else 1
    return each * sum(family not in BASELINES for family in models.families)


def _fit(
    platform: Platform,
    data: TrainingData,
    family: str,
    names: Sequence[str],
    parameters: Parameters | Mapping[str, Any] | None,
    progress: Callable[[Progress], None],
) -> TrainingResult:
    models = platform.settings.models
    return train_walk_forward(
        data.frame,
        feature_names=names,
        family=family,
        parameters=parameters,
        settings=models.training,
        seed=models.seed,
        progress=progress,
    )


@dataclass(frozen=True)
class Election:
    """The decision about the best candidate, and who is champion afterwards."""

    candidate: ModelVersion
    champion: ModelVersion | None
    decision: PromotionDecision | None
    alarms: dict[str, list[str]]


def elect(platform: Platform) -> Election | None:
    """Apply the promotion rule to the newest version of every family; ``None`` when there is no version.

    The champion's alias moves only through the rule; the best candidate that was not promoted becomes challenger.
    """
    registry, policy = platform.model_registry, platform.settings.models.promotion
    versions = {
        family: version
        for family in platform.settings.models.families
        if family not in BASELINES and (version := latest(platform, family)) is not None
    }
    if not versions:
        return None
    oos = {family: registry.oos(version.version) for family, version in versions.items()}
    horizon = platform.settings.models.horizon
    found = {family: too_good_to_be_true(frame, policy, horizon=horizon) for family, frame in oos.items()}
    alarms = {family: phrases for family, phrases in found.items() if phrases}
    # a candidate with an alarm waits for a person, and must not keep a clean one from office
    clean = {f: frame for f, frame in oos.items() if f not in alarms or versions[f].tags.get(ACKNOWLEDGED_TAG)}
    candidate = versions[best_candidate(clean or oos, policy)]
    present = registry.champion()
    vacated: tuple[str, ...] = ()
    if present is not None and present.feature_set_hash != candidate.feature_set_hash:
        # it cannot read the features that are computed now, so it can no longer predict: the office is vacant
        vacated = (
            f"{present.family} version {present.version} was trained on other features and can no longer predict",
        )
        present = None
    if present is not None and present.version == candidate.version:
        return Election(candidate, present, None, alarms)
    decision = decide(
        _contender(candidate, oos[candidate.family]),
        None if present is None else _contender(present, registry.oos(present.version)),
        {name: out_of_sample(platform, name) for name in BASELINES},
        policy,
        trials=trials(platform),
        horizon=horizon,
        acknowledged_by=candidate.tags.get(ACKNOWLEDGED_TAG),
    )
    decision = replace(decision, reasons=(*vacated, *decision.reasons))
    registry.tag(candidate.version, DECISION_TAG, "\n".join(decision.reasons))
    if decision.promote:
        registry.promote(candidate.version)
    else:
        registry.set_alias("challenger", candidate.version)
    return Election(registry.get(candidate.version), registry.champion(), decision, alarms)


def _contender(version: ModelVersion, oos: pl.DataFrame) -> Contender:
    return Contender(
        f"{version.family} version {version.version}",
        oos,
        version.family,
        version.feature_set_hash,
        version.trained_through,
    )
