from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.modelling.evaluation import ic_series
from stock_pipeline.core.modelling.promotion import (
    Contender,
    PromotionPolicy,
    best_candidate,
    decide,
    session_scores,
    too_good_to_be_true,
)
from stock_pipeline.core.modelling.statistics import diebold_mariano
from stock_pipeline_tests.unit.modelling import modelling_data

POLICY = PromotionPolicy()


def rows() -> pl.DataFrame:
    return modelling_data.data().drop_nulls("label").select("symbol", "session", "label", "label_session")


def knowing(share: float, seed: int = 0) -> pl.DataFrame:
    """Predictions of real labels that know a small share of each, the rest is noise."""
    label = rows()["label"].to_numpy()
    guess = share * label / label.std() + modelling_data.noise(seed, len(label))
    return rows().with_columns(prediction=pl.Series(0.01 * guess))


def constant(value: float) -> pl.DataFrame:
    return rows().with_columns(prediction=pl.lit(value))


BASELINES = {"zero": lambda: constant(0.0), "always_up": lambda: constant(0.002), "momentum": lambda: knowing(0.0, 5)}


def baselines() -> dict[str, pl.DataFrame]:
    return {name: make() for name, make in BASELINES.items()}


def contender(name: str, share: float, seed: int, through: date | None = None, family: str = "ridge") -> Contender:
    return Contender(name, knowing(share, seed), family, "features-1", through)


@pytest.mark.requirement("R4.5")
def test_who_beats_baselines_and_champion_is_promoted():
    decision = decide(contender("new", 0.09, 1), contender("old", 0.0, 2), baselines())
    assert decision.promote
    assert decision.winner == "new"
    assert not decision.alarm
    assert [c.other for c in decision.comparisons] == [decision.comparisons[0].other, "old"]
    assert all(c.better for c in decision.comparisons)
    assert "beats" in decision.reasons[-1]


@pytest.mark.requirement("R4.5")
def test_being_new_is_not_enough():
    old = contender("old", 0.09, 2, date(2020, 1, 1), "lightgbm")
    decision = decide(contender("new", 0.0, 1, date(2022, 1, 1)), old, baselines())
    assert not decision.promote
    assert decision.winner == "old"
    assert "not promoted: old stays champion" in decision.reasons


@pytest.mark.requirement("R4.5")
def test_the_same_model_on_newer_data_is_a_refresh_unless_it_is_worse():
    old = contender("old", 0.05, 2, date(2020, 1, 1))
    fresh = decide(contender("new", 0.05, 3, date(2022, 1, 1)), old, baselines())
    assert fresh.promote
    assert "refresh" in fresh.reasons[-1]
    strict = decide(contender("new", 0.05, 3, date(2022, 1, 1)), old, baselines(), PromotionPolicy(allow_refresh=False))
    assert strict.promote == all(c.better for c in strict.comparisons)
    assert not decide(contender("new", 0.05, 3, date(2019, 1, 1)), old, baselines()).promote
    assert not decide(contender("new", -0.15, 3, date(2022, 1, 1)), old, baselines()).promote
    other = Contender("new", knowing(0.05, 3), "ridge", "features-2", date(2022, 1, 1))
    assert not decide(other, old, baselines()).promote


@pytest.mark.requirement("R4.5")
def test_the_first_champion_is_told_plainly_what_it_is():
    weak = contender("weak", -0.02, 4)
    decision = decide(weak, None, baselines())
    best = decision.comparisons[0].other
    assert decision.promote
    assert decision.reasons[-1] == f"promoted as first champion although it does not beat {best}"
    honest = decide(weak, None, baselines(), PromotionPolicy(allow_baseline_champion=True))
    assert not honest.promote
    assert honest.winner == best
    good = decide(contender("good", 0.09, 1), None, baselines())
    assert good.promote
    assert "beats" in good.reasons[-1]


def test_the_more_was_tried_the_more_is_asked():
    candidate, old = contender("new", 0.09, 1), contender("old", 0.0, 2)
    once = decide(candidate, old, baselines())
    assert once.comparisons[0].difference.p_greater < 0.05
    many = decide(candidate, old, baselines(), trials=10_000)
    assert once.promote
    assert not many.promote


def test_a_margin_may_be_asked():
    candidate, old = contender("new", 0.09, 1), contender("old", 0.0, 2)
    gain = min(c.difference.mean for c in decide(candidate, old, baselines()).comparisons)
    assert decide(candidate, old, baselines(), PromotionPolicy(margin=gain * 0.9)).promote
    assert not decide(candidate, old, baselines(), PromotionPolicy(margin=gain * 1.1)).promote


def test_a_short_history_decides_nothing():
    short = rows()["session"].unique().sort()[-200]
    cut = Contender("new", knowing(0.09, 1).filter(pl.col("session") > short))
    for champion in (None, contender("old", 0.0, 2)):
        decision = decide(cut, champion, baselines())
        assert not decision.promote
        assert any("199 common sessions" in r for r in decision.reasons)


def test_only_common_rows_are_compared():
    old = contender("old", 0.02, 2)
    half = rows()["session"].unique().sort()[400]
    # where the champion has no predictions the candidate may be as good as it likes
    lucky = pl.concat(
        [
            knowing(0.5, 1).filter(pl.col("session") <= half),
            knowing(-0.05, 3).filter(pl.col("session") > half),
        ]
    )
    late = Contender("old", old.oos.filter(pl.col("session") > half))
    duel = decide(
        Contender("new", lucky), late, baselines(), PromotionPolicy(max_rank_ic=1, max_sharpe=99, max_hit_rate=1)
    )
    assert duel.comparisons[1].difference.count == rows()["session"].n_unique() - 401
    assert not duel.comparisons[1].better


@pytest.mark.parametrize("criterion", ["rank_ic", "squared_error"])
def test_the_test_is_a_paired_one(criterion):
    new, old = contender("new", 0.05, 1), contender("old", 0.01, 2)
    policy = PromotionPolicy(criterion=criterion)
    duel = decide(new, old, baselines(), policy).comparisons[1]
    if criterion == "rank_ic":
        difference = (ic_series(new.oos)["rank_ic"] - ic_series(old.oos)["rank_ic"]).to_numpy()
    else:
        loss = pl.col("prediction").sub(pl.col("label")).pow(2).mean()
        mean = [
            c.oos.sort("session").group_by("session", maintain_order=True).agg(loss)["prediction"] for c in (new, old)
        ]
        difference = (mean[1] - mean[0]).to_numpy()
    expected = diebold_mariano(difference, 5)
    assert duel.difference.t == pytest.approx(expected.t)
    assert duel.difference.p_greater == pytest.approx(expected.p_greater)


def test_with_two_symbols_errors_are_compared_instead_of_ranks():
    two = pl.col("symbol").is_in(["AAPL", "AMD"])
    decision = decide(knowing(0.05, 1).filter(two), None, {n: b.filter(two) for n, b in baselines().items()}, POLICY)
    assert decision.comparisons[0].criterion == "squared_error"


def test_the_best_candidate_is_found_on_common_sessions():
    many = {"a": knowing(0.0, 1), "b": knowing(0.08, 2), "c": knowing(0.02, 3)}
    assert best_candidate(many) == "b"
    with pytest.raises(ConfigurationError):
        best_candidate({})


@pytest.mark.requirement("R4.5")
@pytest.mark.parametrize("share", [0.0, 0.3, 2.0])
def test_the_alarm_has_the_stated_limits(share):
    alarm = too_good_to_be_true(knowing(share, 1))
    assert bool(alarm) == (share > 0)
    if share == 2.0:
        assert len(alarm) == 3
    assert np.isfinite(session_scores(knowing(share, 1), "rank_ic")["score"].to_numpy()).all()


def test_bad_calls_are_refused():
    with pytest.raises(ConfigurationError, match="baselines"):
        decide(knowing(0.0), None, {})
    with pytest.raises(ConfigurationError, match="trials"):
        decide(knowing(0.0), None, baselines(), trials=0)
