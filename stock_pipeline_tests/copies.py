"""Copies of markets that nobody writes to."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path


def copy_market(source: Path, target: Path) -> None:
    """Copy the folder of a market, home folder included.

    SQLite removes the files beside a database with its last connection. Those of this process that wait for the
    garbage collector are closed first, so that none goes while the folder is copied, and what SQLite makes anew
    from the rest (``-shm``) is left out.

    Raises
    ------
    FileExistsError
        There is something in `target`; an empty folder is no hindrance.
    """
    empty = target.is_dir() and not any(target.iterdir())
    gc.collect()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=empty, ignore=shutil.ignore_patterns("*-shm"))
