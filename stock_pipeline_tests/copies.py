"""Copies of markets that nobody writes to."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path


def copy_market(source: Path, target: Path) -> None:
    """Copy the folder of a market, home folder included; `target` may be there.

    SQLite removes the files beside a database with its last connection. Those of this process that wait for the
    garbage collector are closed first, so that none goes while the folder is copied, and what SQLite makes anew
    from the rest (``-shm``) is left out.
    """
    gc.collect()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
