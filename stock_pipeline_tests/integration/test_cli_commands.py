"""Every command as a newcomer uses it, on four real stocks: before anything is run, after a run, and with mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.cli import console
from stock_pipeline.cli.console import number_of
from stock_pipeline_tests.commands import Said, command, small_market

SHOWN = ("predictions", "outcomes", "bars", "quality", "risk", "models", "backtests", "findings")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration before any run."""
    return small_market(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A market after its first run, and what the run said."""
    config = small_market(tmp_path_factory.mktemp("finished"))
    return config, command("-c", config, "run")


@pytest.fixture
def done(finished: tuple[Path, Said]) -> Path:
    return finished[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "AAPL"], 1, "there are no bars yet; to fix it: run `stock-pipeline run`"),
        (["backtest", "sma_cross"], 1, "there are no bars yet"),
        (["show", "predictions"], 1, "there are no predictions yet"),
        (["show", "models"], 1, "there are no models yet"),
        (["replay", "abc"], 1, "there is no prediction with this id: 'abc'"),
        (["rollback", "--reason", "x"], 1, "there is no previous champion"),
        (["promote", "1", "--by", "me"], 1, "no such version"),
        (["show", "nothing"], 2, "'nothing' is not one of"),
        (["predict"], 2, "Missing argument"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_before_any_run(fresh, arguments, code, message):
    said = command("-c", fresh, *arguments)
    assert said.code == code
    assert message in said.all


def test_a_configuration_that_is_not_there(tmp_path):
    said = command("-c", tmp_path / "no.yaml", "run")
    assert said.code == 1
    assert "cannot read the configuration file" in said.all


@pytest.mark.requirement("P8", "R4.4")
def test_run_ends_with_a_readable_summary(finished):
    _, said = finished
    assert said.code == 0, said.all
    for part in (
        "raw rows",
        "rank IC",
        "always up",
        "prediction intervals",
        "Kupiec",
        "Newest predictions",
        "buy_and_hold",
    ):
        assert part in said.out, part
    assert "validated_bars ..." in said.err, "progress goes to the other output"


@pytest.mark.parametrize("kind", SHOWN)
def test_show_in_every_form(done, kind, tmp_path):
    table = command("-c", done, "show", kind)
    assert table.code == 0, table.all
    as_json = command("-c", done, "show", kind, "--format", "json")
    rows = json.loads(as_json.out)
    assert len(rows) > 0
    file = tmp_path / f"{kind}.csv"
    said = command("-c", done, "show", kind, "-o", file)
    assert f"{number_of(len(rows), 'row')} written" in said.all
    assert pl.read_csv(file).columns == list(rows[0]), "all columns, whatever the table had room for"
    parquet = tmp_path / f"{kind}.parquet"
    assert command("-c", done, "show", kind, "--format", "parquet", "--output", parquet).code == 0
    assert pl.read_parquet(parquet).height == len(rows)


@pytest.mark.parametrize("kind", [*SHOWN, "quarantine", "unpredicted"])
def test_tables_fit_a_narrow_terminal(done, kind, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 80)
    said = command("-c", done, "show", kind)
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "┃┃" not in said.out, "no column is a sliver"
    assert "…" not in said.out, "nothing is cut off"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "bars", "-s", "NOPE"], "no bars of these symbols: ['NOPE']; allowed: AAPL"),
        (["show", "backtests", "-s", "AAPL"], "leave --symbol out"),
        (["show", "models", "-s", "AAPL"], "leave --symbol out"),
        (["show", "bars", "-f", "parquet"], "Parquet cannot be printed; allowed: --output FILE"),
        (["show", "bars", "-o", "bars.xlsx"], "tells no form: 'bars.xlsx'; allowed: .json, .csv, .parquet"),
        (["show", "bars", "-o", "/no/such/folder/x.csv"], "the folder of the output file does not exist"),
        (["predict", "NOPE"], "no bars of these symbols: ['NOPE']; allowed: AAPL, AMZN, GOOG, NFLX"),
        (["backtest", "nope"], "unknown strategy: 'nope'; allowed: bollinger"),
        (["backtest", "sma_cross", "-p", "fast"], "a parameter must be NAME=VALUE: 'fast'"),
        (["backtest", "sma_cross", "-p", "fast=[1"], "the value of the parameter fast cannot be read: '[1'"),
        (["backtest", "sma_cross", "-p", "fast=100", "-p", "slow=50"], "fast (100) must be smaller than slow (50)"),
        (["backtest", "sma_cross", "-p", "fats=10"], "fast, slow"),
        (["backtest", "sma_cross", "--from", "2021-01-01", "--to", "2020-01-01"], "would end before it starts"),
        (["backtest", "sma_cross", "--from", "2030-01-01"], "fewer than two sessions"),
        (["run", "--from", "2030-01-01"], "outside the market's history"),
        (["replay", "abc"], "there is no prediction with this id"),
        (["promote", "99", "--by", "me"], "no such version"),
        (["features", "list", "-s", "tecnical"], "did you mean technical"),
        (["features", "compute", "-s", "rsi_14", "-i", "nope", "-o", "x.csv"], "does not exist: 'nope'"),
        (["features", "compute", "-s", "rsi_14", "-i", "nope", "-o", "x.txt"], "must be Parquet or CSV: 'x.txt'"),
        (
            ["features", "compute", "-s", "rsi_14", "-i", "nope", "-o", "x.csv", "--prices", "odd"],
            "no such kind of prices: 'odd'; allowed: raw, adjusted",
        ),
    ],
)
def test_mistakes_are_told_in_one_message(done, arguments, message):
    said = command("-c", done, *arguments)
    assert said.code == 1
    assert message in said.all


@pytest.mark.requirement("R1.2")
def test_predict_agrees_with_what_is_published(done):
    said = command("-c", done, "--quiet", "predict", "AAPL", "NFLX")
    assert said.code == 0
    assert said.err == "", "quiet means no progress"
    published = json.loads(command("-c", done, "show", "predictions", "-f", "json").out)
    for row in published:
        assert (f"{row['expected_return']:.4g}" in said.out) == (row["symbol"] in ("AAPL", "NFLX"))


@pytest.mark.requirement("R1.2")
def test_replay_gives_the_same_bits(done):
    published = json.loads(command("-c", done, "show", "predictions", "-f", "json").out)
    said = command("-c", done, "replay", published[0]["prediction_id"])
    assert said.code == 0, said.all


@pytest.mark.requirement("R3.2", "R3.5")
def test_backtest_with_parameters_writes_its_report(done):
    said = command("-c", done, "backtest", "sma_cross", "-p", "fast=10", "-p", "slow=40", "--from", "2020-06-01")
    assert said.code == 0, said.all
    assert "fast 10, slow 40" in said.out
    assert "the two ledgers agree" in said.out
    report = Path(said.out.split("report: ")[1].strip())
    assert report.is_file()
    with_configured_start = command("-c", done, "backtest", "buy_and_hold", variables={
        "STOCK_PIPELINE__BACKTESTS__START": "2021-01-04"})  # fmt: skip
    assert with_configured_start.code == 0, "the configured range holds where none is asked for"


def test_doctor_and_settings_and_validate(done):
    said = command("-c", done, "doctor")
    assert said.code == 0, said.all
    assert "champion ridge version" in said.all
    assert command("-c", done, "validate").code == 0
    said = command("-c", done, "settings", variables={"STOCK_PIPELINE__ALERTS__TARGETS": "['json://me:hunter2@host']"})
    assert said.code == 0
    assert "hunter2" not in said.all
    assert "horizon: 5" in said.out


@pytest.mark.requirement("R1.1")
def test_a_second_run_says_that_nothing_was_new(done):
    # back-tests on request are trials: the first run after them judges the configured strategies again
    assert command("-c", done, "--quiet", "run").code == 0
    said = command("-c", done, "--quiet", "run")
    assert said.code == 0
    assert "nothing new, nothing computed" in said.all
    assert "Newest predictions" not in said.out


@pytest.mark.requirement("R9.3")
def test_another_market_cannot_use_the_same_home(done):
    said = command("-c", done, "run", variables={"STOCK_PIPELINE__MARKET__NAME": "other"})
    assert said.code == 1
    assert "holds the tables of the market 'small'" in said.all


def test_features_of_a_file(done, tmp_path):
    prices = done.parent / "prices"
    said = command("features", "compute", "-s", "rsi_14", "-i", prices, "-o", tmp_path / "f.parquet")
    assert said.code == 0, said.all
    frame = pl.read_parquet(tmp_path / "f.parquet")
    assert frame.columns == ["symbol", "session", "rsi_14"]
    assert frame["rsi_14"].drop_nulls().is_between(0, 100).all()
