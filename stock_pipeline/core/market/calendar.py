"""Exchange sessions: which days are traded, when they close, and how far ahead that is known.

The facts are JSON files in ``market/calendars``; nothing heavy is imported here. Partition definitions and schedules
belong to ``orchestration``; the completeness check against a calendar belongs to ``core.quality``.
"""

from __future__ import annotations

import difflib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from stock_pipeline.core.errors import ConfigurationError, DataError

ALIASES = {
    "NYSE": "XNYS",
    "NASDAQ": "XNYS",
    "XNAS": "XNYS",
    "XASE": "XNYS",
    "ARCX": "XNYS",
    "BATS": "XNYS",
    "XSHE": "XSHG",
    "SSE": "XSHG",
    "SZSE": "XSHG",
    "XNSE": "XBOM",
    "NSE": "XBOM",
    "BSE": "XBOM",
    "JPX": "XTKS",
    "LSE": "XLON",
    "HKEX": "XHKG",
    "XTSX": "XTSE",
    "TSX": "XTSE",
    "ASX": "XASX",
}
"""Exchanges that trade on the days of another one."""

ROUND_THE_CLOCK = {"24/7": "1111111", "24/5": "1111100"}
"""Markets without holidays: a session is a UTC day and closes at the next midnight."""

WARN_DAYS = 180
"""How long before a calendar's end people are told."""


def names() -> list[str]:
    """Names that `SessionCalendar` accepts, aliases included."""
    files = (f.name.removesuffix(".json") for f in _folder().iterdir() if f.name.endswith(".json"))
    return sorted({*files, *ALIASES, *ROUND_THE_CLOCK})


def closures(name: str) -> list[date]:
    """Mondays to Fridays that are no session, over all that the calendar knows (for partition exclusions)."""
    return SessionCalendar(name).closures


class SessionCalendar:
    """The sessions of one exchange.

    Parameters
    ----------
    name
        Market identifier code such as ``XNYS``, an alias such as ``NYSE``, or ``24/7`` and ``24/5``.

    Attributes
    ----------
    name, timezone
        As given; IANA name of the exchange's time zone.
    first, last
        First and last day that the calendar knows. Days outside are a `DataError`, never a guess; for data
        older than ``first`` see `with_observed`.

    Raises
    ------
    ConfigurationError
        The name is not known; the message suggests the nearest ones.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        facts = _facts(ALIASES.get(name, name))
        self.timezone: str = facts["timezone"]
        self.first, self.last = facts["first"], facts["last"]
        self._facts = facts
        self._sessions: list[date] = facts["sessions"]

    def __repr__(self) -> str:
        return f"SessionCalendar({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionCalendar) and (self.name, self._sessions) == (other.name, other._sessions)

    def __hash__(self) -> int:
        return hash((self.name, self.first))

    def with_observed(self, days: Iterable[date]) -> SessionCalendar:
        """Extend into the past: before ``first``, the sessions are those days on which the data shows trading.

        Parameters
        ----------
        days
            Dates of the data, in any order; those on or after ``first`` are ignored, there the exchange decides.
        """
        older = sorted({d for d in days if d < self.first})
        if not older:
            return self
        copy = SessionCalendar(self.name)
        copy.first = older[0]
        copy._sessions = [*older, *self._sessions]
        return copy

    def sessions(self, start: date, end: date) -> list[date]:
        """Sessions from ``start`` to ``end``, both included, oldest first; empty when start is after end."""
        if start > end:
            return []
        self._check(start)
        self._check(end)
        return self._sessions[bisect_left(self._sessions, start) : bisect_right(self._sessions, end)]

    def known_sessions(self, start: date, end: date) -> list[date]:
        """Sessions as `sessions`, cut to what the calendar knows instead of an error.

        For ranges that come from data: a row dated 2999 must not stop the judging of the others.
        """
        return self.sessions(max(start, self.first), min(end, self.last))

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on that day."""
        self._check(day)
        at = bisect_left(self._sessions, day)
        return at < len(self._sessions) and self._sessions[at] == day

    def next(self, day: date) -> date:
        """First session after that day."""
        self._check(day)
        return self._at(bisect_right(self._sessions, day), day, 1)

    def previous(self, day: date) -> date:
        """Last session before that day."""
        self._check(day)
        return self._at(bisect_left(self._sessions, day) - 1, day, -1)

    def offset(self, day: date, n: int) -> date:
        """Session ``n`` sessions after ``day`` (before it when negative).

        A day that is no session counts from the session before it when going forward, from the one after it when
        going back; ``n = 0`` is then the session before it.
        """
        self._check(day)
        at = bisect_left(self._sessions, day) if n < 0 else bisect_right(self._sessions, day) - 1
        return self._at(at + n, day, n)

    def close_utc(self, day: date) -> datetime:
        """Instant (UTC) of the session's close, early closes included.

        Raises
        ------
        DataError
            That day is no session.
        """
        if not self.is_session(day):
            raise DataError(
                f"{self.name} has no session on that day", value=day.isoformat(), fix="ask only for days of sessions()"
            )
        return self.usual_close_utc(day)

    def usual_close_utc(self, day: date) -> datetime:
        """Close (UTC) as `close_utc`, and for any other day the usual closing time of the exchange on that date."""
        if self.name in ROUND_THE_CLOCK:
            return datetime.combine(day + timedelta(1), time(0), ZoneInfo("UTC"))
        usual = [clock for since, clock in self._facts["closes"] if since <= day] or [self._facts["closes"][0][1]]
        clock = self._facts["odd_closes"].get(day, usual[-1])
        return datetime.combine(day, clock, ZoneInfo(self.timezone)).astimezone(ZoneInfo("UTC"))

    def latest_closed(self, now_utc: datetime) -> date:
        """Newest session that has closed at that instant (aware, any time zone)."""
        if now_utc.tzinfo is None:
            raise DataError("the instant has no time zone", value=now_utc, fix="pass an aware datetime, e.g. in UTC")
        today = now_utc.astimezone(ZoneInfo(self.timezone)).date()
        if today > self.last:
            self._check(today)
        at = bisect_right(self._sessions, today) - 1
        while at >= 0 and self.close_utc(self._sessions[at]) > now_utc:
            at -= 1
        return self._at(at, today, -1)

    @cached_property
    def closures(self) -> list[date]:
        """Mondays to Fridays from ``first`` to ``last`` that are no session."""
        days = np.arange(np.datetime64(self.first), np.datetime64(self.last) + 1)
        weekdays = days[np.is_busday(days)]
        return weekdays[~np.isin(weekdays, np.array(self._sessions, dtype="datetime64[D]"))].tolist()

    @cached_property
    def weekend_sessions(self) -> list[date]:
        """Sessions on a Saturday or Sunday (special sessions; the usual week of some exchanges)."""
        return [d for d in self._sessions if d.weekday() >= 5]

    def warn_before_end(self, day: date) -> str | None:
        """A warning when ``day`` is within half a year of the calendar's end, else nothing."""
        left = (self.last - day).days
        if left >= WARN_DAYS:
            return None
        when = f"in {left} days" if left > 0 else "already"
        return (
            f"the calendar {self.name} ends on {self.last} ({when}); later sessions are not known: "
            "update stock_pipeline, or run its core/market/calendars/make_calendars.py with a newer exchange_calendars"
        )

    def _check(self, day: date) -> None:
        if not self.first <= day <= self.last:
            later = day > self.last
            raise DataError(
                f"the calendar {self.name} does not know that day",
                value=day.isoformat(),
                allowed=f"{self.first} to {self.last}",
                fix="update stock_pipeline: a newer release carries later sessions"
                if later
                else "start later, or build the calendar with_observed sessions of the data",
            )

    def _at(self, index: int, day: date, step: int) -> date:
        if 0 <= index < len(self._sessions):
            return self._sessions[index]
        raise DataError(
            f"the calendar {self.name} has no session {step:+d} from that day",
            value=day.isoformat(),
            allowed=f"{self.first} to {self.last}",
            fix="use a date further inside the calendar",
        )


def _folder() -> Any:
    return resources.files("stock_pipeline.core.market") / "calendars"


def _date(number: int) -> date:
    return date(number // 10_000, number // 100 % 100, number % 100)


@lru_cache(maxsize=8)
def _facts(name: str) -> dict[str, Any]:
    """Parsed calendar file, or the computed facts of a market that never closes."""
    if name in ROUND_THE_CLOCK:
        first, last = date(1970, 1, 1), date(2099, 12, 31)
        sessions = _expand(first, last, ROUND_THE_CLOCK[name], [], [])
        return {"timezone": "UTC", "first": first, "last": last, "sessions": sessions}
    file = _folder() / f"{name}.json"
    if not name.isalnum() or not file.is_file():
        near = difflib.get_close_matches(name.upper(), names(), n=3, cutoff=0.5)
        raise ConfigurationError(
            "unknown exchange calendar",
            value=name,
            allowed=", ".join(names()),
            fix=f"did you mean {' or '.join(near)}?" if near else "use the exchange's market identifier code",
        )
    raw = json.loads(file.read_text(encoding="utf-8"))
    first, last = _date(raw["first"]), _date(raw["last"])
    holidays, extra = [_date(n) for n in raw["holidays"]], [_date(n) for n in raw["extra"]]
    return {
        "timezone": raw["timezone"],
        "first": first,
        "last": last,
        "sessions": _expand(first, last, raw["weekmask"], holidays, extra),
        "closes": [(_date(since), time.fromisoformat(clock)) for since, clock in raw["closes"]],
        "odd_closes": {_date(n): time.fromisoformat(clock) for clock, days in raw["odd_closes"].items() for n in days},
    }


def _expand(first: date, last: date, weekmask: str, holidays: list[date], extra: list[date]) -> list[date]:
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    usual = days[np.is_busday(days, weekmask=weekmask, holidays=np.array(holidays, dtype="datetime64[D]"))]
    return np.union1d(usual, np.array(extra, dtype="datetime64[D]")).tolist()
