"""Write the calendar files of this folder from the exchange_calendars package.

A maintainer's script, not part of the platform at run time. In an environment with ``exchange_calendars`` and
``pandas<3`` (Orthodox Easter fails with later ones): ``python stock_pipeline/core/market/calendars/make_calendars.py``.
Run it with each new release of exchange_calendars, at least once a year: the platform warns six months before an end.

Each file holds the days of the usual week (``weekmask``), the ``holidays`` on such days, ``extra`` sessions on other
days, the usual ``closes`` as ``[from, "HH:MM"]`` in exchange time, and ``odd_closes`` by time. Dates are yyyymmdd.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

START = date(1970, 1, 1)
END = date(2027, 12, 31)

NAMES = """
AIXK ASEX BVMF XAMS XASX XBKK XBOG XBOM XBRA XBRU XBSE XBUD XBUE XCSE XDUB XDUS XETR XFRA XHAM XHEL XHKG XICE
XIDX XIST XJSE XKAR XKLS XKRX XLIM XLIS XLJU XLON XLUX XMAD XMEX XMIL XMOS XNYS XNZE XOSL XPAR XPHS XPRA XRIS
XSAU XSES XSGO XSHG XSTO XSTU XSWX XTAE XTAI XTAL XTKS XTSE XWAR XWBO XZAG
""".split()  # noqa: SIM905  a list literal would be 60 lines

KNOWN_SESSIONS: dict[str, dict[str, str]] = {
    # Diwali evening (Muhurat), budget-day and special live sessions that the exchange announced by circular and the
    # library lacks; those to 2024-03 are also seen as traded by nearly every stock of a 250-stock panel.
    "XBOM": {
        "2013-11-14": "15:30",
        "2014-10-23": "19:30",
        "2015-02-28": "15:30",
        "2015-11-11": "18:45",
        "2017-10-19": "19:30",
        "2018-11-07": "18:30",
        "2020-02-01": "15:30",
        "2020-11-14": "19:15",
        "2021-11-04": "19:15",
        "2022-10-24": "19:15",
        "2023-11-12": "19:15",
        "2024-01-20": "15:30",
        "2024-03-02": "12:30",
        "2024-05-18": "12:30",
        "2024-11-01": "19:00",
        "2025-02-01": "15:30",
        "2025-10-21": "14:45",
        "2026-02-01": "15:30",
    }
}

KNOWN_CLOSURES: dict[str, list[str]] = {"XBOM": ["2013-11-15"]}
"""The holiday that was moved from 2013-11-14 by a later circular."""


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def _open_calendar(name: str) -> Any:
    import exchange_calendars

    kind = exchange_calendars.calendar_utils._default_calendar_factories[name]
    first, last = kind.bound_min(), kind.bound_max()
    start = max(START, first.date()) if first is not None else START
    end = min(END, last.date()) if last is not None else END
    return exchange_calendars.get_calendar(name, start=start.isoformat(), end=end.isoformat()), start, end


def describe(name: str) -> dict[str, Any]:
    """Everything that the platform needs to know of one exchange."""
    calendar, start, end = _open_calendar(name)
    zone = ZoneInfo(str(calendar.tz))
    closes: dict[date, str] = {
        session.date(): close.astimezone(zone).strftime("%H:%M")
        for session, close in calendar.closes.dt.tz_convert("UTC").items()
    }
    for closed in KNOWN_CLOSURES.get(name, []):
        closes.pop(date.fromisoformat(closed), None)
    closes |= {date.fromisoformat(day): clock for day, clock in KNOWN_SESSIONS.get(name, {}).items()}
    usual = [
        [_number(since.date() if since is not None else start), time.strftime("%H:%M")]
        for since, time in calendar.close_times
    ]
    days = [start + timedelta(n) for n in range((end - start).days + 1)]
    odd: dict[str, list[int]] = {}
    for day, close in sorted(closes.items()):
        expected = [time for since, time in usual if since <= _number(day)] or [usual[0][1]]
        if close != expected[-1]:
            odd.setdefault(close, []).append(_number(day))
    return {
        "name": name,
        "timezone": str(calendar.tz),
        "first": _number(start),
        "last": _number(end),
        "weekmask": calendar.weekmask,
        "holidays": [_number(d) for d in days if calendar.weekmask[d.weekday()] == "1" and d not in closes],
        "extra": [_number(d) for d in days if calendar.weekmask[d.weekday()] == "0" and d in closes],
        "closes": usual,
        "odd_closes": odd,
    }


def main() -> None:
    """Write every calendar, and say how far each reaches."""
    folder = Path(__file__).resolve().parent
    for name in NAMES:
        content = describe(name)
        (folder / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
        print(name, content["first"], content["last"], len(content["holidays"]), len(content["extra"]))
    print("made", datetime.now(ZoneInfo("UTC")).date())


if __name__ == "__main__":
    main()
