"""What every model family has in common: parameters, fit, predict, files.

A family is a stateless object that fits; a fitted model predicts, names its inputs and turns itself into files. Each
family is one module beside this one. Splitting and metrics belong to ``modelling.training`` and ``.evaluation``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from pydantic import ValidationError

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.modelling.families import package
from stock_pipeline.core.modelling.matrix import check_finite, to_matrix
from stock_pipeline.core.modelling.progress import RoundCallback, no_rounds
from stock_pipeline.core.parameters import Parameters

Matrix = pl.DataFrame | np.ndarray

SMALL = 20_000_000
"""Values (rows x features) below which one thread is used unless more are asked for.

Threads that wait for each other after every small step spin: on a busy machine two were measured to be seven times as
slow as one, while on an idle one they save a third.
"""


@dataclass(frozen=True)
class FitData:
    """The checked input of one fit: Float32 matrices (NaN = missing), float64 targets without NaN.

    ``x_val`` and ``y_val`` are ``None`` where there is no validation part.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray | None
    y_val: np.ndarray | None
    names: tuple[str, ...]
    seed: int
    threads: int
    rounds: int | None
    progress: RoundCallback


class FittedModel(ABC):
    """A model that predicts, and that is what it was after saving and loading, bit for bit.

    A row's prediction depends on that row alone, never on which others are in the batch.
    """

    family: ClassVar[str]

    def __init__(self, names: Sequence[str], parameters: Parameters, seed: int) -> None:
        self.feature_names = tuple(names)
        self.parameters = parameters
        self.seed = seed

    @property
    def rounds(self) -> int | None:
        """Number of boosting rounds kept, ``None`` for families that have none."""
        return None

    def predict(self, data: Matrix) -> np.ndarray:
        """Predict the label.

        Parameters
        ----------
        data
            A frame with the model's features among its columns, or a matrix of shape (rows, features) with exactly
            the model's features in order.

        Returns
        -------
        numpy.ndarray
            Shape (rows,), float64, finite, in units of the label.

        Raises
        ------
        DataError
            If features are missing, not numeric, infinite, or the matrix has another width.
        """
        return self._predict(_matrix(data, self.feature_names))

    @abstractmethod
    def _predict(self, x: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return the model as file contents by name, without any pickle."""

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the importance, summing to 1 (empty where a family has no such notion)."""
        return {}

    def save(self, directory: Path | str, extra: Mapping[str, bytes] | None = None) -> dict[str, Any]:
        """Write the model and its manifest into a folder.

        Parameters
        ----------
        directory
            An empty or new folder.
        extra
            Further files (by plain name) that belong to the model and are covered by the same checksums.

        Returns
        -------
        dict
            The manifest: family, features and their hash, dtype, parameters, seed, library versions, files.
        """
        header = {
            "family": self.family,
            "feature_names": list(self.feature_names),
            "feature_hash": package.names_hash(self.feature_names),
            "dtypes": dict.fromkeys(self.feature_names, "float32"),
            "parameters": self.parameters.model_dump(mode="json"),
            "seed": self.seed,
            "rounds": self.rounds,
            "libraries": self.libraries(),
        }
        own = self.files()
        clash = set(own) & set(extra or {})
        if clash or package.MANIFEST in (extra or {}):
            raise ConfigurationError(
                "an extra file has the name of a model file", value=sorted(clash) or package.MANIFEST
            )
        return package.write(Path(directory), {**own, **(extra or {})}, header)

    @classmethod
    def libraries(cls) -> dict[str, str]:
        """Return the versions of the libraries that the files depend on."""
        return {}

    @classmethod
    @abstractmethod
    def restore(
        cls, files: Mapping[str, bytes], names: Sequence[str], parameters: Parameters, seed: int
    ) -> FittedModel:
        """Rebuild the model from verified file contents."""


class ModelFamily(ABC):
    """A way to fit a model, with its own validated parameters.

    Attributes
    ----------
    name
        The name in configuration, files and reports.
    parameter_model
        Its parameters, validated.
    fitted
        The class of its fitted models.
    baseline
        Whether it is a naive yardstick: not tuned, not winsorised.
    early_stopping
        Whether it uses a validation part.
    tunable
        Whether it has a search space.
    """

    name: ClassVar[str]
    parameter_model: ClassVar[type[Parameters]]
    fitted: ClassVar[type[FittedModel]]
    baseline: ClassVar[bool] = False
    early_stopping: ClassVar[bool] = False
    tunable: ClassVar[bool] = True

    def parse(self, parameters: Parameters | Mapping[str, Any] | None) -> Parameters:
        """Validate parameters (a mapping, the model itself, or ``None`` for the defaults)."""
        if isinstance(parameters, self.parameter_model):
            return parameters
        given = parameters.model_dump() if isinstance(parameters, Parameters) else dict(parameters or {})
        try:
            return self.parameter_model(**given)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(
                f"parameter {'.'.join(map(str, first['loc']))} of model family {self.name}: {first['msg']}",
                value=first.get("input"),
                allowed=", ".join(self.parameter_model.model_fields),
            ) from error

    def inputs(self, names: Sequence[str], parameters: Parameters) -> list[str]:
        """Return which of the available columns the family uses (all, unless it says otherwise)."""
        return list(names)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw parameters from the family's search space by an Optuna trial (empty: nothing to tune)."""
        return {}

    def fit(
        self,
        X: Matrix,
        y: np.ndarray | pl.Series,
        X_val: Matrix | None = None,
        y_val: np.ndarray | pl.Series | None = None,
        params: Parameters | Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: RoundCallback = no_rounds,
        *,
        feature_names: Sequence[str] | None = None,
        threads: int = 0,
        rounds: int | None = None,
    ) -> FittedModel:
        """Fit on training rows; everything that is learnt (imputation and scaling too) is learnt from them.

        Parameters
        ----------
        X, y
            Training rows: frame or float matrix of shape (rows, features), NaN or null where missing; targets of
            shape (rows,), finite.
        X_val, y_val
            Validation rows for early stopping; families without early stopping ignore them.
        params
            The family's parameters; ``None`` for the defaults.
        seed
            Seed of everything random.
        progress
            Called with rounds done, rounds at most, and validation loss.
        feature_names
            Names of the columns of a matrix; a frame brings its own.
        threads
            Number of threads; 0 for one below `SMALL` values and all cores above. The result does not depend on it for
            tree families.
        rounds
            Exactly this many boosting rounds, without early stopping.

        Returns
        -------
        FittedModel

        Raises
        ------
        ConfigurationError
            If parameters are out of range.
        DataError
            If rows or features are absent, a target is not finite, or shapes differ.
        """
        parameters = self.parse(params)
        if isinstance(X, pl.DataFrame):
            names = tuple(feature_names or X.columns)
        else:
            names = tuple(feature_names or (f"f{i}" for i in range(np.asarray(X).shape[1])))
        used = tuple(self.inputs(names, parameters))
        keep = None if used == names else [names.index(n) for n in used]

        def matrix(data: Matrix) -> np.ndarray:
            if isinstance(data, pl.DataFrame):
                return _matrix(data, used)
            full = _matrix(data, names)
            return full if keep is None else np.ascontiguousarray(full[:, keep])

        with_validation = X_val is not None and y_val is not None and len(y_val) > 0 and self.early_stopping
        x, target = matrix(X), _target(y, len(X))
        x_val = matrix(X_val) if with_validation and X_val is not None else None
        y_valid = _target(y_val, len(x_val)) if x_val is not None and y_val is not None else None
        data = FitData(x, target, x_val, y_valid, used, seed, threads_for(x, threads), rounds, progress)
        return self._fit(data, parameters)

    @abstractmethod
    def _fit(self, data: FitData, parameters: Any) -> FittedModel: ...


def threads_for(x: np.ndarray, threads: int = 0) -> int:
    """Return the threads to use for a matrix: those asked for, else 1 for a small one and 0 (all cores) for others."""
    return threads or (1 if x.size < SMALL else 0)


def _matrix(data: Matrix, names: Sequence[str]) -> np.ndarray:
    if isinstance(data, pl.DataFrame):
        return to_matrix(data, names)
    array = np.asarray(data)
    if array.ndim != 2 or array.shape[1] != len(names):
        raise DataError("the matrix has the wrong shape", value=array.shape, allowed=f"(rows, {len(names)})")
    array = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(array, names)
    return array


def _target(y: np.ndarray | pl.Series, rows: int) -> np.ndarray:
    target = np.asarray(y.to_numpy() if isinstance(y, pl.Series) else y, dtype=np.float64)
    if target.shape != (rows,) or rows == 0:
        raise DataError(
            "targets and rows do not match", value=(target.shape, rows), allowed="one target a row, at least one"
        )
    if not np.isfinite(target).all():
        raise DataError("targets must be finite", fix="drop rows whose label has not matured")
    return target
