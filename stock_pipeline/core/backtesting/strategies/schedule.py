"""When a strategy decides: dates that are known without looking ahead."""

from __future__ import annotations

from datetime import date
from typing import Literal

Schedule = Literal["daily", "weekly", "monthly", "quarterly", "yearly"]


def decision_sessions(sessions: list[date], schedule: Schedule) -> list[date]:
    """Sessions on which a new week, month, quarter or year begins; every session for ``daily``.

    The first session of a period is used because it is known to be the first on that day, while the last one is known
    only when the next period has begun. The first session of all is always included.
    """
    if schedule == "daily":
        return list(sessions)
    keys = [_period(s, schedule) for s in sessions]
    return [s for i, s in enumerate(sessions) if i == 0 or keys[i] != keys[i - 1]]


def _period(session: date, schedule: Schedule) -> tuple[int, int]:
    if schedule == "weekly":
        year, week, _ = session.isocalendar()
        return year, week
    if schedule == "monthly":
        return session.year, session.month
    if schedule == "quarterly":
        return session.year, (session.month - 1) // 3
    return session.year, 0
