"""Rows of the lake's tables in the form of answers: pages that stay in one version, series, JSON without NaN.

What cannot be read is told apart: absent (404), damaged or of an unknown form (503), gone since the first page (410).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError
from pydantic import NonNegativeInt

from stock_pipeline.api import paging
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.core.errors import DataError, IntegrityError, NotFoundError
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import undefined_values

YEAR = timedelta(days=365)

_DAMAGE = (
    DataError,
    DeltaError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)


@contextmanager
def stored(what: str) -> Iterator[None]:
    """Say of everything that goes wrong while ``what`` is read that it is damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise IntegrityError(
            f"{what} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            fix="restore it from a backup, or run the pipeline again",
        ) from error


def version_of(lake: Lake, table: str, nothing: str) -> int:
    """Newest version of a table.

    Parameters
    ----------
    nothing
        What is said where the table is absent.

    Raises
    ------
    ProblemError
        404 ``no-data`` where there is none.
    """
    found = lake.version(table)
    if found is None:
        raise ProblemError(404, "no-data", f"{nothing}; run the pipeline first: stock-pipeline run")
    return found


@dataclass(frozen=True)
class Slice:
    """Part of a table in the order of its list.

    Attributes
    ----------
    frame
        The rows.
    next_cursor
        Of the next page; ``None`` on the last.
    total
        Rows on all pages.
    """

    frame: pl.DataFrame
    next_cursor: str | None
    total: int


def page(
    lake: Lake,
    table: str,
    query: paging.PageQuery,
    nothing: str,
    *,
    start: date | None = None,
    end: date | None = None,
    symbols: Sequence[str] | None = None,
    where: pl.Expr | None = None,
    by: Sequence[str],
    descending: Sequence[bool] | bool = False,
    year: bool = False,
) -> Slice:
    """One page of a table, from the version that the first page was from.

    Parameters
    ----------
    query
        Limit, cursor and, for the cursor, the filters.
    nothing
        See `version_of`.
    start, end, symbols, where
        Which rows.
    by, descending
        Their order; rows without a value come last.
    year
        Whether a range without a start is the year up to its end, as for tables that are long.

    Raises
    ------
    ProblemError
        404 ``no-data``, 400 ``invalid-cursor``, 410 ``page-gone``.
    """
    question = {**query.question(), "table": table}
    newest = version_of(lake, table, nothing)
    version, offset = newest, 0
    if query.cursor is not None:
        version, offset = paging.decode(query.cursor, question, tuple[NonNegativeInt, NonNegativeInt])
    try:
        with stored(table):
            if year:
                start, end = between(start, end, lake.last_session(table, version) or date.today())
            lazy = lake.scan(table, start=start, end=end, symbols=symbols, version=version)
            if where is not None:
                lazy = lazy.filter(where)
            ordered = lazy.sort(by, descending=descending, nulls_last=True, maintain_order=True)
            total, frame = pl.collect_all([lazy.select(pl.len()), ordered.slice(offset, query.limit)])
    except (NotFoundError, IntegrityError) as error:
        if version != newest:
            raise ProblemError(
                410, "page-gone", "the version of this cursor is gone; begin again without a cursor"
            ) from error
        raise
    count: int = total.item()
    more = offset + frame.height < count
    following = paging.encode(question, [version, offset + frame.height]) if more else None
    return Slice(frame, following, count)


def read(lake: Lake, table: str, **selection: Any) -> pl.DataFrame:
    """`Lake.read`; whatever goes wrong is damage."""
    with stored(table):
        return lake.read(table, **selection)


def read_or_empty(lake: Lake, table: str, **selection: Any) -> pl.DataFrame:
    """`Lake.read`; a frame without columns where the table is absent."""
    return read(lake, table, **selection) if lake.exists(table) else pl.DataFrame()


def between(start: date | None, end: date | None, newest: date) -> tuple[date, date]:
    """A range of sessions that is open where the reader left it open: the year up to the newest session.

    Raises
    ------
    ProblemError
        422 where it ends before it starts.
    """
    last = newest if end is None else end
    first = max(date.min + YEAR, min(last, newest)) - YEAR if start is None else start
    if first > last:
        message = f"the range from {first} to {last} ends before it starts"
        errors = [{"parameter": "from", "message": message, "value": str(start)}]
        raise ProblemError(422, "invalid-parameters", f"from: {message}", errors=errors)
    return first, last


def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values; a field that holds no number is null, and its row says why under ``undefined``."""
    undefined = undefined_values(frame)
    found = _finite(frame).to_dicts()
    for position, reasons in undefined.items():
        found[position]["undefined"] = reasons
    return found


def columns(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """One array a column; what is no number is null."""
    return _finite(frame).to_dict(as_series=False)


def undefined_columns(frame: pl.DataFrame) -> dict[str, str]:
    """By column with values that are no numbers: how many there are, which `columns` shows as null."""
    counts: dict[str, int] = {}
    for reasons in undefined_values(frame).values():
        for name in reasons:
            counts[name] = counts.get(name, 0) + 1
    return {name: f"{count} stored values are not finite numbers" for name, count in counts.items()}


def csv(frame: pl.DataFrame) -> bytes:
    """A frame as CSV with a header; what is no number is empty, and lists are joined by a space."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return _finite(frame).with_columns(pl.col(name).list.join(" ") for name in lists).write_csv().encode()


def finite(value: Any) -> Any:
    """A value as JSON has it: what is no number becomes null, in all that is nested."""
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {str(name): finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)
