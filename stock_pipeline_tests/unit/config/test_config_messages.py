"""What users read when a configuration is wrong: the key, the value, what is allowed - and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.home import check_home, claim_home
from stock_pipeline.core.errors import ConfigurationError

BASE = {"market": {"name": "m", "calendar": "XNYS"}, "source": {"kind": "files", "path": "prices"}}


def write(folder: Path, values: dict[str, Any]) -> Path:
    file = folder / "market.yaml"
    file.write_text(yaml.safe_dump({**BASE, **values}))
    return file


def load(folder: Path, **values: Any) -> Settings:
    return load_settings(write(folder, values), environment={})


@pytest.mark.requirement("R9.3")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modls": {}}, "modls: there is no such key; did you mean 'models'"),
        ({"models": {"horizn": 3}}, "models.horizn: there is no such key; did you mean 'horizon'"),
        ({"models": {"horizon": 0}}, r"models.horizon: input should be greater than or equal to 1 \(value 0\)"),
        ({"models": {"horizon": "five"}}, r"models.horizon: input should be a valid integer.*\(value 'five'\)"),
        ({"models": {"horizon": float("nan")}}, "models.horizon"),
        ({"models": 3}, "models: must hold keys and values"),
        ({"models": {"families": ["ridge", "ridge"]}}, "models.families: each name may be listed once"),
        ({"models": {"families": ["lightgmb"]}}, "models.families.0: unknown model family: 'lightgmb'; allowed: light"),
        ({"models": {"parameters": {"ridge": {"alpha": -1}}}}, "models.parameters.ridge: parameter alpha"),
        ({"models": {"train": {"window": "rolling"}}}, "models.train: a rolling window needs train_sessions"),
        ({"features": {"sets": ["tecnical"]}}, "features: .*'tecnical'.*did you mean technical"),
        ({"features": {"sets": ["technical", "rsi_14"]}}, "features: the feature rsi_14 is in technical and in rsi_14"),
        ({"features": {"modules": ["no_such_module"]}}, "features.modules.0: .*cannot be found"),
        ({"backtests": {"strategies": ["sma_crss"]}}, "backtests.strategies.0: unknown strategy: 'sma_crss'; allowed:"),
        (
            {"backtests": {"strategies": [{"name": "momentum_rank", "parameters": {"top": 0}}]}},
            "backtests.strategies.0: parameter top of momentum_rank is not acceptable: 0",
        ),
        ({"backtests": {"strategies": []}}, "backtests.strategies: list should have at least 1 item"),
        ({"backtests": {"strategies": ["sma_cross", "sma_cross"]}}, "each strategy may be listed once"),
        ({"backtests": {"costs": {"comission_bps": 1}}}, "backtests.costs.comission_bps: .*'commission_bps'"),
        ({"backtests": {"costs": {"commission_bps": -1}}}, "commission_bps must be a number from 0 to 1000; it is -1"),
        ({"backtests": {"costs": {"commission_bps": 1, "commission_rate": 0}}}, "are the same cost; keep one"),
        ({"backtests": {"start": "2020-01-01", "end": "2019-01-01"}}, "must be before end"),
        ({"backtests": {"execution": {"rules": "UK"}}}, "backtests.execution.rules: unknown exchange rules: 'UK'"),
        ({"market": {"name": "m", "calendar": "NYSX"}}, "market.calendar: unknown exchange calendar: 'NYSX'"),
        ({"market": {"name": "m", "calendar": "XNYS", "currency": "usd"}}, "market.currency: .*ISO 4217.*'usd'"),
        ({"market": {"name": "m", "calendar": "XNYS", "owner": "bob"}}, "market.owner: .*team:NAME or an e-mail"),
        (
            {"market": {"name": "m", "calendar": "XNYS", "history": {"first": 2020, "last": 2010}}},
            r"market.history: last \(2010\) must not be before first \(2020\)",
        ),
        ({"source": {"path": "x"}}, "source.kind: must be one of .*; it is missing"),
        ({"source": {"kind": "fils", "path": "x"}}, r"source.kind: must be one of 'files'.*\(value 'fils'\)"),
        ({"source": {"kind": "files", "path": "x", "colums": {}}}, "source.colums: .*did you mean 'columns'"),
        ({"source": {"kind": "files", "path": "x", "columns": {"symbl": "t"}}}, "source.columns: .*mean symbol"),
        ({"source": {"kind": "files", "path": "x", "membership": {"pth": "m"}}}, "source.membership.pth: .*'path'"),
        ({"universe": {"symbols": [True, "AAPL"]}}, "universe.symbols: True is not text; write symbols in quotes"),
        ({"universe": {"symbols": "ALL"}}, "universe.symbols: write all, or a list"),
        (
            {"universe": {"membership": "a"}, "source": {"kind": "files", "path": "x", "membership": "b"}},
            "universe.membership and source.membership are the same file",
        ),
        ({"storage": {"lake_uri": "x"}}, "lake_uri is worked out, not given"),
        ({"config_file": "x"}, "config_file: there is no such key"),
    ],
)
def test_the_message_names_key_value_and_what_is_allowed(tmp_path, values, message):
    with pytest.raises(ConfigurationError, match=message):
        load(tmp_path, **values)


@pytest.mark.requirement("R9.3")
def test_every_fault_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="has 3 faults") as told:
        load(tmp_path, models={"horizon": 0, "sed": 1}, universe={"min_history": "many"})
    for key in ("models.horizon", "models.sed", "universe.min_history"):
        assert f"  - {key}: " in str(told.value)


@pytest.mark.requirement("P8")
def test_a_short_file_is_enough(tmp_path):
    """The form that the documentation shows."""
    file = tmp_path / "market.yaml"
    file.write_text("""
home: data/home
market: {name: my_market, calendar: XNYS, currency: USD}
source: {kind: files, path: /data/prices, glob: "*.parquet", columns: {symbol: ticker, session: date}, prices: adjusted}
universe: {symbols: all, membership: null, min_history: 252}
features: {sets: [technical, alpha158]}
models: {families: [lightgbm, ridge], horizon: 5, train: {window: expanding, folds: 5, embargo: 5}}
backtests: {strategies: [sma_cross, model_rank], costs: {commission_bps: 5, slippage_bps: 5}}
""")
    settings = load_settings(file, environment={})
    assert settings.backtest.costs.commission_rate == pytest.approx(0.0005)
    assert settings.models.training.horizon == 5


@pytest.mark.requirement("R3.3")
@pytest.mark.parametrize(
    ("calendar", "rules", "sessions"),
    [("XNYS", "US", 252), ("XSHG", "CN", 252), ("SZSE", "CN", 252), ("24/7", "none", 365), ("XNSE", "US", 252)],
)
def test_exchange_rules_follow_the_calendar(tmp_path, calendar, rules, sessions):
    market = {"name": "m", "calendar": calendar}
    backtest = load(tmp_path, market=market).backtest
    assert (backtest.execution.rules, backtest.sessions_per_year) == (rules, sessions)
    given = {"execution": {"rules": "none"}, "sessions_per_year": 250}
    backtest = load(tmp_path, market=market, backtests=given).backtest
    assert (backtest.execution.rules, backtest.sessions_per_year) == ("none", 250), "what is written wins"


UNSAFE = {
    "services.host": {"services": {"host": "0.0.0.0"}},
    "alerts.targets": {"alerts": {"targets": ["mailtos://me:hunter2@example.org"]}},
    "storage.options.aws_secret_access_key": {"storage": {"options": {"aws_secret_access_key": "hunter2"}}},
    "storage.metadata": {"storage": {"metadata": "postgresql://me:hunter2@db/stocks"}},
    "storage.mlflow": {"storage": {"mlflow": "postgresql://me:hunter2@db/mlflow"}},
    "storage.dagster": {"storage": {"dagster": "postgresql+psycopg2://me:hunter2@db/dagster"}},
    "tasks.workers.broker": {
        "storage": {"dagster": "postgresql+psycopg2://db/dagster", "metadata": "postgresql+psycopg2://db/stocks"},
        "tasks": {"workers": {"broker": "redis://:hunter2@queue:6379/0"}},
    },
}


@pytest.mark.requirement("R9.5", "R9.4")
@pytest.mark.parametrize("key", UNSAFE)
def test_production_refuses_what_is_unsafe(tmp_path, key):
    load(tmp_path, **UNSAFE[key])
    with pytest.raises(ConfigurationError, match=f"  - {key}: .*allowed in prod") as told:
        load(tmp_path, environment="prod", **UNSAFE[key])
    assert "hunter2" not in str(told.value)


@pytest.mark.requirement("R9.4", "R9.5")
def test_production_takes_secrets_from_variables(tmp_path):
    values = {
        "environment": "prod",
        "services": {"host": "::1"},
        "alerts": {"targets": ["env:ALERT"]},
        "storage": {"metadata": "env:DB", "options": {"aws_secret_access_key": "env:KEY", "region": "x"}},
    }
    file = write(tmp_path, values)
    settings = load_settings(file, environment={"DB": "postgresql://me:hunter2@db/stocks", "KEY": "hunter2"})
    assert settings.storage.metadata_url == "postgresql://me:hunter2@db/stocks"
    assert settings.storage.options == {"aws_secret_access_key": "hunter2", "region": "x"}
    with pytest.raises(ConfigurationError, match=r"storage.options.aws_secret_access_key names .* not set: 'KEY'"):
        load_settings(file, environment={"DB": "postgresql://db/stocks"})


@pytest.mark.requirement("R9.4")
@pytest.mark.parametrize(
    "values",
    [
        {"alerts": {"targets": "mailtos://me:hunter2@example.org"}},
        {"alerts": {"targets": [{"url": "mailtos://me:hunter2@example.org"}]}},
        {"alerts": {"target": "mailtos://me:hunter2@example.org"}},
        {"storage": {"metadata": "me:hunter2@db"}},
        {"storage": {"lake_uri": "s3://me:hunter2@x", "options": {"k": "hunter2"}}},
        {"storage": {"options": {"secret": ["hunter2"]}}},
    ],
)
def test_a_message_never_shows_a_secret(tmp_path, values):
    with pytest.raises(ConfigurationError) as told:
        load_settings(write(tmp_path, values), environment={})
    assert "hunter2" not in str(told.value)


@pytest.mark.requirement("R1.1")
def test_users_modules_are_found_beside_the_configuration(tmp_path):
    (tmp_path / "beside_features.py").write_text(
        "from stock_pipeline.core.features import feature\n"
        "@feature(inputs=['close'], lookback=3, source='own', sets=['beside'])\n"
        "def beside_growth(panel):\n    '''Growth over three sessions.'''\n    return panel.growth(panel.close, 3)\n"
    )
    settings = load(tmp_path, features={"modules": ["beside_features"], "sets": ["beside"]})
    assert settings.features.sets == ["beside"]


@pytest.mark.requirement("R9.3")
def test_a_home_folder_belongs_to_one_market(tmp_path):
    mine = load(tmp_path, home="home")
    check_home(mine)
    claim_home(mine)
    claim_home(mine)
    other = load(tmp_path, home="home", market={"name": "other", "calendar": "XNYS"})
    with pytest.raises(ConfigurationError, match="holds the tables of the market 'm'"):
        check_home(other)
