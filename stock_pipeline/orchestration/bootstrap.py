"""Prepares the home folder and opens Dagster's instance in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.loading import CONFIG_VARIABLE

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
    """
    dagster_home = settings.home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.home / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True)
    _copy_unless_edited(Path(__file__).resolve().parents[2] / "dagster.yaml", dagster_home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ[CONFIG_VARIABLE] = str(settings.config_file)
    os.environ["STOCK_PIPELINE_HOME"] = str(settings.home)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(settings.home / "numba"))
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return dagster_home


def _copy_unless_edited(template: Path, target: Path) -> None:
    """Keep a copy of the template up to date, until a person edits the copy: then it is theirs."""
    text, stamp = template.read_bytes(), target.with_name(f".{target.name}.sha256")
    present = target.read_bytes() if target.exists() else None
    ours = present is None or (stamp.exists() and stamp.read_text() == hashlib.sha256(present).hexdigest())
    if ours and present != text:
        replace_file(target, text)
        replace_file(stamp, hashlib.sha256(text).hexdigest().encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file as a whole: readers see the old content or the new."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    scratch.write_bytes(content)
    scratch.replace(path)


def open_instance(settings: Settings) -> DagsterInstance:
    """Open the instance that the web UI shows, so that runs started here are seen there."""
    prepare_home(settings)
    from dagster import DagsterInstance

    return DagsterInstance.get()


def current_settings() -> Settings:
    """Settings of this process: the file named by the environment, else the one found from the working folder."""
    return load_settings()
