"""The dealings with Delta Lake itself: types as readers see them, one commit, and its refusals.

Used by ``storage.lake`` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.storage import lake_frames as frames

WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=131_072)
"""How files are written: small groups of rows, so that few symbols are read without the others."""

CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days", "delta.checkpointInterval": "50"}
"""Versions stay readable until `Lake.vacuum` deletes their files."""


class LakeWriteError(PipelineError):
    """The lake could not store something (disk full, no permission, store unreachable); the old version stands."""


def schema_of(delta: DeltaTable) -> pl.Schema:
    """Columns and types without the partition column."""
    empty = pl.DataFrame(pl.from_arrow(pa.schema(delta.schema().to_arrow()).empty_table()))
    hidden = delta.metadata().partition_columns
    return pl.Schema({name: dtype for name, dtype in empty.schema.items() if name not in hidden})


def commit(
    target: DeltaTable | str, frame: pl.DataFrame, mode: Any, metadata: Mapping[str, str] | None, **options: Any
) -> None:
    """Write one version; ``options`` go to `deltalake.write_deltalake`."""
    # no silent retry inside Delta: what is written was decided from one version, so a commit in between must fail
    properties = CommitProperties(custom_metadata=dict(metadata) if metadata else None, max_commit_retries=0)
    write_deltalake(
        target,
        frames.with_partition(frame).to_arrow(),
        mode=mode,
        writer_properties=WRITER,
        commit_properties=properties,
        **options,
    )


def another_writer_was_first(error: BaseException) -> bool:
    """Whether the write should be decided again from the newer version."""
    return isinstance(error, CommitFailedError) or (isinstance(error, DeltaError) and "already exists" in str(error))


@contextmanager
def refusals(table: str) -> Iterator[None]:
    """Turn what the store refuses into a `LakeWriteError` that says what to do."""
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
