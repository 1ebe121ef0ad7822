"""The charts of a symbol's page, made from what the reading modules say about it; without values there is no chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from stock_pipeline.api.console.charts import Chart, Series

Columns = Mapping[str, list[Any]]
"""One array a column, as answers of the API hold them."""


def price(symbol: str, prices: Columns, currency: str | None) -> Chart | None:
    """Closing prices, adjusted so that the newest is the one that was traded; repaired ones are marked."""
    sessions = prices.get("session", [])
    closes = _to_newest(prices.get("adjusted_close", []), prices.get("close", []))
    known = [(session, close) for session, close in zip(sessions, closes, strict=True) if close is not None]
    if not known:
        return None
    repaired = [
        close if status == "repaired" else None
        for close, status in zip(closes, prices.get("status", [None] * len(closes)), strict=True)
    ]
    series = [Series("Close, adjusted", closes)]
    if any(value is not None for value in repaired):
        series.append(Series("Repaired", repaired, "points", 2))
    (start, first), (end, last) = known[0], known[-1]
    return Chart(
        "chart-price",
        "Price",
        f"Line of the adjusted closing price of {symbol}, from {first:,.2f} on {start} to {last:,.2f} on {end}.",
        sessions,
        series,
        note=f"close in {currency}, earlier ones adjusted" if currency else "close, earlier ones adjusted",
    )


def _to_newest(adjusted: list[float | None], closes: list[float | None]) -> list[float | None]:
    """Adjusted prices on the scale of the newest close: the tables anchor them at a symbol's first bar."""
    both = zip(reversed(adjusted), reversed(closes), strict=True)
    newest = next(((a, c) for a, c in both if a and c), None)
    if newest is None:
        return adjusted
    factor = newest[1] / newest[0]
    return [None if price is None else price * factor for price in adjusted]


def outcomes(symbol: str, predictions: Columns) -> Chart | None:
    """Published predictions with their intervals against what came true."""
    if not predictions.get("session"):
        return None
    names = ("session", "expected_return", "lower", "upper", "realised_return", "inside")
    length = len(predictions["session"])
    frame = pl.DataFrame(
        {name: predictions.get(name, [None] * length) for name in names},
        schema_overrides={"inside": pl.Boolean, "realised_return": pl.Float64},
    ).unique("session", keep="last", maintain_order=True)
    known = frame.filter(pl.col("realised_return").is_not_null())
    note = (
        f"{known['inside'].sum()} of {known.height} outcomes lay inside" if known.height else "no outcome is known yet"
    )

    def came_true(inside: bool) -> list[float | None]:
        return frame.select(pl.when(pl.col("inside") == inside).then("realised_return")).to_series().to_list()

    return Chart(
        "chart-outcomes",
        "Predictions and outcomes",
        f"Band of the prediction interval of {symbol} by session, the expected return in it, and the returns that came "
        f"true as points: {note}.",
        frame["session"].to_list(),
        [
            Series("Upper", frame["upper"].to_list(), "edge", 1),
            Series("Lower", frame["lower"].to_list(), "edge", 1),
            Series("Expected", frame["expected_return"].to_list(), "line", 1),
            Series("Inside", came_true(True), "points", 3),
            Series("Outside", came_true(False), "points", 2),
        ],
        "percent",
        note=note,
        bands=[(0, 1)],
    )


def value_at_risk(symbol: str, risk: Columns) -> Chart | None:
    """Value at risk of each session against the return that followed it."""
    if not risk.get("session"):
        return None
    moves, beyond = risk["next_return"], risk["exceeded_95"]
    judged = [flag for flag in beyond if flag is not None]
    note = f"{sum(judged)} of {len(judged)} sessions lost more" if judged else "nothing has followed yet"

    def below(name: str) -> list[float | None]:
        return [None if value is None else -value for value in risk[name]]

    return Chart(
        "chart-risk",
        "Value at risk",
        f"Returns of {symbol} in the session after each, as bars, with the value at risk at 95 and 99 percent below; "
        f"{note} than the forecast at 95 percent.",
        risk["session"],
        [
            Series("Next return", moves, "bars", 5),
            Series("VaR 95 %", below("var_95"), "line", 1),
            Series("VaR 99 %", below("var_99"), "line", 4, dash=True),
            Series(
                "Exceeded",
                [move if flag else None for move, flag in zip(moves, beyond, strict=True)],
                "points",
                2,
            ),
        ],
        "percent",
        note=f"{note} than VaR 95 %",
    )


def quality(symbol: str, prices: Columns) -> Chart | None:
    """Scores of data quality."""
    scores = prices.get("quality_score", [])
    known = [score for score in scores if score is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return Chart(
        "chart-quality",
        "Data quality",
        f"Quality score of the prices of {symbol} by session; the mean is {mean:.1f} of 100.",
        prices["session"],
        [Series("Score", scores, "line", 3)],
        "score",
        note=f"mean {mean:.1f} of 100",
        low=True,
    )
