"""Metrics against other libraries, published values and definitions."""

from __future__ import annotations

import csv
import math
import warnings
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.backtesting.metrics import drawdown, relative_metrics, return_metrics, trade_metrics
from stock_pipeline.core.backtesting.overfitting import (
    deflated_sharpe,
    expected_maximum_sharpe,
    probabilistic_sharpe,
    probability_of_overfitting,
)
from stock_pipeline.core.backtesting.trades import TRADE_SCHEMA
from stock_pipeline.core.errors import DataError


@pytest.fixture(scope="module")
def stocks() -> np.ndarray:
    """Daily returns of 20 real stocks."""
    datasets = pytest.importorskip("skfolio.datasets")
    return datasets.load_sp500_dataset().pct_change().dropna().to_numpy()


@pytest.mark.requirement("R3.4")
def test_agrees_with_empyrical_on_real_returns(stocks):
    import empyrical

    market = stocks.mean(axis=1)
    for column in range(0, 20, 4):
        r = stocks[:, column]
        m = return_metrics(r, risk_free=0.0) | relative_metrics(r, market)
        expected = {
            "total_return": empyrical.cum_returns_final(r),
            "annual_return": empyrical.annual_return(r),
            "volatility": empyrical.annual_volatility(r),
            "sharpe": empyrical.sharpe_ratio(r),
            "sortino": empyrical.sortino_ratio(r),
            "calmar": empyrical.calmar_ratio(r),
            "max_drawdown": empyrical.max_drawdown(r),
            "tail_ratio": empyrical.tail_ratio(r),
            "var_95": -empyrical.value_at_risk(r),
            "es_95": -empyrical.conditional_value_at_risk(r),
            "var_99": -empyrical.value_at_risk(r, 0.01),
            "es_99": -empyrical.conditional_value_at_risk(r, 0.01),
            "beta": empyrical.beta(r, market),
            "alpha": empyrical.alpha(r, market),
        }
        for name, value in expected.items():
            assert m[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.requirement("R3.4")
def test_agrees_with_quantstats_where_it_is_right(stocks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        import quantstats.stats as qs

        r = stocks[:, 0]
        series = pd.Series(r, index=pd.bdate_range("1991-01-01", periods=len(r)))
        m = return_metrics(r)
        assert m["sharpe"] == pytest.approx(qs.sharpe(series), rel=1e-9)
        assert m["sortino"] == pytest.approx(qs.sortino(series), rel=1e-9)
        assert m["max_drawdown"] == pytest.approx(qs.max_drawdown(series), rel=1e-9)
        assert m["volatility"] == pytest.approx(qs.volatility(series), rel=1e-9)


@pytest.mark.requirement("R3.4")
def test_bacon_portfolio(market_data):
    """Ratios of Bacon's example portfolio, as PerformanceAnalytics prints them."""
    rows = np.genfromtxt(market_data / "ref_portfolio_bacon.csv", delimiter=",", skip_header=1, usecols=(1, 2))
    printed = {
        row["file"] + row["r_expression"]: float(row["expected"])
        for row in csv.DictReader((market_data / "ref_bacon_expected.csv").open())
    }

    def value(part: str) -> float:
        return next(v for k, v in printed.items() if part in k)

    own, benchmark = rows.T
    m = return_metrics(own, sessions_per_year=12) | relative_metrics(own, benchmark, sessions_per_year=12)
    b = return_metrics(benchmark, sessions_per_year=12)
    sharpe = m["annual_return"] / m["volatility"]
    adjusted = sharpe * (1 + m["skew"] / 6 * sharpe - (m["kurtosis"] - 3) / 24 * sharpe**2)
    assert adjusted == pytest.approx(value("AdjustedSharpeRatio(portfolio_bacon"), abs=5e-5)
    assert m["skew"] / m["kurtosis"] == pytest.approx(value("SkewnessKurtosisRatio(portfolio"), abs=5e-4)
    assert m["beta"] / m["correlation"] == pytest.approx(value("FamaBeta("), abs=5e-3)
    assert m["annual_return"] - m["beta"] * b["annual_return"] == pytest.approx(value("SFM.jensenAlpha("), abs=5e-4)
    squared = m["annual_return"] * b["volatility"] / m["volatility"]
    assert squared == pytest.approx(value("print(MSquared(portfolio"), abs=5e-5)


@pytest.mark.requirement("R3.4")
def test_deflated_sharpe_agrees_with_skfolio_and_vectorbt(stocks):
    from scipy.stats import kurtosis, skew
    from skfolio.measures import deflated_sharpe_ratio, probabilistic_sharpe_ratio
    from vectorbt.returns.metrics import deflated_sharpe_ratio as vectorbt_deflated

    trials = stocks.mean(axis=0) / stocks.std(axis=0, ddof=1)
    best = stocks[:, int(trials.argmax())]
    assert probabilistic_sharpe(best) == pytest.approx(probabilistic_sharpe_ratio(best), abs=1e-9)
    ours = deflated_sharpe(best, len(trials), float(trials.var(ddof=1)))
    assert ours == pytest.approx(deflated_sharpe_ratio(best, trials), abs=1e-9)
    theirs = vectorbt_deflated(
        est_sharpe=trials.max(),
        var_sharpe=trials.var(ddof=1),
        nb_trials=len(trials),
        backtest_horizon=len(best),
        skew=skew(best),
        kurtosis=kurtosis(best, fisher=False),
    )
    assert ours == pytest.approx(float(theirs), abs=1e-9)


@pytest.mark.requirement("R3.4")
def test_more_trials_deflate_more(stocks):
    values = [deflated_sharpe(stocks[:1000, 3], n) for n in (1, 10, 100, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == probabilistic_sharpe(stocks[:1000, 3])
    assert expected_maximum_sharpe(1, 1.0) == 0.0


@pytest.mark.requirement("R3.4")
def test_probability_of_overfitting_of_noise_and_of_skill():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.01, (640, 40))
    skilled = noise.copy()
    skilled[:, 7] += 0.004
    draws = [np.random.default_rng(seed).normal(0, 0.01, (640, 40)) for seed in range(20)]
    assert 0.35 < np.mean([probability_of_overfitting(draw, 8) for draw in draws]) < 0.65
    assert probability_of_overfitting(skilled, 8) == 0.0
    # The definition, written out.
    parts = np.split(noise, 8)
    below = []
    for chosen in combinations(range(8), 4):
        inside = np.concatenate([parts[i] for i in chosen])
        outside = np.concatenate([parts[i] for i in range(8) if i not in chosen])
        best = (inside.mean(0) / inside.std(0)).argmax()
        out = outside.mean(0) / outside.std(0)
        below.append((out <= out[best]).sum() / 41 <= 0.5)
    assert probability_of_overfitting(noise, 8) == pytest.approx(np.mean(below))
    with pytest.raises(DataError):
        probability_of_overfitting(noise[:, :1])
    with pytest.raises(DataError):
        probability_of_overfitting(noise, 7)


@pytest.mark.requirement("R3.4")
def test_undefined_is_none_and_nothing_is_nan():
    for returns in (np.empty(0), np.array([0.01]), np.zeros(50), np.full(50, 0.001), np.array([-1.0, 0.0, 0.0])):
        metrics = return_metrics(returns) | relative_metrics(returns, np.zeros(len(returns)))
        metrics |= trade_metrics(pl.DataFrame(schema=TRADE_SCHEMA))
        for name, value in metrics.items():
            assert value is None or math.isfinite(value), name
    flat = return_metrics(np.zeros(50))
    assert flat["sharpe"] is None
    assert flat["sortino"] is None
    assert flat["calmar"] is None
    assert flat["total_return"] == 0.0
    assert probabilistic_sharpe(np.zeros(50)) is None
    assert deflated_sharpe(np.zeros(50), 10) is None
    assert trade_metrics(pl.DataFrame(schema=TRADE_SCHEMA))["win_rate"] is None


def test_drawdown_counts_the_start_and_the_unfinished_end():
    depth, sessions = drawdown(np.array([-0.5, 0.5, 0.2, 0.2, -0.1, -0.1]))
    assert depth == pytest.approx(-0.5)
    assert sessions == 3
    assert drawdown(np.array([0.1, -0.2, 0.1]))[1] == 2
