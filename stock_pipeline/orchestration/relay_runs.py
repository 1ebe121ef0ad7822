"""Copies one run: its records become the state, the progress and the events of its task.

Every batch of records is one transaction: rows, cursor and events are there together or not at all, so a relay that is
killed and started again goes on behind the last batch, and two relays at once never copy a record twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import dagster as dg
from sqlalchemy import Engine, Row, select, update
from sqlalchemy.orm import Session

from stock_pipeline.config.launches import REQUEST
from stock_pipeline.orchestration import relay_records as records
from stock_pipeline.orchestration.estimates import Estimates
from stock_pipeline.orchestration.relay_task import RunOfTask
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.tasks import TaskRequestRow, TaskRow, TaskRunRow
from stock_pipeline.storage.tasks import EventLog
from stock_pipeline.storage.tasks.events import SEQUENCE, take_turn
from stock_pipeline.storage.tasks.store import enter

BATCH = 500
DECISION_SECONDS, LONG_AGO_SECONDS = 10.0, 3600.0
"""So long Dagster is waited for to say whether it retries a failed run: the process may have died before it could. It
counts from when the failure was seen, for the clock of the process may be another one; of long ago, none is waited for.
"""


class RunCopier:
    """Copies runs into tasks.

    Parameters
    ----------
    instance
        Where the runs are.
    engine
        The metadata database.
    clock
        Seconds that only grow.
    """

    def __init__(
        self, instance: dg.DagsterInstance, engine: Engine, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._instance, self._engine, self._clock = instance, engine, clock
        self._events, self._estimates = EventLog(engine), Estimates()
        self._plans: dict[str, frozenset[str]] = {}
        self._undecided_since: dict[str, float] = {}

    def copy(self, record: dg.RunRecord) -> bool:
        """Copy what is new of a run; returns whether it is over and all of it is copied."""
        run_id, over = record.dagster_run.run_id, record.dagster_run.status.value in records.FINISHED
        known = self._known(run_id)
        cursor = known and known.cursor
        while True:
            batch = self._instance.get_records_for_run(run_id, cursor, limit=BATCH)
            if known is not None and not batch.records and (known.copied or not over):
                return bool(known.copied)  # nothing new: no writer is held up
            done = self._copy_batch(record, cursor, batch.records)
            if done is None:  # another relay was quicker, or the run is gone
                if self._instance.get_run_by_id(run_id) is None:
                    return True
                known = self._known(run_id)
                cursor = known and known.cursor
                continue
            copied, cursor, more = done
            if not more or not batch.has_more:
                return copied

    def _known(self, run_id: str) -> Row[str | None, bool] | None:
        with Session(reading(self._engine)) as session:
            statement = select(TaskRunRow.cursor, TaskRunRow.copied).where(TaskRunRow.run_id == run_id)
            return session.execute(statement).one_or_none()

    def _copy_batch(
        self, record: dg.RunRecord, cursor: str | None, batch: Sequence[dg.EventLogRecord]
    ) -> tuple[bool, str | None, bool] | None:
        run, undecided = record.dagster_run, False
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            of = self._rows(session, record)
            if of is None or of.run.cursor != cursor:
                return None
            for found in batch:
                if self._undecided(run, found):
                    undecided = True
                    break
                of.apply(found)
                of.run.cursor = records.cursor_after(found.storage_id)
            status = run.status.value
            drained = not undecided and len(batch) < BATCH
            if drained and status in records.FINISHED and of.run.status not in records.FINISHED:
                # its events do not tell how it ended: they were removed, or written by another version
                of.end_without_record(status, records.utc(record.update_timestamp))
            of.run.copied = drained and of.run.status in records.FINISHED
            if of.run.copied:
                self._estimates.forget(of.task.job)
                self._plans.pop(run.run_id, None)
                self._undecided_since.pop(run.run_id, None)
            return of.run.copied, of.run.cursor, not undecided

    def _rows(self, session: Session, record: dg.RunRecord) -> RunOfTask | None:
        """The rows of a run and its task, made where absent; ``None`` for a run that was deleted meanwhile."""
        run, launched = record.dagster_run, records.launched(record)
        task_id = records.task_id(run)
        task, row = session.get(TaskRow, task_id), session.get(TaskRunRow, run.run_id)
        if task is None or row is None:
            # asked here, under the lock: whoever deletes a task deletes its runs first
            if self._instance.get_run_by_id(run.run_id) is None:
                return None
            if REQUEST in run.tags:
                request = (TaskRequestRow.id == run.tags[REQUEST], TaskRequestRow.task_id.is_(None))
                session.execute(update(TaskRequestRow).where(*request).values(task_id=task_id))
        new_task = task is None
        if task is None:
            task = enter(session, self._events, launched, task_id)
        of = RunOfTask(session, self._instance, self._events, self._estimates, run, task, self._plan(run))
        if row is None and not new_task:
            of.begin(launched)
        of.measure()
        return of

    def _plan(self, run: dg.DagsterRun) -> frozenset[str]:
        if run.run_id not in self._plans:
            self._plans[run.run_id] = records.steps_to_execute(self._instance, run)
        return self._plans[run.run_id]

    def _undecided(self, run: dg.DagsterRun, found: dg.EventLogRecord) -> bool:
        """Whether a record tells a failure of which Dagster has not said yet whether it retries."""
        entry = found.event_log_entry
        if entry.dagster_event is None or entry.dagster_event.event_type != dg.DagsterEventType.RUN_FAILURE:
            return False
        if time.time() - entry.timestamp > LONG_AGO_SECONDS:
            return False
        fresh = self._instance.get_run_by_id(run.run_id)
        if fresh is None or records.will_retry(self._instance, fresh) is not None:
            return False
        since = self._undecided_since.setdefault(run.run_id, self._clock())
        return self._clock() - since < DECISION_SECONDS
