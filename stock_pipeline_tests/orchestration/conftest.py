"""A small real market, run through the whole pipeline once; tests that change something get a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.storage.locks import file_lock
from stock_pipeline_tests.conftest import SAMPLE
from stock_pipeline_tests.copies import copy_market
from stock_pipeline_tests.patience import patient_limits  # noqa: F401

SMALL: dict[str, Any] = {
    "home": "home",
    "market": {"name": "small", "calendar": "XNYS", "history": {"first": 2016, "last": 2021}},
    "source": {"kind": "files", "path": "prices", "prices": "raw_with_adj_close"},
    "universe": {"min_history": 100},
    "features": {"sets": ["technical"], "exclude": []},
    "models": {
        "families": ["ridge", "lightgbm"],
        "horizon": 5,
        "parameters": {"lightgbm": {"rounds": 30}},
        "train": {"folds": 2, "embargo": 5, "holdout_sessions": 40},
    },
    "predictions": {"conformal": {"minimum_residuals": 200}},
    "risk": {"quantile_window": 250, "quantile_minimum": 150},
    "backtests": {"strategies": ["buy_and_hold", {"name": "model_rank", "parameters": {"top": 2}}]},
}
SYMBOLS = ("AAPL", "AMZN", "GOOG", "NFLX")


def make_market(folder: Path, *, until: str = "2021-06-30", changes: dict[str, Any] | None = None) -> Path:
    """Write four real stocks from 2016 to `until` and a configuration; returns the configuration's path."""
    prices = folder / "prices"
    prices.mkdir(parents=True, exist_ok=True)
    for symbol in SYMBOLS:
        lines = (SAMPLE / "bars" / f"{symbol}.csv").read_text().splitlines()
        kept = [line for line in lines[1:] if "2016-01-01" <= line.split(",")[1] <= until]
        (prices / f"{symbol}.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    config = folder / "market.yaml"
    config.write_text(yaml.safe_dump({**SMALL, **(changes or {})}))
    return config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small market after a complete first run; not to be changed.

    The first worker of pytest-xdist that needs it runs it, and leaves a copy that nobody opens to the others.
    """
    folder = tmp_path_factory.mktemp("finished")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _run(folder)
    left = tmp_path_factory.getbasetemp().parent / "finished"
    with file_lock(left.with_suffix(".lock"), timeout=3600):
        if left.exists():
            copy_market(left, folder)
            return load_settings(folder / "market.yaml", environment={})
        settings = _run(folder)
        shutil.rmtree(left.with_suffix(".new"), ignore_errors=True)  # left by a worker that ended while it copied
        copy_market(folder, left.with_suffix(".new"))
        left.with_suffix(".new").rename(left)
        return settings


def _run(folder: Path) -> Settings:
    from stock_pipeline.orchestration.runner import Runner

    settings = load_settings(make_market(folder), environment={})
    Runner(settings).catch_up()
    return settings


@pytest.fixture
def copy_of_finished(finished: Settings, tmp_path: Path) -> Callable[[], Settings]:
    """Gives a private copy of the finished market, home folder included."""

    def copy() -> Settings:
        target = tmp_path / "copy"
        copy_market(finished.config_file.parent, target)
        return load_settings(target / "market.yaml", environment={})

    return copy
