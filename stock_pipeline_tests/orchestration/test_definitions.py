"""What people see of the definitions, what loading them costs, and that no name in them is misspelt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.orchestration.columns import SCHEMAS
from stock_pipeline.orchestration.definitions import build_definitions
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import spec
from stock_pipeline.orchestration.validation import check_names, validate_definitions
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.orchestration.conftest import make_market

HEAVY = (
    "mlflow", "lightgbm", "sklearn", "vectorbt", "great_expectations", "exchange_calendars", "numba", "matplotlib",
    "plotly", "optuna", "arch", "scipy", "pandera", "yfinance", "akshare",
)  # fmt: skip
GROUPS = {"market", "features", "risk", "models", "predictions", "backtests"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_market(tmp_path_factory.mktemp("definitions"), until="2016-01-05")


@pytest.fixture(scope="module")
def definitions(config: Path) -> dg.Definitions:
    return build_definitions(Platform(load_settings(config, environment={})))


@pytest.mark.requirement("P4", "P1")
def test_every_asset_says_what_it_is_and_who_owns_it(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.materializable_asset_keys]
    assert {node.group_name for node in nodes} == GROUPS
    for node in nodes:
        name = node.key.to_user_string()
        assert node.group_name == node.key.path[0], name
        assert node.owners, name
        assert node.kinds, name
        assert node.description, name
        assert len(node.description) > 20, name
        assert node.metadata, name


@pytest.mark.requirement("P4")
def test_the_stored_tables_show_their_columns(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    without = {"market/quality_report", "models/champion"}  # not tables
    for key in graph.materializable_asset_keys:
        name = key.to_user_string()
        if name in without:
            continue
        schema = graph.get(key).metadata["dagster/column_schema"]
        columns = {column.name: column for column in schema.columns}
        assert [column.name for column in columns.values() if not column.description] == [], name


@pytest.mark.requirement("P4")
def test_the_columns_shown_are_those_that_are_stored(finished: Settings) -> None:
    lake = Platform(finished).lake
    tables = {name: name for name in SCHEMAS} | {
        "models/candidates": "models/oos_predictions/ridge", "backtests/results": "backtests/summary",
    }  # fmt: skip
    for name, table in tables.items():
        if lake.exists(table):
            stored = lake.schema(table)
            assert {column: stored[column] for column in SCHEMAS[name]} == SCHEMAS[name], name
            if name != "backtests/results":  # the page shows the most important columns of it
                assert set(stored) == set(SCHEMAS[name]), name


@pytest.mark.requirement("P1")
def test_every_asset_that_users_read_is_checked(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    checked = {check.asset_key.to_user_string() for check in graph.asset_check_keys}
    assert {
        "market/validated_bars", "features/technical", "risk/symbol_risk", "models/champion", "predictions/scored",
        "predictions/published", "backtests/results",
    } <= checked  # fmt: skip
    blocking = {node.key.name for node in graph.asset_check_nodes if node.blocking}
    assert {"every_row_has_one_fate", "prices_are_possible", "both_ledgers_agree"} <= blocking


@pytest.mark.requirement("P1")
def test_names_are_checked_because_dagster_does_not(config: Path, definitions: dg.Definitions) -> None:
    counts = validate_definitions(load_settings(config, environment={}))
    assert counts["assets"] >= 15
    assert counts["jobs"] == 6

    @dg.multi_asset(specs=[spec("features/mine", "A test asset.", owner="team:quant", deps=["market/validatd_bars"])])
    def mine() -> None: ...

    broken = dg.Definitions.merge(definitions, dg.Definitions(assets=[mine]))
    with pytest.raises(ConfigurationError, match="market/validatd_bars") as caught:
        check_names(broken)
    assert "market/validated_bars" in str(caught.value), "the message lists what there is"

    @dg.asset_check(asset=dg.AssetKey(["market", "valid_bars"]))
    def lost() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    with pytest.raises(ConfigurationError, match="valid_bars"):
        check_names(dg.Definitions.merge(definitions, dg.Definitions(asset_checks=[lost])))


@pytest.mark.requirement("P1")
def test_runs_that_write_the_same_tables_carry_the_same_tag(definitions: dg.Definitions) -> None:
    writes = {
        name: definitions.resolve_job_def(name).tags["stock_pipeline/writes"]
        for name in ("prepare", "nightly", "weekly_retrain", "backtest")
    }
    assert writes["prepare"] == writes["nightly"] == writes["weekly_retrain"] == "small:data"
    assert writes["backtest"] == "small:backtests"
    import yaml

    instance = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    limits = instance["concurrency"]["runs"]["tag_concurrency_limits"]
    assert {
        "key": "stock_pipeline/writes", "value": {"applyLimitPerUniqueValue": True}, "limit": 1,
    } in limits  # fmt: skip
    for name in writes:
        assert int(definitions.resolve_job_def(name).tags["dagster/max_runtime"]) <= 4 * 3600


LOADING = """
import json, socket, sys
from pathlib import Path

def refused(*_, **__):
    raise AssertionError("loading the definitions opened a connection")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refused
from stock_pipeline.orchestration.columns import SCHEMAS
from stock_pipeline.orchestration.definitions import defs
loaded = defs()
loaded.resolve_asset_graph()
for job in ("nightly", "weekly_retrain", "backtest"):
    loaded.resolve_job_def(job)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.requirement("P1", "P7")
def test_loading_takes_no_heavy_module_and_no_network(config: Path, tmp_path: Path) -> None:
    """Code server, daemon and every run pay for what is loaded here."""
    import os

    environment = {
        **os.environ, "PYTHONPATH": str(REPOSITORY), "STOCK_PIPELINE_CONFIG": str(config),
        "STOCK_PIPELINE_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LOADING], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & set(HEAVY)
    assert "dagster" in loaded
