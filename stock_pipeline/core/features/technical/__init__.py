"""The ``technical`` set: classic indicators in stationary, scale-free forms.

Levels are given over the close, oscillators in their usual units. Exponential and Wilder averages are evaluated over
finite windows (`core.features.panel.decay_length`), whose remaining weight of 1e-4 is the only difference from the
recursive textbook forms. Indicators whose state reaches back without bound (parabolic SAR, KAMA, SuperTrend, ZigZag)
have no place here: their values would depend on where the history starts.
"""

from __future__ import annotations

from stock_pipeline.core.features.technical import bands, momentum, trend, volume

__all__ = ["bands", "momentum", "trend", "volume"]
