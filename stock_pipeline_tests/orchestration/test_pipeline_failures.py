"""What goes wrong: bad nights, damaged models, killed runs. Nothing wrong is published, and somebody is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.orchestration import scoring, training
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline.orchestration.replay import replay
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import RunFailed, Runner
from stock_pipeline.orchestration.sensors import collect
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.orchestration.conftest import make_market


def append(settings: Settings, symbol: str, line: str) -> None:
    with (settings.config_file.parent / "prices" / f"{symbol}.csv").open("a") as file:
        file.write(line + "\n")


def alerts(settings: Settings, runner: Runner) -> list[str]:
    platform = Platform(settings)
    for record in runner.instance.get_run_records(limit=20, ascending=True):
        collect(platform, record, runner.instance)
    return [alert.title for alert in platform.alert_outbox.open_alerts()]


@pytest.mark.requirement("P1", "P3", "R1.5", "R7.2")
def test_a_night_of_impossible_prices_is_not_published(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    lake = Platform(settings).lake
    before = lake.read("predictions/published")
    for symbol in ("AAPL", "AMZN", "GOOG"):
        append(settings, symbol, f"{symbol},2021-07-01,-5,1,2,-3,100,1")
    append(settings, "NFLX", "NFLX,2021-07-01,533.1,537.0,525.7,533.5,2805400,533.5")
    runner = Runner(settings)
    with pytest.raises(RunFailed, match="quarantine_is_rare"):
        runner.catch_up()
    assert_frame_equal(lake.read("predictions/published"), before)
    bad = lake.read("market/quarantined_bars").filter(pl.col("session").cast(pl.String) == "2021-07-01")
    assert set(bad["symbol"]) == {"AAPL", "AMZN", "GOOG"}
    assert bad["reason"].str.len_chars().min() > 10
    assert any("quarantine_is_rare" in title for title in alerts(settings, runner))


@pytest.mark.requirement("P3")
def test_a_failed_check_alerts_although_the_run_succeeded(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    file = settings.config_file.parent / "prices" / "NFLX.csv"
    lines = [line for line in file.read_text().splitlines() if "2020-05-12" not in line]
    file.write_text("\n".join(lines) + "\n")
    (settings.home / "lake").rename(settings.home / "old_lake")
    runner = Runner(settings)
    outcome = runner.years("prepare", None, None, rebuild=False)
    assert "market/validated_bars: bars_have_no_gaps" in outcome.failed_checks
    found = alerts(settings, runner)
    assert any("bars_have_no_gaps" in title for title in found)
    assert alerts(settings, runner) == found, "looking again at the same runs tells nothing twice"
    file.write_text((REPOSITORY / "data" / "sample" / "bars" / "NFLX.csv").read_text())
    runner.years("prepare", None, None, rebuild=False)
    assert not any("bars_have_no_gaps" in title for title in alerts(settings, runner)), "over again: resolved"


@pytest.mark.requirement("R1.5", "R4.3")
def test_a_damaged_champion_is_never_used(tmp_path: Path) -> None:
    changes = {"models": {"families": ["ridge"], "train": {"folds": 2, "holdout_sessions": 40}}}
    settings = load_settings(make_market(tmp_path, changes=changes), environment={})
    runner = Runner(settings)
    runner.catch_up()
    registry = runner.platform.model_registry
    champion = registry.champion()
    assert champion is not None
    folder = registry.locate(champion, str(tmp_path))
    victim = next(path for path in sorted(folder.rglob("*.skops")))
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(bytes(damaged))
    make_market(tmp_path, until="2021-07-01", changes=changes)
    outcomes = runner.catch_up()
    published = runner.platform.lake.read("predictions/published")
    newest = published.filter(pl.col("session") == published["session"].max())
    assert str(newest["session"][0]) == "2021-07-01"
    assert set(newest["fallback_level"]) == {2}
    assert set(newest["model_name"]) == {"naive"}
    assert "IntegrityError" in newest["fallback_reason"][0]
    assert victim.name in newest["fallback_reason"][0]
    assert "predictions/published: champion_predicts" in outcomes[0].failed_checks
    assert (newest["upper"] > newest["lower"]).all()


@pytest.mark.requirement("R1.5")
def test_a_symbol_with_three_rows_is_listed_with_its_reason(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    rows = ["symbol,session,open,high,low,close,volume,adj_close"]
    rows += [f"NEW,2021-06-{day},10,11,9,10.{day},1000,10.{day}" for day in (28, 29, 30)]
    (settings.config_file.parent / "prices" / "NEW.csv").write_text("\n".join(rows) + "\n")
    make_market(settings.config_file.parent, until="2021-07-01")
    append(settings, "NEW", "NEW,2021-07-01,10,11,9,10.31,1000,10.31")
    Runner(settings).catch_up()
    missing = Platform(settings).lake.read("predictions/unpredicted", symbols=["NEW"])
    last = missing.filter(pl.col("session").cast(pl.String) == "2021-07-01").row(0, named=True)
    assert last["reason"] == "too_little_history"
    assert last["detail"] == "4 of 100 sessions"


@pytest.mark.requirement("R1.2")
def test_a_published_prediction_is_computed_again_to_the_last_bit(finished: Settings) -> None:
    published = Platform(finished).lake.read("predictions/published")
    for row in (0, published.height // 2, published.height - 1):
        comparison = replay(finished, published["prediction_id"][row])
        assert comparison.identical, comparison.summary()


@pytest.mark.requirement("R1.5", "P1")
@pytest.mark.slow
@pytest.mark.parametrize("step", ["validated_bars ...", "candidates ...", "scored ..."])
def test_a_killed_run_is_continued_to_the_same_publication(finished: Settings, tmp_path: Path, step: str) -> None:
    config = make_market(tmp_path)
    # runs in this process point the environment at their own home; the child must find its home by its file alone
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOCK_PIPELINE", "DAGSTER"))}
    environment = {**kept, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "stock_pipeline", "-c", str(config), "run"]
    settings = load_settings(config, environment={})
    with sole_writer(settings.home, [BACKTESTS], print):  # it never comes to its last run, and so not to its end
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if step in line or "waiting for another run" in line:
                break
        time.sleep(0.15)
        process.kill()
        assert process.wait(120) == -signal.SIGKILL
        assert step in line
    Runner(settings).catch_up()
    # the configuration names this very folder of prices, and the checksum this very copy of the model (MLflow gives
    # every stored model an id of its own)
    lineage = ("config_version", "model_checksum")
    one, other = (Platform(s).lake.read("predictions/published").drop(lineage) for s in (settings, finished))
    assert_frame_equal(one, other, check_exact=True)


@pytest.mark.requirement("R1.2", "V1")
def test_no_session_is_scored_by_a_model_that_has_learnt_from_it(finished: Settings) -> None:
    platform = Platform(finished)
    data = scoring.load_data(platform)
    champion = platform.model_registry.champion()
    assert champion is not None
    sessions = data.bars["session"].unique().sort().to_list()
    seen = sessions.index(champion.trained_through)
    history = scoring.current(platform).clear()
    scored, _ = scoring.score_all(platform, data, sessions[seen - 1 : seen + 3], history=history)
    early = scored.predictions.filter(pl.col("session") <= champion.trained_through)
    late = scored.predictions.filter(pl.col("session") > champion.trained_through)
    assert early["session"].n_unique() == late["session"].n_unique() == 2
    assert set(early["fallback_level"]) == {2}
    assert "has learnt from sessions up to" in early["fallback_reason"][0]
    assert set(late["model_version"]) == {str(champion.version)}
    assert set(late["fallback_level"]) == {0}


@pytest.mark.requirement("R4.5")
def test_an_alarmed_candidate_waits_and_does_not_keep_a_clean_one_from_office(
    copy_of_finished: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copy_of_finished()
    platform = Platform(settings)
    registry = platform.model_registry
    ridge = training.latest(platform, "ridge")
    lightgbm = training.latest(platform, "lightgbm")
    assert ridge is not None
    assert lightgbm is not None
    for alias in ("champion", "challenger", "previous"):
        registry.client.delete_registered_model_alias(registry.name, alias)
    kept = registry.oos(lightgbm.version)
    leak = {lightgbm.version: kept.with_columns(prediction=pl.col("label")), ridge.version: registry.oos(ridge.version)}
    monkeypatch.setattr(type(registry), "oos", lambda self, version, table="oos": leak[int(version)])
    election = training.elect(platform)
    assert election is not None
    assert set(election.alarms) == {"lightgbm"}
    champion = registry.champion()
    assert champion is not None
    assert champion.family == "ridge"
