"""Tests of the fallback ladder, the publication gate, coverage groups and drift."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError, IntegrityError
from stock_pipeline.core.prediction.conformal import Calibrator, fit
from stock_pipeline.core.prediction.coverage import by_group, coverage_check, wilson
from stock_pipeline.core.prediction.drift import (
    drift_check,
    feature_drift,
    kolmogorov_smirnov,
    psi,
    rank_ic_decay,
    session_rank_ic,
)
from stock_pipeline.core.prediction.fallback import choose, naive_calibrator, naive_outputs
from stock_pipeline.core.prediction.outcomes import mature
from stock_pipeline.core.prediction.publish import PublicationSettings, may_publish, publication_checks
from stock_pipeline.core.prediction.score import Lineage, score

DAYS = [date(2022, 11, 30), date(2022, 12, 1)]


@pytest.fixture(scope="module")
def calibrator(zero_forecasts: pl.DataFrame) -> Calibrator:
    return fit(zero_forecasts, 0.9, horizon=5, as_of=date(2022, 6, 30))


@pytest.fixture(scope="module")
def bars(stocks: pl.DataFrame) -> pl.DataFrame:
    return stocks.filter(pl.col("session").is_between(date(2021, 6, 1), DAYS[1]))


@pytest.fixture(scope="module")
def published(bars: pl.DataFrame, risks: pl.DataFrame, calibrator: Calibrator) -> pl.DataFrame:
    outputs = bars.with_columns((-0.05 * pl.col("close").pct_change(20)).over("symbol").alias("expected_return"))
    lineage = Lineage(horizon=5, model_name="ridge", model_version="3", feature_set_hash="abc", lake_version=17)
    chosen = outputs.filter(pl.col("session").is_in(DAYS)).select("symbol", "session", "expected_return")
    return score(chosen, bars=bars, risk=risks, calibrator=calibrator, lineage=lineage).predictions


def checks(scored: pl.DataFrame, published: pl.DataFrame, bars: pl.DataFrame, **more) -> dict:
    found = publication_checks(
        scored,
        published.filter(pl.col("session") == DAYS[0]),
        universe=more.pop("universe", bars.select("symbol", "session")),
        newest_bar=more.pop("newest_bar", DAYS[1]),
        **more,
    )
    return {c.name: c for c in found}


def failing(found: dict) -> set[str]:
    return {name for name, c in found.items() if not c.passed}


# fallback


@pytest.mark.requirement("R1.5")
def test_the_first_rung_that_works_is_used_and_the_causes_are_told():
    def damaged() -> str:
        raise IntegrityError("checksum does not match", value="model.txt")

    def missing() -> str:
        raise FileNotFoundError("no such folder")

    top = choose(lambda: "champion", damaged, lambda: "naive")
    assert (top.value, top.level, top.reason, top.name) == ("champion", 0, None, "champion")
    second = choose(damaged, lambda: "previous", lambda: "naive")
    assert (second.value, second.level) == ("previous", 1)
    assert second.reason == "champion: IntegrityError: checksum does not match: 'model.txt'"
    last = choose(damaged, missing, lambda: "naive")
    assert (last.value, last.level, last.name) == ("naive", 2, "naive")
    assert last.reason == (
        "champion: IntegrityError: checksum does not match: 'model.txt'; previous: FileNotFoundError: no such folder"
    )
    assert isinstance(last.failures[1].error, FileNotFoundError)
    none = choose(None, None, lambda: "naive")
    assert none.reason == "champion: no such model version; previous: no such model version"


def test_stopping_the_program_is_not_a_failure_of_a_model():
    def stopped() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(stopped, None, lambda: "naive")


@pytest.mark.requirement("R1.5")
def test_the_naive_rung_predicts_with_real_intervals_and_says_so(stocks, bars, risks):
    past = stocks.filter(pl.col("session").is_between(date(2018, 1, 1), DAYS[1]))
    calibrator = naive_calibrator(past, risks, 5, 0.9)
    assert calibrator.method == "conformal"
    assert calibrator.fitted_through == DAYS[1]
    lineage = Lineage(
        horizon=5, model_name="naive", model_version="1", fallback_level=2, fallback_reason="champion: damaged",
        feature_set_hash="none", lake_version=1,
    )  # fmt: skip
    asked = bars.filter(pl.col("session") == DAYS[1])
    result = score(naive_outputs(asked), bars=bars, risk=risks, calibrator=calibrator, lineage=lineage).predictions
    assert result["fallback_level"].unique().to_list() == [2]
    assert result["fallback_reason"].unique().to_list() == ["champion: damaged"]
    outcomes = mature(result, stocks, 5)
    assert outcomes["inside"].mean() > 0.8
    found = checks(result, result, bars)
    assert failing(found) == {"champion_predicts"}
    assert may_publish(list(found.values()))


def test_the_naive_rung_works_with_hardly_any_history(bars, risks):
    calibrator = naive_calibrator(bars.filter(pl.col("session") > date(2022, 11, 20)), risks, 5, 0.9)
    assert calibrator.method == "normal"
    lower, upper = calibrator.interval(np.zeros(2), np.array([0.2, 0.4]))
    assert lower[1] < lower[0] < 0 < upper[0] < upper[1]


# the gate


@pytest.mark.requirement("R1.2")
def test_good_predictions_pass_every_check(published, bars):
    now = published.filter(pl.col("session") == DAYS[1])
    found = checks(now, published, bars)
    assert failing(found) == set()
    assert len(found) == 17
    assert may_publish(list(found.values()))
    first = publication_checks(now, None, universe=bars.select("symbol", "session"), newest_bar=DAYS[1])
    assert all(c.passed for c in first)


def corrupt(column: str, value: object, symbol: str = "AMD"):
    return lambda f: f.with_columns(
        pl.when(pl.col("symbol") == symbol).then(pl.lit(value)).otherwise(column).cast(f.schema[column]).alias(column)
    )


@pytest.mark.requirement("R1.2")
@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (corrupt("lower", 0.9), {"intervals_are_ordered"}),
        (corrupt("upper", float("nan")), {"numbers_are_finite"}),
        (corrupt("expected_return", None),
         {"numbers_are_finite", "intervals_are_ordered", "expected_returns_are_plausible"}),
        (corrupt("confidence", 1.5), {"confidence_is_a_share"}),
        (corrupt("rank", 1), {"ranks_are_complete"}),
        (corrupt("session", date(2022, 12, 2)), {"no_session_after_the_bars"}),
        (corrupt("model_version", "9"), {"one_model_a_session_and_arm"}),
        (corrupt("horizon", 6), {"one_model_a_session_and_arm"}),
        (corrupt("fallback_level", 1), {"one_model_a_session_and_arm", "champion_predicts"}),
        (lambda f: pl.concat([f, f.head(1)]), {"ids_are_unique", "keys_are_unique", "ranks_are_complete"}),
        (lambda f: f.filter(pl.col("rank") <= 15), {"universe_is_complete"}),
        (lambda f: f.with_columns(pl.col("expected_return", "lower", "upper") + 0.2),
         {"expected_returns_are_plausible", "expected_returns_continue"}),
        (lambda f: f.with_columns(lower=pl.lit(-1.0), upper=pl.lit(3.0)),
         {"interval_widths_continue"}),
        (lambda f: f.drop("lower"), {"columns_are_complete"}),
        (lambda f: f.head(0), {"predictions_exist"}),
    ],
)  # fmt: skip
def test_damaged_predictions_are_caught(published, bars, damage, names):
    spoiled = damage(published.filter(pl.col("session") == DAYS[1]))
    found = checks(spoiled, published, bars)
    assert names <= failing(found)
    assert not may_publish(list(found.values()))


def test_old_predictions_are_not_fresh(published, bars):
    now = published.filter(pl.col("session") == DAYS[1])
    found = checks(now, published, bars, expected_session=date(2022, 12, 5))
    assert failing(found) == {"predictions_are_fresh"}
    assert "2022-12-05" in found["predictions_are_fresh"].message


def test_explained_absences_do_not_block_until_they_are_too_many(published, bars):
    now = published.filter((pl.col("session") == DAYS[1]) & (pl.col("rank") <= 15))
    absent = published.filter((pl.col("session") == DAYS[1]) & (pl.col("rank") > 15)).select("symbol", "session")
    young = absent.with_columns(pl.lit("too_little_history").alias("reason"), pl.lit("").alias("detail"))
    assert failing(checks(now, published, bars, unpredicted=young)) == set()
    broken = young.with_columns(pl.lit("missing_features").alias("reason"))
    assert failing(checks(now, published, bars, unpredicted=broken)) == {"universe_is_complete"}
    few = PublicationSettings(min_explained=0.9)
    assert failing(checks(now, published, bars, unpredicted=young, settings=few)) == {"universe_is_complete"}


def test_a_model_that_says_the_same_of_all_is_told(published, bars):
    now = published.filter(pl.col("session") == DAYS[1]).with_columns(pl.lit(0.001).alias("expected_return"))
    found = checks(now, published, bars)
    assert failing(found) == {"model_tells_symbols_apart"}
    assert found["model_tells_symbols_apart"].severity == "warning"


# coverage


def test_bounds_are_wilsons_and_dependence_widens_them():
    from scipy.stats import binomtest

    expected = binomtest(45, 50).proportion_ci(0.95, "wilson")
    assert wilson(0.9, 50, 0.95) == pytest.approx((expected.low, expected.high), rel=1e-9)
    days = pl.date_range(date(2020, 1, 1), date(2020, 12, 31), eager=True)
    random = np.random.default_rng(1)
    apart = pl.DataFrame(
        {"symbol": np.tile([f"s{i}" for i in range(20)], len(days)), "session": days.repeat_by(20).explode(),
         "inside": random.random(len(days) * 20) < 0.9}
    )  # fmt: skip
    together = apart.with_columns(pl.col("inside").first().over("session"))
    free, bound = (by_group(f, "overall", horizon=1).row(0, named=True) for f in (apart, together))
    assert free["effective_outcomes"] > 4000
    assert bound["effective_outcomes"] < 800
    assert bound["upper_bound"] - bound["lower_bound"] > 2.5 * (free["upper_bound"] - free["lower_bound"])


def test_all_inside_and_few_outcomes_are_judged_with_care():
    days = pl.date_range(date(2020, 1, 1), date(2020, 4, 9), eager=True)
    perfect = pl.DataFrame({"symbol": "A", "session": days, "inside": True, "volatility": 0.2, "horizon": 5})
    row = by_group(perfect, "symbol").row(0, named=True)
    assert (row["coverage"], row["effective_outcomes"]) == (1.0, 20.0)
    assert row["lower_bound"] < 0.9
    verdict = coverage_check(perfect, 0.9)
    assert verdict.passed
    assert verdict.judged == 0
    assert "not judged" in verdict.reasons[0]
    with pytest.raises(ConfigurationError, match="unknown grouping"):
        by_group(perfect, "month")
    with pytest.raises(DataError, match="lack columns"):
        by_group(perfect.drop("volatility"), "regime")


# drift


@pytest.mark.requirement("R4.5")
def test_psi_by_hand_and_ks_as_scipy():
    from scipy.stats import ks_2samp

    reference = np.arange(100.0)
    assert psi(reference, reference) == 0.0
    moved = np.concatenate([np.arange(50.0), np.arange(50.0)])
    shares = np.array([0.2] * 5 + [0.005] * 5) / 1.025
    expected = np.sum((shares - 0.1) * np.log(shares / 0.1))
    assert psi(reference, moved) == pytest.approx(expected)
    random = np.random.default_rng(2)
    a, b = random.normal(0, 1, 800), random.normal(0.1, 1.2, 500)
    theirs = ks_2samp(a, b, method="asymp")
    distance, probability = kolmogorov_smirnov(a, b)
    assert distance == pytest.approx(theirs.statistic, rel=1e-12)
    assert probability == pytest.approx(theirs.pvalue, rel=0.15)


@pytest.fixture(scope="module")
def feature_frame(risks: pl.DataFrame) -> pl.DataFrame:
    return risks.select("symbol", "session", "volatility", "sharpe_252", "drawdown")


@pytest.mark.requirement("R4.5")
def test_the_crisis_of_2008_is_drift_and_a_random_half_is_not(feature_frame):
    calm = feature_frame.filter(pl.col("session").is_between(date(2004, 1, 1), date(2006, 12, 31)))
    crisis = feature_frame.filter(pl.col("session").is_between(date(2008, 9, 1), date(2009, 3, 31)))
    names = ["volatility", "sharpe_252", "drawdown"]
    assert feature_drift(calm, crisis, names)["verdict"].to_list() == ["drifted"] * 3
    shuffled = calm.sample(fraction=1.0, shuffle=True, seed=4)
    half = shuffled.height // 2
    assert feature_drift(shuffled[:half], shuffled[half:], names)["verdict"].to_list() == ["stable"] * 3
    verdict = drift_check(calm, crisis, names)
    assert verdict.drifted
    assert verdict.retrain
    assert "3 of 3 features drifted" in verdict.reasons[0]


def test_features_that_vanish_are_drift_and_unknown_ones_refused(feature_frame):
    calm = feature_frame.filter(pl.col("session").dt.year() == 2005)
    gone = calm.with_columns(pl.lit(None, pl.Float64).alias("drawdown"))
    table = feature_drift(calm, gone, ["volatility", "drawdown"])
    assert table["verdict"].to_list() == ["stable", "drifted"]
    assert table["psi"].to_list() == [0.0, None]
    assert feature_drift(calm.head(20), calm.head(20), ["volatility"])["verdict"].item() == "unknown"
    with pytest.raises(DataError, match="same features"):
        feature_drift(calm, gone.drop("drawdown"), ["drawdown"])
    with pytest.raises(DataError, match="rows on both sides"):
        feature_drift(calm, gone[:0], ["volatility"])


@pytest.mark.requirement("R4.5")
def test_a_rank_ic_that_decays_asks_for_a_retrain(feature_frame, zero_forecasts):
    from scipy.stats import spearmanr

    recent = zero_forecasts.filter(pl.col("session") > date(2022, 3, 1)).rename({"label": "realised_return"})
    random = np.random.default_rng(6)
    noise = pl.Series("noise", random.normal(0, 0.05, recent.height))
    good = recent.with_columns((pl.col("realised_return") + noise).alias("expected_return"))
    bad = recent.with_columns((-pl.col("realised_return") + noise).alias("expected_return"))
    day = good.filter(pl.col("session") == good["session"].min())
    ic = session_rank_ic(good)
    assert ic["rank_ic"][0] == pytest.approx(spearmanr(day["expected_return"], day["realised_return"]).statistic)
    assert rank_ic_decay(good, 0.05, 5)["decayed"] == 0
    assert rank_ic_decay(bad, 0.05, 5)["decayed"] == 1
    assert rank_ic_decay(bad.filter(pl.col("session") > date(2022, 12, 10)), 0.05, 5)["t"] is None
    calm = feature_frame.filter(pl.col("session").dt.year() == 2005)
    verdict = drift_check(calm, calm, ["volatility"], outcomes=bad, reference_ic=0.05, horizon=5)
    assert verdict.retrain
    assert "below the promised 0.0500" in verdict.reasons[0]
    assert not drift_check(calm, calm, ["volatility"], outcomes=good, reference_ic=0.05, horizon=5).retrain
