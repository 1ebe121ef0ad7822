"""What one record of a run does to its task. Works inside the transaction of `relay_runs`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session

from stock_pipeline.observability.logging import get_logger
from stock_pipeline.orchestration import progress
from stock_pipeline.orchestration import relay_records as records
from stock_pipeline.orchestration.advice import next_step
from stock_pipeline.orchestration.causes import Cause
from stock_pipeline.orchestration.estimates import Estimates
from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskRunRow
from stock_pipeline.storage.tasks import EventLog, Launched, NewEvent, share_done
from stock_pipeline.storage.tasks.states import ALLOWED, ENDED, RESTING, derive
from stock_pipeline.storage.tasks.store import add_run, state_event

PUBLISHED = "predictions/published"
TIME_LIMIT = "maximum runtime"

_log = get_logger(__name__)


class RunOfTask:
    """One run beside its task, inside a transaction.

    Parameters
    ----------
    run
        The run in Dagster.
    task
        Row of its task.
    plan
        The steps that the run is about to do.
    """

    def __init__(
        self,
        session: Session,
        instance: dg.DagsterInstance,
        events: EventLog,
        estimates: Estimates,
        run: dg.DagsterRun,
        task: TaskRow,
        plan: frozenset[str],
    ) -> None:
        self._session, self._instance, self._events, self._estimates = session, instance, events, estimates
        self._dagster_run, self.task, self._plan = run, task, plan

    @property
    def run(self) -> TaskRunRow:
        """Row of the run."""
        return self._session.get_one(TaskRunRow, self._dagster_run.run_id)

    @property
    def newest(self) -> bool:
        """Whether the task follows this run; earlier ones that still go on only leave their durations."""
        return self.task.run_id == self._dagster_run.run_id

    def begin(self, launched: Launched) -> None:
        """Make the task follow this run, a further one of its chain."""
        task, before = self.task, self.task.state
        followed = self._session.get(TaskRunRow, task.run_id)
        add_run(self._session, launched, task.id)
        if followed is not None and followed.created_at > launched.at:
            return
        task.run_id, task.attempts = launched.run_id, task.attempts + 1
        task.ended_at = task.expected_end = task.current_step = task.part = task.error = None
        task.result = None if before == "succeeded" else task.result
        if before not in ("pausing", "canceling"):
            task.asked = None
        data = {"from": before, "attempt": task.attempts, "job": task.job, "priority": task.priority}
        self._turn("QUEUED", launched.at, f"{launched.run_id}:queued", data)

    def measure(self) -> None:
        """Bring the number of steps up to date: those of this run, and those that were done before it."""
        if not self.newest or not self._plan:
            return
        before = self._done_before()
        self.task.steps_total = len(before) + len(self._plan)
        self.task.steps_done = len(before) + len(self._done_here())

    def apply(self, record: dg.EventLogRecord) -> None:
        """Copy one record."""
        entry = record.event_log_entry
        at, key = records.utc(entry.timestamp), f"{entry.run_id}:{record.storage_id}"
        event = entry.dagster_event
        if event is None:
            part = progress.read(entry.user_message)
            if part is not None and self.newest and entry.step_key in (None, self.task.current_step):
                self.task.part = {"unit": part.unit, "done": part.done, "total": part.total, "of": part.of}
                self._tell_progress(at, key)
            return
        status = records.STATUSES.get(event.event_type)
        if status is not None:
            self._set_status(status, at, key, records.end_of(event))
        else:
            self._step(event, at, key)

    def end_without_record(self, status: str, at: datetime) -> None:
        """Take the end of a run from the run itself."""
        self._set_status(status, at, f"{self._dagster_run.run_id}:status:{status}", None)

    # ---------------------------------------------------------------- steps
    def _step(self, event: dg.DagsterEvent, at: datetime, key: str) -> None:
        kinds, kind, step = dg.DagsterEventType, event.event_type, event.step_key
        if kind == kinds.STEP_START and self.newest:
            self.task.current_step, self.task.part = step and step[:200], None
            self._tell_progress(at, key)
        elif kind == kinds.STEP_SUCCESS and step is not None:
            seconds = event.step_success_data.duration_ms / 1000
            self.run.step_seconds = {**(self.run.step_seconds or {}), step: seconds}
            if self.newest:
                self.measure()
                self.task.part = None
                self._tell_progress(at, key)
        elif kind == kinds.STEP_FAILURE and self.newest:
            told = {"step": step, **records.failure_of(event)}
            # the first failure is the cause of the others
            self.task.error = {**told, **(self.task.error or {})}
        elif kind == kinds.ASSET_CHECK_EVALUATION and self.newest:
            check = records.failed_check(event)
            if check is not None:
                error = self.task.error or {}
                self.task.error = {**error, "checks": [*error.get("checks", []), check]}
        elif kind == kinds.STEP_OUTPUT:
            self._add_result(event.step_output_data.metadata)
        elif kind == kinds.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            self._add_result(materialization.metadata)
            if materialization.asset_key.to_user_string() == PUBLISHED:
                self._publication(materialization.metadata, at, key)

    def _add_result(self, metadata: Mapping[str, Any]) -> None:
        found = records.result_of(metadata)
        if found and self.newest:
            self.task.result = {**(self.task.result or {}), **found}

    def _publication(self, metadata: Mapping[str, Any], at: datetime, key: str) -> None:
        figures = records.figures_of(metadata)
        if figures.pop("up_to_date", False):
            return
        version = figures.get("lake_version")
        self._events.append(
            self._session,
            NewEvent(
                source_key=f"publication:{key if version is None else version}",
                kind="publication",
                at=at,
                task_id=self.task.id,
                task_kind=self.task.kind,
                run_id=self._dagster_run.run_id,
                data={**figures, **records.result_of(metadata)},
            ),
        )

    def _tell_progress(self, at: datetime, key: str) -> None:
        task = self.task
        self._estimate(at)
        self._events.append(
            self._session,
            NewEvent(
                source_key=key,
                kind="task.progress",
                at=at,
                task_id=task.id,
                task_kind=task.kind,
                run_id=task.run_id,
                owner=task.owner,
                state=task.state,
                data={**self._progress(), "expected_end": _text(task.expected_end)},
            ),
        )

    def _progress(self) -> dict[str, Any]:
        task = self.task
        return {
            "steps_done": task.steps_done,
            "steps_total": task.steps_total,
            "step": task.current_step,
            "part": task.part,
            "share": share_done(task),
        }

    def _done_here(self) -> set[str]:
        return set(self.run.step_seconds or ()) & self._plan

    def _done_before(self) -> set[str]:
        statement = select(TaskRunRow.step_seconds).where(
            TaskRunRow.task_id == self.task.id, TaskRunRow.run_id != self._dagster_run.run_id
        )
        done = {step for seconds in self._session.scalars(statement) for step in seconds or ()}
        return done - self._plan

    def _estimate(self, at: datetime) -> None:
        durations = self._estimates.of(self._session, self.task.job)
        remaining = self._plan - self._done_here()
        self.task.expected_end = durations.end(at, remaining, self.task.steps_total or 0) if self._plan else None

    # ---------------------------------------------------------------- states
    def _set_status(self, status: str, at: datetime, key: str, end: Mapping[str, Any] | None) -> None:
        row = self.run
        row.status = status
        if status == "STARTED":
            row.started_at = at
        elif status in records.FINISHED:
            row.ended_at = at
        if not self.newest:
            return
        if status == "STARTED":
            self.task.started_at = self.task.started_at or at
            self._estimate(at)
        data: dict[str, Any] = {"from": self.task.state}
        if status == "FAILURE":
            why = end if end and end["cause"] else {"cause": "the run ended without a word", "type": None}
            told: dict[str, Any] = {"step": self.task.current_step, **why}
            known = self.task.error or {}
            # at the time limit the step only says that it was interrupted
            self.task.error = {**known, **told} if TIME_LIMIT in told["cause"] else {**told, **known}
        self._turn(status, at, key, data)

    def _turn(self, status: str, at: datetime, key: str, data: dict[str, Any]) -> None:
        """Give the task the state that follows from the status of its newest run."""
        task = self.task
        asked = task.asked if task.asked in ("pause", "cancel") else None
        again = status == "FAILURE" and self._will_retry()
        state = derive(status, asked, again)
        if state == task.state:
            return
        if state not in ALLOWED[task.state]:  # type: ignore[index]
            _log.warning("a run went on after its end", task=task.id, state=task.state, status=status)
            return
        task.state = state
        if state in RESTING or state == "retrying":
            task.expected_end = task.part = None
            task.current_step = task.current_step if state in ("failed", "retrying") else None
        if state in ENDED:
            task.ended_at = at
        if state not in ("pausing", "canceling", "paused", "canceled") and asked is not None:
            task.asked = None
        if state == "running":
            data |= {**self._progress(), "expected_end": _text(task.expected_end)}
        elif state == "succeeded":
            task.error = None
            task.steps_done = task.steps_total or task.steps_done
            data |= {"result": task.result, "seconds": _seconds(task.started_at, at)}
        elif state in ("failed", "retrying"):
            error = task.error or {}
            why = Cause(str(error.get("cause", "")), error.get("type"))
            advice = next_step(why, error.get("checks", []), will_retry=again)
            task.error = {**error, "next": advice}
            data |= {"error": task.error}
        elif state in RESTING:
            task.error = None
            data |= self._progress()
        self._events.append(self._session, state_event(task, key, at, data))

    def _will_retry(self) -> bool:
        fresh = self._instance.get_run_by_id(self._dagster_run.run_id)
        return fresh is not None and bool(records.will_retry(self._instance, fresh))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _seconds(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else (end - start).total_seconds()
