"""Printing for people: one console for results (standard output), one for progress and errors (standard error)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
"""Columns where nobody looks at a terminal, unless COLUMNS says otherwise."""

out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print it for programs, as JSON.")]


class Progress:
    """Prints a line for each thing that happens, with the seconds since the start."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._start = quiet, time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one line of progress."""
        if not self._quiet:
            err.print(f"[dim]{time.monotonic() - self._start:6.1f}s[/dim]  ", end="")
            err.print(line, markup=False, soft_wrap=True)


def table(
    title: str, columns: list[tuple[str, str]], rows: Sequence[Sequence[str | Text]], caption: str | None = None
) -> Table:
    """A table that fits the terminal; `columns` are pairs of heading and ``left`` or ``right``, the important first.

    Where not all columns fit, the last ones are left out and the caption names them: a row of slivers tells nothing.
    """
    count = _fitting(columns, rows, out.width)
    if count < len(columns):
        left_out = ", ".join(heading for heading, _ in columns[count:])
        caption = "; ".join(filter(None, [caption, f"no room here for: {left_out}"]))
    shown = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        show_header=any(heading for heading, _ in columns),
    )
    for heading, side in columns[:count]:
        shown.add_column(
            heading, justify="right" if side == "right" else "left", no_wrap=side == "right", overflow="fold"
        )
    for row in rows:
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row[:count]))
    return shown


_WRAPS_FROM = 16
_LONGEST_WORD = 32
"""Texts longer than `_WRAPS_FROM` may be broken into lines, so that they do not push other columns out."""


def _fitting(columns: list[tuple[str, str]], rows: Sequence[Sequence[str | Text]], width: int) -> int:
    """How many of the first columns fit into so many characters."""
    used = 1
    for place, (heading, side) in enumerate(columns):
        cells = max((len(row[place]) for row in rows), default=0)
        if side == "right":
            used += 3 + max(len(heading), cells)
        else:
            words = max((len(word) for row in rows for word in str(row[place]).split()), default=0)
            used += 3 + max(_longest_word(heading), min(words, _LONGEST_WORD), min(cells, _WRAPS_FROM))
        if used > width and place > 1:
            return place
    return len(columns)


def _longest_word(heading: str) -> int:
    return max(map(len, heading.split()), default=0)


def print_json(value: Any) -> None:
    """Print plain values for programs, to standard output; instants are in UTC."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    typer.echo(orjson.dumps(value, default=str, option=options).decode(), nl=False)


def number_of(count: int, one: str, several: str | None = None) -> str:
    """A count with its word: ``1 row``, ``2 rows``, ``1 entry``, ``2 entries`` (`several`)."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


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


def cell(value: Any) -> str:
    """A value of any kind for a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        if value.is_integer() or abs(value) >= 100_000:
            return f"{value:,.0f}"
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.2f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
