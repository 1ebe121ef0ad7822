"""One line of what `doctor` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line: good, wrong (``False``), or a note (``None``)."""

    good: bool | None
    what: str
    found: str
