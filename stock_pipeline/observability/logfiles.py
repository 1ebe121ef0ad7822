"""A log file that several processes may append to, rotated by size."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path


class SharedRotatingFileHandler(logging.Handler):
    """Append whole lines to ``path``; rename it to ``path.1``, ``path.2`` ... when it is full.

    The standard library's rotating handler loses lines when two processes rotate at once. Here each line is one
    ``write`` to a file opened for appending, and rotation happens under a file lock.

    Parameters
    ----------
    path
        File; its folder is made.
    max_bytes
        Size at which it is rotated.
    backups
        How many old files are kept.
    """

    def __init__(self, path: Path, max_bytes: int = 20_000_000, backups: int = 10) -> None:
        super().__init__()
        self.path, self.max_bytes, self.backups = Path(path), max_bytes, backups
        self._descriptor: int | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a failure goes to `logging.Handler.handleError` and never to the caller."""
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            os.write(self._open(len(line)), line)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            self._shut()
        finally:
            self.release()
        super().close()

    def _open(self, coming: int) -> int:
        if self._descriptor is not None and not self._is_current():
            self._shut()  # another process has rotated
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(self._descriptor).st_size
        if size and size + coming > self.max_bytes:
            self._rotate()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self._descriptor

    def _is_current(self) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        assert self._descriptor is not None
        mine = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)

    def _rotate(self) -> None:
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current():
                for number in range(self.backups - 1, 0, -1):
                    older = self._backup(number)
                    if older.exists():
                        older.replace(self._backup(number + 1))
                if self.backups:
                    self.path.replace(self._backup(1))
                else:
                    self.path.unlink()
            self._shut()
        finally:
            os.close(lock)

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
