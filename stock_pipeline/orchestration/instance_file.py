"""Writes Dagster's instance file, ``<home>/dagster/dagster.yaml``, from the template and the configuration.

Secrets are never written: the file names the environment variables that hold them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import yaml

from stock_pipeline.config import Settings
from stock_pipeline.config.launches import KIND
from stock_pipeline.config.storage import ENVIRONMENT_VALUE
from stock_pipeline.core.errors import ConfigurationError

TEMPLATE = Path(__file__).resolve().parents[2] / "dagster.yaml"
DATABASE_VARIABLE, BROKER_VARIABLE = "STOCK_PIPELINE_DAGSTER_DATABASE", "STOCK_PIPELINE_BROKER"
"""Variables that hold addresses which the configuration holds itself; Dagster's processes inherit them."""

_HEADER = "# Written from the configuration. It follows it until somebody edits this file.\n"
_FROM_SETTINGS = ("storage", "run_launcher")
"""Sections without which the settings would not do what they say."""


def write(settings: Settings, target: Path, environment: MutableMapping[str, str]) -> None:
    """Keep the file up to date, until a person edits it: then it is theirs.

    Parameters
    ----------
    environment
        Gets the variables that the file names and that the configuration holds itself.

    Raises
    ------
    ConfigurationError
        A person has edited the file, and it is not what `storage.dagster` or `tasks.workers` ask for.
    """
    text = rendered(settings, environment)
    stamp = target.with_name(f".{target.name}.sha256")
    # in this order: another process that writes the file meanwhile leaves one that the stamp knows, or that is right
    stamped = stamp.read_text().split() if stamp.exists() else []
    present = target.read_bytes() if target.exists() else None
    if present == text.encode():
        return
    ours = present is None or _digest(present) in stamped
    if not ours:
        _check_edited(settings, target, yaml.safe_load(present or b"") or {}, yaml.safe_load(text))
    else:
        # a process that dies in between leaves a file that is known either way
        known = [_digest(one) for one in (present, text.encode()) if one is not None]
        replace_file(stamp, "\n".join(known).encode())
        replace_file(target, text.encode())
        replace_file(stamp, known[-1].encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rendered(settings: Settings, environment: MutableMapping[str, str]) -> str:
    """The text of the file; the template itself where the configuration asks for nothing else."""
    template = TEMPLATE.read_text(encoding="utf-8")
    content = yaml.safe_load(template)
    tasks, database = settings.tasks, settings.storage.dagster
    runs = content["concurrency"]["runs"]
    runs["max_concurrent_runs"] = tasks.max_running
    for limit in runs["tag_concurrency_limits"]:
        if limit["key"] == KIND:
            limit["limit"] = tasks.max_running_per_kind
    if database is not None:
        content["storage"] = {"postgres": {"postgres_url": _variable(database, DATABASE_VARIABLE, environment)}}
    if tasks.workers is not None:
        broker = _variable(tasks.workers.broker, BROKER_VARIABLE, environment)
        content["run_launcher"] = {
            "module": "stock_pipeline.orchestration.worker_launcher",
            "class": "WorkerLauncher",
            "config": {"broker": broker, "backend": dict(broker), "default_queue": queue(settings)},
        }
        content["run_monitoring"]["start_timeout_seconds"] = tasks.workers.start_minutes * 60
    if content == yaml.safe_load(template):
        return template
    return _HEADER + yaml.safe_dump(content, sort_keys=False)


def queue(settings: Settings) -> str:
    """Name of the queue in which runs of this market wait for a worker."""
    return f"stock_pipeline.{settings.market.name}"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file as a whole: readers see the old content or the new."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    scratch.write_bytes(content)
    scratch.replace(path)


def _variable(given: str, ours: str, environment: MutableMapping[str, str]) -> dict[str, str]:
    if given.startswith(ENVIRONMENT_VALUE):
        return {"env": given.removeprefix(ENVIRONMENT_VALUE)}
    environment[ours] = given
    return {"env": ours}


def _check_edited(settings: Settings, target: Path, present: dict[str, Any], wanted: dict[str, Any]) -> None:
    asked = {"storage": settings.storage.dagster, "run_launcher": settings.tasks.workers}
    for section in _FROM_SETTINGS:
        if asked[section] is not None and present.get(section) != wanted[section]:
            raise ConfigurationError(
                f"{target} was edited by hand, and its section {section} is not what the configuration asks for",
                value=yaml.safe_dump(present.get(section), default_flow_style=True).strip()[:200],
                allowed=yaml.safe_dump(wanted[section], default_flow_style=True).strip(),
                fix="delete the file, which is then written from the configuration, or correct the section",
            )
