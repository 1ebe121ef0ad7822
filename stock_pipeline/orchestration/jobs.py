"""The jobs: what runs nightly, weekly, on request, and to look after the house."""

from __future__ import annotations

import dagster as dg

DATA_GROUPS = ("market", "features", "risk")
MAX_RUNTIME = {"prepare": 4 * 3600, "nightly": 2 * 3600, "weekly_retrain": 4 * 3600, "backtest": 2 * 3600}
"""Time limits in seconds; Dagster's run monitoring ends a run that exceeds its own."""


def build() -> list[dg.UnresolvedAssetJobDefinition]:
    """All asset jobs."""
    data = dg.AssetSelection.groups(*DATA_GROUPS)
    predictions = dg.AssetSelection.groups("predictions")
    return [
        _job("prepare", data, "Bars, features and risk, without predictions: the first load, or a rebuild."),
        _job("nightly", data | predictions, "Everything from new prices to the publication."),
        _job(
            "weekly_retrain",
            dg.AssetSelection.groups("models") | predictions,
            "Train the candidates walk-forward, promote through the gate, score and publish.",
        ),
        _job("backtest", dg.AssetSelection.groups("backtests"), "Back-test strategies and write their reports."),
    ]


def _job(name: str, selection: dg.AssetSelection, description: str) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection,
        description=description,
        tags={"dagster/max_runtime": str(MAX_RUNTIME[name]), "stock_pipeline/kind": name},
    )
