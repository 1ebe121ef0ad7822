"""Pages of lists in the console: where the page before and the next are, and which rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Pager:
    """Neighbours of one page of a list.

    Attributes
    ----------
    previous, next
        Addresses; ``None`` where there is none.
    text
        Which rows are shown.
    first
        Position of the first row.
    """

    previous: str | None = None
    next: str | None = None
    text: str = ""
    first: int = 0

    @classmethod
    def of(cls, path: str, query: Mapping[str, Any], number: int, size: int, total: int) -> Pager:
        """Pages of a list whose length is known; a number beyond the end means the last page."""
        last = max(1, -(-total // size))
        number = min(number, last)
        first = (number - 1) * size

        def address(page: int) -> str:
            return f"{path}?{urlencode({**query, 'page': page})}"

        return cls(
            previous=address(number - 1) if number > 1 else None,
            next=address(number + 1) if number < last else None,
            text=f"{first + 1:,} to {min(first + size, total):,} of {total:,}" if total else "",
            first=first,
        )

    @classmethod
    def after(cls, path: str, query: Mapping[str, Any], following: Any | None, *, begun: bool) -> Pager:
        """Pages of a list that is read on from a position: there is a first page and a next one."""
        kept = {name: value for name, value in query.items() if value not in (None, "")}
        first = path + (f"?{urlencode(kept)}" if kept else "")
        onward = None if following is None else f"{path}?{urlencode({**kept, 'after': following})}"
        return cls(previous=first if begun else None, next=onward)
