"""What people ask for on the command line: predictions of some symbols, a back-test of some parameters.

Each request is a run of the job that the service launches for the same request, executed in this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from stock_pipeline.config import Settings
from stock_pipeline.config.launches import LaunchSpec, launch_spec
from stock_pipeline.config.tasks import BacktestRequest
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.orchestration import task_jobs, task_requests, work_files
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
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
    task_requests.check_known(platform, symbols)
    request = task_requests.predict_request(task_requests.PredictConfig(symbols=list(dict.fromkeys(symbols))))
    launch = launch_spec(settings, "predict", request)
    outcome = run_job(task_jobs.predict_job(platform), instance, _tags(launch), report, launch.run_config)
    try:
        place = work_files.folder(settings.home, outcome.run_id)
        predictions = work_files.read_frame(place / task_jobs.PREDICTIONS)
        return predictions, work_files.read_frame(place / task_jobs.UNPREDICTED)
    finally:
        work_files.remove(settings.home, outcome.run_id)


def backtest_strategy(
    settings: Settings,
    strategy: str,
    parameters: Mapping[str, Any],
    start: date | None,
    end: date | None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[BacktestResult, Path]:
    """Back-test a strategy and write its report beside those of the configured ones."""
    platform, instance = Platform(settings), open_instance(settings)
    task_requests.check_backtest(platform, strategy, dict(parameters), start, end)
    plain = json.loads(json.dumps(dict(parameters), default=str))  # a date of YAML is a text in JSON
    request = BacktestRequest(strategy=strategy, parameters=plain, start=start, end=end)
    launch = launch_spec(settings, "backtest", request)
    with sole_writer(settings.home, [BACKTESTS], report):
        outcome = run_job(task_jobs.backtest_job(platform), instance, _tags(launch), report, launch.run_config)
    try:
        place = work_files.folder(settings.home, outcome.run_id)
        name = (place / task_jobs.NAME).read_text(encoding="utf-8")
        result = work_files.load_result(place, task_jobs.JUDGED)
    finally:
        work_files.remove(settings.home, outcome.run_id)
    return result, (task_jobs.backtest_folder(platform) / name).with_suffix(".html")


def _tags(launch: LaunchSpec) -> dict[str, str]:
    return {name: value for name, value in launch.tags.items() if name.startswith("stock_pipeline/")}
