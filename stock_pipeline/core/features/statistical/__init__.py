"""The ``statistical`` set: returns, risk, shape of the distribution, market dependence, liquidity, cross-sections.

Daily returns are logarithmic unless a description says otherwise; volatilities are annualised with 252 sessions.
"""

from __future__ import annotations

from stock_pipeline.core.features.statistical import (
    cross_sectional,
    distribution,
    liquidity,
    market,
    returns,
    volatility,
)

cross_sectional.declare()

__all__ = ["cross_sectional", "distribution", "liquidity", "market", "returns", "volatility"]
