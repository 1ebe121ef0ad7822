"""Small drawings for asset pages, as SVG inside Markdown: no plotting library, about a kilobyte and a millisecond each.

What is drawn is decided in `metadata`. The web UI shows a drawing of less than a thousand characters in place and a
larger one on a click; a few lines over time stay below that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import dagster as dg

WIDTH, HEIGHT, TOP, BOTTOM = 280, 90, 14, 74
POINTS = 40
COLOURS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#9c36b5", "#868e96")


def line(labels: Sequence[object], series: Mapping[str, Sequence[float | None]]) -> dg.MarkdownMetadataValue:
    """Draw values over labels (dates, folds), one line a series; nulls are gaps, long series are thinned.

    Parameters
    ----------
    labels
        Shape (n,); the first and the last are written below.
    series
        Values by name, each of shape (n,); names are written where there are several.
    """
    low, high = _limits(series)
    keep = _thin(len(labels))
    parts = [_axis(labels, low, high)]
    for colour, values in zip(COLOURS, series.values(), strict=False):
        path, pen = "", "M"
        for place, index in enumerate(keep):
            value = values[index]
            if value is None or value != value:
                pen = "M"
                continue
            path += f"{pen}{_x(place, len(keep))},{_y(value, low, high)}"
            pen = "L"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}"/>')
    if len(series) > 1:
        step = (WIDTH - 60) // len(series)
        parts += [
            f'<text x="{60 + step * place}" y="9" fill="{colour}">{escape(name[:18])}</text>'
            for place, (name, colour) in enumerate(zip(series, COLOURS, strict=False))
        ]
    return _markdown(parts, labels, series)


def bars(labels: Sequence[object], values: Sequence[float | None]) -> dg.MarkdownMetadataValue:
    """Draw one bar a label from zero up or down; the first and the last label are written below."""
    series = {"": [*values, 0.0]}
    low, high = _limits(series)
    zero, path = _y(0.0, low, high), ""
    for place, value in enumerate(values):
        if value is not None:
            path += f"M{_x(place + 0.5, len(values) + 1)},{zero}V{_y(value, low, high)}"
    wide = max(1, min(12, (WIDTH - 10) // max(1, len(values)) - 2))
    drawn = f'<path d="{path}" stroke="{COLOURS[0]}" stroke-width="{wide}"/>'
    return _markdown([_axis(labels, low, high), drawn], labels, {"": values})


def _limits(series: Mapping[str, Sequence[float | None]]) -> tuple[float, float]:
    known = [value for values in series.values() for value in values if value is not None and value == value]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _thin(count: int) -> list[int]:
    if count <= POINTS:
        return list(range(count))
    return [round(place * (count - 1) / (POINTS - 1)) for place in range(POINTS)]


def _x(place: float, count: int) -> int:
    return round(4 + place * (WIDTH - 8) / max(1, count - 1))


def _y(value: float, low: float, high: float) -> int:
    return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP))


def _axis(labels: Sequence[object], low: float, high: float) -> str:
    ends = (str(labels[0]), str(labels[-1])) if labels else ("", "")
    return (
        f'<text y="9">{high:.4g}</text><text y="{BOTTOM + 3}">{low:.4g}</text>'
        f'<text y="{HEIGHT - 2}">{escape(ends[0])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 2}" text-anchor="end">{escape(ends[1])}</text>'
    )


def _markdown(
    parts: Sequence[str], labels: Sequence[object], series: Mapping[str, Sequence[float | None]]
) -> dg.MarkdownMetadataValue:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-size="9" '
        f'font-family="sans-serif" fill="#666">{"".join(parts)}</svg>'
    )
    last = [value for values in series.values() for value in values[-1:] if value is not None]
    spoken = f"{labels[0]} to {labels[-1]}, last {', '.join(f'{value:.4g}' for value in last)}" if labels else "empty"
    return dg.MetadataValue.md(f"![{spoken}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")
