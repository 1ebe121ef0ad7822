"""What the store of tasks takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskRunRow


@dataclass(frozen=True)
class Task:
    """One task as it stands; see ``TaskRow`` for the fields."""

    id: str
    number: int
    kind: str
    job: str
    state: str
    priority: str
    owner: str | None
    origin: str
    parameters: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    expected_end: datetime | None
    run_id: str
    attempts: int
    steps_done: int
    steps_total: int | None
    current_step: str | None
    part: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    asked: str | None
    asked_by: str | None
    asked_at: datetime | None

    @classmethod
    def of(cls, row: TaskRow) -> Task:
        """A copy of a row that lives longer than its session."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


def share_done(task: Task | TaskRow) -> float | None:
    """How much of a task is done, from 0 to 1; ``None`` where its steps are not known.

    A step counts as much as any other; the one at hand counts by its part.
    """
    if not task.steps_total:
        return None
    part = task.part or {}
    inside = part["done"] / part["total"] if part.get("total") else 0.0
    return min(1.0, (task.steps_done + min(inside, 1.0)) / task.steps_total)


@dataclass(frozen=True)
class TaskRun:
    """One run of a task."""

    run_id: str
    task_id: str
    status: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    step_seconds: dict[str, float] | None

    @classmethod
    def of(cls, row: TaskRunRow) -> TaskRun:
        """A copy of a row that lives longer than its session."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks are listed; every field that is given must match.

    Attributes
    ----------
    text
        Found in the id, kind, job, owner or parameters, whatever its case.
    """

    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    owner: str | None = None
    origins: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    text: str | None = None


@dataclass(frozen=True)
class Launched:
    """A run that Dagster has taken, as far as whoever launched it knows it."""

    run_id: str
    kind: str
    job: str
    at: datetime
    owner: str | None = None
    origin: str = "api"
    priority: str = "normal"
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reservation:
    """The right to launch one task.

    Attributes
    ----------
    id
        Goes into the run's tags, so that the relay finds the request of a run whose launcher died.
    task_id
        The task that the request has become; ``None`` where none is known yet.
    new
        Whether this call made it; otherwise the same request was made before.
    created_at
        When it was first made.
    """

    id: str
    task_id: str | None
    new: bool
    created_at: datetime
