"""What a chart shows, as plain data for the script that draws it; and small drawings for table cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

import polars as pl

Unit = Literal["percent", "number", "score"]
Kind = Literal["line", "points", "bars", "edge"]

SPARK_WIDTH, SPARK_HEIGHT = 100.0, 26.0


@dataclass(frozen=True)
class Series:
    """One line, set of points or set of bars.

    Attributes
    ----------
    label
        Its name in the legend.
    values
        One a session; ``None`` where there is none.
    kind
        How it is drawn; ``edge`` is the border of a band.
    colour
        Number of the colour, 1 to 5, or ``up``, ``down``.
    dash
        Whether the line is broken.
    """

    label: str
    values: Sequence[float | None]
    kind: Kind = "line"
    colour: int | str = 1
    dash: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart over sessions.

    Attributes
    ----------
    id
        Unique on its page.
    title, note
        What it says above the drawing.
    description
        What somebody learns who cannot see it.
    sessions
        The axis of time.
    series
        What is drawn, the lowest layer first.
    unit
        How values are written.
    bands
        Pairs of positions in ``series`` between which the ground is coloured: upper, lower.
    low
        Whether it is a small one.
    logarithmic
        Whether the axis of values is.
    """

    id: str
    title: str
    description: str
    sessions: Sequence[date | datetime]
    series: Sequence[Series]
    unit: Unit = "number"
    note: str = ""
    bands: Sequence[tuple[int, int]] = ()
    low: bool = False
    logarithmic: bool = False
    group: str = field(default="page")

    @property
    def data(self) -> dict[str, Any]:
        """What the script needs."""
        days = pl.Series("session", list(self.sessions))
        return {
            "x": (days.cast(pl.Datetime("ms")).cast(pl.Int64) // 1000).to_list(),
            "unit": self.unit,
            "bands": [list(pair) for pair in self.bands],
            "log": self.logarithmic,
            "group": self.group,
            "series": [
                {"label": s.label, "kind": s.kind, "colour": str(s.colour), "dash": s.dash, "values": list(s.values)}
                for s in self.series
            ],
        }


@dataclass(frozen=True)
class Bar:
    """Geometry of an interval on a common scale, in hundredths of the width."""

    zero: float
    left: float
    width: float
    middle: float


def interval(low: float | None, middle: float | None, high: float | None, reach: float) -> Bar | None:
    """Place an interval on a scale from ``-reach`` to ``reach``; ``None`` where a value is missing."""
    if low is None or middle is None or high is None or reach <= 0:
        return None

    def place(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / reach)), 2)

    left, right = place(low), place(high)
    return Bar(50.0, left, round(max(right - left, 0.5), 2), round(place(middle) - 1.1, 2))


def sparkline(values: Sequence[float]) -> str:
    """Points of a polyline through values, lowest to highest filling the height; empty below two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    step = SPARK_WIDTH / (len(values) - 1)
    top, room = 2.0, SPARK_HEIGHT - 4.0
    return " ".join(
        f"{place * step:.1f},{top + room * (1 - (value - low) / reach):.1f}" for place, value in enumerate(values)
    )
