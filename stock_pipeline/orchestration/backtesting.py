"""Back-tests one strategy on the stored bars, keeps its tables and report, and counts every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from stock_pipeline.core.backtesting.metrics import overfitting_metrics
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.backtesting.strategies import build as build_strategy
from stock_pipeline.orchestration import inputs
from stock_pipeline.orchestration.partitions import table_name
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.training import champion_predictions
from stock_pipeline.storage.code_version import code_version
from stock_pipeline.storage.watermarks import parameters_hash, session_hashes

SUMMARY, TRIALS = "backtests/summary", "backtests/trials"
TABLES = ("equity", "fills", "trades", "monthly")
TRIALS_SCHEMA = {"strategy": pl.String(), "parameters": pl.String(), "sharpe_per_session": pl.Float64()}


@dataclass(frozen=True)
class Prepared:
    """Everything that decides a back-test, read once, and its hash."""

    name: str
    parameters: dict[str, Any]
    bars: pl.DataFrame
    predictions: pl.DataFrame | None
    benchmark: pl.DataFrame | None
    membership: pl.DataFrame | None
    settings: BacktestSettings
    inputs_hash: str


def prepare(
    platform: Platform, name: str, parameters: dict[str, Any], settings: BacktestSettings | None = None
) -> Prepared:
    """Read bars, benchmark and, for model strategies, the champion's out-of-sample predictions.

    Raises
    ------
    ConfigurationError
        The strategy is unknown or a parameter is out of range.
    """
    strategy = build_strategy(name, parameters)
    bars, benchmark, membership = inputs.tradable(platform), inputs.benchmark(platform), inputs.membership(platform)
    champion = platform.model_registry.champion() if strategy.needs_predictions else None
    predictions = champion_predictions(platform, champion) if champion is not None else None
    version = platform.lake.version(inputs.VALIDATED)
    chosen = (settings or platform.settings.backtest).model_copy(
        update={
            "data_version": f"{inputs.VALIDATED}@{version}",
            "model_version": f"{champion.family} version {champion.version}" if champion else None,
        }
    )
    frames = {"bars": bars, "benchmark": benchmark, "predictions": predictions}
    content = session_hashes({label: frame for label, frame in frames.items() if frame is not None})
    digest = parameters_hash(
        content["input_hash"].to_list(),
        "" if membership is None else membership.sort("symbol", "start").write_csv(),
        strategy.parameters.model_dump_json(),
        chosen.model_dump_json(exclude={"data_version", "trials", "trials_sharpe_variance"}),
        code_version("core/backtesting", "core/market", "core/reporting"),
    )
    return Prepared(name, parameters, bars, predictions, benchmark, membership, chosen, digest)


def lacks_predictions(prepared: Prepared) -> bool:
    """Whether a model's strategy cannot run, because no champion has out-of-sample predictions."""
    strategy = build_strategy(prepared.name, prepared.parameters)
    return strategy.needs_predictions and prepared.predictions is None


def is_current(platform: Platform, prepared: Prepared) -> bool:
    """Whether the stored result is of exactly these inputs, and deflated by the trials that are known now."""
    if not platform.lake.exists(SUMMARY):
        return False
    rows = platform.lake.read(SUMMARY).filter(pl.col("strategy") == prepared.name)
    judged = (rows["trials"][0], rows["trials_sharpe_variance"][0]) if rows.height == 1 else None
    return judged == _luck(platform) and rows["inputs_hash"][0] == prepared.inputs_hash


def has_work(platform: Platform) -> bool:
    """Whether a configured strategy is not back-tested on what is there now, or one is shown that is not configured."""
    configured = platform.settings.backtests.strategies
    prepared = [prepare(platform, strategy.name, strategy.parameters) for strategy in configured]
    runnable = [one for one in prepared if not lacks_predictions(one)]
    shown = platform.lake.read(SUMMARY)["strategy"].to_list() if platform.lake.exists(SUMMARY) else []
    names = {strategy.name for strategy in configured}
    return not set(shown) <= names or not all(is_current(platform, one) for one in runnable)


def _luck(platform: Platform) -> tuple[int, float | None]:
    """Number of trials of the market, and the variance of their Sharpe ratios a session."""
    trials = _trials(platform)
    variance: Any = trials["sharpe_per_session"].sort().var() if trials.height > 1 else None
    return trials.height, variance


def count(platform: Platform, prepared: Sequence[Prepared]) -> None:
    """Enter strategies and parameter sets into the trials of this market before any of them is judged."""
    keys = [{"strategy": p.name, "parameters": _parameters_key(p), "sharpe_per_session": None} for p in prepared]
    known = _trials(platform)
    new = pl.DataFrame(keys, schema=TRIALS_SCHEMA).join(known, on=["strategy", "parameters"], how="anti")
    if new.height or not platform.lake.exists(TRIALS):
        platform.lake.replace(TRIALS, pl.concat([known, new]).sort("strategy", "parameters"))


def execute(platform: Platform, prepared: Prepared) -> BacktestResult:
    """Run a prepared back-test and note its Sharpe ratio among the trials of this market."""
    result = run_backtest(
        prepared.name,
        prepared.parameters,
        prepared.bars,
        predictions=prepared.predictions,
        settings=prepared.settings,
        benchmark=prepared.benchmark,
        membership=prepared.membership,
    )
    sharpe = result.metrics.get("sharpe")
    per_session = None if sharpe is None else sharpe / prepared.settings.sessions_per_year**0.5
    mine = (pl.col("strategy") == prepared.name) & (pl.col("parameters") == _parameters_key(prepared))
    noted = pl.when(mine).then(pl.lit(per_session, pl.Float64)).otherwise(pl.col("sharpe_per_session"))
    platform.lake.replace(TRIALS, _trials(platform).with_columns(noted.alias("sharpe_per_session")))
    return result


def deflate(platform: Platform, result: BacktestResult) -> BacktestResult:
    """Judge a result by all trials of the market: the deflated Sharpe ratio does not depend on the order of runs."""
    trials, variance = _luck(platform)
    update = {"trials": trials, "trials_sharpe_variance": variance}
    figures = overfitting_metrics(result.equity["return"].to_numpy(), trials, variance)
    return replace(result, settings=result.settings.model_copy(update=update), metrics={**result.metrics, **figures})


def forget_others(platform: Platform, names: Sequence[str]) -> None:
    """Take strategies that are no longer configured out of the summary; their tables stay."""
    if not platform.lake.exists(SUMMARY):
        return
    summary = platform.lake.read(SUMMARY)
    platform.lake.replace(SUMMARY, summary.filter(pl.col("strategy").is_in(list(names))))


def keep(platform: Platform, prepared: Prepared, result: BacktestResult) -> Path:
    """Store tables, summary row, JSON and report of a result; returns the report's path."""
    frames = result.to_frames()
    for table in TABLES:
        platform.lake.replace(f"backtests/{table}/{table_name(prepared.name)}", frames[table])
    report = write_report(platform, result, platform.reports / "backtests" / table_name(prepared.name))
    summary = result.summary()
    row = {
        "strategy": prepared.name,
        "first_session": summary["first_session"],
        "last_session": summary["last_session"],
        **result.metrics,
        "total_costs": result.costs["total"],
        "parameters": json.dumps(result.parameters, sort_keys=True),
        "data_version": result.settings.data_version,
        "model_version": result.settings.model_version,
        "trials_sharpe_variance": result.settings.trials_sharpe_variance,
        "report": str(report),
        "inputs_hash": prepared.inputs_hash,
    }
    new = pl.DataFrame([row], infer_schema_length=None).with_columns(
        pl.col(name).cast(pl.Float64) for name in result.metrics
    )
    new = new.with_columns(pl.col("model_version").cast(pl.String), pl.col("trials_sharpe_variance").cast(pl.Float64))
    old = platform.lake.read(SUMMARY) if platform.lake.exists(SUMMARY) else new.clear()
    kept = old.filter(pl.col("strategy") != prepared.name)
    platform.lake.replace(SUMMARY, pl.concat([kept, new], how="diagonal").sort("strategy"))
    return report


def write_report(platform: Platform, result: BacktestResult, stem: Path) -> Path:
    """Write the web page and the JSON of a result, each replaced as a whole."""
    from stock_pipeline.core.reporting.backtest import backtest_report

    stem.parent.mkdir(parents=True, exist_ok=True)
    page = stem.with_suffix(".html")
    for path, text in ((page, backtest_report(result)), (stem.with_suffix(".json"), result.to_json())):
        scratch = path.with_suffix(path.suffix + ".new")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    return page


def _trials(platform: Platform) -> pl.DataFrame:
    if not platform.lake.exists(TRIALS):
        return pl.DataFrame(schema=TRIALS_SCHEMA)
    return platform.lake.read(TRIALS).select(*TRIALS_SCHEMA)


def _parameters_key(prepared: Prepared) -> str:
    strategy = build_strategy(prepared.name, prepared.parameters)
    portfolio = prepared.settings.portfolio.model_dump_json()
    return hashlib.sha256((strategy.parameters.model_dump_json() + portfolio).encode()).hexdigest()[:16]
