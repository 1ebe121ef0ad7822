"""From a request to a run: the same job, configuration and tags wherever it was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import pytest

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.launches import (
    FAMILIES,
    FROM,
    KIND,
    PARAMETERS,
    PRIORITY,
    RANGE_END,
    RANGE_START,
    REBUILD,
    TO,
    asked_of,
    family_tags,
    launch_spec,
    priority_of,
)
from stock_pipeline.config.loading import SAMPLE_FILE
from stock_pipeline.config.tasks import (
    JOBS,
    PRIORITIES,
    BackfillRequest,
    BacktestRequest,
    PredictRequest,
    RefreshRequest,
    TrainRequest,
)
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline_tests.conftest import REPOSITORY

TODAY = date(2024, 5, 6)


@pytest.fixture(scope="module")
def settings() -> Settings:
    found = load_settings(SAMPLE_FILE, environment={})
    history = found.market.history.model_copy(update={"first": 2016, "last": None})
    models = found.models.model_copy(update={"families": ["ridge", "lightgbm", "random_forest"]})
    return found.model_copy(update={"market": found.market.model_copy(update={"history": history}), "models": models})


@pytest.mark.requirement("R2.1", "R2.2")
def test_each_kind_is_a_run_of_its_job(settings: Settings) -> None:
    requests = {
        "predict": PredictRequest(symbols=["A", "B"]),
        "backtest": BacktestRequest(strategy="sma_cross", parameters={"fast": 5}, start=date(2020, 1, 2)),
        "train": TrainRequest(families=None),
        "refresh": RefreshRequest(),
        "backfill": BackfillRequest(start=date(2019, 3, 4), end=date(2020, 1, 2), rebuild=True),
    }
    specs = {
        kind: launch_spec(settings, kind, request, priority="urgent", today=TODAY) for kind, request in requests.items()
    }
    for kind, spec in specs.items():
        assert spec.job == JOBS[kind]
        assert spec.tags[KIND] == kind
        assert spec.tags[PRIORITY] == "10"
        assert asked_of(spec.tags) == requests[kind].model_dump(mode="json")
    assert specs["predict"].run_config == {"ops": {"check_symbols": {"config": {"symbols": ["A", "B"]}}}}
    config = specs["backtest"].run_config["ops"]["check_request"]["config"]
    assert config == {"strategy": "sma_cross", "parameters": '{"fast": 5}', "start": "2020-01-02"}
    assert (specs["refresh"].tags[RANGE_START], specs["refresh"].tags[RANGE_END]) == ("2016", "2024")
    tags = specs["backfill"].tags
    assert (tags[RANGE_START], tags[RANGE_END], tags[FROM], tags[TO], tags[REBUILD]) == (
        "2019", "2020", "2019-03-04", "2020-01-02", "true",
    )  # fmt: skip
    newest = launch_spec(settings, "refresh", RefreshRequest(), newest_bars=date(2023, 12, 29), today=TODAY)
    assert (newest.tags[RANGE_START], newest.tags[RANGE_END]) == ("2023", "2024")


@pytest.mark.requirement("R2.1")
def test_families_are_a_range_and_those_between_are_left_out(settings: Settings) -> None:
    assert family_tags(settings, None) == {RANGE_START: "ridge", RANGE_END: "random_forest"}
    assert family_tags(settings, ["lightgbm"]) == {RANGE_START: "lightgbm", RANGE_END: "lightgbm"}
    assert family_tags(settings, ["random_forest", "ridge"]) == {
        RANGE_START: "ridge", RANGE_END: "random_forest", FAMILIES: "ridge,random_forest",
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"not configured: 'forest'; allowed: ridge, lightgbm"):
        family_tags(settings, ["forest", "ridge"])


@pytest.mark.requirement("R2.1")
def test_a_range_outside_the_history_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="outside the market's history"):
        launch_spec(settings, "backfill", BackfillRequest(start=date(2025, 1, 2)), today=TODAY)


@pytest.mark.requirement("R2.2")
def test_priorities_are_read_back_and_tags_of_people_do_no_harm() -> None:
    for name, number in PRIORITIES.items():
        assert priority_of({PRIORITY: str(number)}) == name
    assert [priority_of({PRIORITY: text}) for text in ("-99", "7", "99", "high")] == ["low", "high", "urgent", "normal"]
    assert priority_of({}) == "normal"
    for text in ("{", "[1]", "null"):
        assert asked_of({PARAMETERS: text}) == {}
    assert asked_of({PARAMETERS: json.dumps({"a": 1})}) == {"a": 1}


def test_the_service_builds_launches_without_dagster() -> None:
    code = (
        "import sys, stock_pipeline.config.launches, stock_pipeline.storage.tasks; sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
