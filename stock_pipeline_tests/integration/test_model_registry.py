"""The model registry on a real MLflow store: register, verify, promote, roll back, back up."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from stock_pipeline.core.errors import ConfigurationError, IntegrityError, NotFoundError
from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.progress import Progress, TrainingCancelled
from stock_pipeline.core.modelling.training import TrainingResult, train_walk_forward
from stock_pipeline.core.reporting.model_card import model_card
from stock_pipeline.storage.model_registry import ModelMetadata, ModelRegistry, ModelVersion
from stock_pipeline.storage.model_registry.archive import export_version, import_version
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES, SETTINGS

METADATA = ModelMetadata(
    feature_set="simple",
    feature_set_hash="features-1",
    data_version={"features/simple": 4, "market/validated_bars": 9},
    code_version="0.0-test",
    market="us",
    tags={"asked_by": "a test"},
)
CALIBRATOR = '{"quantile": 1.7}'


@cache
def empty_database() -> Path:
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, True)
    client = ModelRegistry(f"sqlite:///{root / 'mlflow.db'}", root / "artifacts").client
    assert client.search_experiments() is not None
    return root / "mlflow.db"


@cache
def trained(family: str) -> TrainingResult:
    return train_walk_forward(modelling_data.data(), feature_names=FEATURES, family=family, settings=SETTINGS, seed=3)


def new_registry(root: Path) -> ModelRegistry:
    """A registry of its own; the empty database is made once and copied, as making it takes seconds."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "mlflow.db").exists():
        shutil.copy(empty_database(), root / "mlflow.db")
    return ModelRegistry(f"sqlite:///{root / 'mlflow.db'}", root / "artifacts")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A home with three versions, made once; tests work on copies of it."""
    root = tmp_path_factory.mktemp("template")
    registry = new_registry(root)
    baselines = {"zero": trained("zero").oos, "momentum": trained("momentum").oos}
    for family in ("ridge", "lightgbm", "momentum"):
        result = trained(family)
        card = None
        if family == "ridge":
            card = model_card(
                result,
                baselines,
                market="us",
                feature_set="simple",
                feature_set_hash="features-1",
                data_version=METADATA.data_version,
                code_version="0.0-test",
            )
        registry.register(
            result, card, METADATA, calibrator_json=CALIBRATOR, baselines=baselines, example=modelling_data.features()
        )
    return root


@pytest.fixture
def registry(template, tmp_path) -> ModelRegistry:
    """A registry of its own for each test; it stands in another place than where it was written."""
    shutil.copytree(template, tmp_path / "home")
    return new_registry(tmp_path / "home")


def files_of(registry: ModelRegistry, info: ModelVersion, scratch: Path) -> Path:
    return registry.locate(info, str(scratch))


@pytest.mark.requirement("P2", "R4.2")
def test_a_version_knows_everything_about_its_training(registry):
    info = registry.get(1)
    result = trained("ridge")
    assert (info.version, info.family, info.horizon, info.seed) == (1, "ridge", 5, 3)
    assert info.trained_through == result.trained_through
    assert info.data_version == METADATA.data_version
    assert (info.feature_set, info.feature_set_hash) == ("simple", "features-1")
    assert info.code_version == "0.0-test"
    assert info.tags["asked_by"] == "a test"
    assert info.metrics["oos/rank_ic"] == pytest.approx(evaluate(result.oos, horizon=5)["rank_ic"], abs=1e-8)
    run = registry.client.get_run(info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.alpha"] == "1.0"
    assert run.data.params["training.horizon"] == "5"
    assert run.data.params["seed"] == "3"
    assert run.data.metrics["oos/rank_ic"] == pytest.approx(info.metrics["oos/rank_ic"], abs=1e-8)
    assert "baseline_momentum/rank_ic" in run.data.metrics
    assert {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs} == {
        "features/simple": "4",
        "market/validated_bars": "9",
    }
    assert "Model card: ridge" in run.data.tags["mlflow.note.content"]
    assert info.run_path.endswith(f"/runs/{info.run_id}")
    folder = registry.run_files(info.run_id, "unused")
    assert {"model_card.html", "model_card.md", "importance.svg"} <= {p.name for p in (folder / "card").iterdir()}


@pytest.mark.requirement("P2", "R4.3")
@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_loaded_predicts_what_was_trained(registry, version):
    model = registry.load(version, feature_set_hash="features-1")
    result = trained(model.family)
    frame = modelling_data.features().tail(200)
    assert np.array_equal(model.predict(frame), result.model.predict(frame))
    assert model.feature_names == result.model.feature_names
    assert model.calibrator_json == CALIBRATOR
    assert (model.version, model.horizon, model.seed) == (version, 5, 3)
    assert model.trained_through == result.trained_through
    assert model.data_version == METADATA.data_version


@pytest.mark.requirement("R4.3")
def test_every_file_of_a_version_is_guarded(registry, tmp_path):
    folder = files_of(registry, registry.get(2), tmp_path)
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {"MLmodel", "manifest.json", "model.txt", "calibrator.json", "input_example.json"} <= {p.name for p in files}
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=file.name):
            registry.load(2)
        file.unlink()
        with pytest.raises(IntegrityError, match=file.name):
            registry.load(2)
        file.write_bytes(content)
    registry.load(2)


@pytest.mark.requirement("R4.3")
def test_another_whole_model_in_its_place_is_noticed(registry, tmp_path):
    one, two = (files_of(registry, registry.get(v), tmp_path) for v in (1, 2))
    shutil.rmtree(one)
    shutil.copytree(two, one)
    with pytest.raises(IntegrityError, match="not those that were registered"):
        registry.load(1)


@pytest.mark.requirement("R4.3")
def test_another_feature_set_is_refused(registry):
    with pytest.raises(IntegrityError, match="another feature set"):
        registry.load(1, feature_set_hash="features-2")


@pytest.mark.requirement("R4.2", "R4.5")
def test_promotion_and_roll_back_move_the_aliases(registry):
    assert registry.champion() is None
    with pytest.raises(NotFoundError, match="champion"):
        registry.load("champion")
    registry.promote(1)
    assert registry.get("champion").version == 1
    registry.set_alias("challenger", 2)
    assert registry.promote(2).aliases == ("champion",)
    assert registry.get("previous").version == 1
    with pytest.raises(NotFoundError, match="challenger"):
        registry.get("challenger")
    registry.promote(3)
    assert (registry.get("champion").version, registry.get("previous").version) == (3, 2)
    registry.promote(3)
    assert registry.get("previous").version == 2
    assert registry.rollback("coverage fell").version == 2
    # the one that is safe to fall back to is the one before, not the one just rolled back
    assert registry.get("previous").version == 1
    assert registry.get(3).aliases == ()
    assert registry.get(3).tags["rolled_back_because"] == "coverage fell"
    assert registry.rollback().version == 1
    with pytest.raises(NotFoundError, match="no previous"):
        registry.rollback()
    with pytest.raises(ConfigurationError, match="newest"):
        registry.set_alias("newest", 1)
    with pytest.raises(NotFoundError, match="99"):
        registry.promote(99)


@pytest.mark.requirement("R4.3", "R4.5")
def test_a_damaged_version_is_not_promoted(registry, tmp_path):
    registry.promote(1)
    path = next(files_of(registry, registry.get(2), tmp_path).rglob("model.txt"))
    path.write_bytes(path.read_bytes().replace(b"tree", b"treE", 1))
    with pytest.raises(IntegrityError, match=r"model\.txt"):
        registry.promote(2)
    assert registry.champion().version == 1


@pytest.mark.requirement("R4.1", "P2")
def test_figures_are_in_mlflow_while_it_trains(tmp_path):
    registry = new_registry(tmp_path)
    steps = []
    with registry.training_run("lightgbm", METADATA) as run:

        def follow(progress: Progress) -> None:
            run.progress(progress)
            if progress.stage == "fold":
                history = registry.client.get_metric_history(run.run_id, "fold/rank_ic")
                steps.append([m.step for m in history])
                assert registry.client.get_run(run.run_id).info.status == "RUNNING"

        result = train_walk_forward(
            modelling_data.data(), feature_names=FEATURES, family="lightgbm", settings=SETTINGS, progress=follow
        )
        version = run.finish(result)
    assert steps == [[1], [1, 2], [1, 2, 3]]
    data = registry.client.get_run(version.run_id).data
    assert data.metrics["progress_percent"] == 100
    assert "holdout/rank_ic" in data.metrics
    assert any(k.startswith("fold_1/validation_loss") for k in data.metrics)
    assert registry.oos(version.version).equals(result.oos)
    assert registry.oos(version.version, "holdout").equals(result.holdout)


@pytest.mark.requirement("R4.1")
@pytest.mark.parametrize(("error", "status"), [(TrainingCancelled("stop"), "KILLED"), (OSError("disk full"), "FAILED")])
def test_a_training_that_breaks_off_leaves_its_reason_and_no_version(tmp_path, error, status):
    registry = new_registry(tmp_path)
    with pytest.raises(type(error)), registry.training_run("ridge", METADATA) as run:
        raise error
    found = registry.client.get_run(run.run_id)
    assert found.info.status == status
    assert str(error) in found.data.tags["error"]
    assert registry.versions() == []


@pytest.mark.requirement("R4.2", "D3")
def test_a_version_can_be_moved_to_another_registry(registry, tmp_path):
    registry.promote(1)
    path = export_version(registry, "champion", tmp_path / "backup" / "ridge.zip")
    other = new_registry(tmp_path / "other")
    info = import_version(other, path)
    assert info.version == 1
    assert info.aliases == ()
    assert info.tags["imported_from"] == "stock_model version 1"
    assert info.metrics == registry.get(1).metrics
    assert info.checksum == registry.get(1).checksum
    frame = modelling_data.features().tail(50)
    assert np.array_equal(other.load(1).predict(frame), registry.load(1).predict(frame))
    assert other.load(1).calibrator_json == CALIBRATOR
    assert other.client.get_run(info.run_id).data.params["model.alpha"] == "1.0"
    assert import_version(other, path).version == 2


@pytest.mark.requirement("R4.3", "D3")
def test_a_backup_whose_headers_name_another_compression_is_refused(registry, tmp_path):
    path = export_version(registry, 3, tmp_path / "momentum.zip")
    content = path.read_bytes()
    other = new_registry(tmp_path / "other")
    with zipfile.ZipFile(path) as archive:
        # the largest: of a few bytes LZMA only says that there must be more
        entry = max(archive.infolist(), key=lambda one: one.compress_size)
        assert entry.compress_size > 2**16 + 4
        local, central = entry.header_offset, content.index(entry.filename.encode(), archive.start_dir) - 46
    assert (content[local + 8], content[central + 10]) == (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99):
        for positions in ([central + 10], [local + 8, central + 10]):
            changed = bytearray(content)
            for position in positions:
                changed[position] = method
            path.write_bytes(changed)
            with pytest.raises(IntegrityError, match="the backup of a model is damaged"):
                import_version(other, path)
    assert other.versions() == []


@pytest.mark.requirement("R4.3", "D3")
def test_a_damaged_backup_is_refused_and_nothing_is_registered(registry, tmp_path):
    path = export_version(registry, 3, tmp_path / "momentum.zip")
    content = path.read_bytes()
    other = new_registry(tmp_path / "other")
    random = np.random.default_rng(1)
    for position in random.integers(0, len(content), 40):
        changed = bytearray(content)
        changed[position] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        try:
            import_version(other, path)
        except IntegrityError:
            continue
        # only what zip itself does not use (dates, attributes) may differ without harm
        with zipfile.ZipFile(path) as archive:
            assert {n: archive.read(n) for n in archive.namelist()}
    good = len(other.versions())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match="damaged"):
        import_version(other, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "x")
    with pytest.raises(IntegrityError, match="outside itself"):
        import_version(other, path)
    assert not (tmp_path / "outside.txt").exists()
    assert len(other.versions()) == good
    with pytest.raises(NotFoundError, match="no such backup"):
        import_version(other, tmp_path / "nothing.zip")


def test_mlflow_itself_can_open_a_version(tmp_path):
    import mlflow

    registry = new_registry(tmp_path)
    info = registry.register(trained("ridge"), None, METADATA, example=modelling_data.features())
    source = registry.client.get_logged_model(info.model_id).artifact_location
    opened = mlflow.pyfunc.load_model(source)
    frame = modelling_data.features().drop_nulls().tail(20)
    predicted = opened.predict(frame.select(FEATURES).to_pandas())["prediction"].to_numpy()
    assert np.array_equal(predicted, registry.load(1).predict(frame))
    assert [c.name for c in opened.metadata.signature.inputs] == list(FEATURES)
    # what MLflow drops into the folder does not make the version unreadable
    registry.load(1)


@pytest.mark.slow
def test_two_processes_may_open_a_new_registry_at_once(tmp_path):
    code = (
        "import sys; from stock_pipeline.storage.model_registry import ModelRegistry;"
        "r = ModelRegistry(f'sqlite:///{sys.argv[1]}/mlflow.db', sys.argv[1] + '/artifacts');"
        "print(r.experiment_id, r.versions())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [p.communicate(timeout=300) for p in started]
    assert [p.returncode for p in started] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]


def test_only_this_package_imports_mlflow():
    root = Path(__file__).resolve().parents[2] / "stock_pipeline"
    users = [p for p in root.rglob("*.py") if "import mlflow" in p.read_text() or "from mlflow" in p.read_text()]
    assert users
    assert all(u.relative_to(root).as_posix().startswith("storage/model_registry/") for u in users)


@pytest.mark.requirement("R4.2", "D3")
def test_a_restored_home_reads_and_writes_its_own_files_alone(registry, template, tmp_path):
    before = sorted(p for p in template.rglob("*"))
    assert registry.locate(registry.get(1), str(tmp_path)).is_relative_to(tmp_path)
    info = registry.register(trained("momentum"), None, METADATA)
    assert info.version == 4
    assert registry.locate(info, str(tmp_path)).is_relative_to(tmp_path)
    assert registry.load(4).family == "momentum"
    assert registry.oos(1).equals(trained("ridge").oos)
    assert registry.oos(4).equals(trained("momentum").oos)
    assert new_registry(tmp_path / "home").load(4).family == "momentum"
    assert sorted(p for p in template.rglob("*")) == before
