"""The folder that MLflow stores for a model: ours inside, MLflow's description around it, one manifest over both.

``model/`` holds what ``core.modelling.families`` wrote; beside it stand MLflow's ``MLmodel``, requirements and input
example, so that its UI and ``mlflow.pyfunc`` understand the model. ``manifest.json`` lists the SHA-256 of every file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.core.modelling.families import FittedModel, load, package
from stock_pipeline.storage.model_registry.client import mlflow_module
from stock_pipeline.storage.model_registry.types import CALIBRATOR

INNER = "model"
_MLFLOW_LEAVES = frozenset({"registered_model_meta"})
"""``mlflow.pyfunc.load_model`` drops this file into the folder that it reads; nothing of ours reads it."""


def write(
    directory: Path,
    model: FittedModel,
    example: pl.DataFrame | None,
    extra: Mapping[str, bytes],
    header: Mapping[str, Any],
) -> str:
    """Write a bundle.

    Parameters
    ----------
    directory
        A folder that does not exist yet.
    model
        The fitted model.
    example
        A few rows of features, for signature and input example; made of zeros if ``None``.
    extra
        Further files of the model.
    header
        What the outer manifest says beside the files.

    Returns
    -------
    str
        SHA-256 of the outer manifest.
    """
    import pandas as pd

    mlflow = mlflow_module()
    inner = directory.parent / INNER
    model.save(inner, extra)
    names = list(model.feature_names)
    rows = None if example is None else example.select(pl.col(names).cast(pl.Float32)).fill_null(0.0).head(3)
    columns = {n: (rows[n].to_numpy() if rows is not None else [0.0]) for n in names}
    # a model without inputs (the constant baselines) has no signature to infer
    frame = pd.DataFrame(columns, dtype="float32") if names else None
    output = pd.DataFrame({"prediction": [0.0]})
    signature = mlflow.models.infer_signature(frame, output) if frame is not None else None
    mlflow.pyfunc.save_model(
        str(directory),
        loader_module="stock_pipeline.storage.model_registry.pyfunc_loader",
        data_path=str(inner),
        signature=signature,
        input_example=frame,
        pip_requirements=[f"{n}=={v}" for n, v in model.libraries().items()] or ["numpy"],
    )
    return package.seal(directory, header)


def open_verified(directory: Path, checksum: str, where: str) -> tuple[FittedModel, str | None, dict[str, Any]]:
    """Verify a bundle against the checksum that the registry holds, and load what is inside.

    Parameters
    ----------
    directory
        The bundle.
    checksum
        SHA-256 of its manifest, as registered.
    where
        Name and version, for messages.

    Returns
    -------
    model : FittedModel
    calibrator_json : str or None
    header : dict
        The outer manifest.

    Raises
    ------
    IntegrityError
        If anything is missing, altered, or not what was registered; the message names the file.
    """
    manifest, files = package.read(directory, _MLFLOW_LEAVES)
    if package.sha256((directory / package.MANIFEST).read_bytes()) != checksum:
        raise IntegrityError(
            f"the files of {where} are not those that were registered",
            value=str(directory / package.MANIFEST),
            allowed=f"a manifest with SHA-256 {checksum}",
            fix="restore the model from a backup, or promote another version",
        )
    folder = next((n.rsplit("/", 1)[0] for n in files if n.endswith(f"{INNER}/{package.MANIFEST}")), None)
    if folder is None:
        raise IntegrityError(f"{where} holds no model", value=str(directory), fix="promote another version")
    model = load(directory / folder)
    _check_signature(files.get("MLmodel", b""), model, where)
    calibrator = files.get(f"{folder}/{CALIBRATOR}")
    return model, None if calibrator is None else calibrator.decode(), manifest


def _check_signature(description: bytes, model: FittedModel, where: str) -> None:
    import yaml

    signature = (yaml.safe_load(description) or {}).get("signature") or {}
    inputs = [column["name"] for column in json.loads(signature.get("inputs") or "[]")]
    if inputs != list(model.feature_names):
        raise IntegrityError(
            f"the signature of {where} does not fit its model",
            value=inputs[:10],
            allowed=f"{len(model.feature_names)} features",
        )
