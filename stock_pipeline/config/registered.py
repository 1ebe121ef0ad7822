"""Checks of names against what is registered: calendars, features, model families, strategies and their parameters.

Types and limits of single keys are in the settings models; whether a file or a service exists is looked at when it is
used, and by ``stock-pipeline doctor``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stock_pipeline.config.settings import FeatureSettings, Settings
from stock_pipeline.core.backtesting import strategies
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features import feature_set, load_user_features
from stock_pipeline.core.market import exchange_rules
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.modelling import families


def unknown(settings: Settings, folder: Path) -> list[str]:
    """Find names that nothing is registered under, and parameters that do not fit: one line each, key first.

    Parameters
    ----------
    folder
        Folder of the configuration file; users' own modules are found beside it, as well as on the Python path.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    faults = []
    for key, check in _checks(settings):
        try:
            check()
        except ConfigurationError as error:
            faults.append(f"{key}: {error}")
    return faults


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "market.calendar", lambda: SessionCalendar(settings.market.calendar)
    for place, module in enumerate(settings.features.modules):
        yield f"features.modules.{place}", lambda module=module: load_user_features(module)  # type: ignore[misc]
    yield "features", lambda: _features(settings.features)
    for place, name in enumerate(settings.models.families):
        yield f"models.families.{place}", lambda name=name: families.get(name)  # type: ignore[misc]
    for name, given in settings.models.parameters.items():
        yield f"models.parameters.{name}", lambda name=name, given=given: families.get(name).parse(given)  # type: ignore[misc]
    for place, strategy in enumerate(settings.backtests.strategies):
        yield (
            f"backtests.strategies.{place}",
            lambda strategy=strategy: strategies.build(strategy.name, strategy.parameters),  # type: ignore[misc]
        )
    yield "backtests.execution.rules", lambda: exchange_rules.rules(settings.backtest.execution.rules)


def _features(chosen: FeatureSettings) -> None:
    feature_set(chosen.sets, exclude=chosen.exclude)
    seen: dict[str, str] = {}
    for name in chosen.sets:
        for feature in feature_set([name]).features:
            if feature.name in seen:
                raise ConfigurationError(
                    f"the feature {feature.name} is in {seen[feature.name]} and in {name}",
                    fix=f"remove {name} or {seen[feature.name]} from sets",
                )
            seen[feature.name] = name
