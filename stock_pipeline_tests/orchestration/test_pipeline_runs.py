"""The whole pipeline on real prices: first run, nothing new, new nights, revisions, rebuilds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.orchestration import backtesting
from stock_pipeline.orchestration.on_request import backtest_strategy
from stock_pipeline.orchestration.partitions import years
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import Runner
from stock_pipeline_tests.orchestration.conftest import SYMBOLS, make_market

DERIVED = ("market/validated_bars", "market/quality_scores", "features/technical", "risk/symbol_risk")


def tables(settings: Settings, names: tuple[str, ...] = DERIVED) -> dict[str, pl.DataFrame]:
    lake = Platform(settings).lake
    return {name: lake.read(name) for name in names}


@pytest.mark.requirement("P1", "R1.2", "R1.3", "R1.4", "R3.1", "R4.1")
def test_first_run_goes_from_prices_to_publication(finished: Settings) -> None:
    platform = Platform(finished)
    lake = platform.lake
    raw = platform.raw_bars.current()
    assert set(raw["symbol"].unique()) == set(SYMBOLS)
    assert lake.read("market/validated_bars").height + lake.read("market/quarantined_bars").height == raw.height
    published = lake.read("predictions/published")
    newest = published.filter(pl.col("session") == published["session"].max())
    assert newest["session"][0] == raw["session"].max()
    assert set(newest["symbol"]) == set(SYMBOLS)
    assert newest.select((pl.col("lower") < pl.col("expected_return")).all()).item()
    assert newest.select((pl.col("expected_return") < pl.col("upper")).all()).item()
    assert newest["confidence"].is_between(0, 1).all()
    champion = platform.model_registry.champion()
    assert champion is not None
    assert set(newest["model_version"]) == {str(champion.version)}
    assert published["session"].min() > champion.trained_through, "no session that the model has learnt from"
    outcomes = lake.read("predictions/outcomes")
    assert outcomes.height > 100
    assert 0.75 < outcomes["inside"].mean() < 1.0
    intervals = lake.read(f"models/walk_forward_intervals/{champion.family}")
    assert 0.85 < intervals["inside"].mean() < 0.95, "calibrated on earlier years alone, they hold later ones"
    oos = lake.read(f"models/oos_predictions/{champion.family}")
    assert (oos["trained_through"] < oos["session"]).all(), "each prediction is out of sample"
    summary = lake.read("backtests/summary")
    assert set(summary["strategy"]) == {"buy_and_hold", "model_rank"}
    assert all(Path(report).is_file() for report in summary["report"])
    assert (finished.home / "reports" / "quality.html").stat().st_size > 10_000
    assert (finished.home / "reports" / "data_docs" / "index.html").is_file()


@pytest.mark.requirement("R1.1", "P8")
def test_a_run_with_nothing_new_computes_nothing(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    before = Platform(settings).lake.versions()
    outcomes = Runner(settings).catch_up()
    assert [outcome.job for outcome in outcomes] == ["nightly"]
    assert outcomes[0].computed == []
    assert Platform(settings).lake.versions() == before


@pytest.mark.requirement("R1.1", "R3.1")
def test_night_by_night_gives_the_bits_of_all_at_once(finished: Settings, tmp_path: Path) -> None:
    config = make_market(tmp_path, until="2021-06-22")
    settings = load_settings(config, environment={})
    runner = Runner(settings)
    runner.years("prepare", None, None, rebuild=False)
    for until in ("2021-06-23", "2021-06-28", "2021-06-30"):
        make_market(tmp_path, until=until)
        outcome = runner.years("prepare", None, None, rebuild=False)
        assert "features/technical" in outcome.computed
    for name, frame in tables(settings).items():
        assert_frame_equal(frame, tables(finished)[name], check_exact=True)


@pytest.mark.requirement("P1")
def test_a_partition_made_again_has_the_same_bytes(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    before = Platform(settings).lake.versions(DERIVED)
    frames = tables(settings)
    from datetime import date

    outcome = Runner(settings).years("prepare", date(2018, 1, 1), date(2018, 12, 31), rebuild=True)
    assert "features/technical" in outcome.computed
    for name, frame in tables(settings).items():
        assert_frame_equal(frame, frames[name], check_exact=True)
    assert Platform(settings).lake.versions(DERIVED) == before, "equal content makes no new version"


@pytest.mark.requirement("R3.1")
def test_a_revised_price_reaches_everything_after_it(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    file = settings.config_file.parent / "prices" / "AAPL.csv"
    lines = file.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if "2020-03-10" in line)
    cells = lines[place].split(",")
    cells[6] = str(float(cells[6]) * 1.01)  # volume
    lines[place] = ",".join(cells)
    file.write_text("\n".join(lines) + "\n")
    before = tables(settings)
    Runner(settings).years("prepare", None, None, rebuild=False)
    after = tables(settings)
    raw = Platform(settings).lake.read("market/raw_bars", symbols=["AAPL"])
    day = raw.filter(pl.col("session").cast(pl.String) == "2020-03-10")
    assert sorted(day["batch"]) == [1, 2], "what was believed before stays"
    early = pl.col("session").cast(pl.String) < "2020-03-10"
    assert_frame_equal(after["features/technical"].filter(early), before["features/technical"].filter(early))
    fresh = tmp_path / "fresh"
    (fresh / "prices").mkdir(parents=True)
    for path in file.parent.iterdir():
        (fresh / "prices" / path.name).write_bytes(path.read_bytes())
    (fresh / "market.yaml").write_bytes(settings.config_file.read_bytes())
    anew = load_settings(fresh / "market.yaml", environment={})
    Runner(anew).years("prepare", None, None, rebuild=False)
    for name, frame in tables(anew).items():
        assert_frame_equal(after[name], frame, check_exact=True)


@pytest.mark.requirement("P1")
def test_partitions_are_years_of_the_market() -> None:
    assert years(2016, 2021).get_partition_keys() == ["2016", "2017", "2018", "2019", "2020", "2021"]
    from datetime import UTC, datetime

    before, last = datetime.now(UTC).year, years(2024).get_last_partition_key()
    assert before <= int(last) <= datetime.now(UTC).year


@pytest.mark.requirement("R3.2", "R3.4")
def test_strategies_are_judged_by_the_same_trials_and_users_may_add_theirs(
    copy_of_finished: Callable[[], Settings],
) -> None:
    settings = copy_of_finished()
    summary = Platform(settings).lake.read("backtests/summary")
    assert summary["trials"].to_list() == [2.0, 2.0]
    (settings.config_file.parent / "my_strategies.py").write_text(
        "from stock_pipeline.core.backtesting.strategies.buy_and_hold import BuyAndHold\n\n\n"
        "class Mine(BuyAndHold):\n    name = 'mine'\n    description = 'A strategy of our own.'\n"
    )
    text = settings.config_file.read_text().replace("- buy_and_hold\n", "- sma_cross\n  - my_strategies:Mine\n")
    settings.config_file.write_text(text)
    changed = load_settings(settings.config_file, environment={})
    names = [strategy.name for strategy in changed.backtests.strategies]
    assert names == ["sma_cross", "my_strategies:Mine", "model_rank"]
    assert [outcome.job for outcome in Runner(changed).catch_up()] == ["nightly", "backtest"]
    assert not backtesting.has_work(Platform(changed)), "judged once, they are not judged again"
    summary = Platform(changed).lake.read("backtests/summary")
    assert sorted(summary["strategy"]) == sorted(names), "what is no longer configured is no longer shown"
    assert set(summary["trials"]) == {4.0}, "the one that was dropped was tried all the same"
    backtest_strategy(changed, "sma_cross", {"fast": 5}, None, None)
    assert [outcome.job for outcome in Runner(changed).catch_up()] == ["nightly", "backtest"], "one more was tried"
    summary = Platform(changed).lake.read("backtests/summary")
    assert set(summary["trials"]) == {5.0}
    order = summary.sort("sharpe")["deflated_sharpe"].to_list()
    assert order == sorted(order), "on the same sessions the deflated ratios are ordered as the ratios"


@pytest.mark.requirement("R1.1", "R4.5")
def test_other_features_bring_a_new_champion(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    before = Platform(settings).model_registry.champion()
    text = settings.config_file.read_text().replace("exclude: []", "exclude: [rsi_14]")
    assert "rsi_14" in text
    settings.config_file.write_text(text)
    runner = Runner(load_settings(settings.config_file, environment={}))
    runner.catch_up()
    after = runner.platform.model_registry.champion()
    assert before is not None
    assert after is not None
    assert after.feature_set_hash != before.feature_set_hash
    published = runner.platform.lake.read("predictions/published")
    newest = published.filter(pl.col("session") == published["session"].max())
    assert set(newest["model_version"]) == {str(after.version)}
    assert set(newest["fallback_level"]) == {0}
