from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core import features
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features import Feature, FeatureSet, registry

pytestmark = pytest.mark.requirement("R1.1")

MODULE = '''
"""Features of a user."""
from stock_pipeline.core.features import feature

HORIZON = 10

@feature(inputs=["close"], lookback=HORIZON, source="Own research", sets=["mine"])
def ten_day_reversal(panel):
    """Minus the return over ten sessions."""
    return -panel.growth(panel.close, HORIZON)  # a comment
'''


class _UndoError(Exception):
    """Makes a registry transaction undo what was registered."""


@contextmanager
def registry_as_before() -> Iterator[None]:
    with suppress(_UndoError), registry.transaction():
        yield
        raise _UndoError


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    with registry_as_before():
        yield


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_built_in_sets_are_as_large_as_promised() -> None:
    sizes = {name: len(members) for name, members in features.sets().items()}
    assert sizes["alpha158"] == 158
    assert sizes["technical"] >= 40
    assert sizes["statistical"] >= 40
    assert len(features.names()) == len(set(features.names()))


def test_a_set_combines_sets_and_features_without_doubles() -> None:
    fs = features.feature_set(["rsi_14", "technical"], exclude=["adx_14"])
    assert fs.names[0] == "rsi_14"
    assert len(fs.names) == len(features.sets()["technical"]) - 1
    assert fs.inputs == ("open", "high", "low", "close", "volume")
    assert fs.lookback == max(f.lookback for f in fs.features)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigurationError, match="rsi_14"):
        features.feature_set(["rsi14"])
    with pytest.raises(ConfigurationError, match="technical"):
        features.feature_set(["techncal"])
    with pytest.raises(ConfigurationError, match="did you mean KMID"):
        features.get("kmid")
    with pytest.raises(ConfigurationError, match="not among the chosen"):
        features.feature_set(["rsi_14"], exclude=["adx_14"])
    with pytest.raises(ConfigurationError, match="No feature is left"):
        features.feature_set(["rsi_14"], exclude=["rsi_14"])
    with pytest.raises(ConfigurationError, match="list of names"):
        features.feature_set("technical")


def test_a_missing_column_is_named_with_the_way_out() -> None:
    bars = pl.DataFrame(
        {"symbol": ["A"], "session": [pl.date(2024, 1, 2)], "close": [1.0], "volume": [1.0], "adj_factor": [1.0]}
    ).with_columns(pl.date(2024, 1, 2).alias("session"), open=pl.lit(None, pl.Float64))
    fs = features.feature_set(["KMID", "OPEN0", "return_1"])
    with pytest.raises(
        ConfigurationError, match=r"'open' holds no values.*'KMID' and 1 more.*exclude: \[KMID, OPEN0\]"
    ):
        features.compute(bars, fs)
    with pytest.raises(ConfigurationError, match="'benchmark' is missing, which feature 'beta_60' needs"):
        features.compute(bars, features.feature_set(["beta_60"]))
    left = features.available(fs, features.columns_with_data(bars))
    assert left.names == ("return_1",)
    assert features.compute(bars, left).columns == ["symbol", "session", "return_1"]
    with pytest.raises(ConfigurationError, match="No feature of"):
        features.available(features.feature_set(["beta_60"]), ["close"])


def test_users_features_are_loaded_by_dotted_path(module_folder: Path) -> None:
    (module_folder / "own_features_a.py").write_text(MODULE)
    assert features.load_user_features("own_features_a") == ("ten_day_reversal",)
    assert features.load_user_features("own_features_a") == ("ten_day_reversal",), "loading again changes nothing"
    fs = features.feature_set(["mine"])
    assert fs.features[0].description == "Minus the return over ten sessions."
    assert fs.lookback == 10


def test_users_features_are_loaded_by_entry_point(module_folder: Path) -> None:
    (module_folder / "own_features_b.py").write_text(MODULE.replace("ten_day", "b_day"))
    info = module_folder / "own_features-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-features\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stock_pipeline.features]\nresearch = own_features_b\n")
    assert features.load_user_features() == ("b_day_reversal",)
    assert features.load_user_features("research") == ("b_day_reversal",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MODULE.replace("ten_day_reversal", "rsi_14"), "already taken by a feature .*technical.momentum"),
        (MODULE.replace("ten_day_reversal", "technical"), "already taken by a feature set"),
        (MODULE.replace('"close"', '"closing"'), "unknown column.*'closing'.*close"),
        (MODULE.replace("lookback=HORIZON", "lookback=-1"), "declared wrongly"),
        (MODULE.replace('source="Own research"', 'source=""'), "no description or no source"),
        ("import nothing_of_this_name", "imports a module that cannot be found.*nothing_of_this_name"),
        ("1 / 0", "failed with ZeroDivisionError"),
        ("def broken(:", "failed with SyntaxError"),
        ("x = 1", "declares no features"),
    ],
)
def test_a_bad_module_is_refused_and_leaves_nothing(module_folder: Path, text: str, message: str) -> None:
    before = features.names(), features.sets()
    good = MODULE.replace("ten_day", "first_day") if "feature" in text else ""
    (module_folder / "own_features_c.py").write_text(good + text)
    with pytest.raises(ConfigurationError, match=message):
        features.load_user_features("own_features_c")
    assert (features.names(), features.sets()) == before


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="cannot be found: 'no_such_module'"):
        features.load_user_features("no_such_module")


def test_the_hash_follows_definitions_and_nothing_else(module_folder: Path) -> None:
    def changed(**changes: object) -> str:
        base = features.get("rsi_14")
        values = {k: getattr(base, k) for k in Feature.__dataclass_fields__}
        return FeatureSet("x", (Feature(**{**values, **changes}),)).hash

    same = features.feature_set(["rsi_14"]).hash
    assert same == features.feature_set(["rsi_14"]).hash == changed(description="other words", source="elsewhere")
    different = {changed(version=2), changed(lookback=99), changed(parameters={"window": 15}), changed(name="r")}
    assert len(different | {same}) == 5
    assert features.feature_set(["rsi_6", "rsi_14"]).hash != features.feature_set(["rsi_14", "rsi_6"]).hash

    hashes = []
    for k, text in enumerate(
        [
            MODULE,
            MODULE.replace("  # a comment", "").replace("Minus the", "The negative"),
            MODULE.replace("= 10", "= 11"),
        ]
    ):
        name = f"own_features_h{k}"
        (module_folder / f"{name}.py").write_text(text)
        with registry_as_before():
            features.load_user_features(name)
            hashes.append(features.feature_set(["ten_day_reversal"]).hash)
    assert hashes[0] == hashes[1], "comments and docstrings do not count"
    assert hashes[0] != hashes[2], "constants of the module do"


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from stock_pipeline.core import features as f; print(f.feature_set(['technical', 'alpha158']).hash)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == features.feature_set(["technical", "alpha158"]).hash


def test_every_feature_is_described() -> None:
    fs = features.feature_set(list(features.sets()))
    page = features.describe(fs)
    assert page["name"].to_list() == list(fs.names)
    assert page.select(
        pl.all_horizontal(pl.col("description", "source", "inputs", "sets").str.len_chars() >= 3).all()
    ).item()
    assert not page["description"].str.contains(r"[{}]").any()
    assert page["description"].n_unique() == page.height
    assert set(page["kind"]) == {"symbol", "cross-sectional rank", "cross-sectional zscore"}


@pytest.mark.requirement("P7")
def test_importing_and_choosing_features_costs_no_heavy_import() -> None:
    code = (
        "import sys; from stock_pipeline.core import features as f; f.describe(f.feature_set(['technical']));"
        "print([m for m in ('numba', 'scipy', 'pandas', 'pyarrow', 'vectorbt', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
