"""From frames to the Float32 matrices that models take, checked and without needless copies.

Nulls become NaN here and nowhere else. Scaling and imputation are learnt, so they belong to ``modelling.families``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError

_CHUNK = 65_536


def to_matrix(frame: pl.DataFrame, names: Sequence[str], rows: np.ndarray | None = None) -> np.ndarray:
    """Copy feature columns into a row-major Float32 matrix.

    Filled in chunks of rows, so that the peak is the matrix and a small block, not two matrices.

    Parameters
    ----------
    frame
        Frame with numeric columns ``names`` (more columns do no harm).
    names
        The feature columns, in the order of the matrix.
    rows
        Row indices in the wanted order; ``None`` for all rows as they are.

    Returns
    -------
    numpy.ndarray
        Shape (rows, features), float32, C order, NaN where null.

    Raises
    ------
    DataError
        If a column is absent, not numeric, or holds an infinite value.
    """
    check_columns(frame, names)
    count = frame.height if rows is None else len(rows)
    matrix = np.empty((count, len(names)), dtype=np.float32)
    if not names:
        return matrix
    columns = frame.select(pl.col(list(names)).cast(pl.Float32))
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        block = columns[start:stop] if rows is None else columns[rows[start:stop]]
        matrix[start:stop] = block.fill_null(float("nan")).to_numpy()
    check_finite(matrix, names)
    return matrix


def check_columns(frame: pl.DataFrame, names: Sequence[str]) -> None:
    """Raise `DataError` if a feature column is absent or not numeric.

    Numeric means integer, float or boolean: LightGBM aborts the whole process on text or categories.
    """
    missing = [n for n in names if n not in frame.columns]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} features are missing from the frame",
            value=missing[:10],
            fix="compute the feature set that the model was trained with",
        )
    schema = frame.schema
    wrong = {n: str(schema[n]) for n in names if not (schema[n].is_numeric() or schema[n] == pl.Boolean)}
    if wrong:
        raise DataError("features must be numbers", value=wrong, allowed="integer, float or boolean columns")


def check_finite(matrix: np.ndarray, names: Sequence[str]) -> None:
    """Raise `DataError` naming the features that hold infinite values (NaN means missing and is fine)."""
    for start in range(0, matrix.shape[0], _CHUNK):
        bad = np.isinf(matrix[start : start + _CHUNK]).any(axis=0)
        if bad.any():
            raise DataError(
                "features hold infinite values",
                value=[names[i] for i in np.flatnonzero(bad)[:10]],
                fix="features give null where a value is undefined",
            )
