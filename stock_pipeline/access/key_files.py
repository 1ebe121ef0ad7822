"""Keys in the home folder: files that only their owner may read, in a folder that only its owner may enter."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.locks import file_lock


class KeyFolder:
    """The folder of keys.

    Parameters
    ----------
    path
        ``<home>/keys``; made with mode 0700 where absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match a pattern, sorted."""
        return sorted(found.name for found in self.path.glob(pattern) if found.is_file())

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises
        ------
        IntegrityError
            Others than the owner can read it: it may be known to them.
        """
        file = self.path / name
        mode = file.stat().st_mode & 0o777
        if mode & 0o077:
            raise IntegrityError(
                f"the key file {file} can be read by others than its owner",
                value=f"mode {mode:04o}",
                allowed="mode 0600",
                fix=f"chmod 600 {file}; where others had access to the machine, also: stock-pipeline users rotate-keys",
            )
        return file.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file at one stroke, readable by its owner only."""
        self._prepare()
        draft = self.path / f".{name}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        (self.path / name).unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """One process at a time makes or changes keys; for a ``with`` statement."""
        self._prepare()
        return file_lock(self.path / ".lock")

    def obtain(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Content of a file, made by the first process that needs it."""
        if not (self.path / name).exists():
            with self.lock():
                if not (self.path / name).exists():
                    self.write(name, make())
        return self.read(name)

    def _prepare(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o700)
