"""What every vendor adapter offers, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol, runtime_checkable

import polars as pl


@dataclass(frozen=True)
class SourceData:
    """What a vendor delivered.

    Attributes
    ----------
    bars
        ``BAR_SCHEMA``, sorted by symbol and session; every row has a symbol and a session, everything else is as it
        came: duplicates, NaN and impossible prices are for validation to judge.
    events
        ``EVENT_SCHEMA`` where the vendor states splits and dividends.
    benchmark
        ``session, close``, sorted, one row a session.
    membership
        ``MEMBERSHIP_SCHEMA``.
    problems
        Sentences on what could not be had, such as a symbol that the vendor does not know.
    """

    bars: pl.DataFrame
    events: pl.DataFrame | None = None
    benchmark: pl.DataFrame | None = None
    membership: pl.DataFrame | None = None
    problems: tuple[str, ...] = ()


@runtime_checkable
class Source(Protocol):
    """A vendor."""

    def fetch(self, start: date | None, end: date | None) -> SourceData:
        """Bars from ``start`` to ``end``, both included; ``None`` means as far as there is.

        A network vendor adds its look-back before ``start``, so that revised history comes back as new rows.
        ``adj_factor`` has the same base whatever the range. Events, benchmark and membership are not cut.

        Raises
        ------
        DataError
            Nothing usable could be had; the message says what, and what to do.
        """
        ...
