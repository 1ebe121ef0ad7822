"""V4: what is saved is what is loaded, versions only grow, and no damage goes unnoticed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stock_pipeline.core.errors import IntegrityError, NotFoundError
from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.modelling.training import TrainingResult, train_walk_forward
from stock_pipeline.storage.model_registry import ALIASES, ModelMetadata, ModelRegistry, ModelVersion
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES

PARAMETERS = {
    "lightgbm": {"rounds": 40},
    "hist_gradient_boosting": {"rounds": 25},
    "random_forest": {"trees": 15},
    "elastic_net": {"alpha": 0.001},
}
WIDTH = len(FEATURES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, tuple[families.FittedModel, Path]]:
    """Every family, trained once on real prices and saved, with an extra file."""
    rows = modelling_data.data().drop_nulls("label").head(3500)
    root = tmp_path_factory.mktemp("models")
    models = {}
    for name in families.FAMILIES:
        model = families.get(name).fit(
            rows.select(FEATURES), rows["label"], params=PARAMETERS.get(name), seed=11, threads=1
        )
        model.save(root / name, {"calibrator.json": b'{"width": 1.5}'})
        models[name] = (model, root / name)
    return models


@cache
def loaded(folder: Path) -> families.FittedModel:
    return families.load(folder)


@pytest.mark.requirement("V4", "R4.3")
@pytest.mark.parametrize("name", families.FAMILIES)
@given(
    matrix=arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.just(WIDTH)),
        elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")) | st.floats(-0.25, 0.25, width=32),
    )
)
def test_what_is_loaded_predicts_the_same_bits(saved, name, matrix):
    model, folder = saved[name]
    frame = pl.DataFrame(matrix, schema=list(FEATURES))
    before, after = model.predict(frame), loaded(folder).predict(frame)
    assert before.tobytes() == after.tobytes()
    assert np.isfinite(before).all()


@pytest.mark.requirement("V4", "R4.3")
@pytest.mark.parametrize("name", families.FAMILIES)
@given(data=st.data())
def test_one_changed_byte_is_never_loaded(saved, name, data):
    folder = saved[name][1]
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = file.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != content[position]))
    try:
        file.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        with pytest.raises(IntegrityError, match=file.name):
            families.load(folder)
    finally:
        file.write_bytes(content)


@pytest.mark.requirement("V4", "R4.3")
@given(data=st.data())
def test_a_cut_lengthened_or_missing_file_is_never_loaded(saved, data):
    folder = saved[data.draw(st.sampled_from(families.FAMILIES))][1]
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = file.read_bytes()
    how = data.draw(st.sampled_from(["cut", "longer", "missing", "empty"]))
    try:
        if how == "missing":
            file.unlink()
        else:
            cut = content[: data.draw(st.integers(0, len(content) - 1))]
            file.write_bytes({"cut": cut, "longer": content + b"\n", "empty": b""}[how])
        with pytest.raises(IntegrityError, match=file.name):
            families.load(folder)
    finally:
        file.write_bytes(content)


@cache
def result(name: str) -> TrainingResult:
    settings = TrainingSettings(folds=1, holdout_sessions=0, threads=1)
    rows = modelling_data.data(600, 3)
    return train_walk_forward(rows, feature_names=FEATURES, family=name, settings=settings, seed=5)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> ModelRegistry:
    root = tmp_path_factory.mktemp("registry")
    return ModelRegistry(f"sqlite:///{root / 'mlflow.db'}", root / "artifacts")


METADATA = ModelMetadata("simple", "hash-1", {"features/simple": 1}, "0.0-test")
STEP = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(["zero", "always_up", "momentum", "ridge"])),
    st.tuples(st.just("promote"), st.floats(0, 1)),
    st.tuples(st.just("challenge"), st.floats(0, 1)),
    st.tuples(st.just("rollback"), st.just(0.0)),
)


@pytest.fixture(scope="module")
def history() -> list[ModelVersion]:
    """The versions after the latest step: every example goes on where the one before it stopped."""
    return []


@pytest.mark.requirement("V4", "R4.2")
@given(step=STEP)
def test_versions_only_grow_and_aliases_point_where_they_should(registry, history, step):
    kind, value = step
    before = list(history)
    aliases = {a: v.version for v in before for a in v.aliases}
    chosen = before[int(value * (len(before) - 1))].version if before and kind in ("promote", "challenge") else None
    if kind == "register":
        run = registry.training_run(value, METADATA)
        new = registry.register_model(
            result(value), METADATA, run_id=run.run_id, metrics={"oos/rank_ic": 0.01}, example=None, extra={}
        )
        assert new.version == len(before) + 1
        assert new.aliases == ()
        assert registry.load(new.version).model.family == value
    elif chosen and kind == "promote":
        registry.promote(chosen)
        if aliases.get("champion") not in (None, chosen):
            aliases["previous"] = aliases["champion"]
        aliases["champion"] = chosen
        if aliases.get("challenger") == chosen:
            del aliases["challenger"]
    elif chosen:
        registry.set_alias("challenger", chosen)
        aliases["challenger"] = chosen
    elif kind == "rollback" and aliases.get("previous") in (None, aliases.get("champion")):
        with pytest.raises(NotFoundError):
            registry.rollback()
    elif kind == "rollback":
        assert registry.rollback("a test").version == aliases["previous"]
        aliases["champion"] = aliases["previous"]
    after = registry.versions()
    history[:] = after
    assert [v.version for v in after] == list(range(1, len(after) + 1))
    # nothing of what was registered ever changes
    kept = [(v.family, v.checksum, v.created_at) for v in before]
    assert [(v.family, v.checksum, v.created_at) for v in after[: len(before)]] == kept
    pointed = {a: v.version for v in after for a in v.aliases}
    assert set(pointed) <= set(ALIASES)
    if kind == "rollback":
        pointed.pop("previous", None)
        aliases.pop("previous", None)
    assert pointed == aliases


@pytest.mark.requirement("V4", "R4.3")
@given(data=st.data())
def test_damage_in_the_registry_is_never_loaded(damaged, data):
    registry, version, folder = damaged
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    try:
        file.write_bytes(
            content[:position] + bytes([content[position] ^ data.draw(st.integers(1, 255))]) + content[position + 1 :]
        )
        with pytest.raises(IntegrityError, match=file.name):
            registry.load(version)
    finally:
        file.write_bytes(content)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Iterator[tuple[ModelRegistry, int, Path]]:
    root = tmp_path_factory.mktemp("damaged")
    registry = ModelRegistry(f"sqlite:///{root / 'mlflow.db'}", root / "artifacts")
    with registry.training_run("ridge", METADATA) as run:
        info = run.finish(result("ridge"), calibrator_json='{"a": 1}')
    folder = registry.locate(info, str(root))
    assert registry.load(info.version).calibrator_json == '{"a": 1}'
    yield registry, info.version, folder
    shutil.rmtree(root)
