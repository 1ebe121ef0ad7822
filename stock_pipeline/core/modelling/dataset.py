"""The training data set: features and labels of the same symbol and session, ordered so that training is a prefix.

Features come from ``core.features`` and labels from ``modelling.labels``; here they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.modelling.matrix import check_columns, to_matrix

KEYS = ("symbol", "session", "label", "label_session")


def join(features: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Put labels beside features: ``symbol, session, label, label_session, <features>``, keys present in both."""
    joined = features.join(labels.select(KEYS), on=["symbol", "session"], how="inner", validate="1:1")
    names = [c for c in features.columns if c not in KEYS]
    return joined.select(*KEYS, *names).sort("symbol", "session")


@dataclass(frozen=True)
class Panel:
    """Rows with a matured label, ordered by the session that completes it.

    In this order "every row whose label was known before a date" is a prefix, also for symbols that were halted: the
    purge is exact for each row and costs no copy of the matrix.

    Attributes
    ----------
    keys
        ``symbol, session, label, label_session`` in that order.
    x
        Features, shape (rows, features), float32, NaN where missing.
    y
        Labels, float64.
    session, known
        ``session`` and ``label_session`` as datetime64[D].
    names
        Feature names.
    """

    keys: pl.DataFrame
    x: np.ndarray
    y: np.ndarray
    session: np.ndarray
    known: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: pl.DataFrame, names: Sequence[str]) -> Panel:
        """Check and order a data set.

        Raises
        ------
        DataError
            If columns are absent or not numeric, keys repeated, or a label is not finite or known too early.
        """
        missing = [c for c in KEYS if c not in dataset.columns]
        if missing:
            raise DataError("the data set lacks columns", value=missing, allowed=", ".join(KEYS) + " and features")
        clash = sorted(set(names) & set(KEYS))
        if clash:
            raise DataError("a label cannot be a feature", value=clash)
        check_columns(dataset, names)
        keys = dataset.select(*KEYS).with_row_index("row").filter(pl.col("label").is_not_null())
        if keys.is_empty():
            raise DataError(
                "no row of the data set has a matured label", fix="load more history or shorten the horizon"
            )
        bad = keys.filter(~pl.col("label").is_finite() | pl.col("label_session").is_null())
        if not bad.is_empty():
            raise DataError("labels must be finite and dated", value=bad.row(0, named=True))
        early = keys.filter(pl.col("label_session") <= pl.col("session"))
        if not early.is_empty():
            raise DataError("a label is known at its own session", value=early.row(0, named=True))
        if keys.select(pl.struct("symbol", "session").is_duplicated().any()).item():
            raise DataError("the data set repeats a symbol and session", fix="join features and labels on unique keys")
        keys = keys.sort("label_session", "session", "symbol")
        x = to_matrix(dataset, names, keys["row"].to_numpy())
        return cls(
            keys.select(*KEYS),
            x,
            keys["label"].to_numpy().astype(np.float64),
            keys["session"].to_numpy().astype("datetime64[D]"),
            keys["label_session"].to_numpy().astype("datetime64[D]"),
            tuple(names),
        )

    def take(self, rows: slice | np.ndarray) -> Panel:
        """Return the panel of some rows, which must be in ascending order."""
        return Panel(self.keys[rows], self.x[rows], self.y[rows], self.session[rows], self.known[rows], self.names)

    def sessions(self) -> list[date]:
        """Return the unique sessions, ascending."""
        return self.keys["session"].unique().sort().to_list()

    def learnt_before(self, sessions: Sequence[date], cut: date) -> slice | np.ndarray:
        """Return the rows from the first to the last of these sessions whose label was known before ``cut``.

        Parameters
        ----------
        sessions
            Ascending, not empty; the sessions in between count, whether named or not.
        cut
            First date that must not have been looked at.

        Returns
        -------
        slice or numpy.ndarray
            A prefix as a slice where all earlier rows belong to it (no copy), else row indices.
        """
        first, last = np.datetime64(sessions[0], "D"), np.datetime64(sessions[-1], "D")
        end = int(np.searchsorted(self.known, np.datetime64(cut, "D"), side="left"))
        inside = (self.session[:end] >= first) & (self.session[:end] <= last)
        if inside.all():
            return slice(0, end)
        rows = np.flatnonzero(inside)
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows

    def at(self, sessions: Sequence[date]) -> np.ndarray:
        """Return the rows of these consecutive sessions, sorted by symbol and session."""
        first, last = np.datetime64(sessions[0], "D"), np.datetime64(sessions[-1], "D")
        rows = np.flatnonzero((self.session >= first) & (self.session <= last))
        order = self.keys[rows].with_row_index("i").sort("symbol", "session")["i"].to_numpy()
        return rows[order]
