"""When a row was known, for vendors that do not say: at the close of its session, in exchange time."""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.market.calendar import SessionCalendar


def session_closes(bars: pl.DataFrame, calendar: SessionCalendar) -> pl.DataFrame:
    """Add ``known_at``, the close (UTC) of each row's session.

    Days that are no session of the calendar, or lie outside it, take the exchange's usual close; judging such
    rows belongs to validation.
    """
    days = bars.get_column("session").unique().sort().to_list()
    closes = [calendar.usual_close_utc(day) for day in days]
    table = pl.DataFrame(
        {"session": days, "known_at": closes}, schema={"session": pl.Date, "known_at": pl.Datetime("us", "UTC")}
    )
    return bars.join(table, on="session", how="left", maintain_order="left")
