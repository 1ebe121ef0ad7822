"""Loads the definitions as Dagster does and checks what Dagster does not: that every key which is named exists."""

from __future__ import annotations

import dagster as dg

from stock_pipeline.config import Settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.orchestration.bootstrap import prepare_home
from stock_pipeline.orchestration.definitions import build_definitions
from stock_pipeline.orchestration.resources import Platform


def validate_definitions(settings: Settings) -> dict[str, int]:
    """Validate the definitions of a configuration.

    Returns
    -------
    dict
        How many assets, checks, jobs, schedules and sensors there are.

    Raises
    ------
    ConfigurationError
        See `check_names`.
    """
    prepare_home(settings)
    return check_names(build_definitions(Platform(settings)))


def check_names(definitions: dg.Definitions) -> dict[str, int]:
    """Check that the definitions load, that every key they name exists and that every job can be resolved.

    Returns
    -------
    dict
        How many assets, checks, jobs, schedules and sensors there are.

    Raises
    ------
    ConfigurationError
        A dependency or a check names an asset that does not exist. Dagster itself takes a misspelt key for an
        external asset and says nothing.
    """
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    unknown = sorted(key.to_user_string() for key in graph.get_all_asset_keys() if not graph.get(key).is_materializable)
    checked = sorted(
        str(check) for check in graph.asset_check_keys if check.asset_key not in graph.materializable_asset_keys
    )
    if unknown or checked:
        raise ConfigurationError(
            "definitions name assets that do not exist",
            value=", ".join(unknown + checked),
            allowed=", ".join(sorted(key.to_user_string() for key in graph.materializable_asset_keys)),
        )
    jobs = [job.name for job in definitions.jobs or []]
    for name in jobs:
        definitions.resolve_job_def(name)
    return {
        "assets": len(graph.materializable_asset_keys),
        "checks": len(graph.asset_check_keys),
        "jobs": len(jobs),
        "schedules": len(list(definitions.schedules or [])),
        "sensors": len(list(definitions.sensors or [])),
    }
