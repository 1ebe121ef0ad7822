"""Vendor adapters behind one protocol; `build` makes the one that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.source_settings import AkShareSource, FilesSource, YFinanceSource
from stock_pipeline.sources.protocol import Source, SourceData

__all__ = ["Source", "SourceData", "build"]


def _now() -> datetime:
    return datetime.now(UTC)


def build(
    settings: FilesSource | YFinanceSource | AkShareSource,
    *,
    calendar: str | SessionCalendar = "XNYS",
    currency: str | None = None,
    clock: Callable[[], datetime] = _now,
) -> Source:
    """Make the source that the settings describe.

    Parameters
    ----------
    settings
        One of the models of ``core.market.source_settings``.
    calendar
        The market's exchange calendar, or its name.
    currency
        The market's currency, used where vendor and settings name none.
    clock
        Gives the present instant (UTC); network vendors stamp their rows with it.

    Raises
    ------
    ConfigurationError
        The vendor's optional package is not installed, or the calendar is unknown.
    """
    sessions = SessionCalendar(calendar) if isinstance(calendar, str) else calendar
    if isinstance(settings, FilesSource):
        from stock_pipeline.sources.files import Files

        return Files(settings, sessions, currency)
    if isinstance(settings, YFinanceSource):
        from stock_pipeline.sources.yfinance import YFinance

        return YFinance(settings, sessions, currency=currency, clock=clock)
    from stock_pipeline.sources.akshare import AkShare

    return AkShare(settings, sessions, currency=currency, clock=clock)
