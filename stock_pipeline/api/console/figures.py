"""What the figures of models and back-tests are called on pages, and in which unit they are written."""

from __future__ import annotations

from typing import Any

from stock_pipeline.api.console.formatting import figure, number, share, title

SHARES = frozenset(
    {
        "total_return", "annual_return", "volatility", "max_drawdown", "var_95", "var_99", "es_95", "es_99",
        "best_session", "worst_session", "positive_sessions", "benchmark_total_return", "alpha", "tracking_error",
        "win_rate", "average_trade_return", "best_trade_return", "worst_trade_return", "exposure", "time_in_market",
        "deflated_sharpe", "probabilistic_sharpe", "hit_rate", "always_up_hit_rate", "skill_zero", "skill_mean",
        "coverage",
    }
)  # fmt: skip
"""Figures that are stored as fractions and written in per cent."""

MONEY = frozenset({"final_equity", "total_costs"})
"""Figures in the currency of the market."""

_WORDS = {
    "ic": "IC", "ir": "IR", "mae": "MAE", "rmse": "RMSE", "var": "VaR", "es": "ES", "sharpe": "Sharpe",
    "sortino": "Sortino", "calmar": "Calmar", "t": "t", "p": "p",
}  # fmt: skip
_BASIS_POINTS = "_bps"


def named(name: str) -> str:
    """A figure's name for people: ``rank_ic_t`` becomes ``Rank IC t``, ``var_95`` becomes ``VaR 95 %``."""
    words = title(name.removesuffix(_BASIS_POINTS)).split()
    said = " ".join(_WORDS.get(word.lower(), word) for word in words)
    return f"{said} %" if name in ("var_95", "var_99", "es_95", "es_99") else said


def written(value: Any, name: str, currency: str = "") -> str:
    """A figure with its unit."""
    if value is not None and name in SHARES:
        return share(value)
    if value is not None and name.endswith(_BASIS_POINTS):
        return f"{number(value, 1)} bp"
    if value is not None and name in MONEY:
        return f"{number(value, 0)} {currency}".rstrip()
    return figure(value)


FILTERS = {"named": named, "written": written}
