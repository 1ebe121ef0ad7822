from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.modelling.evaluation import (
    by_symbol,
    by_year,
    calibration,
    evaluate,
    ic_series,
    label_horizon,
    skills,
    spread_series,
)
from stock_pipeline.core.modelling.statistics import newey_west_mean
from stock_pipeline_tests.unit.modelling import modelling_data


def scored(symbols: int = 6, horizon: int = 5, seed: int = 0) -> pl.DataFrame:
    """Real labels with made-up predictions that know a little, some of them tied."""
    rows = (
        modelling_data.data(600, symbols, horizon)
        .drop_nulls("label")
        .select(*["symbol", "session", "label", "label_session"])
    )
    guess = 0.1 * rows["label"].to_numpy() + 0.02 * modelling_data.noise(seed, rows.height)
    return rows.with_columns(prediction=pl.Series(np.round(guess, 3)))


@pytest.mark.requirement("R4.4")
def test_rank_correlations_are_scipys():
    oos = scored()
    mine = ic_series(oos)
    for session, value, symbols in mine.sample(60, seed=1).iter_rows():
        day = oos.filter(pl.col("session") == session)
        assert symbols == day.height
        assert value == pytest.approx(spearmanr(day["prediction"], day["label"]).statistic, abs=1e-12)
    figures = evaluate(oos)
    assert figures["rank_ic"] == pytest.approx(mine["rank_ic"].mean())
    assert figures["rank_ic_ir"] == pytest.approx(mine["rank_ic"].mean() / mine["rank_ic"].std())
    assert figures["rank_ic_t"] == pytest.approx(newey_west_mean(mine["rank_ic"].to_numpy(), 5).t)


@pytest.mark.requirement("R4.4")
def test_errors_and_hits_are_beside_those_without_a_model():
    oos = scored()
    p, y = oos["prediction"].to_numpy(), oos["label"].to_numpy()
    figures = evaluate(oos)
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean((p - y) ** 2)))
    assert figures["mae"] == pytest.approx(np.mean(np.abs(p - y)))
    assert figures["zero_rmse"] == pytest.approx(np.sqrt(np.mean(y**2)))
    assert figures["mean_rmse"] == pytest.approx(np.sqrt(np.mean((y - y.mean()) ** 2)))
    assert figures["skill_zero"] == pytest.approx(1 - np.sum((p - y) ** 2) / np.sum(y**2))
    both = (p != 0) & (y != 0)
    assert figures["hit_rate"] == pytest.approx(np.mean(np.sign(p[both]) == np.sign(y[both])))
    assert figures["always_up_hit_rate"] == pytest.approx(np.mean(y[y != 0] > 0))
    assert figures["calibration_slope"] == pytest.approx(np.polyfit(p, y, 1)[0])


@pytest.mark.requirement("R4.4")
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_spread_and_its_costs_equal_a_plain_loop(horizon):
    oos, cost, quantile = scored(7, horizon), 12.0, 0.3
    mine = spread_series(oos, horizon=horizon, cost_bps=cost, quantile=quantile)
    portfolios: list[dict[str, float]] = []
    for i, (session, part) in enumerate(oos.sort("session").group_by("session", maintain_order=True)):
        day = part.sort("prediction", "symbol")
        names, k = day["symbol"].to_list(), int(7 * quantile)
        weights = dict.fromkeys(names[:k], -1 / k) | dict.fromkeys(names[-k:], 1 / k)
        old = portfolios[i - horizon] if i >= horizon else {}
        turnover = sum(abs(weights.get(n, 0) - old.get(n, 0)) for n in {*weights, *old})
        returns = dict(zip(day["symbol"], day["label"], strict=True))
        gross = sum(w * returns[n] for n, w in weights.items())
        row = mine.row(i, named=True)
        assert row["session"] == session[0]
        assert row["gross"] == pytest.approx(gross, abs=1e-14)
        assert row["turnover"] == pytest.approx(turnover, abs=1e-12)
        assert row["net"] == pytest.approx(gross - turnover * cost / 1e4, abs=1e-14)
        portfolios.append(weights)
    assert evaluate(oos, cost_bps=0, quantile=quantile, horizon=horizon)["long_short_cost_bps"] == pytest.approx(0)


def test_the_sharpe_ratio_does_not_count_a_return_twice():
    oos = scored(6, 5)
    gross = spread_series(oos, horizon=5)["gross"].to_numpy()
    expected = np.mean([gross[i::5].mean() / gross[i::5].std(ddof=1) for i in range(5)]) * np.sqrt(252 / 5)
    assert evaluate(oos)["long_short_sharpe"] == pytest.approx(expected)


def test_few_symbols_and_constant_predictions_are_undefined_not_zero():
    two = evaluate(scored(2))
    assert two["rank_ic"] is None
    assert two["long_short_bps"] is None
    assert two["hit_rate"] is not None
    flat = evaluate(scored().with_columns(prediction=pl.lit(0.0)))
    assert (flat["rank_ic"], flat["hit_rate"], flat["calibration_slope"]) == (None, None, None)
    assert flat["skill_zero"] == 0.0
    empty = evaluate(scored().clear())
    assert empty["rows"] == 0
    assert empty["rmse"] is None


def test_rows_without_an_outcome_are_left_out_and_infinite_ones_refused():
    oos = scored()
    more = pl.concat([oos, oos.head(5).with_columns(pl.lit(None, pl.Float64).alias("label"), symbol=pl.lit("NEW"))])
    assert evaluate(more) == evaluate(oos)
    with pytest.raises(DataError, match="finite"):
        evaluate(oos.with_columns(prediction=pl.lit(float("inf"))))
    with pytest.raises(DataError, match="prediction"):
        evaluate(oos.drop("prediction"))


def test_coverage_is_measured_where_there_are_intervals():
    oos = scored().with_columns(lower=pl.lit(-0.02), upper=pl.lit(0.02))
    assert evaluate(oos)["coverage"] == pytest.approx(float(np.mean(np.abs(oos["label"].to_numpy()) <= 0.02)))
    assert evaluate(scored())["coverage"] is None


def test_tables_by_tenth_year_and_symbol():
    oos = scored()
    bins = calibration(oos)
    assert bins["rows"].sum() == oos.height
    assert bins["prediction_mean"].is_sorted()
    years = by_year(oos)
    assert years["rows"].sum() == oos.height
    one = oos.filter(pl.col("session").dt.year() == years["year"][0])
    assert years["rank_ic"][0] == pytest.approx(evaluate(one)["rank_ic"])
    table = by_symbol(oos)
    part = oos.filter(pl.col("symbol") == table["symbol"][0])
    assert table["time_ic"][0] == pytest.approx(spearmanr(part["prediction"], part["label"]).statistic)
    assert table["rmse"][0] == pytest.approx(evaluate(part)["rmse"])


def test_the_horizon_is_found_from_the_labels():
    assert label_horizon(scored(3, 5)) == 5
    assert label_horizon(scored(3, 1)) == 1
    assert label_horizon(scored(3, 5).drop("label_session")) == 1


def test_skill_against_a_baseline_is_on_common_rows():
    oos = scored()
    zero = oos.with_columns(prediction=pl.lit(0.0)).filter(pl.col("session") > date(2021, 6, 1) - timedelta(days=30))
    common = oos.join(zero.select("symbol", "session"), on=["symbol", "session"], how="semi")
    assert skills(oos, {"zero": zero})["zero"] == pytest.approx(evaluate(common)["skill_zero"])
