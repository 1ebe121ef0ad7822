from __future__ import annotations

import json

import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.modelling.progress import TrainingCancelled
from stock_pipeline.core.modelling.search import SearchSettings, search
from stock_pipeline.core.modelling.training import splits_of
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES, SETTINGS

SMALL = SearchSettings(trials=4, folds=2)


def run(frame: pl.DataFrame, family: str = "ridge", settings: SearchSettings = SMALL, **options):
    return search(frame, feature_names=FEATURES, family=family, training=SETTINGS, settings=settings, seed=3, **options)


@pytest.mark.requirement("R4.1")
def test_the_search_records_every_trial_and_can_be_repeated():
    seen = []
    result = run(modelling_data.data(), progress=seen.append)
    assert result.count == 4
    assert result.trials["trial"].to_list() == [0, 1, 2, 3]
    assert json.loads(result.trials["parameters"][0])["alpha"] == 1.0
    best = result.trials.sort("objective", "trial", descending=[True, False])["parameters"][0]
    assert result.parameters.model_dump() == json.loads(best)
    assert [p.share for p in seen] == [0.25, 0.5, 0.75, 1.0]
    assert run(modelling_data.data()).trials.equals(result.trials)


@pytest.mark.requirement("R4.1")
@pytest.mark.parametrize("family", ["ridge", "lightgbm"])
def test_the_search_never_sees_a_test_fold(family):
    frame = modelling_data.data()
    days = frame.drop_nulls("label")["session"].unique().sort().to_list()
    first = splits_of(days, SETTINGS)[2][0].test[0]
    tried = SearchSettings(trials=2, folds=2)
    result = run(frame, family, tried)
    assert result.looked_at[1] < days[days.index(first) - SETTINGS.embargo]
    # other features and labels from the first test session on: not a bit changes
    later = pl.col("session") >= first
    changed = frame.with_columns(
        *(pl.when(later).then(-pl.col(n)).otherwise(n).alias(n) for n in FEATURES),
        label=pl.when(pl.col("label_session") >= first).then(pl.col("label") * -5).otherwise("label"),
    )
    assert run(changed, family, tried).trials.equals(result.trials)


def test_what_cannot_be_searched_is_said():
    with pytest.raises(ConfigurationError, match="nothing to tune"):
        run(modelling_data.data(), "momentum")
    with pytest.raises(DataError, match="too short"):
        run(modelling_data.data(), settings=SearchSettings(trials=1, folds=20))
    with pytest.raises(TrainingCancelled):
        run(modelling_data.data(), cancelled=lambda: True)
