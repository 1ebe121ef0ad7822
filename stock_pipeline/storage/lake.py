"""The lake: one Delta Lake table per asset key, on a local folder or an object store.

Everything is explicit: a read names its range, a write names the sessions that it replaces and returns the Delta
version that holds the result. A write is one commit; a reader sees the table before it or after it. Writers on one
machine queue on a file lock; where another machine commits first, Delta refuses the commit and the write starts again.
Queries in SQL are in ``storage.lake_sql``; what a frame must look like is in ``storage.lake_frames``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from stock_pipeline.core.errors import DataError, IntegrityError, NotFoundError, PipelineError
from stock_pipeline.core.market.bars import KEYS
from stock_pipeline.storage import lake_frames as frames
from stock_pipeline.storage.locks import file_lock

_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=131_072)
_CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days", "delta.checkpointInterval": "50"}


class LakeWriteError(PipelineError):
    """The lake could not store something (disk full, no permission, store unreachable); the old version stands."""


class Lake:
    """Tables with keys ``symbol`` and ``session`` (or neither), versioned by Delta Lake.

    Parameters
    ----------
    root
        Folder or object-store address (``s3://bucket/prefix``) that holds the tables.
    storage_options
        Passed to the object store as they are (credentials, endpoint, region).
    attempts
        How often a write is tried when another writer commits first.
    """

    def __init__(
        self, root: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None, *, attempts: int = 10
    ) -> None:
        text = os.fspath(root)
        self.local = "://" not in text
        self.root = os.path.abspath(text) if self.local else text.rstrip("/")
        self.storage_options = dict(storage_options) if storage_options else None
        self._attempts = attempts

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    # ---------------------------------------------------------------- reading
    def scan(
        self,
        table: str,
        *,
        start: date | None = None,
        end: date | None = None,
        symbols: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.LazyFrame:
        """Lazy form of `read`: the same rows and columns, in no particular order."""
        delta = self._open(table, version)
        stored = _schema(delta)
        wanted = list(stored) if columns is None else list(dict.fromkeys(columns))
        unknown = [name for name in wanted if name not in stored]
        if unknown:
            raise DataError(f"{table} has no such columns", value=unknown, allowed=", ".join(stored))
        lazy = pl.scan_delta(delta, storage_options=self.storage_options)
        for name, given in (("session", start), ("session", end), ("symbol", symbols)):
            if given is not None and name not in stored:
                raise DataError(f"{table} has no {name} column to filter by", value=given)
        if start is not None:
            lazy = lazy.filter((pl.col(frames.PARTITION) >= start.year) & (pl.col("session") >= pl.lit(start)))
        if end is not None:
            lazy = lazy.filter((pl.col(frames.PARTITION) <= end.year) & (pl.col("session") <= pl.lit(end)))
        if symbols is not None:
            lazy = lazy.filter(pl.col("symbol").is_in(list(symbols)))
        return lazy.select(wanted)

    def read(
        self,
        table: str,
        *,
        start: date | None = None,
        end: date | None = None,
        symbols: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """Read rows of one table as they are in one version.

        Parameters
        ----------
        table
            Asset key joined by ``/``.
        start, end
            First and last session, both inclusive; open where ``None``.
        symbols
            Only these symbols; an empty sequence gives no rows.
        columns
            Only these columns, in this order.
        version
            Delta version; the newest where ``None``.

        Returns
        -------
        polars.DataFrame
            Sorted by symbol and session where the table has them.

        Raises
        ------
        NotFoundError
            No such table or version.
        DataError
            Unknown columns, or a filter on a column that the table does not have.
        IntegrityError
            A data file is missing or damaged.
        """
        extra: list[str] = []
        if columns is not None:
            stored = _schema(self._open(table, version))
            extra = [key for key in KEYS if key in stored and key not in columns]
            columns = list(dict.fromkeys(columns))
        selection = None if columns is None else [*columns, *extra]
        lazy = self.scan(table, start=start, end=end, symbols=symbols, columns=selection, version=version)
        frame = frames.in_order(self._collect(table, lazy))
        return frame.drop(extra) if extra else frame

    def exists(self, table: str) -> bool:
        """Whether the table has at least one committed version."""
        return self._open_or_none(table) is not None

    def version(self, table: str) -> int | None:
        """Newest Delta version of a table, ``None`` where there is no such table."""
        delta = self._open_or_none(table)
        return None if delta is None else delta.version()

    def schema(self, table: str, version: int | None = None) -> pl.Schema:
        """Columns and types as readers see them."""
        return _schema(self._open(table, version))

    def tables(self) -> list[str]:
        """Names of all tables, sorted."""
        if self.local:
            root = Path(self.root)
            found = [path.parent.relative_to(root).as_posix() for path in root.glob("**/_delta_log") if path.is_dir()]
        else:
            found = self._remote_tables()
        return sorted(table for table in found if self.exists(table))

    def versions(self, tables: Sequence[str] | None = None) -> dict[str, int]:
        """Newest version of each table (all tables where ``None``); absent tables are left out."""
        pairs = ((table, self.version(table)) for table in (self.tables() if tables is None else tables))
        return {table: version for table, version in pairs if version is not None}

    def snapshot(self, tables: Sequence[str] | None = None) -> LakeSnapshot:
        """Fix the present versions, so that later reads of several tables belong to one moment."""
        return LakeSnapshot(self, self.versions(tables))

    def sessions(self, table: str, version: int | None = None) -> list[date]:
        """Distinct sessions of a table, ascending."""
        lazy = self.scan(table, columns=["session"], version=version).unique()
        return self._collect(table, lazy)["session"].sort().to_list()

    def last_session(self, table: str, version: int | None = None) -> date | None:
        """Newest session of a table; ``None`` where the table is absent or empty."""
        delta = self._open_or_none(table, version)
        if delta is None:
            return None
        if "session" not in _schema(delta):
            raise DataError(f"{table} has no session column")
        years = sorted({int(partition[frames.PARTITION]) for partition in delta.partitions()}, reverse=True)
        for year in years:
            lazy = pl.scan_delta(delta, storage_options=self.storage_options)
            lazy = lazy.filter(pl.col(frames.PARTITION) == year).select(pl.col("session").max())
            last: date | None = self._collect(table, lazy).item()
            if last is not None:
                return last
        return None

    def count(self, table: str, version: int | None = None) -> int:
        """Number of rows, from the table's statistics."""
        return self._open(table, version).count()

    def history(self, table: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Commits of a table, newest first, with time, operation and the metadata given to the writes."""
        return self._open(table).history(limit)

    def sql(
        self, query: str, parameters: Sequence[Any] | None = None, *, versions: Mapping[str, int] | None = None
    ) -> pl.DataFrame:
        """Answer one SELECT over the tables that it names; see `storage.lake_sql.query`."""
        from stock_pipeline.storage.lake_sql import query as run

        return run(self, query, parameters, versions or {})

    # ---------------------------------------------------------------- writing
    def write_sessions(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        start: date,
        end: date,
        evolve: bool = False,
        skip_unchanged: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Make ``frame`` the whole content of the sessions ``start`` to ``end``; other sessions stay as they are.

        Parameters
        ----------
        table
            Asset key joined by ``/``; made where absent.
        frame
            Rows within the range; may be empty, which empties the range.
        start, end
            First and last session that are replaced, both inclusive.
        evolve
            Allow the table to gain columns and the frame to lack some (nulls fill both).
        skip_unchanged
            Commit nothing where the range already holds exactly these rows, so that the version stays.
        metadata
            Kept with the commit (run id, code version).

        Returns
        -------
        int
            The Delta version that holds the result.

        Raises
        ------
        DataError
            The frame has rows outside the range, other columns or types than the table, or null keys.
        LakeWriteError
            The store refused; the table is as it was.
        """
        frame = frames.normalise(frame)
        frames.check_range(frame, start, end)

        def attempt() -> int:
            delta = self._open_or_none(table)
            if delta is None:
                frames.check_types_known(frame)
                return self._create(table, frame, metadata)
            stored = _schema(delta)
            data = frames.fit_schema(frame, stored, table, evolve)
            if skip_unchanged and list(stored) == data.columns:
                current = self.scan(table, start=start, end=end, version=delta.version())
                if self._same(table, current, data):
                    return delta.version()
            predicate = (
                f"{frames.PARTITION} >= {start.year} AND {frames.PARTITION} <= {end.year} "
                f"AND session >= '{start.isoformat()}' AND session <= '{end.isoformat()}'"
            )
            _write(delta, data, "overwrite", metadata, predicate=predicate, schema_mode="merge" if evolve else None)
            return delta.version()

        return self._commit(table, attempt)

    def replace(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        skip_unchanged: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Make ``frame`` the whole table, its columns included, in one commit; older versions stay readable.

        Parameters and errors as in `write_sessions`; the frame needs no keys.
        """
        frame = frames.normalise(frame)
        frames.check_types_known(frame)

        def attempt() -> int:
            delta = self._open_or_none(table)
            if delta is None:
                return self._create(table, frame, metadata)
            if skip_unchanged and _schema(delta) == frame.schema:
                current = self.scan(table, version=delta.version())
                if self._same(table, current, frame):
                    return delta.version()
            _write(
                delta,
                frame,
                "overwrite",
                metadata,
                schema_mode="overwrite",
                partition_by=[frames.PARTITION] if "session" in frame.columns else [],
            )
            return delta.version()

        return self._commit(table, attempt)

    def append_new(
        self,
        table: str,
        frame: pl.DataFrame,
        keys: Sequence[str] = KEYS,
        *,
        evolve: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Append the rows whose keys the table does not have yet; stored rows are never changed.

        Parameters
        ----------
        table, evolve, metadata
            As in `write_sessions`.
        frame
            Rows with unique keys.
        keys
            Columns that identify a row; nulls are compared as values.

        Returns
        -------
        int
            The Delta version; unchanged where every row was there.
        """
        keys = list(keys)
        missing = [key for key in keys if key not in frame.columns]
        if missing or not keys:
            raise DataError("the frame lacks key columns", value=missing or keys, allowed=", ".join(frame.columns))
        frame = frames.normalise(frame)
        if frame.select(keys).is_duplicated().any():
            raise DataError(f"rows for {table} repeat their keys", value=keys, fix="remove the duplicates first")

        def attempt() -> int:
            delta = self._open_or_none(table)
            if delta is None:
                frames.check_types_known(frame)
                return self._create(table, frame, metadata)
            data = frames.fit_schema(frame, _schema(delta), table, evolve)
            stored_keys = self.scan(table, columns=keys, version=delta.version())
            if "session" in keys and data.height:
                first, last = data["session"].min(), data["session"].max()
                stored_keys = self.scan(table, columns=keys, version=delta.version(), start=first, end=last)  # type: ignore[arg-type]
            known = self._collect(table, stored_keys)
            fresh = data.join(known, on=keys, how="anti", nulls_equal=True, maintain_order="left")
            if fresh.height:
                _write(delta, fresh, "append", metadata, schema_mode="merge" if evolve else None)
            return delta.version()

        return self._commit(table, attempt)

    # ---------------------------------------------------------------- upkeep
    def compact(self, table: str) -> int:
        """Join small files; the content stays the same. Returns the Delta version."""

        def attempt() -> int:
            delta = self._open(table)
            delta.optimize.compact(writer_properties=_WRITER)
            return delta.version()

        return self._commit(table, attempt)

    def vacuum(self, table: str, *, retention_days: float = 30, keep_versions: Sequence[int] | None = None) -> int:
        """Delete files that no version of the last ``retention_days`` needs. Returns how many were deleted.

        Older versions can then no longer be read, except those in ``keep_versions``.
        """
        if retention_days < 0:
            raise DataError("retention cannot be negative", value=retention_days)
        deleted = 0

        def attempt() -> int:
            nonlocal deleted
            delta = self._open(table)
            deleted = len(
                delta.vacuum(
                    retention_hours=int(retention_days * 24),
                    dry_run=False,
                    enforce_retention_duration=False,
                    full=True,
                    keep_versions=list(keep_versions) if keep_versions else None,
                )
            )
            return delta.version()

        self._commit(table, attempt)
        return deleted

    # ---------------------------------------------------------------- parts
    def uri(self, table: str) -> str:
        """Address of a table's folder."""
        return f"{self.root}/{frames.check_table_name(table)}"

    def delta_table(self, table: str, version: int | None = None) -> DeltaTable:
        """The table in Delta Lake's own form, for engines that read it directly."""
        return self._open(table, version)

    def _open_or_none(self, table: str, version: int | None = None) -> DeltaTable | None:
        uri = self.uri(table)
        if self.local and not os.path.isdir(os.path.join(uri, "_delta_log")):
            return None
        try:
            return DeltaTable(uri, version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            if version is not None and "version" in str(error).lower():
                raise NotFoundError(
                    f"{table} has no version {version}", fix="see the table's history for the versions it has"
                ) from error
            raise IntegrityError(
                f"the log of {table} cannot be read ({error})", value=uri, fix="restore the table from a backup"
            ) from error

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        delta = self._open_or_none(table, version)
        if delta is None:
            raise NotFoundError(
                f"the lake has no table {table}", value=self.root, fix="run the step that makes it first"
            )
        return delta

    def _collect(self, table: str, lazy: pl.LazyFrame) -> pl.DataFrame:
        try:
            return lazy.collect(engine="in-memory")
        except (pl.exceptions.ComputeError, pl.exceptions.PanicException, OSError) as error:
            # Polars panics, by a BaseException, on files that are shorter than their footer says
            raise IntegrityError(
                f"a data file of {table} is missing or damaged ({error})",
                value=self.uri(table),
                fix="restore the table from a backup, or read an older version",
            ) from error

    def _same(self, table: str, current: pl.LazyFrame, data: pl.DataFrame) -> bool:
        if self._collect(table, current.select(pl.len())).item() != data.height:
            return False
        return frames.in_order(self._collect(table, current)).equals(data)

    def _create(self, table: str, frame: pl.DataFrame, metadata: Mapping[str, str] | None) -> int:
        self._check_not_nested(table)
        uri = self.uri(table)
        _write(
            uri,
            frame,
            "error",
            metadata,
            partition_by=[frames.PARTITION] if "session" in frame.columns else None,
            configuration=_CONFIGURATION,
            storage_options=self.storage_options,
        )
        return 0

    def _check_not_nested(self, table: str) -> None:
        parts = table.split("/")
        inside = [outer for n in range(1, len(parts)) if self.exists(outer := "/".join(parts[:n]))]
        around = list(Path(self.uri(table)).glob("**/_delta_log")) if self.local else []
        around = [path for path in around if path.parent != Path(self.uri(table))]
        if inside or around:
            other = inside[0] if inside else around[0].parent.relative_to(self.root).as_posix()
            raise DataError(f"{table} would share its folder with the table {other}", fix="choose another name")

    def _commit(self, table: str, attempt: Callable[[], int]) -> int:
        lock = Path(self.root, ".locks", frames.check_table_name(table).replace("/", ".") + ".lock")
        with _refusals(table), file_lock(lock) if self.local else nullcontext():
            return Retrying(
                retry=retry_if_exception(_another_writer_was_first),
                stop=stop_after_attempt(self._attempts),
                wait=wait_random_exponential(multiplier=0.05, max=2),
                reraise=True,
            )(attempt)

    def _remote_tables(self) -> list[str]:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import FileSelector, PyFileSystem

        files = PyFileSystem(DeltaStorageHandler(self.root, options=self.storage_options))
        paths = (info.path.strip("/").split("/") for info in files.get_file_info(FileSelector("", recursive=True)))
        return sorted({"/".join(path[: path.index("_delta_log")]) for path in paths if "_delta_log" in path})


@dataclass(frozen=True)
class LakeSnapshot:
    """A lake as it was at one moment: the version of each table.

    Attributes
    ----------
    lake
        Where the tables are.
    versions
        Delta version per table.
    """

    lake: Lake
    versions: dict[str, int]

    def read(self, table: str, **selection: Any) -> pl.DataFrame:
        """`Lake.read` at the snapshot's version."""
        if table not in self.versions:
            raise NotFoundError(f"the snapshot has no table {table}", allowed=", ".join(sorted(self.versions)))
        return self.lake.read(table, version=self.versions[table], **selection)

    def sql(self, query: str, parameters: Sequence[Any] | None = None) -> pl.DataFrame:
        """`Lake.sql` at the snapshot's versions."""
        return self.lake.sql(query, parameters, versions=self.versions)


def _schema(delta: DeltaTable) -> pl.Schema:
    import pyarrow as pa

    empty = pl.DataFrame(pl.from_arrow(pa.schema(delta.schema().to_arrow()).empty_table()))
    hidden = delta.metadata().partition_columns
    return pl.Schema({name: dtype for name, dtype in empty.schema.items() if name not in hidden})


def _write(
    target: DeltaTable | str, frame: pl.DataFrame, mode: Any, metadata: Mapping[str, str] | None, **options: Any
) -> None:
    # no silent retry inside Delta: what is written was decided from one version, so any commit in between starts it again
    properties = CommitProperties(custom_metadata=dict(metadata) if metadata else None, max_commit_retries=0)
    write_deltalake(
        target,
        frames.with_partition(frame).to_arrow(),
        mode=mode,
        writer_properties=_WRITER,
        commit_properties=properties,
        **options,
    )


def _another_writer_was_first(error: BaseException) -> bool:
    return isinstance(error, CommitFailedError) or (isinstance(error, DeltaError) and "already exists" in str(error))


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except CommitFailedError as error:
        raise LakeWriteError(f"other writers kept changing {table}: {error}", fix="run the step again") from error
    except (DeltaError, OSError) as error:
        full = "space left" in str(error) or "os error 28" in str(error).lower()
        raise LakeWriteError(
            f"{table} could not be written, its last version stands: {'the disk is full' if full else error}",
            fix="free some space and run the step again" if full else "see the cause and run the step again",
        ) from error
