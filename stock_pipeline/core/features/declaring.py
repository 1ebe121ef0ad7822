"""Short forms for declaring many features of one set, and guarded arithmetic for their formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stock_pipeline.core.features.definition import CrossSection, Feature
from stock_pipeline.core.features.panel import Array, Panel
from stock_pipeline.core.features.registry import register

FLAT_RETURNS = 1e-6
"""Standard deviation of daily returns below which they are nothing but the rounding of adjusted prices."""


def divide(numerator: Array, denominator: Array, size: Array | float = 1.0, tolerance: float = 1e-10) -> Array:
    """Divide; NaN where the denominator is nothing but rounding, i.e. at most ``tolerance * |size|`` in absolute value.

    ``size`` is the size of the numbers from which the denominator was made by subtraction.
    """
    return np.where(np.abs(denominator) > tolerance * np.abs(size), numerator / denominator, np.nan)


@dataclass(frozen=True)
class Declaration:
    """Declares features of one set in one module.

    Attributes
    ----------
    set_name
        The set that the features join.
    origin
        The declaring module's ``__name__``.
    """

    set_name: str
    origin: str

    def one(
        self,
        name: str,
        function: Callable[[Panel], Array],
        inputs: Sequence[str],
        lookback: int,
        description: str,
        source: str,
        *,
        cross_section: CrossSection | None = None,
        **parameters: float,
    ) -> None:
        """Register one feature; arguments as for `Feature`."""
        made = Feature(
            name=name,
            function=function,
            inputs=tuple(inputs),
            lookback=lookback,
            description=description,
            source=source,
            parameters=parameters,
            cross_section=cross_section,
            origin=self.origin,
        )
        register(made, [self.set_name])

    def each(
        self,
        windows: Sequence[int],
        name: str,
        function: Callable[[Panel, int], Array],
        inputs: Sequence[str],
        lookback: Callable[[int], int],
        description: str,
        source: str,
    ) -> None:
        """Register one feature a window n; ``{n}`` in name and description stands for it."""
        for n in windows:
            self.one(name.format(n=n), _at(function, n), inputs, lookback(n), description.format(n=n), source, window=n)


def _at(function: Callable[[Panel, int], Array], n: int) -> Callable[[Panel], Array]:
    return lambda panel: function(panel, n)
