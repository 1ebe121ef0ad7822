"""Reading the lake: rows, columns, versions, sessions and snapshots of its tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from stock_pipeline.core.errors import DataError, IntegrityError, NotFoundError
from stock_pipeline.core.market.bars import KEYS
from stock_pipeline.storage import lake_frames as frames
from stock_pipeline.storage.lake_delta import schema_of


class LakeReader:
    """What can be read from a lake; see `storage.lake.Lake`, which also writes.

    Parameters
    ----------
    root
        Folder or object-store address (``s3://bucket/prefix``) that holds the tables.
    storage_options
        Passed to the object store as they are (credentials, endpoint, region).
    """

    def __init__(self, root: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> None:
        text = os.fspath(root)
        self.local = "://" not in text
        self.root = os.path.abspath(text) if self.local else text.rstrip("/")
        self.storage_options = dict(storage_options) if storage_options else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

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
        return self._select(self._open(table, version), table, start, end, symbols, columns)

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
        delta = self._open(table, version)
        extra: list[str] = []
        if columns is not None:
            extra = [key for key in KEYS if key in schema_of(delta) and key not in columns]
            columns = [*dict.fromkeys(columns), *extra]
        frame = frames.in_order(self._collect(table, self._select(delta, table, start, end, symbols, columns)))
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
        return schema_of(self._open(table, version))

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
        if "session" not in schema_of(delta):
            raise DataError(f"{table} has no session column")
        years = sorted({int(partition[frames.PARTITION]) for partition in delta.partitions()}, reverse=True)
        for year in years:
            lazy = pl.scan_delta(delta, storage_options=self.storage_options, credential_provider=None)
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

    def _select(
        self,
        delta: DeltaTable,
        table: str,
        start: date | None,
        end: date | None,
        symbols: Sequence[str] | None,
        columns: Sequence[str] | None,
    ) -> pl.LazyFrame:
        stored = schema_of(delta)
        wanted = list(stored) if columns is None else list(dict.fromkeys(columns))
        unknown = [name for name in wanted if name not in stored]
        if unknown:
            raise DataError(f"{table} has no such columns", value=unknown, allowed=", ".join(stored))
        lazy = pl.scan_delta(delta, storage_options=self.storage_options, credential_provider=None)
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

    lake: LakeReader
    versions: dict[str, int]

    def read(self, table: str, **selection: Any) -> pl.DataFrame:
        """`LakeReader.read` at the snapshot's version."""
        if table not in self.versions:
            raise NotFoundError(f"the snapshot has no table {table}", allowed=", ".join(sorted(self.versions)))
        return self.lake.read(table, version=self.versions[table], **selection)

    def sql(self, query: str, parameters: Sequence[Any] | None = None) -> pl.DataFrame:
        """`LakeReader.sql` at the snapshot's versions."""
        return self.lake.sql(query, parameters, versions=self.versions)
