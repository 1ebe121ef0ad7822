"""One look for all Plotly figures of reports. What a figure shows is in the module of its report."""

from __future__ import annotations

from html import escape
from typing import Any

COLOURS = {
    "clean": "#2e9e6b",
    "repaired": "#d9a013",
    "quarantined": "#cf3f4a",
    "quarantine": "#cf3f4a",
    "repair": "#d9a013",
    "warn": "#7d8aa0",
    "main": "#2456d6",
    "soft": "#a9bdf0",
}
FONT = '"Inter","Segoe UI",system-ui,sans-serif'


def styled(figure: Any, *, height: int = 340, y_title: str = "", x_title: str = "") -> Any:
    """Give a figure the common look: no frame, light grid, legend above.

    Parameters
    ----------
    figure
        A Plotly figure; changed in place and returned.
    height
        Pixels.
    y_title, x_title
        Titles of the axes, with units.
    """
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 28, "b": 10},
        font={"family": FONT, "size": 13, "color": "#1b2330"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": FONT}},
        yaxis_title=y_title,
        xaxis_title=x_title,
        bargap=0.25,
    )
    figure.update_xaxes(automargin=True, gridcolor="#e9edf3")
    figure.update_yaxes(automargin=True, gridcolor="#e9edf3")
    return figure


def labels(values: list[str]) -> list[str]:
    """Escape texts for Plotly, which reads a few HTML tags in them."""
    return [escape(value) for value in values]
