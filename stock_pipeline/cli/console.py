"""Printing for people: one console for results (standard output), one for progress and errors (standard error)."""

from __future__ import annotations

import time
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Progress:
    """Prints a line for each thing that happens, with the seconds since the start."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._start = quiet, time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one line of progress."""
        if not self._quiet:
            err.print(f"[dim]{time.monotonic() - self._start:6.1f}s[/dim]  ", end="")
            err.print(line, markup=False, soft_wrap=True)


def table(title: str, columns: list[tuple[str, str]], rows: list[list[str]], caption: str | None = None) -> Table:
    """A table; `columns` are pairs of heading and ``left`` or ``right``."""
    shown = Table(title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left")
    for heading, side in columns:
        shown.add_column(heading, justify="right" if side == "right" else "left", no_wrap=side == "right")
    for row in rows:
        shown.add_row(*row)
    return shown


def span(frame: pl.DataFrame) -> str:
    """First and last session of a frame."""
    first: Any = frame["session"].min()
    last: Any = frame["session"].max()
    return f"{first} to {last}"


def pct(value: float | None, digits: int = 1) -> str:
    """A fraction as per cent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def num(value: float | None, digits: int = 3) -> str:
    """A number; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"
