"""Reports on disk: found by names that cannot lead out of their folder, read once per change."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stock_pipeline.api.problems import ProblemError

Made = TypeVar("Made")

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script\s*>", re.IGNORECASE | re.DOTALL)
_STATIC = "default-src 'none'; style-src 'unsafe-inline' 'self'; img-src 'self' data:; font-src 'self' data:"
_CLOSED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def locate(root: Path, relative: str, suffixes: frozenset[str]) -> Path:
    """Find a file below a folder.

    Parameters
    ----------
    root
        The folder.
    relative
        Path below it, with ``/``; each part begins with a letter, digit or ``_``, so hidden files, ``..`` and
        absolute paths are no names.
    suffixes
        Endings that may be asked for.

    Raises
    ------
    ProblemError
        404 where there is no such file, or links lead out of the folder.
    """
    parts = relative.split("/")
    missing = ProblemError(404, "report-not-found", "there is no such report")
    if not all(_PART.fullmatch(part) for part in parts):
        raise missing
    try:
        home, found = root.resolve(strict=True), root.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise missing from error
    if not found.is_relative_to(home) or not found.is_file() or found.suffix.lower() not in suffixes:
        raise missing
    return found


class Remembered:
    """What was made of files, until they change.

    Parameters
    ----------
    budget
        Bytes that everything kept may take.
    """

    def __init__(self, budget: int = 64_000_000) -> None:
        self._budget, self._used = budget, 0
        self._made: OrderedDict[tuple[str, str], tuple[tuple[int, int, int], Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, kind: str, make: Callable[[bytes], Made], size: Callable[[Made], int]) -> Made:
        """What ``make`` makes of a file's bytes; made again when the file is another one.

        Parameters
        ----------
        path
            The file.
        kind
            Name of what is made.
        make, size
            Makes it, and says how many bytes it takes.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        status = path.stat()
        stamp, key = (status.st_mtime_ns, status.st_size, status.st_ino), (str(path), kind)
        with self._lock:
            known = self._made.get(key)
            if known is not None and known[0] == stamp:
                self._made.move_to_end(key)
                made: Made = known[1]
                return made
        made = make(path.read_bytes())
        taken = size(made)
        with self._lock:
            old = self._made.pop(key, None)
            self._used += taken - (old[2] if old else 0)
            self._made[key] = (stamp, made, taken)
            while self._used > self._budget and len(self._made) > 1:
                _, (_, _, freed) = self._made.popitem(last=False)
                self._used -= freed
        return made


def scripted_policy(page: str) -> str:
    """Content-Security-Policy of a page that draws with its own inline scripts, and can do nothing else.

    The sandbox gives the page an origin of its own: its scripts reach no cookie and no address of the service, so a
    report that was written long ago, or by somebody else, never acts in the reader's name. Only the scripts that
    stand in the file run, each named by its hash.
    """
    sources = dict.fromkeys(f"'sha256-{_digest(script)}'" for script in _SCRIPT.findall(page) if script.strip())
    scripts = " ".join(sources) or "'none'"
    return (
        f"sandbox allow-scripts; default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        f"img-src data:; font-src data:; {_CLOSED}"
    )


def static_policy() -> str:
    """Content-Security-Policy of a page without scripts; its pictures and styles are files beside it."""
    return f"{_STATIC}; {_CLOSED}"


def _digest(script: str) -> str:
    text = script.replace("\r\n", "\n").replace("\r", "\n")
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
