"""The relay: one process that copies what Dagster's runs do into tasks and events, exactly once and in order.

It polls Dagster's storage; nothing has to tell it. Killed at any point and started again, it goes on where it was, and
finds also what happened while it was away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stock_pipeline.config import Settings
from stock_pipeline.observability.logging import configure_logging, get_logger
from stock_pipeline.orchestration import liveness
from stock_pipeline.orchestration import relay_records as records
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.changed_runs import PAGE, changed_at, changed_since
from stock_pipeline.orchestration.relay_alerts import copy_alerts
from stock_pipeline.orchestration.relay_failures import FailedRuns
from stock_pipeline.orchestration.relay_lock import alone
from stock_pipeline.orchestration.relay_runs import RunCopier
from stock_pipeline.storage.database import open_database, reading
from stock_pipeline.storage.database.tables.tasks import CounterRow, TaskRow, TaskRunRow
from stock_pipeline.storage.tasks import EventLog, TaskStore
from stock_pipeline.storage.tasks.events import SEQUENCE, take_turn
from stock_pipeline.storage.tasks.store import state_event
from stock_pipeline.storage.tasks.wake import Waker

RUNS_CURSOR = "relay:runs"

ALERT_SECONDS, LOST_SECONDS, SWEEP_SECONDS, COPIED_SECONDS = 1.0, 15.0, 60.0, 2.0
WISH_GRACE = timedelta(seconds=3)
"""Whoever asked for a pause or an end stops a waiting run; when that has not happened after so long, the relay does."""

WORKER_SECONDS = 10.0
"""How often workers are told to end a run that is to end and has not: they may not have heard of it."""

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0

_log = get_logger(__name__)


class Relay:
    """Copies runs, publications and alerts.

    Parameters
    ----------
    instance
        Dagster's instance.
    engine
        The metadata database.
    keep_days
        Runs that changed longer ago are not copied when the relay runs for the first time.
    waker
        Tells readers in other processes of new events.
    clock
        Seconds that only grow, for the works that are done now and then.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        engine: Engine,
        *,
        keep_days: int = 180,
        waker: Waker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance, self._engine, self._clock = instance, engine, clock
        self._keep = timedelta(days=keep_days)
        self._copier = RunCopier(instance, engine, clock)
        self._events, self._store = EventLog(engine), TaskStore(engine)
        self._waker, self._newest = waker, 0
        self._failed = FailedRuns(engine, clock)
        self._open: set[str] | None = None
        self._seen: dict[str, str] = {}
        self._due: dict[str, float] = {}

    def run(self, stop: threading.Event, poll_seconds: float, held: Callable[[], bool] = lambda: True) -> None:
        """Copy until told to stop; whatever fails is tried again, with growing pauses.

        Parameters
        ----------
        held
            Asked now and then: whether this is still the only relay; where not, it returns.
        """
        pause = poll_seconds
        while not stop.is_set():
            if self._is_due("held", LOST_SECONDS) and not held():
                return
            try:
                self.poll()
                pause = poll_seconds
            except Exception:
                _log.exception("the relay could not copy and will try again", pause_seconds=pause)
                pause = _longer(pause)
            stop.wait(pause)

    def poll(self) -> None:
        """Copy everything that is there now."""
        began = datetime.now(UTC)
        if self._open is None:
            self._open = self._failed.load() | set(self._not_copied())
        if self._is_due("lost", LOST_SECONDS):
            for run_id in liveness.fail_lost_runs(self._instance):
                _log.warning("the process of a run was gone", run=run_id)
        since = self._since()
        changed, whole = changed_since(self._instance, since)
        found = {record.dagster_run.run_id: record for record in changed}
        sweep = self._is_due("sweep", SWEEP_SECONDS)
        wanted = [run for run in self._open if run not in found and (sweep or self._is_watched(run))]
        found |= {record.dagster_run.run_id: record for record in self._by_id(wanted)}
        for record in _in_order(found.values()):
            self._look_at(record)
        if changed and changed_at(changed[-1]) > since:
            self._remember(changed_at(changed[-1]))
        if sweep:
            self._close_deleted([run for run in wanted if run not in found])
            self._seen = {run: status for run, status in self._seen.items() if run in self._open or run in found}
        self._carry_out_wishes()
        if self._is_due("alerts", ALERT_SECONDS):
            copy_alerts(self._engine, self._events)
        if whole and not self._failed and self._is_due("copied until", COPIED_SECONDS):
            self._store.copied_until(began)
        if self._waker is not None:
            before, self._newest = self._newest, self._events.newest()
            if self._newest > before:
                self._waker.wake()

    # ---------------------------------------------------------------- runs
    def _is_watched(self, run_id: str) -> bool:
        """Whether an unfinished run is looked at in every poll; the others are when they change."""
        return self._seen.get(run_id) in _WATCHED and not self._failed.waits(run_id)

    def _look_at(self, record: dg.RunRecord) -> None:
        """Copy what is new of a run. Where that fails, it holds up no other run: it is tried again later."""
        run, status = record.dagster_run, record.dagster_run.status.value
        assert self._open is not None
        if self._failed.waits(run.run_id) or (self._seen.get(run.run_id) == status and run.run_id not in self._open):
            return
        self._open.add(run.run_id)
        try:
            copied = self._copier.copy(record)
        except Exception:
            pause = self._failed.add(run.run_id)  # raises where the database is away: so it is for all
            _log.exception("a run could not be copied and will be tried again", run=run.run_id, pause_seconds=pause)
            return
        self._failed.discard(run.run_id)
        if copied:
            self._open.discard(run.run_id)
        self._seen[run.run_id] = status

    def _by_id(self, run_ids: Sequence[str]) -> Sequence[dg.RunRecord]:
        found: list[dg.RunRecord] = []
        for start in range(0, len(run_ids), PAGE):
            chosen = dg.RunsFilter(run_ids=list(run_ids[start : start + PAGE]))
            found += self._instance.get_run_records(chosen)
        return found

    def _not_copied(self) -> list[str]:
        with Session(reading(self._engine)) as session:
            return list(session.scalars(select(TaskRunRow.run_id).where(TaskRunRow.copied.is_(False))))

    def _since(self) -> datetime:
        with Session(reading(self._engine)) as session:
            value = session.scalar(select(CounterRow.value).where(CounterRow.name == RUNS_CURSOR))
        return datetime.fromisoformat(value) if value else datetime.now(UTC) - self._keep

    def _remember(self, since: datetime) -> None:
        with Session(self._engine) as session, session.begin():
            take_turn(session, SEQUENCE)
            before = session.get(CounterRow, RUNS_CURSOR)
            if before is None or datetime.fromisoformat(before.value) < since:
                session.merge(CounterRow(name=RUNS_CURSOR, value=since.isoformat()))

    # ---------------------------------------------------------------- tasks
    def _close_deleted(self, run_ids: Sequence[str]) -> None:
        """A run that somebody deleted in Dagster before it had ended will never say how it ends."""
        assert self._open is not None
        for run_id in run_ids:
            with Session(self._engine) as session, session.begin():
                take_turn(session, SEQUENCE)
                row = session.get(TaskRunRow, run_id)
                task = session.get(TaskRow, row.task_id) if row is not None else None
                if row is not None:
                    row.copied, row.status = True, "CANCELED"
                if task is not None and task.run_id == run_id and task.state in _UNDER_WAY:
                    before, task.state, task.ended_at = task.state, "canceled", datetime.now(UTC)
                    task.expected_end = task.current_step = task.part = None
                    data = {"from": before, "reason": "its run was deleted in Dagster"}
                    self._events.append(session, state_event(task, f"{run_id}:deleted", task.ended_at, data))
            self._failed.discard(run_id)
            self._open.discard(run_id)

    def _carry_out_wishes(self) -> None:
        """Stop runs of tasks that are to pause or end and whose asker did not get to it: waiting ones, and those of
        workers that did not hear of it.
        """
        asked = select(TaskRow.run_id).where(
            TaskRow.state.in_(("pausing", "canceling")), TaskRow.asked_at < datetime.now(UTC) - WISH_GRACE
        )
        with Session(reading(self._engine)) as session:
            run_ids = list(session.scalars(asked))
        with_workers = []
        for record in self._by_id(run_ids):
            run = record.dagster_run
            if run.status == dg.DagsterRunStatus.QUEUED:
                with suppress(dg.DagsterInvariantViolationError):  # it has just been started
                    self._instance.run_coordinator.cancel_run(run.run_id)
            elif run.status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING):
                with_workers.append(run.run_id)
        if with_workers and self._is_due("wishes of workers", WORKER_SECONDS):
            for run_id in with_workers:
                if not liveness.stop_worker_run(self._instance, run_id):
                    break  # so it is for all of them

    def _is_due(self, work: str, seconds: float) -> bool:
        now = self._clock()
        if now < self._due.get(work, float("-inf")):
            return False
        self._due[work] = now + seconds
        return True


def _in_order(found: Iterable[dg.RunRecord]) -> list[dg.RunRecord]:
    """Runs in the order in which they were made: those of one chain never overtake each other."""
    return sorted(found, key=lambda record: (record.create_timestamp, record.storage_id))


def serve(settings: Settings, stop: threading.Event, report: Callable[[str], None]) -> None:
    """Be the relay of a configuration until told to stop.

    Parameters
    ----------
    report
        Called with a line when something is worth telling.
    """
    configure_logging(settings.home, component="relay")
    instance, engine = open_instance(settings), open_database(settings.storage.metadata_url)
    pause = SHORTEST_PAUSE
    while not stop.is_set():
        try:
            with alone(engine, settings.home, stop, lambda: report("another relay is at work; waiting")) as held:
                pause = SHORTEST_PAUSE
                if held():
                    report("copying runs into tasks and events")
                    waker = Waker(settings.access.redis)
                    relay = Relay(instance, engine, keep_days=settings.tasks.keep_events_days, waker=waker)
                    relay.run(stop, settings.tasks.poll_seconds, held)
        except SQLAlchemyError as error:
            _log.warning(
                "the database does not say whether this is the only relay; it is asked again",
                error=str(error.__cause__ or error),
                pause_seconds=pause,
            )
            stop.wait(pause)
            pause = _longer(pause)


def _longer(pause: float) -> float:
    return min(max(pause, SHORTEST_PAUSE) * 2, LONGEST_PAUSE)


_WATCHED = records.ACTIVE | {None}
_UNDER_WAY = frozenset({"queued", "starting", "running", "pausing", "canceling"})
