"""From a request to exactly one run, whatever happens in between.

The request is written down first (a reservation), then the run is launched with the reservation's id as a tag, then the
task is entered. A process that dies in between leaves a reservation without a task: the next request with the same key
looks for a run with that tag before it launches one.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from stock_pipeline.api.dagster_client import FoundRun, RunControl, UncertainError
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.config import Settings
from stock_pipeline.config.launches import KIND, OWNER, REQUEST, STARTED_BY, asked_of, launch_spec, priority_of
from stock_pipeline.config.tasks import Priority, as_json
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.storage.tasks import KeyReusedError, Launched, Reservation, Task, TaskFilter, TaskStore

LEASE = timedelta(seconds=60)
"""How long a reservation without a task belongs to the request that made it: longer than a launch may take."""

COUNTS = 3
"""How often a queue that seems full is counted where launches end meanwhile."""

SHORTEST_WAIT, LONGEST_WAIT = 5, 600
"""Bounds of the seconds after which a full queue may be asked again."""


@dataclass(frozen=True)
class Submission:
    """A task that was asked for.

    Attributes
    ----------
    task
        The task.
    replayed
        Whether an earlier request with the same idempotency key had made it.
    """

    task: Task
    replayed: bool


class TaskLauncher:
    """Turns requests into runs.

    Parameters
    ----------
    settings
        The configuration.
    store
        The tables of tasks.
    control
        What runs them.
    newest
        Newest session that is known to be stored, where one is.
    clock
        The present instant.
    """

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        control: RunControl,
        newest: Callable[[], date | None] = lambda: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._store, self._control = settings, store, control
        self._newest, self._clock = newest, clock
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        """Launches of each account that are not in the tables yet."""
        self._over = 0
        """Launches that were under way and are over."""

    def submit(
        self, owner: str, kind: str, request: Parameters, priority: Priority, idempotency_key: str | None
    ) -> Submission:
        """Start a task, or find the one that the same request has started; see `TaskService.submit`."""
        body = {"kind": kind, "parameters": as_json(request), "priority": priority}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        reservation = self._reserve(owner, idempotency_key, digest)
        if not reservation.new:
            known = self._known(reservation)
            if known is not None:
                return Submission(known, replayed=True)
            # its holder has died before it launched anything: of all who see that, one gets the new reservation
            self._store.release(reservation)
            reservation = self._reserve(owner, idempotency_key, digest)
            if not reservation.new:
                raise _in_progress(self._clock() - reservation.created_at)
        with self._place(owner, reservation):
            run = self._launch(owner, kind, request, priority, reservation)
            return Submission(self._enter(run, reservation), replayed=False)

    def _reserve(self, owner: str, key: str | None, digest: str) -> Reservation:
        try:
            return self._store.reserve(owner, key, digest)
        except KeyReusedError as error:
            raise ProblemError(409, "idempotency-key-reused", str(error)) from error

    def _known(self, reservation: Reservation) -> Task | None:
        """The task of a request that was made before; ``None`` where none can come of it any more."""
        if reservation.task_id is not None:
            task = self._store.get(reservation.task_id)
            if task is None:
                raise ProblemError(410, "task-gone", "the task of this idempotency key was deleted; take a new key")
            return task
        age = self._clock() - reservation.created_at
        runs = self._control.find({REQUEST: reservation.id})
        first = next((run for run in runs if run.root_run_id in (None, run.run_id)), None)
        if first is not None:
            return self._enter(first, reservation)
        if age < LEASE:
            raise _in_progress(age)
        return None

    @contextmanager
    def _place(self, owner: str, reservation: Reservation) -> Iterator[None]:
        """A place in the queue for the length of a launch; the reservation is given up where nothing was launched."""
        try:
            full = self._take_place(owner)
            if full is not None:
                raise self._full(full)
            try:
                yield
            finally:
                with self._lock:
                    self._under_way[owner] -= 1
                    self._under_way += Counter()  # forgets accounts at zero
                    self._over += 1
        except UncertainError:
            raise  # the run may exist: the next request with this key looks for it
        except ProblemError:
            self._store.release(reservation)
            raise

    def _take_place(self, owner: str) -> str | None:
        """Take a place, or say why there is none. The tables are asked outside the lock: it may take them long."""
        limits = self._settings.tasks
        for _ in range(COUNTS):
            over = self._over
            everybody, own = self._store.queued(), self._store.queued(owner)
            with self._lock:
                missed = self._over - over  # they have ended meanwhile: nobody knows whether they were counted
                if everybody + self._under_way.total() + missed >= limits.max_queued:
                    full = f"{everybody} tasks are waiting; the queue takes {limits.max_queued}"
                elif own + self._under_way[owner] + missed >= limits.max_queued_per_account:
                    full = f"{own} of your tasks are waiting; you may have {limits.max_queued_per_account}"
                else:
                    self._under_way[owner] += 1
                    return None
                if not missed:
                    break
        return full

    def _full(self, what: str) -> ProblemError:
        now = self._clock()
        running = self._store.list(TaskFilter(states=("starting", "running")), limit=50)
        left = [(task.expected_end - now).total_seconds() for task in running if task.expected_end is not None]
        wait = min((seconds for seconds in left if seconds > 0), default=30.0)
        seconds = math.ceil(min(max(wait, SHORTEST_WAIT), LONGEST_WAIT))
        return ProblemError(
            429, "queue-full", f"{what}; try again in {seconds} s", headers={"Retry-After": str(seconds)}
        )

    def _launch(
        self, owner: str, kind: str, request: Parameters, priority: Priority, reservation: Reservation
    ) -> FoundRun:
        try:
            spec = launch_spec(self._settings, kind, request, priority=priority, newest_bars=self._newest())
        except PipelineError as error:
            errors = [{"parameter": "parameters", "message": str(error), "value": None}]
            raise ProblemError(422, "invalid-parameters", str(error), errors=errors) from error
        tags = {**spec.tags, REQUEST: reservation.id, OWNER: owner, STARTED_BY: "api"}
        return self._control.launch(spec.job, spec.run_config, tags)

    def _enter(self, run: FoundRun, reservation: Reservation) -> Task:
        """Enter the task of a run as the relay would, and say what the request has become."""
        tags = run.tags
        task = self._store.enter(
            Launched(
                run.run_id,
                tags[KIND],
                run.job,
                run.created_at,
                owner=tags[OWNER],
                priority=priority_of(tags),
                parameters=asked_of(tags),
            )
        )
        self._store.attach(reservation, task.id)
        return task


def _in_progress(age: timedelta) -> ProblemError:
    seconds = max(1, math.ceil((LEASE - age).total_seconds()))
    return ProblemError(
        409,
        "request-in-progress",
        "a request with this idempotency key is being carried out; ask again with the same key",
        headers={"Retry-After": str(min(seconds, 5))},
    )
