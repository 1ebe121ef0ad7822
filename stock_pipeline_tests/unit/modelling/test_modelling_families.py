from __future__ import annotations

import json
from functools import cache

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError, IntegrityError
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.families import package, skops_files
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES

QUICK = {"random_forest": {"trees": 12}, "lightgbm": {"rounds": 30}, "hist_gradient_boosting": {"rounds": 20}}


def rows() -> pl.DataFrame:
    return modelling_data.data().drop_nulls("label")


@cache
def fitted(name: str) -> families.FittedModel:
    part = rows().head(3500)
    return families.get(name).fit(part.select(FEATURES), part["label"], params=QUICK.get(name), seed=7, threads=1)


@pytest.mark.requirement("R4.1")
@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_prediction_depends_on_its_own_row_alone(name):
    model = fitted(name)
    frame = modelling_data.features().tail(300)
    together = model.predict(frame)
    assert together.dtype == np.float64
    assert np.isfinite(together).all()
    assert np.array_equal(model.predict(frame[13:14]), together[13:14])
    assert np.array_equal(model.predict(frame[100:130]), together[100:130])
    assert np.array_equal(model.predict(frame[::-1])[::-1], together)
    assert model.predict(frame.clear()).shape == (0,)


@pytest.mark.parametrize("name", ["lightgbm", "hist_gradient_boosting", "random_forest"])
def test_the_same_seed_gives_the_same_trees_whatever_the_threads(name):
    part, frame = rows().head(2500), modelling_data.features().tail(300)
    given = part.select(FEATURES), part["label"]
    family = families.get(name)
    one = family.fit(*given, params=QUICK[name], seed=3, threads=1).predict(frame)
    two = family.fit(*given, params=QUICK[name], seed=3, threads=2).predict(frame)
    other = family.fit(*given, params=QUICK[name], seed=4, threads=1).predict(frame)
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=0)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", ["ridge", "elastic_net"])
def test_linear_models_equal_the_pipeline_of_scikit_learn(name):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import ElasticNet, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part = rows().head(6000)
    x, y = part.select(FEATURES).fill_null(float("nan")).to_numpy().astype(np.float64), part["label"].to_numpy()
    assert np.isnan(x).any()
    params = {"clip": 1e6, "alpha": 0.5 if name == "ridge" else 0.002}
    known = ~np.isnan(x)
    scale = np.array([x[known[:, j], j].std() for j in range(x.shape[1])])
    regressor = (
        Ridge(alpha=0.5 * len(y), solver="cholesky")
        if name == "ridge"
        else ElasticNet(alpha=0.002 * y.std(), l1_ratio=0.5)
    )
    scaler = StandardScaler().fit(np.where(known, x, 0))
    scaler.mean_, scaler.scale_ = np.nanmean(x, axis=0), scale
    imputer = SimpleImputer(strategy="mean").fit(x)
    regressor.fit(scaler.transform(imputer.transform(x)), y)
    expected = make_pipeline(imputer, scaler, regressor).predict(x)
    mine = families.get(name).fit(part.select(FEATURES), part["label"], params=params).predict(part)
    np.testing.assert_allclose(mine, expected, atol=2e-5)
    assert expected.std() > 1e-4


def test_imputation_and_scaling_are_learnt_from_the_training_rows():
    part = rows()
    train, test = part.head(3000), part.tail(1500)
    model = families.get("ridge").fit(train.select(FEATURES), train["label"])
    x = train.select(FEATURES).to_numpy().astype(np.float64)
    np.testing.assert_allclose(model._state["center"], np.nanmean(x, axis=0), rtol=1e-9)
    np.testing.assert_allclose(model._state["scale"], np.nanstd(x, axis=0), rtol=1e-6)
    missing = test.with_columns(pl.lit(None, pl.Float32).alias(n) for n in FEATURES)
    at_mean = test.with_columns(
        pl.lit(float(c), pl.Float32).alias(n) for n, c in zip(FEATURES, model._state["center"], strict=True)
    )
    np.testing.assert_allclose(model.predict(missing), model.predict(at_mean), atol=1e-9)


def test_a_feature_that_is_constant_or_empty_does_no_harm():
    part = rows().head(3000).with_columns(flat=pl.lit(3.0), empty=pl.lit(None, pl.Float32))
    names = [*FEATURES, "flat", "empty"]
    for name in families.FAMILIES:
        model = families.get(name).fit(part.select(names), part["label"], params=QUICK.get(name), threads=1)
        assert np.isfinite(model.predict(part)).all()


def test_early_stopping_uses_the_validation_part_and_rounds_are_reported():
    part, seen = rows(), []
    train, held = part.head(3000), part.tail(1500)
    for name in ("lightgbm", "hist_gradient_boosting"):
        model = families.get(name).fit(
            train.select(FEATURES),
            train["label"],
            held.select(FEATURES),
            held["label"],
            {"rounds": 200, "early_stopping_rounds": 10, "learning_rate": 0.3, "lambda_l2": 0.0}
            if name == "lightgbm"
            else {"rounds": 200, "early_stopping_rounds": 10, "learning_rate": 0.3, "l2_regularization": 0.0},
            progress=lambda done, total, loss: seen.append((done, total, loss)),
            threads=1,
        )
        assert 1 <= model.rounds < 150
    assert seen[0][0] == 1
    assert seen[0][2] > 0
    assert all(total == 200 for _, total, _ in seen)


def test_baselines_are_what_they_say():
    part = rows()
    y = part["label"].to_numpy()
    assert set(fitted("zero").predict(part)) == {0.0}
    up = families.get("always_up").fit(part.select(FEATURES), part["label"]).predict(part)
    assert np.allclose(up, y.mean())
    momentum = families.get("momentum").fit(part.select(FEATURES), part["label"])
    assert momentum.feature_names == ("return_250",)
    known = part.drop_nulls("return_250")
    order = np.argsort(known["return_250"].to_numpy())
    assert (np.diff(momentum.predict(known)[order]) >= 0).all()


def test_momentum_says_which_column_it_misses():
    part = rows().select("return_5", "label")
    with pytest.raises(ConfigurationError, match="past-return column"):
        families.get("momentum").fit(part.select("return_5"), part["label"])
    model = families.get("momentum").fit(part.select("return_5"), part["label"], params={"column": "return_5"})
    assert model.feature_names == ("return_5",)


@pytest.mark.requirement("R4.3")
@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_saved_model_says_what_it_is_and_holds_no_pickle(name, tmp_path):
    model = fitted(name)
    manifest = model.save(tmp_path / "m", {"calibrator.json": b"{}"})
    assert manifest == json.loads((tmp_path / "m" / "manifest.json").read_bytes())
    assert manifest["family"] == name
    assert manifest["feature_names"] == list(model.feature_names)
    assert set(manifest["files"]) == {p.name for p in (tmp_path / "m").iterdir()} - {"manifest.json"}
    assert not any(p.suffix in (".pkl", ".pickle", ".joblib") for p in (tmp_path / "m").iterdir())
    again = families.load(tmp_path / "m", feature_names=model.feature_names)
    assert again.parameters == model.parameters
    assert again.seed == 7
    assert again.importance() == model.importance()
    assert np.array_equal(again.predict(rows()), model.predict(rows()))


@pytest.mark.requirement("R4.3")
def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path):
    fitted("ridge").save(tmp_path / "m")
    with pytest.raises(IntegrityError, match="another feature set"):
        families.load(tmp_path / "m", feature_names=FEATURES[::-1])
    with pytest.raises(IntegrityError, match="return_999"):
        families.load(tmp_path / "m", feature_names=["return_999", *FEATURES])
    (tmp_path / "m" / "extra.bin").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"extra\.bin"):
        families.load(tmp_path / "m")
    (tmp_path / "m" / "extra.bin").unlink()
    (tmp_path / "m" / "model.skops").rename(tmp_path / "away")
    with pytest.raises(IntegrityError, match=r"model\.skops"):
        families.load(tmp_path / "m")
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        families.load(tmp_path / "nothing")


@pytest.mark.requirement("R4.3")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "another format"),
        ({"family": "oracle"}, "contradicts itself"),
        ({"feature_names": ["a"]}, "contradicts itself"),
        ({"libraries": {"scikit-learn": "0.1.0"}}, "another version of scikit-learn"),
    ],
)
def test_a_manifest_of_another_world_is_refused_even_with_a_right_checksum(change, message, tmp_path):
    manifest = fitted("ridge").save(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").write_bytes(package.render({**manifest, **change}))
    with pytest.raises(IntegrityError, match=message):
        families.load(tmp_path / "m")


def test_only_trusted_types_are_built():
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=1, max_depth=1).fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(IntegrityError, match="not trusted"):
        skops_files.load(skops_files.dump(forest), ())


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (lambda f: f.drop("return_20"), "return_20"),
        (lambda f: f.with_columns(return_20=pl.lit("text")), "must be numbers"),
        (lambda f: f.with_columns(return_20=pl.lit("a").cast(pl.Categorical)), "must be numbers"),
        (lambda f: f.with_columns(return_20=pl.lit(float("inf"))), "infinite"),
    ],
)
def test_bad_features_are_named(frame, message):
    model = fitted("ridge")
    with pytest.raises(DataError, match=message):
        model.predict(frame(modelling_data.features().tail(5)))
    with pytest.raises(DataError, match="shape"):
        model.predict(np.zeros((3, 2)))


def test_bad_fits_are_refused():
    part, ridge = rows().head(100), families.get("ridge")
    with pytest.raises(DataError, match="finite"):
        ridge.fit(part.select(FEATURES), np.full(100, np.nan))
    with pytest.raises(DataError, match="do not match"):
        ridge.fit(part.select(FEATURES), np.zeros(99))
    with pytest.raises(ConfigurationError, match="alpha"):
        ridge.fit(part.select(FEATURES), part["label"], params={"alpha": -1})
    with pytest.raises(ConfigurationError, match="unknown model family"):
        families.get("oracle")
    with pytest.raises(ConfigurationError, match="name of a model file"):
        ridge.fit(part.select(FEATURES), part["label"]).save("/nonexistent", {"model.skops": b""})
