"""When a task will end: from the durations of succeeded runs of the same job."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskRunRow

RUNS = 20
"""So many of the newest runs count: older ones were of other data and other code."""

_KEEP_SECONDS = 60.0


@dataclass(frozen=True)
class Durations:
    """Usual seconds of the steps of a job, and of a whole run of it."""

    steps: dict[str, float] = field(default_factory=dict)
    whole: float | None = None

    def remaining(self, steps: Collection[str], total: int) -> float | None:
        """Seconds that the steps still to do take; ``None`` where there is nothing to judge by.

        Parameters
        ----------
        steps
            The steps still to do.
        total
            Number of steps of a whole run: where a step is not known, the whole is shared out evenly.
        """
        if all(step in self.steps for step in steps):
            return sum(self.steps[step] for step in steps)
        return None if self.whole is None or not total else self.whole * len(steps) / total

    def end(self, at: datetime, steps: Collection[str], total: int) -> datetime | None:
        """When the steps still to do will be done."""
        seconds = self.remaining(steps, total)
        return None if seconds is None else at + timedelta(seconds=seconds)


class Estimates:
    """Durations by job, read from the database now and then.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, Durations]] = {}

    def of(self, session: Session, job: str) -> Durations:
        """Usual durations of a job."""
        kept = self._known.get(job)
        if kept is None or self._clock() - kept[0] > _KEEP_SECONDS:
            kept = self._known[job] = (self._clock(), durations(session, job))
        return kept[1]

    def forget(self, job: str) -> None:
        """Read a job's durations anew: a run of it has ended."""
        self._known.pop(job, None)


def durations(session: Session, job: str) -> Durations:
    """Medians over the newest succeeded runs of a job, by step, and of runs that did everything."""
    found = session.execute(
        select(TaskRunRow.step_seconds, TaskRunRow.started_at, TaskRunRow.ended_at, TaskRunRow.run_id, TaskRow.id)
        .join(TaskRow, TaskRow.id == TaskRunRow.task_id)
        .where(TaskRow.job == job, TaskRunRow.status == "SUCCESS")
        .order_by(TaskRunRow.ended_at.desc())
        .limit(RUNS)
    ).all()
    by_step: dict[str, list[float]] = {}
    for row in found:
        for step, seconds in (row.step_seconds or {}).items():
            by_step.setdefault(step, []).append(seconds)
    whole = [
        (row.ended_at - row.started_at).total_seconds()
        for row in found
        if row.run_id == row.id and row.started_at is not None and row.ended_at is not None
    ]
    return Durations({step: median(values) for step, values in by_step.items()}, median(whole) if whole else None)
