"""The current publication of predictions, kept in memory as ready-made bytes and swapped as a whole.

A `Publication` is one session of ``predictions/published`` in one version of the table: immutable, so a reader that
holds one sees one version to the end. Computing predictions does not belong here, nor does HTTP.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

import numpy as np
import orjson
import polars as pl

from stock_pipeline.core.errors import DataError, NotFoundError, PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.lake import Lake

PUBLISHED = "predictions/published"
UNPREDICTED = "predictions/unpredicted"

FIELDS = (
    "prediction_id",
    "symbol",
    "session",
    "horizon",
    "expected_return",
    "lower",
    "upper",
    "confidence",
    "coverage_target",
    "interval_level",
    "rank",
    "model_name",
    "model_version",
    "arm",
    "fallback_level",
    "fallback_reason",
    "volatility",
    "var_95",
    "es_95",
    "close",
    "currency",
)
"""What a reader gets per row; all other columns of the table are lineage."""

LINEAGE = (
    "feature_set_hash",
    "lake_version",
    "config_version",
    "code_version",
    "seed",
    "published_at",
    "publication_id",
)
"""Where a row came from; null where the table does not say."""

Sort = Literal["rank", "symbol", "expected_return", "lower", "upper", "confidence", "volatility", "var_95", "es_95"]
SORTABLE: tuple[Sort, ...] = get_args(Sort)
"""Columns that answers can be ordered by."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Publication:
    """One session of published predictions in one version of the table.

    Attributes
    ----------
    version
        Delta version that it was read from.
    session
        Exchange date of the predictions.
    published_at
        When it was published.
    digest
        Of the content; equal content gives an equal digest.
    frame
        The rows, sorted by symbol; no NaN and no infinity.
    rows
        Each row's `FIELDS` as JSON, in the order of ``frame``; a field that holds no number is null, and the row says
        why under ``undefined``.
    undefined
        Those reasons, by position in ``frame`` and field.
    unpredicted
        ``{"symbol", "reason", "detail"}`` of the symbols without a prediction, as JSON.
    """

    version: int
    session: date
    published_at: datetime
    digest: str
    frame: pl.DataFrame
    rows: tuple[bytes, ...]
    unpredicted: tuple[bytes, ...]
    undefined: dict[int, dict[str, str]]
    _positions: dict[str, int]
    _by_symbol: dict[str, list[int]]
    _orders: dict[tuple[str, bool], np.ndarray] = field(default_factory=dict)
    derived: dict[str, Any] = field(default_factory=dict)
    """What readers have made of it, such as finished answers; lives and dies with this publication."""

    def age(self, now: datetime) -> float:
        """Seconds since it was published."""
        return (now - self.published_at).total_seconds()

    def detail(self, prediction_id: str) -> dict[str, Any] | None:
        """One row with its lineage, ``None`` where the id is not in this publication."""
        position = self._positions.get(prediction_id)
        if position is None:
            return None
        row = _with_lineage(self.frame.row(position, named=True), self.version)
        if position in self.undefined:
            row["undefined"] = self.undefined[position]
        for name, value in (("published_at", self.published_at), ("publication_id", self.digest)):
            if row["lineage"][name] is None:
                row["lineage"][name] = value
        return row

    def has(self, *, symbol: str | None = None, prediction_id: str | None = None) -> bool:
        """Whether there is a row of this symbol or this id."""
        return symbol in self._by_symbol if prediction_id is None else prediction_id in self._positions

    def select(
        self,
        *,
        symbols: Sequence[str] | None = None,
        min_confidence: float | None = None,
        sort: str = "rank",
        descending: bool = False,
    ) -> np.ndarray:
        """Positions of the rows that match, in order; rows without a value in the sort column come last.

        Parameters
        ----------
        symbols
            Only these; all where ``None``.
        min_confidence
            Only rows of at least this confidence; rows without one do not match.
        sort
            One of `SORTABLE`; equal values are ordered by symbol and id.
        descending
            Largest first.

        Returns
        -------
        numpy.ndarray
            Integer positions into ``rows``, shape (n,).
        """
        order = self._order(sort, descending)
        if symbols is None and min_confidence is None:
            return order
        keep = np.ones(len(self.rows), dtype=bool)
        if symbols is not None:
            keep[:] = False
            for symbol in symbols:
                keep[self._by_symbol.get(symbol, [])] = True
        if min_confidence is not None:
            keep &= (self.frame["confidence"] >= min_confidence).fill_null(False).to_numpy()
        chosen: np.ndarray = order[keep[order]]
        return chosen

    def _order(self, sort: str, descending: bool) -> np.ndarray:
        if sort not in SORTABLE:
            raise DataError("cannot sort by this", value=sort, allowed=", ".join(SORTABLE))
        key = (sort, descending)
        if key not in self._orders:
            by = [sort] if sort == "symbol" else [sort, "symbol"]
            self._orders[key] = (
                self.frame.with_row_index("position")
                .sort(
                    [*by, "prediction_id"],
                    descending=[descending, *[False] * len(by)],
                    nulls_last=True,
                    maintain_order=True,
                )["position"]
                .to_numpy()
            )
        order: np.ndarray = self._orders[key]
        return order


def load_publication(lake: Lake, version: int, session: date | None = None) -> Publication:
    """Read one publication.

    Parameters
    ----------
    lake
        Where the tables are.
    version
        Delta version of ``predictions/published``.
    session
        Exchange date; the newest of that version where ``None``.

    Raises
    ------
    NotFoundError
        No such version, or nothing was published for the session.
    """
    if session is None:
        session = lake.last_session(PUBLISHED, version)
        if session is None:
            raise NotFoundError("the published table is empty", fix="run the pipeline to publish predictions")
    frame = lake.read(PUBLISHED, start=session, end=session, version=version)
    if frame.is_empty():
        raise NotFoundError("nothing was published for this session", value=session.isoformat())
    absent = [name for name in FIELDS if name not in frame.columns]
    undefined = undefined_values(frame, FIELDS)
    frame = _finite(frame.with_columns(pl.lit(None).alias(name) for name in absent))
    for key in ("prediction_id", "symbol"):
        if frame[key].null_count():
            raise DataError(f"published predictions without {key}", value=frame[key].null_count())
    if frame["prediction_id"].is_duplicated().any():
        raise DataError("published predictions share an id", value=session.isoformat())
    rows = tuple(
        orjson.dumps({**row, "undefined": undefined[position]} if position in undefined else row)
        for position, row in enumerate(frame.select(FIELDS).iter_rows(named=True))
    )
    unpredicted = _unpredicted(lake, session)
    digest = hashlib.blake2b(b"\n".join((*rows, b"", *unpredicted)), digest_size=12).hexdigest()
    by_symbol: dict[str, list[int]] = {}
    for position, symbol in enumerate(frame["symbol"].to_list()):
        by_symbol.setdefault(symbol, []).append(position)
    return Publication(
        version=version,
        session=session,
        published_at=_published_at(lake, frame, version),
        digest=digest,
        frame=frame,
        rows=rows,
        unpredicted=unpredicted,
        undefined=undefined,
        _positions={name: position for position, name in enumerate(frame["prediction_id"].to_list())},
        _by_symbol=by_symbol,
    )


def find_prediction(lake: Lake, prediction_id: str, version: int) -> dict[str, Any] | None:
    """Look one prediction up in all published sessions, with its lineage; ``None`` where there is none."""
    columns = list(lake.schema(PUBLISHED, version))
    found = lake.sql(
        f'SELECT {", ".join(f"{chr(34)}{name}{chr(34)}" for name in columns)} FROM "{PUBLISHED}" '
        "WHERE prediction_id = ? LIMIT 1",
        [prediction_id],
        versions={PUBLISHED: version},
    )
    if found.is_empty():
        return None
    absent = [name for name in FIELDS if name not in found.columns]
    undefined = undefined_values(found, FIELDS)
    found = _finite(found.with_columns(pl.lit(None).alias(name) for name in absent))
    row = _with_lineage(found.row(0, named=True), version)
    return {**row, "undefined": undefined[0]} if undefined else row


def undefined_values(frame: pl.DataFrame, names: Sequence[str] | None = None) -> dict[int, dict[str, str]]:
    """Find what JSON has no number for, and say what it is.

    Parameters
    ----------
    frame
        Rows.
    names
        Columns that are looked at; all where ``None``.

    Returns
    -------
    dict
        By position of the row: the reason of each such field. Rows without any are left out.
    """
    found: dict[int, dict[str, str]] = {}
    for name, dtype in frame.schema.items():
        if not dtype.is_float() or (names is not None and name not in names):
            continue
        values = frame[name]
        for position in (~values.is_finite()).fill_null(False).arg_true().to_list():
            reason = "not a number" if np.isnan(values[position]) else "infinite"
            found.setdefault(position, {})[name] = reason
    return found


class PublicationCache:
    """The newest publication in memory, and the last few others that were asked for.

    Parameters
    ----------
    lake
        Where the tables are.
    keep
        How many other sessions and versions are kept.
    clock
        Source of the present instant.
    """

    def __init__(
        self, lake: Lake, *, keep: int = 16, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.lake, self._keep, self.clock = lake, keep, clock
        self._current: Publication | None = None
        self._source: tuple[int, int | None] | None = None
        self._others: OrderedDict[tuple[int, date], Publication] = OrderedDict()
        self._lock = threading.Lock()
        self.prepare: Callable[[Publication], None] | None = None
        """Called with a newer publication before readers see it."""
        self.problem: str | None = "nothing has been read yet"
        """Why the newest refresh failed; ``None`` when it did not."""

    @property
    def current(self) -> Publication | None:
        """The newest publication that could be read; stays when a later one cannot be."""
        return self._current

    def refresh(self) -> bool:
        """Look for a newer publication and swap it in; returns whether it changed. Never raises.

        Costs one look at the table's log when nothing is new.
        """
        with self._lock:
            try:
                version = self.lake.version(PUBLISHED)
                if version is None:
                    raise NotFoundError("nothing has been published yet", fix="run the pipeline: stock-pipeline run")
                source = (version, self.lake.version(UNPREDICTED))
                if source == self._source:
                    self.problem = None
                    return False
                fresh = load_publication(self.lake, version)
                if self.prepare is not None:
                    self.prepare(fresh)
            except PipelineError as error:
                if self.problem != str(error):
                    _log.warning("the publication could not be read", error=str(error))
                self.problem = str(error)
                return False
            except Exception as error:  # whatever a table may hold, the last good publication stays and is watched on
                _log.exception("the publication could not be read")
                self.problem = f"{type(error).__name__}: {error}"
                return False
            previous, self._current, self._source, self.problem = self._current, fresh, source, None
            if previous is not None:
                previous.derived.clear()  # few will ask for it again, and answers take room
                self._remember(previous)
            _log.info("publication loaded", version=version, session=str(fresh.session), rows=len(fresh.rows))
            return True

    def get(self, session: date | None = None, version: int | None = None) -> Publication:
        """Return a publication by session and version; the current ones where ``None``.

        Raises
        ------
        NotFoundError
            There is no publication, or none of that session or version.
        """
        current = self._current
        if current is None:
            raise NotFoundError(self.problem or "nothing has been published yet")
        version = current.version if version is None else version
        session = current.session if session is None else session
        if (version, session) == (current.version, current.session):
            return current
        with self._lock:
            known = self._others.get((version, session))
        if known is None:
            known = load_publication(self.lake, version, session)
            with self._lock:
                self._remember(known)
        return known

    def find(self, prediction_id: str) -> dict[str, Any] | None:
        """One prediction with its lineage, from memory or from all published sessions."""
        current = self._current
        if current is None:
            raise NotFoundError(self.problem or "nothing has been published yet")
        return current.detail(prediction_id) or find_prediction(self.lake, prediction_id, current.version)

    def _remember(self, publication: Publication) -> None:
        self._others[(publication.version, publication.session)] = publication
        while len(self._others) > self._keep:
            self._others.popitem(last=False)


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)


def _with_lineage(row: dict[str, Any], version: int) -> dict[str, Any]:
    lineage = {name: row.get(name) for name in LINEAGE}
    lineage |= {name: value for name, value in row.items() if name not in FIELDS and name not in LINEAGE}
    models = {name: row[name] for name in ("model_name", "model_version", "arm", "fallback_level", "fallback_reason")}
    return {
        **{name: row[name] for name in FIELDS},
        "lineage": {**models, **lineage, "publication_version": version},
    }


def _unpredicted(lake: Lake, session: date) -> tuple[bytes, ...]:
    if not lake.exists(UNPREDICTED):
        return ()
    frame = lake.read(UNPREDICTED, start=session, end=session)
    if "detail" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("detail"))
    return tuple(orjson.dumps(row) for row in frame.select("symbol", "reason", "detail").iter_rows(named=True))


def _published_at(lake: Lake, frame: pl.DataFrame, version: int) -> datetime:
    if "published_at" in frame.columns and isinstance(frame.schema["published_at"], pl.Datetime):
        newest = frame["published_at"].max()
        if isinstance(newest, datetime):
            return newest if newest.tzinfo else newest.replace(tzinfo=UTC)
    (commit,) = lake.delta_table(PUBLISHED, version).history(1)
    return datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
