"""Prepares the home folder and opens Dagster's instance in it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.loading import CONFIG_VARIABLE
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.orchestration import instance_file

if TYPE_CHECKING:
    from dagster import DagsterInstance

_QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    # waiting OpenMP threads that spin make fits several times slower on a busy machine
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_home(settings: Settings) -> Path:
    """Make the home folder with Dagster's configuration in it, and point the environment there.

    Child processes (web server, daemon, runs) find the same configuration file and the same home by the environment.

    Raises
    ------
    ConfigurationError
        Workers are configured and their library is not installed, or Dagster's configuration was edited by hand and is
        not what the settings ask for.
    """
    if settings.tasks.workers is not None and find_spec("dagster_celery") is None:
        raise ConfigurationError(
            "workers (tasks.workers) need a library that is not installed",
            value="dagster-celery",
            fix="pip install 'stock-pipeline[celery]', or leave tasks.workers out",
        )
    dagster_home = settings.home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.home / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True)
    instance_file.write(settings, dagster_home / "dagster.yaml", os.environ)
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ[CONFIG_VARIABLE] = str(settings.config_file)
    os.environ["STOCK_PIPELINE_HOME"] = str(settings.home)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(settings.home / "numba"))
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return dagster_home


def open_instance(settings: Settings) -> DagsterInstance:
    """Open the instance that the web UI shows, so that runs started here are seen there."""
    prepare_home(settings)
    from dagster import DagsterInstance

    return DagsterInstance.get()


def current_settings() -> Settings:
    """Settings of this process: the file named by the environment, else the one found from the working folder."""
    return load_settings()
