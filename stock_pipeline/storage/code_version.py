"""Names the code that made a result, by its content, so that it needs neither git nor an installed package."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import stock_pipeline

_ROOT = Path(stock_pipeline.__file__).parent


@cache
def code_version(*folders: str) -> str:
    """Hash of the source files below folders of the package.

    Parameters
    ----------
    *folders
        Paths relative to the package such as ``core/features``; without any, the whole ``core``.

    Returns
    -------
    str
        The first 12 hexadecimal digits of a SHA-256 over names and contents.
    """
    digest = hashlib.sha256()
    for folder in folders or ("core",):
        target = _ROOT / folder
        files = sorted(target.rglob("*.py")) if target.is_dir() else [target]
        for file in files:
            digest.update(file.relative_to(_ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
