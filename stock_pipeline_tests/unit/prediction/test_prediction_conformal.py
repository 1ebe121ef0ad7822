"""Tests of the intervals: equality with independent libraries, coverage year by year on real prices, bad input."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.core.errors import DataError, LookAheadError
from stock_pipeline.core.prediction.adaptive import AdaptiveSettings, adapted_miss, simulate, update
from stock_pipeline.core.prediction.conformal import (
    GRID,
    Calibrator,
    ConformalSettings,
    fit,
    normal,
    order_statistic,
    residuals,
)
from stock_pipeline.core.prediction.coverage import by_group, coverage_check
from stock_pipeline.core.prediction.walk_forward import walk_forward_intervals

pytestmark = pytest.mark.requirement("R1.3")

YEARS = range(2000, 2023)


def some(frame: pl.DataFrame, rows: int) -> pl.DataFrame:
    return frame.filter(pl.col("session") < date(2000, 1, 1)).sort("session", "symbol").tail(rows)


def walk(frame: pl.DataFrame, sides: str = "symmetric") -> pl.DataFrame:
    """Each year judged by intervals calibrated on the years before it."""
    parts = []
    for year in YEARS:
        test = frame.filter(pl.col("session").dt.year() == year)
        calibrator = fit(frame, 0.9, horizon=5, settings=ConformalSettings(sides=sides), as_of=date(year - 1, 12, 31))
        lower, upper = calibrator.interval(test["prediction"].to_numpy(), test["volatility"].to_numpy())
        label = test["label"].to_numpy()
        parts.append(test.with_columns(pl.Series("inside", (label >= lower) & (label <= upper)), horizon=pl.lit(5)))
    return pl.concat(parts)


@pytest.mark.parametrize("rows", [700, 1999, 3000])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_symmetric_intervals_equal_crepes_and_mapie(zero_forecasts, rows, coverage):
    from crepes import ConformalRegressor
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    part = some(zero_forecasts, rows)
    ours = fit(part, coverage, horizon=5).multipliers()[1]
    values = residuals(part, 5)

    # where (n + 1)(1 - coverage) is whole, crepes' floating-point product can fall just below it and give the next
    # larger residual: a level moved by 1e-9 asks for the same rank
    crepes = ConformalRegressor().fit(residuals=values)
    width = crepes.predict_int(y_hat=np.zeros(1), confidence=coverage - 1e-9)[0, 1]
    assert ours == pytest.approx(width, rel=1e-15)

    zero = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((2, 1)), np.zeros(2))
    mapie = SplitConformalRegressor(estimator=zero, confidence_level=coverage, prefit=True)
    mapie.conformalize(np.zeros((values.size, 1)), values)
    bound = mapie.predict_interval(np.zeros((1, 1)))[1][0, 1, 0]
    assert ours == pytest.approx(bound, rel=1e-15)


def test_scaled_intervals_equal_crepes_normalised_intervals(zero_forecasts):
    from crepes import ConformalRegressor

    part, new = some(zero_forecasts, 2000), zero_forecasts.tail(50)
    calibrator = fit(part, 0.9, horizon=5)
    lower, upper = calibrator.interval(np.full(50, 0.01), new["volatility"].to_numpy())
    scale = part["volatility"].to_numpy() * math.sqrt(5 / 252)
    crepes = ConformalRegressor().fit(residuals=part["label"].to_numpy(), sigmas=scale)
    theirs = crepes.predict_int(
        y_hat=np.full(50, 0.01), sigmas=new["volatility"].to_numpy() * math.sqrt(5 / 252), confidence=0.9
    )
    assert lower == pytest.approx(theirs[:, 0], rel=1e-12)
    assert upper == pytest.approx(theirs[:, 1], rel=1e-12)


def test_two_sided_quantiles_are_the_order_statistics(zero_forecasts):
    part = some(zero_forecasts, 999)
    ordered = np.sort(residuals(part, 5))
    low, high = fit(part, 0.9, horizon=5, settings=ConformalSettings(sides="asymmetric")).multipliers()
    assert (low, high) == (ordered[49], ordered[949])  # 50th and 950th of 999


def test_the_rank_is_not_a_victim_of_rounding():
    assert order_statistic(9, 0.9) == 9
    assert order_statistic(99, 0.95) == 95
    assert order_statistic(100, 0.9) == 91


def test_many_residuals_are_kept_as_quantiles_close_to_all(zero_forecasts):
    calibrator = fit(zero_forecasts, 0.9, horizon=5)
    assert len(calibrator.residuals_sorted) == GRID
    assert calibrator.residuals == zero_forecasts.height
    values = np.sort(np.abs(residuals(zero_forecasts, 5)))
    exact = values[order_statistic(values.size, 0.9) - 1]
    assert calibrator.multipliers()[1] == pytest.approx(exact, rel=1e-3)
    assert calibrator.multipliers()[1] >= exact
    assert calibrator.coverage_on_residuals == pytest.approx(0.9, abs=0.001)


@pytest.mark.requirement("R1.3")
def test_scaled_intervals_hold_in_every_year_and_plain_ones_break_in_2008(zero_forecasts):
    scaled = by_group(walk(zero_forecasts), "year")
    assert scaled.height == len(YEARS)
    assert scaled["coverage"].min() > 0.865
    assert scaled["coverage"].max() < 0.92
    assert 0.88 < scaled.filter(pl.col("group") == "2008")["coverage"].item() < 0.92

    flat = walk(zero_forecasts.with_columns(pl.lit(1.0).alias("volatility")))
    plain = by_group(flat, "year")
    assert plain.filter(pl.col("group") == "2008")["coverage"].item() < 0.83
    assert plain["coverage"].max() > 0.95


def test_the_check_passes_scaled_intervals_and_names_where_plain_ones_fail(zero_forecasts):
    good = coverage_check(walk(zero_forecasts), 0.9)
    assert good.passed
    assert good.reasons == ()
    assert good.judged == 1 + len(YEARS) + 20 + 3

    flat = walk(zero_forecasts.with_columns(pl.lit(1.0).alias("volatility")))
    regimes = flat.drop("volatility").join(
        zero_forecasts.select("symbol", "session", "volatility"), on=["symbol", "session"]
    )
    bad = coverage_check(regimes, 0.9)
    assert not bad.passed
    assert any(r.startswith("year 2008") for r in bad.reasons)
    assert any(r.startswith("regime wild") and "below" in r for r in bad.reasons)
    assert any(r.startswith("regime calm") and "above" in r for r in bad.reasons)


def test_asymmetric_intervals_also_hold(zero_forecasts):
    years = by_group(walk(zero_forecasts, "asymmetric"), "year")["coverage"]
    assert years.min() > 0.86
    assert years.max() < 0.93


def test_calibrator_survives_json_bit_for_bit(zero_forecasts):
    calibrator = fit(some(zero_forecasts, 900), 0.9, horizon=5)
    again = Calibrator.model_validate_json(calibrator.model_dump_json())
    assert again == calibrator
    prediction, volatility = np.linspace(-0.1, 0.1, 7), np.full(7, 0.3)
    assert np.array_equal(again.interval(prediction, volatility), calibrator.interval(prediction, volatility))
    assert calibrator.fitted_through == some(zero_forecasts, 900)["label_session"].max()


@given(
    prediction=st.floats(-0.5, 0.5),
    volatility=st.floats(0.01, 3.0),
    coverage=st.floats(0.5, 0.99),
    sides=st.sampled_from(["symmetric", "asymmetric"]),
)
def test_intervals_are_ordered_nested_and_confidence_is_a_share(
    zero_forecasts, prediction, volatility, coverage, sides
):
    calibrator = fit(some(zero_forecasts, 600), 0.9, horizon=5, settings=ConformalSettings(sides=sides))
    middle, width = np.array([prediction]), np.array([volatility])
    lower, upper = calibrator.interval(middle, width, coverage)
    wider = calibrator.interval(middle, width, min(coverage + 0.005, 0.995))
    assert -1 <= lower[0] <= prediction <= upper[0]
    assert wider[0][0] <= lower[0]
    assert wider[1][0] >= upper[0]
    assert 0 <= calibrator.confidence(middle, width)[0] <= 1


def test_confidence_is_the_share_of_residuals_that_keep_the_sign(zero_forecasts):
    part = some(zero_forecasts, 800)
    calibrator = fit(part, 0.9, horizon=5)
    z, scale = residuals(part, 5), 0.2 * math.sqrt(5 / 252)
    for prediction in (0.03, 0.005, -0.02):
        outcome = prediction + z * scale
        share = np.mean(np.sign(outcome) == np.sign(prediction))
        assert calibrator.confidence(np.array([prediction]), np.array([0.2]))[0] == pytest.approx(share, abs=0.002)
    assert calibrator.confidence(np.zeros(1), np.array([0.2]))[0] == 0.5
    assert calibrator.confidence(np.array([0.5]), np.array([0.01]))[0] > 0.99


def test_stated_confidence_is_met_out_of_sample(zero_forecasts):
    """Stated probabilities of the right sign are right on average: calibrated before 2010, judged after."""
    frame = zero_forecasts.with_columns(
        (0.05 * pl.col("volatility") * (pl.col("session").dt.ordinal_day() % 3).cast(pl.Float64)).alias("prediction")
    ).filter(pl.col("prediction") > 0)
    calibrator = fit(frame, 0.9, horizon=5, as_of=date(2009, 12, 31))
    later = frame.filter(pl.col("session") > date(2010, 1, 1))
    stated = calibrator.confidence(later["prediction"].to_numpy(), later["volatility"].to_numpy()).mean()
    assert stated == pytest.approx((later["label"] > 0).mean(), abs=0.03)


def test_too_little_or_unusable_history_is_refused(zero_forecasts):
    with pytest.raises(DataError, match=r"too few residuals to calibrate.*499.*at least 500"):
        fit(some(zero_forecasts, 499), 0.9, horizon=5)
    with pytest.raises(DataError, match="too few residuals for the coverage"):
        fit(some(zero_forecasts, 50), 0.99, horizon=5, settings=ConformalSettings(minimum_residuals=20))
    with pytest.raises(DataError, match="lacks columns"):
        fit(some(zero_forecasts, 900).drop("volatility"), 0.9, horizon=5)
    with pytest.raises(DataError, match="as-of"):
        fit(some(zero_forecasts, 900).drop("label_session"), 0.9, horizon=5, as_of=date(1999, 1, 1))


def test_bad_values_are_left_out_and_recent_sessions_can_be_chosen(zero_forecasts):
    part = some(zero_forecasts, 1000)
    spoiled = part.with_columns(
        pl.when(pl.int_range(pl.len()) < 100).then(float("nan")).otherwise("label").alias("label"),
        pl.when(pl.int_range(pl.len()) >= 950).then(0.0).otherwise("volatility").alias("volatility"),
    )
    assert fit(spoiled, 0.9, horizon=5).residuals == 850
    recent = fit(zero_forecasts, 0.9, horizon=5, settings=ConformalSettings(recent_sessions=250))
    assert recent.residuals == 250 * 20


def test_as_of_leaves_out_outcomes_that_were_not_known(zero_forecasts):
    day = date(2005, 6, 1)
    honest = fit(zero_forecasts, 0.9, horizon=5, as_of=day)
    assert honest.fitted_through <= day
    assert honest == fit(zero_forecasts.filter(pl.col("label_session") <= day), 0.9, horizon=5)


def test_without_residuals_normal_quantiles_serve():
    calibrator = normal(0.9, horizon=5)
    assert calibrator.method == "normal"
    assert calibrator.multipliers()[1] == pytest.approx(1.645, abs=0.002)
    assert calibrator.confidence(np.array([0.02]), np.array([0.2]))[0] > 0.7


@pytest.mark.requirement("R1.3")
def test_adaptive_intervals_hold_in_every_year_from_one_old_calibration(zero_forecasts):
    calibrator = fit(zero_forecasts, 0.9, horizon=5, as_of=date(1999, 12, 31))
    later = zero_forecasts.filter(pl.col("session") >= date(2000, 1, 1))
    years = by_group(simulate(later, calibrator, AdaptiveSettings()), "year", horizon=5)["coverage"]
    fixed = by_group(simulate(later, calibrator, AdaptiveSettings(rate=0.0)), "year", horizon=5)["coverage"]
    assert years.min() > 0.88
    assert years.max() < 0.92
    assert (years - 0.9).abs().mean() < (fixed - 0.9).abs().mean()


def test_adaptation_follows_gibbs_and_candes():
    settings = AdaptiveSettings(rate=0.05)
    assert adapted_miss(np.array([]), 0.1, settings) == 0.1
    assert adapted_miss(np.array([1.0]), 0.1, settings) == pytest.approx(0.1 + 0.05 * (0.1 - 1.0))
    assert adapted_miss(np.array([0.0, 0.0]), 0.1, settings) == pytest.approx(0.11)
    assert adapted_miss(np.ones(100), 0.1, settings) == settings.smallest_miss


def test_the_level_depends_on_matured_outcomes_alone_and_is_replayed_from_the_table(zero_forecasts):
    calibrator = fit(zero_forecasts, 0.9, horizon=5, as_of=date(2006, 12, 31))
    crisis = zero_forecasts.filter(pl.col("session").is_between(date(2007, 1, 1), date(2009, 12, 31)))
    settings = AdaptiveSettings()
    history = simulate(crisis, calibrator, settings)
    for day in (date(2007, 3, 1), date(2008, 10, 15), date(2009, 6, 1)):
        used = history.filter(pl.col("session") == day)["interval_level"][0]
        assert update(history, 0.9, settings, day).level == used
        # what was not known on the day, and what the memory has forgotten, change nothing
        known = history.filter(pl.col("label_session") <= day)
        assert update(known, 0.9, settings, day).level == used
        old = known["label_session"].unique().sort().tail(settings.memory)[0]
        assert update(known.filter(pl.col("label_session") >= old), 0.9, settings, day).level == used
        later = history.with_columns(
            pl.when(pl.col("label_session") > day).then(~pl.col("inside")).otherwise("inside").alias("inside")
        )
        assert update(later.sample(fraction=1.0, shuffle=True, seed=2), 0.9, settings, day).level == used


def test_levels_can_be_kept_for_each_symbol(zero_forecasts):
    calibrator = fit(zero_forecasts, 0.9, horizon=5)
    part = zero_forecasts.filter(pl.col("session") > date(2021, 1, 1))
    history = simulate(part, calibrator, AdaptiveSettings(rate=0.0)).with_columns(
        pl.when(pl.col("symbol") == "AMD").then(False).otherwise("inside").alias("inside")
    )
    level = update(history, 0.9, AdaptiveSettings(scope="symbol"), date(2022, 6, 1))
    assert level.by_symbol["AMD"] == pytest.approx(0.99)
    assert level.by_symbol["KO"] < 0.95
    assert level.of(pl.Series(["AMD", "NEW"])).tolist() == [level.by_symbol["AMD"], 0.9]


def test_an_outcome_before_its_prediction_is_refused(zero_forecasts):
    calibrator = fit(zero_forecasts, 0.9, horizon=5)
    leak = zero_forecasts.tail(100).with_columns(pl.col("session").alias("label_session"))
    with pytest.raises(LookAheadError, match="at or before"):
        simulate(leak, calibrator, AdaptiveSettings())
    with pytest.raises(DataError, match="lack columns"):
        update(leak, 0.9, AdaptiveSettings(), date(2020, 1, 1))


@pytest.mark.requirement("R1.3")
def test_a_history_of_intervals_is_recalibrated_each_year_and_knows_nothing_of_later_years(zero_forecasts):
    early = zero_forecasts.filter(pl.col("session") < date(1999, 1, 1))
    history = walk_forward_intervals(early, horizon=5)
    assert history["session"].min() == date(1991, 1, 2)  # 1990 began without outcomes
    judged = by_group(history, "year")
    assert judged["coverage"].min() > 0.87
    assert judged["coverage"].max() < 0.93
    day = date(1995, 6, 30)
    changed = early.with_columns(
        pl.when(pl.col("label_session") > day).then(pl.col("label") * 9).otherwise("label").alias("label")
    )
    again = walk_forward_intervals(changed, horizon=5)
    columns = ["symbol", "session", "lower", "upper", "interval_level"]
    known = pl.col("session") <= day
    assert again.filter(known).select(columns).equals(history.filter(known).select(columns))
    fixed = walk_forward_intervals(early, horizon=5, adaptive=AdaptiveSettings(rate=0.0))
    assert fixed["interval_level"].unique().to_list() == [0.9]


def test_a_history_that_is_too_short_has_no_intervals(zero_forecasts):
    none = walk_forward_intervals(zero_forecasts.filter(pl.col("session") < date(1990, 12, 1)), horizon=5)
    assert none.height == 0
    assert {"lower", "upper", "interval_level", "inside", "horizon"} <= set(none.columns)
    with pytest.raises(DataError, match="lack columns"):
        walk_forward_intervals(zero_forecasts.drop("label_session"), horizon=5)
