"""Tests of GARCH against the published benchmark, and of the ladder of VaR methods on a real series."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.risk.ladder import decision_points, passes
from stock_pipeline.core.risk.symbol_risk import RiskSettings, symbol_risk
from stock_pipeline.core.risk.var import student_tail
from stock_pipeline.core.risk.volatility import fit_garch, garch_volatility

pytestmark = pytest.mark.requirement("R1.4")

LADDER = RiskSettings(
    method="ladder", evaluation_window=250, garch_window=500, garch_minimum=400, significance=0.2,
    quantile_window=250, volatility_window=100,
)  # fmt: skip


def test_garch_reproduces_the_bollerslev_ghysels_benchmark(market_data):
    series = np.loadtxt(market_data / "ref_dem2gbp.csv", skiprows=1)
    published = json.loads((market_data / "ref_published.json").read_text())["bollerslev_ghysels_fcp"]
    fit = fit_garch(series, "normal")
    assert fit.converged
    assert series.size == 1974
    assert fit.mu == pytest.approx(published["mu"], abs=5e-5)
    assert fit.omega == pytest.approx(published["omega"], abs=5e-6)
    assert fit.alpha == pytest.approx(published["alpha"], abs=5e-5)
    assert fit.beta == pytest.approx(published["beta"], abs=5e-5)
    assert fit.log_likelihood == pytest.approx(-1106.6078, abs=0.01)


def test_own_recursion_equals_the_fitted_model(twenty_stocks):
    from arch import arch_model

    close = twenty_stocks.filter(pl.col("symbol") == "GE")["close"].to_numpy()[-1001:]
    returns = (close[1:] / close[:-1] - 1) * 100
    fit = fit_garch(returns)
    assert fit.nu > 2
    model = arch_model(returns, mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    fixed = model.fix([fit.mu, fit.omega, fit.alpha, fit.beta, fit.nu])
    sigma = garch_volatility(fit, returns)
    ours, theirs = sigma[499:-1], np.asarray(fixed.conditional_volatility)[500:]
    assert ours == pytest.approx(theirs, rel=1e-8)
    ahead = np.sqrt(fixed.forecast(horizon=1).variance.to_numpy()[-1, 0])
    assert sigma[-1] == pytest.approx(ahead, rel=1e-8)


def test_fits_that_cannot_be_made_are_refused():
    with pytest.raises(DataError, match="too few"):
        fit_garch(np.zeros(50))
    with pytest.raises(DataError, match="not finite"):
        fit_garch(np.append(np.zeros(200), np.nan))
    with pytest.raises(DataError, match="do not vary"):
        fit_garch(np.zeros(200))


def test_student_tail_is_that_of_numerical_integration():
    from scipy.integrate import quad
    from scipy.stats import t as student

    quantile, mean = student_tail(5.0)
    unit = np.sqrt(3 / 5)
    for j, share in enumerate((0.05, 0.01)):
        edge = student.ppf(share, 5)
        expected = quad(lambda x: x * student.pdf(x, 5), -np.inf, edge)[0] / share * unit
        assert quantile[j] == pytest.approx(edge * unit)
        assert mean[j] == pytest.approx(expected, rel=1e-7)


def test_decisions_fall_on_the_first_session_of_a_period(twenty_stocks):
    sessions = twenty_stocks.filter(pl.col("symbol") == "GE")["session"].to_list()[:300]
    quarters = [sessions[i] for i in decision_points(sessions, "quarter")]
    assert [d.isoformat() for d in quarters] == ["1990-04-02", "1990-07-02", "1990-10-01", "1991-01-02"]
    assert len(decision_points(sessions, "month")) == 14


def test_a_method_passes_only_with_enough_evidence():
    random = np.random.default_rng(1)
    returns = random.standard_normal(500) * 0.01
    right = np.tile([0.0164, 0.0233], (500, 1))
    settings = RiskSettings()
    assert passes(returns, right, settings) is True
    assert passes(returns, right * 0.5, settings) is False
    assert passes(returns[:100], right[:100], settings) is None


@pytest.fixture(scope="module")
def crisis(twenty_stocks: pl.DataFrame) -> pl.DataFrame:
    window = pl.col("session").is_between(pl.date(2004, 1, 1), pl.date(2009, 12, 31))
    return twenty_stocks.filter((pl.col("symbol") == "BAC") & window)


def test_ladder_moves_between_methods_and_is_the_same_bits_from_its_look_back(crisis):
    full = symbol_risk(crisis, LADDER)
    used = set(full["risk_method"].drop_nulls().unique())
    assert "garch_t" in used
    assert len(used) > 1
    changes = full.with_columns(
        (pl.col("risk_method") != pl.col("risk_method").shift(1)).alias("change"),
        pl.col("session").dt.quarter().ne(pl.col("session").dt.quarter().shift(1)).alias("quarter"),
    ).drop_nulls("risk_method")
    assert changes.filter(pl.col("change") & ~pl.col("quarter")).height <= 1  # the very first figure only

    assert LADDER.lookback < crisis.height - 30
    cut = crisis.height - 20
    part = symbol_risk(crisis[cut - LADDER.lookback :], LADDER, start=crisis["session"][cut])
    assert part.equals(full[cut:])


def test_ladder_does_not_know_the_future(crisis):
    full = symbol_risk(crisis, LADDER)
    for cut in (900, 1200):
        moved = pl.concat([crisis[: cut + 1], crisis[cut + 1 :].with_columns(pl.col("close") * 3)])
        assert symbol_risk(moved, LADDER)[: cut + 1].equals(full[: cut + 1])


def test_garch_for_every_row_falls_back_where_it_has_too_few_returns(crisis):
    settings = LADDER.model_copy(update={"method": "garch_t"})
    risk = symbol_risk(crisis.tail(800), settings)
    methods = risk["risk_method"].to_list()
    assert methods[300] == "fhs"
    assert methods[-1] == "garch_t"
    assert risk["var_99"][-1] > risk["var_95"][-1] > 0
