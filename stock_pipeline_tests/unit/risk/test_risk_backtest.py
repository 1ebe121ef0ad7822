"""Tests of the VaR and ES backtests against published values and on real prices."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.risk.backtest import (
    christoffersen,
    es_backtest,
    kupiec,
    risk_backtest,
    transitions,
    var_backtest,
    verdict,
)
from stock_pipeline.core.risk.check import var_check
from stock_pipeline.core.risk.symbol_risk import RiskSettings, symbol_risk

pytestmark = pytest.mark.requirement("R1.4")


def test_kupiec_equals_jorions_example():
    # Jorion, Value at Risk (3rd ed.), J.P. Morgan 1998: 20 exceptions of 95 % VaR in 252 days, LR = 3.91
    result = kupiec(252, 20, 0.95)
    assert result["statistic"] == pytest.approx(3.91, abs=0.005)
    assert result["p_value"] == pytest.approx(0.048, abs=0.0005)


def test_christoffersen_equals_jorions_example():
    # same source: 6 of the 20 exceptions follow one; LR_ind = 9.53, LR_cc = 13.44
    assert christoffersen(218, 14, 14, 6)["statistic"] == pytest.approx(9.53, abs=0.005)
    both = verdict(252, 20, (218, 14, 14, 6), 0.95)
    assert both["conditional_statistic"] == pytest.approx(13.44, abs=0.01)
    assert both["conditional_p"] == pytest.approx(0.0012, abs=0.0001)


@pytest.mark.parametrize(
    ("level", "sessions", "lowest", "highest"),
    [
        # Kupiec (1995), table 3, as reprinted by Jorion: numbers of failures not rejected at 5 %, open bounds
        # (the table leaves no failure in 255 days at 99 % in; its exact p is 0.024)
        (0.99, 255, 0, 7),
        (0.99, 510, 1, 11),
        (0.99, 1000, 4, 17),
        (0.975, 255, 2, 12),
        (0.975, 1000, 15, 36),
        (0.95, 255, 6, 21),
        (0.95, 510, 16, 36),
        (0.95, 1000, 37, 65),
    ],
)
def test_kupiec_accepts_exactly_the_published_region(level, sessions, lowest, highest):
    accepted = [x for x in range(120) if kupiec(sessions, x, level)["p_value"] > 0.05]
    assert accepted == list(range(lowest + 1, highest))


def test_p_values_are_those_of_the_chi_squared_law():
    from scipy.stats import chi2

    result = verdict(500, 9, (482, 9, 9, 0), 0.99)
    assert result["kupiec_p"] == pytest.approx(chi2.sf(result["kupiec_statistic"], 1), rel=1e-12)
    assert result["independence_p"] == pytest.approx(chi2.sf(result["independence_statistic"], 1), rel=1e-12)
    assert result["conditional_p"] == pytest.approx(chi2.sf(result["conditional_statistic"], 2), rel=1e-12)


def test_no_exceedance_and_only_exceedances_have_finite_statistics():
    assert kupiec(100, 0, 0.99)["statistic"] == pytest.approx(-200 * math.log(0.99))
    assert kupiec(100, 100, 0.99)["statistic"] == pytest.approx(-200 * math.log(0.01))
    assert christoffersen(99, 0, 0, 0)["statistic"] == 0.0
    with pytest.raises(DataError, match="exceedance count"):
        kupiec(10, 11, 0.99)


def test_a_forecast_is_judged_by_the_next_return_only():
    returns = np.array([0.0, -0.05, 0.01, -0.05, 0.0, 0.0])
    var = np.array([0.01, 0.10, 0.10, 0.10, 0.10, 0.0])
    # only the forecast 0.01, made before the first fall, is exceeded; the last forecast has no outcome
    result = var_backtest(returns, var, 0.95)
    assert (result["observations"], result["exceedances"]) == (5, 1)
    assert transitions(np.array([True, True, False, True])) == (0, 1, 1, 1)


def test_forecasts_that_know_the_return_they_are_judged_by_would_look_perfect(twenty_stocks):
    # the shift matters: a "VaR" equal to the loss of its own session is exceeded as often as losses grow, not never
    close = twenty_stocks.filter(pl.col("symbol") == "XOM")["close"]
    returns = close.pct_change().to_numpy()[1:2000]
    own = np.maximum(-returns, 0.0)
    assert var_backtest(returns, own, 0.95)["exceedance_rate"] > 0.2
    peeking = np.append(own[1:], 0.0)
    assert var_backtest(returns, peeking, 0.95)["exceedances"] == 0


def test_unequal_lengths_and_no_outcome_are_refused():
    with pytest.raises(DataError, match="differ in length"):
        var_backtest(np.zeros(3), np.zeros(4), 0.95)
    with pytest.raises(DataError, match="no VaR forecast"):
        var_backtest(np.zeros(3), np.full(3, np.nan), 0.95)


@pytest.mark.requirement("R1.4")
def test_filtered_historical_simulation_passes_and_plain_historical_fails(twenty_stocks, twenty_risks):
    filtered, pooled = risk_backtest(twenty_risks, twenty_stocks)
    passing = {
        level: int(filtered.filter((pl.col("level") == level) & (pl.col("kupiec_p") > 0.05)).height)
        for level in (0.95, 0.99)
    }
    assert passing[0.95] >= 18
    assert passing[0.99] >= 18
    assert pooled.filter(pl.col("level") == 0.99)["exceedance_rate"].item() == pytest.approx(0.01, abs=0.0005)
    assert pooled.filter(pl.col("level") == 0.95)["exceedance_rate"].item() == pytest.approx(0.05, abs=0.001)
    assert filtered.filter(pl.col("es_z2") > pl.col("es_critical")).height >= 36

    plain = symbol_risk(twenty_stocks, RiskSettings(method="historical"))
    historical, _ = risk_backtest(plain, twenty_stocks, es=False)
    failing = historical.filter((pl.col("level") == 0.95) & (pl.col("independence_p") < 0.05)).height
    assert failing >= 15

    good = var_check(filtered, pooled)
    assert good.passed
    assert good.reasons == ()
    assert good.passing["symbols"].to_list() == [20, 20]
    assert good.passing["kupiec"].min() >= 0.9


def test_a_var_that_is_too_small_fails_the_check_and_names_the_symbols(twenty_stocks, twenty_risks):
    some = twenty_stocks.filter(pl.col("symbol").is_in(["AAPL", "KO", "XOM"]))
    small = twenty_risks.with_columns(
        pl.when(pl.col("symbol") != "KO").then(pl.col("var_99") * 0.8).otherwise("var_99").alias("var_99")
    )
    bad = var_check(*risk_backtest(small, some, es=False))
    assert not bad.passed
    assert bad.passing.filter(pl.col("level") == 0.99)["failing"].to_list() == [["AAPL", "XOM"]]
    assert any("VaR 99%: 33% of 3 symbols pass" in reason for reason in bad.reasons)
    assert any("VaR 99%: exceeded in" in reason for reason in bad.reasons)


def test_without_forecasts_the_check_says_that_nothing_was_judged(twenty_stocks, twenty_risks):
    young = twenty_stocks.filter(pl.col("session") < pl.date(1990, 6, 1))
    per_symbol, pooled = risk_backtest(twenty_risks, young)
    assert per_symbol.height == 0
    nothing = var_check(per_symbol, pooled)
    assert nothing.passed
    assert "not judged" in nothing.reasons[0]
    later = risk_backtest(twenty_risks, twenty_stocks.filter(pl.col("session") < pl.date(1991, 4, 1)), es=False)
    assert "not judged" in var_check(*later).reasons[0]


def test_shortfall_that_is_too_small_is_rejected_and_a_right_one_is_not():
    random = np.random.default_rng(3)
    returns = random.standard_normal(4000) * 0.01
    var, es = np.full(4000, 0.023263), np.full(4000, 0.026652)
    right = es_backtest(returns, var, es, 0.99)
    assert right["z2"] > right["critical"]
    assert right["p_value"] > 0.05
    wrong = es_backtest(returns, var * 0.8, es * 0.7, 0.99)
    assert wrong["z2"] < wrong["critical"]
    assert wrong["p_value"] < 0.01


def test_the_critical_value_is_that_of_the_paper():
    # Acerbi and Szekely (2014): about -0.70 at 5 % for 250 sessions at 97.5 %
    random = np.random.default_rng(3)
    result = es_backtest(random.standard_normal(251), np.full(251, 1.96), np.full(251, 2.34), 0.975)
    assert result["observations"] == 250
    assert result["critical"] == pytest.approx(-0.70, abs=0.08)


def test_backtest_can_begin_later(twenty_stocks, twenty_risks):
    from datetime import date

    some = twenty_stocks.filter(pl.col("symbol").is_in(["AAPL", "XOM"]))
    late, pooled = risk_backtest(twenty_risks, some, start=date(2015, 1, 1), es=False)
    assert late["observations"].max() < 2100
    assert pooled["symbols"].to_list() == [2, 2]
