from __future__ import annotations

from datetime import timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.dataset import Panel
from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.labels import past_returns
from stock_pipeline.core.modelling.progress import Progress, TrainingCancelled
from stock_pipeline.core.modelling.promotion import Contender, decide
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.modelling.target import training_target
from stock_pipeline.core.modelling.training import OOS_SCHEMA, TrainingResult, train_walk_forward
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES, SETTINGS


@cache
def trained(family: str = "ridge") -> TrainingResult:
    return train(modelling_data.data(), family)


def train(frame: pl.DataFrame, family: str = "ridge", settings=SETTINGS, **options) -> TrainingResult:
    options.setdefault("feature_names", FEATURES)
    return train_walk_forward(frame, family=family, settings=settings, seed=1, **options)


@pytest.mark.requirement("R4.1", "R4.4")
@pytest.mark.parametrize("family", ["ridge", "lightgbm"])
def test_a_training_tests_every_fold_on_what_it_has_not_seen(family):
    result = trained(family)
    assert dict(result.oos.schema) == OOS_SCHEMA
    assert result.oos.select("symbol", "session").is_duplicated().sum() == 0
    assert result.fold_metrics["fold"].to_list() == [1, 2, 3]
    labels = modelling_data.data().drop_nulls("label")
    days = labels["session"].unique().sort().to_list()
    for fold in result.fold_metrics.iter_rows(named=True):
        test = result.oos.filter(pl.col("fold") == fold["fold"])
        assert (test["session"].min(), test["session"].max()) == (fold["test_start"], fold["test_end"])
        first = days.index(fold["test_start"])
        known = labels.filter(pl.col("session") <= fold["train_end"])["label_session"].max()
        assert days.index(known) < first - SETTINGS.embargo
        assert fold["rank_ic"] == pytest.approx(evaluate(test, horizon=5)["rank_ic"])
    assert result.holdout["session"].unique().sort().to_list() == days[-60:]
    assert result.trained_through < days[-60 - SETTINGS.embargo]
    assert result.oos["session"].max() < days[-60]
    assert result.importance["importance"].sum() == pytest.approx(1.0)
    assert set(result.importance["feature"]) == set(FEATURES)


@pytest.mark.requirement("R4.1")
@pytest.mark.parametrize("family", ["ridge", "lightgbm"])
def test_the_future_does_not_change_a_prediction(family):
    # turn every label that becomes known from the second test block on upside down
    frame, result = modelling_data.data(), trained(family)
    second = result.fold_metrics["test_start"][1]
    first = result.fold_metrics["test_start"][0]
    changed = frame.with_columns(
        label=pl.when(pl.col("label_session") >= first).then(-3 * pl.col("label")).otherwise("label")
    )
    again = train(changed, family)
    before = pl.col("session") < second
    assert again.oos.filter(before)["prediction"].equals(result.oos.filter(before)["prediction"])
    after = pl.col("session") > second + timedelta(days=200)
    assert not again.oos.filter(after)["prediction"].equals(result.oos.filter(after)["prediction"])


@pytest.mark.requirement("R4.1")
def test_a_label_that_completes_late_is_purged_row_by_row():
    # one symbol is halted: its labels from long before the first test block complete inside that block
    frame, result = modelling_data.data(), trained()
    start = result.fold_metrics["test_start"][0]
    halted = (pl.col("symbol") == "AAPL") & pl.col("session").is_between(start - timedelta(60), start - timedelta(30))
    late = frame.with_columns(label_session=pl.when(halted).then(start + timedelta(5)).otherwise("label_session"))
    worse = late.with_columns(label=pl.when(halted).then(5.0).otherwise("label"))
    assert late.filter(halted).height > 10
    one, two = (train(f).oos.filter(pl.col("fold") == 1)["prediction"] for f in (late, worse))
    assert one.equals(two)


@pytest.mark.parametrize("family", ["lightgbm", "hist_gradient_boosting", "random_forest", "elastic_net"])
def test_training_can_be_repeated(family):
    params = {"trees": 10} if family == "random_forest" else None
    small = modelling_data.data().filter(pl.col("symbol") < "C")
    one, two = (train(small, family, parameters=params) for _ in range(2))
    assert one.oos.equals(two.oos)
    assert np.array_equal(one.model.predict(small), two.model.predict(small))


def test_progress_never_falls_and_ends_with_everything_done():
    seen: list[Progress] = []
    train(modelling_data.data(), "lightgbm", progress=seen.append)
    shares = [p.share for p in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert [p.fold for p in seen if p.stage == "fold"] == [1, 2, 3]
    assert seen[-1].stage == "final"
    assert {"rank_ic", "hit_rate", "rmse"} <= set(seen[-1].metrics)
    rounds = [p for p in seen if p.stage == "round" and p.metrics]
    assert rounds[0].metrics["validation_loss"] > 0


@pytest.mark.parametrize("family", ["lightgbm", "ridge", "random_forest"])
def test_training_can_be_cancelled(family):
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(TrainingCancelled, match="cancelled"):
        train(modelling_data.data(), family, cancelled=cancelled)


def test_an_error_of_the_callback_stops_training():
    def broken(progress: Progress) -> None:
        raise OSError("the sink is down")

    with pytest.raises(OSError, match="sink"):
        train(modelling_data.data(), "lightgbm", progress=broken)


def test_one_panel_serves_several_families():
    panel = Panel.of(modelling_data.data(), FEATURES)
    for family in ("ridge", "momentum", "zero"):
        shared = train_walk_forward(panel, feature_names=FEATURES, family=family, settings=SETTINGS, seed=1)
        assert shared.oos.equals(trained(family).oos)
    assert isinstance(panel.learnt_before(panel.sessions()[:900], panel.sessions()[905]), slice)


def test_momentum_may_use_a_column_that_is_not_a_feature():
    past = past_returns(modelling_data.bars(), 250)
    frame = modelling_data.data().drop("return_250").join(past, on=["symbol", "session"])
    names = [n for n in FEATURES if n != "return_250"]
    result = train(frame, "momentum", feature_names=names)
    assert result.model.feature_names == ("past_return_250",)
    assert result.oos["prediction"].equals(trained("momentum").oos["prediction"])


def test_targets_are_relative_to_the_session_and_in_units_of_the_label():
    frame = modelling_data.data().drop_nulls("label")
    session, label = frame["session"], frame["label"].to_numpy()
    for kind in ("demeaned", "rank"):
        target = training_target(session, label, kind, 0.0)
        assert target.mean() == pytest.approx(label.mean(), abs=2e-5)
        assert 0.5 < target.std() / label.std() < 1.1
        means = pl.DataFrame({"s": session, "t": target}).group_by("s").agg(pl.col("t").mean())["t"]
        assert means.std() < 1e-9
    both = frame.with_columns(t=pl.Series(training_target(session, label, "rank", 0.0)))
    assert both.group_by("session").agg(pl.corr("t", "label", method="spearman"))["t"].min() > 0.999
    clipped = training_target(session, label, "raw", 0.01)
    assert clipped.max() == pytest.approx(np.quantile(label, 0.99))


@pytest.mark.requirement("R4.5")
@pytest.mark.parametrize("family", ["ridge", "lightgbm"])
def test_a_leak_raises_the_alarm_and_is_not_promoted(family):
    leak = pl.col("label") + 0.03 * pl.Series(modelling_data.noise(5, modelling_data.data().height))
    frame = modelling_data.data().with_columns(leak=leak.cast(pl.Float32))
    result = train(frame, family, feature_names=[*FEATURES, "leak"])
    baselines = {name: trained(name).oos for name in families.BASELINES}
    decision = decide(Contender(family, result.oos), None, baselines)
    assert not decision.promote
    assert decision.winner is None
    assert any("rank IC" in a for a in decision.alarm)
    assert any("hit rate" in a for a in decision.alarm)
    assert "until a person has looked" in decision.reasons[-1]
    seen = decide(Contender(family, result.oos), None, baselines, acknowledged_by="A. Person")
    assert seen.promote
    assert "acknowledged by A. Person" in " ".join(seen.reasons)


@pytest.mark.requirement("R4.4")
@pytest.mark.parametrize("family", ["ridge", "lightgbm"])
def test_from_random_labels_nothing_is_learnt(family):
    frame = modelling_data.data()
    noise = pl.Series(0.03 * modelling_data.noise(9, frame.height))
    result = train(frame.with_columns(label=pl.when(pl.col("label").is_not_null()).then(noise)), family)
    figures = evaluate(result.oos, horizon=1)
    assert abs(figures["rank_ic"]) < 0.03
    assert figures["rank_ic_t"] is None or abs(figures["rank_ic_t"]) < 3
    assert figures["skill_zero"] < 0.002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("label_session"), "label_session"),
        (lambda f: pl.concat([f, f.tail(400)]), "repeats"),
        (lambda f: f.with_columns(label=pl.lit(None, pl.Float64)), "matured label"),
        (lambda f: f.with_columns(label=pl.lit(float("inf"))), "finite"),
        (lambda f: f.with_columns(label_session="session"), "its own session"),
        (lambda f: f.with_columns(return_5=pl.lit("x")), "must be numbers"),
        (lambda f: f.filter(pl.col("session") > pl.col("session").max() - timedelta(120)), "too short"),
        (lambda f: f.filter(pl.col("symbol") == "AAPL").tail(200), "training rows|too short"),
    ],
)
def test_a_bad_data_set_is_refused_with_the_reason(change, message):
    with pytest.raises(DataError, match=message):
        train(change(modelling_data.data()))


def test_bad_settings_are_refused():
    with pytest.raises(ValidationError, match="train_sessions"):
        TrainingSettings(window="rolling")
    with pytest.raises(ConfigurationError, match="unknown model family"):
        train(modelling_data.data(), "oracle")
    with pytest.raises(DataError, match="cannot be a feature"):
        train(modelling_data.data(), feature_names=[*FEATURES, "label"])


def test_other_ways_of_cutting():
    rolling = SETTINGS.model_copy(update={"window": "rolling", "train_sessions": 400, "test_sessions": 120})
    result = train(modelling_data.data(), settings=rolling)
    for fold in result.folds:
        assert len(fold.train) + len(fold.validation) <= 400
        assert len(fold.test) == 120
    none = train(modelling_data.data(), settings=SETTINGS.model_copy(update={"holdout_sessions": 0}))
    assert none.holdout.is_empty()
    assert none.trained_through == modelling_data.bars()["session"].max()
    plain = train(modelling_data.data(), "lightgbm", SETTINGS.model_copy(update={"refit": False, "target": "raw"}))
    assert plain.oos.height == trained("lightgbm").oos.height
