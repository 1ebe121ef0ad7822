"""The jobs: what runs nightly, weekly and on request; upkeep is in `maintenance`."""

from __future__ import annotations

import dagster as dg

from stock_pipeline.config.launches import KIND
from stock_pipeline.config.tasks import JOBS
from stock_pipeline.orchestration.exclusive import BACKTESTS, DATA, WRITES
from stock_pipeline.orchestration.task_jobs import MAX_RETRIES

DATA_GROUPS = ("market", "features", "risk")
MAX_RUNTIME = {"prepare": 4 * 3600, "nightly": 2 * 3600, "weekly_retrain": 4 * 3600, "backtest": 2 * 3600}
"""Time limits in seconds; Dagster's run monitoring ends a run that exceeds its own."""

KINDS = {job: kind for kind, job in JOBS.items()} | {"backtest": "backtests"}
"""The kind of task that a run of each job is; the configured back-tests are no kind that one asks for."""


def build(market: str) -> list[dg.UnresolvedAssetJobDefinition]:
    """All asset jobs of one market."""
    data = dg.AssetSelection.groups(*DATA_GROUPS)
    predictions = dg.AssetSelection.groups("predictions")
    return [
        _job(
            "prepare",
            data,
            "Bars, features and risk, without predictions: the first load, or a rebuild.",
            f"{market}:{DATA}",
        ),
        _job("nightly", data | predictions, "Everything from new prices to the publication.", f"{market}:{DATA}"),
        _job(
            "weekly_retrain",
            dg.AssetSelection.groups("models") | predictions,
            "Train the candidates walk-forward, promote through the gate, score and publish.",
            f"{market}:{DATA}",
        ),
        _job(
            "backtest",
            dg.AssetSelection.groups("backtests"),
            "Back-test strategies and write their reports.",
            f"{market}:{BACKTESTS}",
        ),
    ]


def _job(name: str, selection: dg.AssetSelection, description: str, writes: str) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection,
        description=description,
        tags={
            "dagster/max_runtime": str(MAX_RUNTIME[name]),
            "dagster/max_retries": MAX_RETRIES,
            KIND: KINDS[name],
            WRITES: writes,
        },
    )
