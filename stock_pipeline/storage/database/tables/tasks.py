"""Tasks as they were copied from Dagster's runs, what was asked of them, and the stream of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stock_pipeline.storage.database.tables.base import Base, UtcDateTime


class TaskRow(Base):
    """One task: a Dagster run with its repetitions. Its id is that of the first run."""

    __tablename__ = "task"
    __table_args__ = (
        # a page of a list ends with `number`: it is read off an index, however many tasks there are
        Index("ix_task_kind", "kind", "number"),
        Index("ix_task_state", "state", "number"),
        Index("ix_task_owner", "owner", "number"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, unique=True)
    """Order of appearance; lists are paged by it."""
    kind: Mapped[str] = mapped_column(String(30))
    job: Mapped[str] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(12))
    priority: Mapped[str] = mapped_column(String(10))
    owner: Mapped[str | None] = mapped_column(String(64))
    """Account that asked for it; null for what the platform started by itself."""
    origin: Mapped[str] = mapped_column(String(20))
    """``api``, ``schedule``, ``dagster`` (its web UI) or ``command line``."""
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expected_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    run_id: Mapped[str] = mapped_column(String(36))
    """The newest of its runs."""
    attempts: Mapped[int] = mapped_column(Integer)
    steps_done: Mapped[int] = mapped_column(Integer)
    steps_total: Mapped[int | None] = mapped_column(Integer)
    current_step: Mapped[str | None] = mapped_column(String(200))
    part: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """Progress inside the current step: ``unit`` (fold, symbol, year), ``done``, ``total``."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    asked: Mapped[str | None] = mapped_column(String(10))
    """What a person asked of it that has not happened yet or that explains its end: ``pause`` or ``cancel``."""
    asked_by: Mapped[str | None] = mapped_column(String(64))
    asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class TaskSearchRow(Base):
    """What a search for text looks at: all of it for one task, in lower case, apart from the wide rows of the tasks."""

    __tablename__ = "task_search"

    number: Mapped[int] = mapped_column(
        ForeignKey("task.number", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    text: Mapped[str] = mapped_column(Text)


class TaskRunRow(Base):
    """One run of a task, and how far its events are copied."""

    __tablename__ = "task_run"
    __table_args__ = (Index("ix_task_run_ended", "status", "ended_at"),)

    run_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("task.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(20))
    cursor: Mapped[str | None] = mapped_column(Text)
    """Dagster's cursor behind the last event copied."""
    copied: Mapped[bool] = mapped_column(default=False, index=True)
    """Whether it has ended and every event of it is copied."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    step_seconds: Mapped[dict[str, float] | None] = mapped_column(JSON)


class TaskRequestRow(Base):
    """A request for a task, kept before the run is launched, so that asking again never makes a second one."""

    __tablename__ = "task_request"
    __table_args__ = (UniqueConstraint("owner", "idempotency_key", name="uq_task_request"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """Also a tag of the run that it becomes."""
    owner: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(100))
    body_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    task_id: Mapped[str | None] = mapped_column(String(36), index=True)


class EventRow(Base):
    """One event of the stream. Sequence numbers have no gaps and are given in the order of commits."""

    __tablename__ = "task_event"
    __table_args__ = (
        Index("ix_task_event_kind", "kind", "sequence"),
        Index("ix_task_event_task_id", "task_id", "sequence"),
        Index("ix_task_event_owner", "owner", "sequence"),
        Index("ix_task_event_severity", "severity", "sequence"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    source_key: Mapped[str] = mapped_column(String(300), unique=True)
    kind: Mapped[str] = mapped_column(String(30))
    severity: Mapped[str] = mapped_column(String(10))
    task_id: Mapped[str | None] = mapped_column(String(36))
    task_kind: Mapped[str | None] = mapped_column(String(30))
    run_id: Mapped[str | None] = mapped_column(String(36))
    owner: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str | None] = mapped_column(String(12))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded_at: Mapped[float] = mapped_column(Float)
    """Unix time of the copy, for the measurement of delays."""
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class CounterRow(Base):
    """Counters and cursors of the copying; an update takes the row's lock, so numbers follow the order of commits."""

    __tablename__ = "task_counter"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
