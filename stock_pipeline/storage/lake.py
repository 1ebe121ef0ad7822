"""The lake: one Delta Lake table per asset key, on a local folder or an object store.

Everything is explicit: a read names its range, a write names the sessions that it replaces and returns the Delta
version that holds the result. A write is one commit; a reader sees the table before it or after it. Writers on one
machine queue on a file lock; where another machine commits first, Delta refuses the commit and the write starts again.
Reading is in ``storage.lake_reading``, SQL in ``storage.lake_sql``, what a frame must look like in
``storage.lake_frames``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import polars as pl
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import KEYS
from stock_pipeline.storage import lake_frames as frames
from stock_pipeline.storage.lake_delta import (
    CONFIGURATION,
    WRITER,
    LakeWriteError,
    another_writer_was_first,
    commit,
    refusals,
    schema_of,
)
from stock_pipeline.storage.lake_reading import LakeReader, LakeSnapshot
from stock_pipeline.storage.locks import file_lock

__all__ = ["Lake", "LakeSnapshot", "LakeWriteError"]


class Lake(LakeReader):
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
        super().__init__(root, storage_options)
        self._attempts = attempts

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
            stored = schema_of(delta)
            data = frames.fit_schema(frame, stored, table, evolve)
            if skip_unchanged and list(stored) == data.columns:
                current = self.scan(table, start=start, end=end, version=delta.version())
                if self._same(table, current, data):
                    return delta.version()
            predicate = (
                f"{frames.PARTITION} >= {start.year} AND {frames.PARTITION} <= {end.year} "
                f"AND session >= '{start.isoformat()}' AND session <= '{end.isoformat()}'"
            )
            commit(delta, data, "overwrite", metadata, predicate=predicate, schema_mode="merge" if evolve else None)
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
            if skip_unchanged and schema_of(delta) == frame.schema:
                current = self.scan(table, version=delta.version())
                if self._same(table, current, frame):
                    return delta.version()
            commit(
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
            data = frames.fit_schema(frame, schema_of(delta), table, evolve)
            stored_keys = self.scan(table, columns=keys, version=delta.version())
            if "session" in keys and data.height:
                first, last = data["session"].min(), data["session"].max()
                stored_keys = self.scan(table, columns=keys, version=delta.version(), start=first, end=last)  # type: ignore[arg-type]
            known = self._collect(table, stored_keys)
            fresh = data.join(known, on=keys, how="anti", nulls_equal=True, maintain_order="left")
            if fresh.height:
                commit(delta, fresh, "append", metadata, schema_mode="merge" if evolve else None)
            return delta.version()

        return self._commit(table, attempt)

    # ---------------------------------------------------------------- upkeep
    def compact(self, table: str) -> int:
        """Join small files; the content stays the same. Returns the Delta version."""

        def attempt() -> int:
            delta = self._open(table)
            delta.optimize.compact(writer_properties=WRITER)
            return delta.version()

        return self._commit(table, attempt)

    def vacuum(self, table: str, *, retention_days: float = 30, keep_versions: Sequence[int] | None = None) -> int:
        """Delete files that no version of the last ``retention_days`` needs. Returns how many were deleted.

        Older versions can then no longer be read, except those in ``keep_versions``. Files that a writer on another
        machine has not committed yet look the same as leftovers, so keep the retention longer than a write takes.
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
    def _same(self, table: str, current: pl.LazyFrame, data: pl.DataFrame) -> bool:
        if self._collect(table, current.select(pl.len())).item() != data.height:
            return False
        return frames.in_order(self._collect(table, current)).equals(data)

    def _create(self, table: str, frame: pl.DataFrame, metadata: Mapping[str, str] | None) -> int:
        self._check_not_nested(table)
        uri = self.uri(table)
        commit(
            uri,
            frame,
            "error",
            metadata,
            partition_by=[frames.PARTITION] if "session" in frame.columns else None,
            configuration=CONFIGURATION,
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
        with refusals(table), file_lock(lock) if self.local else nullcontext():
            return Retrying(
                retry=retry_if_exception(another_writer_was_first),
                stop=stop_after_attempt(self._attempts),
                wait=wait_random_exponential(multiplier=0.05, max=2),
                reraise=True,
            )(attempt)
