"""Standing among the other symbols of the same session: percentile ranks (above 0 to 1) and z-scores.

A value depends on the symbols that are in the frame on that session: give `compute` the whole universe at once.
"""

from __future__ import annotations

from stock_pipeline.core.features import registry
from stock_pipeline.core.features.declaring import Declaration
from stock_pipeline.core.features.statistical.liquidity import illiquidity, traded_value

_declare = Declaration("statistical", __name__)

RANKED = (
    "return_1",
    "return_5",
    "return_20",
    "return_60",
    "return_250",
    "momentum_250_20",
    "volatility_20",
    "volatility_250",
    "max_return_20",
    "drawdown_250",
    "skewness_60",
    "volume_zscore_20",
)
SCORED = ("return_1", "return_5", "return_20", "momentum_250_20", "volatility_20", "volume_zscore_20")
GRINOLD = "Grinold and Kahn (1999), Active Portfolio Management, ch. 11"


def declare() -> None:
    """Register the features; called when their bases, declared in the other modules of the set, are registered."""
    for name in RANKED:
        base = registry.get(name)
        text = f"Percentile rank among the symbols of the session of {name}."
        _declare.one(f"rank_{name}", base.function, base.inputs, base.lookback, text, GRINOLD, cross_section="rank")
    for name in SCORED:
        base = registry.get(name)
        text = f"Standard deviations above the mean of the session's symbols of {name}."
        _declare.one(f"zscore_{name}", base.function, base.inputs, base.lookback, text, GRINOLD, cross_section="zscore")
    _declare.one(
        "rank_traded_value_20",
        lambda p: p.mean(traded_value(p), 20),
        ("close", "volume"),
        19,
        "Percentile rank among the symbols of the session of the mean traded value of 20 rows (one currency assumed).",
        "Brennan, Chordia and Subrahmanyam (1998), Alternative Factor Specifications",
        cross_section="rank",
        window=20,
    )
    _declare.one(
        "rank_illiquidity_20",
        lambda p: illiquidity(p, 20),
        ("close", "volume"),
        20,
        "Percentile rank among the symbols of the session of Amihud's illiquidity of 20 rows (one currency assumed).",
        "Amihud (2002), Illiquidity and Stock Returns",
        cross_section="rank",
        window=20,
    )
