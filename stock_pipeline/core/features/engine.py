"""Computing feature sets: bars in, feature frame out.

Rows are laid out symbol by symbol, cut into batches of whole symbols that fit the processor's cache, and worked on by
threads (NumPy and the kernels release the GIL). A batch decides nothing about the values: each symbol is computed
alone. Cross-sectional features take a second pass over the values of all symbols, session by session. What a feature
computes belongs to its definition; which features exist, to ``registry``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib import import_module

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.features.definition import Feature, FeatureSet
from stock_pipeline.core.features.layout import Layout, layout_of
from stock_pipeline.core.features.panel import Array, Panel
from stock_pipeline.core.features.selection import check_inputs
from stock_pipeline.core.market.bars import adjusted

BATCH_ROWS = 32_768
"""Rows in a batch: a column of it is 256 KiB, so that the columns a feature uses stay in the second-level cache."""

MOST_THREADS = 8
"""Threads used by default at most: each holds about 100 MB of intermediate columns."""

Values = NDArray[np.float32]


def compute(
    bars: pl.DataFrame, fs: FeatureSet, start: date | None = None, *, threads: int | None = None
) -> pl.DataFrame:
    """Compute a feature set.

    Parameters
    ----------
    bars
        Raw bars with ``adj_factor``, sorted by symbol and session without duplicates, holding the rows wanted and
        ``fs.lookback`` rows of each symbol before them (as far as there are any). Further columns are ignored.
    fs
        The features wanted.
    start
        First session wanted; earlier rows serve as look-back only. All rows when ``None``.
    threads
        Threads to use; by default as many as Polars uses, at most `MOST_THREADS`.

    Returns
    -------
    polars.DataFrame
        ``symbol, session`` and one Float32 column a feature, in the order of ``fs``, sorted like ``bars``. Null where
        the look-back is not full, an input is missing in it, or the value is not finite; never NaN or infinite.

    Raises
    ------
    ConfigurationError
        When a needed column is missing or wholly null (see `available`), or a user's feature fails.
    DataError
        When ``bars`` is not sorted, has duplicates or lacks a key.

    Notes
    -----
    A value has the same bits whether it is computed from all history or from ``fs.lookback`` rows before it, together
    with other symbols or alone (cross-sectional features: with the same other symbols on the same session).
    """
    check_inputs(bars, fs)
    if start is not None:
        bars = with_lookback(bars, start, fs.lookback)
    return _computed(bars, fs, start, threads)


def compute_batches(
    bars: pl.DataFrame,
    fs: FeatureSet,
    start: date | None = None,
    *,
    max_rows: int = 1_000_000,
    threads: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Compute a feature set piece by piece, so that memory stays bounded by the piece.

    Parameters
    ----------
    bars, fs, start, threads
        As for `compute`.
    max_rows
        Rows of a piece at most (one session at least).

    Yields
    ------
    polars.DataFrame
        Frames as `compute` makes them, for consecutive spans of sessions: together they hold the same bits as
        ``compute(bars, fs, start)``, and each can be stored on its own as a range of sessions. Pieces are cut by
        session and not by symbol, so that cross-sectional features see every symbol; the price is that the look-back
        is read once more for each piece. Let go of a piece (``del piece``) before asking for the next, or two are held.
    """
    check_inputs(bars, fs)
    layout = layout_of(bars)
    for first, last in layout.spans(start, max_rows):
        kept = layout.rows_for(first, last, fs.lookback)
        part = bars if kept.all() else bars.filter(pl.Series(kept))
        yield _computed(part, fs, first, threads)


def with_lookback(bars: pl.DataFrame, start: date, lookback: int) -> pl.DataFrame:
    """Keep the rows from ``start`` on and up to ``lookback`` rows of each symbol with such rows before them.

    Raises
    ------
    DataError
        When ``bars`` is not sorted by symbol and session.
    """
    kept = layout_of(bars).rows_for(start, None, lookback)
    return bars if kept.all() else bars.filter(pl.Series(kept))


def _computed(bars: pl.DataFrame, fs: FeatureSet, start: date | None, threads: int | None) -> pl.DataFrame:
    """The feature frame of bars that have been checked and cut."""
    layout = layout_of(bars)
    wanted = layout.from_session(start)
    keys = bars.select("symbol", "session")
    values = _values(bars, layout, wanted, fs, threads)
    return (keys if wanted.all() else keys.filter(pl.Series(wanted))).hstack(_frame(fs.names, values))


def _values(
    bars: pl.DataFrame, layout: Layout, wanted: NDArray[np.bool_], fs: FeatureSet, threads: int | None
) -> list[Values]:
    """Values of every feature in the wanted rows, each of shape (wanted rows,); not finite where there is none."""
    import_module("stock_pipeline.core.features.kernels")  # once, before the threads ask for it
    place_in_out = np.concatenate([[0], np.cumsum(wanted)])
    rows = int(place_in_out[-1])
    out: list[Values] = [np.empty(rows, np.float32) for _ in fs.features]
    compared: dict[int, Array] = {k: np.empty(rows) for k, f in enumerate(fs.features) if f.cross_section}
    columns = bars.select("adj_factor", *fs.inputs)

    def work(batch: tuple[int, int]) -> None:
        offsets = layout.offsets[batch[0] : batch[1] + 1]
        a, b = int(offsets[0]), int(offsets[-1])
        panel = Panel(_arrays(columns.slice(a, b - a), fs.inputs), offsets - a)
        age = (np.arange(a, b) - np.repeat(offsets[:-1], np.diff(offsets)))[wanted[a:b]]
        with np.errstate(all="ignore"):
            for k, feature in enumerate(fs.features):
                target = (compared[k] if k in compared else out[k])[place_in_out[a] : place_in_out[b]]
                target[:] = _evaluate(feature, panel, b - a)[wanted[a:b]]
                target[age < feature.lookback] = np.nan

    with ThreadPoolExecutor(threads or min(pl.thread_pool_size(), MOST_THREADS)) as pool:
        for _ in pool.map(work, layout.batches(BATCH_ROWS)):
            pass
    if compared:
        by_session, groups = layout.by_session(wanted)
        for k, values in compared.items():
            out[k][by_session] = _compare(fs.features[k], values[by_session], groups)
    return out


def _arrays(columns: pl.DataFrame, inputs: tuple[str, ...]) -> dict[str, Array]:
    """Adjusted float64 columns; NaN for null, NaN and infinite input."""
    frame = adjusted(columns)
    arrays = {}
    for name in inputs:
        values = frame[name].cast(pl.Float64).to_numpy(writable=True)  # kernels would be compiled anew for read-only
        values[~np.isfinite(values)] = np.nan
        arrays[name] = values
    return arrays


def _evaluate(feature: Feature, panel: Panel, rows: int) -> Array:
    try:
        values = np.asarray(feature.function(panel), dtype=np.float64)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"Feature {feature.name!r} of {feature.origin} failed with {type(error).__name__}", value=str(error)
        ) from error
    if values.shape != (rows,):
        raise ConfigurationError(
            f"Feature {feature.name!r} of {feature.origin} returned the wrong shape",
            value=values.shape,
            allowed=f"({rows},)",
        )
    return values


def _compare(feature: Feature, values: Array, groups: NDArray[np.int64]) -> Array:
    """Each value's standing among those of its group."""
    from stock_pipeline.core.features import kernels

    finite = np.where(np.isfinite(values), values, np.nan)
    kernel = kernels.group_rank if feature.cross_section == "rank" else kernels.group_standardise
    return kernel(finite, groups)


def _frame(names: tuple[str, ...], values: list[Values]) -> pl.DataFrame:
    """Polars columns over the same memory, null where not finite."""
    import pyarrow as pa

    arrays = []
    for column in values:
        valid = np.isfinite(column)
        mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        arrays.append(pa.Array.from_buffers(pa.float32(), len(column), [mask, pa.py_buffer(column)]))
    frame = pl.from_arrow(pa.Table.from_arrays(arrays, names=list(names)), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame
