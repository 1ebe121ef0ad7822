"""Figures of model cards as small stand-alone SVG: bars and lines, readable on light and dark ground, no script.

Figures of quality and backtest reports are made beside this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 36
_COLOURS = ("#2563eb", "#d97706", "#6b7280", "#059669")
_STYLE = "font-family:system-ui,sans-serif;font-size:12px"


def horizontal_bars(title: str, labels: Sequence[str], values: Sequence[float], unit: str = "{:.1%}") -> str:
    """Draw one bar a label, largest on top as given; values are not negative."""
    row, left = 18, 200
    height = _TOP + row * max(len(labels), 1) + 10
    top = max([*values, 0.0]) or 1.0
    parts = []
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        y, width = _TOP + i * row, (WIDTH - left - 80) * value / top
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end" fill="#6b7280">{escape(label[:28])}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{width:.1f}" height="{row - 5}" fill="{_COLOURS[0]}"/>')
        parts.append(f'<text x="{left + width + 6:.1f}" y="{y + 12}" fill="#6b7280">{unit.format(value)}</text>')
    return _svg(title, parts, height)


def bars(title: str, labels: Sequence[str], values: Sequence[float | None], unit: str = "{:.3f}") -> str:
    """Draw a vertical bar for each label, down from zero where negative; undefined values leave a gap."""
    known = [v for v in values if v is not None]
    scale = _Scale([*known, 0.0])
    step = (WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    parts = scale.axis(unit)
    every = math.ceil(len(labels) / 14)
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        x = _LEFT + i * step
        if i % every == 0:
            middle = x + step / 2
            parts.append(
                f'<text x="{middle:.1f}" y="{HEIGHT - 14}" text-anchor="middle" fill="#6b7280">{escape(label)}</text>'
            )
        if value is None:
            continue
        a, b = sorted((scale(value), scale(0.0)))
        parts.append(
            f'<rect x="{x + step * 0.15:.1f}" y="{a:.1f}" width="{step * 0.7:.1f}" height="{max(b - a, 0.5):.1f}" '
            f'fill="{_COLOURS[0] if value >= 0 else _COLOURS[1]}"/>'
        )
    return _svg(title, parts, HEIGHT)


def lines(
    title: str, series: Sequence[tuple[str, Sequence[float]]], ends: tuple[str, str], unit: str = "{:.1f}"
) -> str:
    """Draw series over a common, evenly spaced axis, whose first and last position are named by ``ends``."""
    scale = _Scale([v for _, values in series for v in values] + [0.0])
    parts = scale.axis(unit)
    for i, (name, values) in enumerate(series):
        step = (WIDTH - _LEFT - _RIGHT) / max(len(values) - 1, 1)
        thin = max(1, len(values) // 600)
        points = [(j, v) for j, v in enumerate(values) if j % thin == 0 or j == len(values) - 1]
        path = " ".join(f"{_LEFT + j * step:.1f},{scale(v):.1f}" for j, v in points)
        colour = _COLOURS[i % len(_COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<text x="{_LEFT + 8 + i * 130}" y="{_TOP - 8 + 14}" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 14}" fill="#6b7280">{escape(ends[0])}</text>')
    parts.append(
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 14}" text-anchor="end" fill="#6b7280">{escape(ends[1])}</text>'
    )
    return _svg(title, parts, HEIGHT)


class _Scale:
    """Maps values to vertical positions."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        pad = (high - low) * 0.08 or 1.0
        self.low, self.high = low - pad * (low < 0), high + pad

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def axis(self, unit: str) -> list[str]:
        parts = []
        for i in range(5):
            value = self.low + (self.high - self.low) * i / 4
            y = self(value)
            parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#9ca3af44"/>')
            text = escape(unit.format(value))
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#6b7280">{text}</text>')
        zero = self(0.0)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#6b7280"/>')
        return parts


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" style="{_STYLE}">'
        f'<text x="8" y="16" font-weight="600" fill="#6b7280">{escape(title)}</text>{"".join(parts)}</svg>'
    )
