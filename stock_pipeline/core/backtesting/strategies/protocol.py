"""What a strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import polars as pl
from pydantic import ValidationError

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters

Given = Parameters | dict[str, Any] | None
"""Parameters as callers give them."""

TARGET_SCHEMA: dict[str, pl.DataType] = {"session": pl.Date(), "symbol": pl.String(), "weight": pl.Float64()}
"""A decision: ``weight`` of equity wanted in ``symbol`` (negative for short), decided at the close of ``session``."""


class Strategy(ABC):
    """Base of every strategy; a user's strategy is a subclass named by its dotted path ``package.module:Class``.

    A subclass gives ``name``, ``description``, a class ``Parameters`` and `targets`. A row of the targets changes what
    is wanted in one symbol; a symbol without a row keeps its position. A row dated t may depend only on rows dated <=
    t; it is executed at the next session. Every backtest checks this at a few dates.

    Parameters
    ----------
    parameters
        A `Parameters` object, a mapping, or ``None`` for the defaults.

    Raises
    ------
    ConfigurationError
        When a parameter is unknown or out of range.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    needs_predictions: ClassVar[bool] = False
    Parameters: ClassVar[type[Parameters]] = Parameters

    def __init__(self, parameters: Given = None) -> None:
        self.parameters: Any = validated(self.name, type(self).Parameters, parameters)

    @abstractmethod
    def targets(self, data: MarketData) -> pl.DataFrame:
        """Decisions on all of the data, a frame of `TARGET_SCHEMA` sorted by session and symbol."""


def validated(name: str, kind: type[Parameters], parameters: Parameters | dict[str, Any] | None) -> Parameters:
    """Check parameters and turn a refusal into an error that names key, value and what is allowed."""
    if isinstance(parameters, kind):
        return parameters
    given = parameters.model_dump() if isinstance(parameters, Parameters) else dict(parameters or {})
    try:
        return kind(**given)
    except ValidationError as refused:
        error = refused.errors()[0]
        key = ".".join(str(x) for x in error["loc"]) or "parameters"
        known = ", ".join(kind.model_fields)
        unknown = error["type"] == "extra_forbidden"
        raise ConfigurationError(
            f"parameter {key} of {name} is not acceptable",
            value=error["input"] if error["loc"] else given,
            allowed=f"one of the parameters {known}" if unknown else error["msg"],
        ) from refused


def as_targets(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring a frame with the three columns into `TARGET_SCHEMA` and its order."""
    return frame.select(pl.col(c).cast(t) for c, t in TARGET_SCHEMA.items()).sort("session", "symbol")
