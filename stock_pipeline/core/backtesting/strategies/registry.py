"""Find strategies by name or dotted path."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stock_pipeline.core.backtesting.strategies.bollinger import Bollinger
from stock_pipeline.core.backtesting.strategies.buy_and_hold import BuyAndHold
from stock_pipeline.core.backtesting.strategies.model_rank import ModelRank
from stock_pipeline.core.backtesting.strategies.momentum_rank import MomentumRank
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.rsi_mean_reversion import RsiMeanReversion
from stock_pipeline.core.backtesting.strategies.sma_cross import SmaCross
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters

_BUILT_IN: dict[str, type[Strategy]] = {
    x.name: x for x in (BuyAndHold, SmaCross, RsiMeanReversion, Bollinger, MomentumRank, ModelRank)
}


def names() -> list[str]:
    """Names of the strategies that come with the platform."""
    return sorted(_BUILT_IN)


def get(name: str) -> type[Strategy]:
    """Find a strategy class.

    Parameters
    ----------
    name
        A built-in name, or ``package.module:Class`` of a user's own.

    Raises
    ------
    ConfigurationError
        When there is no such strategy, its module cannot be imported, or it is not a `Strategy`.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    allowed = ", ".join(names()) + " or package.module:Class"
    if ":" not in name:
        raise ConfigurationError("unknown strategy", value=name, allowed=allowed)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as failed:
        raise ConfigurationError(
            "the strategy cannot be imported", value=name, allowed=allowed, fix=f"check the path: {failed}"
        ) from failed
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigurationError("this is not a strategy", value=name, allowed="a subclass of strategies.Strategy")
    return found


def build(name: str, parameters: Parameters | dict[str, Any] | None = None) -> Strategy:
    """Find a strategy and give it its parameters (see `Strategy`)."""
    return get(name)(parameters)
