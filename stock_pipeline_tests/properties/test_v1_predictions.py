"""V1: predictions of a real model have ordered, finite intervals and know nothing of the future.

The whole chain runs in every example, on the sample market's real bars: features, risk, the model's output, matured
outcomes, the adapted level, interval, confidence and rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.core.features import engine, registry
from stock_pipeline.core.market.corporate_actions import factors_from_adj_close
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.families import FittedModel
from stock_pipeline.core.modelling.labels import forward_returns
from stock_pipeline.core.prediction.adaptive import AdaptiveSettings, update
from stock_pipeline.core.prediction.conformal import Calibrator, ConformalSettings, fit
from stock_pipeline.core.prediction.outcomes import mature
from stock_pipeline.core.prediction.score import Lineage, expected_returns, score
from stock_pipeline.core.risk.symbol_risk import RiskSettings, symbol_risk

HORIZON = 5
FEATURES = (
    "rsi_14", "atr_ratio_14", "bollinger_percent_b_20", "roc_20", "sma_ratio_50", "macd_ratio", "adx_14",
    "mfi_14", "volume_ratio_20", "return_5", "return_20", "momentum_250_20", "volatility_20", "skewness_60",
    "yang_zhang_volatility_20", "rank_return_20", "zscore_return_5",
)  # fmt: skip
RISK = RiskSettings()
ADAPTIVE = AdaptiveSettings(memory=40)
SET = registry.feature_set(FEATURES)
Alter = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Chain:
    """A trained model with all that its predictions need."""

    bars: pl.DataFrame
    model: FittedModel
    calibrator: Calibrator
    history: pl.DataFrame
    sessions: list[date]

    def predict(self, bars: pl.DataFrame, day: date, compute: Callable = engine.compute) -> pl.DataFrame:
        """The rows that would be published on ``day``, from whatever bars are given."""
        outputs = expected_returns(compute(bars, SET, day), self.model.predict, FEATURES)
        past = self.history.filter(pl.col("session").is_in([d for d in self.sessions if d < day][-60:]))
        level = update(mature(past, bars, HORIZON), self.calibrator.coverage, ADAPTIVE, day)
        lineage = Lineage(
            horizon=HORIZON, model_name="lightgbm", model_version="1", feature_set_hash=SET.hash, lake_version=1
        )
        scored = score(
            outputs.filter(pl.col("session") == day),
            bars=bars,
            risk=symbol_risk(bars, RISK, start=day),
            calibrator=self.calibrator,
            lineage=lineage,
            level=level,
        )
        return scored.predictions


@pytest.fixture(scope="module")
def chain(sample_dir: Path) -> Chain:
    raw = pl.concat(
        pl.read_csv(path, schema_overrides={"volume": pl.Float64})
        for path in sorted((sample_dir / "bars").glob("*.csv"))
    ).with_columns(pl.col("session").str.to_date(), pl.lit("USD").alias("currency"))
    raw = raw.filter(pl.col("session") >= date(2013, 1, 2)).sort("symbol", "session")
    bars = factors_from_adj_close(raw.unique(["symbol", "session"], maintain_order=True)).drop("adj_close")
    table = engine.compute(bars, SET).join(forward_returns(bars, HORIZON), on=["symbol", "session"])
    table = table.join(symbol_risk(bars, RISK).select("symbol", "session", "volatility"), on=["symbol", "session"])
    learn = table.filter(pl.col("label_session") < date(2018, 1, 1)).drop_nulls("label")
    model = families.get("lightgbm").fit(
        learn.select(FEATURES), learn["label"], params={"rounds": 30}, seed=5, feature_names=FEATURES, threads=1
    )
    held = table.filter(pl.col("session") >= date(2018, 1, 1)).drop_nulls("label")
    held = held.with_columns(pl.Series("prediction", model.predict(held.select(FEATURES))))
    calibrator = fit(held, 0.9, horizon=HORIZON, settings=ConformalSettings(), as_of=date(2020, 6, 30))
    late = [d for d in bars["session"].unique().sort() if d >= date(2020, 7, 1)]
    lineage = Lineage(
        horizon=HORIZON, model_name="lightgbm", model_version="1", feature_set_hash=SET.hash, lake_version=1
    )
    outputs = expected_returns(engine.compute(bars, SET, late[0]), model.predict, FEATURES)
    history = score(
        outputs, bars=bars, risk=symbol_risk(bars, RISK), calibrator=calibrator, lineage=lineage
    ).predictions
    return Chain(bars, model, calibrator, history, late)


def window(chain: Chain, day: date, after: int = 15) -> pl.DataFrame:
    """The declared look-back before the day, and some sessions after it."""
    before = max(RISK.lookback, SET.lookback)
    sessions = chain.bars["session"].unique().sort()
    at = int(sessions.search_sorted(day))
    return chain.bars.filter(
        pl.col("session").is_between(sessions[at - before], sessions[min(at + after, len(sessions) - 1)])
    )


def alterations(day: date) -> st.SearchStrategy[Alter]:
    """Ways in which the future could have been another one."""
    later = pl.col("session") > day

    def scale(factor: float) -> Alter:
        prices = [
            pl.when(later).then(pl.col(c) * factor).otherwise(c).alias(c) for c in ("open", "high", "low", "close")
        ]
        return lambda bars: bars.with_columns(prices)

    def noise(seed: int) -> Alter:
        def change(bars: pl.DataFrame) -> pl.DataFrame:
            factor = pl.Series("f", np.exp(np.random.default_rng(seed).normal(0, 0.2, bars.height)))
            columns = ("open", "high", "low", "close", "volume")
            return bars.with_columns(pl.when(later).then(pl.col(c) * factor).otherwise(c).alias(c) for c in columns)

        return change

    def split(ratio: float) -> Alter:
        return lambda bars: bars.with_columns(
            pl.when(later).then(pl.col("adj_factor") * ratio).otherwise("adj_factor").alias("adj_factor")
        )

    return st.one_of(
        st.floats(0.05, 20.0).map(scale),
        st.integers(0, 10**6).map(noise),
        st.sampled_from([2.0, 4.0, 0.1]).map(split),
        st.just(lambda bars: bars.filter(~later)),
        st.sampled_from(["AAPL", "GOOG", "NVDA"]).map(lambda s: lambda b: b.filter(~(later & (pl.col("symbol") == s)))),
    )


@pytest.mark.requirement("V1", "R1.2", "R1.3")
@given(data=st.data())
def test_no_prediction_knows_the_future_and_every_interval_is_ordered(chain: Chain, data: st.DataObject):
    day = data.draw(st.sampled_from(chain.sessions[80:-1]), label="day")
    alter = data.draw(alterations(day), label="alteration")
    bars = window(chain, day)
    before = chain.predict(bars, day)
    after = chain.predict(alter(bars), day)
    assert before.height == 6
    assert after.equals(before)
    bits = [f.select(pl.col(pl.Float64)).to_numpy().tobytes() for f in (before, after)]
    assert bits[0] == bits[1]

    numbers = before.select("lower", "expected_return", "upper", "confidence", "volatility", "var_95", "es_95")
    assert numbers.select(pl.all().is_finite().all()).row(0) == (True,) * numbers.width
    assert before.select((pl.col("lower") < pl.col("upper")).all()).item()
    assert before.select(pl.col("expected_return").is_between(pl.col("lower"), pl.col("upper")).all()).item()
    assert before["confidence"].is_between(0, 1).all()
    assert sorted(before["rank"]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.requirement("V1")
@given(data=st.data())
def test_predictions_from_the_look_back_are_those_of_all_history(chain: Chain, data: st.DataObject):
    day = data.draw(st.sampled_from(chain.sessions), label="day")
    outputs = expected_returns(engine.compute(window(chain, day, 0), SET, day), chain.model.predict, FEATURES)
    risk = symbol_risk(window(chain, day, 0), RISK, start=day)
    stored = chain.history.filter(pl.col("session") == day)
    assert np.array_equal(outputs["expected_return"].to_numpy(), stored["expected_return"].to_numpy())
    for column in ("volatility", "var_95", "es_95"):
        assert risk[column].to_numpy().tobytes() == stored[column].to_numpy().tobytes()


@pytest.mark.requirement("R1.3")
def test_the_intervals_of_the_trained_model_hold_on_sessions_it_has_not_seen(chain: Chain):
    outcomes = mature(chain.history, chain.bars, HORIZON)
    assert outcomes.height > 4500
    assert 0.87 < outcomes["inside"].mean() < 0.94


@pytest.mark.requirement("V1")
def test_the_property_sees_a_feature_that_peeks(chain: Chain):
    """The control: with features one session ahead, the same comparison must notice."""

    def peeking(bars: pl.DataFrame, fs: object, start: date) -> pl.DataFrame:
        table = engine.compute(bars, SET)
        shifted = table.with_columns(pl.col(c).shift(-1).over("symbol") for c in FEATURES)
        return shifted.filter(pl.col("session") >= start)

    day = chain.sessions[200]
    bars = window(chain, day)
    moved = bars.with_columns(
        pl.when(pl.col("session") > day).then(pl.col("close") * 1.3).otherwise("close").alias("close")
    )
    assert not chain.predict(moved, day, peeking).equals(chain.predict(bars, day, peeking))
