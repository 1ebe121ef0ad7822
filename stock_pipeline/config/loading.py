"""Where settings come from and in which order: defaults, file, environment's file, variables, explicit overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stock_pipeline.config.explaining import faults_of, report
from stock_pipeline.config.layers import ENV_PREFIX, from_environment, merge, read_yaml
from stock_pipeline.config.production import unsafe
from stock_pipeline.config.registered import unknown
from stock_pipeline.config.settings import Settings
from stock_pipeline.core.errors import ConfigurationError

ENVIRONMENTS = ("dev", "test", "prod")
CONFIG_VARIABLE = "STOCK_PIPELINE_CONFIG"
DEFAULT_FILE = "stock_pipeline.yaml"
SAMPLE_FILE = Path(__file__).resolve().parents[2] / "data" / "sample" / "market.yaml"
_FIXED = "config_file: there is no such key; the file that is read is chosen by --config"


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


def find_market(name: str, folder: Path | None = None) -> Path:
    """Find the configuration whose ``market.name`` is `name`.

    Parameters
    ----------
    name
        Name of the market.
    folder
        Where to look, there and in its folder ``markets``; the working folder by default. The sample market is found
        everywhere.

    Raises
    ------
    ConfigurationError
        No file, or more than one, is of this market.
    """
    folder = folder or Path.cwd()
    files = [*sorted(folder.glob("*.yaml")), *sorted((folder / "markets").glob("*.yaml")), SAMPLE_FILE]
    markets = [(file, read_yaml(file).get("market")) for file in files if file.is_file()]
    names = {file.resolve(): str(market.get("name")) for file, market in markets if isinstance(market, dict)}
    found = [file for file, known in names.items() if known == name]
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(
        "several configurations are of this market" if found else "no configuration is of this market",
        value=name,
        allowed=", ".join(map(str, found)) if found else ", ".join(sorted(set(names.values()))),
        fix="choose the file with --config PATH",
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
    chosen = merge(merge(values, variables), overrides or {}).get("environment", ENVIRONMENTS[0])
    layered = file.with_suffix(f".{chosen}{file.suffix}") if chosen in ENVIRONMENTS else None
    if layered is not None and layered.is_file():
        over = read_yaml(layered)
        if over.get("environment", chosen) != chosen:
            raise ConfigurationError(
                f"{layered} is read because the environment is {chosen!r}, and cannot name another one",
                value=over["environment"],
                fix=f"set it in {file.name}, or by {ENV_PREFIX}ENVIRONMENT",
            )
        values = merge(values, over)
    merged = merge(merge(values, variables), overrides or {})
    refused = [_FIXED] if "config_file" in merged else []
    try:
        settings = Settings.model_validate({**merged, "config_file": file})
    except ValidationError as error:
        raise ConfigurationError(report([*refused, *faults_of(error)], file)) from error
    faults = [*refused, *unknown(settings, file.parent), *unsafe(settings)]
    if faults:
        raise ConfigurationError(report(faults, file))
    return settings.resolved(file.parent, environment)
