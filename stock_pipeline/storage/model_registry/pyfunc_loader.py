"""Lets ``mlflow.pyfunc.load_model`` open a registered model, with the same verification as our own loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from stock_pipeline.core.modelling.families import FittedModel, load


class PyFuncModel:
    """Adapts a fitted model to MLflow's pandas interface."""

    def __init__(self, model: FittedModel) -> None:
        self.model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Predict from a pandas frame; return a pandas frame with the column ``prediction``."""
        import pandas as pd

        frame = pl.DataFrame({str(name): data[name].to_numpy() for name in data.columns}, height=len(data))
        return pd.DataFrame({"prediction": self.model.predict(frame)}, index=data.index)


def _load_pyfunc(path: str) -> PyFuncModel:
    return PyFuncModel(load(Path(path)))
