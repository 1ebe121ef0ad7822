"""The one place where MLflow is imported and opened, quietly and without telemetry."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_SQLITE = "sqlite:///"


def mlflow_module() -> Any:
    """Import MLflow (seconds, the first time)."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    import mlflow.pyfunc

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def open_client(tracking_uri: str) -> Any:
    """Open a client for tracking and registry; a SQLite database that is not there yet is created once.

    Two processes that create it at the same time break its migration, hence the lock beside it.
    """
    mlflow = mlflow_module()
    if not tracking_uri.startswith(_SQLITE):
        return mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    path = Path(tracking_uri.removeprefix(_SQLITE).split("?")[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(path.name + ".lock")):
        client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def quiet_missing(call: Any, *arguments: Any) -> Any | None:
    """Return what an MLflow call returns, ``None`` if the thing does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*arguments)
    except MlflowException as error:
        missing = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
        if missing or "not found" in str(error).lower():
            return None
        raise
