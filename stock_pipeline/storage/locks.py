"""Locks between processes of one machine, by advisory file locks that die with their process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stock_pipeline.core.errors import PipelineError


@contextmanager
def file_lock(path: Path, timeout: float = 120.0) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made where absent) for the length of a ``with`` block.

    Also excludes other threads of the same process. A killed holder leaves no stale lock behind.

    Parameters
    ----------
    path
        Lock file, on a local disk.
    timeout
        Seconds to wait for another holder.

    Raises
    ------
    PipelineError
        When the lock is not free within ``timeout``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + timeout
        pause = 0.002
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PipelineError(
                        f"another process has held the lock for more than {timeout:g} s",
                        value=str(path),
                        fix="wait for the other run or end it",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.1)
        yield
    finally:
        os.close(descriptor)
