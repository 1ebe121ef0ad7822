"""Looks at a folder of prices and guesses how to read it: what `init` writes into a new configuration.

Guesses are made from headers and dates only and are shown to the user. Reading itself belongs to ``sources``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from stock_pipeline.core.market.calendar import ALIASES as CALENDARS
from stock_pipeline.core.market.calendar import SessionCalendar, names
from stock_pipeline.core.market.source_settings import FilesSource
from stock_pipeline.sources.reading import ALIASES, discover, read

CURRENCIES = {
    "XSHG": "CNY", "XTKS": "JPY", "XBOM": "INR", "XLON": "GBP", "XHKG": "HKD", "XKRX": "KRW", "XTSE": "CAD",
    "XASX": "AUD", "XNZE": "NZD", "XSWX": "CHF", "XSTO": "SEK", "XCSE": "DKK", "XOSL": "NOK", "XTAI": "TWD",
    "XSES": "SGD", "BVMF": "BRL", "XMEX": "MXN", "XJSE": "ZAR", "XWAR": "PLN", "XIST": "TRY", "XIDX": "IDR",
    "XKLS": "MYR", "XBKK": "THB", "XTAE": "ILS", "XSAU": "SAR", "XBUD": "HUF", "XPRA": "CZK", "XICE": "ISK",
    "XAMS": "EUR", "XATH": "EUR", "ASEX": "EUR", "XBRU": "EUR", "XDUB": "EUR", "XDUS": "EUR", "XETR": "EUR",
    "XFRA": "EUR", "XHAM": "EUR", "XHEL": "EUR", "XLIS": "EUR", "XLUX": "EUR", "XMAD": "EUR", "XMIL": "EUR",
    "XPAR": "EUR", "XWBO": "EUR", "XRIS": "EUR", "XTAL": "EUR", "XLIT": "EUR", "XBRA": "EUR", "XLJU": "EUR",
}  # fmt: skip
"""Currency of prices by calendar; US dollars elsewhere."""

_PREFERRED = ("XNYS", "XLON", "XETR", "XPAR", "XTKS", "XSHG", "XHKG", "XBOM", "24/7")
"""Calendars that win where several fit equally well."""

_ADJUSTMENTS = (("adj_close", "raw_with_adj_close"), ("factor", "raw_with_factors"), ("split_ratio", "raw_with_events"),
                ("dividend", "raw_with_events"))  # fmt: skip
_OURS = (
    "symbol",
    "session",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "adj_close",
    "factor",
    "split_ratio",
    "dividend",
)
_DATE = re.compile(r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{8}|\d{1,2}[/.\-]\d{1,2}[/.\-]\d{4}|\d{1,2}[- ][A-Za-z]{3})")


@dataclass(frozen=True)
class Look:
    """What the files look like: entries for ``source``, and what was noticed."""

    source: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def look(path: Path) -> Look:
    """Guess the settings of a files source from the first file's header and first rows.

    Raises
    ------
    DataError
        There is nothing at the path, no file of a known kind, or the first one cannot be read.
    """
    files = discover(str(path), None)
    glob = None
    if path.is_dir():
        kinds = [file.suffix.lower() for file in files]
        common = max(sorted(set(kinds)), key=kinds.count)
        if len(set(kinds)) > 1:
            glob, files = f"*{common}", [file for file in files if file.suffix.lower() == common]
    frame = read(files[0], FilesSource(path=str(path)))
    columns, notes = _columns(frame)
    source: dict[str, Any] = {"glob": glob} if glob else {}
    if "symbol" not in columns and frame.columns:
        source["symbol_from"] = "filename"
        notes.append(f"no column of symbols: the file names are the symbols, such as {files[0].stem}")
    differing = {ours: theirs for ours, theirs in columns.items() if _plain(theirs) not in ALIASES.get(ours, (ours,))}
    if differing:
        source["columns"] = differing
    prices = next((basis for column, basis in _ADJUSTMENTS if column in columns), None)
    if prices is None:
        prices = "adjusted"
        notes.append("prices: nothing tells of splits and dividends, so they are taken for adjusted; write raw if not")
    source["prices"] = prices
    return Look(source, notes)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _columns(frame: pl.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Ours: theirs, by usual names, also in marks such as ``<DATE>``; a column of dates is known by its values."""
    found: dict[str, str] = {}
    by_plain = {_plain(re.sub(r"[<>\[\]\"']", "", name)): name for name in reversed(frame.columns)}
    for ours in _OURS:
        match = next((by_plain[alias] for alias in ALIASES.get(ours, (ours,)) if alias in by_plain), None)
        if match is not None and match not in found.values():
            found[ours] = match
    notes: list[str] = []
    if "session" not in found:
        dated = next((name for name in frame.columns if name not in found.values() and _holds_dates(frame[name])), None)
        if dated is not None:
            found["session"] = dated
            notes.append(f"the column {dated!r} holds dates")
    if "close" not in found:
        near = next(
            (by_plain[name] for name in ("last", "price", "close_price", "closing_price", "c") if name in by_plain),
            None,
        )
        if near is not None:
            found["close"] = near
            notes.append(f"the column {near!r} is taken for the close")
    return found, notes


def _holds_dates(values: pl.Series) -> bool:
    if values.dtype.is_temporal():
        return True
    sample = values.drop_nulls().head(5)
    return values.dtype == pl.String and len(sample) > 0 and all(_DATE.match(text.strip()) for text in sample)


def guess_calendar(days: Sequence[date]) -> tuple[str, float]:
    """Find the exchange calendar whose sessions are most like the days of the data.

    Returns
    -------
    tuple
        Name, and the share of days on which calendar and data agree (1 is all of them).
    """
    wanted = set(days)
    best, share = "XNYS", -1.0
    every = [name for name in names() if name not in CALENDARS and name != "24/5"]
    for name in sorted(
        every, key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)
    ):
        calendar = SessionCalendar(name)
        inside = {day for day in wanted if calendar.first <= day <= calendar.last}
        if len(inside) < 2:
            continue
        sessions = set(calendar.known_sessions(min(inside), max(inside)))
        agreeing = len(sessions & inside) / len(sessions | inside)
        if agreeing > share:
            best, share = name, agreeing
    return best, max(share, 0.0)
