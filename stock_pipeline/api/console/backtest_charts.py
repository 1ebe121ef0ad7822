"""Curves and the monthly table of a back-test."""

from __future__ import annotations

from typing import Any

import polars as pl

from stock_pipeline.api.console.charts import Chart, Series

MOST = 2_500
"""Sessions that a curve is drawn from; of longer ones every second, third, ... is left out."""


def curves(equity: pl.DataFrame, currency: str) -> list[Chart]:
    """Equity beside what buying and holding and the benchmark had made, and the drawdown."""
    if equity.is_empty():
        return []
    step = -(-equity.height // MOST)
    frame = equity.reverse().gather_every(step).reverse()  # the newest session is always there
    sessions = frame["session"].to_list()
    first, last = equity["equity"][0], equity["equity"][-1]
    lines = [Series("Strategy", _rounded(frame, "equity"), "line", 1)]
    for name, label, colour in (("buy_and_hold", "Buy and hold", 5), ("benchmark", "Benchmark", 2)):
        if name in frame.columns and frame[name].is_not_null().any():
            lines.append(Series(label, _rounded(frame, name), "line", colour, dash=name == "benchmark"))
    worst, logarithmic = equity["drawdown"].min(), bool((equity["equity"] > 0).all())
    grown = f"from {first:,.0f} {currency} on {equity['session'][0]} to {last:,.0f} on {equity['session'][-1]}"
    return [
        Chart(
            "chart-equity",
            "Equity",
            f"Value of the account by session, {grown}, beside buying and holding and the benchmark.",
            sessions,
            lines[::-1],
            note=f"{currency}, after costs" + (", logarithmic" if logarithmic else ""),
            logarithmic=logarithmic,
        ),
        Chart(
            "chart-drawdown",
            "Drawdown",
            f"Loss from the highest value so far; the largest is {_percent(worst)}.",
            sessions,
            [Series("Drawdown", frame["drawdown"].round(5).to_list(), "line", 2)],
            "percent",
            note=f"largest {_percent(worst)}",
            low=True,
        ),
    ]


def monthly_table(monthly: pl.DataFrame) -> list[dict[str, Any]]:
    """One row a year, newest first: returns of its months and of the year."""
    rows = []
    for (year,), months in monthly.group_by("year", maintain_order=True):
        returns = dict(months.select("month", "return").iter_rows())
        total = 1.0
        for value in returns.values():
            total *= 1 + (value or 0.0)
        rows.append({"year": year, "months": [returns.get(month) for month in range(1, 13)], "total": total - 1})
    return sorted(rows, key=lambda row: row["year"], reverse=True)


def _rounded(frame: pl.DataFrame, name: str) -> list[Any]:
    return frame[name].round(2).to_list()


def _percent(value: Any) -> str:
    return "none" if value is None else f"{float(value):.1%}".replace("%", " %")
