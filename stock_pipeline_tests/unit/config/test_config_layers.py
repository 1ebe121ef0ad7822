"""Where settings come from: defaults, file, the environment's file, variables, overrides - and how YAML is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from stock_pipeline.config import load_settings
from stock_pipeline.config.loading import SAMPLE_FILE, find_config
from stock_pipeline.core.errors import ConfigurationError

TEXT = "market: {name: m, calendar: XNYS}\nsource: {kind: files, path: prices}\n"


def write(folder: Path, text: str = "", name: str = "market.yaml") -> Path:
    file = folder / name
    file.write_text(text if name != "market.yaml" else TEXT + text)
    return file


@pytest.mark.requirement("R9.1")
def test_later_layers_win(tmp_path):
    file = write(tmp_path, "environment: prod\nmodels: {horizon: 2, seed: 2}\nrisk: {quantile_window: 500}\n")
    assert load_settings(write(tmp_path), environment={}).models.horizon == 5, "the default"
    file = write(tmp_path, "environment: prod\nmodels: {horizon: 2, seed: 2, families: [ridge]}\n")
    assert load_settings(file, environment={}).models.horizon == 2, "the file"
    write(tmp_path, "models: {horizon: 3, seed: 3}\n", "market.prod.yaml")
    settings = load_settings(file, environment={})
    assert (settings.models.horizon, settings.models.families) == (3, ["ridge"]), "its layer; other keys stay"
    variables = {"STOCK_PIPELINE__MODELS__HORIZON": "4"}
    settings = load_settings(file, environment=variables)
    assert (settings.models.horizon, settings.models.seed) == (4, 3), "a variable"
    overrides = {"models": {"horizon": 6}}
    assert load_settings(file, environment=variables, overrides=overrides).models.horizon == 6, "an override"


@pytest.mark.requirement("R9.1", "R9.5")
def test_a_variable_chooses_the_environment_and_its_layer(tmp_path):
    file = write(tmp_path)
    write(tmp_path, "models: {horizon: 9}\n", "market.test.yaml")
    assert load_settings(file, environment={"STOCK_PIPELINE__ENVIRONMENT": "test"}).models.horizon == 9
    assert load_settings(file, environment={}).models.horizon == 5
    write(tmp_path, "environment: prod\n", "market.test.yaml")
    with pytest.raises(ConfigurationError, match="cannot name another one"):
        load_settings(file, environment={"STOCK_PIPELINE__ENVIRONMENT": "test"})
    with pytest.raises(ConfigurationError, match="environment: input should be 'dev', 'test' or 'prod'"):
        load_settings(file, environment={"STOCK_PIPELINE__ENVIRONMENT": "a/b"})


@pytest.mark.requirement("R9.1")
def test_values_of_variables_are_yaml(tmp_path):
    file = write(tmp_path)
    settings = load_settings(
        file,
        environment={
            "STOCK_PIPELINE__UNIVERSE__SYMBOLS": "[ON, NO, 000001]",
            "STOCK_PIPELINE__SCHEDULES__ENABLED": "true",
            "STOCK_PIPELINE__BACKTESTS__COSTS__COMMISSION_BPS": "10",
        },
    )
    assert settings.universe.symbols == ["ON", "NO", "000001"]
    assert settings.schedules.enabled
    assert settings.backtest.costs.commission_rate == pytest.approx(0.001)
    with pytest.raises(ConfigurationError, match="does not name a key"):
        load_settings(file, environment={"STOCK_PIPELINE____X": "1"})


@pytest.mark.requirement("R9.1")
def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / "market.yaml"
    file.write_text(
        "home: ../state\nmarket: {name: m, calendar: XNYS}\nuniverse: {membership: members.csv}\n"
        "source: {kind: files, path: ../prices, benchmark: {path: index.csv, symbol: SPX}}\nstorage: {lake: lake}\n"
    )
    settings = load_settings("conf/market.yaml", environment={})
    assert settings.home == tmp_path / "state"
    assert settings.source.path == str(tmp_path / "prices")
    assert settings.source.benchmark.path == str(tmp_path / "conf" / "index.csv")
    assert settings.source.membership.path == str(tmp_path / "conf" / "members.csv")
    assert settings.storage.lake_uri == str(tmp_path / "conf" / "lake")
    assert settings.storage.mlflow_uri == f"sqlite:///{tmp_path / 'state' / 'mlflow' / 'mlflow.db'}"
    moved = load_settings("conf/market.yaml", environment={"STOCK_PIPELINE_HOME": "elsewhere"})
    assert moved.home == tmp_path / "elsewhere", "a variable is relative to where the user stands"


@pytest.mark.requirement("R9.1")
def test_which_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(environment={}) == SAMPLE_FILE
    here = tmp_path / "stock_pipeline.yaml"
    here.write_text(TEXT)
    assert find_config(environment={}) == here
    assert find_config(environment={"STOCK_PIPELINE_CONFIG": "other.yaml"}) == tmp_path / "other.yaml"
    assert find_config("third.yaml", environment={"STOCK_PIPELINE_CONFIG": "other.yaml"}) == tmp_path / "third.yaml"
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration file.*third\.yaml.*init"):
        load_settings("third.yaml", environment={})


@pytest.mark.requirement("R9.3")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [", "not valid YAML"),
        ("models: {horizon: 3}\nmodels: {seed: 1}\n", "the key 'models' stands twice"),
        ("models: {horizon: 3, horizon: 4}\n", "the key 'horizon' stands twice"),
        ("home: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_faulty_yaml_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message):
        load_settings(write(tmp_path, text), environment={})


@pytest.mark.requirement("R9.3")
def test_a_file_that_is_no_mapping(tmp_path):
    file = write(tmp_path, "- a\n- b\n", "list.yaml")
    with pytest.raises(ConfigurationError, match="must hold keys and values"):
        load_settings(file, environment={})
    file = write(tmp_path, "", "empty.yaml")
    with pytest.raises(ConfigurationError, match=r"market: must be given\n.*source: must be given"):
        load_settings(file, environment={})


@pytest.mark.requirement("R9.3")
def test_a_section_of_comments_only_is_as_good_as_absent(tmp_path):
    settings = load_settings(write(tmp_path, "models:\n  # horizon: 3\n"), environment={})
    assert settings.models.horizon == 5
