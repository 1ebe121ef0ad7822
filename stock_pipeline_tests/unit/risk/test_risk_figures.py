"""Tests of the risk table: values by independent arithmetic, causality, bits, bad input."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.risk.symbol_risk import RISK_SCHEMA, RiskSettings, insufficient_history, symbol_risk

pytestmark = pytest.mark.requirement("R1.4")

SMALL = RiskSettings(
    volatility_window=60, volatility_minimum=10, quantile_window=150, quantile_minimum=100, performance_window=60
)


def made(closes: list[float], symbol: str = "A") -> pl.DataFrame:
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(len(closes))]
    return pl.DataFrame({"symbol": symbol, "session": days, "close": closes, "adj_factor": 1.0})


def test_schema_order_and_no_nan(twenty_risks):
    assert twenty_risks.schema == pl.Schema(RISK_SCHEMA)
    assert twenty_risks.equals(twenty_risks.sort("symbol", "session"))
    floats = twenty_risks.select(pl.col(pl.Float64))
    assert floats.select(pl.all().is_finite().all()).row(0) == (True,) * floats.width


def test_values_equal_plain_numpy(twenty_stocks, twenty_risks):
    close = twenty_stocks.filter(pl.col("symbol") == "AAPL")["close"].to_numpy()
    risk = twenty_risks.filter(pl.col("symbol") == "AAPL")
    r = np.append(np.nan, close[1:] / close[:-1] - 1)
    for row in (1500, 4000, 8000):
        weights = 0.94 ** np.arange(250)
        sigma = lambda t: np.sqrt(np.sum(weights * r[t - np.arange(250)] ** 2) / weights.sum())  # noqa: B023, E731
        assert risk["volatility_daily"][row] == pytest.approx(sigma(row), rel=1e-12)
        assert risk["volatility"][row] == pytest.approx(sigma(row) * np.sqrt(252), rel=1e-12)
        z = np.array([r[t] / sigma(t - 1) for t in range(row - 499, row + 1)])
        for level, share in (("95", 0.05), ("99", 0.01)):
            quantile = np.quantile(z, share, method="weibull")
            assert risk[f"var_{level}"][row] == pytest.approx(-quantile * sigma(row), rel=1e-10)
            mass = 501 * share
            ordered = np.sort(z)
            whole = int(mass)
            tail = (ordered[:whole].sum() + (mass - whole) * ordered[whole]) / mass
            assert risk[f"es_{level}"][row] == pytest.approx(-tail * sigma(row), rel=1e-10)
        window = close[row - 251 : row + 1]
        peak = np.maximum.accumulate(window)
        assert risk["drawdown"][row] == pytest.approx(close[row] / window.max() - 1, abs=1e-14)
        assert risk["max_drawdown_252"][row] == pytest.approx((window / peak - 1).min(), abs=1e-14)
        recent = r[row - 251 : row + 1]
        assert risk["sharpe_252"][row] == pytest.approx(recent.mean() / recent.std(ddof=1) * np.sqrt(252), rel=1e-10)


def test_sharpe_and_drawdown_agree_with_empyrical(twenty_stocks, twenty_risks):
    import empyrical

    close = twenty_stocks.filter(pl.col("symbol") == "XOM")["close"].to_numpy()
    risk = twenty_risks.filter(pl.col("symbol") == "XOM")
    r = close[1:] / close[:-1] - 1
    assert risk["sharpe_252"][-1] == pytest.approx(empyrical.sharpe_ratio(r[-252:]), rel=1e-10)
    assert risk["max_drawdown_252"][-1] == pytest.approx(empyrical.max_drawdown(r[-251:]), rel=1e-10)


def test_shortfall_is_never_below_var_and_99_never_below_95(twenty_risks):
    known = twenty_risks.drop_nulls("var_95")
    assert known.select((pl.col("es_95") >= pl.col("var_95")).all()).item()
    assert known.select((pl.col("es_99") >= pl.col("var_99")).all()).item()
    assert known.select((pl.col("var_99") >= pl.col("var_95")).all()).item()
    assert known.select(pl.col("drawdown", "max_drawdown_252").max() <= 0).row(0) == (True, True)


@given(cut=st.integers(200, 8300), symbol=st.sampled_from(["AAPL", "AMD", "GE", "XOM"]))
def test_look_back_is_enough_for_the_same_bits(twenty_stocks, twenty_risks, cut, symbol):
    settings = RiskSettings()
    own = twenty_stocks.filter(pl.col("symbol") == symbol)
    start = own["session"][cut]
    part = own[max(0, cut - settings.lookback) : cut + 3]
    again = symbol_risk(part, settings, start=start)
    full = twenty_risks.filter(pl.col("symbol") == symbol)[cut : cut + 3]
    assert again.equals(full)


@given(cut=st.integers(0, 800), factor=st.floats(0.2, 5.0))
def test_nothing_after_t_changes_a_figure_dated_t(twenty_stocks, cut, factor):
    own = twenty_stocks.filter(pl.col("symbol") == "AMD").tail(801)
    moved = own.with_columns(
        pl.when(pl.int_range(pl.len()) > cut).then(pl.col("close") * factor).otherwise("close").alias("close")
    )
    before = symbol_risk(own, SMALL)[: cut + 1]
    assert symbol_risk(moved, SMALL)[: cut + 1].equals(before)


def test_symbols_do_not_touch_each_other(twenty_stocks, twenty_risks):
    alone = symbol_risk(twenty_stocks.filter(pl.col("symbol") == "KO"), RiskSettings())
    assert alone.equals(twenty_risks.filter(pl.col("symbol") == "KO"))
    shuffled = symbol_risk(
        twenty_stocks.filter(pl.col("symbol").is_in(["KO", "GE"])).sample(fraction=1.0, shuffle=True, seed=1),
        RiskSettings(),
    )
    assert shuffled.filter(pl.col("symbol") == "KO").equals(alone)


def test_a_split_with_its_factor_is_no_loss(twenty_stocks):
    own = twenty_stocks.filter(pl.col("symbol") == "AAPL").tail(900)
    later = pl.int_range(pl.len()) >= 600
    split = own.with_columns(
        pl.when(later).then(pl.col("close") / 4).otherwise("close").alias("close"),
        pl.when(later).then(4.0).otherwise(1.0).alias("adj_factor"),
    )
    assert symbol_risk(split, SMALL).equals(symbol_risk(own, SMALL))


def test_young_symbols_and_flat_prices_say_why_there_is_no_var():
    young = symbol_risk(made([100.0 + i % 7 for i in range(50)]), SMALL)
    assert young["risk_reason"].unique().to_list() == ["too_little_history"]
    assert young["volatility"][-1] is not None
    flat = symbol_risk(made([100.0] * 400), SMALL)
    assert flat["volatility"].is_null().all()
    assert flat["var_95"].is_null().all()
    assert flat["sharpe_252"].is_null().all()
    assert flat["risk_reason"][-1] == "no_price_movement"
    assert (flat["drawdown"] == 0).all()


@pytest.mark.requirement("R1.5")
def test_insufficient_history_lists_symbols_with_the_reason(twenty_stocks):
    bars = pl.concat(
        [twenty_stocks.select("symbol", "session"), made([1.0, 2.0, 3.0], "YOUNG").select("symbol", "session")]
    )
    assert insufficient_history(bars, 252).to_dicts() == [
        {"symbol": "YOUNG", "reason": "too_little_history", "sessions": 3, "needed": 252}
    ]
    assert insufficient_history(bars, 3).height == 0


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 0.0, -5.0])
def test_bad_closes_are_refused(bad):
    with pytest.raises(DataError, match="missing or not positive"):
        symbol_risk(made([100.0, bad, 101.0]), SMALL)


def test_missing_columns_and_repeated_keys_are_refused():
    with pytest.raises(DataError, match="adj_factor"):
        symbol_risk(made([1.0, 2.0]).drop("adj_factor"), SMALL)
    with pytest.raises(DataError, match="occurs twice"):
        symbol_risk(pl.concat([made([1.0, 2.0])] * 2), SMALL)


def test_no_bars_give_an_empty_table():
    assert symbol_risk(made([1.0])[:0], SMALL).schema == pl.Schema(RISK_SCHEMA)
    assert symbol_risk(made([1.0]), SMALL)["risk_reason"].to_list() == ["too_little_history"]


def test_settings_refuse_what_makes_no_sense():
    for bad in ({"decay": 1.0}, {"quantile_minimum": 600}, {"ladder": ("fhs", "fhs")}, {"method": "normal"}, {"x": 1}):
        with pytest.raises(ValidationError):
            RiskSettings(**bad)
    assert RiskSettings().lookback == 750
    assert RiskSettings(performance_window=1000).lookback == 1000
