"""Everything that Dagster knows, in one explicit `Definitions`.

The module attribute ``defs`` is what the web UI and the daemon load; tests and the command line call
`build_definitions` with their own parts.
"""

from __future__ import annotations

import warnings

import dagster as dg
from dagster_shared.utils.warnings import BetaWarning, PreviewWarning

from stock_pipeline.orchestration.bootstrap import current_settings, prepare_home
from stock_pipeline.orchestration.resources import Platform

# known and accepted: backfill policies and owners of schedules are marked beta in this release
warnings.filterwarnings("ignore", category=BetaWarning)
warnings.filterwarnings("ignore", category=PreviewWarning)


def build_definitions(platform: Platform) -> dg.Definitions:
    """Build assets, checks, jobs, schedules and sensors of one configuration."""
    from stock_pipeline.orchestration import exclusive, jobs, schedules, sensors, task_jobs
    from stock_pipeline.orchestration.assets import backtests, features, market, models, predictions, risk
    from stock_pipeline.orchestration.pausing import Wishes

    modules = (market, features, risk, models, predictions, backtests)
    return dg.Definitions(
        assets=[asset for module in modules for asset in module.build(platform)],
        jobs=[*jobs.build(platform.settings.market.name), *task_jobs.build(platform)],
        schedules=schedules.build(platform),
        sensors=sensors.build(platform),
        executor=exclusive.executor(platform.settings.home, Wishes(lambda: platform.database)),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Load the definitions of the current configuration."""
    settings = current_settings()
    prepare_home(settings)
    return build_definitions(Platform(settings))
