"""The jobs of work that people ask for: predictions of some symbols, a back-test of some parameters.

What passes from step to step lies in files (`work_files`), so a run may be paused after each step and go on in another
process.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from stock_pipeline.config.launches import KIND, STARTED_BY
from stock_pipeline.config.tasks import JOBS
from stock_pipeline.orchestration import backtesting, work_files
from stock_pipeline.orchestration.exclusive import BACKTESTS, WRITES
from stock_pipeline.orchestration.partitions import table_name
from stock_pipeline.orchestration.relay_records import RESULT, task_id
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.task_requests import (
    BacktestConfig,
    PredictConfig,
    backtest_request,
    backtest_settings,
    check_backtest,
    check_known,
    predict_now,
    predict_request,
)

MAX_RUNTIME = {"predict": 1800, "backtest": 3600}
"""Time limits in seconds."""

MAX_RETRIES = "2"
"""How often a run is started again whose process died."""

PREDICTIONS, UNPREDICTED = "predictions.parquet", "unpredicted.parquet"
SIMULATED, JUDGED, NAME = "simulated", "judged", "name.txt"


def build(platform: Platform) -> list[dg.JobDefinition]:
    """Both jobs of one configuration."""
    return [predict_job(platform), backtest_job(platform)]


def predict_job(platform: Platform) -> dg.JobDefinition:
    """Predict symbols for the newest session with the best model that can be used; nothing is published."""
    nothing = dg.Out(dg.Nothing)
    home = platform.settings.home

    @dg.op(out=nothing, description="Are there bars of these symbols?")
    def check_symbols(context: dg.OpExecutionContext, config: PredictConfig) -> None:
        check_known(platform, predict_request(config).symbols)

    @dg.op(ins={"checked": dg.In(dg.Nothing)}, out=nothing, description="Score them with the ladder of models.")
    def predict(context: dg.OpExecutionContext) -> None:
        symbols = _config(context, "check_symbols")["symbols"]
        predictions, unpredicted, model = predict_now(platform, symbols)
        context.log.info("predicted by the %s", model)
        place = work_files.folder(home, task_id(context.run))
        work_files.write_frame(place / PREDICTIONS, predictions)
        work_files.write_frame(place / UNPREDICTED, unpredicted)

    @dg.op(ins={"predicted": dg.In(dg.Nothing)}, out=nothing, description="Keep predictions and reasons as JSON.")
    def write_predictions(context: dg.OpExecutionContext) -> None:
        task = task_id(context.run)
        symbols = _config(context, "check_symbols")["symbols"]
        place = work_files.folder(home, task)
        predictions = work_files.read_frame(place / PREDICTIONS)
        unpredicted = work_files.read_frame(place / UNPREDICTED)
        reasons = dict(unpredicted.select("symbol", "reason").iter_rows())
        result = {"symbols": len(symbols), "predicted": predictions.height, "unpredicted": reasons}
        content = {
            "task": task,
            "made_at": datetime.now(UTC).isoformat(),
            "predictions": json.loads(predictions.write_json()),
            "unpredicted": json.loads(unpredicted.write_json()),
        }
        path = predictions_file(platform, task)
        work_files.write_text(path, json.dumps(content, allow_nan=False))
        context.add_output_metadata(
            {
                "symbols": len(symbols),
                "predicted": predictions.height,
                RESULT: dg.MetadataValue.json(result),
                "kept": dg.MetadataValue.path(str(path)),
            }
        )
        _tidy(context, home)

    @dg.job(name=JOBS["predict"], description=predict_job.__doc__, tags=_tags("predict"))
    def job() -> None:
        write_predictions(predict(check_symbols()))

    return job


def backtest_job(platform: Platform) -> dg.JobDefinition:
    """Back-test one strategy with one set of parameters and write its report."""
    nothing = dg.Out(dg.Nothing)
    home = platform.settings.home

    @dg.op(out=nothing, description="Are there bars, is the strategy known, are its parameters and dates acceptable?")
    def check_request(context: dg.OpExecutionContext, config: BacktestConfig) -> None:
        request = backtest_request(config)
        check_backtest(platform, request.strategy, request.parameters, request.start, request.end)

    @dg.op(ins={"checked": dg.In(dg.Nothing)}, out=nothing, description="Trade the strategy, and book it twice.")
    def simulate(context: dg.OpExecutionContext) -> None:
        request = backtest_request(BacktestConfig(**_config(context, "check_request")))
        chosen = backtest_settings(platform, request.start, request.end)
        prepared = backtesting.prepare(platform, request.strategy, request.parameters, chosen)
        backtesting.count(platform, [prepared])
        place = work_files.folder(home, task_id(context.run))
        work_files.save_result(place, SIMULATED, backtesting.execute(platform, prepared))
        work_files.write_text(place / NAME, f"{table_name(request.strategy)}-{prepared.inputs_hash}")

    @dg.op(ins={"simulated": dg.In(dg.Nothing)}, out=nothing, description="Judge it by all trials of the market.")
    def judge(context: dg.OpExecutionContext) -> None:
        place = work_files.folder(home, task_id(context.run))
        result = backtesting.deflate(platform, work_files.load_result(place, SIMULATED))
        work_files.save_result(place, JUDGED, result)

    @dg.op(ins={"judged": dg.In(dg.Nothing)}, out=nothing, description="Write the web page and the JSON.")
    def write_report(context: dg.OpExecutionContext) -> None:
        place = work_files.folder(home, task_id(context.run))
        result = work_files.load_result(place, JUDGED)
        stem = backtest_folder(platform) / (place / NAME).read_text(encoding="utf-8")
        report = backtesting.write_report(platform, result, stem)
        figures = {name: result.metrics.get(name) for name in ("sharpe", "annual_return", "max_drawdown")}
        found = {"id": stem.name, "strategy": result.strategy, **figures, "trades": result.trades.height}
        context.add_output_metadata(
            {"report": dg.MetadataValue.path(str(report)), RESULT: dg.MetadataValue.json(found)}
        )
        _tidy(context, home)

    writes = {WRITES: f"{platform.settings.market.name}:{BACKTESTS}"}

    @dg.job(name=JOBS["backtest"], description=backtest_job.__doc__, tags=_tags("backtest") | writes)
    def job() -> None:
        write_report(judge(simulate(check_request())))

    return job


def predictions_file(platform: Platform, task: str) -> Path:
    """Where the predictions of a task are kept."""
    return predictions_folder(platform) / f"{task}.json"


def predictions_folder(platform: Platform) -> Path:
    """Where predictions on request are kept."""
    return platform.reports / "predictions"


def backtest_folder(platform: Platform) -> Path:
    """Where the reports of back-tests on request lie."""
    return platform.reports / "backtests" / "on_request"


def _config(context: dg.OpExecutionContext, op: str) -> dict[str, Any]:
    config: Any = context.run.run_config
    return dict(config["ops"][op]["config"])


def _tags(kind: str) -> dict[str, str]:
    return {KIND: kind, "dagster/max_runtime": str(MAX_RUNTIME[kind]), "dagster/max_retries": MAX_RETRIES}


def _tidy(context: dg.OpExecutionContext, home: Path) -> None:
    if context.run.tags.get(STARTED_BY) != "command line":  # the command line reads the files itself
        work_files.remove(home, task_id(context.run))
