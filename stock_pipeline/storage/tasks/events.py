"""The stream of events: appended once, numbered without gaps in the order of commits, read by number."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Select, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.tasks import CounterRow, EventRow

SEQUENCE = "event"
PURGED_AT_ONCE = 2_000
"""Events that one transaction forgets; it holds up who writes for some ten milliseconds."""

KINDS = ("task.state", "task.progress", "publication", "alert", "alert.resolved")


@dataclass(frozen=True)
class NewEvent:
    """Something that happened, before it has a number.

    Attributes
    ----------
    source_key
        Names the happening itself: the same happening never becomes a second event.
    kind
        One of `KINDS`.
    at
        When it happened, which is earlier than when it was copied.
    """

    source_key: str
    kind: str
    at: datetime
    severity: str = "info"
    task_id: str | None = None
    task_kind: str | None = None
    run_id: str | None = None
    owner: str | None = None
    state: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One event of the stream; see ``EventRow`` for the fields."""

    sequence: int
    kind: str
    severity: str
    task_id: str | None
    task_kind: str | None
    run_id: str | None
    owner: str | None
    state: str | None
    at: datetime
    recorded_at: float
    data: dict[str, Any]


@dataclass(frozen=True)
class EventFilter:
    """Which events are wanted; every field that is given must match.

    Attributes
    ----------
    tasks, kinds, severities, task_kinds
        Ids of tasks, kinds and severities of events, and kinds of tasks; empty means all.
    owner
        Only events of this account's tasks. Alerts and publications belong to nobody and are left out by it.
    """

    tasks: Collection[str] = ()
    kinds: Collection[str] = ()
    severities: Collection[str] = ()
    owner: str | None = None
    task_kinds: Collection[str] = ()

    def matches(self, event: Event) -> bool:
        """Whether one event is wanted: the same answer as the database gives."""
        return (
            (not self.tasks or event.task_id in self.tasks)
            and (not self.kinds or event.kind in self.kinds)
            and (not self.severities or event.severity in self.severities)
            and self.owner in (None, event.owner)
            and (not self.task_kinds or event.task_kind in self.task_kinds)
        )


class EventLog:
    """The events in the metadata database.

    Parameters
    ----------
    engine
        From `storage.database.open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, session: Session, event: NewEvent) -> int | None:
        """Add an event inside a transaction.

        Returns
        -------
        int or None
            Its number; ``None`` where its source key is known already, and then nothing is written.
        """
        number = take_turn(session, SEQUENCE)
        known = select(EventRow.sequence).where(EventRow.source_key == event.source_key)
        if session.scalar(known) is not None:
            return None
        values = {name: getattr(event, name) for name in event.__dataclass_fields__}
        session.add(EventRow(sequence=number + 1, recorded_at=time.time(), **values))
        session.execute(update(CounterRow).where(CounterRow.name == SEQUENCE).values(value=str(number + 1)))
        session.flush()
        return number + 1

    def after(self, sequence: int, *, limit: int, filters: EventFilter | None = None) -> list[Event]:
        """Events with a higher number, in order."""
        statement = _wanted(filters).where(EventRow.sequence > sequence)
        with Session(reading(self._engine)) as session:
            rows: Sequence[EventRow] = session.scalars(statement.order_by(EventRow.sequence).limit(limit)).all()
            return [_event(row) for row in rows]

    def latest(self, *, limit: int, filters: EventFilter | None = None) -> list[Event]:
        """The events with the highest numbers, in order."""
        statement = _wanted(filters).order_by(EventRow.sequence.desc()).limit(limit)
        with Session(reading(self._engine)) as session:
            return [_event(row) for row in session.scalars(statement)][::-1]

    def newest(self) -> int:
        """Number of the newest event, 0 before the first."""
        with Session(reading(self._engine)) as session:
            return int(session.scalar(select(CounterRow.value).where(CounterRow.name == SEQUENCE)) or 0)

    def oldest(self) -> int:
        """Number of the oldest event that is kept; one more than the newest where none is."""
        with Session(reading(self._engine)) as session:
            found = session.scalar(select(func.min(EventRow.sequence)))
            newest = int(session.scalar(select(CounterRow.value).where(CounterRow.name == SEQUENCE)) or 0)
            return newest + 1 if found is None else found

    def purge(self, before: datetime) -> int:
        """Forget the events before the first one that was recorded at or after `before`; returns how many.

        Those of the beginning go, whatever their own instant, so that no gap comes into being in what is kept. They go
        in small pieces, between which others may write.
        """
        kept = select(func.min(EventRow.sequence)).where(EventRow.recorded_at >= before.timestamp())
        with Session(reading(self._engine)) as session:
            end = session.scalar(kept) or self.newest() + 1
        forgotten = 0
        while (start := self.oldest()) < end:
            piece = delete(EventRow).where(EventRow.sequence < min(start + PURGED_AT_ONCE, end))
            with Session(self._engine) as session, session.begin():
                forgotten += int(session.execute(piece).rowcount)  # type: ignore[attr-defined]
        return forgotten


def take_turn(session: Session, name: str) -> int:
    """Value of a counter, whose row is locked until the transaction ends: whoever comes later waits.

    On SQLite the transaction itself is the lock. Every writer of tasks and events takes its turn at the counter of
    events first, so that two of them never wait for each other in a circle.
    """
    found = session.scalar(select(CounterRow.value).where(CounterRow.name == name).with_for_update())
    if found is None:
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        absent = dialect.insert(CounterRow).values(name=name, value="0").on_conflict_do_nothing()
        session.execute(absent)
        found = session.scalar(select(CounterRow.value).where(CounterRow.name == name).with_for_update())
    return int(found or 0)


def _wanted(filters: EventFilter | None) -> Select[EventRow]:
    chosen, statement = filters or EventFilter(), select(EventRow)
    for column, values in (
        (EventRow.task_id, chosen.tasks),
        (EventRow.kind, chosen.kinds),
        (EventRow.severity, chosen.severities),
        (EventRow.task_kind, chosen.task_kinds),
    ):
        if values:
            statement = statement.where(column.in_(tuple(values)))
    if chosen.owner is not None:
        statement = statement.where(EventRow.owner == chosen.owner)
    return statement


def _event(row: EventRow) -> Event:
    return Event(**{name: getattr(row, name) for name in Event.__dataclass_fields__})
