"""Whether a recomputed prediction is the stored one, to the last bit.

Recomputing is the caller's work (it needs the lake and the model store); here the two are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.prediction.schema import PREDICTION_SCHEMA


@dataclass(frozen=True)
class Difference:
    """One field of one prediction that is not the same; ``distance`` is absolute, for numbers."""

    prediction_id: str
    field: str
    stored: Any
    recomputed: Any
    distance: float | None


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    identical
        Every stored prediction was recomputed with the same bits, and no other.
    compared
        Predictions found on both sides.
    missing
        Ids that were stored and not recomputed.
    extra
        Ids that were recomputed and not stored.
    differences
        Fields that differ.
    """

    identical: bool
    compared: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    differences: tuple[Difference, ...]

    def summary(self) -> str:
        """One sentence for people."""
        if self.identical:
            return f"{self.compared} prediction{'s' * (self.compared != 1)} reproduced bit for bit"
        fields = sorted({d.field for d in self.differences})
        differ = "field differs" if len(self.differences) == 1 else "fields differ"
        parts = [f"{len(self.differences)} {differ} ({', '.join(fields)})"] if fields else []
        parts += [f"{len(self.missing)} not recomputed"] if self.missing else []
        parts += [f"{len(self.extra)} not stored"] if self.extra else []
        return "not reproduced: " + "; ".join(parts)


def compare(
    stored: pl.DataFrame, recomputed: pl.DataFrame, fields: Sequence[str] = tuple(PREDICTION_SCHEMA)
) -> Comparison:
    """Compare predictions by ``prediction_id``, floats by their bits (so 0.0 and -0.0 differ).

    Parameters
    ----------
    stored, recomputed
        Prediction frames; ``recomputed`` may hold more rows only if that is an error to report.
    fields
        Columns to compare; leave ``rank`` out when only a part of a session was recomputed.

    Raises
    ------
    DataError
        An id repeats, or a column is on one side only.
    """
    for name, frame in (("stored", stored), ("recomputed", recomputed)):
        absent = [c for c in ("prediction_id", *fields) if c not in frame.columns]
        if absent:
            raise DataError(f"{name} predictions lack columns", value=absent)
        if frame["prediction_id"].is_duplicated().any():
            raise DataError(f"{name} predictions repeat an id")
    left = stored.sort("prediction_id")
    right = recomputed.sort("prediction_id")
    missing = left.join(right, on="prediction_id", how="anti")["prediction_id"].to_list()
    extra = right.join(left, on="prediction_id", how="anti")["prediction_id"].to_list()
    both = left.join(right, on="prediction_id", how="semi").sort("prediction_id")
    again = right.join(left, on="prediction_id", how="semi").sort("prediction_id")
    differences: list[Difference] = []
    ids = both["prediction_id"].to_list()
    for field in fields:
        unequal = ~_same(both[field], again[field])
        for row in np.flatnonzero(unequal).tolist():
            a, b = both[field][row], again[field][row]
            numeric = isinstance(a, int | float) and isinstance(b, int | float)
            differences.append(Difference(ids[row], field, a, b, abs(a - b) if numeric else None))
    same = not (missing or extra or differences)
    return Comparison(same, len(ids), tuple(missing), tuple(extra), tuple(differences))


def _same(a: pl.Series, b: pl.Series) -> np.ndarray:
    if a.dtype != b.dtype:
        return np.zeros(a.len(), dtype=bool)
    equal: np.ndarray = a.eq_missing(b).to_numpy()
    if a.dtype == pl.Float64:
        nulls = a.is_null().to_numpy()
        bits = a.fill_null(0.0).to_numpy().view(np.int64) == b.fill_null(0.0).to_numpy().view(np.int64)
        return equal & (bits | nulls)
    return equal
