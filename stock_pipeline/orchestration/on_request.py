"""What people ask for outside the schedule: predictions of some symbols, a back-test of some parameters.

Each request is a Dagster run of its own job, so that it is seen, kept and timed like all other work.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import yaml

from stock_pipeline.config import Settings
from stock_pipeline.config.layers import parse_yaml
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.errors import ConfigurationError, NotFoundError
from stock_pipeline.orchestration import backtesting, scoring
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline.orchestration.partitions import table_name
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import run_job


def predict_symbols(
    settings: Settings, symbols: Sequence[str], report: Callable[[str], None] = lambda line: None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Predict symbols for the newest session with the best model that can be used; nothing is published.

    Returns
    -------
    tuple
        Predictions and, for symbols without one, the reasons. Ranks are among all symbols of the universe.

    Raises
    ------
    NotFoundError
        There are no bars, or a symbol is unknown.
    """
    platform, instance = Platform(settings), open_instance(settings)
    if not platform.lake.exists("market/validated_bars"):
        raise NotFoundError("there are no bars yet", fix="run `stock-pipeline run` first")
    data = scoring.load_data(platform)
    known = set(data.bars["symbol"].unique().to_list())
    unknown = sorted(set(symbols) - known)
    if unknown:
        raise NotFoundError("there are no bars of these symbols", value=unknown, allowed=_some(sorted(known)))
    found: dict[str, pl.DataFrame] = {}

    @dg.op
    def predict(context: dg.OpExecutionContext) -> None:
        newest = data.bars["session"].max()
        assert isinstance(newest, date)
        choice = scoring.choose_rung(platform, data, [newest])
        context.log.info("predicted by the %s", choice.name)
        history = scoring.current(platform).filter(pl.col("session") < newest)
        scored = scoring.score_sessions(platform, data, choice, [newest], history=history)
        extra = scoring.score_sessions(platform, data, choice, [newest], history=history, symbols=symbols)
        wanted = pl.col("symbol").is_in(list(symbols))
        found["predictions"] = scored.predictions.filter(wanted)
        found["unpredicted"] = pl.concat([scored.unpredicted.filter(wanted), extra.unpredicted.filter(wanted)]).unique(
            ["symbol", "session"], keep="first", maintain_order=True
        )
        context.add_output_metadata({"symbols": len(symbols), "predicted": found["predictions"].height})

    @dg.job(name="predict_on_request", tags={"stock_pipeline/kind": "predict"})
    def job() -> None:
        predict()

    run_job(job, instance, {"stock_pipeline/symbols": ",".join(symbols)[:200]}, report)
    missing = found["unpredicted"].join(found["predictions"], on=["symbol", "session"], how="anti")
    return found["predictions"].sort("rank"), missing


def _some(names: Sequence[str], count: int = 20) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values are YAML, so numbers, booleans and lists keep their types."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise ConfigurationError("a parameter must be NAME=VALUE", value=pair, allowed="such as -p fast=20")
        try:
            values[name.strip()] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"the value of the parameter {name.strip()} cannot be read", value=text, allowed="a YAML value"
            ) from error
    return values


def backtest_strategy(
    settings: Settings,
    strategy: str,
    parameters: Sequence[str] | Mapping[str, Any],
    start: date | None,
    end: date | None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[BacktestResult, Path]:
    """Back-test a strategy and write its report beside those of the configured ones."""
    platform, instance = Platform(settings), open_instance(settings)
    if not platform.lake.exists("market/validated_bars"):
        raise NotFoundError("there are no bars yet", fix="run `stock-pipeline run` first")
    given = dict(parameters) if isinstance(parameters, Mapping) else parse_parameters(parameters)
    asked = {name: day for name, day in (("start", start), ("end", end)) if day is not None}
    chosen = settings.backtest.model_copy(update=asked)
    if chosen.start is not None and chosen.end is not None and chosen.start >= chosen.end:
        raise ConfigurationError(
            "the back-test would end before it starts",
            value=f"{chosen.start} to {chosen.end}",
            fix="correct --from or --to",
        )
    prepared = backtesting.prepare(platform, strategy, given, chosen)
    found: dict[str, Any] = {}

    @dg.op
    def simulate(context: dg.OpExecutionContext) -> None:
        backtesting.count(platform, [prepared])
        result = backtesting.deflate(platform, backtesting.execute(platform, prepared))
        name = f"{table_name(strategy)}-{prepared.inputs_hash}"
        stem = platform.reports / "backtests" / "on_request" / name
        found["result"], found["report"] = result, backtesting.write_report(platform, result, stem)
        context.add_output_metadata({"report": dg.MetadataValue.path(str(found["report"]))})

    @dg.job(name="backtest_on_request", tags={"stock_pipeline/kind": "backtest"})
    def job() -> None:
        simulate()

    with sole_writer(settings.home, [BACKTESTS], report):
        run_job(job, instance, {"stock_pipeline/strategy": strategy}, report)
    return found["result"], found["report"]
