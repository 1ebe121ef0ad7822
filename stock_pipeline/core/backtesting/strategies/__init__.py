"""Strategies: from what was known at a session's close to the weights wanted. Costs and rules do not belong here."""

from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.backtesting.strategies.registry import build, get, names

__all__ = ["Strategy", "build", "get", "names"]
