"""Model families behind one interface: ``get(name).fit(...)`` gives a model, ``load(folder)`` gives it back.

LightGBM, scikit-learn's histogram boosting, random forest, ridge and elastic net, and the naive baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stock_pipeline.core.errors import ConfigurationError, IntegrityError
from stock_pipeline.core.modelling.families import package
from stock_pipeline.core.modelling.families.base import FittedModel, ModelFamily
from stock_pipeline.core.modelling.families.baselines import AlwaysUp, Momentum, Zero
from stock_pipeline.core.modelling.families.forest import RandomForest
from stock_pipeline.core.modelling.families.histogram_trees import HistGradientBoosting
from stock_pipeline.core.modelling.families.lightgbm_trees import LightGBM
from stock_pipeline.core.modelling.families.linear import ElasticNet, Ridge

__all__ = ["BASELINES", "FAMILIES", "FittedModel", "ModelFamily", "get", "load"]

_ALL: tuple[ModelFamily, ...] = (
    LightGBM(),
    HistGradientBoosting(),
    Ridge(),
    ElasticNet(),
    RandomForest(),
    Zero(),
    AlwaysUp(),
    Momentum(),
)
FAMILIES: tuple[str, ...] = tuple(f.name for f in _ALL)
"""Names of all families."""
BASELINES: tuple[str, ...] = tuple(f.name for f in _ALL if f.baseline)
"""Names of the naive baselines."""


def get(name: str) -> ModelFamily:
    """Return a family by name.

    Raises
    ------
    ConfigurationError
        If there is no such family.
    """
    for family in _ALL:
        if family.name == name:
            return family
    raise ConfigurationError("unknown model family", value=name, allowed=", ".join(FAMILIES))


def load(directory: Path | str, *, feature_names: Sequence[str] | None = None) -> FittedModel:
    """Load a saved model, verifying all of it before anything is deserialised.

    Parameters
    ----------
    directory
        Folder written by `FittedModel.save`.
    feature_names
        The features the caller will pass, in order; ``None`` to accept the model's.

    Returns
    -------
    FittedModel
        Predicts the same bits as the model that was saved.

    Raises
    ------
    IntegrityError
        If a byte of any file changed, a file is missing or too many, the format or a library does not fit, or the
        features are not the caller's.
    """
    manifest, files = package.read(Path(directory))
    names = manifest["feature_names"]
    if manifest["family"] not in FAMILIES or package.names_hash(names) != manifest["feature_hash"]:
        raise IntegrityError("the manifest of a model contradicts itself", value=manifest["family"], fix="retrain")
    if feature_names is not None and list(feature_names) != names:
        differing = sorted(set(names) ^ set(feature_names))[:10]
        raise IntegrityError(
            "the model was trained on another feature set",
            value=differing or "same features in another order",
            allowed=f"{len(names)} features with hash {manifest['feature_hash'][:12]}",
            fix="compute the model's feature set, or retrain",
        )
    family = get(manifest["family"])
    _check_libraries(manifest["libraries"], family.fitted.libraries())
    parameters = family.parse(manifest["parameters"])
    return family.fitted.restore(files, names, parameters, manifest["seed"])


def _check_libraries(saved: dict[str, str], here: dict[str, str]) -> None:
    """Refuse another major or minor version: the files hold a library's internals."""
    for name, version in saved.items():
        have = here.get(name, "none")
        if have.split(".")[:2] != version.split(".")[:2]:
            raise IntegrityError(
                f"the model was saved with another version of {name}",
                value=version,
                allowed=f"{have} (installed)",
                fix="install that version or retrain",
            )
