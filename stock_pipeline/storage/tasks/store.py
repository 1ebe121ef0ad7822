"""The store of tasks: read by the service and the console, written by the relay, asked of by people."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Select, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.core.errors import NotFoundError, PipelineError
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.tasks import CounterRow, TaskRequestRow, TaskRow, TaskRunRow, TaskSearchRow
from stock_pipeline.storage.tasks.events import SEQUENCE, EventLog, NewEvent, take_turn
from stock_pipeline.storage.tasks.records import Launched, Reservation, Task, TaskFilter, TaskRun
from stock_pipeline.storage.tasks.searching import holds, make_findable
from stock_pipeline.storage.tasks.states import ENDED, RESTING, NotNowError, Wish, may, refuse

NUMBER = "task"
COPIED_UNTIL = "relay:copied_until"
COMMAND_LINE = "command line"


class KeyReusedError(PipelineError):
    """An idempotency key was used before for another request."""


class TaskStore:
    """Tasks in the metadata database.

    Parameters
    ----------
    engine
        From `storage.database.open_database`.
    clock
        Gives the present instant.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine, self._clock = engine, clock
        self._events = EventLog(engine)

    # ---------------------------------------------------------------- reading
    def get(self, task_id: str) -> Task | None:
        """One task; ``None`` where there is none."""
        with Session(reading(self._engine)) as session:
            row = session.get(TaskRow, task_id)
            return None if row is None else Task.of(row)

    def list(self, chosen: TaskFilter | None = None, after: int | None = None, limit: int = 50) -> list[Task]:
        """Tasks, newest first.

        Parameters
        ----------
        after
            Number of the last task of the page before.
        """
        chosen = chosen or TaskFilter()
        statement = _matching(chosen)
        # in the order of the narrow table, which SQLite then reads first; in that of tasks it takes twice as long
        number = TaskRow.number if chosen.text is None else TaskSearchRow.number
        if after is not None:
            statement = statement.where(number < after)
        with Session(reading(self._engine)) as session:
            return [Task.of(row) for row in session.scalars(statement.order_by(number.desc()).limit(limit))]

    def runs(self, task_id: str) -> Sequence[TaskRun]:
        """The runs of a task, oldest first."""
        with Session(reading(self._engine)) as session:
            rows = session.scalars(
                select(TaskRunRow)
                .where(TaskRunRow.task_id == task_id)
                .order_by(TaskRunRow.created_at, TaskRunRow.run_id)
            )
            return [TaskRun.of(row) for row in rows]

    def run_ids(self, task_ids: Sequence[str]) -> dict[str, set[str]]:
        """Ids of the runs of some tasks, by task."""
        found: dict[str, set[str]] = {task_id: set() for task_id in task_ids}
        statement = select(TaskRunRow.task_id, TaskRunRow.run_id).where(TaskRunRow.task_id.in_(task_ids))
        with Session(reading(self._engine)) as session:
            for task_id, run_id in session.execute(statement):
                found[task_id].add(run_id)
        return found

    def queued(self, owner: str | None = None) -> int:
        """How many tasks wait for their turn, all or of one account."""
        statement = select(func.count()).select_from(TaskRow).where(TaskRow.state == "queued")
        if owner is not None:
            statement = statement.where(TaskRow.owner == owner)
        with Session(reading(self._engine)) as session:
            return session.scalar(statement) or 0

    def as_of(self) -> datetime | None:
        """Up to when what Dagster's runs did is known for sure; ``None`` where nothing was copied yet."""
        with Session(reading(self._engine)) as session:
            value = session.scalar(select(CounterRow.value).where(CounterRow.name == COPIED_UNTIL))
            return None if value is None else datetime.fromisoformat(value)

    def copied_until(self, moment: datetime) -> None:
        """Note that everything up to an instant is copied."""
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            session.merge(CounterRow(name=COPIED_UNTIL, value=moment.isoformat()))

    def asked(self, run_id: str) -> str | None:
        """What the task of a run is to do as soon as it can: ``pause``, ``cancel`` or nothing.

        Parameters
        ----------
        run_id
            Any run of the task, or the task itself: the first run of a chain names it.
        """
        task_of = select(TaskRunRow.task_id).where(TaskRunRow.run_id == run_id).scalar_subquery()
        statement = select(TaskRow.asked).where(
            or_(TaskRow.id == run_id, TaskRow.id == task_of), TaskRow.state.in_(("pausing", "canceling"))
        )
        with Session(reading(self._engine)) as session:
            return session.scalar(statement)

    # ---------------------------------------------------------------- requests
    def reserve(self, owner: str, key: str | None, body_hash: str) -> Reservation:
        """Note a request before its run is launched.

        Parameters
        ----------
        key
            The idempotency key that came with it; each request without one is new.
        body_hash
            Hash of all that was asked for.

        Raises
        ------
        KeyReusedError
            The account used the key before, for something else.
        """
        values = {
            "id": str(uuid.uuid4()),
            "owner": owner,
            "idempotency_key": key,
            "body_hash": body_hash,
            "created_at": self._clock(),
        }
        with Session(self._engine) as session, session.begin():
            dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
            keys = [TaskRequestRow.owner, TaskRequestRow.idempotency_key]
            made = session.scalar(
                dialect.insert(TaskRequestRow)
                .values(**values)
                .on_conflict_do_nothing(index_elements=keys)
                .returning(TaskRequestRow.id)
            )
            if made is not None:
                return Reservation(made, None, True, values["created_at"])  # type: ignore[arg-type]
            same = (TaskRequestRow.owner == owner, TaskRequestRow.idempotency_key == key)
            known = session.scalars(select(TaskRequestRow).where(*same)).one()
            if known.body_hash != body_hash:
                raise KeyReusedError(
                    "this idempotency key was used for another request",
                    value=key,
                    fix="take a new key for each new request",
                )
            return Reservation(known.id, known.task_id, False, known.created_at)

    def attach(self, reservation: Reservation | str, task_id: str) -> None:
        """Say which task a request has become."""
        found = reservation if isinstance(reservation, str) else reservation.id
        with Session(self._engine) as session, session.begin():
            session.execute(update(TaskRequestRow).where(TaskRequestRow.id == found).values(task_id=task_id))

    def release(self, reservation: Reservation | str) -> None:
        """Forget a request that became nothing, so that it can be made again with the same key."""
        found = reservation if isinstance(reservation, str) else reservation.id
        with Session(self._engine) as session, session.begin():
            unused = (TaskRequestRow.id == found, TaskRequestRow.task_id.is_(None))
            session.execute(delete(TaskRequestRow).where(*unused))

    # ---------------------------------------------------------------- writing
    def enter(self, launched: Launched) -> Task:
        """Enter a task whose run was launched just now, so that it is seen before the relay has found it."""
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            return Task.of(enter(session, self._events, launched, launched.run_id))

    def ask(self, task_id: str, wish: Wish | None, by: str) -> Task:
        """Remember what a person asks of a task, if it can do so in its state.

        ``pause`` and ``cancel`` change the state at once; the run is stopped by whoever asked, or by itself after the
        step at hand. ``resume`` and ``retry`` only claim the right to launch the next run, so that two people do not
        launch two; ``None`` gives an unused claim back.

        Raises
        ------
        NotFoundError
            There is no such task.
        NotNowError
            Its state does not allow it.
        """
        now = self._clock()
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            row = session.get(TaskRow, task_id, with_for_update=True)
            if row is None:
                raise NotFoundError("there is no task with this id", value=task_id)
            if wish is None:
                if row.asked in ("resume", "retry"):
                    row.asked = "pause" if row.state == "paused" else None
                return Task.of(row)
            if row.origin == COMMAND_LINE and row.state not in RESTING:
                raise NotNowError(
                    "a run of the command line cannot be stopped from here",
                    value=task_id,
                    fix="press Ctrl-C where it was started",
                )
            claimed = row.asked in ("resume", "retry") and row.asked_at is not None
            fresh = claimed and (now - row.asked_at).total_seconds() < CLAIM_SECONDS  # type: ignore[operator]
            if not may(wish, row.state) or fresh:
                raise refuse(wish, f"about to {row.asked}" if fresh else row.state, task_id)
            row.asked, row.asked_by, row.asked_at = wish, by, now
            if wish in ("pause", "cancel"):
                self._turn_to(session, row, wish, now)
            return Task.of(row)

    def _turn_to(self, session: Session, row: TaskRow, wish: str, now: datetime) -> None:
        before = row.state
        if before in RESTING:  # a paused task has no run that could be stopped
            row.state, row.ended_at = "canceled", now
        else:
            row.state = "pausing" if wish == "pause" else "canceling"
        data = {"from": before, "by": row.asked_by}
        self._events.append(session, state_event(row, f"{row.run_id}:asked:{uuid.uuid4()}", now, data))

    def forget(self, task_id: str) -> bool:
        """Remove an ended task whose runs are gone; its events stay. Returns whether there was one.

        Raises
        ------
        NotNowError
            It has not ended.
        """
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            row = session.get(TaskRow, task_id, with_for_update=True)
            if row is None:
                return False
            if row.state not in ENDED:
                raise refuse("delete", row.state, task_id)
            session.execute(delete(TaskRunRow).where(TaskRunRow.task_id == task_id))
            session.delete(row)
            return True

    def forget_requests(self, before: datetime) -> int:
        """Forget requests from before an instant whose task is gone, or that became none; returns how many.

        Their idempotency keys are free again.
        """
        has_task = select(TaskRow.id).where(TaskRow.id == TaskRequestRow.task_id).exists()
        statement = delete(TaskRequestRow).where(TaskRequestRow.created_at < before, ~has_task)
        with Session(self._engine) as session, session.begin():
            done = session.execute(statement.execution_options(synchronize_session=False))
            return int(done.rowcount)  # type: ignore[attr-defined]


CLAIM_SECONDS = 60.0
"""For so long a claim to launch the next run holds off others; its holder may have died."""


def enter(session: Session, events: EventLog, launched: Launched, task_id: str) -> TaskRow:
    """Make the rows of a task and of its run where they are absent, with the event that it waits.

    The caller has taken its turn at the counter of events.
    """
    row = session.get(TaskRow, task_id)
    if row is None:
        number = take_turn(session, NUMBER) + 1
        session.execute(update(CounterRow).where(CounterRow.name == NUMBER).values(value=str(number)))
        row = TaskRow(
            id=task_id,
            number=number,
            kind=launched.kind,
            job=launched.job,
            state="queued",
            priority=launched.priority,
            owner=launched.owner,
            origin=launched.origin,
            parameters=launched.parameters,
            created_at=launched.at,
            run_id=launched.run_id,
            attempts=1,
            steps_done=0,
        )
        session.add(row)
        session.flush()
        make_findable(session, row)
        add_run(session, launched, task_id)
        data = {"job": launched.job, "priority": launched.priority, "parameters": launched.parameters}
        events.append(session, state_event(row, f"{launched.run_id}:queued", launched.at, data))
    return row


def add_run(session: Session, launched: Launched, task_id: str) -> None:
    """Make the row of a run where it is absent."""
    if session.get(TaskRunRow, launched.run_id) is None:
        values = {"run_id": launched.run_id, "task_id": task_id, "status": "", "created_at": launched.at}
        session.execute(insert(TaskRunRow).values(copied=False, **values))


def state_event(row: TaskRow, source_key: str, at: datetime, data: Mapping[str, object]) -> NewEvent:
    """The event that a task has the state that it has."""
    severity = {"failed": "error", "retrying": "warning"}.get(row.state, "info")
    return NewEvent(
        source_key=source_key,
        kind="task.state",
        at=at,
        severity=severity,
        task_id=row.id,
        task_kind=row.kind,
        run_id=row.run_id,
        owner=row.owner,
        state=row.state,
        data=dict(data),
    )


def _matching(chosen: TaskFilter) -> Select[Any]:
    statement = select(TaskRow)
    for column, values in (
        (TaskRow.kind, chosen.kinds),
        (TaskRow.state, chosen.states),
        (TaskRow.origin, chosen.origins),
        (TaskRow.priority, chosen.priorities),
    ):
        if values:
            statement = statement.where(column.in_(values))
    if chosen.owner is not None:
        statement = statement.where(TaskRow.owner == chosen.owner)
    if chosen.created_from is not None:
        statement = statement.where(TaskRow.created_at >= chosen.created_from)
    if chosen.created_before is not None:
        statement = statement.where(TaskRow.created_at < chosen.created_before)
    if chosen.text is not None:
        statement = statement.join(TaskSearchRow, TaskSearchRow.number == TaskRow.number).where(holds(chosen.text))
    return statement
