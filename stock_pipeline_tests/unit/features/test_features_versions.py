"""The values that each version of a definition stands for: the hash names the platform's features by version.

When this test fails because a definition was meant to change: raise the feature's ``version`` (or ``ENGINE_VERSION``,
when a kernel changed), then write the new values:
``python stock_pipeline_tests/unit/features/test_features_versions.py``.
"""

from __future__ import annotations

import json
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core import features
from stock_pipeline.core.features.definition import ENGINE_VERSION

GOLDEN = Path(__file__).with_name("feature_values.json")
ALL = features.feature_set(["technical", "statistical", "alpha158"])


def _bars() -> pl.DataFrame:
    """Three symbols made of sines and products of integers: the same on every machine and every NumPy."""
    rows = np.arange(300)
    parts = []
    for k, symbol in enumerate(("A", "B", "C")):
        noise = ((rows * 7919 + k * 104729) % 1009) / 1009 - 0.5
        other = ((rows * 6007 + k * 15485) % 997) / 997
        close = 50 + 10 * k + 8 * np.sin(rows / (17 + k)) + 3 * noise
        opening = close * (1 + 0.01 * (other - 0.5))
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * len(rows),
                    "session": [date(2020, 1, 1) + timedelta(days=int(i)) for i in rows],
                    "open": opening,
                    "high": np.maximum(opening, close) + 0.5 * other,
                    "low": np.minimum(opening, close) - 0.4 * (1 - other),
                    "close": close,
                    "volume": 10_000.0 + np.floor(5_000 * other) + 1_000 * np.floor(4 * noise),
                    "benchmark": 1_000 + 40 * np.sin(rows / 19) + ((rows * 31) % 101) / 10,
                    "adj_factor": np.where(rows < 150, 1.0, 2.0),
                }
            )
        )
    return pl.concat(parts).with_columns(amount=pl.col("volume") * (pl.col("high") + pl.col("low")) / 2)


def _values() -> dict[str, list[float]]:
    frame = features.compute(_bars(), ALL).filter(pl.col("session") >= date(2020, 10, 1))[::9]
    return {f"{f.name} v{f.version}": [float(f"{v:.6g}") for v in frame[f.name]] for f in ALL.features}


@pytest.mark.requirement("R1.1")
def test_each_version_has_the_values_it_always_had() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["engine_version"] == ENGINE_VERSION
    values = _values()
    assert set(golden["values"]) == set(values), "features were added, removed or given a new version"
    changed = [n for n, v in values.items() if not np.allclose(v, golden["values"][n], rtol=2e-4, atol=1e-6)]
    assert changed == [], "give these features a new version"


if __name__ == "__main__":
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(v)}" for name, v in _values().items())
    GOLDEN.write_text(f'{{\n"engine_version": {ENGINE_VERSION},\n"values": {{\n{lines}\n}}\n}}\n')
    sys.stdout.write(f"wrote {GOLDEN}\n")
