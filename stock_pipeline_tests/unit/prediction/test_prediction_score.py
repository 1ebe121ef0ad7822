"""Tests of scoring, unpredicted rows, outcomes and replay on real prices."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.prediction.adaptive import AdaptiveLevel
from stock_pipeline.core.prediction.conformal import Calibrator, fit
from stock_pipeline.core.prediction.outcomes import OUTCOME_COLUMNS, mature
from stock_pipeline.core.prediction.replay import compare
from stock_pipeline.core.prediction.score import (
    PREDICTION_SCHEMA,
    UNPREDICTED_SCHEMA,
    Lineage,
    Scored,
    ScoreSettings,
    expected_returns,
    prediction_id,
    rank_sessions,
    score,
)

DAY = date(2022, 12, 1)
LINEAGE = Lineage(horizon=5, model_name="ridge", model_version="3", feature_set_hash="abc123", lake_version=17)


@pytest.fixture(scope="module")
def calibrator(zero_forecasts: pl.DataFrame) -> Calibrator:
    return fit(zero_forecasts, 0.9, horizon=5, as_of=date(2022, 6, 30))


@pytest.fixture(scope="module")
def recent(stocks: pl.DataFrame) -> pl.DataFrame:
    return stocks.filter(pl.col("session").is_between(date(2021, 6, 1), DAY))


@pytest.fixture(scope="module")
def outputs(recent: pl.DataFrame) -> pl.DataFrame:
    """Twenty-session reversal, as a model's output."""
    return (
        recent.select(
            "symbol", "session", (-0.05 * pl.col("close").pct_change(20)).over("symbol").alias("expected_return")
        )
        .filter(pl.col("session") == DAY)
        .sort("symbol")
    )


def scored(outputs: pl.DataFrame, recent: pl.DataFrame, risks: pl.DataFrame, calibrator: Calibrator, **more) -> Scored:
    return score(outputs, bars=recent, risk=risks, calibrator=calibrator, **({"lineage": LINEAGE} | more))


@pytest.mark.requirement("R1.2", "R1.3")
def test_rows_are_as_declared_and_ranked(outputs, recent, risks, calibrator):
    result = scored(outputs, recent, risks, calibrator)
    rows = result.predictions
    assert rows.schema == pl.Schema(PREDICTION_SCHEMA)
    assert result.unpredicted.schema == pl.Schema(UNPREDICTED_SCHEMA)
    assert (rows.height, result.unpredicted.height) == (20, 0)
    assert rows.equals(rows.sort("symbol", "session"))
    best = rows.sort("rank")
    assert best["rank"].to_list() == list(range(1, 21))
    assert best["expected_return"].is_sorted(descending=True)
    assert rows["prediction_id"].n_unique() == 20
    width = calibrator.multipliers()[1] * rows["volatility"].to_numpy() * np.sqrt(5 / 252)
    assert (rows["upper"] - rows["expected_return"]).to_numpy() == pytest.approx(width, rel=1e-12)
    assert rows["close"].to_list() == recent.filter(pl.col("session") == DAY)["close"].to_list()
    assert rows["coverage_target"].unique().to_list() == [0.9]


def test_the_id_says_what_determines_a_prediction(outputs, recent, risks, calibrator):
    first = scored(outputs, recent, risks, calibrator).predictions
    again = scored(outputs.reverse(), recent.reverse().sort("session"), risks, calibrator).predictions
    assert again.equals(first)
    assert first["prediction_id"][0] == prediction_id(first["symbol"][0], "2022-12-01", LINEAGE)
    assert len(first["prediction_id"][0]) == 32
    for change in (
        {"model_version": "4"},
        {"lake_version": 18},
        {"feature_set_hash": "x"},
        {"model_name": "y"},
        {"horizon": 6},
    ):
        other = LINEAGE.model_copy(update=change)
        assert prediction_id("A", "2022-12-01", other) != prediction_id("A", "2022-12-01", LINEAGE)
    same = LINEAGE.model_copy(update={"arm": "challenger", "fallback_reason": "because"})
    assert prediction_id("A", "2022-12-01", same) == prediction_id("A", "2022-12-01", LINEAGE)


@pytest.mark.requirement("R1.5")
def test_every_requested_row_is_predicted_or_has_its_reason(outputs, recent, risks, calibrator):
    keys = recent.filter(pl.col("session") == DAY).select("symbol", "session")
    extra = pl.DataFrame({"symbol": ["GHOST", "STRANGER", "HELD"], "session": [DAY] * 3})
    young = pl.col("symbol") == "KO"
    bars = recent.filter(~young | (pl.col("session") > date(2022, 10, 1)))
    flat = risks.with_columns(pl.when(pl.col("symbol") == "PG").then(None).otherwise("volatility").alias("volatility"))
    members = pl.concat([keys.filter(pl.col("symbol") != "XOM"), extra.filter(pl.col("symbol") != "STRANGER")])
    result = scored(
        outputs.filter(pl.col("symbol") != "PFE"), bars, flat, calibrator,
        requested=pl.concat([keys, extra]),
        members=members,
        quarantined=pl.DataFrame({"symbol": ["HELD"], "session": [DAY], "reason": ["a spike that reverts"]}),
    )  # fmt: skip
    reasons = {r["symbol"]: (r["reason"], r["detail"]) for r in result.unpredicted.iter_rows(named=True)}
    assert reasons == {
        "XOM": ("not_a_member", "outside the universe on this session"),
        "STRANGER": ("not_a_member", "outside the universe on this session"),
        "HELD": ("quarantined_today", "a spike that reverts"),
        "GHOST": ("no_bar_today", "no price was delivered for this session"),
        "KO": ("too_little_history", "43 of 252 sessions"),
        "PFE": ("missing_features", "too many features have no value"),
        "PG": ("no_volatility", "volatility is unknown or zero"),
    }
    assert result.predictions.height + result.unpredicted.height == 23
    assert sorted(result.predictions["rank"]) == list(range(1, 17))


def test_adapted_levels_widen_and_narrow(outputs, recent, risks, calibrator):
    usual = scored(outputs, recent, risks, calibrator).predictions
    wide = scored(outputs, recent, risks, calibrator, level=0.97).predictions
    assert (wide["upper"] > usual["upper"]).all()
    assert wide["interval_level"].unique().to_list() == [0.97]
    assert wide["coverage_target"].unique().to_list() == [0.9]
    level = AdaptiveLevel(DAY, 0.9, {"AMD": 0.99}, 10)
    one = scored(outputs, recent, risks, calibrator, level=level).predictions
    changed = one.filter(pl.col("upper") != usual["upper"])["symbol"].to_list()
    assert changed == ["AMD"]


def test_wrong_input_is_refused(outputs, recent, risks, calibrator):
    with pytest.raises(DataError, match="another horizon"):
        scored(outputs, recent, risks, calibrator, lineage=LINEAGE.model_copy(update={"horizon": 10}))
    with pytest.raises(DataError, match="bars lack columns"):
        scored(outputs, recent.drop("currency"), risks, calibrator)
    with pytest.raises(DataError, match="outputs repeat"):
        scored(pl.concat([outputs, outputs]), recent, risks, calibrator)
    with pytest.raises(ValidationError):
        Lineage(horizon=0, model_name="a", model_version="1", feature_set_hash="x", lake_version=1)


def test_models_are_asked_for_rows_with_enough_features():
    features = pl.DataFrame(
        {
            "symbol": ["A", "B", "C"],
            "session": [DAY] * 3,
            "x": pl.Series([1.0, None, None], dtype=pl.Float32),
            "y": pl.Series([1.0, 2.0, None], dtype=pl.Float32),
        }
    )
    settings = ScoreSettings(max_missing_share=0.5)
    seen = expected_returns(features, lambda f: f["y"].cast(pl.Float64).to_numpy() / 100, ["y", "x"], settings)
    assert seen["symbol"].to_list() == ["A", "B"]
    assert seen["expected_return"].to_list() == [0.01, 0.02]
    with pytest.raises(DataError, match="not finite"):
        expected_returns(features, lambda f: np.full(f.height, np.nan), ["y"], settings)
    with pytest.raises(DataError, match="wrong shape"):
        expected_returns(features, lambda f: np.zeros(7), ["y"], settings)
    with pytest.raises(DataError, match="trained on"):
        expected_returns(features, lambda f: np.zeros(f.height), ["z"], settings)
    assert expected_returns(features[:0], lambda f: np.zeros(9), ["y"], settings).height == 0


def test_ties_are_ranked_by_symbol():
    frame = pl.DataFrame({"symbol": ["C", "A", "B"], "session": [DAY] * 3, "expected_return": [0.0, 0.0, 0.1]})
    assert rank_sessions(frame).select("symbol", "rank").rows() == [("A", 2), ("B", 1), ("C", 3)]


@pytest.mark.requirement("R1.3")
def test_outcomes_are_those_that_have_matured(outputs, stocks, recent, risks, calibrator):
    rows = scored(outputs, recent, risks, calibrator).predictions
    sessions = stocks["session"].unique().sort()
    last = int(sessions.search_sorted(DAY)) + 5
    early = mature(rows, stocks.filter(pl.col("session") < sessions[last]), 5)
    assert early.height == 0
    done = mature(rows, stocks.filter(pl.col("session") <= sessions[last]), 5)
    assert done.columns == list(OUTCOME_COLUMNS)
    assert done.height == 20
    assert done["label_session"].unique().to_list() == [sessions[last]]
    apple = stocks.filter(pl.col("symbol") == "AAPL")["close"].to_list()
    at = stocks.filter(pl.col("symbol") == "AAPL")["session"].to_list().index(DAY)
    row = done.filter(pl.col("symbol") == "AAPL").row(0, named=True)
    assert row["realised_return"] == pytest.approx(apple[at + 5] / apple[at] - 1, rel=1e-14)
    assert row["error"] == row["realised_return"] - row["expected_return"]
    assert row["inside"] == (row["lower"] <= row["realised_return"] <= row["upper"])
    assert row["hit"] == (row["realised_return"] * row["expected_return"] > 0)
    assert mature(rows, stocks, 10).height == 0
    with pytest.raises(DataError, match="lack columns"):
        mature(rows.drop("upper"), stocks, 5)


def test_open_prices_decide_where_they_exist(outputs, stocks, recent, risks, calibrator):
    rows = scored(outputs, recent, risks, calibrator).predictions
    opened = stocks.filter(pl.col("session") > date(2022, 11, 1)).with_columns((pl.col("close") * 0.99).alias("open"))
    late = mature(rows, opened, 5)
    sessions = stocks["session"].unique().sort()
    assert late["label_session"][0] == sessions[int(sessions.search_sorted(DAY)) + 6]


def test_no_sign_is_no_hit(stocks, recent, risks, calibrator, outputs):
    rows = scored(outputs.with_columns(pl.lit(0.0).alias("expected_return")), recent, risks, calibrator).predictions
    assert mature(rows, stocks, 5)["hit"].is_null().all()
    assert rows["confidence"].unique().to_list() == [0.5]


def test_replay_names_the_smallest_difference(outputs, recent, risks, calibrator):
    stored = scored(outputs, recent, risks, calibrator).predictions
    again = scored(outputs, recent, risks, calibrator).predictions.reverse()
    same = compare(stored, again)
    assert same.identical
    assert same.summary() == "20 predictions reproduced bit for bit"

    bound = float(np.nextafter(stored.filter(pl.col("symbol") == "AMD")["upper"][0], 9))
    nudged = again.with_columns(
        pl.when(pl.col("symbol") == "AMD").then(pl.lit(bound)).otherwise("upper").alias("upper"),
        pl.when(pl.col("symbol") == "KO").then(pl.lit("GBP")).otherwise("currency").alias("currency"),
    )
    found = compare(stored, nudged)
    assert not found.identical
    assert sorted((d.field, d.stored, d.recomputed) for d in found.differences if d.field == "currency") == [
        ("currency", "USD", "GBP")
    ]
    upper = next(d for d in found.differences if d.field == "upper")
    assert 0 < upper.distance < 1e-15
    assert "2 fields differ (currency, upper)" in found.summary()

    part = compare(stored, again.head(19))
    assert len(part.missing) == 1
    assert not part.identical
    extra = compare(stored.head(19), again)
    assert len(extra.extra) == 1
    with pytest.raises(DataError, match="repeat an id"):
        compare(pl.concat([stored, stored]), again)


def test_replay_tells_zero_from_minus_zero_and_null_from_null(outputs, recent, risks, calibrator):
    zero = scored(outputs.with_columns(pl.lit(0.0).alias("expected_return")), recent, risks, calibrator).predictions
    minus = zero.with_columns(-pl.col("expected_return"), pl.lit(None, pl.Float64).alias("var_95"))
    assert {d.field for d in compare(zero, minus).differences} == {"expected_return", "var_95"}
    assert compare(minus, minus).identical
