"""Where settings come from and in which order: defaults, file, environment's file, variables, explicit overrides."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stock_pipeline.config.layers import from_environment, merge, read_yaml
from stock_pipeline.config.settings import Settings
from stock_pipeline.core.errors import ConfigurationError

CONFIG_VARIABLE = "STOCK_PIPELINE_CONFIG"
DEFAULT_FILE = "stock_pipeline.yaml"
SAMPLE_FILE = Path(__file__).resolve().parents[2] / "data" / "sample" / "market.yaml"


def find_config(path: str | Path | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """Find the configuration file.

    Parameters
    ----------
    path
        An explicit path; wins over everything.
    environment
        Environment variables; ``STOCK_PIPELINE_CONFIG`` is looked up in them.

    Returns
    -------
    pathlib.Path
        `path`, else the variable's, else ``stock_pipeline.yaml`` in the working folder, else the sample market's.

    Raises
    ------
    ConfigurationError
        None of them exists.
    """
    environment = os.environ if environment is None else environment
    named = path or environment.get(CONFIG_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    for candidate in (Path.cwd() / DEFAULT_FILE, SAMPLE_FILE):
        if candidate.is_file():
            return candidate
    raise ConfigurationError(
        "no configuration file found",
        value=str(Path.cwd() / DEFAULT_FILE),
        allowed=f"--config PATH, ${CONFIG_VARIABLE}, or {DEFAULT_FILE} in the working folder",
        fix="write one with `stock-pipeline init`",
    )


def load_settings(
    path: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merge all layers and validate them as a whole.

    Later layers win: defaults, the file, ``<file>.<environment>.yaml`` beside it (``dev``, ``test`` or ``prod``),
    ``STOCK_PIPELINE__*`` variables, `overrides`. Relative paths are relative to the file's folder.

    Raises
    ------
    ConfigurationError
        Any key is unknown or any value is not allowed; the message lists every fault.
    """
    environment = os.environ if environment is None else environment
    file = find_config(path, environment)
    values = read_yaml(file)
    variables = from_environment(environment)
    home = environment.get("STOCK_PIPELINE_HOME")
    if home:
        variables = merge(variables, {"home": str(Path(home).expanduser().resolve())})
    top = merge(merge(values, variables), overrides or {})
    layered = file.with_suffix(f".{top.get('environment', 'dev')}{file.suffix}")
    if layered.is_file():
        values = merge(values, read_yaml(layered))
    merged = merge(merge(values, variables), overrides or {})
    try:
        settings = Settings.model_validate({**merged, "config_file": file})
    except ValidationError as error:
        raise ConfigurationError(explain(error, file)) from error
    return settings.resolved(file.parent)


def explain(error: ValidationError, file: Path) -> str:
    """Turn pydantic's errors into one line a fault: key, value, what is allowed."""
    faults = [_fault(item) for item in error.errors(include_url=False)]
    head = f"the configuration {file} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:"
    return "\n".join([head, *(f"  - {fault}" for fault in faults)])


def _fault(item: Any) -> str:
    location = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    key = ".".join(str(part) for part in location) or "(whole)"
    value = item.get("input")
    shown = f"{type(value).__name__}" if isinstance(value, dict | BaseModel) else repr(value)
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}" if known else ""
        return f"{key}: there is no such key; {hint}".rstrip("; ")
    if item["type"] == "missing":
        return f"{key}: must be given"
    context = item.get("ctx") or {}
    if "error" in context:
        return f"{key}: {context['error']} (value {shown})"
    message = str(item["msg"])
    return f"{key}: {message[0].lower()}{message[1:]} (value {shown})"


def _known_keys(location: list[Any]) -> list[str]:
    """Names of the fields of the settings section at `location` (empty where it cannot be told)."""
    models: list[type[BaseModel]] = [Settings]
    for part in location:
        below: list[type[BaseModel]] = []
        for model in models:
            if isinstance(part, str) and part in model.model_fields:
                below += _models_in(model.model_fields[part].annotation)
        models = below or models
    return sorted({name for model in models for name in model.model_fields if name != "config_file"})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
